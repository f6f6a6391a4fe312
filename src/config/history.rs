//! `[history]`: events and minute means in a database file.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Section;
use super::duration::DurationText;
use super::size::SizeText;
use crate::base::paths::state_folders;

/// The events of all streams, and the share of each class in each minute, in the database file `history.sqlite`. Without a
/// folder, nothing is stored.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-applies" = "restart"))]
pub struct HistoryConfig {
    /// Whether events and shares are stored.
    pub enabled: bool,
    /// The folder of the database.
    #[serde(with = "super::path::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend(
        "x-check" = "folder",
        "x-default" = "`$STATE_DIRECTORY` (set by systemd), else none",
    ))]
    pub dir: Option<PathBuf>,
    /// Maximum age of what is stored. What is older is deleted.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "1h", "x-most" = "36600d"))]
    pub keep: Duration,
    /// Maximum size of the database file. When it is larger, the oldest events and minutes are deleted. Files of SQLite beside
    /// it have at most a few megabytes more.
    #[schemars(with = "SizeText", extend("x-default" = "`1GB`"))]
    pub max_size: u64,
}

impl Default for HistoryConfig {
    /// Thirty days and a gigabyte, in no folder.
    fn default() -> Self {
        HistoryConfig { enabled: true, dir: None, keep: Duration::from_secs(30 * 86_400), max_size: 1_000_000_000 }
    }
}

impl HistoryConfig {
    /// Adds the folder that depends on the environment.
    pub(super) fn apply_dependent_defaults(&mut self, section: &Section) {
        if !section.is_written("dir") {
            let list = section.doc().env("STATE_DIRECTORY").unwrap_or_default();
            self.dir = state_folders(list.as_ref()).next();
        }
    }

    /// The folder of the database, if there is to be one.
    pub fn folder(&self) -> Option<&PathBuf> {
        self.dir.as_ref().filter(|_| self.enabled)
    }
}
