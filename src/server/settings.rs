//! A stream's settings as the API says and takes them: the keys of `[[stream]]` in the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::config::{
    Container, EncodeConfig, EncoderChoice, OverlayConfig, RecordConfig, Show, SourceSpec, SourceUri, StreamConfig,
    Style, Transport, duration_text, hex,
};

/// The settings of a stream, with the keys of `[[stream]]` in the configuration file. Answers hold what is in force, with
/// defaults filled in and without secrets; in requests, what is left out stays as it is, and null takes a key out.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamSettings)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Letters, digits, - and _; part of the stream's addresses. It cannot be changed.
    #[schema(example = "gate", max_length = 64)]
    name: Option<String>,
    /// Where frames come from. Answers leave out what may be secret in it.
    #[schema(example = "rtsp://10.0.0.7/stream1")]
    source: Option<String>,
    show: Option<Show>,
    /// `full-rate`: a mask that is older is not drawn.
    #[schema(example = "1s")]
    max_mask_age: Option<String>,
    /// Frames that are older are dropped.
    #[schema(example = "1s")]
    max_latency: Option<String>,
    /// No frame for this long is a fault.
    #[schema(example = "3s")]
    silence_timeout: Option<String>,
    /// Files: start again at the end.
    #[serde(rename = "loop", skip_serializing_if = "Option::is_none")]
    looped: Option<bool>,
    /// Files: `real-time` or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<Transport>,
    /// RTSP: how long packets may wait for late ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "100ms")]
    latency: Option<String>,
    /// RTSP and HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// In requests: a file beside the configuration file whose name ends in `.password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "gate.password")]
    password_file: Option<String>,
    /// In requests: an environment variable whose name ends in `_PASSWORD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "GATE_PASSWORD")]
    password_env: Option<String>,
    overlay: Option<OverlaySettings>,
    encode: Option<EncodeSettings>,
    record: Option<RecordSettings>,
}

/// How the mask is drawn: `[stream.overlay]`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OverlaySettings {
    style: Option<Style>,
    /// 0 is invisible, 1 is opaque.
    #[schema(minimum = 0, maximum = 1, example = 0.45)]
    alpha: Option<f64>,
    /// Classes that are not drawn.
    #[schema(example = json!(["sky"]))]
    hide: Option<Vec<String>>,
    /// Draw names and colours of the visible classes into the picture.
    legend: Option<bool>,
    /// Colours other than the model's, `#rrggbb`.
    #[schema(example = json!({"car": "#ff0000"}))]
    colors: Option<BTreeMap<String, Option<String>>>,
}

/// `[stream.encode]`
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EncodeSettings {
    encoder: Option<EncoderChoice>,
    /// kbit/s; 0 is by picture size and rate.
    #[schema(maximum = 200_000, example = 0)]
    bitrate: Option<u32>,
    /// x264's speed preset.
    #[schema(example = "ultrafast")]
    preset: Option<String>,
    /// Distance of keyframes.
    #[schema(example = "2s")]
    keyframe_interval: Option<String>,
    /// Of MJPEG pictures.
    #[schema(minimum = 1, maximum = 100, example = 80)]
    jpeg_quality: Option<u32>,
}

/// `[stream.record]`
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordSettings {
    /// The folder for recordings.
    #[schema(value_type = Option<String>, example = "/var/lib/maskcast/gate")]
    dir: Option<PathBuf>,
    format: Option<Container>,
}

impl From<&StreamConfig> for Settings {
    fn from(config: &StreamConfig) -> Self {
        let StreamConfig { name, source, show, overlay, encode, record, .. } = config;
        let SourceSpec { looped, real_time, transport, latency, credentials, .. } = source;
        let is_file = matches!(source.uri, SourceUri::File(_));
        let is_rtsp = matches!(source.uri, SourceUri::Rtsp(_));
        Settings {
            name: Some(name.clone()),
            source: Some(source.label()),
            show: Some(*show),
            max_mask_age: Some(duration_text(config.max_mask_age)),
            max_latency: Some(duration_text(config.max_latency)),
            silence_timeout: Some(duration_text(config.silence_timeout)),
            looped: is_file.then_some(*looped),
            speed: is_file.then_some(if *real_time { "real-time" } else { "max" }),
            transport: is_rtsp.then_some(*transport),
            latency: is_rtsp.then(|| duration_text(*latency)),
            user: credentials.as_ref().map(|credentials| credentials.user.clone()).filter(|user| !user.is_empty()),
            password_file: None,
            password_env: None,
            overlay: Some(overlay.into()),
            encode: Some(encode.into()),
            record: record.as_ref().map(RecordSettings::from),
        }
    }
}

impl From<&OverlayConfig> for OverlaySettings {
    fn from(overlay: &OverlayConfig) -> Self {
        let color = |(name, color): &(String, _)| (name.clone(), Some(hex(*color)));
        OverlaySettings {
            style: Some(overlay.style),
            alpha: Some(overlay.alpha_exact()),
            hide: overlay.hide.clone(),
            legend: Some(overlay.legend),
            colors: Some(overlay.colors.iter().map(color).collect()),
        }
    }
}

impl From<&EncodeConfig> for EncodeSettings {
    fn from(encode: &EncodeConfig) -> Self {
        EncodeSettings {
            encoder: Some(encode.encoder),
            bitrate: Some(encode.bitrate),
            preset: Some(encode.preset.clone()),
            keyframe_interval: Some(duration_text(encode.keyframe_interval)),
            jpeg_quality: Some(encode.jpeg_quality),
        }
    }
}

impl From<&RecordConfig> for RecordSettings {
    fn from(record: &RecordConfig) -> Self {
        RecordSettings { dir: Some(record.dir.clone()), format: Some(record.format) }
    }
}

/// The settings of a stream that is added: the same, and two of them are needed.
pub(super) struct NewStream;

impl PartialSchema for NewStream {
    fn schema() -> RefOr<Schema> {
        let mut schema = Settings::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required = vec!["name".into(), "source".into()];
            object.description = Some("The settings of another stream, with the keys of `[[stream]]`.".into());
        }
        schema
    }
}

impl ToSchema for NewStream {
    fn name() -> std::borrow::Cow<'static, str> {
        "NewStream".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Settings::schemas(schemas);
    }
}
