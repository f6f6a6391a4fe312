//! Prometheus metrics, collected from the [`ServiceView`] at each scrape, so that every number is kept in one place and a
//! scrape agrees with the API.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use std::sync::Arc;

use super::problem::Problem;
use super::process::usage;
use super::{SharedApp, typed};
use crate::base::ledger::DropReason;
use crate::base::push_status::{PushState, PushStatus};
use crate::base::sink_status::SinkStatus;
use crate::base::status::StreamState;
use crate::base::timing::Stage;
use crate::publish::frame_sinks::viewers;
use crate::view::{ServiceView, StreamView};

mod collections;
mod drift;
mod families;
mod messages;
mod models;
mod rules;

use families::{Families, histogram};

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<SharedApp>) -> Result<Response, Problem> {
    let mut text = Vec::new();
    let certificate_expiry = app.certificate.as_ref().and_then(|certificate| certificate.expires());
    TextEncoder::new().encode(&families(&app.view, certificate_expiry), &mut text).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}"))
    })?;
    Ok(typed("text/plain; version=0.0.4; charset=utf-8", text))
}

fn families(view: &ServiceView, certificate_expiry: Option<Timestamp>) -> Vec<MetricFamily> {
    let mut out = Families::default();
    let streams = view.streams();
    frames(&streams, &mut out);
    timings(&streams, &mut out);
    conditions(&streams, &mut out);
    outputs(&streams, &mut out);
    sinks(&streams, &mut out);
    recordings(&streams, &mut out);
    collections::collections(&streams, &mut out);
    rules::rules(&streams, &mut out);
    drift::drift(view, &streams, &mut out);
    messages::messages(view, &streams, &mut out);
    models::models(view, &mut out);
    service(view, &mut out);
    if let Some(end) = certificate_expiry {
        let name = "maskcast_certificate_expires_timestamp_seconds";
        out.gauges(
            name,
            "When the certificate of server.tls expires, in Unix time.",
            [(vec![], end.as_second() as f64)],
        );
    }
    process(&mut out);
    out.0
}

fn frames(streams: &[Arc<StreamView>], out: &mut Families) {
    // One snapshot of each ledger: captured = published + dropped in every scrape.
    let ledgers: Vec<_> = streams.iter().map(|s| (&*s.status.name, s.status.ledger.counts())).collect();
    let each = |value: fn(&crate::base::ledger::LedgerCounts) -> u64| {
        ledgers.iter().map(move |(name, counts)| (vec![("stream", *name)], value(counts) as f64))
    };
    out.counters(
        "maskcast_frames_captured_total",
        "Frames captured whose fate is known: published plus dropped.",
        each(|counts| counts.captured()),
    );
    out.counters("maskcast_frames_published_total", "Frames published.", each(|counts| counts.published));
    let dropped = ledgers.iter().flat_map(|(name, counts)| {
        DropReason::ALL
            .map(|reason| (vec![("stream", *name), ("reason", reason.name())], counts.dropped_for(reason) as f64))
    });
    out.counters(
        "maskcast_frames_hidden_total",
        "Frames published without any detail, because it was not known which pixels [stream.redact] had to hide.",
        streams.iter().map(|stream| (vec![("stream", &*stream.status.name)], stream.status.hidden() as f64)),
    );
    out.counters("maskcast_frames_dropped_total", "Frames captured and not published, by reason.", dropped);
    out.gauges(
        "maskcast_frames_in_flight",
        "Frames captured whose fate is not known yet.",
        each(|counts| counts.in_flight),
    );
}

fn timings(streams: &[Arc<StreamView>], out: &mut Families) {
    let latency = streams.iter().map(|s| histogram(&[("stream", &s.status.name)], &s.status.latency.summary()));
    out.add(
        MetricType::HISTOGRAM,
        "maskcast_latency_seconds",
        "Time from a frame's capture to its publication.",
        latency.collect(),
    );
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for status in streams.iter().map(|stream| &stream.status) {
        for stage in Stage::ALL {
            let summary = status.stage(stage).summary();
            let labels = [("stream", &*status.name), ("stage", stage.name())];
            wall.push(histogram(&labels, &summary));
            cpu.push((labels.to_vec(), summary.cpu.as_secs_f64()));
        }
    }
    out.add(MetricType::HISTOGRAM, "maskcast_stage_seconds", "Wall time a stage took for a frame.", wall);
    out.counters(
        "maskcast_stage_cpu_seconds_total",
        "CPU time of a stage's own thread, without threads of libraries.",
        cpu,
    );
}

fn conditions(streams: &[Arc<StreamView>], out: &mut Families) {
    let states = streams.iter().flat_map(|stream| {
        let current = stream.status.state();
        StreamState::ALL.map(|state| {
            (vec![("stream", &*stream.status.name), ("state", state.name())], f64::from(u8::from(state == current)))
        })
    });
    out.gauges("maskcast_stream_state", "1 for the state that the stream is in, 0 for the others.", states);
    let rates = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.status.rate().0));
    out.gauges("maskcast_stream_fps", "Published frames a second, over the last two seconds.", rates);
    let rates = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.mask_rate()));
    out.gauges(
        "maskcast_stream_masks_per_second",
        "Masks per second, those confirmed by the motion gate included, over the last two seconds or the last two masks.",
        rates,
    );
    let needed =
        streams.iter().map(|s| (vec![("stream", &*s.status.name)], f64::from(u8::from(s.model_share.is_needed()))));
    out.gauges(
        "maskcast_stream_masks_needed",
        "1 while the model runs for the stream, 0 while nothing uses its masks.",
        needed,
    );
    let confirmed = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.status.confirmed_masks() as f64));
    out.counters(
        "maskcast_stream_masks_confirmed_total",
        "Masks that the motion gate confirmed because nothing had moved: the model did not run.",
        confirmed,
    );
    let bytes = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.status.encode.bytes() as f64));
    out.counters("maskcast_encoded_bytes_total", "Bytes of H.264 that were encoded. Sinks share one encode.", bytes);
    let limits = streams.iter().filter_map(|stream| {
        let limit = stream.status.encode.running()?.rate_control.limit();
        Some((vec![("stream", &*stream.status.name)], f64::from(limit) * 1000.0))
    });
    out.gauges(
        "maskcast_encode_limit_bits_per_second",
        "The most bits per second of the H.264 encode; absent while it is not needed.",
        limits,
    );
    let panics = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.status.panics() as f64));
    out.counters("maskcast_stage_panics_total", "Stages that panicked and were restarted.", panics);
    let late = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.status.late_connections() as f64));
    out.counters("maskcast_late_connections_total", "Reconnects to the source because its frames stayed late.", late);
}

fn outputs(streams: &[Arc<StreamView>], out: &mut Families) {
    let by_kind = streams.iter().flat_map(|stream| {
        let name = &*stream.status.name;
        viewers(&stream.outputs).map(move |(kind, count)| (vec![("stream", name), ("kind", kind)], count as f64))
    });
    out.gauges("maskcast_viewers", "Viewers of the stream. Recordings and pushes do not count.", by_kind);
    let refused = streams
        .iter()
        .map(|s| (vec![("stream", &*s.status.name), ("kind", "webrtc")], s.status.outputs.refused_viewers() as f64));
    out.counters("maskcast_viewers_refused_total", "Viewers refused because of server.webrtc.max_viewers.", refused);
    let lost = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.outputs.h264.lost() as f64));
    out.counters(
        "maskcast_viewer_units_lost_total",
        "Encoded frames that were dropped for slow viewers, recordings and pushes.",
        lost,
    );
    let failures =
        streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.status.outputs.recording_failures() as f64));
    out.counters(
        "maskcast_recording_failures_total",
        "Failed attempts to record; each is retried within a minute.",
        failures,
    );
    let pushes: Vec<(&str, Arc<PushStatus>)> = streams
        .iter()
        .flat_map(|stream| stream.status.outputs.pushes().into_iter().map(|push| (&*stream.status.name, push)))
        .collect();
    let each = |value: fn(&PushStatus) -> f64| {
        pushes.iter().map(move |(name, push)| (vec![("stream", *name), ("to", push.to.as_str())], value(push)))
    };
    out.counters(
        "maskcast_push_failures_total",
        "Connections to a media server that failed or ended; each is retried within 30 s.",
        each(|push| push.failures() as f64),
    );
    out.gauges(
        "maskcast_push_live",
        "1 while frames are sent to the media server.",
        each(|push| f64::from(u8::from(push.state().0 == PushState::Live))),
    );
}

fn sinks(streams: &[Arc<StreamView>], out: &mut Families) {
    let sinks: Vec<(&str, Arc<SinkStatus>)> = streams
        .iter()
        .flat_map(|stream| stream.status.outputs.sinks().into_iter().map(|sink| (&*stream.status.name, sink)))
        .collect();
    let each = |value: fn(&SinkStatus) -> u64| {
        sinks.iter().map(move |(name, sink)| {
            (vec![("stream", *name), ("type", sink.kind), ("sink", sink.label.as_str())], value(sink) as f64)
        })
    };
    out.counters("maskcast_sink_masks_total", "Masks that a sink has taken.", each(SinkStatus::written));
    out.counters(
        "maskcast_sink_masks_dropped_total",
        "Masks that were lost for a sink because it failed or was slow.",
        each(SinkStatus::dropped),
    );
    out.counters(
        "maskcast_sink_failures_total",
        "Attempts of a sink to take a mask that failed; repeated after a second.",
        each(SinkStatus::failures),
    );
    let waiting = sinks.iter().map(|(name, sink)| {
        (vec![("stream", *name), ("type", sink.kind), ("sink", sink.label.as_str())], sink.waiting() as f64)
    });
    out.gauges("maskcast_sink_queue_masks", "Masks that wait for a sink.", waiting);
}

fn recordings(streams: &[Arc<StreamView>], out: &mut Families) {
    // Cached values: a scrape does not wait for a disk.
    let archive = |stream: &Arc<StreamView>| Some((Arc::clone(&stream.status.name), stream.recordings.clone()?));
    let archives: Vec<_> = streams.iter().filter_map(archive).collect();
    let usage = archives.iter().map(|(name, archive)| (&**name, archive.usage()));
    out.gauges(
        "maskcast_recording_files",
        "Recordings on the disk.",
        usage.clone().map(|(name, (files, _))| (vec![("stream", name)], files as f64)),
    );
    out.gauges(
        "maskcast_recording_bytes",
        "Size of the recordings on the disk.",
        usage.map(|(name, (_, bytes))| (vec![("stream", name)], bytes as f64)),
    );
    let removed = archives.iter().flat_map(|(name, archive)| {
        archive.removed().map(|(reason, count)| (vec![("stream", &**name), ("reason", reason.name())], count as f64))
    });
    out.counters("maskcast_recordings_removed_total", "Recordings removed, by reason.", removed);
    let events = archives.iter().flat_map(|(name, archive)| {
        let counts = archive.event_state().into_iter().flat_map(|events| events.counts());
        counts.map(|(event, count)| (vec![("stream", &**name), ("event", event)], count as f64))
    });
    out.counters("maskcast_events_total", "Events seen in the masks.", events);
}

fn service(view: &ServiceView, out: &mut Families) {
    let weakened = view.weakened_redaction();
    let streams = view.streams();
    let changes = |name: &str| weakened.iter().filter(|change| change.stream == name).count() as f64;
    out.gauges(
        "maskcast_redaction_weakened",
        "Changes of the configuration file in the last day after which pixels may be visible that were hidden before.",
        streams.iter().map(|stream| (vec![("stream", &*stream.status.name)], changes(&stream.status.name))),
    );
    out.counters(
        "maskcast_redaction_weakened_total",
        "Changes of the configuration file after which pixels may be visible that were hidden before.",
        [(vec![], view.weakened_redaction_count() as f64)],
    );
    let version = ("version", env!("CARGO_PKG_VERSION"));
    out.gauges("maskcast_build_info", "The program's version.", [(vec![version], 1.0)]);
    let uptime = view.started.elapsed().as_secs_f64();
    out.gauges("maskcast_uptime_seconds", "Time since the service started.", [(Vec::new(), uptime)]);
}

fn process(out: &mut Families) {
    let usage = usage();
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", usage.resident_bytes),
        ("process_open_fds", "Number of open file descriptors.", usage.open_fds),
        ("process_threads", "Number of OS threads in the process.", usage.threads),
    ] {
        out.gauges(name, help, value.map(|value| (Vec::new(), value as f64)));
    }
    out.counters(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        [(Vec::new(), usage.cpu.as_secs_f64())],
    );
}
