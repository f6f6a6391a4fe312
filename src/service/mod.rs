//! `maskcast run`: configuration in, running service out.
//!
//! Streams and model change while the service runs: [`Service::reload`] starts, stops and restarts what a configuration
//! that was read anew says otherwise, and touches nothing else; [`models`] exchanges the model.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::access::Access;
use crate::access::tls::Certificate;
use crate::config::{Config, ConfigError, ModelConfig, OverlayConfig, ServerConfig, StreamConfig};
use crate::events;
use crate::frame::Label;
use crate::overlay::Overlay;
use crate::publish::encoder::{Choice, H264};
use crate::publish::rtsp::RtspServer;
use crate::publish::rtsp_auth::RtspGuard;
use crate::publish::whep::Whep;
use crate::segment::onnx::ModelError;
use crate::segment::pool::Pool;
use crate::server::HttpServer;
use crate::stream::panic_text;
use crate::stream::status::Status;

pub mod changes;
pub mod models;
pub mod reserved;
pub mod running;
pub mod view;
mod warn;
pub mod watch;

use changes::{Asked, Changes};
use models::{Keeper, Models, Streams};
use running::Running;
use view::{StreamView, View};
use warn::{opened, warn_of_readable_passwords};

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

impl ServiceError {
    fn runtime(problem: impl std::fmt::Display) -> Self {
        ServiceError::Runtime(problem.to_string())
    }
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
    server: ServerConfig,
    model: ModelConfig,
    running: Vec<Running>,
    /// What the model has to fit.
    streams: Streams,
    /// Changes that clients ask for; for [`changes::Changes`] to make.
    asked: Receiver<Asked>,
    // Dropped after the streams, in this order.
    models: Option<Models>,
    http: HttpServer,
    rtsp: RtspServer,
    access: Arc<Access>,
    certificate: Option<Arc<Certificate>>,
    whep: Arc<Whep>,
    pool: Arc<Pool>,
    /// The encoders that streams get, as the log has been told.
    encoders: Vec<H264>,
}

/// What a reload has done, by the streams' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    pub started: Vec<String>,
    pub restarted: Vec<String>,
    /// Only their overlay has changed, and they went on.
    pub redrawn: Vec<String>,
    pub stopped: Vec<String>,
    pub untouched: Vec<String>,
    pub model: bool,
    /// The configuration has other addresses, which are only listened on after a restart.
    pub other_addresses: bool,
}

/// A model that takes longer than this to load is not waited for with the video.
const QUICK_LOAD: Duration = Duration::from_secs(2);

/// How long WebRTC viewers are waited for when the service stops, beside what its streams take.
const WHEP_DEADLINE: Duration = Duration::from_millis(500);

/// How long stopping may take before what hangs is named and left.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

impl Service {
    /// Starts everything: ports first, so that nothing runs when one is taken; then the model, so that no camera is opened
    /// for one that cannot work; then the streams. A model that takes long does not keep viewers from the video, nor
    /// `changes` from being made that need none.
    ///
    /// # Errors
    /// The first thing that cannot be had; whatever was started before it is stopped again.
    pub fn start(config: &Config, changes: &mut Changes) -> Result<Service, ServiceError> {
        let http = HttpServer::bind(config.server.http).map_err(ServiceError::runtime)?;
        let certificate = config.server.tls.as_ref().map(Certificate::load).transpose();
        let certificate = certificate.map_err(ServiceError::Configuration)?;
        let access = Arc::new(Access::new(&config.server).map_err(ServiceError::runtime)?);
        let guard = RtspGuard::new(&config.server, Arc::clone(&access), certificate.clone());
        let rtsp = RtspServer::start_guarded(config.server.rtsp, Some(&guard)).map_err(ServiceError::runtime)?;
        warn_of_readable_passwords(&config.server, &guard);
        let encoders = check_encoders(&config.streams).map_err(|errors| ServiceError::runtime(lines(&errors)))?;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let pool = Arc::new(Pool::idle(cores + 1).map_err(ServiceError::runtime)?);
        let (view, incoming) = View::new(rtsp.address(), pool.stats());
        let view = Arc::new(view);
        let streams: Streams = Arc::new(Mutex::new(config.streams.clone()));
        let mut keeper = Keeper::new(Arc::clone(&pool), Arc::clone(&view), Arc::clone(&streams));
        let whep = Arc::new(Whep::new(config.server.webrtc.clone()));
        let http = http
            .serve_guarded(Arc::clone(&view), Arc::clone(&whep), Arc::clone(&access), certificate.as_ref())
            .map_err(ServiceError::runtime)?;
        let (server, model) = (config.server.clone(), config.model.clone());
        let mut service = Service {
            view,
            server,
            model,
            running: Vec::new(),
            streams,
            asked: incoming.changes,
            models: None,
            http,
            rtsp,
            access,
            certificate,
            whep,
            pool,
            encoders: Vec::new(),
        };
        tracing::info!("page {}", service.page());
        for stream in &config.streams {
            tracing::info!(stream = stream.name, "{} -> {}", stream.source.label(), service.rtsp_address(&stream.name));
        }
        service.tell_encoders(encoders);
        if let Err(error) = service.start_all(config, &mut keeper, changes) {
            service.stop();
            return Err(error);
        }
        let models = Models::start(keeper, service.model.clone(), incoming.models);
        match models {
            Ok(models) => service.models = Some(models),
            Err(error) => {
                service.stop();
                return Err(error);
            }
        }
        Ok(service)
    }

    fn start_all(&mut self, config: &Config, keeper: &mut Keeper, changes: &mut Changes) -> Result<(), ServiceError> {
        for stream in &config.streams {
            self.running.push(Running::prepare(stream, None, &self.rtsp));
        }
        self.show_streams();
        std::thread::scope(|scope| {
            let load = || keeper.first(&config.model);
            let loading = std::thread::Builder::new()
                .name("model".into())
                .spawn_scoped(scope, load)
                .map_err(|error| ServiceError::runtime(format_args!("no thread for the model: {error}")))?;
            let patience = Instant::now() + QUICK_LOAD;
            let asked = self.asked.clone();
            while !loading.is_finished() {
                // The time only paces the look at the thread.
                if let Ok(asked) = asked.recv_timeout(Duration::from_millis(10)) {
                    changes.make_early(asked, self);
                }
                changes.tick(self);
                if Instant::now() < patience {
                    continue;
                }
                // A file at full speed would be through before the model is there.
                for running in self.running.iter_mut().filter(|running| !running.is_patient() && !running.has_begun()) {
                    running.start(&self.pool)?;
                }
            }
            loading.join().unwrap_or_else(|panic| Err(ServiceError::Runtime(panic_text(&*panic).to_owned())))
        })?;
        for running in self.running.iter_mut().filter(|running| !running.has_begun()) {
            running.start(&self.pool)?;
        }
        Ok(())
    }

    /// The page's address.
    pub fn page(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.http.address())
    }

    /// A stream's RTSP address.
    pub fn rtsp_address(&self, name: &str) -> String {
        let scheme = if self.certificate.is_some() { "rtsps" } else { "rtsp" };
        format!("{scheme}://{}/{name}", self.rtsp.address())
    }

    /// Whether all sources have ended for good.
    pub fn has_ended(&self) -> bool {
        !self.running.is_empty() && self.running.iter().all(Running::has_ended)
    }

    /// Follows the certificate's files, restarts streams whose stages were lost to a panic, and tells the viewers of those that have ended for good.
    pub fn tick(&mut self) {
        if let Some(certificate) = self.certificate.as_ref().filter(|certificate| certificate.follow(Instant::now()))
            && let Err(error) = self.rtsp.set_certificate(certificate)
        {
            tracing::error!("{error}; RTSP goes on with the old certificate");
        }
        for running in &mut self.running {
            running.revive(&self.pool);
            if running.has_ended() && running.is_finished() {
                running.view().outlets.h264.close();
            }
        }
    }

    /// Makes the service what `config` says. Streams whose settings are the same go on without noticing.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    pub fn reload(&mut self, config: &Config) -> Result<Reloaded, ServiceError> {
        self.check(config).map_err(|errors| ServiceError::Configuration(lines(&errors)))?;
        // They have just been tried.
        self.tell_encoders(check_encoders(&config.streams).unwrap_or_default());
        let mut done = Reloaded { model: config.model != self.model, ..Reloaded::default() };
        done.other_addresses = self.set_server(&config.server)?;
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner) = config.streams.clone();
        if let Some(models) = self.models.as_ref().filter(|_| done.model) {
            models.set(config.model.clone());
            self.model = config.model.clone();
        }
        let stays = |running: &Running| {
            let same = |stream: &&StreamConfig| stream.name == running.config.name;
            let wanted = config.streams.iter().find(same);
            wanted.is_some_and(|stream| running.config == *stream || running.config.differs_by_overlay(stream))
        };
        let (mut before, ends): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(stays);
        let mut views: Vec<Arc<StreamView>> = ends.iter().map(Running::view).collect();
        for view in &views {
            let name = &*view.status.name;
            // The viewers of a stream that starts anew keep their connections.
            if !config.streams.iter().any(|stream| stream.name == *name) {
                done.stopped.push(name.to_owned());
                self.rtsp.remove(name);
                view.outlets.h264.close();
            }
        }
        // Side by side: one after the other, streams whose disk or camera hangs would hold us up longer than the watchdog waits.
        stop_all(ends);
        let mut fresh = Vec::new();
        for stream in &config.streams {
            let known = before.iter().position(|running| running.config.name == stream.name);
            match known.map(|index| before.swap_remove(index)) {
                Some(running) if running.config == *stream => {
                    done.untouched.push(stream.name.clone());
                    self.running.push(running);
                }
                Some(mut running) => {
                    done.redrawn.push(stream.name.clone());
                    running.redraw(&stream.overlay);
                    self.running.push(running);
                }
                None => {
                    let view = views.iter().position(|view| *view.status.name == stream.name);
                    let view = view.map(|index| views.swap_remove(index));
                    let list = if view.is_some() { &mut done.restarted } else { &mut done.started };
                    list.push(stream.name.clone());
                    fresh.push(stream.name.clone());
                    self.running.push(Running::prepare(stream, view.as_deref(), &self.rtsp));
                }
            }
        }
        self.show_streams();
        for running in self.running.iter_mut().filter(|running| fresh.contains(&running.config.name)) {
            running.start(&self.pool)?;
        }
        Ok(done)
    }

    /// Whether [`Service::reload`] would take `config`, as far as can be told without trying.
    ///
    /// # Errors
    /// All that speaks against it.
    pub fn check(&self, config: &Config) -> Result<(), Vec<ConfigError>> {
        let mut errors = check_encoders(&config.streams).err().unwrap_or_default();
        if config.model == self.model {
            errors.extend(self.check_labels(&config.streams).err().unwrap_or_default());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Checks that the model that runs knows the labels that streams name.
    ///
    /// # Errors
    /// All that it does not know.
    pub fn check_labels(&self, streams: &[StreamConfig]) -> Result<(), Vec<ConfigError>> {
        self.view.model().map_or(Ok(()), |model| check_labels(streams, &model.labels))
    }

    /// The settings of a stream as they are now.
    pub fn config_of(&self, name: &str) -> Option<&StreamConfig> {
        self.running.iter().map(|running| &running.config).find(|config| config.name == name)
    }

    /// Has a stream drawn by other settings from its next frame on.
    pub fn redraw(&mut self, name: &str, overlay: &OverlayConfig) {
        let Some(running) = self.running.iter_mut().find(|running| running.config.name == name) else { return };
        running.redraw(overlay);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter_mut().filter(|stream| stream.name == name).for_each(|stream| stream.overlay = overlay.clone());
        drop(streams);
        self.show_streams();
    }

    /// Logs which encoders streams get, each once.
    fn tell_encoders(&mut self, chosen: Vec<Choice>) {
        for choice in chosen {
            tracing::debug!("H.264 encoder {choice}");
            if !self.encoders.contains(&choice.encoder) {
                tracing::info!("H.264 encoder {} ({})", choice.encoder.kind(), choice.encoder.element());
                self.encoders.push(choice.encoder);
            }
        }
    }

    /// Changes that clients ask for.
    pub fn asked(&self) -> Receiver<Asked> {
        self.asked.clone()
    }

    /// Lets in those whom the configuration lets in now; true when it also says what holds after a restart only.
    fn set_server(&mut self, config: &ServerConfig) -> Result<bool, ServiceError> {
        let ServerConfig { http, rtsp, ref tls, .. } = self.server;
        let restart = (config.http, config.rtsp, &config.tls) != (http, rtsp, tls);
        // Who is let in depends on where is really listened.
        let server = ServerConfig { http, rtsp, tls: tls.clone(), ..config.clone() };
        if server != self.server {
            if let Some(warning) = opened(&self.server, &server) {
                tracing::warn!("{warning}");
            }
            self.access.set(&server);
            self.whep.set(server.webrtc.clone());
            self.whep.dismiss_unless(|who| self.access.still_knows(who));
            let guard = RtspGuard::new(&server, Arc::clone(&self.access), self.certificate.clone());
            self.rtsp.set_guard(&guard).map_err(ServiceError::runtime)?;
            warn_of_readable_passwords(&server, &guard);
            self.server = server;
        }
        Ok(restart)
    }

    fn show_streams(&self) {
        self.view.set_streams(self.running.iter().map(Running::view).collect());
    }

    /// Stops the sources, lets what is under way come out, closes recordings, and writes each stream's account to the log.
    pub fn stop(mut self) {
        // A model that is being loaded now is not needed any more; its thread is waited for last.
        let models = self.models.take();
        // They leave while the streams end.
        self.whep.dismiss_all();
        stop_all(std::mem::take(&mut self.running));
        match self.whep.close(WHEP_DEADLINE) {
            0 => {}
            left => tracing::error!("{left} WebRTC viewers do not end and are left behind"),
        }
        drop(models);
    }
}

/// Stops streams side by side and logs their accounts; what does not stop in time is named and left behind.
fn stop_all(mut streams: Vec<Running>) {
    streams.iter().for_each(Running::stop);
    let deadline = Instant::now() + STOP_DEADLINE;
    let poll = crossbeam_channel::tick(Duration::from_millis(10));
    while streams.iter().any(|stream| !stream.is_finished()) && Instant::now() < deadline {
        // The tick only paces the look at threads that end by themselves.
        let _ = poll.recv();
    }
    for stream in streams.drain(..) {
        if !stream.is_finished() {
            tracing::error!(
                stream = stream.config.name,
                "has not stopped within {} s and is left behind",
                STOP_DEADLINE.as_secs()
            );
        }
        let (view, begun) = (stream.view(), stream.has_begun());
        stream.join_finished();
        if begun {
            log_account(&view.status);
        }
    }
}

/// Tries the encoders that the streams ask for, before anything depends on them, and tells which they get.
fn check_encoders(streams: &[StreamConfig]) -> Result<Vec<Choice>, Vec<ConfigError>> {
    let (mut chosen, mut errors) = (Vec::new(), Vec::new());
    for stream in streams {
        match H264::choose(stream.encode.encoder, &[]) {
            Ok(choice) if chosen.contains(&choice) => {}
            Ok(choice) => chosen.push(choice),
            Err(error) => {
                let key = format!("stream[{}].encode.encoder", stream.name);
                errors.push(ConfigError { key, line: None, problem: error.to_string(), help: None });
            }
        }
    }
    if errors.is_empty() { Ok(chosen) } else { Err(errors) }
}

/// Checks what only the model can tell: that every label that a stream hides, colours or waits for exists.
///
/// # Errors
/// All that do not, with their key paths.
pub fn check_labels(streams: &[StreamConfig], labels: &[Label]) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    for stream in streams {
        if let Err(unknown) = Overlay::new(&stream.overlay, labels) {
            for label in &unknown.unknown {
                errors.push(ConfigError {
                    key: format!("stream[{}].overlay.{}", stream.name, label.key),
                    line: None,
                    problem: label.problem(),
                    help: Some(format!("the model knows {}", unknown.known.join(", "))),
                });
            }
        }
    }
    for stream in streams {
        for (index, event) in stream.record.iter().flat_map(|record| record.events.iter().enumerate()) {
            errors.extend(events::unknown_classes(event, labels).into_iter().map(|name| ConfigError {
                key: format!("stream[{}].record.event[{index}].classes", stream.name),
                line: None,
                problem: format!("the model has no class {name:?}"),
                help: Some(format!("the model knows {}", known(labels))),
            }));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn known(labels: &[Label]) -> String {
    let names: Vec<&str> = labels.iter().map(|label| label.name.as_str()).collect();
    names.join(", ")
}

/// A line for each error.
fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
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
