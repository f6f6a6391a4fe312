//! Streams of one source, with and without redaction.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::capture::Capture;
use crate::common::program::run;
use crate::common::service::{Service, write_config};
use crate::models::{self, Kind};
use crate::paint::{HEIGHT, WIDTH};

/// If this variable is set, streams that should redact do not, and the tests must fail.
pub const LEAK: &str = "MASKCAST_TEST_LEAK";

/// Little loss of video, and an overlay that hides nothing of a person and has another colour.
const CLEAR: &str = "encode = { bitrate = 6000, jpeg_quality = 95, keyframe_interval = \"500ms\" }\n";

/// A folder with the model `channels.onnx` of this kind, whose input has the size of the frames.
pub fn folder(kind: Kind) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    models::write(&folder.path().join("channels.onnx"), kind, (WIDTH as i64, HEIGHT as i64));
    folder
}

/// A looped clip as the source, in real time.
pub fn clip(file: &str) -> String {
    format!("source = \"file:{file}\"\nloop = true\nspeed = \"real-time\"\n")
}

/// A stream that redacts persons. `keys` are further keys of the stream, and its tables.
pub fn redacted(name: &str, source: &str, style: &str, keys: &str) -> String {
    let redact = match std::env::var_os(LEAK) {
        None => format!("redact = {{ classes = [\"person\"], style = \"{style}\", hold = \"2s\" }}\n"),
        Some(_) => String::new(),
    };
    format!("[[stream]]\nname = \"{name}\"\n{source}{CLEAR}{redact}{keys}")
}

/// A stream of the same source that shows persons.
pub fn open(name: &str, source: &str, keys: &str) -> String {
    format!("[[stream]]\nname = \"{name}\"\n{source}{CLEAR}overlay = {{ alpha = 0.0, legend = false }}\n{keys}")
}

/// The streams `gate`, which redacts with the style `fill`, and `open`.
pub fn gate_and_open(source: &str) -> String {
    redacted("gate", source, "fill", "") + &open("open", source, "")
}

/// Starts a service, whose log has no panics until [`end`].
pub fn start(folder: &Path, streams: &str) -> Service {
    Service::start(folder, streams)
}

/// Writes a configuration, and waits for its reload: `done` is in its result.
pub fn reload(service: &mut Service, folder: &Path, streams: &str, done: &str) {
    write_config(folder, streams);
    service.program.child.signal("HUP");
    service.program.wait_for(done, |entry| {
        let message = entry["message"].as_str()?;
        assert!(!message.contains("not reloaded"), "{message}");
        (message.starts_with("configuration reloaded: ") && message.contains(done)).then_some(())
    });
}

/// Sends SIGTERM; returns the log, in which nothing panicked.
pub fn end(service: Service) -> String {
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

/// The files of a stream in a folder, by their names.
pub fn files(folder: &Path, stream: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_of_stream = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{stream}-"));
    let mut files: Vec<PathBuf> = entries.filter(is_of_stream).collect();
    files.sort();
    files
}

/// Viewers of `gate` and `open`.
pub struct Viewers {
    pub gate: [Capture; 2],
    pub open: Capture,
}

impl Viewers {
    pub fn start(service: &Service) -> Self {
        let gate = [Capture::rtsp(service, "gate").redacted(), Capture::mjpeg(service, "gate").redacted()];
        Viewers { gate, open: Capture::mjpeg(service, "open") }
    }

    /// Waits until `open` has shown a person, and `gate` has shown frames, whole or not, meanwhile.
    pub fn compare(&self, what: &str) {
        self.gate.iter().for_each(|gate| drop(gate.until_more(5)));
        self.open.until_more_leaks(10);
        self.gate.iter().for_each(|gate| println!("{what}: {}", gate.assert_clean()));
    }

    /// Waits until `gate` shows frames that are not hidden as a whole.
    pub fn until_visible(&self) {
        self.gate.iter().for_each(|gate| drop(gate.until_more_visible(5)));
    }
}

/// A small disk: a tmpfs.
pub struct Disk(TempDir);

impl Disk {
    /// # Errors
    /// Why it cannot be mounted.
    pub fn mount(megabytes: u32) -> Result<Self, String> {
        let disk = Disk(tempfile::tempdir().unwrap());
        let size = format!("size={megabytes}m");
        let ended = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.path()));
        if ended.code == Some(0) { Ok(disk) } else { Err(ended.stderr.lines().next().unwrap_or_default().to_owned()) }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// A prerequisite of tests with a small disk.
pub fn can_mount() -> Result<(), String> {
    Disk::mount(1).map(drop).map_err(|error| format!("mounting a tmpfs needs root: {error}"))
}
