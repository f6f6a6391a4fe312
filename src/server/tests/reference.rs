//! The reference of the API, and what the documentation of settings states.

use std::path::Path;

use serde_json::{Value, json};

use super::super::openapi::described;
use super::super::settings::Settings;
use super::super::{api_reference, auth};
use crate::config::{EventConfig, RecordConfig, SourceSpec, defaults_stream};
use crate::users::Role;

#[test]
fn the_committed_reference_of_the_api_matches_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let made = api_reference().unwrap();
    let line = committed.lines().zip(made.lines()).take_while(|(committed, made)| committed == made).count();
    assert!(
        committed == made,
        "docs/api.md differs from the code from line {} on. Renew it: make docs (or cargo run --locked -- reference api > \
         docs/api.md)",
        line + 1
    );
}

#[test]
fn the_reference_of_the_api_has_every_operation_and_every_field() {
    let (made, api) = (api_reference().unwrap(), serde_json::to_value(described()).unwrap());
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(made.contains(&format!("\n`{} {path}`\n", method.to_uppercase())), "{method} {path}");
            assert!(operation["description"].is_string(), "{method} {path} has no description");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{method} {path} {}", parameter["name"]);
            }
            let is_operator = auth::required_access(&method.to_uppercase().parse().unwrap(), path)
                == auth::RequiredAccess::Role(Role::Operator);
            let section = made.split(&format!("\n`{} {path}`\n", method.to_uppercase())).nth(1).unwrap();
            let section = section.split("\n### ").next().unwrap();
            assert_eq!(section.contains("Access: operator."), is_operator, "{method} {path}");
        }
    }
    // Fields are rows, and each row ends with a meaning.
    for (name, schema) in api["components"]["schemas"].as_object().unwrap() {
        for field in schema["properties"].as_object().into_iter().flatten().map(|(field, _)| field) {
            let is_row = |line: &&str| line.starts_with(&format!("| `{field}` |"));
            let rows = made.lines().filter(is_row);
            let rows: Vec<&str> = rows.collect();
            assert!(!rows.is_empty(), "{name}.{field}");
            assert!(rows.iter().all(|row| !row.ends_with("|  |")), "{name}.{field} has no description");
        }
    }
    assert!(
        made.lines().all(|line| line.starts_with("```") || line.matches('`').count() % 2 == 0),
        "backticks in pairs"
    );
}

/// The value that a description names after `Default: `.
fn documented(settings: &Value, field: &str) -> Option<String> {
    let field = &settings["properties"][field];
    let options = field["oneOf"].as_array().into_iter().flatten();
    let mut texts = [field].into_iter().chain(options).filter_map(|place| place["description"].as_str());
    let text = texts.find_map(|text| text.split("Default:").nth(1))?;
    let text = text.trim_start().strip_prefix('`')?;
    Some(text.split('`').next()?.to_owned())
}

#[test]
fn documented_defaults_of_a_stream_are_those_in_effect() {
    let api = serde_json::to_value(described()).unwrap();
    let stream = &api["components"]["schemas"]["StreamSettings"];
    let table = |name: &str| &stream["properties"][name];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("clip.mp4"), "").unwrap();
    let settings = |source: &str| {
        let mut stream = defaults_stream("gate", SourceSpec::parse(source, folder.path()).unwrap());
        let mut record = RecordConfig::to("/recordings");
        record.events.push(EventConfig::of("event", &["person"]));
        stream.record = Some(record);
        serde_json::to_value(Settings::from(&stream)).unwrap()
    };
    let (camera, file) = (settings("rtsp://10.0.0.7/stream1"), settings("file:clip.mp4"));
    let mut checked = Vec::new();
    for (schema, value) in [
        (stream, &camera),
        (stream, &file),
        (table("overlay"), &camera["overlay"]),
        (table("encode"), &camera["encode"]),
        (table("record"), &camera["record"]),
        (&table("record")["properties"]["event"]["items"], &camera["record"]["event"][0]),
    ] {
        // The event is not a default: it was added above.
        for (field, value) in value.as_object().unwrap().iter().filter(|(field, _)| *field != "event") {
            let Some(default) = documented(schema, field) else { continue };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(default, text, "{field}");
            checked.push(field.as_str());
        }
    }
    let wanted = ["show", "max_latency", "transport", "loop", "speed", "alpha", "keyframe_interval", "segment", "for"];
    assert!(wanted.iter().all(|field| checked.contains(field)), "{}", json!(checked));
}
