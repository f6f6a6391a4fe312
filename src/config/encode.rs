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
    /// The first encoder that works on this machine, tried in this order: nvenc, vaapi, v4l2, x264, openh264.
    Auto,
    /// NVENC of NVIDIA GPUs.
    Nvenc,
    /// VA-API on GPUs of Intel and AMD.
    Vaapi,
    /// V4L2 on Raspberry Pi, NVIDIA Jetson and other boards.
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

/// How the stream is encoded. It is encoded once for all viewers, recordings and pushes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct EncodeConfig {
    /// The H.264 encoder.
    pub encoder: EncoderChoice,
    /// Constant bitrate in kbit/s, at least 50; 0 = constant quality, with a limit chosen from frame size and frame rate.
    #[schemars(range(min = 0, max = 200_000), extend("x-check" = "bitrate"))]
    pub bitrate: u32,
    /// Speed preset: a slower one gives better quality at the same bitrate and needs more computing time. The names are
    /// those of x264; other encoders use their nearest preset. `auto` = the preset of the encoder for low delay (x264:
    /// `ultrafast` with deblocking filter).
    #[schemars(extend("enum" = presets()))]
    pub preset: String,
    /// Maximum time between two keyframes. Further keyframes are inserted when viewers connect.
    #[serde(with = "super::duration")]
    #[schemars(with = "super::duration::DurationText", extend("x-least" = "100ms", "x-most" = "1m"))]
    pub keyframe_interval: Duration,
    /// JPEG quality of MJPEG and of snapshots; 100 is the best.
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
    let help = Some("kbit/s; 0 is constant quality, with a limit by frame size and rate");
    let bitrate = value.integer(0..=200_000, help)?;
    // x264 and NVENC make no frames of less.
    if (1..50).contains(&bitrate) {
        return value.fail(format!("{bitrate} is less than 50"), help);
    }
    Some(bitrate.into())
}
