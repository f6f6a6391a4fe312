//! What is known of a collected frame.

use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The name of a collected frame: the UTC time of its capture, `20261201T044917123Z`, with `-2`, `-3`, … if frames were captured in
/// the same millisecond. It is part of the names of its files, and has no characters with a meaning in paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
#[schema(value_type = String, pattern = "^[0-9]{8}T[0-9]{9}Z(-[0-9]{1,3})?$", example = "20261201T044917123Z")]
pub struct FrameId(String);

/// A text that is not the name of a collected frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a collected frame, such as 20261201T044917123Z")]
pub struct NotAFrameId(pub String);

impl FrameId {
    /// The name of a frame that was captured at this time; `number` counts the frames of the same millisecond from 1.
    pub fn new(captured: Timestamp, number: u32) -> Self {
        // Rounding to milliseconds towards zero cannot leave the range of timestamps.
        let captured = captured
            .round(jiff::TimestampRound::new().smallest(Unit::Millisecond).mode(jiff::RoundMode::Trunc))
            .unwrap_or(captured);
        let time = captured.strftime("%Y%m%dT%H%M%S");
        let milliseconds = captured.subsec_millisecond();
        let suffix = if number > 1 { format!("-{number}") } else { String::new() };
        FrameId(format!("{time}{milliseconds:03}Z{suffix}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FrameId {
    type Err = NotAFrameId;

    fn from_str(text: &str) -> Result<Self, NotAFrameId> {
        let (time, number) = text.split_once('-').map_or((text, None), |(time, number)| (time, Some(number)));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_time = time.len() == 19
            && time.is_ascii()
            && all_digits(&time[..8])
            && &time[8..9] == "T"
            && all_digits(&time[9..18])
            && time.ends_with('Z');
        let is_number = number.is_none_or(|number| (1..=3).contains(&number.len()) && all_digits(number));
        if is_time && is_number { Ok(FrameId(text.to_owned())) } else { Err(NotAFrameId(text.to_owned())) }
    }
}

impl TryFrom<String> for FrameId {
    type Error = NotAFrameId;

    fn try_from(text: String) -> Result<Self, NotAFrameId> {
        text.parse()
    }
}

impl From<FrameId> for String {
    fn from(id: FrameId) -> String {
        id.0
    }
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a frame was collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The model was unsure about it.
    Uncertain,
    /// It looks different from the frames that were collected before.
    Novel,
    /// It was selected at random.
    Random,
}

impl Reason {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Uncertain => "uncertain",
            Reason::Novel => "novel",
            Reason::Random => "random",
        }
    }
}

/// What a person has decided about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameState {
    /// Nothing yet.
    New,
    /// To be reviewed later.
    Later,
    /// Its label is right: the trainer uses it.
    Accepted,
    /// It is not used. Its pictures are deleted; its record is kept for 30 days, so that the same picture is not collected again.
    Discarded,
}

impl FrameState {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            FrameState::New => "new",
            FrameState::Later => "later",
            FrameState::Accepted => "accepted",
            FrameState::Discarded => "discarded",
        }
    }
}

/// The model that made the proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct CollectedModel {
    /// Its name in the configuration.
    pub name: String,
    /// SHA-256 of its file, in hexadecimal digits; empty if it is not known.
    pub sha256: String,
}

/// What is known of a collected frame: the content of `Frames/ID.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct FrameRecord {
    pub id: FrameId,
    /// Name of the stream.
    pub stream: String,
    /// When the frame was captured.
    #[schemars(with = "String")]
    #[schema(value_type = String, format = "date-time")]
    pub captured: Timestamp,
    pub model: CollectedModel,
    pub reason: Reason,
    /// How unsure the model was, 0 to 1: from the margin between the two most probable classes, or from the disagreement with the mask
    /// before.
    pub uncertainty: f32,
    /// How different it is from the collected frame that is most like it, 0 to 1.
    pub novelty: f32,
    /// Mean probability of the most probable class, 0 to 1; `null` for a model that does not return it.
    pub confidence: Option<f32>,
    /// Width of image and label in pixels.
    pub width: u32,
    /// Height of image and label in pixels.
    pub height: u32,
    /// A perceptual hash of the image, 16 hexadecimal digits.
    pub hash: String,
    pub state: FrameState,
    /// The number of times that its label was saved; 0: the label is the proposal.
    pub revision: u64,
    /// When the label or the state was changed last.
    #[schemars(with = "String")]
    #[schema(value_type = String, format = "date-time")]
    pub changed: Timestamp,
    /// Whether its pictures were deleted because the collection reached `max_size`; its state is then `discarded`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evicted: bool,
}

impl FrameRecord {
    /// Whether a person has worked on the frame: its pictures are never deleted for space.
    pub fn is_kept(&self) -> bool {
        self.state == FrameState::Accepted || self.revision > 0
    }

    /// Whether it has pictures.
    pub fn has_pictures(&self) -> bool {
        self.state != FrameState::Discarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_times_and_never_paths() {
        let captured: Timestamp = "2026-12-01T04:49:17.1239Z".parse().unwrap();
        assert_eq!(FrameId::new(captured, 1).as_str(), "20261201T044917123Z");
        let second = FrameId::new(captured, 2);
        assert_eq!(second.as_str(), "20261201T044917123Z-2");
        assert_eq!(second.as_str().parse(), Ok(second.clone()));
        for wrong in
            ["", "../x", "20261201T044917123Z/..", "20261201T044917123Z-", "20261201T04491712ZZ", "2026120éT04491712Z"]
        {
            assert!(wrong.parse::<FrameId>().is_err(), "{wrong}");
            assert!(serde_json::from_value::<FrameId>(wrong.into()).is_err(), "{wrong}");
        }
    }
}
