//! `smooth` of `[stream.overlay]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a class must hold before a pixel that does not move changes to it in the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Smooth {
    /// Each mask is drawn as the model made it.
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
