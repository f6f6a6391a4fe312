//! The schema, and the settings that the API shows.

use serde_json::json;

use super::super::schema::tables;
use super::*;

/// A wrong value is an error about its key in its table, never an unknown key: the reader reads every key of the schema.
#[test]
fn every_key_of_the_schema_is_read() {
    let mut count = 0;
    for table in tables() {
        for (key, _) in table.keys() {
            let header = table.header();
            // No key is a date.
            let text = match header.as_str() {
                "[[stream]]" => format!("[[stream]]\n{key} = 1979-05-27\n"),
                _ => format!("[[stream]]\nname = \"a\"\nsource = \"test://\"\n{header}\n{key} = 1979-05-27\n"),
            };
            let errors = parse(&text, Path::new("test.toml")).unwrap_err();
            let wrong = |error: &&ConfigError| {
                error.key.ends_with(&format!(".{key}")) && error.problem.ends_with("not a date or time")
            };
            assert_eq!(errors.errors.iter().filter(wrong).count(), 1, "{header} {key}: {errors}");
            assert!(!errors.to_string().contains("unknown key"), "{header} {key}: {errors}");
            count += 1;
        }
    }
    assert!(count >= 60, "{count} keys");
}

#[test]
fn settings_are_shown_with_the_keys_of_the_file_and_without_secrets() {
    let fingerprint = ["AB"; 32].join(":");
    let settings = stream_settings(&stream(&format!(
        r##"
source = "rtsps://cam/x?token=hunter2"
user = "viewer"
password_file = "pw"
transport = "udp"
tls_fingerprint = "{fingerprint}"
mask_rate = 2.5
max_mask_age = 2
[stream.overlay]
alpha = 0.3
hide = ["sky"]
colors = {{ car = [255, 0, 0] }}
[stream.record]
dir = "/srv/gate"
max_age = "7d"
max_size = "50GB"
when = "event"
[[stream.record.event]]
classes = ["person"]
zone = [[0, 0.5], [1, 0.5], [1, 1]]
[[stream.push]]
url = "whip+https://media.example/gate?token=hunter2"
password_env = "GATE_PASSWORD"
"##
    )));
    let expected = json!({
        "name": "gate", "source": "rtsps://cam/x?token=***", "transport": "udp", "latency": "100ms", "user": "viewer",
        "tls_fingerprint": fingerprint, "model": "default", "show": "full-rate", "masks": "auto", "mask_rate": 2.5, "gate": "auto",
        "priority": 1, "crop": [0.0, 0.0, 1.0, 1.0], "tiles": "1x1", "max_mask_age": "2s", "max_latency": "1s",
        "silence_timeout": "3s", "drift": {"window": "1m", "settle": "30m"},
        "overlay": {"style": "tint", "alpha": 0.3, "smooth": "normal", "hide": ["sky"], "legend": "visible",
                    "colors": {"car": "#ff0000"}, "weights": {}},
        "encode": {"encoder": "auto", "bitrate": 0, "preset": "auto", "keyframe_interval": "2s", "jpeg_quality": 80},
        "record": {
            "dir": "/srv/gate", "format": "mp4", "segment": "10m", "max_age": "7d", "max_size": 50_000_000_000_u64,
            "when": "event",
            "event": [{"name": "event", "classes": ["person"], "zone": [[0.0, 0.5], [1.0, 0.5], [1.0, 1.0]],
                       "share": 0.02, "for": "2s", "pre_roll": "5s", "post_roll": "10s"}],
        },
        "push": [{"url": "whip+https://media.example/gate?token=***"}],
    });
    assert_eq!(serde_json::Value::Object(settings), expected);
}

#[test]
fn settings_that_are_not_for_the_source_are_not_shown() {
    let shown = |text: &str| stream_settings(&stream(text));
    let of_file = shown("source = \"clip.avi\"\nspeed = \"max\"");
    assert_eq!(
        (&of_file["loop"], &of_file["speed"], &of_file["show"]),
        (&json!(false), &json!("max"), &json!("matched"))
    );
    assert!(!of_file.contains_key("transport") && !of_file.contains_key("latency") && of_file["record"].is_null());
    let of_test = shown("source = \"test://\"");
    assert!(["loop", "speed", "transport", "latency", "user", "push"].iter().all(|key| !of_test.contains_key(*key)));
}

#[test]
fn names_in_logs_and_metrics_are_those_of_the_configuration() {
    Provider::ALL.iter().for_each(|provider| assert_eq!(json!(provider), json!(provider.name())));
    Style::ALL.iter().for_each(|style| assert_eq!(json!(style), json!(style.name())));
    Smooth::ALL.iter().for_each(|smooth| assert_eq!(json!(smooth), json!(smooth.name())));
}

/// What the API shows can be written to the file, and means the same there.
#[test]
fn shown_settings_are_read_as_the_same_stream() {
    let text = "model.path = \"m.onnx\"\n[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\nmax_latency = 0.7\n\
        [stream.overlay]\nalpha = 0.123\nstyle = \"contour\"\n[stream.record]\ndir = \"/srv/gate\"\nmin_free = \"1GB\"\n\
        [[stream.record.event]]\nclasses = [\"car\"]\nshare = 0.5\n";
    let dir = folder();
    let config = read(dir.path(), text).unwrap();
    let patch = stream_settings(&config.streams[0]);
    let edited = edit(text, &Edit::Change { stream: "gate".into(), patch }).unwrap();
    assert_eq!(read(dir.path(), &edited).unwrap(), config, "{edited}");
}

#[test]
fn keys_that_only_the_file_may_set_are_named() {
    let errors = |settings: serde_json::Value| not_for_api(settings.as_object().unwrap(), "stream", "stream[gate]");
    assert_eq!(errors(json!({"source": "test://", "password_file": null, "tls_ca": null})), []);
    let found = errors(json!({"password_file": "x", "password_env": "X", "tls_ca": "/x", "push": null}));
    let keys: Vec<&str> = found.iter().map(|error| error.key.as_str()).collect();
    let expected = ["password_file", "password_env", "tls_ca", "push"].map(|key| format!("stream[gate].{key}"));
    assert_eq!(keys, expected);
    assert!(found[0].help.as_ref().unwrap().contains("rtsp://USER:PASSWORD@HOST/PATH"));
}
