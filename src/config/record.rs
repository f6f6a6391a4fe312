//! `[stream.record]` and the events below it.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::document::Section;
use super::duration::DurationText;
use super::size::SizeText;
use super::value::Value;

/// Container of recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// MP4; fragmented while it is written, so that it can be played after a power failure.
    Mp4,
    /// Matroska.
    Mkv,
}

/// When a stream is recorded (`stream.record.when`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Continuously.
    Always,
    /// Only events, with `pre_roll` before and `post_roll` after each.
    Event,
}

/// Recordings of the stream, with masks as viewers see them. Without this table, the stream is not recorded.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "RecordConfig::nowhere")]
#[schemars(extend("required" = ["dir"]))]
pub struct RecordConfig {
    /// The folder for recordings. The API may only set folders inside those that the configuration file already names, or
    /// inside the state folder of the service (`$STATE_DIRECTORY`).
    #[serde(with = "super::path")]
    #[schemars(with = "String", extend("x-check" = "folder", "x-help" = "the folder for recordings"))]
    pub dir: PathBuf,
    /// Container format of the files.
    pub format: Container,
    /// Maximum length of a file. After it, the next file is begun.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "1s", "x-most" = "1d"))]
    pub segment: Duration,
    /// Maximum size of a file. After it, the next file is begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText", extend("x-default" = "any size"))]
    pub segment_size: Option<u64>,
    /// Maximum age of recordings: those that began longer ago are deleted.
    #[serde(with = "super::duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DurationText", extend("x-least" = "1m", "x-most" = "36600d", "x-default" = "no limit"))]
    pub max_age: Option<Duration>,
    /// Maximum total size of the recordings of the stream. When they exceed it, the oldest are deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText", extend("x-default" = "no limit"))]
    pub max_size: Option<u64>,
    /// Minimum free space on the disk. When there is less, the oldest recordings of the stream are deleted; when none is
    /// left, recording pauses until there is space.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText", extend("x-default" = "no limit"))]
    pub min_free: Option<u64>,
    /// When the stream is recorded.
    pub when: When,
    /// The events of the stream. They are detected and counted also with `when = "always"`.
    #[serde(rename = "event")]
    #[schemars(extend("x-help" = "write [[stream.record.event]], and below it classes = [\"person\"]"))]
    pub events: Vec<EventConfig>,
}

impl RecordConfig {
    /// Continuous recording in files of ten minutes that are never deleted.
    pub fn to(dir: impl Into<PathBuf>) -> Self {
        RecordConfig {
            dir: dir.into(),
            format: Container::Mp4,
            segment: Duration::from_secs(600),
            segment_size: None,
            max_age: None,
            max_size: None,
            min_free: None,
            when: When::Always,
            events: Vec::new(),
        }
    }

    fn nowhere() -> Self {
        RecordConfig::to("")
    }

    /// Names the events that have no name, and checks what concerns several keys. `records_a_rule`: a rule of the stream is
    /// recorded.
    pub(super) fn apply_dependent_defaults(&mut self, records_a_rule: bool, section: &Section) {
        if let (Some(one), Some(all)) = (self.segment_size, self.max_size)
            && all < one
        {
            section.fail("max_size", "is less than segment_size", Some("it should hold a few segments"));
        }
        if self.when == When::Event && !section.is_written("event") && !records_a_rule {
            let help = Some("add [[stream.record.event]] below it, or record = true to a [[stream.rule]]");
            section.fail("when", "there is no event to wait for", help);
        }
        for i in 0..self.events.len() {
            let event = section.element("event", i);
            if !event.is_written("name") {
                self.events[i].name = if i == 0 { "event".into() } else { format!("event{}", i + 1) };
            }
            let (before, rest) = self.events.split_at(i);
            let name = &rest[0].name;
            if !name.is_empty() && before.iter().any(|other| other.name == *name) {
                event.fail("name", format!("{name:?} is already the name of another event"), Some("names must differ"));
            }
        }
    }
}

/// An event: classes cover enough of a zone for long enough. With `when = "event"`, events are recorded; in any case, they
/// are counted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "EventConfig::unnamed")]
#[schemars(extend("required" = ["classes"]))]
pub struct EventConfig {
    /// Unique name in the stream: a letter, then letters, digits, `-` and `_`, at most 32 characters. It is part of the
    /// names of the files of the event.
    #[schemars(length(min = 1, max = 32), extend("x-check" = "event-name", "x-default" = "`event`, `event2`, …"))]
    pub name: String,
    /// Names of classes of the model. Their pixels are added up.
    #[schemars(length(min = 1), extend("x-help" = "write [\"person\", \"car\"]"))]
    pub classes: Vec<String>,
    /// Corners of a polygon, as fractions of the width and height of the frame: `[[0, 0.5], [1, 0.5], [1, 1], [0, 1]]` is
    /// the lower half.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 3), extend("x-check" = "zone", "x-default" = "the whole frame"))]
    pub zone: Vec<[f64; 2]>,
    /// Minimum share of the pixels of the zone that the classes must cover. While the event lasts, half of this share is
    /// enough.
    #[schemars(range(min = 0.0001, max = 1), extend("x-help" = "the least share of the zone's pixels; 0.02 is a fiftieth"))]
    pub share: f64,
    /// How long the classes must cover this share before the event begins.
    #[serde(rename = "for", with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "10m"))]
    pub hold: Duration,
    /// Length of the recording before the classes appeared. The stream is therefore drawn and encoded all the time.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "1m"))]
    pub pre_roll: Duration,
    /// Length of the recording after the classes were last seen.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "1h"))]
    pub post_roll: Duration,
}

impl EventConfig {
    /// An event with the default settings in the whole frame.
    pub fn of(name: &str, classes: &[&str]) -> Self {
        EventConfig {
            name: name.to_owned(),
            classes: classes.iter().map(ToString::to_string).collect(),
            zone: Vec::new(),
            share: 0.02,
            hold: Duration::from_secs(2),
            pre_roll: Duration::from_secs(5),
            post_roll: Duration::from_secs(10),
        }
    }

    fn unnamed() -> Self {
        EventConfig::of("", &[])
    }
}

pub(super) fn read_event_name(value: &Value) -> Option<Json> {
    let name = value.string(None)?;
    // The first letter distinguishes it from the other parts of a file's name.
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !fits {
        return value.fail(format!("{name:?} is not a letter and after it letters, digits, - and _"), None);
    }
    if name.len() > 32 {
        return value.fail(format!("has {} characters, more than 32", name.len()), None);
    }
    Some(name.into())
}
