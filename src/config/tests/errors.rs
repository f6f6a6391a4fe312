//! Errors: all of a file at once, keys in the wrong table, and files that cannot be read.

use super::*;

#[test]
fn all_errors_at_once() {
    let text = r##"colour = "blue"
[model]
path = "absent.onnx"
providers = ["cuda", "cdua", "cuda"]
require = "gpus"
threads = -1
max_batch = "eight"
runtime = "absent.so"
[server]
http = "0.0.0.0:8554"
htpp = "x"
[[stream]]
name = "gate"
source = "rstp://admin:hunter2@10.0.0.7/stream1"
show = "fullrate"
max_mask_age = "soon"
silence_timeout = "2h"
latency = true
[stream.overlay]
alpha = 1.7
style = 3
hide = ["sky", 4]
colors = { car = "red", "traffic light" = [1, 2, 300], tree = [1] }
bitrate = 3
[stream.encode]
bitrate = 10
preset = "fastest"
jpeg_quality = 0
[stream.record]
format = "avi"
[[stream]]
name = "gate"
source = "absent.mp4"
[[stream]]
name = "the gate"
source = "test://"
loop = true
password = "hunter2"
[[stream]]
"##;
    let dir = folder();
    let errors = read(dir.path(), text).unwrap_err();
    let places: Vec<(Option<usize>, &str)> = errors.errors.iter().map(|e| (e.line, e.key.as_str())).collect();
    let mut expected = [
        (1, "colour"),
        (3, "model.path"),
        (4, "model.providers[1]"),
        (4, "model.providers[2]"),
        (5, "model.require"),
        (6, "model.threads"),
        (7, "model.max_batch"),
        (8, "model.runtime"),
        (9, "server.rtsp"),
        (10, "server.http"),
        (11, "server.htpp"),
        (14, "stream[gate].source"),
        (15, "stream[gate].show"),
        (16, "stream[gate].max_mask_age"),
        (17, "stream[gate].silence_timeout"),
        (18, "stream[gate].latency"),
        (20, "stream[gate].overlay.alpha"),
        (21, "stream[gate].overlay.style"),
        (22, "stream[gate].overlay.hide[1]"),
        (23, "stream[gate].overlay.colors.car"),
        (23, "stream[gate].overlay.colors.\"traffic light\"[2]"),
        (23, "stream[gate].overlay.colors.tree"),
        (24, "stream[gate].overlay.bitrate"),
        (26, "stream[gate].encode.bitrate"),
        (27, "stream[gate].encode.preset"),
        (28, "stream[gate].encode.jpeg_quality"),
        (29, "stream[gate].record.dir"),
        (32, "stream[1].name"),
        (33, "stream[1].source"),
        (35, "stream[2].name"),
        (37, "stream[2].loop"),
        (38, "stream[2].password"),
        (39, "stream[3].name"),
        (39, "stream[3].source"),
        (30, "stream[gate].record.format"),
    ]
    .map(|(line, key)| (Some(line), key))
    .to_vec();
    let mut places_sorted = places.clone();
    places_sorted.sort();
    expected.sort();
    assert_eq!(places_sorted, expected, "{errors}");
    assert!(places.is_sorted_by_key(|(line, _)| *line), "{errors}");

    let printed = errors.to_string();
    assert!(!printed.contains("hunter2"), "{printed}");
    let file = dir.path().join("maskcast.toml");
    for line in [
        "1: colour: unknown key (help: known are: model, server, history, stream, webhook, mqtt)",
        "11: server.htpp: unknown key (help: did you mean http?)",
        "15: stream[gate].show: \"fullrate\" is not one of \"full-rate\", \"matched\" (help: did you mean \"full-rate\"?)",
        "17: stream[gate].silence_timeout: 2h is not between 500ms and 1h",
        "20: stream[gate].overlay.alpha: 1.7 is not between 0 and 1 (help: 0 is invisible, 1 is opaque; the default is 0.45)",
        "21: stream[gate].overlay.style: must be a string, not an integer",
        "24: stream[gate].overlay.bitrate: unknown key (help: it belongs in [stream.encode])",
    ] {
        let line = format!("{}:{line}", file.display());
        assert!(printed.lines().any(|printed| printed == line), "{line}\nis not in\n{printed}");
    }
}

#[test]
fn keys_in_the_wrong_table() {
    let error = only(read_stream("source = \"test://\"\n[stream.overlay]\nshow = \"matched\""));
    assert_eq!(error, "stream[gate].overlay.show: unknown key (help: it belongs in [[stream]])");
    let error = only(read_stream("source = \"test://\"\nrecord = true"));
    assert_eq!(error, "stream[gate].record: must be a table, not a boolean");
}

#[test]
fn unreadable_files() {
    let dir = folder();
    let path = dir.path().join("maskcast.toml");
    assert!(only(load(&path)).starts_with("cannot be read: No such file"));
    std::fs::write(&path, b"[model]\npath = \"\xff\"\n").unwrap();
    let errors = load(&path).unwrap_err();
    assert_eq!(errors.to_string(), format!("{}:2: is not UTF-8 text", path.display()));

    std::fs::write(&path, "[model]\npath = m.onnx\n[server]\nhttp 5\n").unwrap();
    let errors = load(&path).unwrap_err();
    assert_eq!(errors.errors.iter().filter_map(|error| error.line).collect::<Vec<_>>(), [2, 4], "{errors}");
    assert_eq!(errors.to_string().lines().count(), errors.errors.len());

    let twice = "[server]\nrtsp = \"a\"\nrtsp = \"b\"\n";
    assert_eq!(parse(twice, Path::new("x.toml")).unwrap_err().to_string(), "x.toml:3: rtsp is given twice");
}
