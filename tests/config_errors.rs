//! Errors of a configuration: all are reported at once, each in a line with its key, with exit code 78.
//! Also the JSON Schema and the documentation of the configuration.

mod common;

use std::path::Path;

use common::program::{Ended, maskcast, run};
use common::service::{folder, write_config};
use jsonschema::Validator;
use serde_json::Value as Json;

/// Runs `maskcast run` and `maskcast check`, which must report the same errors.
fn run_and_check(config: &Path) -> [Ended; 2] {
    ["run", "check"].map(|command| run(maskcast().arg(command).arg(config)))
}

#[test]
fn every_error_has_a_line_with_its_key() {
    let folder = folder();
    let config = folder.path().join("broken.toml");
    let text = r##"
[model]
path = "missing.onnx"
providers = ["cpu", "gpu"]
[server]
http = "127.0.0.1"
htpp = "127.0.0.1:8080"
[[stream]]
name = "gate 1"
source = "test://ball"
[[stream]]
name = "door"
source = "rstp://10.0.0.7/stream1"
show = "full"
max_mask_age = "1 fortnight"
[stream.overlay]
alpha = 1.7
colors = { red = "#ff00" }
[[stream]]
name = "door"
source = "file:missing.mp4"
[stream.record]
dir = 7
"##;
    std::fs::write(&config, text).unwrap();
    let keys = [
        "model.path",
        "model.providers",
        "server.http",
        "server.htpp",
        "stream[0].name",
        "stream[door].source",
        "stream[door].show",
        "stream[door].max_mask_age",
        "stream[door].overlay.alpha",
        "stream[door].overlay.colors.red",
        "stream[2].name",
        "stream[2].source",
        "stream[2].record.dir",
    ];
    for ended in run_and_check(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), keys.len(), "{}", ended.stderr);
        for (line, key) in lines.iter().zip(keys) {
            assert!(line.contains("broken.toml:") && line.contains(&format!(" {key}")), "{key}: {line}");
        }
        assert!(ended.stderr.contains("did you mean rtsp?"), "{}", ended.stderr);
    }
}

#[test]
fn the_error_of_an_invalid_or_missing_file_names_it() {
    let folder = folder();
    let config = folder.path().join("broken.toml");
    std::fs::write(&config, "[model\npath = 1\n").unwrap();
    for ended in run_and_check(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.lines().all(|line| line.contains("broken.toml:1:")), "{}", ended.stderr);
    }
    for ended in run_and_check(&folder.path().join("missing.toml")) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("missing.toml") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[test]
fn the_error_of_a_label_that_the_model_lacks_names_its_key() {
    let folder = folder();
    let config = write_config(
        folder.path(),
        "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\noverlay = { hide = [\"gren\"], colors = { sky = \"#0000ff\" }, weights = { rad = 0.5 } }\n",
    );
    for ended in run_and_check(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        // `maskcast run` has logged its addresses before.
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("maskcast: ")).collect();
        assert_eq!(lines.len(), 3, "{}", ended.stderr);
        for (key, words) in [
            ("stream[gate].overlay.hide", ["gren", "green"]),
            ("stream[gate].overlay.colors", ["sky", "blue"]),
            ("stream[gate].overlay.weights", ["rad", "red"]),
        ] {
            let line = lines.iter().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {lines:?}"));
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}

#[test]
fn check_reports_errors_that_a_run_detects_later() {
    let folder = folder();
    let stream = |name: &str, more: &str| format!("[[stream]]\nname = \"{name}\"\n{more}\n");
    let ball = |more: &str| format!("source = \"test://ball\"\n{more}");
    let streams = stream("gate", &ball("show = \"full\"\noverlay.hide = [\"gren\"]"))
        + &stream("null", "source = \"v4l2:///dev/null\"")
        + &stream("odd", "source = \"gst:nonsense ! fakesink\"");
    let ended = run(maskcast().arg("check").arg(write_config(folder.path(), &streams)));
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let wanted = [
        ("stream[gate].show", "full"),
        ("stream[gate].overlay.hide", "did you mean \"green\"?"),
        ("stream[null].source", "not a video device"),
        ("stream[odd].source", "nonsense"),
    ];
    assert_eq!(lines.len(), wanted.len(), "{}", ended.stderr);
    for (line, (key, words)) in lines.iter().zip(wanted) {
        assert!(line.contains(&format!(" {key}: ")) && line.contains(words), "{key}: {line}");
    }

    // The service would run without recording.
    let config = write_config(folder.path(), &stream("gate", &ball("record.dir = \"/proc/nonsense\"")));
    let ended = run(maskcast().arg("check").arg(&config));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert!(
        stdout.contains("see the warning") && stdout.contains("stream[gate].record.dir: /proc/nonsense cannot"),
        "{stdout}"
    );

    std::fs::write(&config, "[[stream]]\nname = \"a\"\nname = \"b\"\nsource = \"test://\"\n").unwrap();
    for ended in run_and_check(&config) {
        assert!(ended.stderr.contains("maskcast.toml:3: name is given twice"), "{}", ended.stderr);
    }
}

#[test]
fn a_damaged_model_is_a_configuration_error() {
    let folder = folder();
    let config = write_config(folder.path(), "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\n");
    let model = folder.path().join("channels.onnx");
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    for ended in run_and_check(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        // `maskcast run` has logged its addresses before.
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("maskcast: ")).collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains("model.path: ") && lines[0].contains("channels.onnx"), "{}", ended.stderr);
    }
}

#[test]
fn an_invalid_log_filter_has_exit_code_2() {
    for command in [["doctor", "--json"], ["model", "show"]] {
        let ended = run(maskcast().args(command).arg("x").env("MASKCAST_LOG", "maskcast=loud=very"));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("MASKCAST_LOG") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[test]
fn invalid_arguments_have_exit_code_2_and_help_has_0() {
    for invalid in [&["run"][..], &["walk"], &["run", "a.toml", "b.toml"], &["segment", "a.mp4"], &[]] {
        let ended = run(maskcast().args(invalid));
        assert_eq!(ended.code, Some(2), "{invalid:?}: {}", ended.stderr);
    }
    for valid in [&["--help"][..], &["--version"], &["run", "--help"], &["segment", "--help"], &["completions", "bash"]]
    {
        let ended = run(maskcast().args(valid));
        assert!(ended.code == Some(0) && ended.stderr.is_empty() && !ended.stdout.is_empty(), "{valid:?}: {ended:?}");
    }
}

/// The configurations in `pipelines/`; that of the demo needs its clip.
#[test]
fn the_example_configurations_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clip = root.join(".demo/vtest.avi");
    assert!(clip.is_file(), "{} is missing: run `make setup-test`", clip.display());
    let mut seen = 0;
    for entry in std::fs::read_dir(root.join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let ended = run(maskcast().arg("check").arg(&path));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.text().starts_with(&format!("{}: good", path.display())), "{}", ended.text());
        let streams = std::fs::read_to_string(&path).unwrap().lines().filter(|line| *line == "[[stream]]").count();
        assert_eq!(ended.text().matches(" -> rtsp://").count(), streams, "{}", ended.text());
    }
    assert!(seen >= 4, "{seen} examples");
}

/// The state before `make demo` has downloaded the clip.
#[test]
fn the_error_of_the_demo_without_its_clip_names_the_file() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/demo.toml");
    let text = std::fs::read_to_string(demo).unwrap();
    let folder = folder();
    std::fs::create_dir(folder.path().join("pipelines")).unwrap();
    let copy = folder.path().join("pipelines/demo.toml");
    std::fs::write(&copy, text).unwrap();
    let ended = run(maskcast().arg("check").arg(&copy));
    assert!(ended.code == Some(78) && ended.stderr.contains("vtest.avi"), "{:?}: {}", ended.code, ended.stderr);
}

/// The validator of the schema that the program prints.
fn schema() -> Validator {
    let ended = run(maskcast().arg("schema"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let schema: Json = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// Where the schema refuses a configuration.
fn refused(schema: &Validator, text: &str) -> Vec<String> {
    let value = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    schema.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn the_schema_accepts_the_configurations_that_are_shipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = schema();
    let mut paths: Vec<_> =
        std::fs::read_dir(root.join("pipelines")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.push(root.join("systemd/maskcast.toml"));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(refused(&schema, &text), [""; 0], "{}", path.display());
    }
    // So are the examples in comments.
    let text = std::fs::read_to_string(root.join("systemd/maskcast.toml")).unwrap();
    let is_key =
        |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let uncommented = |line: &str| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line).to_owned() + "\n";
    let text: String = text.lines().map(uncommented).collect();
    assert!(text.contains("\npre_roll = ") || text.contains("\nshare = "), "{text}");
    assert_eq!(refused(&schema, &text), [""; 0]);
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = schema();
    let stream = "[[stream]]\nname = \"a\"\nsource = \"test://\"\n";
    let models = "[[model]]\nname = \"a\"\n[[model]]\nname = \"b\"\ndevice = [0, 1]\n";
    for good in
        [stream.to_owned(), format!("{stream}model = \"b\"\n{models}"), format!("{stream}[model]\nname = \"a\"\n")]
    {
        assert_eq!(refused(&schema, &good), [""; 0], "{good}");
    }
    for (text, place) in [
        ("", ""),
        ("[[stream]]\nname = \"a\"\n", "/stream/0"),
        ("[[stream]]\nname = \"the gate\"\nsource = \"test://\"\n", "/stream/0/name"),
        (&format!("{stream}[stream.overlay]\nalhpa = 1\n"), "/stream/0/overlay"),
        (&format!("{stream}overlay.alpha = 1.7\n"), "/stream/0/overlay/alpha"),
        (&format!("{stream}overlay.style = \"tnit\"\n"), "/stream/0/overlay/style"),
        (&format!("{stream}overlay.colors = {{ car = \"red\" }}\n"), "/stream/0/overlay/colors/car"),
        (&format!("{stream}max_latency = \"soon\"\n"), "/stream/0/max_latency"),
        (&format!("{stream}[stream.record]\n"), "/stream/0/record"),
        (&format!("{stream}[model]\nproviders = [\"cuda\", \"cuda\"]\n"), "/model/providers"),
        (&format!("{stream}[model]\nthreads = -1\n"), "/model/threads"),
        (&format!("{stream}[model]\nthread = 1\n"), "/model"),
        (&format!("{stream}[model]\ndevice = [0, 0]\n"), "/model/device"),
        (&format!("{stream}[[model]]\nname = \"a\"\nthreads = -1\n"), "/model/0/threads"),
        (&format!("{stream}[[model]]\npath = \"a.onnx\"\n"), "/model/0"),
        (&format!("{stream}model = \"the yard\"\n"), "/stream/0/model"),
    ] {
        let errors = refused(&schema, text);
        assert!(errors.len() == 1 && errors[0].starts_with(&format!("{place}: ")), "{text}: {errors:?}");
    }
}

/// `make docs` writes it.
#[test]
fn the_documentation_of_the_configuration_is_current() {
    let ended = run(maskcast().args(["schema", "--markdown"]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(ended.stdout == written.as_bytes(), "{} is stale: run `make docs`", path.display());
}
