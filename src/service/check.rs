//! Checks of a configuration that need the encoders of this machine or the model.

use crate::config::{ConfigError, StreamConfig};
use crate::events;
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

/// Checks that the model has every label that a stream hides, colours, weights, or names in its rules and recorded events.
///
/// # Errors
/// Every unknown label with its key path.
pub fn check_labels(streams: &[StreamConfig], labels: &[Label]) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    for stream in streams {
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
    for stream in streams {
        let events = stream.record.iter().flat_map(|record| record.events.iter().enumerate());
        let events = events.map(|(index, event)| (format!("record.event[{index}]"), &event.classes));
        let rules = stream.rules.iter().enumerate().map(|(index, rule)| (format!("rule[{index}]"), &rule.classes));
        for (key, classes) in events.chain(rules) {
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

fn names(labels: &[Label]) -> String {
    let names: Vec<&str> = labels.iter().map(|label| label.name.as_str()).collect();
    names.join(", ")
}
