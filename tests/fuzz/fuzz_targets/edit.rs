//! Changes of the configuration file by the API. The input is a file, a line `---`, and one change per line: `add JSON`,
//! `change NAME JSON` or `remove NAME`. Afterwards the file must have the requested values, and the rest of it must be
//! unchanged.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use maskcast::config::{Config, Edit, EditError, Object, edit, parse};
use serde_json::Value as Json;

fuzz_target!(|text: &str| {
    let (file, changes) = text.split_once("\n---\n").unwrap_or((text, ""));
    let mut file = file.to_owned();
    for change in changes.lines().take(8).filter_map(read) {
        if let Some(changed) = apply_edit(&file, &change) {
            file = changed;
        }
    }
});

fn read(line: &str) -> Option<Edit> {
    let (verb, rest) = line.split_once(' ')?;
    let object = |text: &str| serde_json::from_str::<Object>(text).ok();
    match verb {
        "add" => object(rest).map(Edit::Add),
        "remove" => Some(Edit::Remove { stream: rest.to_owned() }),
        "change" => {
            let (stream, patch) = rest.split_once(' ')?;
            Some(Edit::Change { stream: stream.to_owned(), patch: object(patch)? })
        }
        _ => None,
    }
}

/// The text after a change; `None` when the change is refused.
fn apply_edit(before: &str, change: &Edit) -> Option<String> {
    let plain = before.strip_prefix('\u{feff}').unwrap_or(before);
    let table = plain.parse::<toml::Table>();
    let after = match edit(before, change) {
        Ok(after) => after,
        Err(EditError::Syntax(_)) => {
            assert!(table.is_err(), "valid TOML is refused");
            return None;
        }
        Err(EditError::NoStream(name)) => {
            let streams = table.ok()?.get("stream").and_then(|streams| Some(streams.as_array()?.clone()));
            let is = |stream: &toml::Value| stream.get("name").and_then(toml::Value::as_str) == Some(&name);
            assert!(!streams.unwrap_or_default().iter().any(is), "{name:?} exists");
            return None;
        }
        Err(EditError::Value(error)) => {
            assert!(!error.problem.is_empty() && error.key.starts_with("stream"), "{error:?}");
            return None;
        }
    };
    let Ok(table) = table else { panic!("invalid TOML was changed") };
    let json = json_of(&toml::Value::Table(table));
    // When `stream` is not a list, the configuration is invalid before and after the change.
    if json.get("stream").is_some_and(|streams| !streams.is_array()) || depth(change) > 20 {
        return None;
    }
    let expected = apply(json.clone(), change);
    let new = after.strip_prefix('\u{feff}').unwrap_or(&after).parse::<toml::Table>();
    let new = new.unwrap_or_else(|error| panic!("the result is not TOML: {error}\n{after}"));
    let new = json_of(&toml::Value::Table(new));
    assert!(same(&tidy(new.clone()), &tidy(expected.clone())), "{change:?}\nis {new}\nnot {expected}\n{after}");
    check_lines(before, &after, change, &json);
    check_other_parts(before, &after, change);
    if let Edit::Change { stream, patch } = change {
        // A renamed stream is not found again; the API does not rename streams.
        if !patch.contains_key("name") {
            assert_eq!(edit(&after, change).as_ref(), Ok(&after), "the same change again has another result");
        }
        let nothing = Edit::Change { stream: stream.clone(), patch: Object::new() };
        // A file with both kinds of line endings gets one kind, also after its last line.
        let unix = |text: String| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
        assert_eq!(edit(before, &nothing).map(unix), Ok(unix(before.to_owned())), "an empty change changes the file");
    }
    Some(after)
}

fn depth(change: &Edit) -> usize {
    fn of(value: &Json) -> usize {
        match value {
            Json::Array(values) => 1 + values.iter().map(of).max().unwrap_or(0),
            Json::Object(values) => 1 + values.values().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    match change {
        Edit::Add(object) | Edit::Change { patch: object, .. } => of(&Json::Object(object.clone())),
        Edit::Remove { .. } => 0,
    }
}

fn json_of(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        // JSON lacks these types.
        toml::Value::Float(number) if !number.is_finite() => format!("float {number}").into(),
        toml::Value::Datetime(time) => format!("time {time}").into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Array(values) => values.iter().map(json_of).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json_of(value))).collect(),
    }
}

/// The expected content after the change.
fn apply(mut file: Json, change: &Edit) -> Json {
    let root = file.as_object_mut().expect("a table");
    let streams = root.entry("stream").or_insert_with(|| Json::Array(Vec::new())).as_array_mut().expect("an array");
    let named = |stream: &Json, name: &str| stream.get("name").and_then(Json::as_str) == Some(name);
    match change {
        Edit::Add(object) => {
            let mut new = Json::Null;
            merge(&mut new, &Json::Object(object.clone()));
            streams.push(new);
        }
        Edit::Change { stream, patch } => {
            let found = streams.iter_mut().find(|known| named(known, stream)).expect("the stream exists");
            merge(found, &Json::Object(patch.clone()));
        }
        Edit::Remove { stream } => {
            let at = streams.iter().position(|known| named(known, stream)).expect("the stream exists");
            streams.remove(at);
        }
    }
    file
}

/// The algorithm of RFC 7396.
fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = Json::Object(Object::new());
    }
    let Json::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Json::Null), value);
        }
    }
}

/// Removes empty tables, which dotted keys of TOML cannot express.
fn tidy(value: Json) -> Json {
    match value {
        Json::Object(object) => {
            let inner = object.into_iter().map(|(key, value)| (key, tidy(value)));
            inner
                .filter(|(_, value)| value.as_object().is_none_or(|inner| !inner.is_empty()))
                .filter(|(_, value)| *value != Json::Array(Vec::new()))
                .collect()
        }
        Json::Array(values) => values.into_iter().map(tidy).collect(),
        value => value,
    }
}

fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            a == b || (a.as_i64().is_none() || b.as_i64().is_none()) && a.as_f64() == b.as_f64()
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The lines of a statement: the header of a table, or a key with its value, with the comments and empty lines above it.
struct Statement<'a> {
    above: Vec<&'a str>,
    lines: Vec<&'a str>,
    /// The index of its stream; `usize::MAX` for a list of all streams.
    stream: Option<usize>,
    header: bool,
}

/// Asserts that unrelated lines remain in their order, and also the comments of a changed stream, unless a value that may
/// contain comments is removed or replaced.
fn check_lines(before: &str, after: &str, change: &Edit, json: &Json) {
    let Some((statements, end)) = statements(before) else { return };
    let name = match change {
        Edit::Add(_) => None,
        Edit::Change { stream, .. } | Edit::Remove { stream } => Some(stream.as_str()),
    };
    let streams = json.get("stream").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let changed_stream =
        streams.iter().position(|stream| stream.get("name").and_then(Json::as_str) == name && name.is_some());
    let keeps_comments = matches!(change, Edit::Change { patch, .. } if is_simple(patch));
    let mut expected: Vec<&str> = Vec::new();
    for statement in &statements {
        let is_changed = statement.stream.is_some_and(|stream| stream == usize::MAX || Some(stream) == changed_stream);
        if !is_changed {
            expected.extend(statement.above.iter().chain(&statement.lines));
        } else if keeps_comments {
            expected.extend(&statement.above);
        } else if statement.header
            && matches!(change, Edit::Remove { .. })
            && statement.lines[0].trim_start().starts_with("[[stream]]")
        {
            // Comments above an empty line do not belong to the stream.
            let own = statement.above.iter().rposition(|line| line.trim().is_empty()).map_or(0, |at| at + 1);
            expected.extend(&statement.above[..own]);
        }
    }
    expected.extend(end);
    let is_not_empty = |line: &&str| !line.trim().is_empty();
    let after = after.strip_prefix('\u{feff}').unwrap_or(after);
    let mut remaining = after.lines().map(str::trim_end).filter(is_not_empty);
    for line in expected.into_iter().map(str::trim_end).filter(is_not_empty) {
        assert!(remaining.any(|other| other == line), "{line:?} is missing\n{change:?}\n{after}");
    }
}

/// Whether a patch only sets plain values.
fn is_simple(patch: &Object) -> bool {
    patch.values().all(|value| match value {
        Json::Object(inner) => is_simple(inner),
        value => !value.is_null() && !value.is_array(),
    })
}

/// The statements of a text, and the lines after the last one; `None` when its streams cannot be separated in this way.
fn statements(text: &str) -> Option<(Vec<Statement<'_>>, Vec<&str>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut found, mut above, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let (mut streams, mut owner) = (0_usize, None);
    for line in text.lines() {
        let trimmed = line.trim();
        if lines.is_empty() && (trimmed.is_empty() || trimmed.starts_with('#')) {
            above.push(line);
            continue;
        }
        lines.push(line);
        let joined = lines.join("\n");
        // A statement continues until its lines are valid TOML.
        let Ok(table) = joined.parse::<toml::Table>() else { continue };
        let header = lines[0].trim_start().starts_with('[');
        let (key, value) = table.iter().next()?;
        if header {
            owner = match (key.as_str(), value) {
                ("stream", toml::Value::Array(_)) => {
                    streams += 1;
                    Some(streams - 1)
                }
                ("stream", _) => Some(streams.checked_sub(1)?),
                _ => None,
            };
        }
        let of_root = found.iter().all(|statement: &Statement| !statement.header) && !header;
        let stream = if of_root && key == "stream" { Some(usize::MAX) } else { owner };
        found.push(Statement { above: std::mem::take(&mut above), lines: std::mem::take(&mut lines), stream, header });
    }
    lines.is_empty().then_some((found, above))
}

/// Asserts that the other parts of a valid configuration are unchanged.
fn check_other_parts(before: &str, after: &str, change: &Edit) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fuzz.toml");
    let (Ok(before), Ok(after)) = (parse(before, &path), parse(after, &path)) else { return };
    assert!(before.models == after.models && before.server == after.server);
    let others = |config: &Config| {
        let name = match change {
            Edit::Add(object) => object.get("name").and_then(Json::as_str),
            Edit::Change { stream, .. } | Edit::Remove { stream } => Some(stream.as_str()),
        };
        config.streams.iter().filter(|stream| Some(stream.name.as_str()) != name).cloned().collect::<Vec<_>>()
    };
    // A stream may be renamed here; the service refuses that.
    if !matches!(change, Edit::Change { patch, .. } if patch.contains_key("name")) {
        assert!(others(&before) == others(&after), "{change:?}");
    }
}
