//! Changes of the model and reloads of the configuration while `maskcast run` runs.

mod common;

use std::path::Path;
use std::process::Command;

use common::clip::decoded_frame;
use common::http::{Mjpeg, get_bytes, get_json, send};
use common::onnx;
use common::program::{Ended, maskcast, run, until};
use common::rtsp::{NonReadingClient, Viewer};
use common::service::{Service, folder, write_config, write_model};

/// A red source: every pixel has class 0, whose colour depends on the model's labels.
const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1";

/// Labels whose class 0 is green and has another name.
const GREEN_LABELS: &str =
    r#"[{"name":"grass","color":[0,255,0]},{"name":"green","color":[0,0,255]},{"name":"blue","color":[255,0,0]}]"#;

fn use_model(service: &Service, path: &Path) -> Ended {
    run(maskcast().args(["model", "use"]).arg(path).args(["--url", &service.page]))
}

/// Waits for a frame whose middle has this colour.
fn until_color(viewer: &mut Viewer, what: &str, has_color: fn([u8; 3]) -> bool) {
    until(what, || has_color(viewer.next().at(160, 120)).then_some(()));
}

fn is_red([red, green, blue]: [u8; 3]) -> bool {
    red > 200 && green < 50 && blue < 50
}

fn is_green([red, green, blue]: [u8; 3]) -> bool {
    green > 200 && red < 50 && blue < 50
}

/// Waits until the model makes so many masks a second of a stream, all of whose frames (15 a second) are shown.
fn until_mask_rate(service: &Service, stream: &str, rates: std::ops::RangeInclusive<f64>) {
    until(&format!("{stream}: {rates:?} masks a second"), || {
        let report = service.stream(stream);
        let (masks, fps) = (report["masks_per_second"].as_f64().unwrap(), report["fps"].as_f64().unwrap());
        (rates.contains(&masks) && fps > 13.0 && report["state"] == "live").then_some(())
    });
}

#[test]
fn the_mask_rate_changes_while_the_stream_runs() {
    let folder = folder();
    let stream = |name: &str, more: &str| {
        format!("[[stream]]\nname = \"{name}\"\nsource = \"{RED}\"\nmasks = \"always\"\n{more}\n")
    };
    let service = Service::ready(
        folder.path(),
        &(stream("gate", "mask_rate = 2\nmax_mask_age = \"300ms\"") + &stream("yard", "")),
    );
    service.until_state("gate", "live");
    until_mask_rate(&service, "gate", 1.8..=2.2);
    until_mask_rate(&service, "yard", 13.0..=16.0);
    let since = service.stream("gate")["since"].clone();
    let address = format!("{}api/v1/streams/gate", service.page);
    let patch = |body: &str| send("PATCH", &address, Some(body));
    assert_eq!(patch(r#"{"mask_rate": 5}"#).0, 200);
    until_mask_rate(&service, "gate", 4.7..=5.3);
    let (status, _, problem) = patch(r#"{"mask_rate": "often"}"#);
    assert_eq!(status, 422, "{problem}");
    assert!(problem.contains("stream[gate].mask_rate") && problem.contains("auto"), "{problem}");
    assert_eq!(patch(r#"{"mask_rate": "auto", "priority": 3}"#).0, 200);
    until_mask_rate(&service, "gate", 13.0..=16.0);
    let report = service.stream("gate");
    assert_eq!((&report["config"]["mask_rate"], &report["config"]["priority"]), (&"auto".into(), &3.into()));
    assert_eq!(report["since"], since, "the stream was live all the time");
    let rate = service.metrics().find("maskcast_stream_masks_per_second", &[("stream", "gate")]);
    assert!(rate.is_some_and(|rate| rate > 12.0), "{rate:?}");
}

/// Waits until masks of a stream are needed, or not.
fn until_needed(service: &Service, stream: &str, needed: bool) -> serde_json::Value {
    until(&format!("{stream}: masks_needed is {needed}"), || {
        Some(service.stream(stream)).filter(|report| report["masks_needed"] == needed)
    })
}

#[test]
fn the_model_runs_only_while_something_uses_the_masks() {
    let folder = folder();
    let stream = |name: &str, more: &str| {
        let overlay = "[stream.overlay]\nstyle = \"mask-only\"\nlegend = false\ncolors = { red = \"#00ff00\" }\n";
        format!("[[stream]]\nname = \"{name}\"\nsource = \"{RED}\"\n{more}\n{overlay}\n")
    };
    let rule = "[[stream.rule]]\nname = \"red\"\nclasses = [\"red\"]\nwhen = \"above\"\nshare = 0.5\n";
    let streams = [
        stream("gate", ""),
        stream("pier", "show = \"matched\""),
        stream("hall", "masks = \"always\""),
        stream("yard", "") + rule,
    ];
    let service = Service::ready(folder.path(), &streams.concat());
    let names = ["gate", "pier"];
    for name in names {
        let report = until_needed(&service, name, false);
        assert_eq!((&report["state"], &report["mask_age_ms"]), (&"live".into(), &serde_json::Value::Null), "{report}");
    }
    let runs = || service.metrics().find("maskcast_segment_frames_total", &[]).unwrap();
    let counted = |name: &str| service.metrics().find("maskcast_stream_masks_needed", &[("stream", name)]);
    assert_eq!(["gate", "pier", "hall", "yard"].map(counted), [Some(0.0), Some(0.0), Some(1.0), Some(1.0)]);
    // One model run for each frame of the two streams whose masks are used; the captured frames of all four are published.
    let before = (runs(), service.published("gate"), service.published("hall"));
    service.until_published("gate", before.1 + 30);
    let (frames, published) = (runs() - before.0, (service.published("hall") - before.2) as f64);
    assert!(frames < 2.5 * published, "{frames} masks for {published} frames of each stream");

    for name in names {
        // The first picture shows the mask already: green, where the source is red.
        let since = service.stream(name)["since"].clone();
        let (status, jpeg) = get_bytes(&format!("{}api/v1/streams/{name}/snapshot.jpg", service.page));
        assert_eq!(status, 200);
        let path = folder.path().join("snapshot.jpg");
        std::fs::write(&path, jpeg).unwrap();
        let [red, green, blue] = decoded_frame(&path, 0).at(160, 120);
        assert!(is_green([red, green, blue]), "{name}: {red}, {green}, {blue}");
        let report = service.stream(name);
        assert_eq!((&report["masks_needed"], &report["since"]), (&true.into(), &since), "{report}");
        until_needed(&service, name, false);
        // One mask on request.
        let (status, mask) = get_bytes(&format!("{}api/v1/streams/{name}/mask.png", service.page));
        assert_eq!((status, mask.starts_with(b"\x89PNG")), (200, true));
        until_needed(&service, name, false);
    }
    let address = format!("{}api/v1/streams/gate", service.page);
    assert_eq!(send("PATCH", &address, Some(r#"{"masks": "always"}"#)).0, 200);
    until_needed(&service, "gate", true);
    until_mask_rate(&service, "gate", 13.0..=16.0);
}

/// The model as the API reports it.
fn model(service: &Service) -> serde_json::Value {
    get_json(&format!("{}api/v1/model", service.page))
}

#[test]
fn the_model_is_replaced_without_a_restart_and_unusable_ones_are_refused() {
    let folder = folder();
    let stream = |name: &str, more: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"{RED}\"\n[stream.overlay]\nstyle = \"mask-only\"\nlegend = false\n{more}\n"
        )
    };
    let mut service = Service::ready(folder.path(), &(stream("gate", "") + &stream("yard", "hide = [\"blue\"]")));
    service.until_state("gate", "live");
    let mut viewer = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    until_color(&mut viewer, "red, by the first model", is_red);
    let before = service.stream("gate");
    assert_eq!(before["legend"][0]["name"], "red");

    let other = folder.path().join("other.onnx");
    write_model(&other, GREEN_LABELS, true);
    let ended = use_model(&service, &other);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().starts_with("other runs on cpu"), "{}", ended.text());
    until_color(&mut viewer, "green, by the other model", is_green);
    let after = service.stream("gate");
    assert_eq!(
        (after["legend"][0]["name"].as_str(), after["dropped"].as_u64()),
        (Some("grass"), before["dropped"].as_u64())
    );
    assert_eq!(after["since"], before["since"], "the stream stayed live");

    // Name of the file; labels of the model in it, and whether its golden frame is right; a part of the error.
    for (name, content, reason) in [
        ("garbage.onnx", None, "not a complete ONNX model"),
        ("missing.onnx", None, "No such file"),
        // A read of it would block, because no process writes to it.
        ("pipe.onnx", None, "a named pipe"),
        ("wrong.onnx", Some((onnx::LABELS, false)), "golden frame differs in 100.0 % of pixels"),
        (
            "unfit.onnx",
            Some((r#"[{"name":"a","color":[0,0,0]},{"name":"b","color":[0,0,1]},{"name":"c","color":[0,0,2]}]"#, true)),
            "stream[yard].overlay.hide",
        ),
    ] {
        let path = folder.path().join(name);
        match content {
            Some((labels, right)) => write_model(&path, labels, right),
            None if name == "missing.onnx" => {}
            None if name == "pipe.onnx" => assert_eq!(run(Command::new("mkfifo").arg(&path)).code, Some(0)),
            None => std::fs::write(&path, "not a model").unwrap(),
        }
        let ended = use_model(&service, &path);
        assert_eq!(ended.code, Some(1), "{name}");
        assert!(ended.stderr.contains("refused: ") && ended.stderr.contains(reason), "{name}: {}", ended.stderr);
        assert_eq!(model(&service)["name"], "other", "{name}");
    }

    // The file of the running model is damaged, and then replaced by a usable one.
    std::fs::write(&other, "half a mod").unwrap();
    until("the damaged file is refused", || {
        let change = &model(&service)["change"];
        (change["path"] == other.to_str().unwrap() && change["state"] == "refused").then_some(())
    });
    until_color(&mut viewer, "still green, by the other model", is_green);
    write_model(&other, onnx::LABELS, true);
    until_color(&mut viewer, "red, by the new file", is_red);
    let end = service.stream("gate");
    assert_eq!(
        (end["state"].as_str(), &end["since"], &end["dropped"]),
        (Some("live"), &before["since"], &before["dropped"])
    );
    service.program.wait_for("the change in the log", |entry| {
        entry["message"].as_str()?.contains("model file changed").then_some(())
    });
}

/// The value of a key of `[model]` in the configuration file.
fn in_file(folder: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("maskcast.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
    Some(line.trim_matches('"').to_owned())
}

#[test]
fn a_saved_change_of_the_model_and_the_way_back_survive_a_restart() {
    let folder = folder();
    let config = write_config(folder.path(), &format!("[[stream]]\nname = \"gate\"\nsource = \"{RED}\"\n"));
    let other = folder.path().join("other.onnx");
    write_model(&other, GREEN_LABELS, true);
    let mut service = Service::run(&config, &[]);
    until("the model is loaded", || (send("GET", &format!("{}readyz", service.page), None).0 == 200).then_some(()));
    let rollback = |service: &Service| run(maskcast().args(["model", "rollback", "--url", &service.page]));
    let refused = rollback(&service);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("no other file of this model ran before"), "{}", refused.stderr);

    // Without --save, the file stays as it is, and a rollback too.
    assert_eq!(use_model(&service, &other).code, Some(0));
    let report = model(&service);
    assert_eq!((report["name"].as_str(), report["saved"].as_bool()), (Some("other"), Some(false)));
    assert!(report["previous"].as_str().unwrap().ends_with("/channels.onnx"), "{report}");
    let ended = rollback(&service);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().starts_with("channels runs on cpu"), "{}", ended.text());
    assert_eq!(in_file(folder.path(), "path").as_deref(), Some("channels.onnx"));

    let path = other.to_str().unwrap();
    let ended = run(maskcast().args(["model", "use", path, "--save", "--url", &service.page]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(in_file(folder.path(), "path").as_deref(), Some(path));
    let report = model(&service);
    assert_eq!((report["saved"].as_bool(), report["change"]["saved"].as_bool()), (Some(true), Some(true)));
    service.program.child.signal("HUP");
    service
        .program
        .wait_for("the reload", |entry| entry["message"].as_str()?.starts_with("configuration reloaded").then_some(()));
    // Three seconds: settings are looked at once a second.
    service.until_published("gate", service.published("gate") + 45);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(!log.contains("model settings changed"), "the file that runs is loaded again: {log}");
    let service = Service::run(&config, &[]);
    let report = until("the model is loaded", || {
        let (status, _, body) = send("GET", &format!("{}api/v1/model", service.page), None);
        (status == 200).then(|| serde_json::from_str::<serde_json::Value>(&body).unwrap())
    });
    assert_eq!((report["name"].as_str(), report["saved"].as_bool()), (Some("other"), Some(true)));
    let ended = rollback(&service);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    until("the path is written", || (in_file(folder.path(), "path")?.ends_with("channels.onnx")).then_some(()));
    assert_eq!(in_file(folder.path(), "previous").as_deref(), Some(path));
}

#[test]
fn the_model_is_replaced_when_its_external_weights_change() {
    let folder = folder();
    let path = folder.path().join("channels.onnx");
    let data = folder.path().join("channels.onnx.data");
    // The model has three logits, each of which is one channel of the image: `order` is the channel of each logit.
    let weights = |order: [usize; 3]| -> Vec<u8> {
        let row = |channel: usize| (0..3).map(move |n| if n == channel { 1.0_f32 } else { 0.0 });
        order.into_iter().flat_map(row).flat_map(f32::to_le_bytes).collect()
    };
    let mut model = onnx::foreign(64, 36);
    let graph = model.graph.as_mut().unwrap();
    let mut conv = onnx::node("Conv", "input", "logits", &[]);
    conv.input.push("w".into());
    graph.node = vec![conv];
    graph.initializer = vec![onnx::proto::TensorProto {
        dims: vec![3, 3, 1, 1],
        element: onnx::proto::TensorDataType::Float.into(),
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
    until_color(&mut viewer, "red: the first logit is the red channel", is_red);
    // While the file is empty, before its new content is written, the old weights stay in use.
    std::fs::write(&data, "").unwrap();
    (0..15).for_each(|_| drop(viewer.next()));
    std::fs::write(&data, weights([1, 0, 2])).unwrap();
    until_color(&mut viewer, "green: the second logit is the red channel", is_green);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_reload_restarts_only_changed_streams() {
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
    let mut mjpeg_of_changed = Mjpeg::connect(&service.page, "change");
    mjpeg_of_changed.next();
    let kept = service.stream("keep");
    // Clients of the stream that is removed. Two of them read nothing.
    let mut mjpeg_of_removed = Mjpeg::connect(&service.page, "remove");
    mjpeg_of_removed.next();
    let mut rtsp_of_removed = Viewer::play(&service.rtsp("remove"), "tcp", (320, 240));
    rtsp_of_removed.next();
    let non_reading = NonReadingClient::play(&service.rtsp("remove"));
    let described = NonReadingClient::describe(&service.rtsp("remove"));
    // A viewer of the stream that is restarted.
    let mut rtsp_of_changed = Viewer::play(&service.rtsp("change"), "tcp", (320, 240));
    rtsp_of_changed.next();

    write_config(folder.path(), &(stream("add", "") + &stream("keep", "") + &stream("change", "max_mask_age = 2.0")));
    service.program.child.signal("HUP");
    let report = service.program.wait_for("the reload", |entry| {
        Some(entry["message"].as_str()?.strip_prefix("configuration reloaded: ")?.to_string())
    });
    assert_eq!(report, "started add; restarted change; adjusted none; stopped remove; untouched keep; model unchanged");
    let names: Vec<String> = service.streams().iter().map(|stream| stream["name"].as_str().unwrap().into()).collect();
    assert_eq!(names, ["add", "keep", "change"]);
    service.until_state("add", "live");
    service.until_state("change", "live");
    viewer.next();
    mjpeg_of_changed.next();
    // More frames than can be in transit from before the restart.
    (0..30).for_each(|_| drop(rtsp_of_changed.next()));
    Viewer::play(&service.rtsp("change"), "udp", (320, 240)).next();
    let ended = until("the MJPEG viewer of the removed stream is disconnected", || mjpeg_of_removed.try_next().err());
    assert_eq!(ended.kind(), std::io::ErrorKind::UnexpectedEof);
    rtsp_of_removed.wait_for_end();
    non_reading.wait_for_end();
    described.wait_for_end();
    let now = service.stream("keep");
    assert_eq!(
        (&now["since"], &now["dropped"], now["state"].as_str()),
        (&kept["since"], &kept["dropped"], Some("live"))
    );
    assert!(now["published"].as_u64() > kept["published"].as_u64());

    // An invalid configuration changes nothing, and all its errors are logged.
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
    assert!(log.contains("stream[keep].overlay.alpha") && log.contains("no source"), "{log}");
}
