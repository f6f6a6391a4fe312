//! A stream's settings as the API returns and accepts them: the keys of `[[stream]]` in the configuration file, made from the
//! types that hold them.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::config::{Object, StreamConfig, api_schema, stream_settings};

/// The settings of a stream. A response contains all settings in effect, with defaults and without secrets. A request contains
/// the keys to change; null removes a key.
#[derive(Serialize)]
pub(super) struct Settings(Object);

impl From<&StreamConfig> for Settings {
    fn from(config: &StreamConfig) -> Self {
        Settings(stream_settings(config))
    }
}

impl PartialSchema for Settings {
    fn schema() -> RefOr<Schema> {
        described(
            "stream",
            "The settings of a stream, with the keys of `[[stream]]` in the configuration file. A response contains all \
             settings in effect, with defaults and without secrets. A request contains the keys to change; null removes a key.",
        )
    }
}

impl ToSchema for Settings {
    fn name() -> Cow<'static, str> {
        "StreamSettings".into()
    }
}

/// How the mask is drawn: `[stream.overlay]`.
pub(super) struct OverlaySettings;

impl PartialSchema for OverlaySettings {
    fn schema() -> RefOr<Schema> {
        described("stream.overlay", "How the mask is drawn: `[stream.overlay]`. Null resets a key to its default.")
    }
}

impl ToSchema for OverlaySettings {}

/// The settings of a new stream: the same, and two of them are required.
pub(super) struct NewStream;

impl PartialSchema for NewStream {
    fn schema() -> RefOr<Schema> {
        let mut schema = described("stream", "The settings of a new stream, with the keys of `[[stream]]`.");
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required = vec!["name".into(), "source".into()];
        }
        schema
    }
}

impl ToSchema for NewStream {}

/// The schema of a table of the configuration as the API takes it.
fn described(table: &str, description: &str) -> RefOr<Schema> {
    let mut schema: Schema = serde_json::from_value(api_schema(table)).unwrap_or_default();
    if let Schema::Object(object) = &mut schema {
        object.description = Some(description.to_owned());
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    }
    RefOr::T(schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// utoipa's types hold only a part of JSON Schema.
    #[test]
    fn the_description_keeps_the_schema_of_the_settings() {
        let shown = serde_json::to_value(Settings::schema()).unwrap();
        let defined = api_schema("stream");
        let names = |schema: &serde_json::Value| -> Vec<String> {
            schema["properties"].as_object().unwrap().keys().cloned().collect()
        };
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(names(&shown)), sorted(names(&defined)));
        let at = |pointer: &str| shown.pointer(pointer).unwrap_or_else(|| panic!("{pointer}: {shown:#}"));
        assert_eq!(at("/properties/overlay/properties/alpha/maximum"), &json!(1));
        assert_eq!(at("/properties/overlay/properties/style/enum"), &json!(["tint", "contour", "mask-only", null]));
        assert_eq!(at("/properties/max_latency/type"), &json!(["string", "number", "null"]));
        assert_eq!(at("/properties/record/properties/event/items/required"), &json!(["classes"]));
        assert_eq!(at("/properties/push/readOnly"), &json!(true));
        assert_eq!(at("/properties/push/oneOf/0/items/properties/url/type"), &json!("string"));
        assert!(at("/properties/password_file/description").as_str().unwrap().contains("Never in responses"));
        assert!(shown.get("required").is_none() && !shown.to_string().contains("\"x-"));
    }
}
