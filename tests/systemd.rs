//! The service under systemd: the unit file, and what the program tells systemd of itself.

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

#[test]
fn the_unit_file_has_no_faults() {
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/maskcast.service")).unwrap();
    let installed = "/usr/bin/maskcast";
    assert!(unit.contains(&format!("ExecStart={installed} run ")), "{unit}");
    let path = folder.path().join("maskcast.service");
    // systemd looks whether the program is there; the manual's page is not, either, before it is installed.
    let here: Vec<String> = unit
        .lines()
        .filter(|line| !line.starts_with("Documentation="))
        .map(|line| line.replace(installed, env!("CARGO_BIN_EXE_maskcast")))
        .collect();
    std::fs::write(&path, here.join("\n")).unwrap();
    let ended = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert_eq!((ended.code, ended.stderr.as_str(), ended.text().as_str()), (Some(0), "", ""));
}

/// systemd's measure of what a unit could do if it were taken over, from 0 (nothing) to 10 (everything).
#[test]
fn the_unit_is_confined() {
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/maskcast.service")).unwrap();
    let path = folder.path().join("maskcast.service");
    let exposure = |unit: &str| {
        std::fs::write(&path, unit).unwrap();
        run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=25"])
            .arg(&path))
    };
    let ended = exposure(&unit);
    assert_eq!(ended.code, Some(0), "exposure is above 2.5:\n{}", ended.text());
    // The cameras and the GPU stay within reach.
    for needed in ["DeviceAllow=char-video4linux rw", "DeviceAllow=char-drm rw", "SupplementaryGroups=video render"] {
        assert!(unit.lines().any(|line| line == needed), "{needed}");
    }
    assert!(!unit.contains("PrivateDevices=yes"));
    let open = unit.replace("SystemCallFilter=@system-service\n", "").replace("CapabilityBoundingSet=\n", "");
    assert_ne!(exposure(&open).code, Some(0), "the limit is not looked at");
}

/// systemd's end of the notification socket.
struct Systemd(UnixDatagram);

impl Systemd {
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("systemd hears nothing");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Passes over other messages until one has this line.
    fn wait_for(&self, line: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let message = self.next();
            if message.lines().any(|other| other == line) {
                return message;
            }
            assert!(Instant::now() < deadline, "{line} does not come; the last message is {message:?}");
        }
    }
}

#[test]
fn systemd_hears_of_the_start_of_life_and_of_the_end() {
    let folder = folder();
    let socket = folder.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&socket).unwrap());
    systemd.0.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = write_config(
        folder.path(),
        "[[stream]]\nname = \"live\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         [[stream]]\nname = \"dead\"\nsource = \"rtsp://127.0.0.1:1/stream\"\n",
    );
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
    let service = Service::run(&config, &variables);
    let ready = systemd.wait_for("READY=1");
    assert!(ready.contains("STATUS=1 of 2 streams live"), "{ready}");
    for name in ["live", "dead"] {
        assert_ne!(service.stream(name)["state"], "starting");
    }
    // A camera that is known to be away is no reason to be restarted.
    for _ in 0..4 {
        systemd.wait_for("WATCHDOG=1");
    }
    service.program.child.signal("TERM");
    systemd.wait_for("STOPPING=1");
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

/// In a file system of its own, where the journal's socket is ours.
#[test]
fn the_journal_gets_fields() {
    let folder = folder();
    let config = write_config(folder.path(), "[[stream]]\nname = \"dead\"\nsource = \"rtsp://127.0.0.1:1/stream\"\n");
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
    let mut wanted = vec![
        vec![("MASKCAST_STREAM", "dead"), ("MASKCAST_FROM", "starting"), ("PRIORITY", "4")],
        vec![("MASKCAST_STREAM", "dead"), ("MASKCAST_STAGE", "capture"), ("PRIORITY", "5")],
    ];
    let deadline = Instant::now() + DEADLINE;
    while !wanted.is_empty() {
        let length = journal.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("{error}; still wanted: {wanted:?}; {}", std::fs::read_to_string(&stderr).unwrap_or_default())
        });
        if length == 0 {
            // Only to see whether somebody listens.
            continue;
        }
        let fields = fields(&buffer[..length]);
        assert!(fields.iter().any(|(name, text)| name == "MESSAGE" && !text.is_empty()), "{fields:?}");
        let has = |(name, text): &(&str, &str)| fields.iter().any(|field| (&*field.0, &*field.1) == (*name, *text));
        wanted.retain(|entry| !entry.iter().all(has));
        assert!(Instant::now() < deadline, "the journal has no entry with {wanted:?}");
    }
    assert_eq!(std::fs::read_to_string(&stderr).unwrap(), "", "all of it goes to the journal");
}

/// A program whose watchdog's messages come to us, for a stream of raw pictures that come out of a pipe.
fn watched(folder: &Path, interval: &str, more: &str) -> (Systemd, Service, PathBuf) {
    let socket = folder.join("notify");
    let systemd = Systemd(UnixDatagram::bind(&socket).unwrap());
    systemd.0.set_read_timeout(Some(DEADLINE)).unwrap();
    let pipe = folder.join("frames");
    tool("mkfifo", [&pipe]);
    let source = format!(
        "gst:filesrc location={} blocksize={} ! rawvideoparse format=i420 width={SIDE} height={SIDE}",
        pipe.display(),
        SIDE * SIDE * 3 / 2
    );
    let streams = format!("[[stream]]\nname = \"stalls\"\nsilence_timeout = \"1h\"\nsource = \"{source}\"\n{more}");
    let config = write_config(folder, &streams);
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", interval)];
    let service = Service::run(&config, &variables);
    (systemd, service, pipe)
}

/// Side of the pipe's pictures.
const SIDE: usize = 64;

/// Plays 25 pictures.
fn feed(frames: &mut std::fs::File) {
    let pace = tick(Duration::from_millis(40));
    for _ in 0..25 {
        pace.recv().unwrap();
        frames.write_all(&[128; SIDE * SIDE * 3 / 2]).unwrap();
    }
}

/// A camera that is silent for as long as it may be, and a recorded stream whose pictures are larger than OpenH264 takes: what a
/// restart of the whole service would not repair.
#[test]
fn streams_that_show_nothing_are_no_reason_to_restart_the_service() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("recordings")).unwrap();
    let fails = "[[stream]]\nname = \"fails\"\nsource = \"test://black?width=3088&height=3088&fps=1\"\n\
                 encode.encoder = \"openh264\"\nrecord = { dir = \"recordings\" }\n";
    let (systemd, service, pipe) = watched(folder.path(), "1000000", fails);
    let mut frames = std::fs::File::options().write(true).open(&pipe).unwrap();
    feed(&mut frames);
    systemd.wait_for("READY=1");
    until("the encoder fails", || (service.stream("fails")["dropped"].as_u64() > Some(2)).then_some(()));
    let published = service.published("stalls");
    // One is due each second.
    for _ in 0..15 {
        systemd.wait_for("WATCHDOG=1");
    }
    assert_eq!(service.published("stalls"), published, "the camera has been silent all the time");
    assert_eq!(service.stream("stalls")["state"], "live");
    feed(&mut frames);
    service.until_published("stalls", published + 10);
}

/// The run loop hangs in a read of the configuration file, which is a pipe without a writer.
#[test]
fn a_run_loop_that_hangs_gives_no_sign_of_life_and_the_forced_end_is_a_failure() {
    let folder = folder();
    let (systemd, mut service, pipe) = watched(folder.path(), "1000000", "");
    let mut frames = std::fs::File::options().write(true).open(&pipe).unwrap();
    feed(&mut frames);
    systemd.wait_for("READY=1");
    systemd.wait_for("WATCHDOG=1");
    let config = folder.path().join("maskcast.toml");
    std::fs::remove_file(&config).unwrap();
    tool("mkfifo", [&config]);
    let asked = TcpStream::connect(service.page.trim_start_matches("http://").trim_end_matches('/')).unwrap();
    let body = "{\"alpha\": 0.5}";
    let head = "PATCH /api/v1/streams/stalls/overlay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    write!(&asked, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    // What was sent before is heard, and then nothing for three times the interval.
    systemd.0.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut buffer = [0; 4096];
    while systemd.0.recv(&mut buffer).is_ok() {
        assert!(Instant::now() < deadline, "signs of life of a run loop that hangs");
    }
    service.program.wait_for("the fault", |entry| {
        entry["message"].as_str()?.contains("the run loop has not responded for").then_some(())
    });
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("service has not stopped within 4.8 s: the process exits now"), "{log}");
}
