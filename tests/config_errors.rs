//! What is wrong with a configuration is said at once, each error in a line with its key; exit code 78.

mod common;

use std::path::Path;

use common::program::{Ended, maskcast, run};
use common::service::{folder, write_config};

/// `maskcast run` and `maskcast check` must say the same.
fn both(config: &Path) -> [Ended; 2] {
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
    for ended in both(&config) {
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
fn a_file_that_is_no_toml_or_not_there_is_named() {
    let folder = folder();
    let config = folder.path().join("broken.toml");
    std::fs::write(&config, "[model\npath = 1\n").unwrap();
    for ended in both(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.lines().all(|line| line.contains("broken.toml:1:")), "{}", ended.stderr);
    }
    for ended in both(&folder.path().join("missing.toml")) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("missing.toml") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[test]
fn a_label_that_the_model_does_not_have_is_named_with_its_key() {
    let folder = folder();
    let config = write_config(
        folder.path(),
        "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\noverlay = { hide = [\"gren\"], colors = { sky = \"#0000ff\" } }\n",
    );
    for ended in both(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        // A run has told by then where it listens.
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("maskcast: ")).collect();
        assert_eq!(lines.len(), 2, "{}", ended.stderr);
        for (key, words) in
            [("stream[gate].overlay.hide", ["gren", "green"]), ("stream[gate].overlay.colors", ["sky", "blue"])]
        {
            let line = lines.iter().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {lines:?}"));
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}

#[test]
fn check_also_says_what_a_run_would_find_out_later() {
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
        ("stream[null].source", "no video device"),
        ("stream[odd].source", "nonsense"),
    ];
    assert_eq!(lines.len(), wanted.len(), "{}", ended.stderr);
    for (line, (key, words)) in lines.iter().zip(wanted) {
        assert!(line.contains(&format!(" {key}: ")) && line.contains(words), "{key}: {line}");
    }

    // The service would run, and not record.
    let config = write_config(folder.path(), &stream("gate", &ball("record.dir = \"/proc/nonsense\"")));
    let ended = run(maskcast().arg("check").arg(&config));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        said.contains("see the warning") && said.contains("stream[gate].record.dir: /proc/nonsense cannot"),
        "{said}"
    );

    std::fs::write(&config, "[[stream]]\nname = \"a\"\nname = \"b\"\nsource = \"test://\"\n").unwrap();
    for ended in both(&config) {
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
    for ended in both(&config) {
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        // Before it is known, the log says where the service listens.
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("maskcast: ")).collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains("model.path: ") && lines[0].contains("channels.onnx"), "{}", ended.stderr);
    }
}

#[test]
fn a_log_filter_that_is_none_is_wrong_use() {
    for command in [["doctor", "--json"], ["model", "show"]] {
        let ended = run(maskcast().args(command).arg("x").env("MASKCAST_LOG", "maskcast=loud=very"));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("MASKCAST_LOG") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[test]
fn wrong_use_is_exit_code_2_and_help_is_no_error() {
    for wrong in [&["run"][..], &["walk"], &["run", "a.toml", "b.toml"], &["segment", "a.mp4"], &[]] {
        let ended = run(maskcast().args(wrong));
        assert_eq!(ended.code, Some(2), "{wrong:?}: {}", ended.stderr);
    }
    for right in [&["--help"][..], &["--version"], &["run", "--help"], &["segment", "--help"], &["completions", "bash"]]
    {
        let ended = run(maskcast().args(right));
        assert!(ended.code == Some(0) && ended.stderr.is_empty() && !ended.stdout.is_empty(), "{right:?}: {ended:?}");
    }
}

/// The configurations in `pipelines/` are valid, the demo's with the clip that it plays.
#[test]
fn the_examples_are_good() {
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

/// As before `make demo` has fetched the clip.
#[test]
fn the_demo_without_its_clip_names_the_missing_file() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/demo.toml");
    let text = std::fs::read_to_string(demo).unwrap();
    let folder = folder();
    std::fs::create_dir(folder.path().join("pipelines")).unwrap();
    let copy = folder.path().join("pipelines/demo.toml");
    std::fs::write(&copy, text).unwrap();
    let ended = run(maskcast().arg("check").arg(&copy));
    assert!(ended.code == Some(78) && ended.stderr.contains("vtest.avi"), "{:?}: {}", ended.code, ended.stderr);
}
