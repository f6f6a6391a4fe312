//! Recordings on a disk that is full.

mod common;
#[path = "recording/recordings.rs"]
mod recordings;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::clip;
use common::harness::{self, is_root};
use common::program::{run, until};
use common::service::{Service, folder};
use recordings::{frames, list, stream};
use tempfile::TempDir;

/// Set in the namespaces that another user than root gets.
const INSIDE: &str = "MASKCAST_TEST_NAMESPACE";

/// Any user may mount a disk in memory in user and mount namespaces of his own, where the machine permits these.
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
        a_full_disk_stops_the_recording_until_there_is_room_and_nothing_else if can_mount,
        the_oldest_recordings_make_room_for_the_floor_and_without_any_it_pauses if can_mount,
    ]);
}

/// A small disk in memory.
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
    mounted.map_err(|error| format!("a disk in memory needs root or user namespaces: {error}"))
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

fn a_full_disk_stops_the_recording_until_there_is_room_and_nothing_else() {
    let disk = Disk::mount(4).unwrap();
    let folder = folder();
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 3 << 20]).unwrap();
    let service = Service::ready(folder.path(), &busy_stream(&disk, ""));
    let failures = || service.metrics().sum("maskcast_recording_failures_total", &[("stream", "gate")]);
    until("the disk is full", || (failures() >= 1.0).then_some(()));
    // Live goes on.
    let published = service.published("gate");
    service.until_published("gate", published + 30);
    assert_eq!(service.stream("gate")["state"], "live");
    let first = list(&service).pop().unwrap();
    assert_eq!(first["complete"], false, "it is cut off: {first}");
    let file = disk.0.path().join(first["name"].as_str().unwrap());
    assert!(clip::probe(&file).frames >= 15, "what was written is playable");
    std::fs::remove_file(&filler).unwrap();
    let newer = until("it records again", || {
        let newest = list(&service).remove(0);
        (newest["name"] != first["name"] && newest["seconds"].as_f64() > Some(1.0)).then_some(newest)
    });
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    let says = |text: &str| log.lines().any(|line| line.contains("\"record\"") && line.contains(text));
    assert!(says("has stopped") && says("full") && says("recording works again"), "{log}");
    assert!(frames(&[disk.0.path().join(newer["name"].as_str().unwrap())]) >= 15);
}

fn the_oldest_recordings_make_room_for_the_floor_and_without_any_it_pauses() {
    let disk = Disk::mount(8).unwrap();
    let folder = folder();
    let service = Service::ready(folder.path(), &busy_stream(&disk, "segment = \"1s\"\nmin_free = \"6MB\""));
    let metrics = |name: &str, labels: &[(&str, &str)]| service.metrics().sum(name, labels);
    let removed = || metrics("maskcast_recordings_removed_total", &[("reason", "space")]);
    until("three have made room", || (removed() >= 3.0).then_some(()));
    let failures = || metrics("maskcast_recording_failures_total", &[]);
    assert_eq!(failures(), 0.0);

    // What others write leaves less than the floor, whatever is removed.
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 4 << 20]).unwrap();
    until("it pauses", || (failures() >= 1.0).then_some(()));
    let left: Vec<_> = list(&service);
    assert!(left.len() <= 1, "{left:?}");
    service.until_published("gate", service.published("gate") + 30);
    assert!(filler.exists());
    std::fs::remove_file(&filler).unwrap();
    until("it goes on", || list(&service).iter().any(|recording| recording["complete"] == false).then_some(()));
    let (_, _, log) = service.terminate();
    assert!(log.contains("less than min_free (6.0 MB)") && log.contains("retry in 5 s"), "{log}");
}
