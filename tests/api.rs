//! Changes of a running service by API clients: overlays and streams, and how they are saved in the configuration file.

mod common;

use std::fs::Permissions;
use std::io::Cursor;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::clip;
use common::http::{Answer, Mjpeg, get_bytes, get_json, send};
use common::program::{maskcast, run, tool, until};
use common::rtsp::Viewer;
use common::service::{Service, folder, write_config};
use serde_json::{Value, json};

/// A red source: every pixel has the class red, which is drawn in red.
const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1";

fn is_red([red, green, blue]: [u8; 3]) -> bool {
    red > 200 && green < 60 && blue < 60
}

fn is_black(rgb: [u8; 3]) -> bool {
    rgb.iter().all(|&channel| channel < 40)
}

/// The colour in the middle of a stream's next frame.
fn color(service: &Service, stream: &str) -> [u8; 3] {
    let (status, jpeg) = get_bytes(&url(service, &format!("streams/{stream}/snapshot.jpg")));
    assert_eq!(status, 200);
    let file = tempfile::Builder::new().suffix(".jpg").tempfile().unwrap();
    std::fs::write(file.path(), jpeg).unwrap();
    clip::decoded_frame(file.path(), 0).at(160, 120)
}

fn ball(name: &str, more: &str) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\nsource = \"test://ball?width=320&height=240&fps=15\"\noverlay.legend = false\n{more}\n"
    )
}

fn url(service: &Service, path: &str) -> String {
    format!("{}api/v1/{path}", service.page)
}

fn text(config: &Path) -> String {
    std::fs::read_to_string(config).unwrap()
}

fn stream_names(service: &Service) -> Vec<String> {
    service.streams().iter().map(|stream| stream["name"].as_str().unwrap().into()).collect()
}

/// Waits until the model is loaded, which some changes need.
fn wait_for_model(service: &Service) {
    until("the model is loaded", || (send("GET", &url(service, "model"), None).0 == 200).then_some(()));
}

/// Sends a change; the status and the JSON body of the response, null if it is empty.
fn change(service: &Service, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, _, text) = send(method, &url(service, path), Some(&body.to_string()));
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[test]
fn overlay_changes_are_drawn_without_a_restart_and_saved() {
    let folder = folder();
    let streams = format!(
        "# The gate, day and night.\n[[stream]]\nname = \"gate\"\nsource = \"{RED}\"\n\
         [stream.overlay]\nstyle = \"mask-only\" # no faces\nlegend = false\n{}",
        ball("yard", "")
    );
    let mut service = Service::ready(folder.path(), &streams);
    let config = folder.path().join("maskcast.toml");
    let before = text(&config);
    service.until_state("gate", "live");
    until("the frame is red", || is_red(color(&service, "gate")).then_some(()));
    let begun = service.stream("gate");
    let mut viewer = Mjpeg::connect(&service.page, "gate");
    viewer.next();

    let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"hide": ["red"]}));
    assert_eq!((status, &answer["remembered"], &answer["hide"]), (200, &json!(true), &json!(["red"])), "{answer}");
    // Frames that are already in the encoder are still red.
    until("red is hidden", || is_black(color(&service, "gate")).then_some(()));
    assert_eq!(service.stream("gate")["legend"][0]["hidden"], true);
    assert_eq!(get_json(&url(&service, "streams/gate/overlay"))["hide"], json!(["red"]));
    assert_eq!(
        text(&config),
        before.replace("legend = false\n[[stream]]", "legend = false\nhide = [\"red\"]\n[[stream]]")
    );

    // Changes in quick succession, as by a slider: the last one is saved.
    for percent in 1..=20 {
        let alpha = f64::from(percent) / 100.0;
        let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"alpha": alpha, "hide": null}));
        assert_eq!((status, answer["alpha"].as_f64()), (200, Some(alpha)), "{answer}");
    }
    until("red is drawn again", || is_red(color(&service, "gate")).then_some(()));
    until("the last change is saved", || text(&config).contains("alpha = 0.2\n").then_some(()));
    let (status, problem) =
        change(&service, "PATCH", "streams/gate/overlay", json!({"hide": ["read", "green"], "alpha": 7, "style": "x"}));
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    let (status, problem) = change(&service, "PATCH", "streams/gate/overlay", json!({"hide": ["read", "green"]}));
    assert_eq!((status, &problem["errors"][0]["key"]), (422, &json!("stream[gate].overlay.hide")), "{problem}");
    assert!(problem["errors"][0]["help"].as_str().unwrap().contains("red, green, blue"), "{problem}");

    // The file has the settings that are in effect, so a reload changes nothing. A change in an editor is drawn without a
    // restart.
    let reloaded = |service: &mut Service| {
        service.program.child.signal("HUP");
        service.program.wait_for("the reload", |entry| {
            Some(entry["message"].as_str()?.strip_prefix("configuration reloaded: ")?.to_string())
        })
    };
    let unchanged = "started none; restarted none; adjusted none; stopped none; untouched gate, yard; model unchanged";
    assert_eq!(reloaded(&mut service), unchanged);
    std::fs::write(&config, text(&config).replace("alpha = 0.2", "hide = [\"red\"]")).unwrap();
    assert_eq!(
        reloaded(&mut service),
        "started none; restarted none; adjusted gate; stopped none; untouched yard; model unchanged"
    );
    until("red is hidden by the file", || is_black(color(&service, "gate")).then_some(()));
    let end = service.stream("gate");
    assert_eq!((&end["since"], &end["dropped"], &end["state"]), (&begun["since"], &begun["dropped"], &json!("live")));
    viewer.next();
    let (_, answer) = change(&service, "PATCH", "streams/yard/overlay", json!({"colors": {"blue": "#00ffff"}}));
    assert_eq!(answer["remembered"], true);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(text(&config).contains("overlay.colors = { blue = \"#00ffff\" }"), "{}", text(&config));
}

#[test]
fn mask_png_has_the_class_index_of_each_pixel() {
    let folder = folder();
    let service = Service::ready(folder.path(), &format!("[[stream]]\nname = \"gate\"\nsource = \"{RED}\"\n"));
    service.until_state("gate", "live");
    let bytes = until("a mask", || {
        let (status, bytes) = get_bytes(&url(&service, "streams/gate/mask.png"));
        (status == 200).then_some(bytes)
    });
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![9; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (64, 36), "the size of the model's output");
    assert!(pixels.iter().all(|&class| class == 0), "red is class 0");
    assert_eq!(get_json(&url(&service, "model"))["labels"][0]["name"], "red");
}

/// Writes a configuration with comments before, after and inside streams.
fn write_commented_config(folder: &Path) -> PathBuf {
    let streams = format!(
        "# All cameras.\n\n# The first stream.\n{}\n# The second stream.\n{}# The end.\n",
        ball("keep", "max_latency = \"2s\" # a slow camera"),
        ball("second", "")
    );
    write_config(folder, &streams)
}

#[test]
fn streams_are_added_changed_and_removed_and_the_file_keeps_its_comments() {
    let folder = folder();
    let config = write_commented_config(folder.path());
    let before = text(&config);
    let mut service = Service::run(&config, &[]);
    service.program.wait_for_message("ready");
    let mut viewer = Viewer::play(&service.rtsp("keep"), "tcp", (320, 240));
    viewer.next();
    let kept = service.stream("keep");

    let new =
        json!({"name": "door", "source": "test://ball?width=320&height=240&fps=15", "overlay": {"legend": false}});
    let (status, location, body) = send("POST", &url(&service, "streams"), Some(&new.to_string()));
    assert_eq!((status, location.as_deref()), (201, Some("/api/v1/streams/door")), "{body}");
    service.until_state("door", "live");
    let added = "\n[[stream]]\nname = \"door\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\n[stream.overlay]\nlegend = false\n";
    assert_eq!(text(&config), format!("{before}{added}"));
    let mut watcher = Mjpeg::connect(&service.page, "door");
    watcher.next();

    let (status, answer) =
        change(&service, "PATCH", "streams/door", json!({"max_mask_age": "2s", "overlay": {"alpha": 0.9}}));
    assert_eq!((status, &answer["config"]["max_mask_age"]), (200, &json!("2s")), "{answer}");
    service.until_state("door", "live");
    watcher.next();
    let changed = added
        .replace("fps=15\"\n", "fps=15\"\nmax_mask_age = \"2s\"\n")
        .replace("legend = false\n", "legend = false\nalpha = 0.9\n");
    assert_eq!(text(&config), format!("{before}{changed}"));
    // A change of the overlay only: the stream is not restarted.
    let since = service.until_state("door", "live")["since"].clone();
    let (status, answer) =
        change(&service, "PATCH", "streams/door", json!({"overlay": {"alpha": null}, "max_mask_age": "2s"}));
    assert_eq!((status, &answer["since"]), (200, &since), "{answer}");

    assert_eq!(change(&service, "DELETE", "streams/second", json!({})).0, 204);
    let (status, problem) = change(&service, "DELETE", "streams/second", json!({}));
    assert_eq!((status, &problem["streams"]), (404, &json!(["keep", "door"])), "{problem}");
    let now = text(&config);
    for removed in ["\"second\"", "# The second stream."] {
        assert!(!now.contains(removed), "{now}");
    }
    for kept in ["# All cameras.", "# The first stream.", "# a slow camera", "# The end."] {
        assert!(now.contains(kept), "{now}");
    }
    assert_eq!(stream_names(&service), ["keep", "door"]);

    // The other stream continued.
    viewer.next();
    let end = service.stream("keep");
    assert_eq!((&end["since"], &end["dropped"], &end["state"]), (&kept["since"], &kept["dropped"], &json!("live")));
    assert!(end["published"].as_u64() > kept["published"].as_u64());
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    // The next start uses the changed file.
    let mut restarted = Service::run(&config, &[]);
    restarted.program.wait_for_message("ready");
    assert_eq!(stream_names(&restarted), ["keep", "door"]);
}

#[test]
fn invalid_changes_are_refused_with_all_errors_and_change_nothing() {
    let folder = folder();
    let config = write_commented_config(folder.path());
    let service = Service::run(&config, &[]);
    wait_for_model(&service);
    let before = text(&config);
    // The paths of the keys with errors, sorted.
    let keys = |problem: &Value| -> Vec<String> {
        let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut keys: Vec<_> = errors.iter().map(|error| error["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    let refuse = |method: &str, path: &str, body: Value, expected: u16, expected_keys: &[&str]| {
        let (status, problem) = change(&service, method, path, body.clone());
        assert_eq!(status, expected, "{method} {path} {body}: {problem}");
        assert_eq!(keys(&problem), expected_keys, "{method} {path} {body}: {problem}");
        assert_eq!(text(&config), before, "{method} {path} {body}");
        problem
    };
    let post = |body: Value, status: u16, keys: &[&str]| refuse("POST", "streams", body, status, keys);
    let patch = |body: Value, status: u16, keys: &[&str]| refuse("PATCH", "streams/keep", body, status, keys);

    let unknown = json!({"name": "a b", "sorce": "test://"});
    post(unknown, 422, &["stream[a b].name", "stream[a b].sorce", "stream[a b].source"]);
    post(json!({"name": "keep", "source": "test://"}), 409, &[]);
    let misspelt = json!({"name": "x", "source": "test://", "overlay": {"hide": ["read"]}});
    post(misspelt, 422, &["stream[x].overlay.hide"]);
    // The response does not reveal whether a file exists.
    let [existing, missing] = ["passwd", "no-passwd"].map(|name| {
        let source = format!("file:///etc/{name}");
        let problem = post(json!({"name": "x", "source": source}), 403, &["stream[x].source"]);
        problem.to_string().replace(&format!("/etc/{name}"), "")
    });
    assert_eq!(existing, missing);
    post(json!({"name": "x", "source": "rtsp://127.0.0.1/a"}), 403, &["stream[x].source"]);
    let password = json!({"name": "x", "source": "rtsp://10.0.0.7/a", "user": "a", "password_file": "gate.password"});
    post(password, 403, &["stream[x].password_file"]);
    let recorded = json!({"name": "x", "source": "test://", "record": {"dir": "/tmp"}});
    post(recorded, 403, &["stream[x].record.dir"]);

    patch(json!({"source": "/etc"}), 403, &["stream[keep].source"]);
    patch(json!({"record": {"dir": "/etc/passwd"}}), 403, &["stream[keep].record.dir"]);
    let three = json!({"overlay": {"alpha": 7}, "show": "x", "max_latency": "soon"});
    patch(three, 422, &["stream[keep].max_latency", "stream[keep].overlay.alpha", "stream[keep].show"]);
    patch(json!({"push": [{"url": "rtsp://10.0.0.7/x"}]}), 403, &["stream[keep].push"]);
    patch(json!({"overlay": {"alhpa": null}}), 422, &["stream[keep].overlay.alhpa"]);
    patch(json!({"name": "kept"}), 422, &["stream[keep].name"]);
    patch(json!({"source": null}), 422, &["stream[keep].source"]);
    patch(json!({"overlay": {"hide": [null]}}), 422, &["stream[keep].overlay.hide[0]"]);
    refuse("PATCH", "streams/unknown", json!({}), 404, &[]);
}

#[test]
fn while_the_configuration_file_has_an_error_streams_do_not_change_and_overlays_are_saved_later() {
    let folder = folder();
    let config = write_commented_config(folder.path());
    let service = Service::run(&config, &[]);
    wait_for_model(&service);
    let before = text(&config);
    std::fs::write(&config, before.replace("max_latency = \"2s\"", "max_latency = \"soon\"")).unwrap();
    let (status, problem) = change(&service, "PATCH", "streams/second", json!({"max_mask_age": "3s"}));
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!((status, errors.len(), &errors[0]["key"]), (409, 1, &json!("stream[keep].max_latency")), "{problem}");
    assert!(errors[0]["line"].is_u64(), "{problem}");
    let (status, answer) = change(&service, "PATCH", "streams/second/overlay", json!({"alpha": 0.3}));
    assert_eq!((status, &answer["alpha"], &answer["remembered"]), (200, &json!(0.3), &json!(false)), "{answer}");
    // When the edited file is valid again, the changes are applied to it, also the earlier one of the overlay.
    std::fs::write(&config, before.replace("# The first stream.", "# The edited stream.")).unwrap();
    let (status, problem) = change(&service, "PATCH", "streams/second", json!({"max_mask_age": "3s"}));
    assert_eq!(status, 200, "{problem}");
    let now = text(&config);
    for part in ["# The edited stream.", "max_mask_age = \"3s\"", "overlay.alpha = 0.3"] {
        assert!(now.contains(part), "{now}");
    }
    assert_eq!(change(&service, "DELETE", "streams/second", json!({})).0, 204);
    // The only stream cannot be removed.
    let (status, problem) = change(&service, "DELETE", "streams/keep", json!({}));
    assert_eq!(status, 409, "{problem}");
    assert_eq!(stream_names(&service), ["keep"]);
}

#[test]
fn of_concurrent_requests_for_one_name_only_one_succeeds() {
    let folder = folder();
    let config = write_config(folder.path(), &ball("first", ""));
    let service = Service::run(&config, &[]);
    wait_for_model(&service);
    let add = |n: usize| {
        let new = json!({"name": format!("s{n}"), "source": "test://black?width=64&height=48&fps=1"});
        change(&service, "POST", "streams", new)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|n| scope.spawn(move || add(n % 5))).collect();
        let mut answers: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap().0).collect();
        answers.sort_unstable();
        assert_eq!(answers, [201, 201, 201, 201, 201, 409], "two requests have the same name");
    });
    let mut names = stream_names(&service);
    names.sort();
    assert_eq!(names, ["first", "s0", "s1", "s2", "s3", "s4"]);
    assert_eq!(text(&config).matches("[[stream]]").count(), 6);
}

#[test]
fn twenty_streams_that_are_added_concurrently_are_all_saved() {
    const CLIENTS: usize = 20;
    let folder = folder();
    let config = write_config(folder.path(), &ball("first", ""));
    let service = Service::run(&config, &[]);
    let add = |n: usize| {
        let new = json!({"name": format!("s{n}"), "source": "test://black?width=64&height=48&fps=1"});
        change(&service, "POST", "streams", new).0
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || add(n))).collect();
        let answers: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert_eq!(answers, [201; CLIENTS]);
    });
    assert_eq!(service.streams().len(), CLIENTS + 1);
    assert_eq!(text(&config).matches("[[stream]]").count(), CLIENTS + 1);
}

#[test]
fn with_a_read_only_configuration_overlays_change_until_the_restart_and_streams_do_not_change() {
    let folder = folder();
    let named = write_config(folder.path(), &format!("{}{}", ball("gate", ""), ball("yard", "")));
    let before = text(&named).replace("channels.onnx", folder.path().join("channels.onnx").to_str().unwrap());
    std::fs::write(&named, &before).unwrap();
    // A deleted file can still be read through its descriptor, and not even root can replace it.
    let open = std::fs::File::open(&named).unwrap();
    std::fs::remove_file(&named).unwrap();
    let config = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd()));
    let mut service = Service::run(&config, &[]);
    service.program.wait_for_message("ready");
    let (status, problem) = change(&service, "PATCH", "streams/gate", json!({"max_mask_age": "3s"}));
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("cannot be written"), "{problem}");
    assert_eq!(service.stream("gate")["config"]["max_mask_age"], "1s");
    let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"alpha": 0.25}));
    assert_eq!((status, &answer["remembered"]), (200, &json!(false)), "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("cannot be written"), "{answer}");
    assert_eq!(service.stream("gate")["config"]["overlay"]["alpha"], 0.25);
    let (_, answer) = change(&service, "PATCH", "streams/yard/overlay", json!({"alpha": 0.35}));
    assert_eq!(answer["remembered"], false);
    assert_eq!(text(&config), before);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("overlay changes not saved").count(), 1, "{log}");
}

#[test]
fn the_api_documentation_page_shows_every_operation() {
    let folder = folder();
    let service = Service::start(folder.path(), &ball("gate", ""));
    let api = get_json(&url(&service, "openapi.json"));
    let profile = tempfile::tempdir().unwrap();
    let arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    let own = [
        format!("--user-data-dir={}", profile.path().display()),
        "--virtual-time-budget=20000".into(),
        "--dump-dom".into(),
        format!("{}api/docs", service.page),
    ];
    let shown = tool("chromium", arguments.map(String::from).into_iter().chain(own)).text();
    let operations = api["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert!(ids.len() > 10, "{ids:?}");
    for id in ids {
        assert!(shown.contains(&format!("<h3 id=\"{id}\">")), "{id} is not in\n{shown}");
    }
    assert!(shown.contains("The settings of a new stream") || shown.contains("rtsp://10.0.0.7/stream1"), "{shown}");
}

/// Writes a configuration whose model is never loaded: the first call of its ONNX Runtime does not return.
fn write_config_that_keeps_loading(folder: &Path) -> PathBuf {
    // Opening the library must not block: the dynamic linker's lock would also block GStreamer.
    let (library, source) = (folder.join("libonnxruntime.so"), folder.join("waits.c"));
    std::fs::write(&source, "int pause(void);\nconst void *OrtGetApiBase(void) { for (;;) pause(); }\n").unwrap();
    tool("cc", [Path::new("-shared"), Path::new("-fPIC"), Path::new("-o"), &library, &source]);
    let config = write_config(folder, &ball("gate", ""));
    std::fs::write(&config, text(&config).replace("[model]\n", "[model]\nruntime = \"libonnxruntime.so\"\n")).unwrap();
    config
}

#[test]
fn overlay_settings_except_classes_can_be_changed_before_the_model_is_loaded() {
    let folder = folder();
    let config = write_config_that_keeps_loading(folder.path());
    // The log has the addresses before the model is loaded.
    let service = Service::run(&config, &[]);
    let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"alpha": 0.25, "legend": false}));
    assert_eq!((status, &answer["alpha"], &answer["legend"]), (200, &json!(0.25), &json!("off")), "{answer}");
    until("the change is saved", || text(&config).contains("alpha = 0.25").then_some(()));
    let path = url(&service, "streams/gate/overlay");
    let refused = Answer::to("PATCH", &path, "application/json", r#"{"hide": ["sky"], "alpha": 0.5}"#);
    assert_eq!((refused.status, refused.header("retry-after")), (503, "2".into()), "{}", refused.body);
    assert_eq!(refused.header("content-type"), "application/problem+json", "{}", refused.body);
    assert_eq!(service.stream("gate")["config"]["overlay"]["alpha"], 0.25);
    assert_eq!(send("GET", &url(&service, "model"), None).0, 503);
}

/// The stop does not wait for the model, and the unfinished loading is not an error.
#[test]
fn a_service_stops_while_its_model_is_being_loaded() {
    let folder = folder();
    let config = write_config_that_keeps_loading(folder.path());
    let service = Service::run(&config, &[]);
    assert_eq!(send("GET", &url(&service, "model"), None).0, 503);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_configuration_file_that_gets_a_password_is_closed_to_other_local_users() {
    let folder = folder();
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set_mode(folder.path(), 0o755);
    let config = write_config(folder.path(), &ball("gate", ""));
    set_mode(&config, 0o644);
    let mut service = Service::run(&config, &[]);
    service.program.wait_for_message("ready");
    // No host has this address (RFC 5737), and the response does not wait for the camera.
    let camera = |source: &str| json!({"name": "yard", "source": source});
    let (status, answer) = change(&service, "POST", "streams", camera("rtsp://admin:hunter2@192.0.2.7/a"));
    assert_eq!(status, 201, "{answer}");
    assert!(text(&config).contains("hunter2"));
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(change(&service, "DELETE", "streams/yard", json!({})).0, 204);
    let (_, _, log) = service.terminate();
    assert_eq!(log.matches("configuration file closed to other local users").count(), 1, "{log}");
    assert!(!log.contains("hunter2"), "{log}");

    // `check` reports a password in a file that other users can read.
    std::fs::write(&config, text(&config).replace("test://ball", "rtsp://admin:hunter2@192.0.2.7/a?")).unwrap();
    set_mode(&config, 0o644);
    let checked = run(maskcast().arg("check").arg(&config));
    let report = checked.text();
    assert!(report.contains("holds passwords (stream[gate].source)") && !report.contains("hunter2"), "{report}");
}

#[test]
fn an_invalid_request_is_refused_with_a_problem_document_without_library_terms() {
    let folder = folder();
    let service = Service::ready(folder.path(), &ball("gate", ""));
    let overlay = url(&service, "streams/gate/overlay");
    // Content type and body of the request; status, a word of the detail, and the keys of the errors in the response.
    type Case<'a> = (&'a str, &'a str, u16, &'a str, Option<&'a str>);
    let cases: [Case; 4] = [
        ("application/json", "[1]", 422, "object", None),
        ("application/json", "{\"alpha\": ", 400, "alpha", None),
        ("text/plain", "{}", 415, "application/json", None),
        ("application/json", "{\"hide\": [\"gren\"]}", 422, "gren", Some("stream[gate].overlay.hide")),
    ];
    for (kind, body, status, word, key) in cases {
        let answer = Answer::to("PATCH", &overlay, kind, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{body}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["errors"][0]["key"].as_str(), key, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{body}: {detail}");
        for term in ["expected", "struct", "deserialize", "serde"] {
            assert!(!detail.contains(term), "{body}: {detail}");
        }
    }
    for query in ["limit=many", "limit=0", "limit=1&limit=2"] {
        let (status, _, text) = send("GET", &url(&service, &format!("streams/gate/recordings?{query}")), None);
        assert!(status == 400 && text.contains("limit") && !text.contains("deserialize"), "{query}: {text}");
    }
}
