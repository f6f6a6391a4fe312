//! Zones and rules with the whole program, on clips with painted shapes of known area and time.

mod common;

use std::path::Path;

use common::clip::{self, Patch};
use common::http::{get_json, send};
use common::program::until;
use common::service::{Service, folder_with_model};
use jiff::Timestamp;
use serde_json::{Value, json};

const SIZE: (usize, usize) = (320, 180);
const FPS: f64 = 25.0;

/// A red rectangle of 80 x 80 pixels at 40, 60, from second 2 to second 5 of 8; otherwise all is blue.
fn paint(path: &Path) {
    let rectangle = Patch { left: 40, top: 60, width: 80, height: 80, color: clip::RED };
    clip::paint_scene(path, SIZE, FPS as usize, 200, "blue", &[(rectangle, 50..125)]);
}

const ZONES: &str = "[[stream.zone]]\nname = \"left\"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n\
                     [[stream.zone]]\nname = \"right \\\"><script>\"\npolygon = [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]\n";

/// The share of the rectangle in the left half.
const LEFT_SHARE: f64 = 80.0 * 80.0 / (160.0 * 180.0);

/// The masks that the sink has written.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn red_in(mask: &Value, zone: &str) -> f64 {
    mask["zones"][zone]["red"].as_f64().unwrap_or(0.0)
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

#[test]
fn shares_are_those_of_the_painted_shapes_and_events_begin_and_end_with_them() {
    let folder = folder_with_model(SIZE.0, SIZE.1);
    paint(&folder.path().join("clip.mp4"));
    let streams = format!(
        "[[stream]]\nname = \"gate\"\nsource = \"file:clip.mp4\"\nshow = \"matched\"\n{ZONES}\
         [[stream.rule]]\nname = \"visit\"\nclasses = [\"red\"]\nzone = \"left\"\nshare = 0.1\nfor = \"1s\"\n\
         [[stream.rule]]\nname = \"entered\"\nclasses = [\"red\"]\nwhen = \"entered\"\nshare = 0.05\nfor = \"200ms\"\n\
         [[stream.rule]]\nname = \"left\"\nclasses = [\"red\"]\nwhen = \"left\"\nshare = 0.05\nfor = \"200ms\"\n\
         [[stream.rule]]\nname = \"elsewhere\"\nclasses = [\"red\"]\nzone = \"right \\\"><script>\"\nshare = 0.0001\nfor = \"0s\"\n\
         [[stream.sink]]\ntype = \"jsonl\"\npath = \"masks.jsonl\"\n"
    );
    let mut service = Service::ready(folder.path(), &streams);
    let began = service
        .program
        .wait_for("the event", |entry| (entry["message"] == "event began: visit").then(|| entry.clone()));
    let active = service.stream("gate");
    let rule = |stream: &Value, name: &str| {
        stream["rules"].as_array().unwrap().iter().find(|rule| rule["name"] == name).unwrap().clone()
    };
    let event = rule(&active, "visit")["event"].clone();
    assert_eq!(event["id"], began["id"], "{event}");
    service.program.wait_for("its end", |entry| (entry["message"] == "event ended: visit").then_some(()));
    let left = service
        .program
        .wait_for("the moment", |entry| (entry["message"] == "event ended: left").then(|| entry.clone()));
    assert_eq!(left["reason"], "cleared");
    let stream = service.until_state("gate", "offline");
    let counts = ["visit", "entered", "left", "elsewhere"].map(|name| rule(&stream, name)["events"].clone());
    assert_eq!(counts, [1, 1, 1, 0].map(Value::from));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");

    let masks = lines(&folder.path().join("masks.jsonl"));
    assert!(masks.len() > 100, "{}", masks.len());
    for mask in &masks {
        let painted = (2.0..5.0 - 0.5 / FPS).contains(&(mask["source_time_s"].as_f64().unwrap() + 0.5 / FPS));
        let expected = if painted { LEFT_SHARE } else { 0.0 };
        let found = red_in(mask, "left");
        assert!((found - expected).abs() < 0.005, "{found}, not {expected}: {mask}");
        assert!(red_in(mask, "right \"><script>") < 0.005, "{mask}");
        let frame = mask["shares"]["red"].as_f64().unwrap_or(0.0);
        assert!((frame - expected / 2.0).abs() < 0.005, "{mask}");
    }
    // The event begins with the first mask that shows the shape, within two frames of the first frame that does.
    let first = masks.iter().find(|mask| red_in(mask, "left") > 0.1).unwrap();
    let difference = time(&event["start"]).duration_since(time(&first["captured"]));
    assert!(difference.unsigned_abs() <= std::time::Duration::from_millis(1), "{event} {first}");
    assert!((first["source_time_s"].as_f64().unwrap() - 2.0).abs() <= 2.0 / FPS, "{first}");
}

#[test]
fn zones_and_rules_are_changed_without_a_restart_of_the_stream() {
    let folder = folder_with_model(SIZE.0, SIZE.1);
    paint(&folder.path().join("clip.mp4"));
    let streams = format!("[[stream]]\nname = \"gate\"\nsource = \"file:clip.mp4\"\nloop = true\n{ZONES}");
    let service = Service::ready(folder.path(), &streams);
    service.until_published("gate", 5);
    let url = format!("{}api/v1/streams/gate", service.page);
    let rule = json!({"name": "sea", "classes": ["blue"], "zone": "top", "share": 0.9, "for": "100ms"});
    let top = json!({"name": "top", "polygon": [[0, 0], [1, 0], [1, 0.25], [0, 0.25]]});
    let before = service.published("gate");
    let patch = json!({ "zone": [top], "rule": [rule] }).to_string();
    let (status, _, body) = send("PATCH", &url, Some(&patch));
    assert_eq!(status, 200, "{body}");
    until("the rule is active", || (service.stream("gate")["rules"][0]["state"] == "active").then_some(()));
    let stream = service.stream("gate");
    assert!(stream["published"].as_u64().unwrap() >= before, "counters start again with a restart: {stream}");
    assert_eq!(stream["zones"], json!([{"name": "top", "shares": {"blue": 1.0}}]));
    let saved = std::fs::read_to_string(folder.path().join("maskcast.toml")).unwrap();
    assert!(saved.contains("\"top\"") && !saved.contains("\"left\""), "{saved}");

    // Errors name the place, and nothing changes.
    for (patch, key) in [
        (json!({ "zone": [] }), "stream[gate].rule[0].zone"),
        (json!({ "rule": [{"name": "x", "classes": ["cat"]}] }), "stream[gate].rule[0].classes"),
        (json!({ "rule": [{"name": "\"><script>", "classes": ["red"]}] }), "stream[gate].rule[0].name"),
        (json!({ "zone": [{"name": "a", "polygon": [[0, 0], [2, 0], [1, 1]]}] }), "stream[gate].zone[0].polygon[1][0]"),
    ] {
        let (status, _, body) = send("PATCH", &url, Some(&patch.to_string()));
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 422, "{body}");
        let keys: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().filter_map(|error| error["key"].as_str()).collect();
        assert!(keys.contains(&key), "{key}: {body}");
    }
    assert_eq!(get_json(&url)["config"]["zone"].as_array().unwrap().len(), 1);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}
