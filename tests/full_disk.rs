//! Recordings and the history on a full disk.

mod common;
#[path = "recording/recordings.rs"]
mod recordings;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::clip;
use common::harness::{self, is_root};
use common::program::{run, until};
use common::service::{Service, folder};
use jiff::Timestamp;
use maskcast::events::{Event, EventHub, EventMessage, EventPhase};
use maskcast::history::{EventQuery, History, HistoryThreads};
use maskcast::outbox::{Cursor, EventQueue};
use recordings::{frames, list, stream};
use tempfile::TempDir;

/// Set in the namespaces that the test creates for users other than root.
const INSIDE: &str = "MASKCAST_TEST_NAMESPACE";

/// Users other than root can mount a tmpfs in their own user and mount namespaces, where the machine permits them.
fn main() {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]).stdin(Stdio::null());
        command
    };
    let is_permitted = || unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_root() && std::env::var_os(INSIDE).is_none() && is_permitted() {
        let program = std::env::current_exe().unwrap();
        let error = unshare().arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec();
        panic!("unshare: {error}");
    }
    harness::main(tests![
        a_full_disk_stops_only_the_recording_and_only_until_space_is_free if can_mount,
        the_oldest_recordings_are_deleted_for_min_free_and_without_any_the_recording_pauses if can_mount,
        a_full_disk_stops_only_the_history_and_only_until_space_is_free if can_mount,
        messages_that_wait_are_in_memory_while_the_disk_is_full if can_mount,
    ]);
}

/// A small tmpfs.
struct Disk(TempDir);

impl Disk {
    /// # Errors
    /// Why it cannot be mounted.
    fn mount(megabytes: u32) -> Result<Self, String> {
        let disk = Disk(tempfile::tempdir().unwrap());
        let size = format!("size={megabytes}m");
        let ended = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.0.path()));
        if ended.code == Some(0) { Ok(disk) } else { Err(ended.stderr.lines().next().unwrap_or_default().to_owned()) }
    }
}

fn can_mount() -> Result<(), String> {
    let mounted = Disk::mount(1).map(drop);
    mounted.map_err(|error| format!("mounting a tmpfs needs root or user namespaces: {error}"))
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

fn busy_stream(disk: &Disk, record: &str) -> String {
    let dir = format!("dir = \"{}\"", disk.0.path().display());
    stream(15, "", record)
        .replace("dir = \"rec\"", &dir)
        .replace("ball", "snow")
        .replace("encode.keyframe_interval = \"60s\"", "encode = { bitrate = 2000, keyframe_interval = \"1s\" }")
}

fn a_full_disk_stops_only_the_recording_and_only_until_space_is_free() {
    let disk = Disk::mount(4).unwrap();
    let folder = folder();
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 3 << 20]).unwrap();
    let service = Service::ready(folder.path(), &busy_stream(&disk, ""));
    let failures = || service.metrics().sum("maskcast_recording_failures_total", &[("stream", "gate")]);
    until("the disk is full", || (failures() >= 1.0).then_some(()));
    // The live stream continues.
    let published = service.published("gate");
    service.until_published("gate", published + 30);
    assert_eq!(service.stream("gate")["state"], "live");
    let first = list(&service).pop().unwrap();
    assert_eq!(first["complete"], false, "the recording is incomplete: {first}");
    let file = disk.0.path().join(first["name"].as_str().unwrap());
    assert!(clip::probe(&file).frames >= 15, "the incomplete recording can be played");
    std::fs::remove_file(&filler).unwrap();
    let newer = until("a new recording grows", || {
        let newest = list(&service).remove(0);
        (newest["name"] != first["name"] && newest["seconds"].as_f64() > Some(1.0)).then_some(newest)
    });
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    let log_has = |text: &str| log.lines().any(|line| line.contains("\"record\"") && line.contains(text));
    assert!(log_has("has stopped") && log_has("full") && log_has("recording works again"), "{log}");
    assert!(frames(&[disk.0.path().join(newer["name"].as_str().unwrap())]) >= 15);
}

fn the_oldest_recordings_are_deleted_for_min_free_and_without_any_the_recording_pauses() {
    let disk = Disk::mount(8).unwrap();
    let folder = folder();
    let service = Service::ready(folder.path(), &busy_stream(&disk, "segment = \"1s\"\nmin_free = \"6MB\""));
    let metrics = |name: &str, labels: &[(&str, &str)]| service.metrics().sum(name, labels);
    let removed = || metrics("maskcast_recordings_removed_total", &[("reason", "space")]);
    until("three recordings are deleted", || (removed() >= 3.0).then_some(()));
    let failures = || metrics("maskcast_recording_failures_total", &[]);
    assert_eq!(failures(), 0.0);

    // Another file leaves less than min_free even without recordings.
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 4 << 20]).unwrap();
    until("the recording pauses", || (failures() >= 1.0).then_some(()));
    let left: Vec<_> = list(&service);
    assert!(left.len() <= 1, "{left:?}");
    service.until_published("gate", service.published("gate") + 30);
    assert!(filler.exists());
    std::fs::remove_file(&filler).unwrap();
    until("the recording continues", || {
        list(&service).iter().any(|recording| recording["complete"] == false).then_some(())
    });
    let (_, _, log) = service.terminate();
    assert!(log.contains("less than min_free (6.0 MB)") && log.contains("retry in 5 s"), "{log}");
}

fn a_full_disk_stops_only_the_history_and_only_until_space_is_free() {
    let disk = Disk::mount(8).unwrap();
    let history = History::new(&disk.0.path().join("state"), Duration::from_secs(86_400), 1 << 30);
    let hub: Arc<EventHub> = Arc::default();
    let threads = HistoryThreads::start(&history, &hub).unwrap();
    let mut sent = 0;
    let mut send = || {
        let now = Timestamp::now();
        let event = Event {
            id: format!("{sent:04}").into(),
            stream: "gate".into(),
            rule: "blocked".into(),
            zone: None,
            classes: ["x".repeat(20_000)].into(),
            start: now,
            end: None,
            end_reason: None,
            share: 0.5,
            peak_share: 0.5,
            peak: now,
        };
        hub.send(EventMessage { phase: EventPhase::Start, event });
        sent += 1;
    };
    send();
    until("it works", || history.reader.event("0000").ok().flatten());
    let filler = disk.0.path().join("filler");
    // Fails at the end of the disk, and leaves no space.
    std::fs::write(&filler, vec![0; 9 << 20]).unwrap_err();
    let problem = until("it fails", || {
        send();
        history.status.problem()
    });
    assert!(problem.contains("full"), "{problem}");
    send();
    std::fs::remove_file(&filler).unwrap();
    until("it works again", || history.status.problem().is_none().then_some(()));
    threads.stop(Duration::from_secs(180));
    let found = history.reader.events(&EventQuery { limit: 10_000, ..EventQuery::default() }).unwrap().unwrap();
    assert_eq!((found.len(), history.status.lost()), (sent, 0));
    assert!(history.status.failures() >= 1);
}

/// The queue of MQTT and webhooks.
fn messages_that_wait_are_in_memory_while_the_disk_is_full() {
    let disk = Disk::mount(4).unwrap();
    let file = disk.0.path().join("queue.sqlite");
    let status = Arc::default();
    let mut queue = EventQueue::open(Some(&file), 10_000, Arc::clone(&status), "test").unwrap();
    let mut sent = 0;
    let mut push = |queue: &mut EventQueue| {
        queue.push(&[("gate", format!("{sent:0>20000}").into_bytes())]);
        sent += 1;
        status.is_stored() == Some(true)
    };
    assert!(push(&mut queue));
    let filler = disk.0.path().join("filler");
    // Fails at the end of the disk, and leaves no space.
    std::fs::write(&filler, vec![0; 5 << 20]).unwrap_err();
    assert!((0..1000).any(|_| !push(&mut queue)), "the disk is full");
    assert!(!push(&mut queue));
    std::fs::remove_file(&filler).unwrap();
    assert!(push(&mut queue), "space is free again");
    drop(queue);
    let mut queue = EventQueue::open(Some(&file), 10_000, Arc::default(), "test").unwrap();
    let number = |message: &[u8]| String::from_utf8(message.to_vec()).unwrap().parse::<usize>().unwrap();
    let found: Vec<usize> =
        queue.next(&mut Cursor::default(), 10_000).iter().map(|event| number(&event.message)).collect();
    assert_eq!(found, (0..sent).collect::<Vec<_>>(), "all are stored, in their order");
}
