//! The service under systemd: the unit file, notifications (sd_notify), the watchdog, and the journal.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::program::{DEADLINE, Guard, run, tool, until};
use common::service::{Service, folder, write_config};
use crossbeam_channel::tick;

/// The text of the unit file.
fn unit_file() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/maskcast.service")).unwrap()
}

#[test]
fn systemd_analyze_finds_no_error_in_the_unit_file() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit_file();
    let installed = "/usr/bin/maskcast";
    assert!(unit.contains(&format!("ExecStart={installed} run ")), "{unit}");
    let path = folder.path().join("maskcast.service");
    // systemd checks that the program exists. The manual page exists only after the installation.
    let adapted: Vec<String> = unit
        .lines()
        .filter(|line| !line.starts_with("Documentation="))
        .map(|line| line.replace(installed, env!("CARGO_BIN_EXE_maskcast")))
        .collect();
    std::fs::write(&path, adapted.join("\n")).unwrap();
    let ended = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert_eq!((ended.code, ended.stderr.as_str(), ended.text().as_str()), (Some(0), "", ""));
}

/// The exposure is systemd's measure of the privileges of a unit, from 0 (none) to 10 (all).
#[test]
fn the_unit_has_an_exposure_of_at_most_2_5() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit_file();
    let path = folder.path().join("maskcast.service");
    let check_exposure = |unit: &str| {
        std::fs::write(&path, unit).unwrap();
        run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=25"])
            .arg(&path))
    };
    let ended = check_exposure(&unit);
    assert_eq!(ended.code, Some(0), "exposure is above 2.5:\n{}", ended.text());
    // The service can use cameras and the GPU.
    for needed in ["DeviceAllow=char-video4linux rw", "DeviceAllow=char-drm rw", "SupplementaryGroups=video render"] {
        assert!(unit.lines().any(|line| line == needed), "{needed}");
    }
    assert!(!unit.contains("PrivateDevices=yes"));
    let exposed = unit.replace("SystemCallFilter=@system-service\n", "").replace("CapabilityBoundingSet=\n", "");
    assert_ne!(check_exposure(&exposed).code, Some(0), "the threshold has no effect");
}

/// The receiving end of the notification socket.
struct NotifySocket(UnixDatagram);

impl NotifySocket {
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("no notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits for a message with this line; skips others.
    fn wait_for(&self, line: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let message = self.next();
            if message.lines().any(|other| other == line) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {line}; the last message is {message:?}");
        }
    }
}

#[test]
fn start_watchdog_and_stop_are_notified() {
    let folder = folder();
    let socket = folder.path().join("notify");
    let notifications = NotifySocket(UnixDatagram::bind(&socket).unwrap());
    notifications.0.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = write_config(
        folder.path(),
        "[[stream]]\nname = \"live\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         [[stream]]\nname = \"offline\"\nsource = \"rtsp://127.0.0.1:1/stream\"\n",
    );
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
    let service = Service::run(&config, &variables);
    let ready = notifications.wait_for("READY=1");
    assert!(ready.contains("STATUS=1 of 2 streams live"), "{ready}");
    for name in ["live", "offline"] {
        assert_ne!(service.stream(name)["state"], "starting");
    }
    // An offline camera does not stop the watchdog messages.
    for _ in 0..4 {
        notifications.wait_for("WATCHDOG=1");
    }
    service.program.child.signal("TERM");
    notifications.wait_for("STOPPING=1");
    let mut service = service;
    let (code, log) = service.program.ended();
    assert_eq!(code, Some(0), "{log}");
}

/// The fields of one journal entry, in the protocol of systemd's JOURNAL_NATIVE_PROTOCOL: `NAME=value`, or name, length
/// and value.
fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = Vec::new();
    while let Some(end) = entry.iter().position(|&byte| byte == b'\n') {
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        if let Some(equals) = line.iter().position(|&byte| byte == b'=') {
            fields.push((text(&line[..equals]), text(&line[equals + 1..])));
            entry = rest;
        } else {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            fields.push((text(line), text(&rest[8..][..length])));
            entry = &rest[8 + length + 1..];
        }
    }
    fields
}

/// In its own mount namespace, where the socket of the journal is one of the test.
#[test]
fn journal_entries_have_the_fields_of_the_stream() {
    let folder = folder();
    let config = write_config(folder.path(), "[[stream]]\nname = \"gate\"\nsource = \"rtsp://127.0.0.1:1/stream\"\n");
    let path = folder.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(DEADLINE)).unwrap();
    const SCRIPT: &str =
        "set -e; mount -t tmpfs none /run; mkdir -p /run/systemd/journal; : > /run/systemd/journal/socket
        mount --bind \"$1\" /run/systemd/journal/socket; exec 2> \"$2\"
        export JOURNAL_STREAM=\"$(stat -Lc %d:%i /proc/self/fd/2)\"; exec \"$3\" run \"$4\"";
    let stderr = folder.path().join("stderr");
    let _service = Guard::spawn(
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
            .args([&path, &stderr, Path::new(env!("CARGO_BIN_EXE_maskcast")), &config])
            .env_remove("MASKCAST_LOG"),
    );
    let mut buffer = [0; 65536];
    let mut missing = vec![
        vec![("MASKCAST_STREAM", "gate"), ("MASKCAST_FROM", "starting"), ("PRIORITY", "4")],
        vec![("MASKCAST_STREAM", "gate"), ("MASKCAST_STAGE", "capture"), ("PRIORITY", "5")],
    ];
    let deadline = Instant::now() + DEADLINE;
    while !missing.is_empty() {
        let length = journal.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("{error}; missing entries: {missing:?}; {}", std::fs::read_to_string(&stderr).unwrap_or_default())
        });
        if length == 0 {
            // An empty message, which tests whether the journal listens.
            continue;
        }
        let fields = fields(&buffer[..length]);
        assert!(fields.iter().any(|(name, text)| name == "MESSAGE" && !text.is_empty()), "{fields:?}");
        let has = |(name, text): &(&str, &str)| fields.iter().any(|field| (&*field.0, &*field.1) == (*name, *text));
        missing.retain(|entry| !entry.iter().all(has));
        assert!(Instant::now() < deadline, "the journal has no entry with {missing:?}");
    }
    assert_eq!(std::fs::read_to_string(&stderr).unwrap(), "", "all entries must go to the journal");
}

/// Starts a service with a watchdog interval of one second and a stream whose raw frames come from a pipe. `more`: further
/// streams. Returns the notifications, the service and the path of the pipe.
fn start_with_watchdog(folder: &Path, more: &str) -> (NotifySocket, Service, PathBuf) {
    let socket = folder.join("notify");
    let notifications = NotifySocket(UnixDatagram::bind(&socket).unwrap());
    notifications.0.set_read_timeout(Some(DEADLINE)).unwrap();
    let pipe = folder.join("frames");
    tool("mkfifo", [&pipe]);
    let source = format!(
        "gst:filesrc location={} blocksize={} ! rawvideoparse format=i420 width={SIDE} height={SIDE}",
        pipe.display(),
        SIDE * SIDE * 3 / 2
    );
    let streams = format!("[[stream]]\nname = \"stalls\"\nsilence_timeout = \"1h\"\nsource = \"{source}\"\n{more}");
    let config = write_config(folder, &streams);
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "1000000")];
    let service = Service::run(&config, &variables);
    (notifications, service, pipe)
}

/// Width and height of the frames in the pipe, pixels.
const SIDE: usize = 64;

/// Writes 25 frames to the pipe, one every 40 ms.
fn write_frames(frames: &mut std::fs::File) {
    let pace = tick(Duration::from_millis(40));
    for _ in 0..25 {
        pace.recv().unwrap();
        frames.write_all(&[128; SIDE * SIDE * 3 / 2]).unwrap();
    }
}

/// A camera that is silent for less than its `silence_timeout`, and a recorded stream whose frames are too large for
/// OpenH264: a restart of the service would repair neither.
#[test]
fn streams_without_new_frames_do_not_stop_the_watchdog_messages() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("recordings")).unwrap();
    let fails = "[[stream]]\nname = \"fails\"\nsource = \"test://black?width=3088&height=3088&fps=1\"\n\
                 encode.encoder = \"openh264\"\nrecord = { dir = \"recordings\" }\n";
    let (notifications, service, pipe) = start_with_watchdog(folder.path(), fails);
    let mut frames = std::fs::File::options().write(true).open(&pipe).unwrap();
    write_frames(&mut frames);
    notifications.wait_for("READY=1");
    until("the encoder fails", || (service.stream("fails")["dropped"].as_u64() > Some(2)).then_some(()));
    let published = service.published("stalls");
    for _ in 0..15 {
        notifications.wait_for("WATCHDOG=1");
    }
    assert_eq!(service.published("stalls"), published, "the camera has sent no frame in the meantime");
    assert_eq!(service.stream("stalls")["state"], "live");
    write_frames(&mut frames);
    service.until_published("stalls", published + 10);
}

/// The run loop hangs in a read of the configuration file, which is a pipe without a writer.
#[test]
fn a_hanging_run_loop_stops_the_watchdog_messages_and_the_forced_exit_has_code_1() {
    let folder = folder();
    let (notifications, mut service, pipe) = start_with_watchdog(folder.path(), "");
    let mut frames = std::fs::File::options().write(true).open(&pipe).unwrap();
    write_frames(&mut frames);
    notifications.wait_for("READY=1");
    notifications.wait_for("WATCHDOG=1");
    let config = folder.path().join("maskcast.toml");
    std::fs::remove_file(&config).unwrap();
    tool("mkfifo", [&config]);
    let connection = TcpStream::connect(service.page.trim_start_matches("http://").trim_end_matches('/')).unwrap();
    let body = "{\"alpha\": 0.5}";
    let head = "PATCH /api/v1/streams/stalls/overlay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    write!(&connection, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    // Messages that were sent before are received, and then none for three watchdog intervals.
    notifications.0.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut buffer = [0; 4096];
    while notifications.0.recv(&mut buffer).is_ok() {
        assert!(Instant::now() < deadline, "watchdog messages continue while the run loop hangs");
    }
    service.program.wait_for("the hanging run loop", |entry| {
        entry["message"].as_str()?.contains("the run loop has not responded for").then_some(())
    });
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("service has not stopped within 4.8 s: the process exits now"), "{log}");
}
