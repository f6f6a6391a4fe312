//! `maskcast run`: configuration in, running service out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::GstSource;
use crate::config::{Config, ConfigError, SourceUri, StreamConfig};
use crate::frame::Label;
use crate::overlay::Overlay;
use crate::publish::encoder::H264;
use crate::publish::live::{LiveOutput, Outlets};
use crate::publish::rtsp::RtspServer;
use crate::segment::choose::{self, Goal};
use crate::segment::onnx::{Model, ModelError};
use crate::segment::pool::Pool;
use crate::server::{Bound, HttpServer};
use crate::stream::status::Status;
use crate::stream::{Pace, Parts, Stream};

pub mod view;
pub mod watch;

use view::{LegendEntry, ModelView, StreamView, View};

/// Why the service cannot start; in one line each.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration asks for what cannot be: exit code 78.
    #[error("{0}")]
    Configuration(String),
    /// The machine does not give what is needed now: exit code 1.
    #[error("{0}")]
    Runtime(String),
}

impl From<ModelError> for ServiceError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Model(problem) => ServiceError::Configuration(format!("model.path: {problem}")),
            ModelError::Machine(problem) => ServiceError::Runtime(problem),
        }
    }
}

/// A running service.
pub struct Service {
    pub view: Arc<View>,
    streams: Vec<Stream>,
    // Dropped after the streams, in this order.
    http: HttpServer,
    rtsp: RtspServer,
    pool: Pool,
}

/// How long stopping may take before what hangs is named and left.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

impl Service {
    /// Starts everything: ports first, so that nothing runs when one is taken, then the model, then the streams.
    ///
    /// # Errors
    /// The first thing that cannot be had; whatever was started before it is stopped again.
    pub fn start(config: &Config) -> Result<Service, ServiceError> {
        let runtime = |error: &dyn std::fmt::Display| ServiceError::Runtime(error.to_string());
        let http = HttpServer::bind(config.server.http).map_err(|error| runtime(&error))?;
        let rtsp = RtspServer::start(config.server.rtsp).map_err(|error| runtime(&error))?;
        for stream in &config.streams {
            H264::choose(stream.encode.encoder, &[])
                .map_err(|error| runtime(&format!("stream[{}].encode.encoder: {error}", stream.name)))?;
        }
        let model =
            Arc::new(Model::load(&config.model, choose::usual_threads(&config.model, goal(config.streams.len())))?);
        let labels = model.contract.labels.clone();
        check_labels(config, &labels).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ServiceError::Configuration(lines.join("\n"))
        })?;
        let (pool, plan) = start_pool(&model, config.streams.len())?;

        let mut views = Vec::new();
        let mut parts = Vec::new();
        for stream in &config.streams {
            let status = Arc::new(Status::new(&stream.name));
            let outlets = Outlets::default();
            rtsp.add(&stream.name, Arc::clone(&outlets.h264));
            views.push(StreamView {
                status: Arc::clone(&status),
                outlets: outlets.clone(),
                source: stream.source.label(),
                show: stream.show,
                legend: legend(stream, &labels),
            });
            let output = LiveOutput::new(stream.encode.clone(), stream.record.clone(), Arc::clone(&status), outlets)
                .map_err(|error| runtime(&error))?;
            // A file at full speed waits for the stages after it, where a camera would not.
            let patient = matches!(stream.source.uri, SourceUri::File(_)) && !stream.source.real_time;
            parts.push(Parts {
                config: stream.clone(),
                pace: if patient { Pace::Patient } else { Pace::Live },
                source: Box::new(GstSource::new(stream.source.clone())),
                output: Box::new(if patient { output.patient() } else { output }),
                status,
                labels: labels.clone(),
                tap: None,
            });
        }
        let view = Arc::new(View {
            streams: views,
            model: ModelView {
                name: model.name(),
                requested: model.requested().name(),
                actual: model.provider.name(),
                input: (model.contract.input.width, model.contract.input.height),
                workers: plan.workers,
                threads: plan.threads,
                max_batch: plan.max_batch,
            },
            started: Instant::now(),
            rtsp: rtsp.address(),
            pool: pool.stats(),
        });
        let http = serve(http, &view).map_err(|error| runtime(&error))?;
        let mut service = Service { view, streams: Vec::new(), http, rtsp, pool };
        for parts in parts {
            match Stream::start(parts, &service.pool) {
                Ok(stream) => service.streams.push(stream),
                Err(error) => {
                    service.stop();
                    return Err(runtime(&error));
                }
            }
        }
        Ok(service)
    }

    /// The page's address.
    pub fn page(&self) -> String {
        format!("http://{}/", self.http.address())
    }

    /// A stream's RTSP address.
    pub fn rtsp_address(&self, name: &str) -> String {
        format!("rtsp://{}/{name}", self.rtsp.address())
    }

    /// Whether all sources have ended for good.
    pub fn has_ended(&self) -> bool {
        self.streams.iter().all(|stream| stream.status.condition().ended || stream.is_finished())
    }

    /// Stops the sources, lets what is under way come out, closes recordings, and writes each stream's account to the log.
    pub fn stop(self) {
        for stream in &self.streams {
            stream.stop();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut waiting = self.streams;
        let poll = crossbeam_channel::tick(Duration::from_millis(10));
        while waiting.iter().any(|stream| !stream.is_finished()) && Instant::now() < deadline {
            // The tick only paces the look at threads that end by themselves.
            let _ = poll.recv();
        }
        for stream in waiting.extract_if(.., |stream| stream.is_finished()) {
            if let Err(error) = stream.join() {
                tracing::error!("{error}");
            }
        }
        for stream in &waiting {
            tracing::error!(
                stream = &*stream.status.name,
                "has not stopped within {} s and is left behind",
                STOP_DEADLINE.as_secs()
            );
        }
        for stream in &self.view.streams {
            log_account(&stream.status);
        }
    }
}

fn serve(bound: Bound, view: &Arc<View>) -> Result<HttpServer, crate::server::ServerError> {
    bound.serve(Arc::clone(view))
}

/// One live stream wants its masks soon; several want many.
fn goal(streams: usize) -> Goal {
    if streams > 1 { Goal::Throughput } else { Goal::Latency }
}

/// Chooses how the model runs, and starts its workers.
fn start_pool(model: &Arc<Model>, streams: usize) -> Result<(Pool, choose::Plan), ServiceError> {
    let runtime = |error: crate::segment::SegmentError| ServiceError::Runtime(error.0);
    let (plan, trials) = choose::measured(model, goal(streams)).map_err(runtime)?;
    let time = match trials.iter().find(|trial| trial.plan == plan) {
        Some(trial) => trial.latency,
        None => model.time().map_err(runtime)?,
    };
    for trial in &trials {
        tracing::debug!(workers = trial.plan.workers, threads = trial.plan.threads, fps = trial.fps, latency = ?trial.latency, "measured");
    }
    tracing::info!(
        model = model.name(),
        requested = model.requested().name(),
        provider = model.provider.name(),
        workers = plan.workers,
        threads = plan.threads,
        max_batch = plan.max_batch,
        "the model runs on {}, {:.0} ms a frame",
        model.provider.name(),
        time.as_secs_f64() * 1e3
    );
    let maker = Arc::clone(model);
    let factory = move || maker.segmenter(plan.threads).map(|segmenter| Box::new(segmenter) as Box<_>);
    Ok((Pool::start(plan.workers, plan.max_batch, Box::new(factory)).map_err(runtime)?, plan))
}

/// Checks what only the model can tell: that every label a stream hides or colours exists.
///
/// # Errors
/// All that do not, with their key paths.
pub fn check_labels(config: &Config, labels: &[Label]) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    for stream in &config.streams {
        if let Err(unknown) = Overlay::new(&stream.overlay, labels) {
            for label in &unknown.unknown {
                errors.push(ConfigError {
                    key: format!("stream[{}].overlay.{}", stream.name, label.key),
                    line: None,
                    problem: label.to_string(),
                    help: Some(format!("the model knows {}", unknown.known.join(", "))),
                });
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn legend(stream: &StreamConfig, labels: &[Label]) -> Vec<LegendEntry> {
    let entry = |label: &Label| {
        let own = stream.overlay.colors.iter().find(|(name, _)| *name == label.name).map(|(_, color)| *color);
        LegendEntry {
            name: label.name.clone(),
            color: own.unwrap_or(label.color),
            hidden: stream.overlay.hide.contains(&label.name),
        }
    };
    labels.iter().map(entry).collect()
}

/// Writes a stream's closed account to the log.
pub fn log_account(status: &Status) {
    let counts = status.ledger.counts();
    let reasons: Vec<String> = counts.reasons().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    tracing::info!(
        stream = &*status.name,
        captured = counts.captured(),
        published = counts.published,
        dropped = counts.dropped(),
        in_flight = counts.in_flight,
        "captured {} = published {} + dropped {}{why}",
        counts.captured(),
        counts.published,
        counts.dropped()
    );
}
