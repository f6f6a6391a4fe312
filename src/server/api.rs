//! The REST API: what the service shows of itself, as JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use serde::Serialize;

use super::{Named, Shared};
use crate::config::Show;
use crate::frame::{Label, Labels, Rgb};
use crate::service::view::{LegendEntry, StreamView, View};

/// One stream of `/api/v1/streams`.
#[derive(Serialize)]
pub(super) struct StreamReport {
    name: String,
    state: &'static str,
    /// Frames with a known fate: always `published + dropped`.
    captured: u64,
    published: u64,
    dropped: u64,
    /// Reasons that occurred.
    dropped_by_reason: BTreeMap<&'static str, u64>,
    in_flight: u64,
    /// Published frames a second, over the last two seconds.
    fps: f64,
    /// Median time from capture to publication, over the last two seconds.
    latency_ms: Option<f64>,
    /// Since when the state holds (RFC 3339).
    since: String,
    /// Why the stream is stale or offline.
    reason: Option<String>,
    source: String,
    show: &'static str,
    width: Option<usize>,
    height: Option<usize>,
    viewers: Viewers,
    /// Stages that panicked and were restarted.
    panics: u64,
    /// Connections to the source that were opened anew because their frames stayed late.
    late_connections: u64,
    legend: Vec<LegendReport>,
    links: Links,
}

#[derive(Serialize)]
struct Viewers {
    /// RTSP viewers, and the recording.
    h264: usize,
    mjpeg: usize,
}

#[derive(Serialize)]
struct LegendReport {
    name: String,
    color: String,
    hidden: bool,
}

#[derive(Serialize)]
struct Links {
    mjpeg: String,
    rtsp: String,
}

/// `/api/v1/version`
#[derive(Serialize)]
pub(super) struct VersionReport {
    name: &'static str,
    version: &'static str,
    /// Seconds since the service started.
    uptime_s: f64,
}

/// `GET /api/v1/streams`: all streams, in configuration order.
pub(super) async fn streams(State(app): State<Shared>, headers: HeaderMap) -> Json<Vec<StreamReport>> {
    let rtsp = rtsp_authority(&headers, app.view.rtsp, app.address);
    let labels = labels(&app.view);
    Json(app.view.streams().iter().map(|stream| report(stream, &labels, &rtsp)).collect())
}

/// `GET /api/v1/streams/NAME`
pub(super) async fn stream(named: Named, headers: HeaderMap) -> Json<StreamReport> {
    let rtsp = rtsp_authority(&headers, named.app.view.rtsp, named.app.address);
    Json(report(named.stream(), &labels(&named.app.view), &rtsp))
}

/// `GET /api/v1/version`
pub(super) async fn version(State(app): State<Shared>) -> Json<VersionReport> {
    Json(VersionReport {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: tenths(app.view.started.elapsed().as_secs_f64()),
    })
}

/// Of the model that runs; none until there is one.
fn labels(view: &View) -> Labels {
    view.model().map_or_else(|| [].into(), |model| Arc::clone(&model.labels))
}

fn report(stream: &StreamView, labels: &[Label], rtsp: &str) -> StreamReport {
    let status = &stream.status;
    // One look each, so that what belongs together agrees.
    let (counts, condition) = (status.ledger.counts(), status.condition());
    let (fps, latency) = status.rate();
    let name = status.name.to_string();
    StreamReport {
        state: condition.state.name(),
        captured: counts.captured(),
        published: counts.published,
        dropped: counts.dropped(),
        dropped_by_reason: counts.reasons().map(|(reason, count)| (reason.name(), count)).collect(),
        in_flight: counts.in_flight,
        fps: tenths(fps),
        latency_ms: latency.map(|latency| tenths(latency.as_secs_f64() * 1e3)),
        since: format!("{:.3}", condition.since),
        reason: condition.reason,
        source: stream.source.clone(),
        show: match stream.show {
            Show::Matched => "matched",
            Show::FullRate => "full-rate",
        },
        width: condition.info.map(|info| info.width),
        height: condition.info.map(|info| info.height),
        viewers: Viewers { h264: stream.outlets.h264.takers(), mjpeg: stream.outlets.jpeg.viewers() },
        panics: status.panics(),
        late_connections: status.late_connections(),
        legend: stream.legend(labels).iter().map(legend).collect(),
        links: Links { mjpeg: format!("/mjpeg/{name}"), rtsp: format!("rtsp://{rtsp}/{name}") },
        name,
    }
}

fn legend(entry: &LegendEntry) -> LegendReport {
    let Rgb(r, g, b) = entry.color;
    LegendReport { name: entry.name.clone(), color: format!("#{r:02x}{g:02x}{b:02x}"), hidden: entry.hidden }
}

pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Host and port of the RTSP server as this client reaches it: by the host that it asked HTTP of, which also holds
/// behind address translation. Without one, by an address that is listened on.
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
    fn the_rtsp_link_follows_the_host_that_was_asked() {
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
