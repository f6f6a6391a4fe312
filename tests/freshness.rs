//! The delay that viewers see returns to normal after the service was stopped or slowed down. Each frame of the camera
//! contains its number, which the viewers read, and the camera has the time at which it captured each frame.

mod common;
mod faulty_camera;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::harness::{self, is_root};
use common::http::{Mjpeg, get};
use common::logging_viewer::{LoggingViewer, ReceivedFrame};
use common::program::{run, tool, until};
use common::rtsp::NonReadingClient;
use common::service::{Service, account, folder};
use crossbeam_channel::tick;
use faulty_camera::Camera;
use faulty_camera::test_frame::{Content, read};
use tempfile::TempDir;

fn main() {
    harness::main(tests![
        delay_recovers_after_a_stopped_process_rtsp_over_tcp,
        delay_recovers_after_a_stopped_process_rtsp_over_udp,
        delay_recovers_after_a_stopped_process_http,
        delay_recovers_after_cpu_starvation_rtsp_over_tcp,
        delay_recovers_after_cpu_starvation_rtsp_over_udp,
        delay_recovers_after_cpu_starvation_http,
        a_clock_set_back_causes_no_delay_rtsp_over_tcp,
        a_clock_set_back_causes_no_delay_rtsp_over_udp,
        a_clock_set_back_causes_no_delay_http,
        viewers_that_read_nothing_do_not_delay_others,
        a_blocked_disk_does_not_delay_viewers if can_mount,
        metrics_count_late_frames,
    ]);
}

/// How long the delay must stay normal.
const STABLE: Duration = Duration::from_secs(3);

/// Maximum normal delay: the default of `max_latency`.
const NORMAL_DELAY: Duration = Duration::from_secs(1);

/// How long viewers that read nothing stay connected.
const STAY: Duration = Duration::from_secs(15);

/// Frames that are needed to determine the delay of a viewer: one second.
const MIN_FRAMES: usize = 20;

/// Frame rate of the camera.
const FPS: u64 = 20;

const TCP: CameraKind = CameraKind { camera: "", stream: "transport = \"tcp\"" };
const UDP: CameraKind = CameraKind { camera: "", stream: "transport = \"udp\"" };
const HTTP: CameraKind = CameraKind { camera: "kind = \"http\"", stream: "" };

/// A kind of camera: additional settings of the camera and of its stream.
#[derive(Clone, Copy)]
struct CameraKind {
    camera: &'static str,
    stream: &'static str,
}

/// A camera, the service, and two viewers.
struct TestSetup {
    camera: Camera,
    service: Service,
    viewers: Vec<LoggingViewer<Content>>,
    _folder: TempDir,
}

impl TestSetup {
    /// Starts all of them, and waits until both viewers see frames without delay.
    fn start(kind: CameraKind, stream: &str, variables: &[(&str, &str)]) -> Self {
        let folder = folder();
        let spec = format!("name = \"gate\"\nsize = [320, 240]\nfps = {FPS}\n{}", kind.camera);
        let camera = Camera::start(&toml::from_str(&spec).unwrap()).unwrap();
        let config = format!(
            "[[stream]]\nname = \"gate\"\nsource = \"{}\"\noverlay = {{ alpha = 0.0, legend = false }}\n{}\n{stream}\n",
            camera.url(),
            kind.stream
        );
        let service = Service::with(folder.path(), &config, variables);
        service.until_state("gate", "live");
        let viewers = vec![LoggingViewer::mjpeg(&service, "gate", read), LoggingViewer::rtsp(&service, "gate", read)];
        let setup = TestSetup { camera, service, viewers, _folder: folder };
        for viewer in &setup.viewers {
            until(&format!("{} sees frames without delay", viewer.name), || {
                let frames = setup.frames(viewer, Instant::now() - Duration::from_secs(2));
                (frames.len() >= MIN_FRAMES && frames.iter().all(|frame| setup.is_normal(frame))).then_some(())
            });
        }
        setup
    }

    /// The frames that a viewer has received since a point in time.
    fn frames(&self, viewer: &LoggingViewer<Content>, since: Instant) -> Vec<ReceivedFrame<Content>> {
        let log = viewer.log.lock().unwrap();
        assert_eq!(log.ended, None, "{} was disconnected", viewer.name);
        log.frames.iter().filter(|frame| frame.at >= since).copied().collect()
    }

    /// Age of a frame when it was received; `None` for the slate.
    fn age(&self, frame: &ReceivedFrame<Content>) -> Option<Duration> {
        let Content::Live { number, .. } = frame.content else { return None };
        self.camera.captured_at(number).map(|captured| frame.at.saturating_duration_since(captured))
    }

    /// The age of a damaged frame is unknown.
    fn is_old(&self, frame: &ReceivedFrame<Content>) -> bool {
        !matches!(frame.content, Content::Damaged) && !self.is_normal(frame)
    }

    fn is_normal(&self, frame: &ReceivedFrame<Content>) -> bool {
        self.age(frame).is_some_and(|age| age <= NORMAL_DELAY)
    }

    /// Waits until the viewers' delay is normal again after `since` and stays normal. The time until then is printed and not
    /// checked, because it depends on the machine.
    fn wait_for_recovery(&self, since: Instant) {
        for viewer in &self.viewers {
            until(&format!("the delay of {} is normal and stays normal", viewer.name), || {
                let stable_since = Instant::now() - STABLE;
                let frames = self.frames(viewer, stable_since.max(since));
                let is_stable = frames.len() >= MIN_FRAMES && !frames.iter().any(|frame| self.is_old(frame));
                (stable_since >= since && is_stable).then_some(())
            });
        }
        for viewer in &self.viewers {
            let frames = self.frames(viewer, since);
            let old = frames.iter().filter(|frame| self.is_old(frame)).count();
            let last_old = frames.iter().rfind(|frame| self.is_old(frame));
            let recovered = last_old.map_or(Duration::ZERO, |frame| frame.at - since);
            let first = frames.iter().find(|frame| self.is_normal(frame)).map(|frame| frame.at - since);
            let oldest = frames.iter().rev().take(MIN_FRAMES).filter_map(|frame| self.age(frame)).max();
            println!(
                "{}: first new frame after {first:.2?}, {old} old frames until {recovered:.2?}; later frames up to {oldest:.2?} old",
                viewer.name
            );
        }
        // The latency in the API does not include the connection to the viewer.
        until("the API reports a normal delay", || {
            let latency = self.service.stream("gate")["latency_ms"].as_f64();
            latency.filter(|&latency| latency < NORMAL_DELAY.as_secs_f64() * 1e3)
        });
    }

    /// Waits until the camera has captured the frames of this time, which does not depend on the service.
    fn wait_for_camera_frames(&self, time: Duration) {
        let frames = self.camera.captured() + FPS * time.as_secs();
        until("the camera captures frames", || (self.camera.captured() >= frames).then_some(()));
    }

    fn signal(&self, name: &str) {
        self.service.program.child.signal(name);
    }

    /// Stops everything and checks that the ledger is closed; returns the log.
    fn stop(self) -> String {
        let TestSetup { service, viewers, camera, _folder } = self;
        let dropped = service.stream("gate")["dropped_by_reason"].to_string();
        drop(viewers);
        let (code, _, log) = service.terminate();
        drop(camera);
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let account = account(&log, "gate");
        println!("{account:?}, dropped: {dropped}");
        assert_eq!(account.captured, account.published + account.dropped, "{account:?}");
        assert_eq!(account.in_flight, 0, "{account:?}");
        log
    }
}

/// After a stop (SIGSTOP) the process finds old data of the camera in the kernel's buffers.
fn stopped_process(kind: CameraKind) {
    let setup = TestSetup::start(kind, "", &[]);
    setup.signal("STOP");
    setup.wait_for_camera_frames(Duration::from_secs(10));
    setup.signal("CONT");
    setup.wait_for_recovery(Instant::now());
    setup.stop();
}

fn delay_recovers_after_a_stopped_process_rtsp_over_tcp() {
    stopped_process(TCP);
}

fn delay_recovers_after_a_stopped_process_rtsp_over_udp() {
    stopped_process(UDP);
}

fn delay_recovers_after_a_stopped_process_http() {
    stopped_process(HTTP);
}

/// The machine is too slow for the camera for ten seconds: the process gets a twentieth of the CPU time.
fn cpu_starvation(kind: CameraKind) {
    let setup = TestSetup::start(kind, "", &[]);
    let end = setup.camera.captured() + 10 * FPS;
    let pace = tick(Duration::from_millis(10));
    while setup.camera.captured() < end {
        setup.signal("STOP");
        for _ in 0..19 {
            let _ = pace.recv();
        }
        setup.signal("CONT");
        let _ = pace.recv();
    }
    setup.wait_for_recovery(Instant::now());
    setup.stop();
}

fn delay_recovers_after_cpu_starvation_rtsp_over_tcp() {
    cpu_starvation(TCP);
}

fn delay_recovers_after_cpu_starvation_rtsp_over_udp() {
    cpu_starvation(UDP);
}

fn delay_recovers_after_cpu_starvation_http() {
    cpu_starvation(HTTP);
}

/// The library of libfaketime for multi-threaded programs.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    let path = found.next().expect("libfaketime is not installed: run `make setup-test`");
    path.to_str().unwrap().into()
}

/// The wall clock of the service is set back by an hour.
fn clock_set_back(kind: CameraKind) {
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    let variables = [
        ("LD_PRELOAD", faketime()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap().into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // The monotonic clock stays correct.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    let setup = TestSetup::start(kind, "", &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    let before = setup.service.stream("gate");
    std::fs::write(&offset, "-1h").unwrap();
    let set_back = Instant::now();
    setup.wait_for_recovery(set_back);
    let now = setup.service.stream("gate");
    assert_eq!((&now["state"], &now["since"]), (&"live".into(), &before["since"]), "the stream stayed live");
    // Check that the wall clock of the service was set back.
    let log = setup.stop();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let last: jiff::Timestamp = last["timestamp"].as_str().unwrap().parse().unwrap();
    let behind = jiff::Timestamp::now().duration_since(last).as_secs();
    assert!((3590..3660).contains(&behind), "the clock of the service is {behind} s behind:\n{log}");
}

fn a_clock_set_back_causes_no_delay_rtsp_over_tcp() {
    clock_set_back(TCP);
}

fn a_clock_set_back_causes_no_delay_rtsp_over_udp() {
    clock_set_back(UDP);
}

fn a_clock_set_back_causes_no_delay_http() {
    clock_set_back(HTTP);
}

/// Viewers that request the stream and read nothing. The bit rate is high, so that all buffers fill up soon.
fn viewers_that_read_nothing_do_not_delay_others() {
    let setup = TestSetup::start(TCP, "encode = { bitrate = 20000, jpeg_quality = 95 }", &[]);
    let connected_at = Instant::now();
    let browser = Mjpeg::connect(&setup.service.page, "gate");
    let player = NonReadingClient::play(&setup.service.rtsp("gate"));
    until("both viewers are connected", || {
        let viewers = setup.service.stream("gate")["viewers"]["mjpeg"].as_u64();
        (viewers == Some(2)).then_some(())
    });
    setup.wait_for_camera_frames(STAY);
    setup.wait_for_recovery(connected_at);
    // The other viewers received frames without a gap.
    for viewer in &setup.viewers {
        let frames = setup.frames(viewer, connected_at);
        let gap = frames.windows(2).map(|pair| pair[1].at - pair[0].at).max();
        assert!(gap.is_some_and(|gap| gap < STAY), "{} received no frame for {gap:?}", viewer.name);
    }
    // The disconnect of these viewers causes no delay.
    let disconnected_at = Instant::now();
    drop(player);
    drop(browser);
    setup.wait_for_recovery(disconnected_at);
    setup.stop();
}

/// A file system on a loop device.
struct Disk {
    folder: TempDir,
    frozen: bool,
}

impl Disk {
    /// # Errors
    /// Why it cannot be mounted.
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        tool("mkfs.ext4", ["-q", image.to_str().unwrap()]);
        let disk = Disk { folder, frozen: false };
        std::fs::create_dir(disk.path()).unwrap();
        let mounted = run(Command::new("mount").args(["-o", "loop"]).args([&image, &disk.path()]));
        if mounted.code == Some(0) {
            Ok(disk)
        } else {
            Err(mounted.stderr.lines().next().unwrap_or_default().to_owned())
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("disk")
    }

    /// Blocks every write until [`Disk::thaw`].
    fn freeze(&mut self) {
        tool("fsfreeze", ["-f", self.path().to_str().unwrap()]);
        self.frozen = true;
    }

    fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            tool("fsfreeze", ["-u", self.path().to_str().unwrap()]);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also when the test has failed: a frozen disk blocks every process that accesses it.
        let path = self.path();
        let _ = Command::new("fsfreeze").arg("-u").arg(&path).stderr(std::process::Stdio::null()).status();
        let _ = Command::new("umount").arg("-l").arg(&path).status();
    }
}

fn can_mount() -> Result<(), String> {
    if !is_root() {
        return Err("mounting a disk that can be frozen needs root".into());
    }
    Disk::mount().map(drop).map_err(|error| format!("cannot mount a disk: {error}"))
}

fn sizes(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// A disk that blocks for ten seconds costs the recording frames, and has no effect on viewers.
fn a_blocked_disk_does_not_delay_viewers() {
    let mut disk = Disk::mount().unwrap();
    let setup = TestSetup::start(TCP, &format!("record.dir = \"{}\"", disk.path().display()), &[]);
    let recorded = disk.path();
    until("there is a recording", || (sizes(&recorded) > 100_000).then_some(()));
    let blocked_at = Instant::now();
    disk.freeze();
    let before = sizes(&recorded);
    setup.wait_for_camera_frames(Duration::from_secs(10));
    setup.wait_for_recovery(blocked_at);
    assert_eq!(sizes(&recorded), before, "the disk has not blocked");
    for viewer in &setup.viewers {
        let old = setup.frames(viewer, blocked_at).iter().filter(|frame| setup.is_old(frame)).count();
        assert_eq!(old, 0, "{} received old frames", viewer.name);
    }
    disk.thaw();
    until("the recording continues", || (sizes(&recorded) > before + 100_000).then_some(()));
    setup.wait_for_recovery(Instant::now());
    setup.stop();
}

/// The metrics count late frames.
fn metrics_count_late_frames() {
    let setup = TestSetup::start(TCP, "", &[]);
    setup.signal("STOP");
    setup.wait_for_camera_frames(Duration::from_secs(5));
    setup.signal("CONT");
    setup.wait_for_recovery(Instant::now());
    let late = |labels| setup.service.metrics().sum("maskcast_frames_dropped_total", labels);
    assert!(late(&[("stream", "gate"), ("reason", "late")]) > 0.0);
    let (status, _) = get(&format!("{}healthz", setup.service.page));
    assert_eq!(status, 200);
    assert_eq!(setup.service.metrics().sum("maskcast_late_connections_total", &[("stream", "gate")]), 0.0);
    setup.stop();
}
