//! Which encoder a machine gets, and that it is told why: in the log, by `doctor`, and where the configuration asks for
//! one that does not work.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::program::{maskcast, run, tool};
use common::service::{Service, folder, write_config};
use serde_json::Value;

const STREAM: &str = "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n";

/// The plugins with encoders that need a device. Hidden, every machine is like one without such devices.
const DEVICE_PLUGINS: [&str; 5] =
    ["libgstnvcodec.so", "libgstva.so", "libgstvaapi.so", "libgstnvvideo4linux2.so", "libgstvideo4linux2.so"];

/// A command that sees GStreamer's plugins, except [`DEVICE_PLUGINS`] and `without`.
fn hide_plugins<'a>(command: &'a mut Command, folder: &Path, without: &[&str]) -> &'a mut Command {
    let seen = folder.join("plugins");
    if !seen.exists() {
        let plugins = tool("pkg-config", ["--variable=pluginsdir", "gstreamer-1.0"]).text();
        std::fs::create_dir(&seen).unwrap();
        for entry in std::fs::read_dir(&plugins).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".so") && !without.contains(&name) && !DEVICE_PLUGINS.contains(&name) {
                symlink(&path, seen.join(name)).unwrap();
            }
        }
    }
    command.env("GST_PLUGIN_SYSTEM_PATH_1_0", &seen).env("GST_REGISTRY_1_0", folder.join("registry.bin"))
}

/// `doctor`'s findings on encoders: verdict and text.
fn doctor(command: &mut Command) -> Vec<(String, String)> {
    let ended = run(command);
    let report: Value = serde_json::from_str(&ended.text()).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let findings = report["findings"].as_array().unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_string();
    let encoders = findings.iter().filter(|finding| finding["topic"] == "encoder");
    encoders.map(|finding| (text(finding, "verdict"), text(finding, "text"))).collect()
}

#[test]
fn doctor_and_log_say_which_encoder_works_and_which_were_skipped() {
    let folder = folder();
    let config = write_config(folder.path(), STREAM);
    let hidden = tempfile::tempdir().unwrap();
    let mut command = maskcast();
    let found = doctor(hide_plugins(command.args(["doctor", "--json"]).arg(&config), hidden.path(), &[]));
    let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(verdict, "ok");
    assert!(text.starts_with("x264 (x264enc); skipped: nvenc (GStreamer has no nvh264enc here"), "{text}");
    assert!(text.contains("vaapi (") && text.contains("v4l2 ("), "{text}");
    // With the plugins and devices of this machine, whichever they are: `doctor` and the log agree.
    let found = doctor(maskcast().args(["doctor", "--json"]).arg(&config));
    let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(verdict, "ok");
    let printed = run(maskcast().arg("doctor").arg(&config)).text();
    assert!(printed.lines().any(|line| line.starts_with("ok    encoder") && line.ends_with(text)), "{printed}");
    let service = Service::ready(folder.path(), STREAM);
    let (_, _, log) = service.terminate();
    let (chosen, _) = text.split_once(';').unwrap_or((text, ""));
    let said = log.lines().filter(|line| line.contains(&format!("H.264 encoder {chosen}\""))).count();
    assert_eq!((said, log.contains("; skipped: ")), (1, false), "shortly: {log}");
}

#[test]
fn without_x264_openh264_takes_its_place() {
    let folder = folder();
    let mut command = maskcast();
    let found = doctor(hide_plugins(command.args(["doctor", "--json"]), folder.path(), &["libgstx264.so"]));
    let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
    assert!(verdict == "ok" && text.starts_with("openh264 (openh264enc); skipped: nvenc"), "{text}");
    assert!(text.contains("x264 (GStreamer has no x264enc here: it needs gstreamer1.0-plugins-ugly)"), "{text}");
}

#[test]
fn a_configured_encoder_that_does_not_work_is_named_with_its_key() {
    let folder = folder();
    for (encoder, what) in [("nvenc", "NVIDIA"), ("vaapi", "/dev/dri/renderD"), ("v4l2", "/dev/video")] {
        let config = write_config(folder.path(), &format!("{STREAM}encode.encoder = \"{encoder}\"\n"));
        for command in ["run", "check"] {
            let mut started = maskcast();
            let ended = run(hide_plugins(started.arg(command).arg(&config), folder.path(), &[]));
            assert_eq!(ended.code, Some(1), "{command}: {}", ended.stderr);
            let error = ended.stderr.lines().last().unwrap_or_default();
            let key = format!("stream[gate].encode.encoder: the encoder does not work on this machine: {encoder}: ");
            assert!(error.contains(&key) && error.contains(what) && error.contains("\"auto\""), "{}", ended.stderr);
        }
        let mut command = maskcast();
        let found = doctor(hide_plugins(command.args(["doctor", "--json"]).arg(&config), folder.path(), &[]));
        assert!(found.len() == 1 && found[0].0 == "bad", "{found:?}");
    }
}

#[test]
fn a_stream_is_encoded_by_the_encoder_and_settings_that_it_asks_for() {
    let folder = folder();
    let settings =
        "encode = { encoder = \"openh264\", bitrate = 600, preset = \"medium\", keyframe_interval = \"1s\" }\n";
    let service = Service::ready(folder.path(), &format!("{STREAM}{settings}"));
    let mut viewer = common::rtsp::Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    for _ in 0..10 {
        viewer.next();
    }
    assert!(service.metrics().stage("gate", "encode") >= 10.0);
    let (_, _, log) = service.terminate();
    assert!(log.contains("H.264 encoder openh264 (openh264enc)") && !log.contains("ERROR"), "{log}");
}
