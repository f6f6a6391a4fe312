//! The loader as a whole: what a valid file means, and that every error of a broken one is found at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::load::parse_with;
use super::*;
use crate::frame::Weight;
use crate::sink::{KeyValue, MASK_SINKS, SinkSettings};
use crate::users::Role;

mod errors;
mod model;
mod mqtt;
mod record;
mod rule;
mod server;
mod settings;
mod streams;
mod webhook;

/// A folder with the files that the configurations below name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let authority = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, content) in [
        ("m.onnx", ""),
        ("clip.avi", ""),
        ("pw", "hunter2\n"),
        ("crlf", " hunter2 \r\nsecond line\r\n"),
        ("empty", ""),
        ("blank", " \nhunter2\n"),
        ("ca.pem", authority),
    ] {
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
    read(dir.path(), &text).map(|mut config| config.models.remove(0))
}

/// The only error, without file and line.
fn only<T: std::fmt::Debug>(result: Result<T, ConfigErrors>) -> String {
    let errors = result.unwrap_err();
    assert_eq!(errors.errors.len(), 1, "{errors}");
    errors.errors[0].to_string()
}

#[test]
fn a_minimal_file_has_the_defaults() {
    let dir = folder();
    let config =
        read(dir.path(), "model.path = \"m.onnx\"\n[[stream]]\nname = \"a\"\nsource = \"clip.avi\"\n").unwrap();
    let clip = SourceSpec::new(SourceUri::File(dir.path().join("clip.avi")));
    assert_eq!(config.streams, [defaults_stream("a", clip.clone())]);
    assert_eq!(config.server, ServerConfig::default());
    let mut model = ModelConfig::with_path(dir.path().join("m.onnx"));
    model.cache_dir = Some("/var/cache/maskcast".into());
    assert_eq!(config.models, [model]);
    assert_eq!(config.streams[0].show, Show::FullRate);
    assert_eq!(defaults_stream("a", SourceSpec { real_time: false, ..clip }).show, Show::Matched);
}

#[test]
fn every_key_is_read() {
    let dir = folder();
    let text = r##"
[[model]]
name = "yard"
path = "m.onnx"
providers = ["cuda", "cpu"]
require = "gpu"
threads = 4
workers = 2
max_batch = 0x10
device = [1, 0]
cache_dir = "cache"
runtime = "pw"
previous = "before.onnx"
[server]
allow_anonymous = true
http = "0.0.0.0:80"
rtsp = "localhost:0"
[mqtt]
url = "mqtts://broker.lan"
user = "cameras"
password_env = "GATE_PASSWORD"
version = 5
ca = "ca.pem"
client_id = "gate"
prefix = "site/maskcast"
every = "250ms"
deadband = 0.01
discovery = "ha"
discovery_classes = ["car"]
snapshots = false
snapshot_every = "5m"
queue_size = 500
queue_dir = "state"
[[stream]]
name = "gate-1_A"
source = "rtsp://10.0.0.7/stream1"
model = "yard"
user = "viewer"
password_file = "pw"
transport = "udp"
latency = 0.25
show = "matched"
masks = "always"
mask_rate = "auto"
gate = "off"
priority = 7
crop = [0, 0.25, 0.5, 0.75]
tiles = "3x2"
max_mask_age = 2
max_latency = "700ms"
silence_timeout = "1m"
[stream.drift]
window = "30s"
settle = "1h"
[stream.overlay]
style = "contour"
alpha = 1
smooth = "strong"
hide = ["sky", "road"]
legend = false
colors = { car = "#FF8000", "traffic light" = [1, 2, 3] }
weights = { car = 1, sky = 0.2 }
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
[[stream.zone]]
name = "Loading bay"
polygon = [[0, 0], [0.5, 0], [0.5, 1]]
[[stream.rule]]
name = "blocked"
classes = ["car"]
zone = "Loading bay"
when = "below"
share = 0.4
for = "30s"
cooldown = "5m"
record = true
pre_roll = "1s"
post_roll = "2s"
[[stream.rule]]
name = "gone"
classes = ["person"]
when = "absent"
[[stream.push]]
url = "rtsps://cam@media.example/gate"
password_file = "pw"
[[stream.push]]
url = "whip+https://media.example/whip/gate?x=hunter2"
password_env = "GATE_PASSWORD"
[[stream.sink]]
type = "jsonl"
path = "masks/gate.jsonl"
every = "1s"
[[stream]]
name = "clip"
source = "file:clip.avi"
loop = true
speed = "max"
[[webhook]]
name = "alarm"
url = "https://hooks.example/x"
secret_file = "pw"
streams = ["clip"]
rules = ["gone"]
timeout = "20s"
"##;
    let config = read(dir.path(), text).unwrap();
    let mut source = SourceSpec::parse("rtsp://10.0.0.7/stream1", dir.path()).unwrap();
    source.transport = Transport::Udp;
    source.latency = Duration::from_millis(250);
    source.credentials = Some(Credentials { user: "viewer".into(), password: Secret::new("hunter2") });
    let mut clip = SourceSpec::parse("clip.avi", dir.path()).unwrap();
    (clip.looped, clip.real_time) = (true, false);
    let expected = Config {
        models: vec![ModelConfig {
            name: "yard".into(),
            path: dir.path().join("m.onnx"),
            providers: vec![Provider::Cuda, Provider::Cpu],
            providers_named: true,
            require: Require::Gpu,
            threads: 4,
            workers: 2,
            max_batch: 16,
            device: serde_json::from_str("[1, 0]").unwrap(),
            cache_dir: Some(dir.path().join("cache")),
            runtime: Some(dir.path().join("pw")),
            previous: Some(dir.path().join("before.onnx")),
        }],
        server: ServerConfig {
            http: "0.0.0.0:80".parse().unwrap(),
            rtsp: "127.0.0.1:0".parse().unwrap(),
            allow_anonymous: true,
            ..ServerConfig::default()
        },
        history: HistoryConfig::default(),
        mqtt: Some(MqttConfig {
            broker: Broker { host: "broker.lan".into(), port: 8883, is_tls: true },
            credentials: Some(Credentials { user: "cameras".into(), password: Secret::new("hunter2") }),
            version: 5,
            ca: Some(dir.path().join("ca.pem")),
            client_id: Some("gate".into()),
            prefix: "site/maskcast".into(),
            every: Duration::from_millis(250),
            deadband: 0.01,
            discovery: "ha".into(),
            discovery_classes: Some(vec!["car".into()]),
            snapshots: false,
            snapshot_every: Duration::from_secs(300),
            queue_size: 500,
            queue_dir: Some(dir.path().join("state")),
        }),
        streams: vec![
            StreamConfig {
                name: "gate-1_A".into(),
                source,
                model: "yard".into(),
                show: Show::Matched,
                masks: MasksWhen::Always,
                mask_rate: MaskRate::Auto,
                gate: MotionGate::Off,
                priority: 7,
                crop: CropArea::parse("0,0.25,0.5,0.75").unwrap(),
                tiles: TileGrid::parse("3x2").unwrap(),
                max_mask_age: Duration::from_secs(2),
                max_latency: Duration::from_millis(700),
                silence_timeout: Duration::from_secs(60),
                overlay: OverlayConfig {
                    style: Style::Contour,
                    alpha: 1.0,
                    smooth: Smooth::Strong,
                    hide: Some(vec!["sky".into(), "road".into()]),
                    legend: Legend::Off,
                    colors: vec![("car".into(), Rgb(255, 128, 0)), ("traffic light".into(), Rgb(1, 2, 3))],
                    weights: vec![("car".into(), Weight::FULL), ("sky".into(), Weight::try_from(0.2).unwrap())],
                },
                encode: EncodeConfig {
                    encoder: EncoderChoice::X264,
                    bitrate: 2000,
                    preset: "veryfast".into(),
                    keyframe_interval: Duration::from_millis(500),
                    jpeg_quality: 95,
                },
                drift: DriftConfig { window: Duration::from_secs(30), settle: Duration::from_secs(3600) },
                zones: vec![ZoneConfig {
                    name: "Loading bay".into(),
                    polygon: vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]],
                }],
                rules: vec![
                    RuleConfig {
                        zone: Some("Loading bay".into()),
                        when: Condition::Below,
                        share: 0.4,
                        release: 0.4 * 1.5,
                        hold: Duration::from_secs(30),
                        cooldown: Duration::from_secs(300),
                        record: true,
                        pre_roll: Duration::from_secs(1),
                        post_roll: Duration::from_secs(2),
                        ..RuleConfig::of("blocked", &["car"])
                    },
                    RuleConfig {
                        when: Condition::Absent,
                        hold: Duration::from_secs(60),
                        ..RuleConfig::of("gone", &["person"])
                    },
                ],
                redact: None,
                collect: None,
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
                sinks: vec![SinkConfig {
                    kind: MASK_SINKS.iter().find(|kind| kind.name == "jsonl").unwrap(),
                    settings: SinkSettings(BTreeMap::from([
                        ("path", KeyValue::File(dir.path().join("masks/gate.jsonl"))),
                        ("every", KeyValue::Duration(Duration::from_secs(1))),
                    ])),
                }],
            },
            StreamConfig { model: "yard".into(), ..defaults_stream("clip", clip) },
        ],
        webhooks: vec![WebhookConfig {
            secret: WebhookSecret(Some(Secret::new("hunter2"))),
            streams: vec!["clip".into()],
            rules: vec!["gone".into()],
            timeout: Duration::from_secs(20),
            ..WebhookConfig::new("alarm", "https://hooks.example/x".parse().unwrap())
        }],
    };
    assert_eq!(config, expected);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_byte_order_mark_is_not_an_error() {
    let dir = folder();
    let text = "\u{feff}model.path = \"m.onnx\"\n[[stream]]\nname = \"a\"\nsource = \"test://\"\n";
    assert!(read(dir.path(), text).is_ok());
}

/// The configurations in `pipelines/` are valid where the files that they name are there.
#[test]
fn shipped_pipelines() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["pipelines/gate.password", "models/everyday.onnx", ".demo/vtest.avi", ".demo/indoors.mp4"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "hunter2\n").unwrap();
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for (name, streams) in [("demo", 2), ("webcam", 1), ("rtsp", 1), ("many-cameras", 4), ("recording", 2)] {
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
    // So is the sink of the example of many cameras.
    let path = dir.path().join("pipelines/many-cameras.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = ["[[stream.sink]]", "type = \"jsonl\"", "path = \"east.jsonl\"", "every = \"1s\""];
    let text = lines.iter().fold(text, |text, line| text.replace(&format!("# {line}"), line));
    let config = parse(&text, &path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.streams[1].sinks[0].label(), dir.path().join("pipelines/east.jsonl").display().to_string());
}
