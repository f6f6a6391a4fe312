//! Checks of a configuration that need the encoders of this machine or the model.

use crate::config::{Config, ConfigError, StreamConfig};
use crate::events::{self, Rule};
use crate::frame::Label;
use crate::overlay::Overlay;
use crate::publish::encoder::{Choice, H264};

/// Tests the encoders that the streams require and returns the chosen ones.
///
/// # Errors
/// Every stream without a working encoder, with its key path.
pub(super) fn check_encoders(streams: &[StreamConfig]) -> Result<Vec<Choice>, Vec<ConfigError>> {
    let (mut chosen, mut errors) = (Vec::new(), Vec::new());
    for stream in streams {
        match H264::choose(stream.encode.encoder, &[]) {
            Ok(choice) if chosen.contains(&choice) => {}
            Ok(choice) => chosen.push(choice),
            Err(error) => {
                let key = format!("stream[{}].encode.encoder", stream.name);
                errors.push(ConfigError { key, line: None, problem: error.to_string(), help: None });
            }
        }
    }
    if errors.is_empty() { Ok(chosen) } else { Err(errors) }
}

/// Checks that a model has every label that its streams hide, colour, weight, or name in their rules, recorded events and redaction.
///
/// # Errors
/// Every unknown label with its key path.
pub fn check_labels<'a>(
    streams: impl IntoIterator<Item = &'a StreamConfig>,
    labels: &[Label],
) -> Result<(), Vec<ConfigError>> {
    let streams: Vec<&StreamConfig> = streams.into_iter().collect();
    let mut errors = Vec::new();
    for stream in &streams {
        if let Err(unknown) = Overlay::new(&stream.overlay, labels) {
            for label in &unknown.unknown {
                errors.push(ConfigError {
                    key: format!("stream[{}].overlay.{}", stream.name, label.key),
                    line: None,
                    problem: label.problem(),
                    help: Some(format!("classes of the model: {}", unknown.known.join(", "))),
                });
            }
        }
    }
    for stream in &streams {
        let hidden = stream.redact.iter().map(|redact| ("redact".to_owned(), &redact.classes));
        let events = stream.record.iter().flat_map(|record| record.events.iter().enumerate());
        let events = events.map(|(index, event)| (format!("record.event[{index}]"), &event.classes));
        let rules = stream.rules.iter().enumerate().map(|(index, rule)| (format!("rule[{index}]"), &rule.classes));
        for (key, classes) in hidden.chain(events).chain(rules) {
            errors.extend(events::unknown_classes(classes, labels).into_iter().map(|name| ConfigError {
                key: format!("stream[{}].{key}.classes", stream.name),
                line: None,
                problem: format!("the model has no class {name:?}"),
                help: Some(format!("classes of the model: {}", names(labels))),
            }));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// A warning for each unknown stream, rule and class that `[[webhook]]` and `[mqtt]` name. These are not errors, because the API can
/// add streams and rules later. `labels` are those of all models, if they are known.
pub fn unused_names(config: &Config, labels: Option<&[Label]>) -> Vec<String> {
    let streams: Vec<&str> = config.streams.iter().map(|stream| stream.name.as_str()).collect();
    let recorded = config.streams.iter().flat_map(|stream| &stream.record).flat_map(|record| &record.events);
    let rules = config.streams.iter().flat_map(|stream| &stream.rules).map(Rule::from);
    let rules: Vec<Rule> = rules.chain(recorded.map(Rule::from)).collect();
    let mut found = Vec::new();
    for webhook in &config.webhooks {
        let name = &webhook.name;
        let unknown = webhook.streams.iter().filter(|stream| !streams.contains(&stream.as_str()));
        found.extend(unknown.map(|stream| format!("webhook[{name}].streams: there is no stream {stream:?}")));
        let unknown = webhook.rules.iter().filter(|rule| !rules.iter().any(|known| *known.name == ***rule));
        found.extend(unknown.map(|rule| format!("webhook[{name}].rules: no stream has a rule {rule:?}")));
    }
    let classes = config.mqtt.as_ref().and_then(|mqtt| mqtt.discovery_classes.as_deref());
    if let (Some(classes), Some(labels)) = (classes, labels) {
        let unknown = events::unknown_classes(classes, labels);
        found.extend(
            unknown.into_iter().map(|class| format!("mqtt.discovery_classes: the model has no class {class:?}")),
        );
    }
    found
}

fn names(labels: &[Label]) -> String {
    let names: Vec<&str> = labels.iter().map(|label| label.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rgb;

    #[test]
    fn unknown_names_are_warnings() {
        let text = "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\n\
                    [[stream.rule]]\nname = \"blocked\"\nclasses = [\"car\"]\n\
                    [stream.record]\ndir = \"rec\"\nwhen = \"event\"\n\
                    [[stream.record.event]]\nname = \"recorded\"\nclasses = [\"car\"]\n\
                    [mqtt]\nurl = \"mqtt://127.0.0.1\"\ndiscovery_classes = [\"car\", \"dog\"]\n\
                    [[webhook]]\nname = \"good\"\nurl = \"http://127.0.0.1/\"\nstreams = [\"gate\"]\n\
                    rules = [\"blocked\", \"recorded\"]\n\
                    [[webhook]]\nname = \"bad\"\nurl = \"http://127.0.0.1/\"\nstreams = [\"gate\", \"yard\"]\n\
                    rules = [\"block\"]\n";
        let config = crate::config::parse(text, std::path::Path::new("m.toml")).unwrap();
        let labels = [Label::new("car", Rgb(1, 2, 3))];
        let expected = [
            "webhook[bad].streams: there is no stream \"yard\"",
            "webhook[bad].rules: no stream has a rule \"block\"",
            "mqtt.discovery_classes: the model has no class \"dog\"",
        ];
        assert_eq!(unused_names(&config, Some(&labels)), expected);
        assert_eq!(unused_names(&config, None), expected[..2]);
    }
}
