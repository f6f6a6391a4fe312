//! `smooth` of `[stream.overlay]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long the model must give a pixel a new class before the drawn class changes, where nothing moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Smooth {
    /// Masks are drawn without smoothing.
    Off,
    /// 0.3 s, at least 3 and at most 8 masks.
    Light,
    /// 0.6 s, at least 5 and at most 15 masks.
    #[default]
    Normal,
    /// 1.2 s, at least 8 and at most 30 masks.
    Strong,
}

impl Smooth {
    pub const ALL: [Smooth; 4] = [Smooth::Off, Smooth::Light, Smooth::Normal, Smooth::Strong];

    /// The name in the configuration and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Smooth::Off => "off",
            Smooth::Light => "light",
            Smooth::Normal => "normal",
            Smooth::Strong => "strong",
        }
    }
}
