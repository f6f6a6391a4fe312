//! What changes while `maskcast run` runs: the model, the configuration.

mod common;

use std::path::Path;
use std::process::Command;

use common::http::{Mjpeg, get_json};
use common::onnx;
use common::program::{Ended, maskcast, run, until};
use common::rtsp::{NonReadingClient, Viewer};
use common::service::{Service, folder, write_config, write_model};

/// Red everywhere; what the model calls red is drawn in the colour of class 0.
const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1";

/// Class 0 is green here, and has another name.
const GREEN: &str =
    r#"[{"name":"grass","color":[0,255,0]},{"name":"green","color":[0,0,255]},{"name":"blue","color":[255,0,0]}]"#;

fn use_model(service: &Service, path: &Path) -> Ended {
    run(maskcast().args(["model", "use"]).arg(path).args(["--url", &service.page]))
}

/// Waits for a picture of this colour in the middle.
fn until_color(viewer: &mut Viewer, what: &str, fits: fn([u8; 3]) -> bool) {
    until(what, || fits(viewer.next().at(160, 120)).then_some(()));
}

fn is_red([red, green, blue]: [u8; 3]) -> bool {
    red > 200 && green < 50 && blue < 50
}

fn is_green([red, green, blue]: [u8; 3]) -> bool {
    green > 200 && red < 50 && blue < 50
}

fn change(service: &Service) -> serde_json::Value {
    get_json(&format!("{}api/v1/model", service.page))["change"].clone()
}

#[test]
fn the_model_is_exchanged_between_two_frames_and_a_bad_one_is_refused() {
    let folder = folder();
    let stream = |name: &str, more: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"{RED}\"\n[stream.overlay]\nstyle = \"mask-only\"\nlegend = false\n{more}\n"
        )
    };
    let mut service = Service::ready(folder.path(), &(stream("gate", "") + &stream("yard", "hide = [\"blue\"]")));
    service.until_state("gate", "live");
    let mut viewer = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    until_color(&mut viewer, "the first model's red", is_red);
    let before = service.stream("gate");
    assert_eq!(before["legend"][0]["name"], "red");

    let other = folder.path().join("other.onnx");
    write_model(&other, GREEN, true);
    let ended = use_model(&service, &other);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().starts_with("other runs on cpu"), "{}", ended.text());
    until_color(&mut viewer, "the other model's green", is_green);
    let after = service.stream("gate");
    assert_eq!(
        (after["legend"][0]["name"].as_str(), after["dropped"].as_u64()),
        (Some("grass"), before["dropped"].as_u64())
    );
    assert_eq!(after["since"], before["since"], "the stream was live all the time");

    for (name, make, reason) in [
        ("garbage.onnx", None, "not a complete ONNX model"),
        ("gone.onnx", None, "No such file"),
        // Nobody ever writes into it.
        ("pipe.onnx", None, "a named pipe"),
        ("wrong.onnx", Some((onnx::LABELS, false)), "golden frame differs in 100.0 % of pixels"),
        (
            "unfit.onnx",
            Some((r#"[{"name":"a","color":[0,0,0]},{"name":"b","color":[0,0,1]},{"name":"c","color":[0,0,2]}]"#, true)),
            "stream[yard].overlay.hide",
        ),
    ] {
        let path = folder.path().join(name);
        match make {
            Some((labels, right)) => write_model(&path, labels, right),
            None if name == "gone.onnx" => {}
            None if name == "pipe.onnx" => assert_eq!(run(Command::new("mkfifo").arg(&path)).code, Some(0)),
            None => std::fs::write(&path, "no model").unwrap(),
        }
        let ended = use_model(&service, &path);
        assert_eq!(ended.code, Some(1), "{name}");
        assert!(ended.stderr.contains("refused: ") && ended.stderr.contains(reason), "{name}: {}", ended.stderr);
        assert_eq!(get_json(&format!("{}api/v1/model", service.page))["name"], "other", "{name}");
    }

    // The file of the model that runs: damaged, then another good one.
    std::fs::write(&other, "half a mod").unwrap();
    until("the damaged file is refused", || {
        (change(&service)["path"] == other.to_str().unwrap() && change(&service)["state"] == "refused").then_some(())
    });
    until_color(&mut viewer, "still the other model's green", is_green);
    write_model(&other, onnx::LABELS, true);
    until_color(&mut viewer, "the new file's red", is_red);
    let end = service.stream("gate");
    assert_eq!(
        (end["state"].as_str(), &end["since"], &end["dropped"]),
        (Some("live"), &before["since"], &before["dropped"])
    );
    service.program.wait_for("the change in the log", |entry| {
        entry["message"].as_str()?.contains("model file changed").then_some(())
    });
}

#[test]
fn other_weights_beside_the_model_are_another_model() {
    let folder = folder();
    let path = folder.path().join("channels.onnx");
    let data = folder.path().join("channels.onnx.data");
    // Three logits of three channels: `order` says which channel each of them is.
    let weights = |order: [usize; 3]| -> Vec<u8> {
        let row = |channel: usize| (0..3).map(move |n| if n == channel { 1.0_f32 } else { 0.0 });
        order.into_iter().flat_map(row).flat_map(f32::to_le_bytes).collect()
    };
    let mut model = onnx::foreign(64, 36);
    let graph = model.graph.as_mut().unwrap();
    let mut conv = onnx::node("Conv", "input", "logits", &[]);
    conv.input.push("w".into());
    graph.node = vec![conv];
    graph.initializer = vec![onnx::proto::Tensor {
        dims: vec![3, 3, 1, 1],
        element: onnx::proto::Element::Float.into(),
        name: "w".into(),
        raw_data: None,
    }];
    std::fs::write(&path, onnx::with_external_weights(&model, "channels.onnx.data")).unwrap();
    std::fs::write(folder.path().join("channels.toml"), onnx::FOREIGN_MANIFEST).unwrap();
    std::fs::write(&data, weights([0, 1, 2])).unwrap();
    let stream = format!(
        "[[stream]]\nname = \"gate\"\nsource = \"{RED}\"\n[stream.overlay]\nstyle = \"mask-only\"\nlegend = false\n"
    );
    let service = Service::ready(folder.path(), &stream);
    let mut viewer = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    until_color(&mut viewer, "red where the first logit is the red channel", is_red);
    // Empty, then written: the weights that are in use stay as they are meanwhile.
    std::fs::write(&data, "").unwrap();
    (0..15).for_each(|_| drop(viewer.next()));
    std::fs::write(&data, weights([1, 0, 2])).unwrap();
    until_color(&mut viewer, "green where the second logit is the red channel", is_green);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_reload_touches_only_what_has_changed() {
    let folder = folder();
    let stream = |name: &str, more: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"test://ball?width=320&height=240&fps=15\"\noverlay.legend = false\n{more}\n"
        )
    };
    let mut service =
        Service::ready(folder.path(), &(stream("keep", "") + &stream("change", "") + &stream("remove", "")));
    for name in ["keep", "change", "remove"] {
        service.until_state(name, "live");
    }
    let mut viewer = Viewer::play(&service.rtsp("keep"), "tcp", (320, 240));
    viewer.next();
    let mut stays = Mjpeg::connect(&service.page, "change");
    stays.next();
    let kept = service.stream("keep");
    // Those who look at the stream that goes; one of them reads nothing.
    let mut leaves = Mjpeg::connect(&service.page, "remove");
    leaves.next();
    let mut leaving = Viewer::play(&service.rtsp("remove"), "tcp", (320, 240));
    leaving.next();
    let deaf = NonReadingClient::play(&service.rtsp("remove"));
    let asking = NonReadingClient::describe(&service.rtsp("remove"));
    // Those who look at the stream that starts anew; one comes when it has.
    let mut changing = Viewer::play(&service.rtsp("change"), "tcp", (320, 240));
    changing.next();

    write_config(folder.path(), &(stream("add", "") + &stream("keep", "") + &stream("change", "max_mask_age = 2.0")));
    service.program.child.signal("HUP");
    let said = service.program.wait_for("what was done", |entry| {
        Some(entry["message"].as_str()?.strip_prefix("configuration reloaded: ")?.to_string())
    });
    assert_eq!(said, "started add; restarted change; redrawn none; stopped remove; untouched keep; model unchanged");
    let names: Vec<String> = service.streams().iter().map(|stream| stream["name"].as_str().unwrap().into()).collect();
    assert_eq!(names, ["add", "keep", "change"]);
    service.until_state("add", "live");
    service.until_state("change", "live");
    viewer.next();
    stays.next();
    // More than may be under way from before.
    (0..30).for_each(|_| drop(changing.next()));
    Viewer::play(&service.rtsp("change"), "udp", (320, 240)).next();
    let ended = until("the browser of the removed stream is let go", || leaves.try_next().err());
    assert_eq!(ended.kind(), std::io::ErrorKind::UnexpectedEof);
    leaving.ends();
    deaf.ends();
    asking.ends();
    let now = service.stream("keep");
    assert_eq!(
        (&now["since"], &now["dropped"], now["state"].as_str()),
        (&kept["since"], &kept["dropped"], Some("live"))
    );
    assert!(now["published"].as_u64() > kept["published"].as_u64());

    // A configuration that cannot work changes nothing.
    write_config(folder.path(), &(stream("keep", "overlay.alpha = 7.0") + "[[stream]]\nname = \"no source\"\n"));
    service.program.child.signal("HUP");
    service.program.wait_for("the refusal", |entry| {
        entry["message"].as_str()?.starts_with("configuration not reloaded").then_some(())
    });
    let names: Vec<String> = service.streams().iter().map(|stream| stream["name"].as_str().unwrap().into()).collect();
    assert_eq!(names, ["add", "keep", "change"]);
    viewer.next();
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stream[keep].overlay.alpha") && log.contains("no source"), "every error is said: {log}");
}
