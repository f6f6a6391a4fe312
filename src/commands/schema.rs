//! `maskcast schema`

use clap::ValueEnum;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Failure;
use crate::comparison::report::Comparison;
use crate::config;
use crate::events::LiveEventMessage;
use crate::mqtt::SharesMessage;
use crate::sink::LiveMaskMessage;

/// A message whose schema is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessageKind {
    /// The message about a mask: API, sinks, `maskcast listen`.
    Mask,
    /// The message about an event: API, webhooks, MQTT, `maskcast listen --events`.
    Event,
    /// The message about the shares in the frame or in a zone: MQTT.
    Shares,
    /// The result of `maskcast model compare`.
    Comparison,
}

/// Prints the JSON Schema of configuration files or of a message, or with `markdown` the documentation of all keys.
///
/// # Errors
/// None but those of the output, which are reported by [`super::ended`].
pub fn schema(markdown: bool, message: Option<MessageKind>) -> Result<(), Failure> {
    if markdown {
        print!("{}", config::markdown());
        return Ok(());
    }
    let schema = message.map_or_else(config::json_schema, message_schema);
    let text = serde_json::to_string_pretty(&schema).map_err(Failure::runtime)?;
    println!("{text}");
    Ok(())
}

/// The JSON Schema (draft 2020-12) of a message.
pub fn message_schema(message: MessageKind) -> Value {
    fn of<T: JsonSchema>() -> Value {
        SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
    }
    match message {
        MessageKind::Mask => of::<LiveMaskMessage>(),
        MessageKind::Event => of::<LiveEventMessage>(),
        MessageKind::Shares => of::<SharesMessage>(),
        MessageKind::Comparison => of::<Comparison>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptions of the fields are in the schema; the page has what is not there.
    #[test]
    fn every_field_of_a_message_is_documented() {
        let page = include_str!("../../docs/messages.md");
        for kind in MessageKind::value_variants() {
            let schema = message_schema(*kind);
            let properties = schema["properties"].as_object().unwrap();
            assert!(properties.len() >= 7, "{schema}");
            let name = kind.to_possible_value().unwrap().get_name().to_owned();
            let (_, section) = page.split_once(&format!("`maskcast schema --message {name}`")).expect(&name);
            let section = section.split("\n## ").next().unwrap();
            for (name, property) in properties {
                assert!(section.contains(&format!("| `{name}` |")), "docs/messages.md: {kind:?} {name}");
                let about = property["description"].as_str().unwrap_or_default();
                let is_reference = property.get("$ref").is_some() || property.get("anyOf").is_some();
                assert!(about.ends_with('.') || is_reference, "{kind:?} {name}: {about}");
            }
        }
    }
}
