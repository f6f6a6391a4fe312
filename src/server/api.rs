//! State of the streams and of the service, as JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use serde::{Serialize, Serializer};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::problem::Problem;
use super::rules::{self, RuleReport, ZoneReport};
use super::settings::Settings;
use super::{App, NamedStream, SharedApp};
use crate::base::encode_status::RunningEncode;
use crate::base::push_status::PushStatus;
use crate::base::sink_status::SinkStatus;
use crate::collect::stream_collection::StreamCollection;
use crate::config::{RedactStyle, Show, hex};
use crate::frame::Weight;
use crate::publish::frame_sinks::{FRAME_SINKS, viewers};
use crate::view::{LegendEntry, ServiceView, StreamView};

/// State, statistics and settings of a stream. Counters start at 0 when the stream is started or restarted by a change.
#[derive(Serialize, ToSchema)]
#[schema(as = Stream)]
pub(super) struct StreamReport {
    /// Name of the stream.
    #[schema(example = "gate")]
    name: String,
    /// `starting`: no frame since the stream started, or its model is loading. `live`: frames arrive, and masks too, unless nothing uses them (`masks_needed`). `stale`: frames arrive, but the
    /// newest mask is older than `max_mask_age` (plus 1/`mask_rate`). `waiting_for_keyframe`: the source sends video that cannot be decoded
    /// before its next keyframe. `offline`: no frames arrive.
    #[schema(example = "live")]
    state: &'static str,
    /// Captured frames that have been published or dropped: always `published + dropped`.
    captured: u64,
    /// Frames that were published with their overlay.
    published: u64,
    /// Captured frames that were not published.
    dropped: u64,
    /// Dropped frames by reason; reasons that have not occurred are absent. `segmenter_busy`: a newer frame replaced it
    /// before the model was free. `segment_failed`: the model failed. `overlay_busy`: a newer frame replaced it before the
    /// overlay was drawn. `encoder_busy`: the encoder had not finished earlier frames. `late`: older than `max_latency`.
    /// `output_failed`: the output did not accept it. `stopped`: the stream was stopped or restarted. `abandoned`: a stage
    /// ended without a result.
    #[schema(value_type = BTreeMap<String, u64>)]
    dropped_by_reason: BTreeMap<&'static str, u64>,
    /// Captured frames that are still being processed.
    in_flight: u64,
    /// Published frames per second, mean of the last two seconds.
    fps: f64,
    /// Whether something uses the masks of the stream. While nothing does and `masks` is `auto`, the model does not run for it.
    masks_needed: bool,
    /// Masks per second of the stream, mean of the last two seconds or of the last two masks; those that the motion gate confirmed
    /// included.
    masks_per_second: f64,
    /// Share of the masks of the last two seconds for which the model did not run, because nothing had moved (`gate`), 0 to 1.
    mask_runs_skipped_ratio: f64,
    /// Masks for which the model did not run, because nothing had moved (`gate`).
    masks_confirmed: u64,
    /// Age of the newest mask in milliseconds, since the frame was captured that it was made or confirmed for; null without a
    /// current mask.
    mask_age_ms: Option<f64>,
    /// Time from capture to publication in milliseconds, median of the last two seconds; null if no frame was published.
    latency_ms: Option<f64>,
    /// The H.264 encode; null while no viewer, recording or push needs it.
    h264: Option<EncodeReport>,
    /// When the stream entered its state (RFC 3339).
    since: String,
    /// Why the stream is `stale`, `waiting_for_keyframe` or `offline`; null in the other states.
    reason: Option<String>,
    /// Name of the model that makes the masks, as in `/api/v1/models/{name}`.
    #[schema(example = "default")]
    model: String,
    /// URL of the source, without passwords and other secrets.
    #[schema(example = "rtsp://10.0.0.7/stream1")]
    source: String,
    /// Which mask is drawn on which frame. `matched`: each frame with its own mask, other frames are dropped.
    /// `full-rate`: every frame with the newest mask.
    show: Show,
    /// Width of the frames in pixels; null before the first frame.
    width: Option<usize>,
    /// Height of the frames in pixels; null before the first frame.
    height: Option<usize>,
    viewers: Viewers,
    /// Media servers that the stream is sent to.
    pushes: Vec<PushReport>,
    /// Outputs of the masks as data (`[[stream.sink]]`).
    sinks: Vec<SinkReport>,
    /// Share of the pixels of each class in the newest mask, 0 to 1; null without a current mask.
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    shares: Option<BTreeMap<String, f64>>,
    /// The same in each zone of the stream.
    zones: Vec<ZoneReport>,
    /// The rules of the stream and its recorded events.
    rules: Vec<RuleReport>,
    /// The frames that are collected for training (`[stream.collect]`); null if none are.
    collect: Option<CollectReport>,
    /// What is hidden in the frames (`[stream.redact]`); null if nothing is.
    redaction: Option<RedactionReport>,
    /// When and how the configuration file has weakened the redaction of the stream in the last day, oldest first.
    redaction_weakened: Vec<WeakenedReport>,
    /// How often a stage of the stream panicked and was restarted.
    panics: u64,
    /// How often the connection to the source was closed and opened again because its frames stayed late.
    late_connections: u64,
    /// The classes of its model as the stream draws them; empty before the model is loaded.
    legend: Vec<LegendReport>,
    links: Links,
    /// The settings in effect, with defaults and without secrets.
    config: Settings,
}

/// The frames that are collected for training.
#[derive(Serialize, ToSchema)]
#[schema(as = Collect)]
struct CollectReport {
    /// Frames in the collection; null until it is opened.
    frames: Option<usize>,
    /// Frames that await review.
    waiting: Option<usize>,
    /// Frames that were accepted.
    accepted: Option<usize>,
    /// Size of the collection in bytes.
    bytes: Option<u64>,
    /// Frames that were collected today (UTC), of at most `collect.per_day`.
    today: u64,
    /// Failed attempts to store a frame since the service started.
    failures: u64,
    /// Why nothing is collected now; null while the collector works.
    reason: Option<String>,
}

/// The redaction of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = Redaction)]
struct RedactionReport {
    /// The classes that are hidden.
    classes: Vec<String>,
    /// `pixelate`: square cells of their mean colour. `blur`: the same with smooth transitions. `fill`: grey.
    #[schema(value_type = String)]
    style: RedactStyle,
    /// Frames that were hidden as a whole, because it was not known which pixels had to be hidden.
    hidden_frames: u64,
}

/// A change of the configuration file after which pixels may be visible that were hidden before.
#[derive(Serialize, ToSchema)]
#[schema(as = WeakenedRedaction)]
struct WeakenedReport {
    /// When (RFC 3339).
    at: String,
    /// What is weaker.
    #[schema(example = "[stream.redact] was removed, person can be visible")]
    change: String,
}

/// The H.264 encode of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = Encode)]
struct EncodeReport {
    /// The encoder, as in `encode.encoder`.
    #[schema(example = "x264")]
    encoder: &'static str,
    /// `quality`: the same quality for every frame, with at most `bitrate_limit`. `constant`: `bitrate_limit`, whatever the
    /// content.
    #[schema(example = "quality")]
    rate_control: &'static str,
    /// Measured bitrate in kbit/s, mean of the last four seconds; null in the first second.
    bitrate: Option<u32>,
    /// Maximum bitrate in kbit/s: `encode.bitrate`, or chosen by frame size and frame rate.
    bitrate_limit: u32,
}

/// The number of connected viewers by kind of output, in the order of [`FRAME_SINKS`].
struct Viewers(Vec<(&'static str, usize)>);

impl Serialize for Viewers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl PartialSchema for Viewers {
    fn schema() -> RefOr<Schema> {
        let mut viewers = ObjectBuilder::new()
            .description(Some("Number of connected viewers by protocol. Recordings and pushes are not counted."));
        for kind in FRAME_SINKS {
            let Some(count) = &kind.viewers else { continue };
            let number =
                ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).description(Some(count.about));
            viewers = viewers.property(kind.name, number).required(kind.name);
        }
        viewers.into()
    }
}

impl ToSchema for Viewers {}

/// A media server that the stream is sent to.
#[derive(Serialize, ToSchema)]
#[schema(as = Push)]
struct PushReport {
    /// URL of the media server, without passwords and other secrets.
    to: String,
    /// `connecting`, `live`, or `waiting` (for the next attempt to connect).
    state: &'static str,
    /// Why the last attempt failed; null in the other states.
    reason: Option<String>,
    /// Failed attempts and lost connections.
    failures: u64,
}

/// An output of the masks of a stream as data (`[[stream.sink]]`).
#[derive(Serialize, ToSchema)]
#[schema(as = Sink)]
struct SinkReport {
    /// Type of the sink: the key `type` of its table.
    #[serde(rename = "type")]
    #[schema(example = "jsonl")]
    kind: &'static str,
    /// The path or address of the sink, without secrets.
    #[schema(example = "/var/lib/maskcast/gate.jsonl")]
    sink: String,
    /// Masks that were written.
    written: u64,
    /// Masks that were dropped because the sink failed or was too slow.
    dropped: u64,
    /// Failed attempts to write a mask.
    failures: u64,
    /// Why the last attempt failed; null while the sink works.
    reason: Option<String>,
}

/// A class as the stream draws it.
#[derive(Serialize, ToSchema)]
#[schema(as = LegendEntry)]
struct LegendReport {
    /// Name of the class.
    name: String,
    /// Colour of the class, `#rrggbb`.
    #[schema(example = "#ff0000")]
    color: String,
    /// Whether the class is hidden (`overlay.hide`).
    hidden: bool,
    /// Whether the class stands for the rest of the frame (`background`, `other`, `void`, `unlabeled`), and is hidden without
    /// `overlay.hide`.
    rest: bool,
    /// How strongly the class is drawn: a factor of `overlay.alpha`, 0 (not drawn) to 1.
    #[schema(value_type = f64, minimum = 0, maximum = 1, example = 0.4)]
    weight: Weight,
}

/// Addresses of the stream.
#[derive(Serialize, ToSchema)]
struct Links {
    /// Path of the MJPEG response.
    mjpeg: String,
    /// RTSP URL, with the host name that the request was sent to.
    rtsp: String,
    /// Path for WebRTC viewers (WHEP).
    whep: String,
}

/// Name, version and uptime of the service, and what it offers.
#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
pub(super) struct VersionReport {
    /// Always `maskcast`.
    name: &'static str,
    /// Version of the program.
    version: &'static str,
    /// Seconds since the service started.
    uptime_s: f64,
    /// Whether the service stores a history: events, and the shares of the classes.
    history: bool,
}

/// List the streams
///
/// All streams, in the order of the configuration file.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    operation_id = "list_streams",
    tag = "streams",
    responses((status = 200, description = "The streams.", body = Vec<StreamReport>))
)]
pub(super) async fn streams(State(app): State<SharedApp>, headers: HeaderMap) -> Json<Vec<StreamReport>> {
    let rtsp = rtsp_base(&headers, &app);
    Json(app.view.streams().iter().map(|stream| report(stream, &app.view, &rtsp)).collect())
}

/// Show a stream
///
/// State, statistics and settings of one stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}",
    operation_id = "show_stream",
    tag = "streams",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 200, description = "The stream.", body = StreamReport),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
    )
)]
pub(super) async fn stream(named: NamedStream, headers: HeaderMap) -> Json<StreamReport> {
    let rtsp = rtsp_base(&headers, &named.app);
    Json(report(named.stream(), &named.app.view, &rtsp))
}

/// Show the version
///
/// Name and version of the program, how long the service has been running, and whether it has a history.
#[utoipa::path(
    get,
    path = "/api/v1/version",
    operation_id = "version",
    tag = "service",
    responses((status = 200, description = "Name, version and uptime.", body = VersionReport))
)]
pub(super) async fn version(State(app): State<SharedApp>) -> Json<VersionReport> {
    Json(VersionReport {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: tenths(app.view.started.elapsed().as_secs_f64()),
        history: app.view.history().is_some(),
    })
}

/// The report of the stream `name`.
pub(super) fn report_of(app: &App, name: &str, headers: &HeaderMap) -> Result<StreamReport, Problem> {
    let rtsp = rtsp_base(headers, app);
    match app.view.stream(name) {
        Some(stream) => Ok(report(&stream, &app.view, &rtsp)),
        None => Err(Problem::unknown_stream(name, &app.view.streams())),
    }
}

fn report(stream: &StreamView, view: &ServiceView, rtsp: &str) -> StreamReport {
    let labels = view.labels_of(&stream.config.model).unwrap_or_else(|| [].into());
    let status = &stream.status;
    // One snapshot each, so that the values agree.
    let (counts, condition) = (status.ledger.counts(), status.condition());
    let (fps, latency) = status.rate();
    let name = status.name.to_string();
    let (shares, zones) = rules::shares(stream);
    StreamReport {
        state: condition.state.name(),
        captured: counts.captured(),
        published: counts.published,
        dropped: counts.dropped(),
        dropped_by_reason: counts.reasons().map(|(reason, count)| (reason.name(), count)).collect(),
        in_flight: counts.in_flight,
        fps: tenths(fps),
        masks_needed: stream.model_share.is_needed(),
        masks_per_second: tenths(stream.mask_rate()),
        mask_runs_skipped_ratio: tenths(status.confirmed_share() * 100.0) / 100.0,
        masks_confirmed: status.confirmed_masks(),
        mask_age_ms: stream.overlay_state.mask().map(|mask| tenths(mask.captured_at.elapsed().as_secs_f64() * 1e3)),
        latency_ms: latency.map(|latency| tenths(latency.as_secs_f64() * 1e3)),
        h264: status.encode.running().map(|encode| encode_report(&encode)),
        since: format!("{:.3}", condition.since),
        reason: condition.reason,
        model: stream.config.model.clone(),
        source: stream.config.source.label(),
        show: stream.config.show,
        width: condition.info.map(|info| info.width),
        height: condition.info.map(|info| info.height),
        viewers: Viewers(viewers(&stream.outputs).collect()),
        pushes: status.outputs.pushes().iter().map(|push| pushed(push)).collect(),
        sinks: status.outputs.sinks().iter().map(|sink| sink_report(sink)).collect(),
        shares,
        zones,
        rules: rules::rules(stream),
        collect: stream.collection.as_deref().map(collect_report),
        redaction: stream.config.redact.as_ref().map(|redact| RedactionReport {
            classes: redact.classes.clone(),
            style: redact.style,
            hidden_frames: status.hidden(),
        }),
        redaction_weakened: weakened(view, &name),
        panics: status.panics(),
        late_connections: status.late_connections(),
        legend: stream.legend(&labels).iter().map(legend).collect(),
        links: Links { mjpeg: format!("/mjpeg/{name}"), rtsp: format!("{rtsp}/{name}"), whep: format!("/whep/{name}") },
        config: Settings::from(&stream.config),
        name,
    }
}

fn weakened(view: &ServiceView, stream: &str) -> Vec<WeakenedReport> {
    let changes = view.weakened_redaction().into_iter().filter(|change| change.stream == stream);
    changes.map(|change| WeakenedReport { at: format!("{:.3}", change.at), change: change.change }).collect()
}

fn collect_report(collection: &StreamCollection) -> CollectReport {
    let (size, status) = (collection.size(), &collection.status);
    CollectReport {
        frames: size.map(|size| size.waiting() + size.accepted),
        waiting: size.map(|size| size.waiting()),
        accepted: size.map(|size| size.accepted),
        bytes: size.map(|size| size.bytes),
        today: status.today(),
        failures: status.failures(),
        reason: status.problem(),
    }
}

fn encode_report(encode: &RunningEncode) -> EncodeReport {
    EncodeReport {
        encoder: encode.encoder,
        rate_control: encode.rate_control.name(),
        bitrate: encode.bitrate().map(|bitrate| bitrate.round() as u32),
        bitrate_limit: encode.rate_control.limit(),
    }
}

fn pushed(push: &PushStatus) -> PushReport {
    let (state, reason) = push.state();
    PushReport { to: push.to.clone(), state: state.name(), reason, failures: push.failures() }
}

fn sink_report(sink: &SinkStatus) -> SinkReport {
    SinkReport {
        kind: sink.kind,
        sink: sink.label.clone(),
        written: sink.written(),
        dropped: sink.dropped(),
        failures: sink.failures(),
        reason: sink.problem(),
    }
}

fn legend(entry: &LegendEntry) -> LegendReport {
    let LegendEntry { name, color, hidden, rest, weight } = entry.clone();
    LegendReport { name, color: hex(color), hidden, rest, weight }
}

pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The RTSP address of a stream without the stream's name.
fn rtsp_base(headers: &HeaderMap, app: &App) -> String {
    let scheme = if app.tls() { "rtsps" } else { "rtsp" };
    format!("{scheme}://{}", rtsp_authority(headers, app.view.rtsp, app.address))
}

/// Host and port of the RTSP server as this client reaches it: the host of its HTTP request, which is also right behind
/// address translation; without one, a listening address.
fn rtsp_authority(headers: &HeaderMap, rtsp: SocketAddr, http: SocketAddr) -> String {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()?.parse::<Authority>().ok());
    match host {
        Some(authority) if !authority.host().is_empty() => format!("{}:{}", authority.host(), rtsp.port()),
        _ if rtsp.ip().is_unspecified() && !http.ip().is_unspecified() => {
            SocketAddr::new(http.ip(), rtsp.port()).to_string()
        }
        _ => rtsp.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rtsp_link_uses_the_host_of_the_request() {
        let any: SocketAddr = "0.0.0.0:8554".parse().unwrap();
        let http: SocketAddr = "10.0.0.7:8080".parse().unwrap();
        let link = |host: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            rtsp_authority(&headers, any, http)
        };
        assert_eq!(link(Some("box.local:8080")), "box.local:8554");
        assert_eq!(link(Some("192.168.1.5")), "192.168.1.5:8554");
        assert_eq!(link(Some("[fe80::1]:8080")), "[fe80::1]:8554");
        assert_eq!(link(None), "10.0.0.7:8554");
        assert_eq!(link(Some("not a host")), "10.0.0.7:8554");
        assert_eq!(rtsp_authority(&HeaderMap::new(), "127.0.0.1:8554".parse().unwrap(), http), "127.0.0.1:8554");
    }
}
