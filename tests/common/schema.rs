//! Messages of the outputs against their JSON Schemas.

use std::collections::BTreeSet;

use maskcast::commands::schema::{MessageKind, message_schema};
use serde_json::Value;

/// Fails unless the message is as its schema describes it, without fields that the schema does not have.
pub fn assert_valid(kind: MessageKind, message: &Value) {
    let schema = message_schema(kind);
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(message).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{kind:?}: {errors:?}: {message}");
    let known: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    let unknown: Vec<&String> = message.as_object().unwrap().keys().filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "{kind:?}: the schema does not have {unknown:?}: {message}");
}
