//! RTSP cameras that go away, come back, and ask who is there.

mod common;

use std::time::Instant;

use common::http::get;
use common::program::DEADLINE;
use common::rtsp::{Camera, Viewer};
use common::service::{Service, folder, write_config, write_config_at};

#[test]
fn a_camera_that_dies_is_offline_and_comes_back() {
    // The camera is a Maskcast of its own.
    let far = folder();
    let picture = "[[stream]]\nname = \"red\"\nsource = \"test://red?width=320&height=240&fps=15\"\n\
                   overlay.legend = false\n";
    let camera = Service::ready(far.path(), picture);
    let address = camera.rtsp.trim_start_matches("rtsp://").trim_end_matches('/').to_string();
    let near = folder();
    let stream = |transport: &str| {
        format!(
            "[[stream]]\nname = \"{transport}\"\nsource = \"rtsp://{address}/red\"\ntransport = \"{transport}\"\n\
             silence_timeout = \"2s\"\noverlay.legend = false\n"
        )
    };
    let service = Service::ready(near.path(), &(stream("tcp") + &stream("udp")));
    for name in ["tcp", "udp"] {
        service.until_state(name, "live");
        service.until_published(name, 30);
        let stream = service.stream(name);
        assert_eq!((&stream["width"], &stream["height"]), (&320.into(), &240.into()));
    }
    let mut viewer = Viewer::play(&service.rtsp("tcp"), "tcp", (320, 240));
    // The corner is free of text; what is grey there is the picture that says OFFLINE.
    let is_grey = |viewer: &mut Viewer| {
        let pixel = viewer.next().at(8, 232);
        pixel.iter().max().unwrap() - pixel.iter().min().unwrap() < 24
    };
    assert!(!is_grey(&mut viewer));
    let mut camera = camera;
    camera.program.child.0.kill().unwrap();
    let killed = Instant::now();
    camera.program.ended();
    for name in ["tcp", "udp"] {
        let stream = service.until_state(name, "offline");
        assert!(stream["reason"].as_str().is_some_and(|reason| reason.contains(&address)), "{stream}");
    }
    while !is_grey(&mut viewer) {
        assert!(killed.elapsed() < DEADLINE, "the viewer sees no picture that says OFFLINE");
    }

    let before = ["tcp", "udp"].map(|name| service.published(name));
    let config = write_config_at(far.path(), "127.0.0.1:0", &address, picture);
    let _camera = Service::run(&config, &[]);
    for (name, before) in ["tcp", "udp"].into_iter().zip(before) {
        service.until_state(name, "live");
        service.until_published(name, before + 15);
    }
    // The same viewer goes on watching.
    let back = Instant::now();
    while is_grey(&mut viewer) {
        assert!(back.elapsed() < DEADLINE, "the viewer still sees the picture that says OFFLINE");
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_camera_that_asks_for_a_password_gets_the_right_one_only() {
    const RIGHT: &str = "right@pass:word/1";
    const WRONG: &str = "WRONG-OSSIFRAGE";
    let camera = Camera::locked("viewer", RIGHT);
    let folder = folder();
    let stream = |name: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"rtsp://127.0.0.1:{}/stream\"\nuser = \"viewer\"\n\
             password_env = \"PASSWORD_{name}\"\n",
            camera.port
        )
    };
    let config = write_config(folder.path(), &(stream("right") + &stream("wrong")));
    let variables = [("PASSWORD_right", RIGHT), ("PASSWORD_wrong", WRONG), ("MASKCAST_LOG", "debug")];
    let mut service = Service::run(&config, &variables);
    service.program.wait_for_message("ready");
    service.until_state("right", "live");
    service.until_published("right", 15);
    let wrong = service.until_state("wrong", "offline");
    let reason = wrong["reason"].as_str().unwrap().to_lowercase();
    assert!(reason.contains("user") || reason.contains("password"), "{reason}");
    assert_eq!(service.published("wrong"), 0);

    let shown = ["", "api/v1/streams", "metrics"].map(|path| get(&format!("{}{path}", service.page)).1);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0));
    for text in shown.iter().chain([&log]) {
        assert!(!text.contains(WRONG) && !text.contains(RIGHT), "{text}");
    }
}
