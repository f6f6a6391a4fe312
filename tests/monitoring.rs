//! The dashboard and the alert rules use all metrics of the service, and no others.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::http::get;
use common::onnx;
use common::onnx::proto::{ModelProto, StringStringEntryProto};
use common::program::until;
use common::service::{Service, folder};
use maskcast::drift::features::Features;
use maskcast::drift::reference::Reference;
use prost::Message;
use serde_json::Value;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All strings in a JSON document, without escapes.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// The metric names in a text, each with the label matchers in braces after it.
fn selectors(text: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        let word = &rest[start..];
        let (name, rest_of_text) = word.split_at(word.find(|c| !is_name(c)).unwrap_or(word.len()));
        if name.starts_with("maskcast_") || name.starts_with("process_") {
            let labels = rest_of_text.strip_prefix('{').and_then(|labels| Some(labels.split_once('}')?.0));
            found.push((name, labels.unwrap_or_default()));
        }
        rest = rest_of_text;
    }
    found
}

/// Whether a series has this name and the label of `matcher`, and for `label="value"` also the value.
fn matches(series: &str, name: &str, matcher: &str) -> bool {
    let Some(labels) = series.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')) else { return false };
    let label = matcher.split(['=', '!']).next().unwrap();
    let exact = matcher.strip_prefix(label).is_some_and(|rest| rest.starts_with("=\""));
    let wanted = if exact { matcher.to_string() } else { format!("{label}=\"") };
    labels.starts_with(&wanted) || labels.contains(&format!(",{wanted}"))
}

/// Adds a description of training images to the model: of a single grey one.
fn describe_training(path: &Path) {
    let grey = Features { luma: 0.5, contrast: 0.1, sharpness: 0.1, saturation: 0.1, ..Features::default() };
    let reference = serde_json::to_string(&Reference::of(&[grey]).unwrap()).unwrap();
    let mut model = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    model.metadata.push(StringStringEntryProto { key: "maskcast.reference".into(), value: reference });
    onnx::save(&model, path);
}

#[test]
fn dashboard_and_alerts_use_existing_metrics() {
    let folder = folder();
    describe_training(&folder.path().join("channels.onnx"));
    let state = folder.path().join("state");
    let mut service = Service::with(
        folder.path(),
        // No server listens at the push address: the push fails and is counted.
        "[history]\ndir = \"history\"\n\
         [[webhook]]\nname = \"alarm\"\nurl = \"http://127.0.0.1:9/alarm\"\n\
         [[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         [stream.drift]\nwindow = \"3s\"\nsettle = \"3s\"\n\
         [stream.record]\ndir = \"rec\"\nwhen = \"event\"\n\
         [[stream.record.event]]\nname = \"visit\"\nclasses = [\"red\"]\n\
         [[stream.zone]]\nname = \"left\"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n\
         [[stream.rule]]\nname = \"red\"\nclasses = [\"red\"]\nzone = \"left\"\n\
         [[stream.push]]\nurl = \"rtsp://127.0.0.1:9/gate\"\n\
         [[stream.sink]]\ntype = \"jsonl\"\npath = \"masks.jsonl\"\n\
         [stream.collect]\nfolder = \"frames\"\n",
        &[("STATE_DIRECTORY", state.to_str().unwrap())],
    );
    service.program.wait_for_message("ready");
    until("the first window of the camera is complete", || {
        service.metrics().find("maskcast_drift_training_score", &[("stream", "gate")]).filter(|score| *score > 0.0)
    });
    let (status, scrape) = get(&format!("{}metrics", service.page));
    assert_eq!(status, 200, "{scrape}");
    let series: Vec<&str> = scrape.lines().filter(|line| !line.starts_with('#')).collect();
    let families: Vec<&str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_whitespace().next()).collect();

    let rules = file("maskcast.rules.yaml");
    let dashboard: Value = serde_json::from_str(&file("grafana-dashboard.json")).unwrap();
    let texts: Vec<&str> = strings(&dashboard).into_iter().chain([rules.as_str()]).collect();
    let used: BTreeSet<(&str, &str)> = texts.into_iter().flat_map(selectors).collect();
    let names: BTreeSet<&str> = used.iter().map(|(name, _)| *name).collect();
    assert!(names.len() > 15, "only these metric names were found in the files: {names:?}");

    for (name, labels) in used {
        let of_name = |line: &&&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let known = families.contains(&name) || series.iter().any(|line| of_name(&line));
        assert!(known, "the service has no metric {name}:\n{scrape}");
        for matcher in labels.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
            // Prometheus adds these two.
            if ["job", "instance"].iter().any(|label| matcher.starts_with(label)) {
                continue;
            }
            assert!(series.iter().any(|line| matches(line, name, matcher)), "{name} has no {matcher}:\n{scrape}");
        }
    }
    // Every metric is used by the dashboard or a rule.
    let shown = |name: &str| names.contains(name) || names.contains(format!("{name}_bucket").as_str());
    let unused: Vec<&str> = families
        .into_iter()
        .filter(|name| !shown(name) && !["maskcast_frames_in_flight", "maskcast_model_info"].contains(name))
        .collect();
    assert_eq!(unused, Vec::<&str>::new(), "metrics that are neither on the dashboard nor in a rule");
}

/// Even root cannot create a folder in /proc.
#[test]
fn a_recording_that_fails_is_counted() {
    let folder = folder();
    let service = Service::start(
        folder.path(),
        "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         record = { dir = \"/proc/maskcast\" }\n",
    );
    let failures = || service.metrics().sum("maskcast_recording_failures_total", &[("stream", "gate")]);
    until("the failure is counted", || (failures() >= 1.0).then_some(()));
    assert_eq!(service.until_state("gate", "live")["state"], "live", "the stream continues");
}

#[test]
fn names_and_matchers_are_parsed_and_compared() {
    let text = "rate(maskcast_frames_total{stream=~\"$stream\", reason=\"x\"}[5m]) > maskcast_up";
    assert_eq!(selectors(text), [("maskcast_frames_total", "stream=~\"$stream\", reason=\"x\""), ("maskcast_up", "")]);
    let series = "maskcast_frames_total{stream=\"gate\",reason=\"y\"} 1";
    assert!(matches(series, "maskcast_frames_total", "stream=~\"$stream\""));
    assert!(
        matches(series, "maskcast_frames_total", "reason=\"y\"")
            && matches(series, "maskcast_frames_total", "reason!=\"x\"")
    );
    assert!(
        !matches(series, "maskcast_frames_total", "reason=\"x\"")
            && !matches(series, "maskcast_frames_total", "rea=\"y\"")
    );
    assert!(!matches(series, "maskcast_frames", "reason=\"y\""));
}
