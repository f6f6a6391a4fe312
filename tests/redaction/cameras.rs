//! Cameras that disappear, return, and change the size of their frames; and a service that is stopped for a while.

use std::time::Duration;

use crate::camera::{Camera, serve_mjpeg};
use crate::capture::Capture;
use crate::common::wait::until;
use crate::fixture::{Viewers, end, folder, gate_and_open, start};
use crate::models::Kind;
use crate::paint::{write_huge_walk, write_large_walk, write_long_walk, write_walk};

/// Slates show the last frame without its colour, so that only the checker can be found in them.
fn compare_slates(viewers: &Viewers) {
    viewers.open.until("slates with a person", |findings| findings.slates >= 3);
    for gate in &viewers.gate {
        gate.until_more_hidden(5);
        println!("slate: {}", gate.assert_clean());
    }
}

/// The last frame of an offline camera, its return with frames of another size, and a service that was stopped.
pub fn a_lost_camera_shows_nothing() {
    let folder = folder(Kind::First);
    let [small, large] = ["small.mp4", "large.mp4"].map(|name| folder.path().join(name));
    write_long_walk(&small);
    write_large_walk(&large, 11);
    let camera = Camera::show(&small, 0);
    let (port, source) = (camera.port, camera.source());
    let service = start(folder.path(), &gate_and_open(&source));
    let viewers = Viewers::start(&service);
    viewers.until_visible();
    viewers.compare("camera");

    service.program.child.signal("STOP");
    // Longer than a mask may be old.
    let _ = crossbeam_channel::after(Duration::from_secs(3)).recv();
    service.program.child.signal("CONT");
    viewers.compare("continued");
    viewers.until_visible();

    drop(camera);
    compare_slates(&viewers);
    let snapshot = Capture::snapshots(&service, "gate");
    snapshot.until_more_hidden(3);
    snapshot.assert_clean();
    drop(snapshot);

    let camera = Camera::show(&large, port);
    viewers.until_visible();
    viewers.compare("larger frames");
    drop(camera);
    compare_slates(&viewers);
    let _camera = Camera::show(&small, port);
    viewers.until_visible();
    viewers.compare("smaller frames");
    let log = end(service);
    assert!(log.contains("stream offline"), "{log}");
}

/// One connection with frames of two sizes in turn.
pub fn frames_of_changing_size_show_nothing() {
    let folder = folder(Kind::First);
    let [small, large] = ["small.mp4", "large.mp4"].map(|name| folder.path().join(name));
    write_walk(&small);
    write_large_walk(&large, 1);
    let source = serve_mjpeg(folder.path(), &[&small, &large]);
    let service = start(folder.path(), &gate_and_open(&source));
    let viewers = Viewers::start(&service);
    for _ in 0..3 {
        let before = service.stream("gate")["width"].clone();
        viewers.compare("changing size");
        until("another size", || (service.stream("gate")["width"] != before).then_some(()));
    }
    viewers.until_visible();
    viewers.compare("changed size");
    end(service);
}

/// The camera changes to frames that are too large for the H.264 encoder, and back.
pub fn a_failing_encoder_shows_nothing() {
    let folder = folder(Kind::First);
    let [small, large] = ["small.mp4", "large.mkv"].map(|name| folder.path().join(name));
    write_walk(&small);
    write_huge_walk(&large);
    let source = serve_mjpeg(folder.path(), &[&small, &large]);
    let streams = gate_and_open(&source).replace("encode = {", "encode = { encoder = \"openh264\",");
    let mut service = start(folder.path(), &streams);
    let viewers = Viewers::start(&service);
    let _open = Capture::rtsp(&service, "open");
    // On a slow machine, one of the streams drops all large frames.
    let failed = service.program.wait_for("the failure of an encoder", |entry| {
        let message = entry["message"].as_str()?;
        let stream = entry["stream"].as_str()?.to_owned();
        message.contains("encoder failed, the other one continues").then_some(stream)
    });
    // The viewers by RTSP may get no more frames; those by MJPEG do.
    let [by_rtsp, by_mjpeg] = &viewers.gate;
    by_mjpeg.until_more(30);
    viewers.open.until_more_leaks(30);
    by_mjpeg.until_more_visible(5);
    println!("{failed} failed: {}\n{}", by_rtsp.assert_clean(), by_mjpeg.assert_clean());
    end(service);
}
