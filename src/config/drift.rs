//! `[stream.drift]`: when a camera counts as changed.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::DurationText;

/// When a camera counts as changed: it was turned, its lens is dirty or out of focus, the light is another.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-applies" = "restarts-stream"))]
pub struct DriftConfig {
    /// How long the picture must be another before the camera counts as changed.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "3s", "x-most" = "1h"))]
    pub window: Duration,
    /// How long the camera is watched at first, to learn what it looks like.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "3s", "x-most" = "7d"))]
    pub settle: Duration,
}

impl Default for DriftConfig {
    /// A minute, after half an hour.
    fn default() -> Self {
        DriftConfig { window: Duration::from_secs(60), settle: Duration::from_secs(1800) }
    }
}
