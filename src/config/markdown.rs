//! The documentation of all keys, `docs/configuration.md`, made from the schema.

use std::fmt::Write;

use serde_json::Value as Json;

use super::schema::{Applies, Object, Table, applies_of, choices, tables, text};
use crate::base::wrapped::wrapped;

/// The text above the tables of keys.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The documentation of all keys, as Markdown.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for table in tables() {
        let header = table.header();
        let about = text(table.schema, "description").unwrap_or_default();
        // Fails for no String.
        let _ = write!(page, "\n## `{header}`\n\n{}\n", wrapped(about));
        if let Some(applies) = table.applies {
            let words = in_words(applies);
            // The API cannot change the table.
            let words = if is_for_file_only(table) { words.replace(" or by the API", "") } else { words.to_owned() };
            let _ = write!(page, "\nA change takes effect {words}.\n");
        }
        if is_for_file_only(table) {
            page.push_str("\nThe API cannot set these keys; they are set in the configuration file.\n");
        }
        page.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for (name, key) in table.keys() {
            let cells = [format!("`{name}`"), value(key), default(table, name, key), meaning(table, key)];
            let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    page
}

/// Whether the API cannot set the table, which is a part of a stream.
fn is_for_file_only(table: &Table) -> bool {
    let Some((outer, name)) = table.path.rsplit_once('.') else { return false };
    let outer = tables().iter().find(|known| known.path == outer);
    outer.and_then(|outer| outer.key(name)).is_some_and(|key| text(key, "x-api") == Some("never"))
}

fn in_words(applies: Applies) -> &'static str {
    match applies {
        Applies::NextFrame => "with the next frame, by a reload or by the API",
        Applies::RestartsStream => "by a reload or by the API, which restarts the stream",
        Applies::Reload => "by a reload; streams continue",
        Applies::Restart => "when the service is restarted",
    }
}

/// Kind and range.
fn value(key: &Object) -> String {
    let words = choices(key);
    if !words.is_empty() {
        return words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    }
    let kind = match text(key, "x-check") {
        Some("duration") => "duration",
        Some("size") => "size",
        Some("existing-file" | "output-file" | "users-file" | "password-file") => "file",
        Some("folder") => "folder",
        Some("socket-address") => "IP address and port",
        Some("zone") => "array of points",
        Some("crop") => "array of four numbers",
        Some("mask-rate") => "`\"auto\"` or number",
        Some("devices") => "integer or array of integers",
        _ => match key.get("type").and_then(Json::as_str) {
            Some("boolean") => "`true` or `false`",
            Some("integer") => "integer",
            Some("number") => "number",
            Some("array") => match key.get("items").and_then(Json::as_object) {
                Some(items) if !choices(items).is_empty() => return format!("array of {}", value(items)),
                _ => "array of strings",
            },
            Some("object") => "table",
            _ => "string",
        },
    };
    let limit = |keyword: &str, attribute: &str| match text(key, attribute) {
        Some(limit) => Some(format!("`\"{limit}\"`")),
        None => key.get(keyword).filter(|_| !kind.contains("duration")).map(ToString::to_string),
    };
    match (limit("minimum", "x-least"), limit("maximum", "x-most")) {
        (Some(least), Some(most)) => format!("{kind}, {least} to {most}"),
        _ => kind.to_owned(),
    }
}

fn default(table: &Table, name: &str, key: &Object) -> String {
    match text(key, "x-default") {
        _ if table.is_required(name) => "required".to_owned(),
        Some(words) => words.to_owned(),
        None => key.get("default").map(|default| format!("`{default}`")).unwrap_or_default(),
    }
}

fn meaning(table: &Table, key: &Object) -> String {
    let mut meaning = one_line(text(key, "description").unwrap_or_default());
    let described = key.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    for word in described {
        if let (Some(name), Some(about)) = (word["const"].as_str(), word["description"].as_str()) {
            let _ = write!(meaning, "<br>`{name}`: {}", one_line(about));
        }
    }
    if let Some(schemes) = key.get("x-sources").and_then(Json::as_array).filter(|_| table.path == "stream") {
        let schemes: Vec<String> = schemes.iter().filter_map(Json::as_str).map(|word| format!("`{word}`")).collect();
        let _ = write!(meaning, "<br>Only for sources of the schemes {}.", schemes.join(", "));
    }
    if key.contains_key("x-secret") {
        meaning.push_str("<br>Secret: never in the log or in responses of the API.");
    }
    if text(key, "x-api") == Some("remove") && table.path.starts_with("stream") && !is_for_file_only(table) {
        meaning.push_str("<br>The API can only remove it.");
    }
    if let Some(applies) = applies_of(key).filter(|applies| Some(*applies) != table.applies) {
        let _ = write!(meaning, "<br>A change takes effect {}.", in_words(applies));
    }
    meaning.trim_start_matches("<br>").to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_every_table_has_a_description() {
        for table in tables() {
            assert!(text(table.schema, "description").is_some(), "{}", table.header());
            assert!(table.applies.is_some(), "{} has no x-applies", table.header());
            for (name, key) in table.keys() {
                let about = meaning(table, key);
                assert!(about.ends_with(['.', ')']), "{} {name}: {about:?}", table.header());
                assert!(!default(table, name, key).is_empty(), "{} {name} has no default", table.header());
            }
        }
    }
}
