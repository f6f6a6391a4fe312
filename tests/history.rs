//! The history as a whole: the real program stores events with snapshots, and both a killed program and a killed writer leave
//! a database in which nothing is half there.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::harness;
use common::http::{get, get_bytes, get_json};
use common::program::{Guard, until};
use common::service::{Service, folder};
use jiff::Timestamp;
use maskcast::events::{EndReason, Event, EventHub, EventMessage, EventPhase};
use maskcast::frame::{Label, Labels, Mask, PixelFormat, Rgb, VideoInfo};
use maskcast::history::{History, HistoryStream, HistoryThreads, MinuteSink, StreamMinutes};
use maskcast::sink::{MaskSink, StreamMask};
use maskcast::zones::{Zone, ZoneMeter, Zones};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// Set in the processes that are killed: the number of the process.
const CHILD: &str = "MASKCAST_TEST_HISTORY_CHILD";

/// Their folder.
const CHILD_FOLDER: &str = "MASKCAST_TEST_HISTORY_FOLDER";

/// How often the writer is killed.
const KILLS: usize = 100;

/// Events between two acknowledgements. Every fourth one does not end.
const ROUND: usize = 20;

const DAY: Duration = Duration::from_secs(86_400);

fn main() {
    if let (Ok(number), Some(folder)) = (std::env::var(CHILD), std::env::var_os(CHILD_FOLDER)) {
        write_until_killed(number.parse().unwrap(), Path::new(&folder));
    }
    harness::main(tests![
        nothing_is_half_there_after_the_writer_was_killed_a_hundred_times,
        an_event_of_a_killed_program_is_ended_by_the_next_one,
        without_a_folder_there_is_no_history,
    ]);
}

fn event(id: String, at: Timestamp) -> Event {
    Event {
        id: id.into(),
        stream: "gate".into(),
        rule: "blocked".into(),
        zone: None,
        classes: ["car".to_owned()].into(),
        start: at,
        end: None,
        end_reason: None,
        share: 0.5,
        peak_share: 0.5,
        peak: at,
    }
}

fn id(process: usize, n: usize) -> String {
    format!("{process:03}-{n:06}")
}

/// A mask whose left half is of class 1, in the minute of this number since 1970.
fn mask(labels: &Labels, zones: &Zones, minute: u64) -> StreamMask {
    let (pts, captured_at, labels) = (Duration::ZERO, Instant::now(), Arc::clone(labels));
    let (classes, model) = (vec![1, 1, 0, 0], "m".into());
    let mask = Mask {
        seq: minute,
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
    mask.captured = Timestamp::UNIX_EPOCH + Duration::from_secs(60 * minute);
    mask
}

/// Stores events and minutes as fast as it can, and prints the number of events that a reader has found: they are acknowledged.
fn write_until_killed(process: usize, folder: &Path) -> ! {
    let history = History::new(folder, 36_500 * DAY, 1 << 40);
    let minutes = Arc::new(StreamMinutes::new("gate"));
    let stream = HistoryStream { minutes: Arc::clone(&minutes), jpeg: Default::default() };
    history.streams.set(std::iter::once(stream));
    let hub: Arc<EventHub> = Arc::default();
    let _threads = HistoryThreads::start(&history, &hub).unwrap();
    let labels: Labels = ["road", "car"].map(|name| Label::new(name, Rgb(0, 0, 0))).into();
    let polygon = vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]];
    let zones: Zones = [Arc::new(Zone { name: Some("left".into()), polygon })].into();
    let mut sink = MinuteSink(minutes);
    let mut out = std::io::stdout().lock();
    for first in (0..).step_by(ROUND) {
        for n in first..first + ROUND {
            let begun = event(id(process, n), Timestamp::now());
            let ended = Event {
                end: Some(begun.start),
                end_reason: Some(EndReason::Cleared),
                peak_share: 0.75,
                ..begun.clone()
            };
            hub.send(EventMessage { phase: EventPhase::Start, event: begun });
            if n % 4 != 0 {
                hub.send(EventMessage { phase: EventPhase::End, event: ended });
            }
            sink.push(&mask(&labels, &zones, 1_000_000 * process as u64 + n as u64)).unwrap();
        }
        let last = id(process, first + ROUND - 1);
        let is_stored = || history.reader.event(&last).ok().flatten().is_some_and(|found| found.event.end.is_some());
        while !is_stored() {
            std::thread::yield_now();
        }
        writeln!(out, "{}", first + ROUND).unwrap();
        out.flush().unwrap();
    }
    unreachable!("it is killed")
}

/// Starts a writer, kills it at some moment after its first acknowledgement, and returns the number of acknowledged events.
fn acknowledged_until_killed(process: usize, folder: &Path, random: &mut fastrand::Rng) -> usize {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, process.to_string()).env(CHILD_FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Guard::spawn(&mut command);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let (sender, received) = crossbeam_channel::unbounded();
    let reading = std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut acknowledged: usize = received.recv().unwrap().parse().unwrap();
    let kill_at = Instant::now() + Duration::from_micros(random.u64(0..40_000));
    while let Ok(line) = received.recv_deadline(kill_at) {
        acknowledged = line.parse().unwrap();
    }
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    reading.join().unwrap().unwrap();
    received.try_iter().last().map_or(acknowledged, |line| line.parse().unwrap())
}

fn number(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn nothing_is_half_there_after_the_writer_was_killed_a_hundred_times() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut total = 0;
    for process in 0..KILLS {
        let acknowledged = acknowledged_until_killed(process, folder.path(), &mut random);
        let database = Connection::open(folder.path().join("history.sqlite")).unwrap();
        let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{process}");
        assert_eq!(number(&database, "SELECT count(*) FROM pragma_foreign_key_check"), 0);

        // The events of this process are its first ones without a gap, and all that were acknowledged.
        let mut statement = database
            .prepare("SELECT id, end_ms, end_reason, peak_share FROM event WHERE id LIKE ? ORDER BY id")
            .unwrap();
        let rows = statement.query_map([format!("{process:03}-%")], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, Option<i64>>(1)?,
                row.get::<_, Option<String>>(2)?,
                row.get::<_, f64>(3)?,
            ))
        });
        let events: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        assert!(events.len() >= acknowledged && acknowledged > 0, "{process}: {} of {acknowledged}", events.len());
        for (n, (found, end, reason, peak)) in events.iter().enumerate() {
            assert_eq!(*found, id(process, n));
            let is_ended = n % 4 != 0 && (n < acknowledged || end.is_some());
            let expected = if is_ended { (true, Some("cleared"), 0.75) } else { (false, None, 0.5) };
            assert_eq!((end.is_some(), reason.as_deref(), *peak), expected, "{process} {n} {acknowledged}");
        }
        // Those of the previous process have been ended by this one.
        let open = format!("SELECT count(*) FROM event WHERE end_ms IS NULL AND id < '{process:03}-'");
        assert_eq!(number(&database, &open), 0, "{process}");
        // A minute is there with its classes: the frame has two, the zone one.
        let minutes = number(&database, "SELECT count(*) FROM minute");
        assert!(minutes > 0 || process == 0);
        let halves = "SELECT count(*) FROM minute JOIN area ON area.id = minute.area WHERE masks != 1 OR
             (SELECT count(*) FROM share WHERE share.area = area.id AND share.time = minute.time
                 AND sum = max AND max = CASE zone WHEN '' THEN 0.5 ELSE 1.0 END)
             != CASE zone WHEN '' THEN 2 ELSE 1 END";
        let rows = "SELECT group_concat(area || ' ' || time || ' ' || masks || ' ' || (SELECT group_concat(sum || ' ' || max)
             FROM share WHERE share.area = minute.area AND share.time = minute.time), '; ') FROM (SELECT * FROM minute ORDER BY time DESC LIMIT 6) AS minute";
        let newest: Option<String> = database.query_row(rows, [], |row| row.get(0)).unwrap();
        assert_eq!(number(&database, halves), 0, "{process}: the newest minutes are {newest:?}");
        let orphans = "SELECT count(*) FROM share WHERE NOT EXISTS
             (SELECT 1 FROM minute WHERE minute.area = share.area AND minute.time = share.time)";
        assert_eq!(number(&database, orphans), 0, "{process}");
        total += events.len() as i64;
        assert_eq!(
            number(&database, "SELECT count(*) FROM event"),
            total,
            "{process}: events of earlier processes remain"
        );
    }
    println!("{total} events, {KILLS} kills");
}

/// Every pixel is of the class red, from the first frame on.
fn streams(history: &str) -> String {
    format!(
        "[history]\n{history}\n[[stream]]\nname = \"gate\"\n\
         source = \"gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue\"\n\
         [[stream.zone]]\nname = \"left\"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n\
         [[stream.rule]]\nname = \"alarm\"\nclasses = [\"red\"]\nzone = \"left\"\nshare = 0.5\nfor = \"0s\"\n\
         [stream.record]\ndir = \"rec\"\n"
    )
}

fn problem(url: &str) -> (u16, String) {
    let (status, body) = get(url);
    let problem: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{url}: {error}: {body}"));
    (status, problem["detail"].as_str().unwrap_or_else(|| panic!("{url}: {body}")).to_owned())
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

fn an_event_of_a_killed_program_is_ended_by_the_next_one() {
    let folder = folder();
    let streams = streams("dir = \"state\"");
    let service = Service::ready(folder.path(), &streams);
    let url = |service: &Service, path: &str| format!("{}api/v1/{path}", service.page);
    let listed =
        |service: &Service, query: &str| get_json(&url(service, &format!("events{query}"))).as_array().unwrap().clone();
    let first = until("the event has a snapshot and a recording", || {
        let found = listed(&service, "").first()?.clone();
        (found["snapshots"]["start"].is_string() && found["recording"].is_object()).then_some(found)
    });
    let text = |key: &str| first[key].as_str().unwrap();
    assert_eq!((text("stream"), text("rule"), text("zone")), ("gate", "alarm", "left"));
    assert_eq!((&first["classes"], &first["share"], first.get("end")), (&json!(["red"]), &json!(1.0), None));
    assert_eq!(first["snapshots"]["peak"], Value::Null, "the share was never higher than at the start");
    let start = time(&first["start"]);
    let root = service.page.trim_end_matches('/').to_owned();
    let (status, jpeg) = get_bytes(&format!("{root}{}", first["snapshots"]["start"].as_str().unwrap()));
    assert!(status == 200 && jpeg.starts_with(&[0xff, 0xd8]) && jpeg.len() > 1000, "{status}, {} bytes", jpeg.len());
    let recording = &first["recording"];
    let offset = recording["offset_s"].as_f64().unwrap();
    assert!((0.0..5.0).contains(&offset), "{recording}");
    assert_eq!(get_bytes(&format!("{root}{}", recording["url"].as_str().unwrap())).0, 200);
    let event_id = text("id");
    assert_eq!(get_json(&url(&service, &format!("events/{event_id}")))["rule"], "alarm");

    let missing = url(&service, "events/nothing");
    assert_eq!(problem(&missing), (404, "there is no event \"nothing\"".into()));
    assert_eq!(problem(&url(&service, &format!("events/{event_id}/peak.jpg"))).0, 404);
    for (query, expected) in [
        ("limit=0", "limit must be a number between 1 and 1000"),
        ("from=now", "from must be a time of RFC 3339"),
        ("before=nothing", "before must be the id of an event"),
        ("limit=1&limit=2", "the parameters cannot be read: duplicate parameter `limit`"),
        ("limits=1", "the parameters cannot be read: limits: unknown parameter `limits`, expected one of"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from must be before to"),
    ] {
        let (status, detail) = problem(&url(&service, &format!("events?{query}")));
        assert!(status == 400 && detail.starts_with(expected), "{query}: {status} {detail}");
    }
    assert_eq!(listed(&service, &format!("?before={event_id}")), [] as [Value; 0]);
    assert_eq!(listed(&service, "?stream=other"), [] as [Value; 0]);

    // The time until which it has lasted is stored again and again.
    let path = folder.path().join("state/history.sqlite");
    let reading = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let seen = || number(&reading, "SELECT seen_ms FROM event");
    let before = seen();
    let later = until("it is seen later", || Some(seen()).filter(|seen| *seen > before + 1000));
    drop(reading);
    let mut service = service;
    service.program.child.0.kill().unwrap();
    let killed_at = Timestamp::now();
    service.program.child.0.wait().unwrap();
    drop(service);

    let service = Service::ready(folder.path(), &streams);
    let ended = get_json(&url(&service, &format!("events/{event_id}")));
    assert_eq!((&ended["end_reason"], &ended["start"]), (&json!("restart"), &first["start"]));
    let end = time(&ended["end"]);
    assert!(end.as_millisecond() >= later && end <= killed_at && end > start, "{later} {end} {killed_at}");
    let next = until("the next event begins", || {
        listed(&service, "")
            .into_iter()
            .find(|event| event["id"] != first["id"] && event["snapshots"]["start"].is_string())
    });
    assert!(time(&next["start"]) > killed_at && next.get("end").is_none(), "{next}");
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("event ended by the restart: alarm") && !log.contains("ERROR"), "{log}");

    // The stop has stored the minute that was not over, and the time until which the event has lasted.
    let stopped_at = Timestamp::now();
    let service = Service::ready(folder.path(), &streams);
    let ended = get_json(&url(&service, &format!("events/{}", next["id"].as_str().unwrap())));
    let end = time(&ended["end"]);
    assert!(ended["end_reason"] == "restart" && end <= stopped_at && end > time(&next["start"]), "{ended}");
    for zone in ["", "?zone=left&class=red"] {
        let shares = get_json(&url(&service, &format!("streams/gate/history{zone}")));
        assert_eq!(shares["step_s"], 60);
        let [series] = shares["series"].as_array().unwrap().as_slice() else { panic!("{shares}") };
        assert_eq!(series["class"], "red", "classes that never occurred are not stored");
        let points = series["points"].as_array().unwrap();
        assert!(!points.is_empty());
        for point in points {
            assert_eq!((&point[1], &point[2]), (&json!(1.0), &json!(1.0)), "{shares}");
        }
    }
    let shares = url(&service, "streams/gate/history?zone=left");
    let mut csv = ureq::get(&shares).header("accept", "text/csv").call().unwrap();
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8");
    let csv = csv.body_mut().read_to_string().unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    // A minute may have been added since.
    let (status, by_parameter) = get(&format!("{shares}&format=csv"));
    assert!(status == 200 && by_parameter.lines().take(2).eq(lines[..2].iter().copied()), "{by_parameter}");
    assert!(lines[0] == "time,zone,class,mean,max" && lines[1].ends_with(":00Z,left,red,1,1"), "{lines:?}");
    assert_eq!(problem(&url(&service, "streams/gate/history?zone=right")).0, 404);
    assert_eq!(problem(&url(&service, "streams/gate/history?step=1s")).0, 400);
    assert_eq!(problem(&url(&service, "streams/other/history")).0, 404);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

fn without_a_folder_there_is_no_history() {
    let folder = folder();
    let service = Service::ready(folder.path(), &streams(""));
    for path in ["events", "events/x", "events/x/start.jpg", "streams/gate/history"] {
        let (status, detail) = problem(&format!("{}api/v1/{path}", service.page));
        assert!(status == 404 && detail.contains("set dir in [history]"), "{path}: {status} {detail}");
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("history is off: neither history.dir nor STATE_DIRECTORY is set"), "{log}");
    assert!(!folder.path().join("state").exists());
}
