//! `stream.gate`: whether the model runs for frames in which nothing has moved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether the model runs for frames in which nothing has moved (`stream.gate`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MotionGate {
    /// While nothing moves, the last mask is confirmed for each frame, and the model runs once a second.
    #[default]
    Auto,
    /// The model runs for each mask.
    Off,
}
