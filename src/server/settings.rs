//! A stream's settings as the API says and takes them: the keys of `[[stream]]` in the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::config::{
    Container, Credentials, EncodeConfig, EncoderChoice, EventConfig, OverlayConfig, PushConfig, RecordConfig, Show,
    SourceSpec, SourceUri, StreamConfig, Style, Transport, When, duration_text, hex,
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
    /// Never in answers. In requests only null, which takes it out: a password is written into the source's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    password_file: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    password_env: Option<String>,
    /// `rtsps` and `https`: a PEM file of authorities. In requests only null, which takes it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = json!(null))]
    tls_ca: Option<PathBuf>,
    /// `rtsps`: SHA-256 of the camera's certificate, which is trusted then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    tls_fingerprint: Option<String>,
    overlay: Option<OverlaySettings>,
    encode: Option<EncodeSettings>,
    record: Option<RecordSettings>,
    /// Media servers that get the stream as well. Only in answers: they are set in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    push: Option<Vec<PushSettings>>,
}

/// `[[stream.push]]`
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PushSettings {
    /// Without what may be secret in it.
    #[schema(example = "rtsp://10.0.0.9/gate")]
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
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
    /// Speed preset, as x264 names them; `auto` is each encoder's own for low delay.
    #[schema(example = "auto")]
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
    /// The folder for recordings. In requests one inside a folder that is recorded to already, or inside the service's own.
    #[schema(value_type = Option<String>, example = "/var/lib/maskcast/gate")]
    dir: Option<PathBuf>,
    format: Option<Container>,
    /// A file that is this long is followed by another.
    #[schema(example = "10m")]
    segment: Option<String>,
    /// Bytes after which a file is followed by another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100_000)]
    segment_size: Option<u64>,
    /// Recordings that began longer ago are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7d")]
    max_age: Option<String>,
    /// Bytes that the stream's recordings may have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100_000)]
    max_size: Option<u64>,
    /// Bytes that stay free on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100_000)]
    min_free: Option<u64>,
    when: Option<When>,
    event: Option<Vec<EventSettings>>,
}

/// `[[stream.record.event]]`: classes that cover enough of a zone for long enough.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventSettings {
    /// Part of the names of its files.
    #[schema(example = "event", max_length = 32)]
    name: Option<String>,
    #[schema(example = json!(["person"]))]
    classes: Vec<String>,
    /// Corners of a polygon in fractions of the picture's width and height; the whole picture where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<f64>>>, example = json!([[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]))]
    zone: Option<Vec<[f64; 2]>>,
    /// The least share of the zone's pixels.
    #[schema(minimum = 0.0001, maximum = 1, example = 0.02)]
    share: Option<f64>,
    /// For how long.
    #[serde(rename = "for")]
    #[schema(example = "2s")]
    hold: Option<String>,
    /// What is recorded from before.
    #[schema(example = "5s")]
    pre_roll: Option<String>,
    /// What is recorded after they were last seen.
    #[schema(example = "10s")]
    post_roll: Option<String>,
}

impl From<&StreamConfig> for Settings {
    fn from(config: &StreamConfig) -> Self {
        let StreamConfig { name, source, show, overlay, encode, record, push, .. } = config;
        let SourceSpec { looped, real_time, transport, latency, credentials, tls_ca, tls_fingerprint, .. } = source;
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
            user: user(credentials.as_ref()),
            password_file: None,
            password_env: None,
            tls_ca: tls_ca.clone(),
            tls_fingerprint: tls_fingerprint.map(|fingerprint| fingerprint.to_string()),
            overlay: Some(overlay.into()),
            encode: Some(encode.into()),
            record: record.as_ref().map(RecordSettings::from),
            push: Some(push.iter().map(PushSettings::from).collect()).filter(|push: &Vec<_>| !push.is_empty()),
        }
    }
}

fn user(credentials: Option<&Credentials>) -> Option<String> {
    credentials.map(|credentials| credentials.user.clone()).filter(|user| !user.is_empty())
}

impl From<&PushConfig> for PushSettings {
    fn from(push: &PushConfig) -> Self {
        PushSettings { url: push.target.label(), user: user(push.credentials.as_ref()) }
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
        RecordSettings {
            dir: Some(record.dir.clone()),
            format: Some(record.format),
            segment: Some(duration_text(record.segment)),
            segment_size: record.segment_size,
            max_age: record.max_age.map(duration_text),
            max_size: record.max_size,
            min_free: record.min_free,
            when: Some(record.when),
            event: Some(record.events.iter().map(EventSettings::from).collect()),
        }
    }
}

impl From<&EventConfig> for EventSettings {
    fn from(event: &EventConfig) -> Self {
        EventSettings {
            name: Some(event.name.clone()),
            classes: event.classes.clone(),
            zone: Some(event.zone.clone()).filter(|zone| !zone.is_empty()),
            share: Some(event.share),
            hold: Some(duration_text(event.hold)),
            pre_roll: Some(duration_text(event.pre_roll)),
            post_roll: Some(duration_text(event.post_roll)),
        }
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
