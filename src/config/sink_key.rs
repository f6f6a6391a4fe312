//! The values of the keys of `[[stream.sink]]`, by their [`KeyKind`]: how they are described, read and shown.

use std::net::Ipv6Addr;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value as Json, json};

use super::value::Value;
use super::{duration, path};
use crate::sink::{KeyKind, KeyValue};

/// The schema of a key, without its description. The check that it names in `x-check` validates the value.
pub(super) fn schema(kind: KeyKind, generator: &mut SchemaGenerator) -> Json {
    match kind {
        KeyKind::File => json!({ "type": "string", "x-check": "output-file" }),
        KeyKind::Duration { least, most } => {
            let mut schema = duration::DurationText::json_schema(generator).to_value();
            (schema["x-least"], schema["x-most"]) = (duration::show(least).into(), duration::show(most).into());
            schema
        }
        KeyKind::Address => json!({ "type": "string", "x-check": "destination" }),
    }
}

/// The value from the form in which the check returned it.
///
/// # Errors
/// The check and the kind do not fit together.
pub(super) fn read(kind: KeyKind, value: Json) -> Result<KeyValue, serde_json::Error> {
    match kind {
        KeyKind::File => path::deserialize(value).map(KeyValue::File),
        KeyKind::Duration { .. } => duration::deserialize(value).map(KeyValue::Duration),
        KeyKind::Address => serde_json::from_value(value).map(KeyValue::Address),
    }
}

/// The value as it is written in the file.
pub(super) fn show(value: &KeyValue) -> Json {
    match value {
        KeyValue::File(path) => path.display().to_string().into(),
        KeyValue::Duration(time) => duration::show(*time).into(),
        KeyValue::Address(address) => address.as_str().into(),
    }
}

/// The check of [`KeyKind::Address`]. Names are not looked up, because a name server may be unreachable when the
/// service starts.
pub(super) fn read_destination(value: &Value) -> Option<Json> {
    let help = Some("write \"HOST:PORT\", e.g. \"10.0.0.9:5000\" or \"[fd00::9]:5000\"");
    let text = value.string(help)?;
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')),
    };
    if !is_host || port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return value.fail(format!("{text:?} is not a host and a port"), help);
    }
    // One text for one destination, so that it names the sink in logs and metrics.
    Some(text.to_ascii_lowercase().into())
}
