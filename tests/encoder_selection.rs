//! Selection of the encoder, and how it is reported: in the log, by `doctor`, and as an error when the configured encoder
//! does not work.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::program::{maskcast, run, tool};
use common::service::{Service, folder, write_config};
use serde_json::Value;

const STREAM: &str = "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n";

/// Plugins with encoders that need a device. The tests hide them, so that the result does not depend on the machine.
const DEVICE_PLUGINS: [&str; 5] =
    ["libgstnvcodec.so", "libgstva.so", "libgstvaapi.so", "libgstnvvideo4linux2.so", "libgstvideo4linux2.so"];

/// Makes GStreamer's plugins available to a command, except [`DEVICE_PLUGINS`] and `without`.
fn hide_plugins<'a>(command: &'a mut Command, folder: &Path, without: &[&str]) -> &'a mut Command {
    let visible = folder.join("plugins");
    if !visible.exists() {
        let plugins = tool("pkg-config", ["--variable=pluginsdir", "gstreamer-1.0"]).text();
        std::fs::create_dir(&visible).unwrap();
        for entry in std::fs::read_dir(&plugins).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".so") && !without.contains(&name) && !DEVICE_PLUGINS.contains(&name) {
                symlink(&path, visible.join(name)).unwrap();
            }
        }
    }
    command.env("GST_PLUGIN_SYSTEM_PATH_1_0", &visible).env("GST_REGISTRY_1_0", folder.join("registry.bin"))
}

/// The findings of `doctor` about encoders: verdict and text.
fn doctor(command: &mut Command) -> Vec<(String, String)> {
    let ended = run(command);
    let report: Value = serde_json::from_str(&ended.text()).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let findings = report["findings"].as_array().unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_string();
    let encoders = findings.iter().filter(|finding| finding["topic"] == "encoder");
    encoders.map(|finding| (text(finding, "verdict"), text(finding, "text"))).collect()
}

#[test]
fn doctor_and_log_report_the_selected_encoder_and_the_rejected_ones() {
    let folder = folder();
    let config = write_config(folder.path(), STREAM);
    let hidden = tempfile::tempdir().unwrap();
    let mut command = maskcast();
    let found = doctor(hide_plugins(command.args(["doctor", "--json"]).arg(&config), hidden.path(), &[]));
    let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(verdict, "ok");
    assert!(text.starts_with("x264 (x264enc); skipped: nvenc (GStreamer has no nvh264enc here"), "{text}");
    assert!(text.contains("vaapi (") && text.contains("v4l2 ("), "{text}");
    // With the plugins and devices of this machine, `doctor` and the log must agree.
    let found = doctor(maskcast().args(["doctor", "--json"]).arg(&config));
    let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(verdict, "ok");
    let printed = run(maskcast().arg("doctor").arg(&config)).text();
    assert!(printed.lines().any(|line| line.starts_with("ok    encoder") && line.ends_with(text)), "{printed}");
    let service = Service::ready(folder.path(), STREAM);
    let (_, _, log) = service.terminate();
    let (chosen, _) = text.split_once(';').unwrap_or((text, ""));
    let lines = log.lines().filter(|line| line.contains(&format!("H.264 encoder {chosen}\""))).count();
    assert_eq!((lines, log.contains("; skipped: ")), (1, false), "one short line in the log: {log}");
}

#[test]
fn openh264_is_selected_when_x264_is_missing() {
    let folder = folder();
    let mut command = maskcast();
    let found = doctor(hide_plugins(command.args(["doctor", "--json"]), folder.path(), &["libgstx264.so"]));
    let [(verdict, text)] = &found[..] else { panic!("{found:?}") };
    assert!(verdict == "ok" && text.starts_with("openh264 (openh264enc); skipped: nvenc"), "{text}");
    assert!(text.contains("x264 (GStreamer has no x264enc here: it needs gstreamer1.0-plugins-ugly)"), "{text}");
}

#[test]
fn the_error_for_an_unusable_encoder_names_its_key() {
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
fn a_stream_uses_its_configured_encoder_and_settings() {
    let folder = folder();
    let settings =
        "encode = { encoder = \"openh264\", bitrate = 600, preset = \"medium\", keyframe_interval = \"1s\" }\n";
    let service = Service::ready(folder.path(), &format!("{STREAM}{settings}"));
    let mut viewer = common::rtsp::Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    for _ in 0..10 {
        viewer.next();
    }
    assert!(service.metrics().stage("gate", "encode") >= 10.0);
    let encode = common::wait::until("the bitrate is measured", || {
        Some(service.stream("gate")["h264"].clone()).filter(|encode| encode["bitrate"].is_u64())
    });
    assert_eq!(
        (encode["encoder"].as_str(), encode["rate_control"].as_str(), encode["bitrate_limit"].as_u64()),
        (Some("openh264"), Some("constant"), Some(600)),
        "{encode}"
    );
    assert!(service.metrics().sum("maskcast_encoded_bytes_total", &[("stream", "gate")]) > 0.0);
    assert_eq!(service.metrics().sum("maskcast_encode_limit_bits_per_second", &[("stream", "gate")]), 600_000.0);
    let (_, _, log) = service.terminate();
    assert!(log.contains("H.264 encoder openh264 (openh264enc)") && !log.contains("ERROR"), "{log}");
}
