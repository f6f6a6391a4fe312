//! The loader as a whole: what a valid file means, and that every error of a broken one is found at once.

use std::path::Path;
use std::time::Duration;

use super::load::parse_with;
use super::*;
use crate::access::Role;

/// A folder with the files that the configurations below name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("m.onnx", ""), ("clip.avi", ""), ("pw", "hunter2\n"), ("crlf", " hunter2 \r\n"), ("empty", "\n")]
    {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn env(name: &str) -> Option<String> {
    match name {
        "GATE_PASSWORD" => Some("hunter2".into()),
        "BLANK" => Some(String::new()),
        "CACHE_DIRECTORY" => Some("/var/cache/maskcast:/var/cache/other".into()),
        _ => None,
    }
}

fn read(dir: &Path, text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, &dir.join("maskcast.toml"), &env)
}

/// `text` below `name = "gate"` of the only stream.
fn read_stream(text: &str) -> Result<StreamConfig, ConfigErrors> {
    let dir = folder();
    let text = format!("model.path = \"m.onnx\"\n[[stream]]\nname = \"gate\"\n{text}");
    read(dir.path(), &text).map(|mut config| config.streams.remove(0))
}

fn stream(text: &str) -> StreamConfig {
    read_stream(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// `text` below `[model]`.
fn read_model(text: &str) -> Result<ModelConfig, ConfigErrors> {
    let dir = folder();
    let text = format!("stream = [{{ name = \"a\", source = \"test://\" }}]\n[model]\npath = \"m.onnx\"\n{text}");
    read(dir.path(), &text).map(|config| config.model)
}

/// The only error, without file and line.
fn only<T: std::fmt::Debug>(result: Result<T, ConfigErrors>) -> String {
    let errors = result.unwrap_err();
    assert_eq!(errors.errors.len(), 1, "{errors}");
    errors.errors[0].to_string()
}

#[test]
fn the_least_file_has_the_defaults() {
    let dir = folder();
    let config =
        read(dir.path(), "model.path = \"m.onnx\"\n[[stream]]\nname = \"a\"\nsource = \"clip.avi\"\n").unwrap();
    let clip = SourceSpec::new(SourceUri::File(dir.path().join("clip.avi")));
    assert_eq!(config.streams, [defaults_stream("a", clip.clone())]);
    assert_eq!(config.server, ServerConfig::default());
    let mut model = ModelConfig::with_path(dir.path().join("m.onnx"));
    model.cache_dir = Some("/var/cache/maskcast".into());
    assert_eq!(config.model, model);
    assert_eq!(config.streams[0].show, Show::FullRate);
    assert_eq!(defaults_stream("a", SourceSpec { real_time: false, ..clip }).show, Show::Matched);
}

#[test]
fn every_key_is_read() {
    let dir = folder();
    let text = r##"
[model]
path = "m.onnx"
providers = ["cuda", "cpu"]
require = "gpu"
threads = 4
workers = 2
max_batch = 0x10
device = 1
cache_dir = "cache"
runtime = "pw"
[server]
allow_anonymous = true
http = "0.0.0.0:80"
rtsp = "localhost:0"
[[stream]]
name = "gate-1_A"
source = "rtsp://10.0.0.7/stream1"
user = "viewer"
password_file = "pw"
transport = "udp"
latency = 0.25
show = "matched"
max_mask_age = 2
max_latency = "700ms"
silence_timeout = "1m"
[stream.overlay]
style = "contour"
alpha = 1
hide = ["sky", "road"]
legend = false
colors = { car = "#FF8000", "traffic light" = [1, 2, 3] }
[stream.encode]
encoder = "x264"
bitrate = 2_000
preset = "veryfast"
keyframe_interval = "500ms"
jpeg_quality = 95
[stream.record]
dir = "/srv/gate"
format = "mkv"
segment = "5m"
segment_size = "500MB"
max_age = "7d"
max_size = "50 GiB"
min_free = 1_000_000_000
when = "event"
[[stream.record.event]]
name = "visit"
classes = ["person", "car"]
zone = [[0, 0.5], [1, 0.5], [1, 1]]
share = 0.1
for = "1s"
pre_roll = 3
post_roll = "20s"
[[stream.record.event]]
classes = ["sky"]
[[stream.push]]
url = "rtsps://cam@media.example/gate"
password_file = "pw"
[[stream.push]]
url = "whip+https://media.example/whip/gate?x=hunter2"
password_env = "GATE_PASSWORD"
[[stream]]
name = "clip"
source = "file:clip.avi"
loop = true
speed = "max"
"##;
    let config = read(dir.path(), text).unwrap();
    let mut source = SourceSpec::parse("rtsp://10.0.0.7/stream1", dir.path()).unwrap();
    source.transport = Transport::Udp;
    source.latency = Duration::from_millis(250);
    source.credentials = Some(Credentials { user: "viewer".into(), password: Secret::new("hunter2") });
    let mut clip = SourceSpec::parse("clip.avi", dir.path()).unwrap();
    (clip.looped, clip.real_time) = (true, false);
    let expected = Config {
        model: ModelConfig {
            path: dir.path().join("m.onnx"),
            providers: vec![Provider::Cuda, Provider::Cpu],
            require: Require::Gpu,
            threads: 4,
            workers: 2,
            max_batch: 16,
            device: 1,
            cache_dir: Some(dir.path().join("cache")),
            runtime: Some(dir.path().join("pw")),
        },
        server: ServerConfig {
            http: "0.0.0.0:80".parse().unwrap(),
            rtsp: "127.0.0.1:0".parse().unwrap(),
            allow_anonymous: true,
            ..ServerConfig::default()
        },
        streams: vec![
            StreamConfig {
                name: "gate-1_A".into(),
                source,
                show: Show::Matched,
                max_mask_age: Duration::from_secs(2),
                max_latency: Duration::from_millis(700),
                silence_timeout: Duration::from_secs(60),
                overlay: OverlayConfig {
                    style: Style::Contour,
                    alpha: 1.0,
                    hide: Some(vec!["sky".into(), "road".into()]),
                    legend: false,
                    colors: vec![("car".into(), Rgb(255, 128, 0)), ("traffic light".into(), Rgb(1, 2, 3))],
                },
                encode: EncodeConfig {
                    encoder: EncoderChoice::X264,
                    bitrate: 2000,
                    preset: "veryfast".into(),
                    keyframe_interval: Duration::from_millis(500),
                    jpeg_quality: 95,
                },
                record: Some(RecordConfig {
                    dir: "/srv/gate".into(),
                    format: Container::Mkv,
                    segment: Duration::from_secs(300),
                    segment_size: Some(500_000_000),
                    max_age: Some(Duration::from_secs(7 * 86_400)),
                    max_size: Some(50 << 30),
                    min_free: Some(1_000_000_000),
                    when: When::Event,
                    events: vec![
                        EventConfig {
                            name: "visit".into(),
                            classes: vec!["person".into(), "car".into()],
                            zone: vec![[0.0, 0.5], [1.0, 0.5], [1.0, 1.0]],
                            share: 0.1,
                            hold: Duration::from_secs(1),
                            pre_roll: Duration::from_secs(3),
                            post_roll: Duration::from_secs(20),
                        },
                        EventConfig::of("event2", &["sky"]),
                    ],
                }),
                push: vec![
                    PushConfig {
                        target: PushTarget::Rtsp("rtsps://media.example/gate".parse().unwrap()),
                        credentials: Some(Credentials { user: "cam".into(), password: Secret::new("hunter2") }),
                    },
                    PushConfig {
                        target: PushTarget::Whip("https://media.example/whip/gate?x=hunter2".parse().unwrap()),
                        credentials: Some(Credentials { user: String::new(), password: Secret::new("hunter2") }),
                    },
                ],
            },
            defaults_stream("clip", clip),
        ],
    };
    assert_eq!(config, expected);
    assert!(!format!("{config:?}").contains("hunter2"));
}

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
        "1: colour: unknown key (help: known are: model, server, stream)",
        "11: server.htpp: unknown key (help: did you mean http?)",
        "15: stream[gate].show: \"fullrate\" is none of \"full-rate\", \"matched\" (help: did you mean \"full-rate\"?)",
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
fn no_streams() {
    let dir = folder();
    for text in ["model.path = \"m.onnx\"", "model.path = \"m.onnx\"\nstream = []"] {
        assert!(only(read(dir.path(), text)).starts_with("stream: there is none (help: write [[stream]]"));
    }
    let single = "model.path = \"m.onnx\"\n[stream]\nname = \"a\"\nsource = \"test://\"";
    assert_eq!(
        only(read(dir.path(), single)),
        "stream: is written [stream] (help: write [[stream]], with two brackets)"
    );
    assert!(only(read(dir.path(), "model.path = \"m.onnx\"\nstream = 5")).starts_with("stream: must be tables"));
}

#[test]
fn names() {
    let dir = folder();
    let named = |name: &str| {
        read(dir.path(), &format!("model.path = \"m.onnx\"\n[[stream]]\nname = \"{name}\"\nsource = \"test://\""))
    };
    assert!(named(&"a".repeat(64)).is_ok());
    assert_eq!(only(named(&"a".repeat(65))), "stream[0].name: has 65 characters, more than 64");
    assert_eq!(only(named("")), "stream[0].name: must not be empty");
    assert!(only(named("tür")).starts_with("stream[0].name: \"tür\" has other characters"));
}

#[test]
fn providers_and_requirement() {
    assert_eq!(read_model("providers = [\"cpu\"]").unwrap().providers, [Provider::Cpu]);
    assert!(only(read_model("providers = []")).starts_with("model.providers: must not be empty"));
    assert!(only(read_model("providers = \"cpu\"")).starts_with("model.providers: must be an array, not a string"));
    let error = only(read_model("providers = [\"cpu\"]\nrequire = \"gpu\""));
    assert!(error.starts_with("model.require: \"gpu\" is required, but only \"cpu\" may be used"), "{error}");
    assert!(only(read_model("device = 64")).starts_with("model.device: 64 is not between 0 and 63"));
    assert!(only(read_model("threads = 99999999999999999999")).starts_with("model.threads: 99999999999999999999 is"));
    assert!(only(read_model("cache_dir = \"pw\"")).starts_with("model.cache_dir: is a file, not a folder"));
    assert!(only(read_model("runtime = \".\"")).starts_with("model.runtime: is a folder, not a file"));
}

#[test]
fn addresses() {
    let dir = folder();
    let http = |address: &str| {
        let text = format!(
            "model.path = \"m.onnx\"\nserver.http = \"{address}\"\n[[stream]]\nname = \"a\"\nsource = \"test://\""
        );
        read(dir.path(), &text).map(|config| config.server.http.to_string())
    };
    assert_eq!(http("localhost:0").unwrap(), "127.0.0.1:0");
    assert_eq!(http("[::1]:80").unwrap(), "[::1]:80");
    for address in ["8080", ":8080", "example.org:80", "127.0.0.1", "127.0.0.1:65536", "::1:80", "127.0.0.1:"] {
        assert!(only(http(address)).contains("is not an IP address (or localhost) and a port"), "{address}");
    }
    assert!(only(http("127.0.0.1:8554")).starts_with("server.rtsp: 127.0.0.1:8554 is taken by server.http"));
}

#[test]
fn durations() {
    for (written, millis) in [("\"500ms\"", 500), ("0.05", 50), ("\"1m\"", 60_000), ("2", 2000)] {
        let stream = stream(&format!("source = \"test://\"\nmax_mask_age = {written}"));
        assert_eq!(stream.max_mask_age, Duration::from_millis(millis), "{written}");
    }
    for (written, problem) in [
        ("\"20ms\"", "20ms is not between 50ms and 1m"),
        ("-1", "-1 s is not between 50ms and 1m"),
        ("inf", "inf s is not between 50ms and 1m"),
        ("\"500\"", "\"500\" is not a duration (help: write \"500ms\", \"3s\", \"1m\" or a number of seconds)"),
    ] {
        let error = only(read_stream(&format!("source = \"test://\"\nmax_mask_age = {written}")));
        assert_eq!(error, format!("stream[gate].max_mask_age: {problem}"));
    }
}

#[test]
fn a_latency_that_no_frame_keeps_is_refused() {
    assert_eq!(stream("source = \"rtsp://cam/x\"").max_latency, Duration::from_secs(1));
    let error = only(read_stream("source = \"rtsp://cam/x\"\nmax_latency = \"50ms\""));
    assert_eq!(error, "stream[gate].max_latency: 50ms is not between 200ms and 1m");
}

#[test]
fn settings_fit_their_source() {
    for (source, setting, key) in [
        ("rtsp://cam/x", "loop = true", "loop"),
        ("test://", "speed = \"max\"", "speed"),
        ("clip.avi", "transport = \"tcp\"", "transport"),
        ("http://cam/x", "latency = \"1s\"", "latency"),
        ("srt://cam:1", "user = \"viewer\"", "user"),
    ] {
        let error = only(read_stream(&format!("source = \"{source}\"\n{setting}")));
        assert!(error.starts_with(&format!("stream[gate].{key}: has no meaning for this source")), "{error}");
    }
}

#[test]
fn credentials() {
    let read = |text: &str| stream(text).source.credentials.unwrap();
    let expected = |password: &str| Credentials { user: "viewer".into(), password: Secret::new(password) };
    let user = "source = \"rtsp://cam/x\"\nuser = \"viewer\"\n";
    assert_eq!(read(&format!("{user}password_file = \"pw\"")), expected("hunter2"));
    assert_eq!(read(&format!("{user}password_file = \"crlf\"")), expected(" hunter2 "));
    assert_eq!(read(&format!("{user}password_env = \"GATE_PASSWORD\"")), expected("hunter2"));
    assert_eq!(read(user), expected(""));
    assert_eq!(read("source = \"rtsp://viewer:a%20b@cam/x\""), expected("a b"));
    assert_eq!(read("source = \"http://viewer@cam/x\"\npassword_file = \"pw\""), expected("hunter2"));

    for (text, error) in [
        ("user = \"viewer\"\npassword_file = \"absent\"", "password_file: no such file"),
        ("user = \"viewer\"\npassword_file = \"empty\"", "password_file: the file is empty"),
        ("user = \"viewer\"\npassword_file = \"/dev/zero\"", "password_file: is no password"),
        ("user = \"viewer\"\npassword_env = \"hunter2\"", "password_env: there is no environment variable"),
        ("user = \"viewer\"\npassword_env = \"BLANK\"", "password_env: the environment variable of this name is empty"),
        ("user = \"viewer\"\npassword_file = \"pw\"\npassword_env = \"GATE_PASSWORD\"", "password_env: password_file"),
        ("password_file = \"pw\"", "password_file: there is no user for this password"),
    ] {
        let error_found = only(read_stream(&format!("source = \"rtsp://cam/x\"\n{text}")));
        assert!(error_found.starts_with(&format!("stream[gate].{error}")), "{error_found}");
        assert!(!error_found.contains("hunter2"), "{error_found}");
    }
    let twice = read_stream("source = \"rtsp://a:b@cam/x\"\nuser = \"viewer\"\npassword_file = \"pw\"").unwrap_err();
    let keys: Vec<&str> = twice.errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["stream[gate].user", "stream[gate].password_file"]);
}

#[test]
fn encoders() {
    for (word, encoder) in
        [("auto", EncoderChoice::Auto), ("vaapi", EncoderChoice::Vaapi), ("v4l2", EncoderChoice::V4l2)]
    {
        let stream = stream(&format!("source = \"test://\"\nencode.encoder = \"{word}\""));
        assert_eq!(stream.encode.encoder, encoder);
    }
    let error = only(read_stream("source = \"test://\"\nencode.encoder = \"vaap\""));
    assert!(error.starts_with("stream[gate].encode.encoder: \"vaap\" is none of"), "{error}");
    assert!(error.ends_with("(help: did you mean \"vaapi\"?)"), "{error}");
}

#[test]
fn pushes() {
    let pushed = |tables: &str| read_stream(&format!("source = \"test://\"\n{tables}"));
    for (tables, errors) in [
        ("[[stream.push]]", vec!["push[0].url: is missing (help: where to: \"rtsp://HOST/PATH\" or"]),
        ("[stream.push]\nurl = \"rtsp://a/b\"", vec!["push: must be tables (help: write [[stream.push]], with two"]),
        ("[[stream.push]]\nurl = \"a/b\"", vec!["push[0].url: is no URL"]),
        (
            "[[stream.push]]\nurl = \"https://a/b\"",
            vec!["push[0].url: streams are not pushed by https:// (help: for WHIP,"],
        ),
        (
            "[[stream.push]]\nurl = \"rtmp://a/b\"",
            vec!["push[0].url: unknown scheme \"rtmp\" (help: did you mean rtsp?)"],
        ),
        ("[[stream.push]]\nurl = \"rtsp:///b\"", vec!["push[0].url: has no host"]),
        (
            "[[stream.push]]\nurl = \"rtsp://a/b\"\npassword_file = \"pw\"",
            vec!["push[0].password_file: there is no user for this password"],
        ),
        (
            "[[stream.push]]\nurl = \"rtsp://u:hunter2@a/b\"\nuser = \"u\"\npassword = \"hunter2\"",
            vec!["push[0].user: the URL names a user, too", "push[0].password: unknown key (help: name a file"],
        ),
        (
            "[[stream.push]]\nurl = \"rtsp://a/b\"\n[[stream.push]]\nurl = \"rtsp://u@a/b\"\n[[stream.push]]\nurl = 5",
            vec![
                "push[1].url: is pushed to already, by a table above",
                "push[2].url: must be a string, not an integer",
            ],
        ),
        (
            "[stream.encode]\nurl = \"rtsp://a/b\"",
            vec!["encode.url: unknown key (help: it belongs in [[stream.push]])"],
        ),
    ] {
        let found = pushed(tables).expect_err(tables);
        assert_eq!(found.errors.len(), errors.len(), "{tables}: {found}");
        for (found, expected) in found.errors.iter().zip(errors) {
            let found = found.to_string();
            assert!(found.starts_with(&format!("stream[gate].{expected}")), "{tables}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
    let stream = pushed("[[stream.push]]\nurl = \"whip+http://10.0.0.9:8889/gate/whip?token=hunter2\"").unwrap();
    assert_eq!(stream.push[0].target.label(), "whip+http://10.0.0.9:8889/gate/whip?token=***");
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
    assert_eq!(parse(twice, Path::new("x.toml")).unwrap_err().to_string(), "x.toml:3: duplicate key");
}

#[test]
fn a_byte_order_mark_is_no_error() {
    let dir = folder();
    let text = "\u{feff}model.path = \"m.onnx\"\n[[stream]]\nname = \"a\"\nsource = \"test://\"\n";
    assert!(read(dir.path(), text).is_ok());
}

/// The configurations in `pipelines/` are valid where the files that they name are there.
#[test]
fn shipped_pipelines() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["pipelines/gate.password", "models/street.onnx", ".demo/vtest.avi"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "hunter2\n").unwrap();
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for (name, streams) in [("demo", 1), ("webcam", 1), ("rtsp", 1), ("many-cameras", 4), ("recording", 2)] {
        let text = std::fs::read_to_string(shipped.join(name).with_extension("toml")).unwrap();
        let path = dir.path().join("pipelines").join(name).with_extension("toml");
        std::fs::write(&path, &text).unwrap();
        let config = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.streams.len(), streams, "{name}");
    }
    // What the RTSP example explains in comments is valid, too.
    let path = dir.path().join("pipelines/rtsp.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("# user =", "user =").replace("# password_file =", "password_file =");
    let text = text.replace("# [[stream.push]]", "[[stream.push]]").replace("# url =", "url =");
    let config = parse(&text, &path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.streams[0].source.credentials.as_ref().unwrap().password.expose(), "hunter2");
    assert_eq!(config.streams[0].push[0].target.label(), "rtsp://192.0.2.9/gate");
}

fn server(dir: &Path, text: &str) -> Result<ServerConfig, ConfigErrors> {
    let text = format!("[model]\npath = \"m.onnx\"\n[server]\n{text}\n[[stream]]\nname = \"a\"\nsource = \"test://\"");
    read(dir, &text).map(|config| config.server)
}

const USERS: &str = "[[token]]\nname = \"hub\"\nrole = \"viewer\"\n\
    sha256 = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\n";

fn write_users(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_open_listener_without_users_is_refused() {
    let dir = folder();
    for key in ["http", "rtsp"] {
        for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            let text = format!("{key} = \"{address}\"");
            let error = only(server(dir.path(), &text));
            assert!(error.starts_with(&format!("server.{key}: {address} is open to the network")), "{error}");
            assert!(error.contains("maskcast user add") && error.contains("allow_anonymous = true"), "{error}");
            let open = server(dir.path(), &format!("{text}\nallow_anonymous = true")).unwrap();
            assert!(!open.guards_rtsp());
            // From a network nobody may change anything without saying who they are.
            assert_eq!(open.anonymous(), Some(if key == "http" { Role::Viewer } else { Role::Operator }));
        }
    }
    let local = server(dir.path(), "http = \"[::1]:80\"\nrtsp = \"127.0.0.2:81\"").unwrap();
    assert_eq!((local.anonymous(), local.guards_rtsp()), (Some(Role::Operator), false));
}

#[test]
fn users_are_read_from_beside_the_configuration_or_from_where_it_says() {
    let dir = folder();
    write_users(&dir.path().join("users.toml"), USERS);
    let found = server(dir.path(), "http = \"0.0.0.0:80\"\nrtsp = \"0.0.0.0:81\"").unwrap();
    assert_eq!(found.users.tokens[0].name, "hub");
    assert_eq!((found.anonymous(), found.guards_rtsp()), (None, true));
    // Also on this machine: with users, everybody is asked.
    let local = server(dir.path(), "").unwrap();
    assert_eq!((local.anonymous(), local.guards_rtsp()), (None, true));
    assert_eq!(server(dir.path(), "allow_anonymous = true").unwrap().anonymous(), Some(Role::Viewer));

    write_users(&dir.path().join("others.toml"), "");
    assert!(server(dir.path(), "users = \"others.toml\"").unwrap().users.is_empty());
    let error = only(server(dir.path(), "users = \"absent.toml\""));
    assert!(
        error.starts_with("server.users: no such file (help: make it with `maskcast user add NAME --users "),
        "{error}"
    );
    // A broken file is one error, and nobody is let in because of it.
    write_users(&dir.path().join("users.toml"), "[[user]]\nname = \"anna\"\nrole = \"viewer\"\npassword = \"hunter2\"");
    let error = only(server(dir.path(), "http = \"0.0.0.0:80\""));
    assert!(
        error.contains("users.toml: user \"anna\": password is no Argon2 hash") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn the_users_file_is_found_in_a_configuration_that_cannot_be_used_without_it() {
    let dir = folder();
    let path = dir.path().join("maskcast.toml");
    let found = |text: &str| {
        std::fs::write(&path, text).unwrap();
        users_file(&path)
    };
    assert_eq!(found("[server]\nhttp = \"0.0.0.0:80\"").unwrap(), dir.path().join("users.toml"));
    assert_eq!(found("server.users = \"a/u.toml\"").unwrap(), dir.path().join("a/u.toml"));
    assert_eq!(found("server.users = \"/srv/u.toml\"").unwrap(), Path::new("/srv/u.toml"));
    assert!(found("[server").unwrap_err().contains("maskcast.toml"));
}

#[test]
fn tls_hosts_and_api_sources() {
    let dir = folder();
    let text = "hosts = [\"Cameras.example.org.\"]\napi_sources = [\"127.0.0.1\"]\n[server.tls]\ncert = \"pw\"\nkey = \"crlf\"";
    let read = server(dir.path(), text).unwrap();
    assert_eq!(read.hosts, ["cameras.example.org"]);
    assert_eq!(read.tls, Some(TlsConfig { cert: dir.path().join("pw"), key: dir.path().join("crlf") }));
    let errors =
        server(dir.path(), "hosts = [\"http://a\"]\napi_sources = [\"rstp\"]\n[server.tls]\ncert = \"absent\"\nca = 1");
    let errors: Vec<String> = errors.unwrap_err().errors.iter().map(ToString::to_string).collect();
    for (error, start) in errors.iter().zip([
        "server.hosts[0]: \"http://a\" is not the name of a host",
        "server.api_sources[0]: \"rstp\" is neither a scheme nor an address (help: did you mean rtsp?)",
        "server.tls.key: is missing",
        "server.tls.cert: no such file",
        "server.tls.ca: unknown key",
    ]) {
        assert!(error.starts_with(start), "{error}");
    }
    assert_eq!(errors.len(), 5);
}

/// `text` below `[stream.record]` with a folder.
fn read_record(text: &str) -> Result<RecordConfig, ConfigErrors> {
    let text = format!("source = \"test://\"\n[stream.record]\ndir = \"/srv/gate\"\n{text}");
    read_stream(&text).map(|stream| stream.record.unwrap())
}

#[test]
fn recordings_are_unlimited_files_of_ten_minutes_by_default() {
    assert_eq!(read_record("").unwrap(), RecordConfig::to("/srv/gate"));
    let event = read_record("[[stream.record.event]]\nclasses = [\"car\"]").unwrap();
    assert_eq!((event.when, event.events), (When::Always, vec![EventConfig::of("event", &["car"])]));
}

#[test]
fn sizes_of_recordings() {
    for (written, bytes) in [("\"500MB\"", 500_000_000), ("\"1.5 GiB\"", 3 << 29), ("200000", 200_000)] {
        assert_eq!(read_record(&format!("max_size = {written}")).unwrap().max_size, Some(bytes), "{written}");
    }
    let help = "(help: write \"500MB\", \"50GB\" or a number of bytes)";
    for (written, problem) in [
        ("\"much\"", format!("\"much\" is not a size {help}")),
        ("\"5 parsecs\"", format!("\"5 parsecs\" is not a size {help}")),
        ("\"1kB\"", format!("1kB is not between 100.0 kB and 1.2 EB {help}")),
        ("-5", format!("-5 bytes is not between 100.0 kB and 1.2 EB {help}")),
        ("true", format!("must be a size, not a boolean {help}")),
    ] {
        let error = only(read_record(&format!("min_free = {written}")));
        assert_eq!(error, format!("stream[gate].record.min_free: {problem}"));
    }
}

#[test]
fn limits_of_recordings_that_cannot_be_kept_are_refused() {
    for (text, error) in [
        ("segment = \"0s\"", "segment: 0s is not between 1s and 1d"),
        ("max_age = \"5s\"", "max_age: 5s is not between 1m and 36600d"),
        ("segment_size = \"1GB\"\nmax_size = \"900MB\"", "max_size: is less than segment_size"),
        ("when = \"event\"", "when: there is no event to wait for"),
        ("when = \"sometimes\"", "when: \"sometimes\" is none of \"always\", \"event\""),
        ("event = 7", "event: must be an array, not an integer"),
        ("[stream.record.event]\nclasses = [\"car\"]", "event: is a single table"),
    ] {
        let found = only(read_record(text));
        assert!(found.starts_with(&format!("stream[gate].record.{error}")), "{found}");
    }
}

#[test]
fn events_that_cannot_happen_are_refused() {
    for (text, error) in [
        ("name = \"in\"", "classes: is missing"),
        ("classes = []", "classes: must not be empty"),
        ("classes = [\"car\", 5]", "classes[1]: must be a string, not an integer"),
        ("classes = [\"car\"]\nname = \"2nd\"", "name: \"2nd\" is not a letter and after it"),
        ("classes = [\"car\"]\nname = \"a/b\"", "name: \"a/b\" is not a letter and after it"),
        ("classes = [\"car\"]\nshare = 0", "share: 0 is not between 0.0001 and 1"),
        ("classes = [\"car\"]\nzone = [[0, 0], [1, 1]]", "zone: has 2 corners, fewer than 3"),
        ("classes = [\"car\"]\nzone = [[0, 0], [1, 1], [0.5]]", "zone[2]: has 1 numbers, not 2"),
        ("classes = [\"car\"]\nzone = [[0, 0], [1, 0], [1, 1.5]]", "zone[2][1]: 1.5 is not between 0 and 1"),
        ("classes = [\"car\"]\nzone = [[0, 0], [0.5, 0.5], [1, 1]]", "zone: covers nothing"),
        ("classes = [\"car\"]\npre_roll = \"5m\"", "pre_roll: 5m is not between 0s and 1m"),
        ("classes = [\"car\"]\nduration = 5", "duration: unknown key"),
    ] {
        let found = only(read_record(&format!("[[stream.record.event]]\n{text}")));
        assert!(found.starts_with(&format!("stream[gate].record.event[0].{error}")), "{found}");
    }
    let twice = "[[stream.record.event]]\nname = \"a\"\nclasses = [\"car\"]\n".repeat(2);
    let found = only(read_record(&twice));
    assert!(found.starts_with("stream[gate].record.event[1].name: \"a\" is the name of an event above"), "{found}");
}
