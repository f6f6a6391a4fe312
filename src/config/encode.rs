//! `[stream.encode]`: how the stream is encoded.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::value::Value;

/// Which H.264 encoder (`stream.encode.encoder`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncoderChoice {
    /// The first that works, in this order: nvenc, vaapi, v4l2, x264, openh264.
    Auto,
    /// NVIDIA GPUs.
    Nvenc,
    /// VA-API: GPUs of Intel and AMD.
    Vaapi,
    /// V4L2: Raspberry Pi, NVIDIA Jetson, other boards.
    V4l2,
    /// x264, on the CPU.
    X264,
    /// OpenH264, on the CPU.
    OpenH264,
}

/// Speed presets of x264 (`x264 --preset`), fastest first.
pub const PRESETS: [&str; 10] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"];

fn presets() -> Vec<&'static str> {
    std::iter::once("auto").chain(PRESETS).collect()
}

/// How the stream is encoded, once for all viewers, recordings and pushes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct EncodeConfig {
    /// Which H.264 encoder.
    pub encoder: EncoderChoice,
    /// kbit/s, from 50; 0 = chosen by frame size and rate.
    #[schemars(range(min = 0, max = 200_000), extend("x-check" = "bitrate"))]
    pub bitrate: u32,
    /// Speed preset of x264; mapped to the presets of other encoders. `auto`: the low-delay setting of each encoder, which is
    /// `ultrafast` for x264.
    #[schemars(extend("enum" = presets()))]
    pub preset: String,
    /// Time between two keyframes.
    #[serde(with = "super::duration")]
    #[schemars(with = "super::duration::DurationText", extend("x-least" = "100ms", "x-most" = "1m"))]
    pub keyframe_interval: Duration,
    /// Quality of MJPEG and of snapshots.
    #[schemars(range(min = 1, max = 100), extend("x-help" = "100 is the best"))]
    pub jpeg_quality: u32,
}

impl Default for EncodeConfig {
    fn default() -> Self {
        EncodeConfig {
            encoder: EncoderChoice::Auto,
            bitrate: 0,
            preset: "auto".into(),
            keyframe_interval: Duration::from_secs(2),
            jpeg_quality: 80,
        }
    }
}

pub(super) fn read_bitrate(value: &Value) -> Option<Json> {
    let help = Some("kbit/s; 0 is chosen by frame size and rate");
    let bitrate = value.integer(0..=200_000, help)?;
    // x264 and NVENC make no frames of less.
    if (1..50).contains(&bitrate) {
        return value.fail(format!("{bitrate} is less than 50"), help);
    }
    Some(bitrate.into())
}
