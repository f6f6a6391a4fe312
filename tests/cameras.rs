//! RTSP cameras: outages, and cameras that require a password.

mod common;

use std::time::Instant;

use common::http::get;
use common::program::DEADLINE;
use common::rtsp::{Camera, Viewer};
use common::service::{Service, folder, write_config, write_config_at};

#[test]
fn a_stream_is_offline_while_its_camera_is_down() {
    // The camera is another Maskcast service.
    let camera_folder = folder();
    let camera_stream = "[[stream]]\nname = \"red\"\nsource = \"test://red?width=320&height=240&fps=15\"\n\
                   overlay.legend = false\n";
    let camera = Service::ready(camera_folder.path(), camera_stream);
    let address = camera.rtsp.trim_start_matches("rtsp://").trim_end_matches('/').to_string();
    let service_folder = folder();
    let stream = |transport: &str| {
        format!(
            "[[stream]]\nname = \"{transport}\"\nsource = \"rtsp://{address}/red\"\ntransport = \"{transport}\"\n\
             silence_timeout = \"2s\"\noverlay.legend = false\n"
        )
    };
    let service = Service::ready(service_folder.path(), &(stream("tcp") + &stream("udp")));
    for name in ["tcp", "udp"] {
        service.until_state(name, "live");
        service.until_published(name, 30);
        let stream = service.stream(name);
        assert_eq!((&stream["width"], &stream["height"]), (&320.into(), &240.into()));
    }
    let mut viewer = Viewer::play(&service.rtsp("tcp"), "tcp", (320, 240));
    // The corner has no text: it is grey on the slate, which shows OFFLINE.
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
        assert!(killed.elapsed() < DEADLINE, "the viewer does not see the slate");
    }

    let before = ["tcp", "udp"].map(|name| service.published(name));
    let config = write_config_at(camera_folder.path(), "127.0.0.1:0", &address, camera_stream);
    let _camera = Service::run(&config, &[]);
    for (name, before) in ["tcp", "udp"].into_iter().zip(before) {
        service.until_state(name, "live");
        service.until_published(name, before + 15);
    }
    // The same viewer sees frames of the camera again.
    let restarted = Instant::now();
    while is_grey(&mut viewer) {
        assert!(restarted.elapsed() < DEADLINE, "the viewer still sees the slate");
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_camera_with_a_password_is_live_only_with_the_correct_password() {
    const CORRECT: &str = "right@pass:word/1";
    const WRONG: &str = "WRONG-OSSIFRAGE";
    let camera = Camera::with_password("viewer", CORRECT);
    let folder = folder();
    let stream = |name: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"rtsp://127.0.0.1:{}/stream\"\nuser = \"viewer\"\n\
             password_env = \"PASSWORD_{name}\"\n",
            camera.port
        )
    };
    let config = write_config(folder.path(), &(stream("correct") + &stream("wrong")));
    let variables = [("PASSWORD_correct", CORRECT), ("PASSWORD_wrong", WRONG), ("MASKCAST_LOG", "debug")];
    let mut service = Service::run(&config, &variables);
    service.program.wait_for_message("ready");
    service.until_state("correct", "live");
    service.until_published("correct", 15);
    let wrong = service.until_state("wrong", "offline");
    let reason = wrong["reason"].as_str().unwrap().to_lowercase();
    assert!(reason.contains("user") || reason.contains("password"), "{reason}");
    assert_eq!(service.published("wrong"), 0);

    let shown = ["", "api/v1/streams", "metrics"].map(|path| get(&format!("{}{path}", service.page)).1);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0));
    for text in shown.iter().chain([&log]) {
        assert!(!text.contains(WRONG) && !text.contains(CORRECT), "{text}");
    }
}
