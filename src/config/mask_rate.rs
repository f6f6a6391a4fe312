//! `stream.mask_rate`: how many masks per second the model makes of a stream.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::value::Value;

const AUTO: &str = "auto";
const LEAST: f64 = 0.1;
const MOST: f64 = 120.0;

/// How many masks a second the model makes of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MaskRate {
    /// As many as the share of the stream in the time of the model allows, at most one for each frame.
    #[default]
    Auto,
    /// At most this number.
    PerSecond(f64),
}

impl MaskRate {
    /// The time from one mask to the next; zero without a limit.
    pub fn interval(self) -> Duration {
        match self {
            MaskRate::Auto => Duration::ZERO,
            MaskRate::PerSecond(rate) => Duration::from_secs_f64(1.0 / rate.clamp(LEAST, MOST)),
        }
    }
}

impl Serialize for MaskRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            MaskRate::Auto => serializer.serialize_str(AUTO),
            MaskRate::PerSecond(rate) => serializer.serialize_f64(*rate),
        }
    }
}

impl<'de> Deserialize<'de> for MaskRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::String(word) if word == AUTO => Ok(MaskRate::Auto),
            Json::Number(rate) => rate.as_f64().map(MaskRate::PerSecond).ok_or_else(|| D::Error::custom("not a rate")),
            _ => Err(D::Error::custom("neither \"auto\" nor a number")),
        }
    }
}

impl JsonSchema for MaskRate {
    fn schema_name() -> Cow<'static, str> {
        "MaskRate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": "^auto$",
            "minimum": LEAST,
            "maximum": MOST,
            "x-check": "mask-rate",
        })
    }
}

/// `"auto"` or a number of masks a second.
pub(super) fn read_mask_rate(value: &Value) -> Option<Json> {
    const HELP: Option<&str> = Some("write \"auto\", or a number of masks per second, for example 5");
    if value.is_number() {
        return value.number(LEAST..=MOST, HELP).map(Json::from);
    }
    if !value.is_string() {
        return value.wrong_type("\"auto\" or a number", HELP);
    }
    match value.text()? {
        AUTO => Some(AUTO.into()),
        word => value.fail(format!("{word:?} is neither \"auto\" nor a number"), HELP),
    }
}
