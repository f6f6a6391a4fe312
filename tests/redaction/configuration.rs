//! Who may change what is hidden: reloads, clients of the API, restarts; and what `maskcast check` says.

use serde_json::{Value, json};

use crate::camera::Camera;
use crate::capture::Capture;
use crate::common::http::send;
use crate::common::program::{maskcast, run};
use crate::common::service::{Service, write_config};
use crate::fixture::{LEAK, Viewers, clip, end, folder, gate_and_open, open, redacted, reload, start};
use crate::models::Kind;
use crate::paint::{write_long_walk, write_walk};

/// The streams `gate`, with these settings of the redaction and further keys, and `open`.
fn streams(redact: &str, keys: &str) -> String {
    let source = clip("clip.mp4");
    let redact = if std::env::var_os(LEAK).is_some() || redact.is_empty() {
        String::new()
    } else {
        format!("redact = {{ classes = [\"person\"], style = \"fill\", {redact} }}\n")
    };
    let gate = open("gate", &source, &format!("{redact}{keys}"));
    gate + &open("open", &source, "")
}

fn weakened(service: &Service) -> f64 {
    service.metrics().sum("maskcast_redaction_weakened_total", &[])
}

/// The changes that the API shows.
fn changes(service: &Service) -> Vec<String> {
    let changes = service.stream("gate")["redaction_weakened"].as_array().unwrap().clone();
    changes.iter().map(|change| change["change"].as_str().unwrap().to_owned()).collect()
}

const GROW: &str = "grow was 0.05 and is 0.02";
const HOLD: &str = "hold was 500ms and is 200ms";
const REMOVED: &str = "[stream.redact] was removed, person can be visible";

/// Reloads and restarts, with viewers that stay connected.
pub fn only_the_file_weakens_redaction_and_that_is_noticed() {
    let folder = folder(Kind::First);
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    write_walk(&folder.path().join("clip.mp4"));
    let variables = [("STATE_DIRECTORY", state.to_str().unwrap())];
    let first = streams("grow = 0.02", "");
    let mut service = Service::with(folder.path(), &first, &variables);
    let viewers = Viewers::start(&service);
    viewers.until_visible();
    viewers.compare("at first");

    let unrelated = first.clone() + "max_latency = \"2s\"\n";
    reload(&mut service, folder.path(), &unrelated, "untouched gate");
    viewers.compare("an unrelated reload");
    let restarted = streams("grow = 0.02", "max_latency = \"2s\"\n");
    reload(&mut service, folder.path(), &restarted, "restarted gate");
    viewers.compare("a restart of the stream");
    viewers.until_visible();
    reload(&mut service, folder.path(), &streams("grow = 0.05", ""), "restarted gate");
    viewers.compare("a stronger redaction");
    viewers.until_visible();
    assert_eq!((weakened(&service), changes(&service)), (0.0, Vec::new()), "nothing is weaker");

    reload(&mut service, folder.path(), &streams("grow = 0.02", ""), "restarted gate");
    viewers.compare("a weaker redaction");
    assert_eq!((weakened(&service), changes(&service)), (1.0, vec![GROW.to_owned()]));
    drop(viewers);
    let log = end(service);
    let warning = format!("redaction weakened by the configuration file: {GROW}");
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(&warning)), "{log}");

    // While the service is stopped.
    let mut service = Service::with(folder.path(), &streams("grow = 0.02, hold = \"200ms\"", ""), &variables);
    service.program.wait_for_message("ready");
    assert_eq!((weakened(&service), changes(&service)), (1.0, vec![GROW.to_owned(), HOLD.to_owned()]));
    assert!(service.program.log().contains(HOLD), "{}", service.program.log());
    end(service);
    let mut service = Service::with(folder.path(), &streams("grow = 0.02, hold = \"200ms\"", ""), &variables);
    assert_eq!((weakened(&service), changes(&service).len()), (0.0, 2), "it is counted once");
    let viewers = Viewers::start(&service);
    viewers.until_visible();
    viewers.compare("after two restarts");

    drop(viewers);

    // These viewers stay connected.
    let both = [Capture::rtsp(&service, "gate"), Capture::mjpeg(&service, "gate")];
    for gate in &both {
        gate.until_more_visible(5);
        gate.assert_clean();
    }
    reload(&mut service, folder.path(), &streams("", ""), "restarted gate");
    both.iter().for_each(|gate| drop(gate.until_more_leaks(3)));
    assert_eq!(changes(&service), [GROW, HOLD, REMOVED]);
    reload(&mut service, folder.path(), &streams("grow = 0.02", ""), "restarted gate");
    let viewers = Viewers::start(&service);
    let leaks = both.each_ref().map(|gate| {
        gate.until_more_visible(5);
        gate.findings().leaks()
    });
    viewers.until_visible();
    viewers.compare("redacted again");
    for (gate, leaks) in both.iter().zip(leaks) {
        gate.until_more(45);
        assert_eq!(gate.findings().leaks(), leaks, "no more than before");
    }
    end(service);
}

/// A request that is refused because of the redaction; `text` is in the answer.
fn refuse(service: &Service, method: &str, path: &str, body: &Value, text: &str) {
    let url = format!("{}api/v1/{path}", service.page);
    let body = if body.is_null() { None } else { Some(body.to_string()) };
    let (status, _, answer) = send(method, &url, body.as_deref());
    assert!((400..500).contains(&status), "{method} {path} {body:?}: {status} {answer}");
    assert!(answer.contains(text), "{method} {path} {body:?}: {status} {answer}");
}

fn allow(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let (status, _, answer) = send(method, &format!("{}api/v1/{path}", service.page), Some(&body.to_string()));
    assert_eq!(status, 200, "{method} {path} {body}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// Attempts to see persons by the API, by the source of a file and of a camera.
pub fn clients_of_the_api_cannot_show_persons() {
    let folder = folder(Kind::First);
    write_long_walk(&folder.path().join("clip.mp4"));
    let camera = Camera::show(&folder.path().join("clip.mp4"), 0);
    let by_file = redacted("file", &clip("clip.mp4"), "fill", "");
    let mut service = start(folder.path(), &(gate_and_open(&camera.source()) + &by_file));
    service.program.wait_for_message("ready");
    let viewers = Viewers::start(&service);
    viewers.until_visible();
    for redact in [
        Value::Null,
        json!({}),
        json!({"classes": []}),
        json!({"classes": ["other"]}),
        json!({"grow": 0.0}),
        json!({"hold": "0s"}),
        json!({"style": "pixelate"}),
        json!({"classes": ["person"], "style": "fill"}),
    ] {
        refuse(&service, "PATCH", "streams/gate", &json!({ "redact": redact }), "redact");
    }
    refuse(&service, "PATCH", "streams/gate", &json!({"show": "full-rate"}), "redact");
    refuse(&service, "PATCH", "streams/gate", &json!({"name": "gate2"}), "name");
    for source in ["rtsp://127.0.0.2/stream", "file:clip.mp4", "test://black"] {
        // Without the keys that have no meaning for other sources.
        let other = json!({"source": source, "transport": null, "latency": null});
        refuse(&service, "PATCH", "streams/gate", &other, "cannot change its source");
    }
    for stream in ["gate", "file"] {
        refuse(&service, "DELETE", &format!("streams/{stream}"), &Value::Null, "cannot remove it");
    }
    let port = camera.port;
    for source in [
        camera.url(),
        format!("rtsp://localhost:{port}/stream"),
        format!("rtsp://user:password@127.0.0.1:{port}/other"),
        "http://127.0.0.1:8080/mjpeg".to_owned(),
        "file:clip.mp4".to_owned(),
        "file:./clip.mp4".to_owned(),
    ] {
        let twin = json!({"name": "twin", "source": source});
        refuse(&service, "POST", "streams", &twin, "redacts the source");
    }
    let twin = json!({"name": "twin", "source": camera.url(), "redact": {"classes": ["other"]}});
    refuse(&service, "POST", "streams", &twin, "redact");
    refuse(&service, "POST", "streams", &json!({"name": "x", "source": "file:other.mp4"}), "source");
    // A redirect may lead to the camera.
    let redirect = json!({"name": "x", "source": "http://192.0.2.7/redirect"});
    refuse(&service, "POST", "streams", &redirect, "server.api_sources");

    for overlay in [
        json!({"alpha": 0.0}),
        json!({"style": "contour", "alpha": 0.3}),
        json!({"hide": ["person"], "legend": "all"}),
        json!({"style": "tint", "smooth": "off", "weights": {"person": 0.0}}),
    ] {
        allow(&service, "PATCH", "streams/gate/overlay", &overlay);
        viewers.compare(&format!("overlay {overlay}"));
    }
    let changed = allow(&service, "PATCH", "streams/gate", &json!({"max_latency": "2s", "zone": []}));
    assert_eq!(changed["redaction"]["classes"], json!(["person"]), "{changed}");
    viewers.until_visible();
    viewers.compare("another key");
    let text = std::fs::read_to_string(folder.path().join("maskcast.toml")).unwrap();
    assert_eq!(text.matches("redact = { classes = [\"person\"]").count(), 2, "{text}");
    let names: Vec<Value> = service.streams().iter().map(|stream| stream["name"].clone()).collect();
    assert_eq!(names, ["gate", "open", "file"]);
    assert_eq!(weakened(&service), 0.0);
    end(service);
}

/// What `maskcast check` says about both streams, and the configurations that it refuses.
pub fn check_says_where_persons_can_leave() {
    let folder = folder(Kind::First);
    write_walk(&folder.path().join("clip.mp4"));
    let keys = "[stream.record]\ndir = \"rec\"\n[[stream.push]]\nurl = \"rtsp://127.0.0.1:9/x\"\n";
    let source = clip("clip.mp4");
    let both = redacted("gate", &source, "fill", keys) + &open("open", &source, keys);
    let ended = run(maskcast().arg("check").arg(write_config(folder.path(), &both)));
    let text = ended.text();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("unredacted") || line.starts_with("hides"))
        .collect();
    assert_eq!(
        lines,
        [
            "hides person (fill, no scores: no bias, no check of the confidence) in all outputs, and the whole frame if it has no mask; \
             what the model misses stays visible",
            "unredacted pixels leave by RTSP, WebRTC, MJPEG, snapshots, recordings, pushes",
        ],
        "{text}"
    );
    let warning = "stream[open]: shows without redaction what may be the camera that stream[gate] redacts";
    assert!(text.lines().any(|line| line.contains("warning") && line.contains(warning)), "{text}");

    for (redact, problem) in [
        ("redact = { classes = [\"person\", \"cat\"] }", "no class \"cat\""),
        ("redact = { classes = [] }", "redact.classes"),
        ("redact = {}", "redact.classes"),
        ("redact = { classes = [\"person\"], when_unsure = \"show\" }", "redact.when_unsure"),
        ("redact = { classes = [\"person\"] }\nshow = \"full-rate\"", "stream[gate].show"),
    ] {
        let config = write_config(folder.path(), &open("gate", &source, &format!("{redact}\n")));
        for command in ["check", "run"] {
            let ended = run(maskcast().arg(command).arg(&config));
            assert_eq!(ended.code, Some(78), "{command} {redact}: {}", ended.stderr);
            assert!(ended.stderr.contains(problem), "{command} {redact}: {}", ended.stderr);
        }
    }
}
