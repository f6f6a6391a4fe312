//! Every output of every shape.

use std::io::Cursor;
use std::path::Path;

use crate::capture::{Capture, of_file, of_files};
use crate::common::http::{Mjpeg, get_bytes};
use crate::common::media_server::MediaServer;
use crate::common::rtsp::NonReadingClient;
use crate::common::service::Service;
use crate::common::wait::until;
use crate::detect::Findings;
use crate::fixture::{clip, end, files, folder, open, redacted, start};
use crate::models::Kind;
use crate::paint::{HEIGHT, Scene, WIDTH, write_shapes};

/// The frames in these JPEGs.
fn of_jpegs(folder: &Path, jpegs: impl Iterator<Item = Vec<u8>>) -> Findings {
    let path = folder.join("slow.mjpeg");
    std::fs::write(&path, jpegs.collect::<Vec<_>>().concat()).unwrap();
    of_file(&path)
}

/// The newest masks of `gate`, until there is a person in one: they have indices of classes, and no pixels of the frame.
fn check_masks(service: &Service) {
    let url = format!("{}api/v1/streams/gate/mask.png", service.page);
    until("a mask with a person", || {
        let (status, file) = get_bytes(&url);
        assert_eq!(status, 200, "{url}");
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width as usize, info.height as usize, pixels.len()), (WIDTH, HEIGHT, WIDTH * HEIGHT));
        assert!(pixels.iter().all(|&class| class < 3), "{url} has other values than the classes of the model");
        pixels.contains(&1).then_some(())
    });
}

/// All scenes with persons were seen.
pub fn has_all(findings: &Findings) -> bool {
    Scene::PEOPLE.iter().all(|scene| findings.scene(*scene).frames >= 3)
}

/// Moving, growing, flickering, fast, one-pixel and border-touching shapes and whole frames, by every output that needs no
/// browser, with clients from before the first frame and with clients that do not read.
pub fn no_shape_leaves_by_any_output() {
    let folder = folder(Kind::First);
    write_shapes(&folder.path().join("clip.mp4"));
    let source = clip("clip.mp4");
    let servers = [(); 2].map(|()| MediaServer::listen(0, None));
    let keys = |server: &MediaServer| {
        format!("[stream.record]\ndir = \"rec\"\nsegment = \"3s\"\n[[stream.push]]\nurl = \"{}\"\n", server.url())
    };
    let streams = redacted("gate", &source, "fill", &keys(&servers[0]))
        + &open("open", &source, &keys(&servers[1]))
        + &redacted("cells", &source, "pixelate", "")
        + &redacted("soft", &source, "blur", "");
    let service = start(folder.path(), &streams);
    // Before the first frame.
    let gate = [Capture::rtsp(&service, "gate"), Capture::mjpeg(&service, "gate")];
    let _no_reader = NonReadingClient::play(&service.rtsp("gate"));
    let mut slow = ["gate", "open"].map(|stream| Mjpeg::connect(&service.page, stream));
    slow.iter_mut().for_each(|viewer| drop(viewer.next()));
    let open = [Capture::rtsp(&service, "open"), Capture::mjpeg(&service, "open")];
    let [gate_push, open_push] = servers;
    let pushes = [Capture::push("gate", gate_push), Capture::push("open", open_push)];
    let coarse = ["cells", "soft"].map(|stream| [Capture::rtsp(&service, stream), Capture::mjpeg(&service, stream)]);
    let snapshots = ["gate", "open"].map(|stream| Capture::snapshots(&service, stream));

    for capture in open.iter().chain([&pushes[1], &snapshots[1]]) {
        let findings = capture.until("all scenes", has_all);
        println!("open: {findings}");
        capture.assert_shows(&Scene::PEOPLE);
    }
    for capture in gate.iter().chain([&pushes[0], &snapshots[0]]) {
        // The code is visible: not all is hidden.
        capture.until("visible frames", |findings| findings.frames > 110 && findings.scene(Scene::Moving).frames > 0);
        println!("gate: {}", capture.assert_clean());
    }
    for capture in coarse.iter().flatten() {
        capture.until("visible frames", |findings| findings.frames > 110 && findings.scene(Scene::Moving).frames > 0);
        println!("cells: {}", capture.findings());
        capture.assert_no_checker();
    }
    check_masks(&service);
    // What has waited for the slow viewers meanwhile.
    let [gate_slow, open_slow] = slow.map(|mut viewer| of_jpegs(folder.path(), (0..60).map(|_| viewer.next())));
    gate_slow.assert_clean("a slow viewer of gate");
    assert!(open_slow.red > 0 && open_slow.checker > 0, "a slow viewer of open: {open_slow}");
    let log = end(service);
    assert!(!log.contains("ERROR"), "{log}");
    let recordings = |stream| of_files(files(&folder.path().join("rec"), stream).iter().map(|file| &**file));
    recordings("open").assert_shows("recordings of open", &Scene::PEOPLE);
    let gate = recordings("gate");
    println!("recordings: {gate}");
    gate.assert_clean("recordings of gate");
    assert!(gate.scene(Scene::Moving).frames > 0, "{gate}");
}

/// The detector finds each scene in the clip itself, and nothing in an empty frame.
pub fn the_detector_finds_every_shape_of_the_clip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    write_shapes(&path);
    let found = of_file(&path);
    assert_eq!((found.frames, found.hidden), (125, 0), "{found}");
    found.assert_shows("the clip", &Scene::PEOPLE);
    let empty = found.scene(Scene::Empty);
    assert!(empty.frames == 10 && empty.red == 0 && empty.checker == 0, "{found}");
    println!("{found}");
}
