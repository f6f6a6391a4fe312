//! `maskcast run` with real sources, ONNX Runtime, viewers and signals.

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::clip;
use common::http::{Metrics, Mjpeg, get};
use common::program::{DEADLINE, maskcast, run, until};
use common::rtsp::{Viewer, time_to_keyframe};
use common::service::{Service, account, folder, write_config_at};

/// A red source: every pixel has the class red, which is drawn in red.
const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue";

/// Frames of a stream that were captured, and frames that were published or dropped.
fn captured_and_settled(metrics: &Metrics, stream: &str) -> (f64, f64) {
    let of = [("stream", stream)];
    let settled = metrics.published(stream) + metrics.sum("maskcast_frames_dropped_total", &of);
    (metrics.sum("maskcast_frames_captured_total", &of), settled)
}

#[test]
fn a_file_and_a_test_pattern_are_live_and_their_ledgers_are_closed() {
    let folder = folder();
    clip::moving(&folder.path().join("clip.mp4"), (320, 240), 15, 30);
    let streams = r#"
        [[stream]]
        name = "file"
        source = "file:clip.mp4"
        loop = true
        [[stream]]
        name = "ball"
        source = "test://ball?width=320&height=240&fps=15"
    "#;
    let service = Service::ready(folder.path(), streams);
    let (status, page) = get(&service.page);
    assert!(status == 200 && page.contains("<title>Maskcast</title>"), "{status}: {page}");
    assert_eq!(get(&format!("{}readyz", service.page)), (200, "ready".into()));
    assert_eq!(get(&format!("{}healthz", service.page)).0, 200);
    let names: Vec<String> = service.streams().iter().map(|s| s["name"].as_str().unwrap().into()).collect();
    assert_eq!(names, ["file", "ball"]);
    // The file has 30 frames: it has started again.
    for (name, frames) in [("file", 40), ("ball", 30)] {
        service.until_published(name, frames);
        assert_eq!(service.stream(name)["state"], "live");
    }
    let mut last = [0.0; 2];
    for _ in 0..5 {
        until("both streams have captured more frames", || {
            let metrics = service.metrics();
            let mut has_grown = true;
            for (name, last) in ["file", "ball"].into_iter().zip(&last) {
                let (captured, settled) = captured_and_settled(&metrics, name);
                assert_eq!(captured, settled, "{name}");
                has_grown &= captured > *last;
            }
            let now = ["file", "ball"].map(|name| captured_and_settled(&metrics, name).0);
            has_grown.then(|| last = now)
        });
    }
    let (code, took, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    println!("stopped after {took:?}");
    for (name, at_least) in ["file", "ball"].into_iter().zip(last) {
        let account = account(&log, name);
        assert_eq!(account.captured, account.published + account.dropped, "{account:?}");
        assert_eq!(account.in_flight, 0, "{account:?}");
        assert!(account.captured as f64 >= at_least, "{account:?}");
    }
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[test]
fn viewers_over_tcp_and_udp_share_one_encoder_and_see_the_mask() {
    let folder = folder();
    let streams = format!(
        "[[stream]]\nname = \"gate\"\nsource = \"{RED}\"\noverlay = {{ style = \"mask-only\", legend = false }}\n"
    );
    let service = Service::ready(folder.path(), &streams);
    service.until_state("gate", "live");
    let mut viewers = ["tcp", "udp"]
        .map(|transport| Viewer::play(&service.rtsp("gate"), transport, (320, 240)))
        .into_iter()
        .collect::<Vec<_>>();
    for viewer in &mut viewers {
        let frame = viewer.next();
        for (x, y) in [(0, 0), (160, 120), (319, 239)] {
            let [red, green, blue] = frame.at(x, y);
            assert!(red > 235 && green < 20 && blue < 20, "{:?} at {x}, {y}", (red, green, blue));
        }
    }
    assert_eq!(service.stream("gate")["viewers"], serde_json::json!({"rtsp": 2, "webrtc": 0, "mjpeg": 0}));
    let before = service.metrics();
    assert_eq!(before.sum("maskcast_viewers", &[("stream", "gate"), ("kind", "rtsp")]), 2.0);
    for _ in 0..30 {
        for viewer in &mut viewers {
            viewer.next();
        }
    }
    service.until_published("gate", before.published("gate") as u64 + 30);
    let after = service.metrics();
    let published = after.published("gate") - before.published("gate");
    let encoded = after.stage("gate", "encode") - before.stage("gate", "encode");
    assert!((encoded - published).abs() <= 4.0, "{encoded} encoded, {published} published");
    for left in (0..2).rev() {
        viewers.remove(0);
        until("a viewer has disconnected", || (service.stream("gate")["viewers"]["rtsp"] == left).then_some(()));
    }
}

#[test]
fn a_gstreamer_description_may_end_in_caps() {
    let folder = folder();
    let source = RED.strip_suffix(" ! queue").unwrap();
    let service = Service::ready(folder.path(), &format!("[[stream]]\nname = \"gate\"\nsource = \"{source}\"\n"));
    let stream = service.stream("gate");
    assert_eq!(stream["state"], "live", "{stream}");
}

#[test]
fn without_viewers_no_frame_is_drawn_or_encoded() {
    let folder = folder();
    let service =
        Service::ready(folder.path(), "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240\"\n");
    let stages = |metrics: &Metrics| ["overlay", "encode"].map(|stage| metrics.stage("gate", stage));
    // How often both stages run while this many frames are published.
    let runs_during = |frames: u64| {
        let before = service.metrics();
        service.until_published("gate", before.published("gate") as u64 + frames);
        let (before, after) = (stages(&before), stages(&service.metrics()));
        [after[0] - before[0], after[1] - before[1]]
    };
    runs_during(20);
    assert_eq!(stages(&service.metrics()), [0.0, 0.0]);

    // The first viewer gets a frame, although none is drawn when it connects.
    let connected = Instant::now();
    let mut browser = Mjpeg::connect(&service.page, "gate");
    browser.next();
    println!("an MJPEG viewer's first frame after {:?}", connected.elapsed());
    for _ in 0..4 {
        browser.next();
    }
    let [overlay, encode] = stages(&service.metrics());
    assert!(overlay >= 5.0, "{overlay}");
    assert_eq!(encode, 0.0, "JPEGs need no H.264");
    drop(browser);
    let no_viewer = |output: &str| {
        until("the viewer is disconnected", || (service.stream("gate")["viewers"][output] == 0).then_some(()));
    };
    no_viewer("mjpeg");
    // One frame may have been drawn at that time.
    assert!(runs_during(20)[0] <= 1.0);

    let took = time_to_keyframe(&service.rtsp("gate"), DEADLINE);
    println!("an RTSP viewer's first frame after {took:?}");
    assert!(took.is_some(), "no frame within {DEADLINE:?}");
    let mut player = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    player.next();
    assert!(stages(&service.metrics())[1] > 0.0);
    drop(player);
    no_viewer("rtsp");
    let runs = runs_during(20);
    assert!(runs[0] <= 1.0 && runs[1] <= 2.0, "{runs:?} runs without a viewer");
}

#[test]
fn a_viewer_that_does_not_read_does_not_delay_others() {
    let folder = folder();
    let service = Service::ready(
        folder.path(),
        "[[stream]]\nname = \"gate\"\nsource = \"test://snow?width=640&height=480&fps=15\"\nencode.jpeg_quality = 95\n",
    );
    let _stalled = Mjpeg::connect(&service.page, "gate");
    let mut browser = Mjpeg::connect(&service.page, "gate");
    let mut player = Viewer::play(&service.rtsp("gate"), "tcp", (640, 480));
    // More bytes than the socket buffers of the first viewer hold.
    let (mut bytes, mut frames) = (0, 0);
    while bytes < 6 << 20 || frames < 11 {
        bytes += browser.next().len();
        frames += 1;
        player.next();
    }
    let stream = service.stream("gate");
    assert_eq!(stream["viewers"]["mjpeg"], 2, "{stream}");
    assert_eq!(stream["state"], "live", "{stream}");
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
}

/// The longest time between two keyframes that can be configured.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(60);

/// Number of viewers that connect one after another.
const LATER_VIEWERS: u32 = 4;

/// The encoder makes a keyframe for each new viewer, also for the slate of an offline stream.
#[test]
fn later_viewers_do_not_wait_for_the_regular_keyframe() {
    let folder = folder();
    let service = Service::ready(
        folder.path(),
        "[[stream]]\nname = \"live\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         encode.keyframe_interval = \"60s\"\n\
         [[stream]]\nname = \"offline\"\nsource = \"rtsp://127.0.0.1:1/stream\"\n\
         encode.keyframe_interval = \"60s\"\n",
    );
    for (name, size) in [("live", (320, 240)), ("offline", (640, 360))] {
        let mut first = Viewer::play(&service.rtsp(name), "tcp", size);
        first.next();
        let began = Instant::now();
        for _ in 0..LATER_VIEWERS {
            let took = time_to_keyframe(&service.rtsp(name), DEADLINE);
            println!("{name}: a keyframe for a later viewer after {took:?}");
            assert!(took.is_some(), "{name}: no keyframe within {DEADLINE:?}");
        }
        // With regular keyframes only, the first of these viewers would wait for up to one interval and each other one
        // for a whole interval.
        let least = KEYFRAME_INTERVAL * (LATER_VIEWERS - 1);
        assert!(began.elapsed() < least, "{name}: {LATER_VIEWERS} keyframes in {:?}", began.elapsed());
    }
}

/// Starts a service with two recorded streams, one for each container.
fn start_recording(folder: &Path) -> Service {
    for name in ["mp4", "mkv"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    let stream = |name: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
             record = {{ dir = \"{name}\", format = \"{name}\" }}\n"
        )
    };
    Service::ready(folder, &(stream("mp4") + &stream("mkv")))
}

/// The only file in a folder.
fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_recording_is_complete_after_sigterm() {
    let folder = folder();
    let service = start_recording(folder.path());
    for name in ["mp4", "mkv"] {
        service.until_published(name, 45);
    }
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    for name in ["mp4", "mkv"] {
        let file = only_file(&folder.path().join(name));
        assert_eq!(file.extension().unwrap(), name);
        assert_eq!(clip::decode_errors(&file), "");
        let (probe, account) = (clip::probe(&file), account(&log, name));
        // The last frames may be published after the recording is closed.
        assert!(
            (account.published.saturating_sub(3)..=account.published).contains(&probe.frames),
            "{probe:?} {account:?}"
        );
        // The duration includes dropped frames.
        let length = account.captured as f64 / 15.0;
        assert!((probe.duration - length).abs() < 0.5 + length / 5.0, "{probe:?}, {length} s");
        assert_eq!((probe.width, probe.height), (320, 240));
    }
}

#[test]
fn a_recording_of_a_killed_service_lacks_at_most_its_last_two_seconds() {
    let folder = folder();
    let mut service = start_recording(folder.path());
    for name in ["mp4", "mkv"] {
        service.until_published(name, 75);
    }
    let published = ["mp4", "mkv"].map(|name| service.published(name));
    service.program.child.0.kill().unwrap();
    service.program.ended();
    for (name, published) in ["mp4", "mkv"].into_iter().zip(published) {
        let file = only_file(&folder.path().join(name));
        // The last frame may be incomplete; ffmpeg must be able to open the file.
        let _ = clip::decode_errors(&file);
        let frames = clip::probe(&file).frames;
        assert!(frames + 30 >= published, "{name}: {frames} of {published} frames");
    }
}

#[test]
fn an_offline_camera_does_not_affect_another_stream() {
    const SECRET: &str = "SQUEAMISH-OSSIFRAGE";
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = folder();
    let streams = format!(
        r#"
        [[stream]]
        name = "offline"
        source = "rtsp://{closed}/stream"
        user = "viewer"
        password_env = "CAMERA_PASSWORD"
        [[stream]]
        name = "live"
        source = "test://ball?width=320&height=240&fps=15"
        "#
    );
    let mut service = Service::with(folder.path(), &streams, &[("CAMERA_PASSWORD", SECRET), ("MASKCAST_LOG", "debug")]);
    service.program.wait_for_message("ready");
    assert_eq!(get(&format!("{}readyz", service.page)).0, 200);
    let offline = service.until_state("offline", "offline");
    let reason = offline["reason"].as_str().unwrap();
    assert!(reason.contains(&closed.to_string()), "{reason}");
    assert!(!reason.contains('\n'), "{reason}");
    service.until_state("live", "live");
    service.until_published("live", 20);
    // Its viewers see the slate: grey, with bright letters.
    let slate = Viewer::play(&service.rtsp("offline"), "tcp", (640, 360)).next();
    let brightest = slate.data.iter().max().unwrap();
    let darkest = slate.data.iter().min().unwrap();
    assert!(brightest - darkest > 80, "the slate has no text: {darkest} to {brightest}");
    let is_grey = |rgb: &[u8]| rgb.iter().max().unwrap() - rgb.iter().min().unwrap() < 24;
    assert!(slate.data.chunks(3).all(is_grey), "the slate is not grey");

    let shown = ["", "api/v1/streams", "api/v1/streams/offline", "metrics"]
        .map(|path| get(&format!("{}{path}", service.page)).1);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0));
    for text in shown.iter().chain([&log]) {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn the_error_for_a_port_in_use_names_the_key_and_the_address() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let folder = folder();
    for (key, http, rtsp) in
        [("server.http", address.as_str(), "127.0.0.1:0"), ("server.rtsp", "127.0.0.1:0", address.as_str())]
    {
        std::fs::create_dir_all(folder.path().join("recordings")).unwrap();
        let streams = "[[stream]]\nname = \"gate\"\nsource = \"test://\"\nrecord = { dir = \"recordings\" }\n";
        let config = write_config_at(folder.path(), http, rtsp, streams);
        let ended = run(maskcast().arg("run").arg(config));
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains(key) && lines[0].contains(&address) && lines[0].contains("in use"), "{}", lines[0]);
        assert_eq!(std::fs::read_dir(folder.path().join("recordings")).unwrap().count(), 0);
    }
}

#[test]
fn the_service_stops_when_all_files_have_ended() {
    let folder = folder();
    clip::moving(&folder.path().join("clip.mp4"), (320, 240), 25, 60);
    for speed in ["max", "real-time"] {
        let streams = format!(
            "[[stream]]\nname = \"once\"\nsource = \"file:clip.mp4\"\nspeed = \"{speed}\"\nshow = \"matched\"\n"
        );
        let mut service = Service::start(folder.path(), &streams);
        let (code, log) = service.program.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("all sources have ended"), "{log}");
        let account = account(&log, "once");
        assert_eq!((account.captured, account.in_flight), (60, 0), "{account:?}");
        assert_eq!(account.published + account.dropped, 60, "{account:?}");
        assert!(account.published > 0, "{account:?}");
    }
}
