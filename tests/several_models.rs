//! Several models in one service: each stream gets the masks of its own, and a change of one does not affect the others.

mod common;

use std::path::Path;

use common::browser::Browser;
use common::http::{get_json, send};
use common::live::ServerSentEvents;
use common::onnx;
use common::program::{maskcast, run, until};
use common::service::{Service, folder, write_model};
use serde_json::{Value, json};

/// A red source: every pixel has class 0, whose name depends on the model's labels.
const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1";

/// Labels with this name of class 0.
fn labels(first: &str) -> String {
    onnx::LABELS.replace("\"red\"", &format!("\"{first}\""))
}

/// Writes a model whose class 0 has this name to `NAME.onnx`.
fn model_file(folder: &Path, name: &str, first: &str) {
    write_model(&folder.join(format!("{name}.onnx")), &labels(first), true);
}

fn model(name: &str, more: &str) -> String {
    format!(
        "[[model]]\nname = \"{name}\"\npath = \"{name}.onnx\"\nproviders = [\"cpu\"]\nworkers = 1\nthreads = 1\n{more}\n"
    )
}

fn stream(name: &str, model: &str, more: &str) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\nsource = \"{RED}\"\nmodel = \"{model}\"\nmasks = \"always\"\ngate = \"off\"\noverlay.legend = false\n{more}\n"
    )
}

fn write(folder: &Path, text: &str) -> std::path::PathBuf {
    let path = folder.join("maskcast.toml");
    std::fs::write(&path, format!("server = {{ http = \"127.0.0.1:0\", rtsp = \"127.0.0.1:0\" }}\n{text}")).unwrap();
    path
}

/// A service of `text`, when its models are loaded and its streams have frames.
fn ready(folder: &Path, text: &str) -> Service {
    let mut service = Service::run(&write(folder, text), &[]);
    service.program.wait_for_message("ready");
    service
}

/// The next mask of a stream.
fn mask(service: &Service, stream: &str) -> Value {
    let mut masks = ServerSentEvents::connect(&service.page, &format!("api/v1/streams/{stream}/masks"), &[]);
    assert_eq!(masks.status, 200);
    masks.next().unwrap()
}

/// Waits until the masks of a stream come from this file and have this class only.
fn until_masks(service: &Service, stream: &str, file: &str, class: &str) {
    until(&format!("{stream}: masks of {file} with {class}"), || {
        let mask = mask(service, stream);
        (mask["model"] == file && mask["shares"] == json!({ class: 1.0 })).then_some(())
    });
}

fn report(service: &Service, model: &str) -> Value {
    get_json(&format!("{}api/v1/models/{model}", service.page))
}

/// Number of frames that a model has segmented.
fn segmented(service: &Service, model: &str) -> f64 {
    service.metrics().sum("maskcast_segment_frames_total", &[("model", model)])
}

/// Writes another configuration, reloads it, and returns the result in the log.
fn reload(service: &mut Service, folder: &Path, text: &str) -> String {
    write(folder, text);
    service.program.child.signal("HUP");
    service.program.wait_for("the reload", |entry| {
        let message = entry["message"].as_str()?;
        let done = message.strip_prefix("configuration reloaded: ");
        let refused = message.strip_prefix("configuration error: ");
        done.or(refused).map(str::to_owned)
    })
}

#[test]
fn each_stream_has_the_masks_of_its_model_and_a_change_of_one_does_not_affect_the_other() {
    let folder = folder();
    model_file(folder.path(), "yard", "grass");
    model_file(folder.path(), "street", "road");
    let text = model("yard", "") + &model("street", "") + &stream("a", "yard", "overlay.hide = [\"grass\"]");
    let service = ready(folder.path(), &(text + &stream("b", "street", "")));
    until_masks(&service, "a", "yard", "grass");
    until_masks(&service, "b", "street", "road");
    let legend = |stream: &str| service.stream(stream)["legend"][0]["name"].clone();
    assert_eq!((legend("a"), legend("b")), ("grass".into(), "road".into()));
    let models = get_json(&format!("{}api/v1/models", service.page));
    let shown: Vec<(&Value, &Value, &Value)> =
        models.as_array().unwrap().iter().map(|model| (&model["model"], &model["name"], &model["streams"])).collect();
    assert_eq!(
        shown,
        [(&"yard".into(), &"yard".into(), &json!(["a"])), (&"street".into(), &"street".into(), &json!(["b"]))]
    );
    assert!(models.as_array().unwrap().iter().all(|model| model["memory_bytes"].is_u64()), "{models}");
    assert_eq!(get_json(&format!("{}api/v1/model", service.page)), models[0], "the first model");
    for name in ["yard", "street"] {
        assert_eq!(service.metrics().sum("maskcast_model_info", &[("model", name), ("file", name)]), 1.0);
        assert!(segmented(&service, name) > 0.0, "{name}");
    }

    // Another file for the second model, which does not fit the settings of the stream of the first.
    model_file(folder.path(), "winter", "snow");
    let use_model = |file: &str, name: &str| {
        let path = folder.path().join(file);
        run(maskcast().args(["model", "use"]).arg(path).args(["--name", name, "--url", &service.page]))
    };
    let since = [service.stream("a")["since"].clone(), service.stream("b")["since"].clone()];
    let ended = use_model("winter.onnx", "street");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.text().starts_with("winter runs on cpu"), "{}", ended.text());
    until_masks(&service, "b", "winter", "snow");
    until_masks(&service, "a", "yard", "grass");
    assert_eq!([service.stream("a")["since"].clone(), service.stream("b")["since"].clone()], since, "both stayed live");
    assert_eq!(
        (&report(&service, "yard")["change"], &report(&service, "street")["change"]["state"]),
        (&Value::Null, &"done".into())
    );
    let ended = use_model("winter.onnx", "yard");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("stream[a].overlay.hide"), "{}", ended.stderr);
    let ended = use_model("winter.onnx", "yrd");
    assert!(ended.stderr.contains("unknown model \"yrd\"; models: yard, street"), "{}", ended.stderr);

    // The file of the first model is replaced: it is watched on its own.
    model_file(folder.path(), "next", "meadow");
    std::fs::rename(folder.path().join("next.onnx"), folder.path().join("yard.onnx")).unwrap();
    until("the file is refused, because the stream hides grass", || {
        (report(&service, "yard")["change"]["state"] == "refused").then_some(())
    });
    until_masks(&service, "a", "yard", "grass");
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_reload_adds_and_removes_models_and_moves_streams() {
    let folder = folder();
    for (name, class) in [("yard", "grass"), ("street", "road"), ("night", "dark")] {
        model_file(folder.path(), name, class);
    }
    let two = model("yard", "") + &model("street", "");
    let streams = |of_b: &str| stream("a", "yard", "") + &stream("b", of_b, "");
    let mut service = ready(folder.path(), &(two.clone() + &streams("street")));
    until_masks(&service, "b", "street", "road");
    let since = service.stream("a")["since"].clone();

    // A third model that cannot be loaded: nothing changes.
    std::fs::write(folder.path().join("broken.onnx"), "not a model").unwrap();
    let refused = reload(&mut service, folder.path(), &(two.clone() + &model("broken", "") + &streams("broken")));
    assert!(refused.starts_with("model[broken].path: ") && refused.contains("broken.onnx"), "{refused}");
    assert!(refused.contains("not a complete ONNX model"), "{refused}");
    until_masks(&service, "b", "street", "road");
    // The API does not apply what is in the file and was not reloaded.
    let address = format!("{}api/v1/streams/a", service.page);
    let (status, _, problem) = send("PATCH", &address, Some(r#"{"priority": 2}"#));
    assert_eq!(status, 409, "{problem}");
    assert!(problem.contains("models that are not loaded (broken)"), "{problem}");

    // A third model, to which a stream moves; the settings of the second change.
    let three = model("yard", "") + &model("street", "max_batch = 2") + &model("night", "");
    let done = reload(&mut service, folder.path(), &(three.clone() + &streams("night")));
    assert_eq!(
        done,
        "started none; restarted b; adjusted none; stopped none; untouched a; models: added night; loading new settings of street; removed none"
    );
    until_masks(&service, "b", "night", "dark");
    until("the settings of the second model", || (report(&service, "street")["max_batch"] == 2).then_some(()));
    assert_eq!(
        (&report(&service, "night")["streams"], &report(&service, "street")["streams"]),
        (&json!(["b"]), &json!([]))
    );

    // The API moves a stream to another model, if there is one.
    let address = format!("{}api/v1/streams/b", service.page);
    let (status, _, problem) = send("PATCH", &address, Some(r#"{"model": "nigth"}"#));
    assert_eq!(status, 422, "{problem}");
    let expected = "unknown model \\\"nigth\\\" (help: models: yard, street, night)";
    assert!(problem.contains("stream[b].model") && problem.contains(expected), "{problem}");
    let (status, _, body) = send("PATCH", &address, Some(r#"{"model": "street", "overlay": {"hide": ["dark"]}}"#));
    assert_eq!(status, 422, "the other model does not have this class: {body}");
    let (status, _, body) = send("PATCH", &address, Some(r#"{"model": "street"}"#));
    assert_eq!(status, 200, "{body}");
    until_masks(&service, "b", "street", "road");

    // The model of the stream is removed together with the key of the stream.
    let done =
        reload(&mut service, folder.path(), &(model("yard", "") + &stream("a", "yard", "") + &stream("b", "yard", "")));
    assert!(done.ends_with("restarted b; adjusted none; stopped none; untouched a; models: added none; loading new settings of none; removed street, night"), "{done}");
    until_masks(&service, "b", "yard", "grass");
    assert_eq!(send("GET", &format!("{}api/v1/models/night", service.page), None).0, 404);
    assert_eq!(service.metrics().find("maskcast_segment_frames_total", &[("model", "night")]), None);
    assert_eq!(service.stream("a")["since"], since, "it was live all the time");
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_broken_model_prevents_the_start_and_check_names_each_model() {
    let folder = folder();
    model_file(folder.path(), "yard", "grass");
    model_file(folder.path(), "street", "road");
    std::fs::write(folder.path().join("spare.onnx"), "not a model").unwrap();
    let models = model("yard", "") + &model("street", "") + &model("spare", "");
    let streams = |of_b: &str| stream("a", "yard", "overlay.hide = [\"grass\"]") + &stream("b", "street", of_b);
    let config = write(folder.path(), &(models.clone() + &streams("overlay.hide = [\"grass\"]")));
    let check = || run(maskcast().arg("check").arg(&config));
    let ended = check();
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ended.stderr);
    assert!(lines[0].contains("stream[b].overlay.hide: "), "{}", ended.stderr);
    assert!(lines[1].contains("model[spare].path: ") && lines[1].contains("spare.onnx"), "{}", ended.stderr);
    write(folder.path(), &(models.clone() + &streams("")));
    let ended = run(maskcast().arg("run").arg(&config));
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("model[spare].path: "), "{}", ended.stderr);

    model_file(folder.path(), "spare", "any");
    let ended = check();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let text = ended.text();
    for (name, streams) in [("yard", "a"), ("street", "b"), ("spare", "none")] {
        let place = folder.path().join(format!("{name}.onnx"));
        let place = place.display();
        let expected = format!("  model    {name}: {place} ({name}), runs on cpu\n           streams: {streams}\n");
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
    let text = run(maskcast().args(["doctor", "--json"]).arg(&config)).text();
    for name in ["yard", "street", "spare"] {
        assert!(text.contains(&format!("model {name}: cpu runs {name}, ")), "{text}");
    }
}

/// At most one frame of a live stream waits, so a batch of two has frames of two streams.
#[test]
fn batches_have_frames_of_all_streams_of_a_model_and_of_no_others() {
    let folder = folder();
    // Large, so that frames of all streams wait when a run ends.
    for (name, first) in [("yard", "grass"), ("street", "road")] {
        let path = folder.path().join(format!("{name}.onnx"));
        onnx::save(&onnx::labelled(1920, 1080, &labels(first), &[]), &path);
    }
    let models = model("yard", "max_batch = 4") + &model("street", "max_batch = 4");
    let streams = stream("a", "yard", "") + &stream("b", "yard", "") + &stream("c", "street", "");
    let service = ready(folder.path(), &(models + &streams.replace("framerate=15", "framerate=60")));
    let counts = |model: &str| {
        let metrics = service.metrics();
        let count = |name: &str| metrics.sum(name, &[("model", model)]);
        (count("maskcast_segment_frames_total"), count("maskcast_segment_runs_total"))
    };
    until("batches of the two streams", || {
        let (frames, runs) = counts("yard");
        (runs >= 20.0 && frames / runs > 1.3).then_some(())
    });
    let (frames, runs) =
        until("twenty runs for the other stream", || Some(counts("street")).filter(|(_, runs)| *runs >= 20.0));
    assert!(frames <= runs, "{frames} frames of one stream in {runs} runs");
    for (stream, file) in [("a", "yard"), ("b", "yard"), ("c", "street")] {
        assert_eq!(mask(&service, stream)["model"], file, "{stream}");
    }
}

#[test]
fn a_single_table_is_the_model_of_all_streams_as_before() {
    let folder = folder();
    let stream = |name: &str| format!("[[stream]]\nname = \"{name}\"\nsource = \"{RED}\"\n");
    let text = format!(
        "[model]\npath = \"channels.onnx\"\nproviders = [\"cpu\"]\nworkers = 1\n{}{}",
        stream("a"),
        stream("b")
    );
    let service = ready(folder.path(), &text);
    for name in ["a", "b"] {
        until_masks(&service, name, "channels", "red");
        assert_eq!(service.stream(name)["model"], "default");
    }
    let model = get_json(&format!("{}api/v1/model", service.page));
    assert_eq!(
        (&model["model"], &model["name"], &model["streams"]),
        (&"default".into(), &"channels".into(), &json!(["a", "b"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_all_models_and_that_of_a_stream() {
    let folder = folder();
    model_file(folder.path(), "yard", "grass");
    model_file(folder.path(), "street", "road");
    let text = model("yard", "") + &model("street", "") + &stream("a", "yard", "") + &stream("b", "street", "");
    let service = tokio::task::block_in_place(|| ready(folder.path(), &text));
    let browser = Browser::start().await;
    browser.client.goto(&format!("{}#/b", service.page)).await.unwrap();
    let models = "const text = document.getElementById('model').textContent; return text.includes(' on ') && text";
    assert_eq!(browser.until("the models", models).await, "yard: yard on cpu · street: street on cpu");
    let of_stream = "const fact = document.querySelector('[data-fact=Model] dd'); return fact && fact.textContent !== '–' && fact.textContent";
    assert_eq!(browser.until("the model of the stream", of_stream).await, "street: street");
}
