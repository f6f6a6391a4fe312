//! `model.device`: the GPUs that run a model.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::value::Value;

/// The largest number of a GPU.
const MOST: i32 = 63;

/// The numbers of GPUs, as `nvidia-smi` shows them: at least one, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(Vec<i32>);

impl Devices {
    /// Their numbers, in the order of the configuration. Never empty.
    pub fn numbers(&self) -> &[i32] {
        &self.0
    }

    /// The first of them, on which a model is loaded and checked.
    pub fn first(&self) -> i32 {
        self.0.first().copied().unwrap_or_default()
    }
}

impl Default for Devices {
    fn default() -> Self {
        Devices(vec![0])
    }
}

impl From<i32> for Devices {
    fn from(device: i32) -> Self {
        Devices(vec![device])
    }
}

impl Serialize for Devices {
    /// One is written as a number.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let devices = match Json::deserialize(deserializer)? {
            list @ Json::Array(_) => serde_json::from_value(list).map_err(D::Error::custom)?,
            one => vec![serde_json::from_value(one).map_err(D::Error::custom)?],
        };
        if devices.is_empty() { Err(D::Error::custom("no device")) } else { Ok(Devices(devices)) }
    }
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["integer", "array"],
        "minimum": 0,
        "maximum": MOST,
        "items": { "type": "integer", "minimum": 0, "maximum": MOST },
        "minItems": 1,
        "uniqueItems": true,
        "default": 0,
        "x-check": "devices",
    })
}

/// A number, or a list of different numbers.
pub(super) fn read_devices(value: &Value) -> Option<Json> {
    const HELP: Option<&str> = Some("the number that nvidia-smi shows, or a list of them, for example [0, 1]");
    let number = |value: &Value| value.integer(0..=i64::from(MOST), HELP).map(Json::from);
    if !value.is_array() {
        return number(value);
    }
    let elements = value.list(HELP)?;
    if elements.is_empty() {
        return value.fail("must not be empty", HELP);
    }
    let mut list = Vec::new();
    for element in &elements {
        match number(element)? {
            twice if list.contains(&twice) => return element.fail(format!("{twice} is listed twice"), None),
            device => list.push(device),
        }
    }
    Some(list.into())
}
