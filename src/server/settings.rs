//! The settings of a stream in requests and responses: the keys of `[[stream]]` in the configuration file.
//!
//! In the description of a field, ` Default: ` and ` Range: ` begin what the reference of the API shows in a column of its own.
//! The defaults are not part of the schema: a client made from it could send them with each change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::config::{
    Container, Credentials, EncodeConfig, EncoderChoice, EventConfig, OverlayConfig, PushConfig, RecordConfig, Show,
    SourceSpec, SourceUri, StreamConfig, Style, Transport, When, duration_text, hex,
};

/// The settings of a stream, with the keys of `[[stream]]` in the configuration file. Responses contain the settings in effect,
/// with defaults and without secrets. In a change, keys that are absent keep their value, and null deletes a key, so that its
/// default applies.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamSettings)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Name of the stream: letters, digits, `-` and `_`. Part of its addresses. It cannot be changed.
    #[schema(example = "gate", max_length = 64)]
    name: Option<String>,
    /// URL of the source. It may contain a user and a password (`rtsp://USER:PASSWORD@HOST/PATH`); responses omit them. The
    /// API accepts the schemes and addresses that `server.api_sources` allows: by default `rtsp`, `rtsps`, `srt`, `http`,
    /// `https` and `test`, and no addresses of the service's machine or its link. Range: at most 4096 bytes.
    #[schema(example = "rtsp://10.0.0.7/stream1")]
    source: Option<String>,
    /// Which mask is drawn on which frame. `full-rate`: every frame is published with the newest mask. `matched`: each frame
    /// is published with its own mask; frames that the model has no time for are dropped. Default: `full-rate`; `matched`
    /// for a file with `speed` `max`.
    show: Option<Show>,
    /// With `show` `full-rate`: a mask that is older is not drawn, and the stream is `stale`. Default: `1s`. Range: 50 ms to
    /// 60 s.
    #[schema(example = "1s")]
    max_mask_age: Option<String>,
    /// Frames of live sources that are older are dropped. Default: `1s`. Range: 200 ms to 60 s.
    #[schema(example = "1s")]
    max_latency: Option<String>,
    /// If the source sends no frame for this time, it is treated as failed and the connection is opened again. Default:
    /// `3s`. Range: 500 ms to 1 h.
    #[schema(example = "3s")]
    silence_timeout: Option<String>,
    /// Only for files: whether playback starts again at the end. Default: `false`.
    #[serde(rename = "loop", skip_serializing_if = "Option::is_none")]
    looped: Option<bool>,
    /// Only for files: `real-time`, or `max` for as fast as possible. Default: `real-time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<&'static str>,
    /// Only for RTSP: `tcp` receives video in the RTSP connection, `udp` in separate packets with less delay but possible
    /// loss, `auto` tries UDP first and then TCP. Default: `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<Transport>,
    /// Only for RTSP: how long received packets wait for delayed ones. Default: `100ms`. Range: 0 s to 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "100ms")]
    latency: Option<String>,
    /// Only for RTSP and HTTP: user name for the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// File with the password for the source. Absent from responses. Requests accept only null, which deletes the key; a
    /// password is set in the URL of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    password_file: Option<String>,
    /// Environment variable with the password for the source. Absent from responses. Requests accept only null, which
    /// deletes the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    password_env: Option<String>,
    /// Only for `rtsps` and `https`: PEM file with trusted certificate authorities. Requests accept only null, which deletes
    /// the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = json!(null))]
    tls_ca: Option<PathBuf>,
    /// Only for `rtsps`: SHA-256 fingerprint of the camera's certificate, 64 hexadecimal digits. A certificate with this
    /// fingerprint is trusted without an authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    tls_fingerprint: Option<String>,
    /// How masks are drawn.
    overlay: Option<OverlaySettings>,
    /// How video is encoded.
    encode: Option<EncodeSettings>,
    /// How the stream is recorded; null or absent if it is not recorded.
    record: Option<RecordSettings>,
    /// Media servers that the stream is sent to. Only in responses: they can be set only in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    push: Option<Vec<PushSettings>>,
}

/// A media server that a stream is sent to: `[[stream.push]]`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PushSettings {
    /// URL of the media server, without passwords and other secrets.
    #[schema(example = "rtsp://10.0.0.9/gate")]
    url: String,
    /// User name for the media server.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

/// How masks are drawn: `[stream.overlay]`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OverlaySettings {
    /// `tint`: class colours are blended over the frame. `contour`: lines along the borders of classes. `mask-only`: class
    /// colours without the frame. Default: `tint`.
    style: Option<Style>,
    /// Opacity of the class colours: 0 is invisible, 1 is opaque. Default: `0.45`.
    #[schema(minimum = 0, maximum = 1, example = 0.45)]
    alpha: Option<f64>,
    /// Names of the classes that are not drawn. Default: the class `background`, if the model has one.
    #[schema(example = json!(["sky"]))]
    hide: Option<Vec<String>>,
    /// Whether a legend with names and colours of the visible classes is drawn into the frame. Default: `true`.
    legend: Option<bool>,
    /// Colours that replace those of the model: class name to `#rrggbb`; in a change, null restores the model's colour.
    #[schema(example = json!({"car": "#ff0000"}))]
    colors: Option<BTreeMap<String, Option<String>>>,
}

/// How video is encoded: `[stream.encode]`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EncodeSettings {
    /// The H.264 encoder. `nvenc`: NVIDIA GPUs. `vaapi`: GPUs of Intel and AMD. `v4l2`: Raspberry Pi, NVIDIA Jetson and other
    /// boards. `x264` and `openh264`: the CPU. `auto`: the first of these that works. Default: `auto`.
    encoder: Option<EncoderChoice>,
    /// Bit rate in kbit/s, at least 50; 0 computes it from frame size and frame rate. Default: `0`.
    #[schema(maximum = 200_000, example = 0)]
    bitrate: Option<u32>,
    /// Speed preset with a name of x264, from `ultrafast` to `placebo`; other encoders use their nearest preset. `auto` is the
    /// preset of the encoder for low delay. Default: `auto`.
    #[schema(example = "auto")]
    preset: Option<String>,
    /// Time between keyframes. Default: `2s`. Range: 100 ms to 60 s.
    #[schema(example = "2s")]
    keyframe_interval: Option<String>,
    /// JPEG quality of MJPEG and snapshots. Default: `80`.
    #[schema(minimum = 1, maximum = 100, example = 80)]
    jpeg_quality: Option<u32>,
}

/// How a stream is recorded: `[stream.record]`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordSettings {
    /// Folder for the recordings. Requests accept a folder inside one that the configuration file names already, or inside the
    /// service's state folder (`/var/lib/maskcast`).
    #[schema(value_type = Option<String>, example = "/var/lib/maskcast/gate")]
    dir: Option<PathBuf>,
    /// Container format: `mp4` (fragmented while it is written) or `mkv`. Default: `mp4`.
    format: Option<Container>,
    /// Length at which a new file is started. Default: `10m`. Range: 1 s to 24 h.
    #[schema(example = "10m")]
    segment: Option<String>,
    /// Size in bytes at which a new file is started. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100_000)]
    segment_size: Option<u64>,
    /// Recordings that started longer ago are deleted. Default: no limit. Range: 1 min to 100 years.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7d")]
    max_age: Option<String>,
    /// Total size of the stream's recordings in bytes; the oldest are deleted. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100_000)]
    max_size: Option<u64>,
    /// Free space on the disk in bytes. The oldest recordings are deleted to keep it; if none is left, recording pauses.
    /// Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100_000)]
    min_free: Option<u64>,
    /// `always`, or `event`: from before the start of an event until after its end. Default: `always`.
    when: Option<When>,
    /// Events that start a recording if `when` is `event`. Requests replace the whole list.
    event: Option<Vec<EventSettings>>,
}

/// An event: classes that cover a given share of a zone for a given time. `[[stream.record.event]]`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventSettings {
    /// Name of the event: a letter, then letters, digits, `-` and `_`. Part of the file names of its recordings. Default:
    /// `event`, then `event2` and so on.
    #[schema(example = "event", max_length = 32)]
    name: Option<String>,
    /// Names of the classes.
    #[schema(example = json!(["person"]))]
    classes: Vec<String>,
    /// Corners of a polygon as `[x, y]`, in fractions of the frame's width and height, 0 to 1; at least 3. Default: the whole
    /// frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Vec<f64>>>, example = json!([[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]))]
    zone: Option<Vec<[f64; 2]>>,
    /// Minimum share of the zone's pixels that have one of the classes. Default: `0.02`.
    #[schema(minimum = 0.0001, maximum = 1, example = 0.02)]
    share: Option<f64>,
    /// How long the share must be reached. Default: `2s`. Range: 0 s to 10 min.
    #[serde(rename = "for")]
    #[schema(example = "2s")]
    hold: Option<String>,
    /// Length of the recording before the event. Default: `5s`. Range: 0 s to 60 s.
    #[schema(example = "5s")]
    pre_roll: Option<String>,
    /// Length of the recording after the classes were last detected. Default: `10s`. Range: 0 s to 1 h.
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

/// The settings of a new stream: those of [`Settings`], of which `name` and `source` are required.
pub(super) struct NewStream;

impl PartialSchema for NewStream {
    fn schema() -> RefOr<Schema> {
        let mut schema = Settings::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required = vec!["name".into(), "source".into()];
            object.description =
                Some("The settings of a new stream, with the keys of `[[stream]]` in the configuration file.".into());
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
