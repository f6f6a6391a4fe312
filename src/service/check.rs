//! Checks of a configuration that need this machine's encoders or the model.

use crate::config::{ConfigError, StreamConfig};
use crate::events;
use crate::frame::Label;
use crate::overlay::Overlay;
use crate::publish::encoder::{Choice, H264};

/// Tries the encoders that the streams ask for, before anything depends on them, and tells which they get.
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

/// Checks what only the model can tell: that every label that a stream hides, colours or waits for exists.
///
/// # Errors
/// All that do not, with their key paths.
pub fn check_labels(streams: &[StreamConfig], labels: &[Label]) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    for stream in streams {
        if let Err(unknown) = Overlay::new(&stream.overlay, labels) {
            for label in &unknown.unknown {
                errors.push(ConfigError {
                    key: format!("stream[{}].overlay.{}", stream.name, label.key),
                    line: None,
                    problem: label.problem(),
                    help: Some(format!("the model knows {}", unknown.known.join(", "))),
                });
            }
        }
    }
    for stream in streams {
        for (index, event) in stream.record.iter().flat_map(|record| record.events.iter().enumerate()) {
            errors.extend(events::unknown_classes(event, labels).into_iter().map(|name| ConfigError {
                key: format!("stream[{}].record.event[{index}].classes", stream.name),
                line: None,
                problem: format!("the model has no class {name:?}"),
                help: Some(format!("the model knows {}", known(labels))),
            }));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn known(labels: &[Label]) -> String {
    let names: Vec<&str> = labels.iter().map(|label| label.name.as_str()).collect();
    names.join(", ")
}

/// A line for each error.
pub(super) fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
