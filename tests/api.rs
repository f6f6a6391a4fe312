//! What clients change through the API of a running service: how a stream is drawn, and the streams themselves; and what
//! of it the configuration file keeps.

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

/// Red everywhere; the model calls it red and colours it so.
const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1";

fn is_red([red, green, blue]: [u8; 3]) -> bool {
    red > 200 && green < 60 && blue < 60
}

fn is_black(rgb: [u8; 3]) -> bool {
    rgb.iter().all(|&channel| channel < 40)
}

/// The colour in the middle of a stream's next picture.
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

/// Status and answer of a change; the answer to nothing is null.
fn change(service: &Service, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, _, text) = send(method, &url(service, path), Some(&body.to_string()));
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[test]
fn an_overlay_is_changed_between_two_frames_and_remembered() {
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
    until("the class's red", || is_red(color(&service, "gate")).then_some(()));
    let begun = service.stream("gate");
    let mut viewer = Mjpeg::connect(&service.page, "gate");
    viewer.next();

    let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"hide": ["red"]}));
    assert_eq!((status, &answer["remembered"], &answer["hide"]), (200, &json!(true), &json!(["red"])), "{answer}");
    // The next picture but one that may be in the encoder.
    until("no red any more", || is_black(color(&service, "gate")).then_some(()));
    assert_eq!(service.stream("gate")["legend"][0]["hidden"], true);
    assert_eq!(get_json(&url(&service, "streams/gate/overlay"))["hide"], json!(["red"]));
    assert_eq!(
        text(&config),
        before.replace("legend = false\n[[stream]]", "legend = false\nhide = [\"red\"]\n[[stream]]")
    );

    // Many in a row, as of a slider: the last one is in the file, too, at the latest at the end.
    for percent in 1..=20 {
        let alpha = f64::from(percent) / 100.0;
        let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"alpha": alpha, "hide": null}));
        assert_eq!((status, answer["alpha"].as_f64()), (200, Some(alpha)), "{answer}");
    }
    until("red again", || is_red(color(&service, "gate")).then_some(()));
    until("the last change is in the file", || text(&config).contains("alpha = 0.2\n").then_some(()));
    let (status, problem) =
        change(&service, "PATCH", "streams/gate/overlay", json!({"hide": ["read", "green"], "alpha": 7, "style": "x"}));
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    let (status, problem) = change(&service, "PATCH", "streams/gate/overlay", json!({"hide": ["read", "green"]}));
    assert_eq!((status, &problem["errors"][0]["key"]), (422, &json!("stream[gate].overlay.hide")), "{problem}");
    assert!(problem["errors"][0]["help"].as_str().unwrap().contains("red, green, blue"), "{problem}");

    // What the file says now is what runs: reading it again changes nothing, and a change by hand is drawn without a restart.
    let reloaded = |service: &mut Service| {
        service.program.child.signal("HUP");
        service.program.wait_for("what was done", |entry| {
            Some(entry["message"].as_str()?.strip_prefix("configuration reloaded: ")?.to_string())
        })
    };
    let nothing = "started none; restarted none; redrawn none; stopped none; untouched gate, yard; model unchanged";
    assert_eq!(reloaded(&mut service), nothing);
    std::fs::write(&config, text(&config).replace("alpha = 0.2", "hide = [\"red\"]")).unwrap();
    assert_eq!(
        reloaded(&mut service),
        "started none; restarted none; redrawn gate; stopped none; untouched yard; model unchanged"
    );
    until("no red by hand", || is_black(color(&service, "gate")).then_some(()));
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
fn the_mask_comes_as_class_indices() {
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
    assert_eq!((info.width, info.height), (64, 36), "the model's size");
    assert!(pixels.iter().all(|&class| class == 0), "red is class 0");
    assert_eq!(get_json(&url(&service, "model"))["labels"][0]["name"], "red");
}

/// A configuration with comments of all kinds.
fn commented(folder: &Path) -> PathBuf {
    let streams = format!(
        "# All cameras.\n\n# Stays.\n{}\n# Goes.\n{}# The end.\n",
        ball("keep", "max_latency = \"2s\" # a slow camera"),
        ball("goes", "")
    );
    write_config(folder, &streams)
}

#[test]
fn streams_are_added_changed_and_removed_and_the_file_keeps_its_comments() {
    let folder = folder();
    let config = commented(folder.path());
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
    // Only drawn differently: nothing is restarted.
    let since = service.until_state("door", "live")["since"].clone();
    let (status, answer) =
        change(&service, "PATCH", "streams/door", json!({"overlay": {"alpha": null}, "max_mask_age": "2s"}));
    assert_eq!((status, &answer["since"]), (200, &since), "{answer}");

    assert_eq!(change(&service, "DELETE", "streams/goes", json!({})).0, 204);
    assert_eq!(change(&service, "DELETE", "streams/goes", json!({})).0, 404);
    let now = text(&config);
    assert!(
        !now.contains("\"goes\"") && !now.contains("# Goes.") && now.contains("# Stays.") && now.contains("# The end."),
        "{now}"
    );
    assert!(now.contains("# a slow camera") && now.contains("# All cameras."), "{now}");
    let names: Vec<String> = service.streams().iter().map(|stream| stream["name"].as_str().unwrap().into()).collect();
    assert_eq!(names, ["keep", "door"]);

    // The stream that nobody spoke of has not noticed.
    viewer.next();
    let end = service.stream("keep");
    assert_eq!((&end["since"], &end["dropped"], &end["state"]), (&kept["since"], &kept["dropped"], &json!("live")));
    assert!(end["published"].as_u64() > kept["published"].as_u64());
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    // The file is what the next start is from.
    let mut again = Service::run(&config, &[]);
    again.program.wait_for_message("ready");
    assert_eq!(again.streams().len(), 2);
}

#[test]
fn what_cannot_be_is_refused_with_all_reasons_and_nothing_changes() {
    let folder = folder();
    let config = commented(folder.path());
    let service = Service::run(&config, &[]);
    until("the model", || (send("GET", &url(&service, "model"), None).0 == 200).then_some(()));
    let before = text(&config);
    let keys = |problem: &Value| -> Vec<String> {
        let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["key"].as_str().unwrap().to_owned()).collect()
    };
    for (method, path, body, status, wanted) in [
        (
            "POST",
            "streams",
            json!({"name": "a b", "sorce": "test://"}),
            422,
            vec!["stream[a b].name", "stream[a b].source", "stream[a b].sorce"],
        ),
        ("POST", "streams", json!({"name": "keep", "source": "test://"}), 409, vec![]),
        (
            "POST",
            "streams",
            json!({"name": "x", "source": "test://", "overlay": {"hide": ["read"]}}),
            422,
            vec!["stream[x].overlay.hide"],
        ),
        ("POST", "streams", json!({"name": "x", "source": "file:///etc/passwd"}), 403, vec!["stream[x].source"]),
        // Whether there is such a file is not told.
        ("POST", "streams", json!({"name": "x", "source": "file:///etc/no-passwd"}), 403, vec!["stream[x].source"]),
        ("PATCH", "streams/keep", json!({"source": "/etc"}), 403, vec!["stream[keep].source"]),
        ("POST", "streams", json!({"name": "x", "source": "rtsp://127.0.0.1/a"}), 403, vec!["stream[x].source"]),
        (
            "POST",
            "streams",
            json!({"name": "x", "source": "rtsp://10.0.0.7/a", "user": "a", "password_file": "gate.password"}),
            403,
            vec!["stream[x].password_file"],
        ),
        (
            "POST",
            "streams",
            json!({"name": "x", "source": "test://", "record": {"dir": "/tmp"}}),
            403,
            vec!["stream[x].record.dir"],
        ),
        ("PATCH", "streams/keep", json!({"record": {"dir": "/etc/passwd"}}), 403, vec!["stream[keep].record.dir"]),
        (
            "PATCH",
            "streams/keep",
            json!({"overlay": {"alpha": 7}, "show": "x", "max_latency": "soon"}),
            422,
            vec!["stream[keep].max_latency", "stream[keep].overlay.alpha", "stream[keep].show"],
        ),
        ("PATCH", "streams/keep", json!({"push": [{"url": "rtsp://10.0.0.7/x"}]}), 403, vec!["stream[keep].push"]),
        ("PATCH", "streams/keep", json!({"overlay": {"alhpa": null}}), 422, vec!["stream[keep].overlay.alhpa"]),
        ("PATCH", "streams/keep", json!({"name": "kept"}), 422, vec!["stream[keep].name"]),
        ("PATCH", "streams/keep", json!({"source": null}), 422, vec!["stream[keep].source"]),
        ("PATCH", "streams/keep", json!({"overlay": {"hide": [null]}}), 422, vec!["stream[keep].overlay.hide[0]"]),
        ("PATCH", "streams/gone", json!({}), 404, vec![]),
    ] {
        let (got, problem) = change(&service, method, path, body.clone());
        assert_eq!(got, status, "{method} {path} {body}: {problem}");
        let mut got = keys(&problem);
        got.sort();
        let mut wanted = wanted;
        wanted.sort();
        assert_eq!(got, wanted, "{method} {path} {body}: {problem}");
        assert_eq!(text(&config), before, "{method} {path} {body}");
    }
    // A file that somebody is in the middle of changing by hand.
    std::fs::write(&config, before.replace("max_latency = \"2s\"", "max_latency = \"soon\"")).unwrap();
    let (status, problem) = change(&service, "PATCH", "streams/goes", json!({"max_mask_age": "3s"}));
    assert_eq!((status, keys(&problem)), (409, vec!["stream[keep].max_latency".to_owned()]), "{problem}");
    assert!(problem["errors"][0]["line"].is_u64(), "{problem}");
    let (status, answer) = change(&service, "PATCH", "streams/goes/overlay", json!({"alpha": 0.3}));
    assert_eq!((status, &answer["alpha"], &answer["remembered"]), (200, &json!(0.3), &json!(false)), "{answer}");
    // And a good one is what the change is based on.
    std::fs::write(&config, before.replace("# Stays.", "# Stays for ever.")).unwrap();
    let (status, problem) = change(&service, "PATCH", "streams/goes", json!({"max_mask_age": "3s"}));
    assert_eq!(status, 200, "{problem}");
    assert!(text(&config).contains("# Stays for ever.") && text(&config).contains("max_mask_age = \"3s\""));
    assert!(text(&config).contains("overlay.alpha = 0.3"), "it is remembered as soon as it can be: {}", text(&config));
    assert_eq!(change(&service, "DELETE", "streams/goes", json!({})).0, 204);
    let (status, problem) = change(&service, "DELETE", "streams/keep", json!({}));
    assert_eq!((status, problem["detail"].as_str().unwrap().contains("only stream")), (409, true), "{problem}");
}

#[test]
fn concurrent_changes_are_all_made() {
    let folder = folder();
    let config = write_config(folder.path(), &ball("first", ""));
    let service = Service::run(&config, &[]);
    until("the model", || (send("GET", &url(&service, "model"), None).0 == 200).then_some(()));
    let add = |n: usize| {
        let new = json!({"name": format!("s{n}"), "source": "test://black?width=64&height=48&fps=1"});
        change(&service, "POST", "streams", new)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|n| scope.spawn(move || add(n % 5))).collect();
        let mut answers: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap().0).collect();
        answers.sort_unstable();
        assert_eq!(answers, [201, 201, 201, 201, 201, 409], "two wanted the same name");
    });
    let mut names: Vec<String> =
        service.streams().iter().map(|stream| stream["name"].as_str().unwrap().into()).collect();
    names.sort();
    assert_eq!(names, ["first", "s0", "s1", "s2", "s3", "s4"]);
    assert_eq!(text(&config).matches("[[stream]]").count(), 6);
}

#[test]
fn twenty_streams_that_are_added_at_a_time_are_all_added() {
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
fn where_the_file_cannot_be_written_an_overlay_is_drawn_and_a_stream_is_not_changed() {
    let folder = folder();
    let named = write_config(folder.path(), &format!("{}{}", ball("gate", ""), ball("yard", "")));
    let before = text(&named).replace("channels.onnx", folder.path().join("channels.onnx").to_str().unwrap());
    std::fs::write(&named, &before).unwrap();
    // A file that has lost its name can be read by its descriptor, and not even root can put another one in its place.
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
fn the_page_of_the_api_shows_every_operation() {
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

/// A configuration whose runtime never gets ready.
fn without_a_model(folder: &Path) -> PathBuf {
    // It is there at once: the system's loader, which GStreamer needs, must not wait.
    let (library, source) = (folder.join("libonnxruntime.so"), folder.join("waits.c"));
    std::fs::write(&source, "int pause(void);\nconst void *OrtGetApiBase(void) { for (;;) pause(); }\n").unwrap();
    tool("cc", [Path::new("-shared"), Path::new("-fPIC"), Path::new("-o"), &library, &source]);
    let config = write_config(folder, &ball("gate", ""));
    std::fs::write(&config, text(&config).replace("[model]\n", "[model]\nruntime = \"libonnxruntime.so\"\n")).unwrap();
    config
}

#[test]
fn before_there_is_a_model_all_of_an_overlay_but_classes_is_changed() {
    let folder = folder();
    let config = without_a_model(folder.path());
    // It is known where the service listens before there is a model.
    let service = Service::run(&config, &[]);
    let (status, answer) = change(&service, "PATCH", "streams/gate/overlay", json!({"alpha": 0.25, "legend": false}));
    assert_eq!((status, &answer["alpha"], &answer["legend"]), (200, &json!(0.25), &json!(false)), "{answer}");
    until("it is remembered", || text(&config).contains("alpha = 0.25").then_some(()));
    let path = url(&service, "streams/gate/overlay");
    let refused = Answer::to("PATCH", &path, "application/json", r#"{"hide": ["sky"], "alpha": 0.5}"#);
    assert_eq!((refused.status, refused.header("retry-after")), (503, "2".into()), "{}", refused.body);
    assert!(refused.body.contains("hide and colors name its classes"), "{}", refused.body);
    assert_eq!(service.stream("gate")["config"]["overlay"]["alpha"], 0.25);
    assert_eq!(send("GET", &url(&service, "model"), None).0, 503);
}

/// The runtime never gets ready, and nothing else hangs: a model that is still being loaded is no fault.
#[test]
fn a_service_whose_model_is_still_being_loaded_stops_at_once() {
    let folder = folder();
    let config = without_a_model(folder.path());
    let service = Service::run(&config, &[]);
    assert_eq!(send("GET", &url(&service, "model"), None).0, 503);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_password_that_a_client_sets_is_not_for_everybody_on_the_machine() {
    let folder = folder();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    let config = write_config(folder.path(), &ball("gate", ""));
    mode(&config, 0o644);
    let mut service = Service::run(&config, &[]);
    service.program.wait_for_message("ready");
    // Nobody is at home there, and the stream is not waited for.
    let camera = |source: &str| json!({"name": "yard", "source": source});
    let (status, answer) = change(&service, "POST", "streams", camera("rtsp://admin:hunter2@192.0.2.7/a"));
    assert_eq!(status, 201, "{answer}");
    assert!(text(&config).contains("hunter2"));
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(change(&service, "DELETE", "streams/yard", json!({})).0, 204);
    let (_, _, log) = service.terminate();
    assert_eq!(log.matches("configuration file closed to other local users").count(), 1, "{log}");
    assert!(!log.contains("hunter2"), "{log}");

    // Written there by hand, it is told of.
    std::fs::write(&config, text(&config).replace("test://ball", "rtsp://admin:hunter2@192.0.2.7/a?")).unwrap();
    mode(&config, 0o644);
    let checked = run(maskcast().arg("check").arg(&config));
    let said = checked.text();
    assert!(said.contains("holds passwords (stream[gate].source)") && !said.contains("hunter2"), "{said}");
}

#[test]
fn what_is_no_body_is_told_in_words() {
    let folder = folder();
    let service = Service::ready(folder.path(), &ball("gate", ""));
    let overlay = url(&service, "streams/gate/overlay");
    for (kind, body, status, words) in [
        ("application/json", "[1]", 422, "the body must be an object"),
        ("application/json", "{\"alpha\": ", 400, "the body is not valid JSON: alpha: EOF"),
        ("text/plain", "{}", 415, "Content-Type application/json"),
        ("application/json", "{\"hide\": [\"gren\"]}", 422, "stream[gate].overlay.hide: the model has no class"),
    ] {
        let answer = Answer::to("PATCH", &overlay, kind, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        let detail = serde_json::from_str::<Value>(&answer.body).unwrap()["detail"].clone();
        assert!(detail.as_str().unwrap().contains(words), "{body}: {detail}");
    }
    for query in ["limit=many", "limit=0", "limit=1&limit=2"] {
        let (status, _, text) = send("GET", &url(&service, &format!("streams/gate/recordings?{query}")), None);
        assert!(status == 400 && text.contains("limit") && !text.contains("deserialize"), "{query}: {text}");
    }
}
