//! Class files in JSON, in the forms that annotation programs write:
//!
//! - `["road", "sky"]`: the index is the number
//! - `{"0": "road", "1": "sky"}` or `{"road": 0, "sky": 1}`
//! - `[{"id": 0, "name": "road", "color": [128, 64, 128]}, …]`, also under `classes`, `categories`, `labels` or `names`

use maskcast::frame::Rgb;
use serde_json::Value;

use super::error::ClassFileError;
use super::source_class::{ClassEntry, ClassFile, numbered};

const LISTS: [&str; 4] = ["classes", "categories", "labels", "names"];

/// Reads the text of a class file.
///
/// # Errors
/// The line and the problem; line 1 if the problem concerns the whole file.
pub fn read(text: &str) -> Result<ClassFile, (usize, ClassFileError)> {
    let value: Value = serde_json::from_str(text).map_err(|error| (error.line(), error.into()))?;
    let list = LISTS.iter().find_map(|name| value.get(name));
    let entries = entries(list.unwrap_or(&value)).map_err(|problem| (1, problem))?;
    let classes = numbered(entries.into_iter().map(|entry| (1, entry)).collect())?;
    Ok(ClassFile { classes, merges: Vec::new() })
}

fn entries(value: &Value) -> Result<Vec<ClassEntry>, ClassFileError> {
    let entry = |index, name: &str| ClassEntry { index, name: name.trim().to_string(), color: None };
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(name) => Ok(entry(None, name)),
                Value::Object(_) => object(item),
                other => Err(ClassFileError::JsonClass(other.to_string())),
            })
            .collect(),
        Value::Object(pairs) => pairs
            .iter()
            .map(|(key, value)| match (key.parse::<u8>(), value) {
                (Ok(index), Value::String(name)) => Ok(entry(Some(index), name)),
                (_, Value::Number(number)) => Ok(entry(Some(small(number)?), key)),
                _ => Err(ClassFileError::JsonPair { key: key.clone(), value: value.to_string() }),
            })
            .collect(),
        _ => Err(ClassFileError::JsonForm),
    }
}

fn object(item: &Value) -> Result<ClassEntry, ClassFileError> {
    let field = |names: &[&str]| names.iter().find_map(|name| item.get(name));
    let name = field(&["name", "label", "class", "title"]).and_then(Value::as_str);
    let name = name.ok_or_else(|| ClassFileError::JsonWithoutName(item.to_string()))?.to_string();
    let index = match field(&["id", "index", "value", "trainId"]) {
        Some(Value::Number(number)) => Some(small(number)?),
        _ => None,
    };
    let color = field(&["color", "colour"]).and_then(Value::as_array).and_then(|parts| {
        let part = |n: usize| parts.get(n).and_then(Value::as_u64).and_then(|part| u8::try_from(part).ok());
        Some(Rgb(part(0)?, part(1)?, part(2)?))
    });
    Ok(ClassEntry { index, name, color })
}

fn small(number: &serde_json::Number) -> Result<u8, ClassFileError> {
    let value = number.as_u64().and_then(|value| u8::try_from(value).ok());
    value.ok_or_else(|| ClassFileError::Number(number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        for text in [
            r#"["road", "sky"]"#,
            r#"{"0": "road", "1": "sky"}"#,
            r#"{"road": 0, "sky": 1}"#,
            r#"{"classes": [{"id": 0, "name": "road"}, {"id": 1, "name": "sky"}]}"#,
        ] {
            let mut classes = read(text).unwrap().classes;
            classes.sort_by_key(|class| class.values[0]);
            let found: Vec<_> = classes.iter().map(|class| (class.name.as_str(), class.values[0])).collect();
            assert_eq!(found, [("road", 0), ("sky", 1)], "{text}");
        }
        let colored = read(r#"[{"name": "road", "color": [128, 64, 128]}]"#).unwrap().classes;
        assert_eq!(colored[0].color, Some(Rgb(128, 64, 128)));
    }

    #[test]
    fn invalid_class_files_are_errors() {
        let error = |text: &str| {
            let (line, error) = read(text).unwrap_err();
            assert_eq!(line, 1, "{text}");
            error
        };
        assert!(matches!(error("{"), ClassFileError::Json(_)));
        assert!(matches!(error("[1]"), ClassFileError::JsonClass(_)));
        assert!(matches!(error(r#"{"a": 300}"#), ClassFileError::Number(number) if number == "300"));
        assert!(matches!(error("7"), ClassFileError::JsonForm));
    }
}
