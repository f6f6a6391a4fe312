//! Nothing that holds the service up for a while leaves a delay behind: whatever happens, what viewers see is as new as
//! before soon after. The camera's pictures carry their numbers, the viewers read them back, and the camera
//! knows when it took each.

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
use faulty_camera::picture::{Reading, read};
use tempfile::TempDir;

fn main() {
    harness::main(tests![
        a_process_that_was_stopped_rtsp_over_tcp,
        a_process_that_was_stopped_rtsp_over_udp,
        a_process_that_was_stopped_http,
        a_machine_that_was_too_slow_rtsp_over_tcp,
        a_machine_that_was_too_slow_rtsp_over_udp,
        a_machine_that_was_too_slow_http,
        a_clock_that_is_set_back_rtsp_over_tcp,
        a_clock_that_is_set_back_rtsp_over_udp,
        a_clock_that_is_set_back_http,
        viewers_that_read_nothing,
        a_disk_that_hangs if can_mount,
        late_frames_are_counted,
    ]);
}

/// For how long the delay must then be normal.
const PROOF: Duration = Duration::from_secs(3);

/// The default of `max_latency`: what is older is not normal.
const NORMAL: Duration = Duration::from_secs(1);

/// How long viewers that read nothing stay: who waits for them, waits for so long.
const STAY: Duration = Duration::from_secs(15);

/// Pictures a viewer must have seen for its delay to be known: a second's.
const ENOUGH: usize = 20;

/// Frames that the camera takes in a second.
const FPS: u64 = 20;

const TCP: Kind = Kind { camera: "", stream: "transport = \"tcp\"" };
const UDP: Kind = Kind { camera: "", stream: "transport = \"udp\"" };
const HTTP: Kind = Kind { camera: "kind = \"http\"", stream: "" };

/// A kind of camera: more of what the camera is told, and of its stream's configuration.
#[derive(Clone, Copy)]
struct Kind {
    camera: &'static str,
    stream: &'static str,
}

/// A camera, the service, and its viewers.
struct Scene {
    camera: Camera,
    service: Service,
    viewers: Vec<LoggingViewer<Reading>>,
    _folder: TempDir,
}

impl Scene {
    /// Both viewers see pictures when this returns.
    fn set(kind: Kind, stream: &str, variables: &[(&str, &str)]) -> Self {
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
        let scene = Scene { camera, service, viewers, _folder: folder };
        for viewer in &scene.viewers {
            until(&format!("{} sees the camera without delay", viewer.name), || {
                let frames = scene.frames(viewer, Instant::now() - Duration::from_secs(2));
                (frames.len() >= ENOUGH && frames.iter().all(|frame| scene.is_normal(frame))).then_some(())
            });
        }
        scene
    }

    /// What a viewer has seen from a moment on.
    fn frames(&self, viewer: &LoggingViewer<Reading>, since: Instant) -> Vec<ReceivedFrame<Reading>> {
        let log = viewer.log.lock().unwrap();
        assert_eq!(log.ended, None, "{} was cut off", viewer.name);
        log.frames.iter().filter(|frame| frame.at >= since).copied().collect()
    }

    /// How old a picture was when it was seen; `None` for one that says OFFLINE.
    fn age(&self, frame: &ReceivedFrame<Reading>) -> Option<Duration> {
        let Reading::Live { number, .. } = frame.content else { return None };
        self.camera.taken_at(number).map(|taken| frame.at.saturating_duration_since(taken))
    }

    /// A picture that was damaged under way does not tell how old it is.
    fn is_old(&self, frame: &ReceivedFrame<Reading>) -> bool {
        !matches!(frame.content, Reading::Damaged) && !self.is_normal(frame)
    }

    fn is_normal(&self, frame: &ReceivedFrame<Reading>) -> bool {
        self.age(frame).is_some_and(|age| age <= NORMAL)
    }

    /// Waits until the viewers' delay is normal again after `since`, and stays so. How soon is told, not judged: that depends
    /// on the machine.
    fn recovers(&self, since: Instant) {
        for viewer in &self.viewers {
            until(&format!("the delay of {} is normal, and stays so", viewer.name), || {
                let proof = Instant::now() - PROOF;
                let frames = self.frames(viewer, proof.max(since));
                let good = frames.len() >= ENOUGH && !frames.iter().any(|frame| self.is_old(frame));
                (proof >= since && good).then_some(())
            });
        }
        for viewer in &self.viewers {
            let frames = self.frames(viewer, since);
            let old = frames.iter().filter(|frame| self.is_old(frame)).count();
            let last_old = frames.iter().rfind(|frame| self.is_old(frame));
            let recovered = last_old.map_or(Duration::ZERO, |frame| frame.at - since);
            let first = frames.iter().find(|frame| self.is_normal(frame)).map(|frame| frame.at - since);
            let oldest = frames.iter().rev().take(ENOUGH).filter_map(|frame| self.age(frame)).max();
            println!(
                "{}: first new picture after {first:.2?}, {old} old ones until {recovered:.2?}; then up to {oldest:.2?} old",
                viewer.name
            );
        }
        // What the API says is true: it does not know the last step to the viewer.
        until("the API tells of a normal delay", || {
            let told = self.service.stream("gate")["latency_ms"].as_f64();
            told.filter(|&told| told < NORMAL.as_secs_f64() * 1e3)
        });
    }

    /// Waits until the camera has taken the frames of this time: it does so whatever the service does.
    fn until_camera_has_taken(&self, time: Duration) {
        let frames = self.camera.taken() + FPS * time.as_secs();
        until("the camera takes frames", || (self.camera.taken() >= frames).then_some(()));
    }

    fn signal(&self, name: &str) {
        self.service.program.child.signal(name);
    }

    /// Ends it all; the account must close. Gives the log.
    fn strike(self) -> String {
        let Scene { service, viewers, camera, _folder } = self;
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

/// A process that was stopped finds what the camera sent meanwhile in the kernel's buffers.
fn stopped(kind: Kind) {
    let scene = Scene::set(kind, "", &[]);
    scene.signal("STOP");
    scene.until_camera_has_taken(Duration::from_secs(10));
    scene.signal("CONT");
    scene.recovers(Instant::now());
    scene.strike();
}

fn a_process_that_was_stopped_rtsp_over_tcp() {
    stopped(TCP);
}

fn a_process_that_was_stopped_rtsp_over_udp() {
    stopped(UDP);
}

fn a_process_that_was_stopped_http() {
    stopped(HTTP);
}

/// A machine that is too slow for the camera for ten seconds: of the time, the process gets a twentieth.
fn starved(kind: Kind) {
    let scene = Scene::set(kind, "", &[]);
    let end = scene.camera.taken() + 10 * FPS;
    let pace = tick(Duration::from_millis(10));
    while scene.camera.taken() < end {
        scene.signal("STOP");
        for _ in 0..19 {
            let _ = pace.recv();
        }
        scene.signal("CONT");
        let _ = pace.recv();
    }
    scene.recovers(Instant::now());
    scene.strike();
}

fn a_machine_that_was_too_slow_rtsp_over_tcp() {
    starved(TCP);
}

fn a_machine_that_was_too_slow_rtsp_over_udp() {
    starved(UDP);
}

fn a_machine_that_was_too_slow_http() {
    starved(HTTP);
}

/// libfaketime's library that is made for programs with threads.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    let path = found.next().expect("libfaketime is not installed: run `make setup-test`");
    path.to_str().unwrap().into()
}

/// The wall clock is set back by an hour, for the service alone.
fn clock_set_back(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    let variables = [
        ("LD_PRELOAD", faketime()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap().into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // Only the wall clock can be set.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    let scene = Scene::set(kind, "", &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    let before = scene.service.stream("gate");
    std::fs::write(&offset, "-1h").unwrap();
    let set_back = Instant::now();
    scene.recovers(set_back);
    let now = scene.service.stream("gate");
    assert_eq!((&now["state"], &now["since"]), (&"live".into(), &before["since"]), "it stayed live");
    // And the service did go by another clock.
    let log = scene.strike();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let last: jiff::Timestamp = last["timestamp"].as_str().unwrap().parse().unwrap();
    let behind = jiff::Timestamp::now().duration_since(last).as_secs();
    assert!((3590..3660).contains(&behind), "it is {behind} s behind:\n{log}");
}

fn a_clock_that_is_set_back_rtsp_over_tcp() {
    clock_set_back(TCP);
}

fn a_clock_that_is_set_back_rtsp_over_udp() {
    clock_set_back(UDP);
}

fn a_clock_that_is_set_back_http() {
    clock_set_back(HTTP);
}

/// Viewers that ask for pictures and take none. The bit rate is high, so that all buffers on the way fill up soon.
fn viewers_that_read_nothing() {
    let scene = Scene::set(TCP, "encode = { bitrate = 20000, jpeg_quality = 95 }", &[]);
    let came = Instant::now();
    let browser = Mjpeg::connect(&scene.service.page, "gate");
    let player = NonReadingClient::play(&scene.service.rtsp("gate"));
    until("both are served", || {
        let viewers = scene.service.stream("gate")["viewers"]["mjpeg"].as_u64();
        (viewers == Some(2)).then_some(())
    });
    scene.until_camera_has_taken(STAY);
    scene.recovers(came);
    // The others' pictures had no gap either.
    for viewer in &scene.viewers {
        let frames = scene.frames(viewer, came);
        let gap = frames.windows(2).map(|pair| pair[1].at - pair[0].at).max();
        assert!(gap.is_some_and(|gap| gap < STAY), "{} looked at one picture for {gap:?}", viewer.name);
    }
    // And the service does not wait for who has gone.
    let late = Instant::now();
    drop(player);
    drop(browser);
    scene.recovers(late);
    scene.strike();
}

/// A file system of its own on a loop device.
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

    /// From now on every write waits.
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
        // Also when the test has failed: a frozen disk would hold up whoever looks at it.
        let path = self.path();
        let _ = Command::new("fsfreeze").arg("-u").arg(&path).stderr(std::process::Stdio::null()).status();
        let _ = Command::new("umount").arg("-l").arg(&path).status();
    }
}

fn can_mount() -> Result<(), String> {
    if !is_root() {
        return Err("only root can mount a disk that can be made to hang".into());
    }
    Disk::mount().map(drop).map_err(|error| format!("no disk can be mounted: {error}"))
}

fn sizes(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// A disk that takes nothing for eight seconds costs the recording pictures, and nobody else.
fn a_disk_that_hangs() {
    let mut disk = Disk::mount().unwrap();
    let scene = Scene::set(TCP, &format!("record.dir = \"{}\"", disk.path().display()), &[]);
    let recorded = disk.path();
    until("there is a recording", || (sizes(&recorded) > 100_000).then_some(()));
    let hung = Instant::now();
    disk.freeze();
    let before = sizes(&recorded);
    scene.until_camera_has_taken(Duration::from_secs(10));
    scene.recovers(hung);
    assert_eq!(sizes(&recorded), before, "the disk has not hung");
    for viewer in &scene.viewers {
        let old = scene.frames(viewer, hung).iter().filter(|frame| scene.is_old(frame)).count();
        assert_eq!(old, 0, "{} saw old pictures", viewer.name);
    }
    disk.thaw();
    until("the recording goes on", || (sizes(&recorded) > before + 100_000).then_some(()));
    scene.recovers(Instant::now());
    scene.strike();
}

/// What the metrics say of late frames adds up with the API.
fn late_frames_are_counted() {
    let scene = Scene::set(TCP, "", &[]);
    scene.signal("STOP");
    scene.until_camera_has_taken(Duration::from_secs(5));
    scene.signal("CONT");
    scene.recovers(Instant::now());
    let late = |labels| scene.service.metrics().sum("maskcast_frames_dropped_total", labels);
    assert!(late(&[("stream", "gate"), ("reason", "late")]) > 0.0);
    let (status, _) = get(&format!("{}healthz", scene.service.page));
    assert_eq!(status, 200);
    assert_eq!(scene.service.metrics().sum("maskcast_late_connections_total", &[("stream", "gate")]), 0.0);
    scene.strike();
}
