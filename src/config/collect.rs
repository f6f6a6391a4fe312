//! `[stream.collect]`: frames that are collected for training.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Section;
use super::duration::DurationText;
use super::size::SizeText;

/// Collects frames of the stream for training, with the mask of the model as a proposal for their label. Without this table,
/// nothing is collected. Frames are stored unredacted. The API cannot set it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "CollectConfig::nowhere")]
#[schemars(extend("required" = ["folder"], "x-applies" = "restarts-stream", "x-api" = "never"))]
pub struct CollectConfig {
    /// The folder for collected frames. Those of this stream are in its subfolder with the name of the stream.
    #[serde(with = "super::path")]
    #[schemars(with = "String", extend("x-check" = "folder", "x-help" = "the folder for collected frames"))]
    pub folder: PathBuf,
    /// Maximum number of frames that are collected in a day (UTC). They are distributed over the day; the first fifty frames of a
    /// stream come faster.
    #[schemars(range(min = 1, max = 100_000), extend("x-help" = "a number of frames, such as 100"))]
    pub per_day: u32,
    /// Minimum time between two frames.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "100ms", "x-most" = "1d"))]
    pub interval: Duration,
    /// Maximum size of the collection of the stream. When it is reached, the frames that are most like others are deleted, the oldest
    /// first, but none that was accepted or whose label was saved.
    #[schemars(with = "SizeText", extend("x-default" = "`2GB`"))]
    pub max_size: u64,
    /// Share of the frames that are selected at random. The others are those about which the model is most unsure, and those that differ
    /// most from what was collected before, in turn.
    #[schemars(range(min = 0, max = 1), extend("x-help" = "0 to 1; 0.1 is a tenth"))]
    pub random: f64,
    /// Whether frames are collected although the stream has `[stream.redact]`. They show everything that is hidden in the outputs.
    pub allow_redacted: bool,
}

impl CollectConfig {
    /// Collects into a folder, with the default settings.
    pub fn to(folder: impl Into<PathBuf>) -> Self {
        CollectConfig {
            folder: folder.into(),
            per_day: 100,
            interval: Duration::from_secs(10),
            max_size: 2_000_000_000,
            random: 0.1,
            allow_redacted: false,
        }
    }

    fn nowhere() -> Self {
        CollectConfig::to("")
    }

    /// The folder of the stream of this name.
    pub fn folder_of(&self, stream: &str) -> PathBuf {
        self.folder.join(stream)
    }

    /// Checks what concerns several keys. `section` is the table of the configuration.
    pub(super) fn check(&self, recordings: Option<&Path>, section: &Section) {
        if recordings.is_some_and(|recordings| recordings == self.folder) {
            let help = Some("give collected frames a folder of their own");
            section.fail("folder", "is also record.dir", help);
        }
    }
}
