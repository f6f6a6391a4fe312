//! Values of JSON as TOML writes them.

use serde_json::Value as Json;
use toml_edit::{Array, InlineTable, Value};

use super::error::ConfigError;

/// Why a text cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("the file is not TOML: {0}")]
    Syntax(String),
    #[error("the file has no stream {0:?}")]
    NoStream(String),
    #[error("the file has no model {0:?}")]
    NoModel(String),
    /// A value that JSON has and TOML does not have.
    #[error("{0}")]
    Value(ConfigError),
}

/// Whether a value of the text equals this one.
pub(super) fn value_equals(known: &Value, value: &Json) -> bool {
    match (known, value) {
        (Value::String(known), Json::String(value)) => known.value() == value,
        (Value::Integer(known), Json::Number(value)) => value.as_i64() == Some(*known.value()),
        (Value::Float(known), Json::Number(value)) => value.as_f64() == Some(*known.value()),
        (Value::Boolean(known), Json::Bool(value)) => known.value() == value,
        (Value::Array(known), Json::Array(values)) => {
            known.len() == values.len() && known.iter().zip(values).all(|(known, value)| value_equals(known, value))
        }
        (Value::InlineTable(known), Json::Object(values)) => {
            known.len() == values.len()
                && known.iter().all(|(name, known)| values.get(name).is_some_and(|value| value_equals(known, value)))
        }
        _ => false,
    }
}

pub(super) fn to_toml(value: &Json, key: &str) -> Result<Value, EditError> {
    let cannot = |problem: &str| {
        EditError::Value(ConfigError { key: key.to_owned(), line: None, problem: problem.into(), help: None })
    };
    Ok(match value {
        Json::Null => return Err(cannot("must not be null in a list")),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, Some(float)) => float.into(),
            (None, None) => return Err(cannot("is not a number that can be written")),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(values) => {
            let mut array = Array::new();
            for (i, value) in values.iter().enumerate() {
                array.push(to_toml(value, &format!("{key}[{i}]"))?);
            }
            array.into()
        }
        Json::Object(values) => {
            let mut table = InlineTable::new();
            for (name, value) in values.iter().filter(|(_, value)| !value.is_null()) {
                table.insert(name, to_toml(value, &format!("{key}.{name}"))?);
            }
            table.into()
        }
    })
}
