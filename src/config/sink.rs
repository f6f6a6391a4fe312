//! `[[stream.sink]]`: outputs of the masks of a stream as data. The types and their keys are those of [`MASK_SINKS`].

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

use super::document::Section;
use super::sink_key;
use crate::sink::{COMMON_KEYS, MASK_SINKS, MaskSinkKind, SinkKey, SinkSettings};

/// A sink for the masks of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    pub kind: &'static MaskSinkKind,
    /// The values of the keys of `kind` and of the common ones.
    pub settings: SinkSettings,
}

impl SinkConfig {
    /// Identifies the sink within its stream.
    pub fn label(&self) -> String {
        (self.kind.label)(&self.settings)
    }

    /// The minimum time between two masks; `None` = every mask is written.
    pub fn every(&self) -> Option<Duration> {
        self.settings.duration("every")
    }

    /// The keys of the sink's type.
    fn keys(&self) -> impl Iterator<Item = &'static SinkKey> {
        self.kind.keys.iter().chain(COMMON_KEYS)
    }
}

/// The keys of all types, each once.
fn all_keys() -> impl Iterator<Item = &'static SinkKey> {
    let mut names = Vec::new();
    let keys = MASK_SINKS.iter().flat_map(|kind| kind.keys).chain(COMMON_KEYS);
    keys.filter(move |key| {
        let is_new = !names.contains(&key.name);
        names.push(key.name);
        is_new
    })
}

impl Serialize for SinkConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = Map::from_iter([("type".to_owned(), self.kind.name.into())]);
        table.extend(self.settings.0.iter().map(|(key, value)| ((*key).to_owned(), sink_key::show(value))));
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SinkConfig {
    /// Invalid values are absent; `check_all` removes sinks without their required keys.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Map::<String, Json>::deserialize(deserializer)?;
        let name = table.get("type").and_then(Json::as_str);
        let kind = MASK_SINKS.iter().find(|kind| Some(kind.name) == name).or(MASK_SINKS.first());
        let kind = *kind.ok_or_else(|| D::Error::custom("there are no types of sinks"))?;
        let mut sink = SinkConfig { kind, settings: SinkSettings::default() };
        for key in kind.keys.iter().chain(COMMON_KEYS) {
            let Some(value) = table.get(key.name).cloned() else { continue };
            let value = sink_key::read(key.kind, value).map_err(D::Error::custom)?;
            sink.settings.0.insert(key.name, value);
        }
        Ok(sink)
    }
}

impl JsonSchema for SinkConfig {
    fn schema_name() -> Cow<'static, str> {
        "SinkConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = MASK_SINKS.iter().map(|kind| kind.name).collect();
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let types: Vec<String> = MASK_SINKS.iter().map(|kind| format!("`{}`: {}", kind.name, kind.about)).collect();
        let mut properties = Map::new();
        properties.insert(
            "type".into(),
            json!({
                "type": "string",
                "enum": names,
                "description": format!("The type of the sink. {}", types.join(" ")),
                "x-help": format!("write type = {}", quoted.join(" or ")),
            }),
        );
        for key in all_keys() {
            let mut schema = sink_key::schema(key.kind, generator);
            let own = |kind: &&'static MaskSinkKind| {
                let own = kind.keys.iter().find(|own| own.name == key.name)?;
                Some((kind.name, own))
            };
            let owners: Vec<(&str, &SinkKey)> = MASK_SINKS.iter().filter_map(own).collect();
            let about: Vec<String> = owners.iter().map(|(kind, own)| format!("`{kind}`: {}", own.about)).collect();
            let needs = owners.iter().filter(|(_, own)| own.is_required).map(|(kind, _)| format!("`{kind}`"));
            let needs = needs.collect::<Vec<_>>().join(", ");
            schema["description"] = if about.is_empty() { key.about.into() } else { about.join(" ").into() };
            schema["x-help"] = key.about.into();
            schema["x-default"] = if needs.is_empty() { "none".into() } else { format!("required for {needs}").into() };
            properties.insert(key.name.into(), schema);
        }
        let is_needed = |key: &&SinkKey| MASK_SINKS.iter().all(|kind| kind.keys.iter().any(|own| own.name == key.name));
        let needed = all_keys().filter(|key| key.is_required).filter(is_needed).map(|key| key.name);
        let required: Vec<&str> = std::iter::once("type").chain(needed).collect();
        let schema = json!({
            "type": "object",
            "description": "Where the masks of a stream go, as data. A table for each sink.",
            "properties": properties,
            "required": required,
        });
        Schema::try_from(schema).unwrap_or_default()
    }
}

/// Checks the sinks of a stream, whose table is `stream`: each has only keys of its type, and no two are equal. Removes
/// sinks with errors, which were reported.
pub(super) fn check_all(sinks: &mut Vec<SinkConfig>, stream: &Section) {
    let mut kept: Vec<SinkConfig> = Vec::new();
    for (i, sink) in sinks.drain(..).enumerate() {
        let section = stream.element("sink", i);
        if !section.is_valid("type") {
            continue;
        }
        for key in all_keys().filter(|key| section.is_written(key.name)) {
            if !sink.keys().any(|own| own.name == key.name) {
                section.fail(key.name, format!("is not a key of the type {:?}", sink.kind.name), Some("delete it"));
            }
        }
        let mut is_complete = true;
        for key in sink.keys().filter(|key| key.is_required && !section.is_valid(key.name)) {
            is_complete = false;
            if !section.is_written(key.name) && !section.is_reported(key.name) {
                section.fail(key.name, "is missing", Some(key.about));
            }
        }
        if !is_complete {
            continue;
        }
        if kept.iter().any(|other| other.kind == sink.kind && other.label() == sink.label()) {
            section.fail("type", "is the same sink as in a table above", Some("remove one of them"));
            continue;
        }
        kept.push(sink);
    }
    *sinks = kept;
}
