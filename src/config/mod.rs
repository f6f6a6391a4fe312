//! The configuration: TOML text → validated [`Config`]; all errors at once, each with its key path.
//!
//! A `Config` that exists is valid: files it names are there, names are unique, addresses parse, colours are colours.
//! Stages take their settings from these types and never look at TOML.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

pub use crate::base::secret::Secret;
pub use crate::frame::Rgb;

mod allowed;
mod array;
mod defaults;
mod duration;
mod edit;
mod error;
mod fingerprint;
mod load;
mod overlay;
mod push;
mod reader;
mod record;
mod server;
mod source;
mod store;
mod stream;
mod uri;
mod webrtc;
mod written;

#[cfg(test)]
mod tests;

pub use allowed::{ApiSources, SourceHost};
pub use defaults::defaults_stream;
pub use duration::show as duration_text;
pub use edit::{Edit, EditError, Object, edit, unknown_nulls};
pub use error::{ConfigError, ConfigErrors};
pub use fingerprint::CertificateFingerprint;
pub use load::{folder_of, load, parse, parse_partly, read};
pub use overlay::{hex, overlay_difference, overlay_object, patched_overlay};
pub use push::{PushConfig, PushTarget};
pub use record::{Container, EventConfig, RecordConfig, When};
pub use server::{ServerConfig, TlsConfig, users_file};
pub use source::{Credentials, SourceSpec, SourceUri, TestSource, Transport};
pub use store::{Replaced, StoreError, replace};
pub(crate) use uri::is_secret_name;
pub use webrtc::{TurnServer, WebRtcConfig};
pub use written::readable_passwords;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub model: ModelConfig,
    pub server: ServerConfig,
    /// In file order; names are unique; at least one.
    pub streams: Vec<StreamConfig>,
}

/// Where inference may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    TensorRt,
    Cuda,
    Cpu,
}

impl Provider {
    pub const ALL: [Provider; 3] = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];

    /// The name in the configuration, in metrics and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        }
    }
}

/// What the operator insists on (`model.require`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// Whatever works.
    Any,
    /// Refuse to start on the CPU.
    Gpu,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The ONNX file; `models/street.onnx` beside or above the program when not given.
    pub path: PathBuf,
    /// Tried in this order; default `["tensorrt", "cuda", "cpu"]`.
    pub providers: Vec<Provider>,
    /// The configuration names them: what cannot be had is missed by somebody.
    pub providers_named: bool,
    pub require: Require,
    /// Cores that ONNX Runtime may use on the CPU; 0 = all.
    pub threads: usize,
    /// CPU sessions that run side by side, sharing `threads`; 0 = measure at start and choose.
    pub workers: usize,
    /// Frames of different streams that share one run when they wait together, at most.
    /// 0 = 1. On a GPU every run has as many: grey pictures fill it up.
    pub max_batch: usize,
    /// GPU number.
    pub device: i32,
    /// Where TensorRT engines are kept; default `$CACHE_DIRECTORY` (systemd) or none.
    pub cache_dir: Option<PathBuf>,
    /// `libonnxruntime.so`, when it is not where Maskcast looks by itself.
    pub runtime: Option<PathBuf>,
}

/// Which mask is drawn on which frame (`stream.show`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Show {
    /// Every published frame carries its own mask; frames that the model has no time for are dropped.
    Matched,
    /// Every captured frame is published with the newest mask that is not older than `max_mask_age`.
    FullRate,
}

/// `[[stream]]`
#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    /// Letters, digits, `-` and `_`; unique; part of addresses.
    pub name: String,
    pub source: SourceSpec,
    /// Default `full-rate` for live sources, `matched` for files played as fast as possible.
    pub show: Show,
    /// `full-rate`: a mask older than this is not drawn and the stream counts as stale. Default 1 s.
    pub max_mask_age: Duration,
    /// A live frame older than this is dropped, not shown; so are those after it, until they are new again. Default 1 s.
    pub max_latency: Duration,
    /// No frame for this long is a fault. Default 3 s.
    pub silence_timeout: Duration,
    pub overlay: OverlayConfig,
    pub encode: EncodeConfig,
    pub record: Option<RecordConfig>,
    /// Media servers that get the stream as well.
    pub push: Vec<PushConfig>,
}

impl StreamConfig {
    /// Whether `other` is the same stream, drawn by other settings.
    pub fn differs_by_overlay(&self, other: &StreamConfig) -> bool {
        self.overlay != other.overlay && *other == StreamConfig { overlay: other.overlay.clone(), ..self.clone() }
    }
}

/// How the mask is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// Class colours blended over the picture.
    Tint,
    /// Lines along class borders.
    Contour,
    /// Class colours alone.
    MaskOnly,
}

/// `[stream.overlay]`
#[derive(Clone, Debug, PartialEq)]
pub struct OverlayConfig {
    pub style: Style,
    /// 0 = invisible, 1 = opaque. Default 0.45.
    pub alpha: f32,
    /// Labels of classes that are not drawn. Checked against the model when it is loaded. When nothing is said, that is a
    /// class called background: drawn, it would lie on everything that nobody asked for.
    pub hide: Option<Vec<String>>,
    /// Draw names and colours of the visible classes into the picture. Default true.
    pub legend: bool,
    /// `colors = { car = "#ff0000" }`: instead of the model's colours.
    pub colors: Vec<(String, Rgb)>,
}

impl Style {
    pub const ALL: [Style; 3] = [Style::Tint, Style::Contour, Style::MaskOnly];

    /// The name in the configuration and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Style::Tint => "tint",
            Style::Contour => "contour",
            Style::MaskOnly => "mask-only",
        }
    }
}

impl OverlayConfig {
    /// Whether the class of this name is not drawn.
    pub fn hides(&self, name: &str) -> bool {
        match &self.hide {
            Some(hidden) => hidden.iter().any(|hidden| hidden == name),
            None => name.eq_ignore_ascii_case("background"),
        }
    }
}

/// Which H.264 encoder (`stream.encode.encoder`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncoderChoice {
    /// The first that works: nvenc, vaapi, v4l2, x264, openh264.
    Auto,
    Nvenc,
    /// VA-API: GPUs of Intel and AMD.
    Vaapi,
    /// V4L2: Raspberry Pi, NVIDIA Jetson, other boards.
    V4l2,
    X264,
    OpenH264,
}

/// Speed presets of x264 (`x264 --preset`), fastest first.
pub const PRESETS: [&str; 10] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"];

/// `[stream.encode]`
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeConfig {
    pub encoder: EncoderChoice,
    /// kbit/s; 0 = by picture size and rate.
    pub bitrate: u32,
    /// One of [`PRESETS`], which other encoders than x264 spread over their own; default `auto`, each encoder's own for low
    /// delay, which is `ultrafast` for x264.
    pub preset: String,
    /// Distance of keyframes. Default 2 s.
    pub keyframe_interval: Duration,
    /// Quality of MJPEG pictures, 1–100. Default 80.
    pub jpeg_quality: u32,
}
