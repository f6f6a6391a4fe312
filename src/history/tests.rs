//! The history on real SQLite files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;

use super::entry::{AreaMinute, Batch, ClassMinute, Snapshot};
use super::retention::{self, SteadyClock};
use super::schema::{STEPS, migrate, version};
use super::store::{FILE, Store};
use super::*;
use crate::base::database_file::NewFolders;
use crate::events::{EndReason, Event, EventMessage, EventPhase};
use crate::frame::{Label, Labels, Mask, PixelFormat, Rgb, VideoInfo};
use crate::publish::jpeg_broadcast::JpegBroadcast;
use crate::publish::outputs::StreamOutputs;
use crate::sink::{MaskSink, StreamMask};
use crate::zones::{Zone, ZoneMeter, Zones};

/// Guards against hanging.
const DEADLINE: Duration = Duration::from_secs(180);

const DAY: Duration = Duration::from_secs(86_400);

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn event(id: &str, start_ms: i64) -> Event {
    Event {
        id: id.into(),
        stream: "gate".into(),
        rule: "blocked".into(),
        zone: Some("bay, left".into()),
        classes: ["car".to_owned(), "\"><script>".to_owned()].into(),
        start: at(start_ms),
        end: None,
        end_reason: None,
        share: 0.25,
        peak_share: 0.25,
        peak: at(start_ms + 100),
    }
}

fn ended(id: &str, start_ms: i64, end_ms: i64) -> Event {
    Event { end: Some(at(end_ms)), end_reason: Some(EndReason::Cleared), ..event(id, start_ms) }
}

fn batch(events: &[Event]) -> Batch {
    let message = |event: &Event| Arc::new(EventMessage { phase: EventPhase::Start, event: event.clone() });
    Batch { events: events.iter().map(message).collect(), ..Batch::default() }
}

fn reader(dir: &Path) -> HistoryReader {
    HistoryReader::new(dir.join(FILE), Arc::default())
}

fn ids(reader: &HistoryReader, query: EventQuery) -> Vec<String> {
    let found = reader.events(&EventQuery { limit: query.limit.max(1), ..query }).unwrap().unwrap();
    found.iter().map(|found| found.event.id.to_string()).collect()
}

fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let (deadline, tick) = (Instant::now() + DEADLINE, crossbeam_channel::tick(Duration::from_millis(10)));
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        let _ = tick.recv();
    }
}

#[test]
fn an_event_is_inserted_at_its_start_and_does_not_change_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, reader) = (Store::open(folder.path(), NewFolders::All).unwrap(), reader(folder.path()));
    let begun = event("a", 1000);
    store.write(&batch(std::slice::from_ref(&begun))).unwrap();
    assert_eq!(reader.event("a").unwrap().unwrap().event, begun);
    let peak = Event { share: 0.5, peak_share: 0.5, peak: at(1500), ..begun.clone() };
    let end = Event { end: Some(at(2000)), end_reason: Some(EndReason::Removed), share: 0.1, ..peak.clone() };
    store.write(&batch(std::slice::from_ref(&peak))).unwrap();
    assert_eq!(reader.event("a").unwrap().unwrap().event, peak);
    store.write(&batch(&[end.clone(), begun.clone()])).unwrap();
    let found = reader.event("a").unwrap().unwrap();
    assert_eq!(found, StoredEvent { event: end, has_start_snapshot: false, has_peak_snapshot: false });
    assert_eq!(reader.event("b").unwrap(), None);
    // The message about the start was lost.
    let whole = Event { zone: None, ..ended("c", 5, 6) };
    store.write(&batch(std::slice::from_ref(&whole))).unwrap();
    assert_eq!(reader.event("c").unwrap().unwrap().event, whole);
}

#[test]
fn events_are_found_by_time_stream_and_rule_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, reader) = (Store::open(folder.path(), NewFolders::All).unwrap(), reader(folder.path()));
    let other = Event { stream: "yard".into(), rule: "left".into(), ..ended("d", 400, 400) };
    store
        .write(&batch(&[ended("a", 100, 900), ended("b", 200, 300), ended("c", 200, 250), other, event("e", 500)]))
        .unwrap();
    let all = || EventQuery { limit: 10, ..EventQuery::default() };
    assert_eq!(ids(&reader, all()), ["e", "d", "c", "b", "a"]);
    let range = |from: i64, to: i64| EventQuery { from: Some(at(from)), to: Some(at(to)), ..all() };
    assert_eq!(ids(&reader, range(260, 400)), ["b", "a"]);
    assert_eq!(ids(&reader, range(400, 401)), ["d", "a"], "a moment is in a range that begins with it");
    assert_eq!(ids(&reader, range(2000, 3000)), ["e"], "it lasts");
    assert_eq!(ids(&reader, range(0, 100)), [""; 0]);
    assert_eq!(ids(&reader, EventQuery { stream: Some("yard".into()), ..all() }), ["d"]);
    assert_eq!(ids(&reader, EventQuery { rule: Some("blocked".into()), ..all() }), ["e", "c", "b", "a"]);
    let page = |before: &str| EventQuery { before: Some(before.into()), limit: 2, ..all() };
    assert_eq!(ids(&reader, EventQuery { limit: 2, ..all() }), ["e", "d"]);
    assert_eq!(ids(&reader, page("d")), ["c", "b"]);
    assert_eq!(ids(&reader, page("b")), ["a"]);
    assert_eq!(reader.events(&page("?")).unwrap(), None);
}

fn labels(names: &[&str]) -> Labels {
    names.iter().map(|name| Label::new(*name, Rgb(1, 2, 3))).collect()
}

/// A mask of one row, captured at a second since 1970.
fn mask(labels: &Labels, classes: [u8; 4], zones: &Zones, second: i64) -> StreamMask {
    let (classes, labels, captured_at) = (classes.to_vec(), Arc::clone(labels), Instant::now());
    let (pts, model) = (Duration::ZERO, "m".into());
    let mask = Mask {
        seq: 0,
        pts,
        captured_at,
        width: 4,
        height: 1,
        classes,
        labels,
        model,
        guide: None,
        probable: None,
        confirmed: false,
        seen: None,
    };
    let counts = ZoneMeter::new(Arc::clone(zones)).measure(&mask);
    let mut mask = StreamMask::new(&"gate".into(), Arc::new(mask), VideoInfo::new(PixelFormat::I420, 2, 2), counts);
    mask.captured = at(second * 1000);
    mask
}

fn left_half() -> Zones {
    let polygon = vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]];
    [Arc::new(Zone { name: Some("left".into()), polygon })].into()
}

/// A history whose stream `gate` is counted.
fn history(dir: &Path, max_size: u64) -> (History, Arc<StreamMinutes>, JpegBroadcast) {
    let history = History::new(dir, 30 * DAY, max_size);
    let (minutes, jpeg) = (Arc::new(StreamMinutes::new("gate")), JpegBroadcast::default());
    history.streams.set(std::iter::once(HistoryStream { minutes: Arc::clone(&minutes), jpeg: jpeg.clone() }));
    (history, minutes, jpeg)
}

fn shares(reader: &HistoryReader, zone: Option<&str>, class: Option<&str>, step: i64) -> StoredShares {
    let (zone, class) = (zone.map(str::to_owned), class.map(str::to_owned));
    reader.shares(&ShareQuery { stream: "gate".into(), zone, class, from: at(0), to: at(86_400_000), step }).unwrap()
}

/// The shares of a class.
fn class(shares: &StoredShares, name: &str) -> Vec<(f64, f64)> {
    shares.classes.get(name).cloned().unwrap_or_default()
}

#[test]
fn minutes_have_mean_and_maximum_of_each_class_by_zone() {
    let folder = tempfile::tempdir().unwrap();
    let (history, minutes, _) = history(folder.path(), 1 << 30);
    let (first, second, zones) = (labels(&["road", "car", "car", "cat"]), labels(&["cat", "road"]), left_half());
    let mut sink = MinuteSink(Arc::clone(&minutes));
    let mut push = |labels, classes, second| sink.push(&mask(labels, classes, &zones, second)).unwrap();
    push(&first, [1, 1, 0, 0], 0);
    push(&first, [2, 0, 0, 200], 59);
    assert_eq!(history.streams.take_minutes(Some(at(59_999))).minutes, [], "it is not over");
    push(&first, [0, 0, 0, 0], 60);
    let taken = history.streams.take_minutes(Some(at(61_000))).minutes;
    let named = |class: &str, sum, max| ClassMinute { class: class.into(), sum, max };
    let frame = [named("road", 1.0, 0.5), named("car", 0.75, 0.5), named("200", 0.25, 0.25)];
    let left = [named("road", 0.5, 0.5), named("car", 1.5, 1.0)];
    let area = |zone: Option<&str>, classes: &[ClassMinute]| AreaMinute {
        stream: "gate".into(),
        zone: zone.map(Into::into),
        minute: 0,
        masks: 2,
        classes: classes.into(),
    };
    assert_eq!(taken, [area(None, &frame), area(Some("left"), &left)]);

    // The model is changed in the second minute, and then the clock is set back into the first one.
    push(&second, [0, 0, 0, 0], 70);
    push(&second, [1, 1, 0, 0], 30);
    let mut store = Store::open(folder.path(), NewFolders::All).unwrap();
    store.write(&Batch { minutes: taken, ..Batch::default() }).unwrap();
    let rest = history.streams.take_minutes(None);
    assert_eq!((rest.minutes.len(), rest.lost), (6, 0));
    store.write(&Batch { minutes: rest.minutes, ..Batch::default() }).unwrap();

    let found = shares(&history.reader, None, None, 1);
    assert_eq!((found.times.as_slice(), found.is_known), (&[0, 60_000][..], true));
    assert_eq!(class(&found, "road"), [(1.5 / 3.0, 0.5), (0.5, 1.0)]);
    assert_eq!(class(&found, "car"), [(0.25, 0.5), (0.0, 0.0)]);
    assert_eq!(class(&found, "cat"), [(0.5 / 3.0, 0.5), (0.5, 1.0)]);
    assert_eq!(shares(&history.reader, Some("left"), Some("car"), 1).classes.len(), 1);
    let whole = shares(&history.reader, Some("left"), None, 2);
    assert_eq!(whole.times, [0]);
    assert_eq!((class(&whole, "car"), class(&whole, "road")), (vec![(1.5 / 5.0, 1.0)], vec![(2.5 / 5.0, 1.0)]));
    assert!(!shares(&history.reader, Some("right"), None, 1).is_known);
}

#[test]
fn minutes_that_cannot_be_stored_wait_up_to_a_limit_and_removed_streams_are_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let (history, minutes, _) = history(folder.path(), 1 << 30);
    let (labels, zones) = (labels(&["road"]), [].into());
    let mut sink = MinuteSink(Arc::clone(&minutes));
    for minute in 0..1100 {
        sink.push(&mask(&labels, [0; 4], &zones, 60 * minute)).unwrap();
    }
    let taken = history.streams.take_minutes(Some(at(60_000 * 1099)));
    assert_eq!((taken.minutes.len(), taken.minutes[0].minute, taken.lost), (1080, 19, 19));
    history.streams.set(std::iter::empty());
    assert_eq!(
        history.streams.take_minutes(Some(at(60_000 * 1099))).minutes.len(),
        1,
        "the last minute of a removed stream"
    );
    sink.push(&mask(&labels, [0; 4], &zones, 0)).unwrap();
    assert_eq!(history.streams.take_minutes(None).minutes.len(), 0);
}

#[test]
fn a_file_of_an_older_version_keeps_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Connection::open(folder.path().join(FILE)).unwrap();
    migrate(&mut old, &STEPS[..1]).unwrap();
    let insert = "INSERT INTO event VALUES ('old', 'gate', 'r', NULL, '[\"car\"]', 5, 9, 'unknown', 0.5, 0.75, 7, 9)";
    old.execute(insert, []).unwrap();
    drop(old);
    let mut store = Store::open(folder.path(), NewFolders::All).unwrap();
    assert_eq!(version(store.connection()).unwrap(), STEPS.len());
    let jpeg = Bytes::from_static(b"jpeg");
    let snapshot = |event: &str| Snapshot { event: event.into(), kind: SnapshotKind::Peak, jpeg: jpeg.clone() };
    let snapshots = vec![snapshot("old"), snapshot("deleted meanwhile")];
    store.write(&Batch { snapshots, ..Batch::default() }).unwrap();
    let reader = reader(folder.path());
    let found = reader.event("old").unwrap().unwrap();
    assert_eq!((found.has_start_snapshot, found.has_peak_snapshot), (false, true));
    assert_eq!((found.event.end_reason, found.event.peak_share), (Some(EndReason::Unknown), 0.75));
    assert_eq!(reader.snapshot("old", SnapshotKind::Peak).unwrap().as_deref(), Some(&jpeg[..]));
    assert_eq!(reader.snapshot("old", SnapshotKind::Start).unwrap(), None);
    store.close().unwrap();

    let newer = Connection::open(folder.path().join(FILE)).unwrap();
    newer.pragma_update(None, "user_version", STEPS.len() + 1).unwrap();
    let error = Store::open(folder.path(), NewFolders::All).unwrap_err();
    assert!(matches!(error, HistoryError::TooNew { found: 3, known: 2, .. }) && !error.is_damage(), "{error}");
    assert_eq!(version(&newer).unwrap(), 3, "it is not changed");
}

#[test]
fn only_one_process_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), NewFolders::All).unwrap();
    assert!(matches!(Store::open(folder.path(), NewFolders::All), Err(HistoryError::InUse { .. })));
    store.close().unwrap();
    Store::open(folder.path(), NewFolders::All).unwrap().close().unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(folder.path().join(FILE)).unwrap());
    assert_eq!(mode & 0o777, 0o600, "snapshots are not for other users");
}

/// Two hundred events with snapshots of twenty kilobytes, one a minute, and the minutes.
fn filled(dir: &Path) -> Store {
    let mut store = Store::open(dir, NewFolders::All).unwrap();
    for n in 0..200 {
        let id = format!("{n:03}");
        let start = 60_000 * n;
        let events = [if n == 0 { event(&id, start) } else { ended(&id, start, start + 500) }];
        let classes = (0..8).map(|class| ClassMinute { class: format!("class {class}"), sum: 1.0, max: 0.5 }).collect();
        let minute = AreaMinute { stream: "gate".into(), zone: None, minute: n, masks: 600, classes };
        let jpeg = Bytes::from(vec![7; 20_000]);
        let snapshots = vec![Snapshot { event: id.as_str().into(), kind: SnapshotKind::Start, jpeg }];
        store.write(&Batch { snapshots, minutes: vec![minute], ..batch(&events) }).unwrap();
    }
    store
}

#[test]
fn the_oldest_entries_are_deleted_when_the_file_is_too_large() {
    const MAX: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let mut store = filled(folder.path());
    assert!(store.bytes().unwrap() > 4 * MAX);
    until("it is small enough", || {
        retention::apply(&mut store, None, MAX).unwrap();
        (store.bytes().unwrap() <= MAX).then_some(())
    });
    assert!(store.bytes().unwrap() > MAX / 4, "not everything was deleted");
    store.close().unwrap();
    assert!(std::fs::metadata(folder.path().join(FILE)).unwrap().len() <= MAX);
    let reader = reader(folder.path());
    let left = ids(&reader, EventQuery { limit: 1000, ..EventQuery::default() });
    assert!(
        left.first().unwrap() == "199" && left.last().unwrap() == "000",
        "the newest, and the one that lasts: {left:?}"
    );
    let oldest: i64 = left[left.len() - 2].parse().unwrap();
    assert!((100..199).contains(&oldest), "{left:?}");
    let minutes = shares(&reader, None, None, 1).times;
    assert_eq!(minutes.last(), Some(&(199 * 60_000)));
    assert!(minutes[0] >= (oldest - 1) * 60_000, "minutes are as old as events: {} {oldest}", minutes[0]);
}

#[test]
fn entries_that_are_too_old_are_deleted_with_their_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = filled(folder.path());
    let apply =
        || Some(retention::apply(&mut store, Some(150 * 60_000), u64::MAX).unwrap()).filter(|removed| *removed > 0);
    let removed: u64 = std::iter::from_fn(apply).sum();
    assert_eq!(removed, 149 + 150, "events and minutes");
    let reader = reader(folder.path());
    assert_eq!(ids(&reader, EventQuery { limit: 1000, ..EventQuery::default() }).len(), 51);
    assert_eq!(reader.snapshot("149", SnapshotKind::Start).unwrap(), None);
    assert!(reader.snapshot("150", SnapshotKind::Start).unwrap().is_some());
    assert_eq!(shares(&reader, None, None, 1).times.first(), Some(&(150 * 60_000)));
    let left: i64 = store.connection().query_row("SELECT count(*) FROM share", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 50 * 8);
}

#[test]
fn nothing_is_too_old_until_the_clock_has_run_evenly_for_ten_minutes() {
    let (mut clock, wall, start) = (SteadyClock::default(), at(0), Instant::now());
    let mut is_steady = |wall_s: u64, monotonic_s: u64| {
        clock.is_steady(wall + Duration::from_secs(wall_s), start + Duration::from_secs(monotonic_s))
    };
    assert_eq!(
        [(0, 0), (599, 599), (610, 600)].map(|(wall, monotonic)| is_steady(wall, monotonic)),
        [false, false, true]
    );
    // A time server sets the clock.
    let later = [(1_000_000, 700), (1_000_500, 1200), (1_000_600, 1300)];
    assert_eq!(later.map(|(wall, monotonic)| is_steady(wall, monotonic)), [false, false, true]);
}

#[test]
fn events_that_a_previous_process_did_not_end_are_ended_when_they_were_last_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), NewFolders::All).unwrap();
    let early = Event { stream: "yard".into(), ..event("early", 500) };
    let seen = vec![(Arc::from("gate"), 7000), (Arc::from("hall"), 9000)];
    store.write(&Batch { seen, ..batch(&[event("lasts", 1000), ended("ended", 2000, 3000), early]) }).unwrap();
    store.write(&Batch { seen: vec![("gate".into(), 6000)], ..Batch::default() }).unwrap();
    store.close().unwrap();
    let (history, ..) = history(folder.path(), 1 << 30);
    let hub: Arc<EventHub> = Arc::default();
    let received = hub.queue();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    let messages = || (*received.messages.recv_timeout(DEADLINE).unwrap()).clone();
    for (id, end) in [("early", 600), ("lasts", 7000)] {
        let EventMessage { phase, event } = messages();
        assert_eq!((phase, &*event.id, event.end), (EventPhase::End, id, Some(at(end))));
        assert_eq!(event.end_reason, Some(EndReason::Restart));
    }
    threads.stop(DEADLINE);
    assert!(received.messages.is_empty());
    assert_eq!(history.reader.event("lasts").unwrap().unwrap().event.end, Some(at(7000)));
    assert_eq!(history.reader.event("ended").unwrap().unwrap().event.end_reason, Some(EndReason::Cleared));
}

#[test]
fn snapshots_are_the_next_frames_and_rare() {
    let folder = tempfile::tempdir().unwrap();
    let (history, _, jpeg) = history(folder.path(), 1 << 30);
    let run = StreamOutputs::default().begin_run();
    let hub: Arc<EventHub> = Arc::default();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    jpeg.publish(&run, Bytes::from_static(b"before"));
    let send = |phase, id: &str| hub.send(EventMessage { phase, event: event(id, 1000) });
    let until_wanted = || until("a frame is wanted", || (jpeg.viewers() == 1).then_some(()));
    send(EventPhase::Start, "a");
    // Less than a second after the first.
    send(EventPhase::Start, "b");
    until_wanted();
    jpeg.publish(&run, Bytes::from_static(b"first"));
    let snapshot = |kind| history.reader.snapshot("a", kind).ok().flatten();
    assert_eq!(until("it is stored", || snapshot(SnapshotKind::Start)), b"first");
    send(EventPhase::Peak, "a");
    send(EventPhase::Peak, "a");
    until_wanted();
    jpeg.publish(&run, Bytes::from_static(b"second"));
    assert_eq!(until("it is stored", || snapshot(SnapshotKind::Peak)), b"second");
    assert_eq!(jpeg.viewers(), 0, "the second message about the peak comes too soon");
    jpeg.publish(&run, Bytes::from_static(b"third"));
    threads.stop(DEADLINE);
    let found = history.reader.event("a").unwrap().unwrap();
    assert!(found.has_start_snapshot && found.has_peak_snapshot);
    assert_eq!(snapshot(SnapshotKind::Peak).unwrap(), b"second");
    assert!(!history.reader.event("b").unwrap().unwrap().has_start_snapshot);
    assert_eq!((history.status.stored(), history.status.lost()), (6, 0));
}

/// The names of the files that were moved aside.
fn damaged(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("history-damaged-") && name.ends_with(".sqlite")).collect()
}

#[test]
fn a_file_that_is_no_database_is_kept_and_a_new_one_begun() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), "not a database, and long enough to have a header".repeat(100)).unwrap();
    let (history, ..) = history(folder.path(), 1 << 30);
    let hub: Arc<EventHub> = Arc::default();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    hub.send(EventMessage { phase: EventPhase::Start, event: event("a", 1000) });
    until("the event is stored", || history.reader.event("a").ok().flatten());
    threads.stop(DEADLINE);
    let [kept] = damaged(folder.path()).try_into().unwrap();
    assert!(std::fs::read_to_string(folder.path().join(kept)).unwrap().starts_with("not a database"));
    assert_eq!((history.status.failures(), history.status.problem(), history.status.lost()), (1, None, 0));
}

#[test]
fn a_damaged_database_is_kept_and_a_new_one_begun() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).close().unwrap();
    let path = folder.path().join(FILE);
    let mut content = std::fs::read(&path).unwrap();
    // All pages but the first, which has the schema.
    content[4096..].fill(0x5a);
    std::fs::write(&path, content).unwrap();
    let (history, ..) = history(folder.path(), 1 << 30);
    let hub: Arc<EventHub> = Arc::default();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    until("the damage is found", || {
        // A query fails, or the writer was faster.
        let _ = history.reader.events(&EventQuery { limit: 10, ..EventQuery::default() });
        (damaged(folder.path()).len() == 1).then_some(())
    });
    hub.send(EventMessage { phase: EventPhase::Start, event: event("a", 1000) });
    until("the event is stored", || history.reader.event("a").ok().flatten());
    threads.stop(DEADLINE);
    assert_eq!(damaged(folder.path()).len(), 1);
}

#[test]
fn what_comes_while_the_folder_cannot_be_used_is_stored_later() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let (history, minutes, _) = history(&blocked.join("state"), 1 << 30);
    let hub: Arc<EventHub> = Arc::default();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    let problem = until("it fails", || history.status.problem());
    assert!(problem.contains("file/state") && problem.contains("directory"), "{problem}");
    let mut sink = MinuteSink(minutes);
    let labels = labels(&["road"]);
    for n in 0..50 {
        hub.send(EventMessage { phase: EventPhase::Start, event: event(&format!("{n:02}"), n) });
        sink.push(&mask(&labels, [0; 4], &[].into(), 60 * n)).unwrap();
    }
    assert!(history.reader.event("00").is_err());
    std::fs::remove_file(&blocked).unwrap();
    until("it works again", || history.status.problem().is_none().then_some(()));
    threads.stop(DEADLINE);
    assert_eq!(ids(&history.reader, EventQuery { limit: 100, ..EventQuery::default() }).len(), 50);
    assert_eq!(shares(&history.reader, None, None, 1).times.len(), 50);
    assert_eq!((history.status.stored(), history.status.lost()), (100, 0));
}

#[test]
fn a_database_that_is_removed_is_created_again_with_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let (history, ..) = history(&dir, 1 << 30);
    let hub: Arc<EventHub> = Arc::default();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    let found = |id: &str| history.reader.event(id).ok().flatten();
    let send = |phase, event| hub.send(EventMessage { phase, event });
    send(EventPhase::Start, event("lasts", 1000));
    send(EventPhase::End, ended("ended", 1000, 2000));
    until("they are stored", || found("lasts").and(found("ended")));
    std::fs::remove_dir_all(&dir).unwrap();
    // Without anything to write.
    until("it is there again", || found("lasts"));
    assert_eq!(found("ended"), None, "it was in the old file only");
    assert_eq!((history.status.failures(), history.status.problem()), (1, None));
    // Again, just before the stop.
    std::fs::remove_file(dir.join(FILE)).unwrap();
    send(EventPhase::Start, event("last", 3000));
    threads.stop(DEADLINE);
    assert!(found("last").is_some() && found("lasts").is_some());
    assert_eq!(history.status.lost(), 0);
}
