//! A stream's settings as the API returns and accepts them: the keys of `[[stream]]` in the configuration file, made from the
//! types that hold them.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::config::{Object, StreamConfig, api_schema, stream_settings};

/// The settings of a stream. Answers hold what is in force, with defaults filled in and without secrets; in requests, what is
/// left out stays as it is, and null removes a key.
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
            "The settings of a stream, with the keys of `[[stream]]` in the configuration file. Answers hold what is in force, \
             with defaults filled in and without secrets; in requests, what is left out stays as it is, and null removes a key.",
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
