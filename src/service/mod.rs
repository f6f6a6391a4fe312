//! `maskcast run`: configuration in, running service out.
//!
//! Streams and model change while the service runs: [`reload`] starts, stops and restarts what another configuration
//! says otherwise, and touches nothing else; [`models`] exchanges the model. [`stopping`] ends streams.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::access::Access;
use crate::access::tls::Certificate;
use crate::base::panic::panic_text;
use crate::base::stop::{Stop, WakeReason};
use crate::config::{Config, ConfigError, ModelConfig, OverlayConfig, ServerConfig, StreamConfig};
use crate::publish::encoder::{Choice, H264};
use crate::publish::rtsp::RtspServer;
use crate::publish::rtsp_auth::RtspGuard;
use crate::publish::whep::Whep;
use crate::segment::pool::Pool;
use crate::server::HttpServer;

pub mod changes;
mod check;
mod error;
pub mod models;
pub mod reload;
pub mod reserved;
pub mod stopping;
pub mod stream_runner;
mod warn;
pub mod watch;

pub use check::check_labels;
pub use error::ServiceError;
pub use reload::ReloadReport;
pub use stopping::log_account;

use crate::view::ServiceView;
use crate::view::request::ChangeRequest;
use check::{check_encoders, lines};
use models::{ModelManager, Models, Streams};
use stopping::stop_all;
use stream_runner::StreamRunner;
use warn::{opened, warn_of_readable_passwords};

/// Handles requests of clients while the service starts.
pub trait EarlyRequests {
    /// Applies a change that needs no model; keeps or refuses any other.
    fn make_early(&mut self, asked: ChangeRequest, service: &mut Service);

    /// Does what is due; called often.
    fn tick(&mut self, service: &Service);
}

/// A running service.
pub struct Service {
    pub view: Arc<ServiceView>,
    server: ServerConfig,
    model: ModelConfig,
    running: Vec<StreamRunner>,
    /// Streams that a reload was stopping when the whole service was stopped.
    ending: Vec<StreamRunner>,
    /// Raised when the service is to stop.
    stop: Stop,
    /// What the model has to fit.
    streams: Streams,
    /// Changes that clients ask for; for [`changes::Changes`] to make.
    asked: Receiver<ChangeRequest>,
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

/// A model that takes longer than this to load is not waited for with the video.
const QUICK_LOAD: Duration = Duration::from_secs(2);

/// How long WebRTC viewers are waited for when the service stops, beside what its streams take.
const WHEP_DEADLINE: Duration = Duration::from_millis(500);

/// How long a model that is still being loaded is waited for when the service stops, from the beginning of the stop: the
/// streams take as long in the worst case.
const MODEL_DEADLINE: Duration = Duration::from_millis(4400);

impl Service {
    /// Starts everything: ports first, so that nothing runs when one is taken; then the model, so that no camera is opened
    /// for one that cannot work; then the streams. A model that takes long does not keep viewers from the video, nor
    /// `changes` from being made that need none. Raising `stop` ends the start, too, whatever it waits for.
    ///
    /// # Errors
    /// The first thing that cannot be had; whatever was started before it is stopped again.
    pub fn start(config: &Config, changes: &mut dyn EarlyRequests, stop: &Stop) -> Result<Service, ServiceError> {
        let http = HttpServer::bind(config.server.http).map_err(ServiceError::runtime)?;
        let certificate = config.server.tls.as_ref().map(Certificate::load).transpose();
        let certificate = certificate.map_err(ServiceError::Configuration)?;
        let access = Arc::new(Access::new(&config.server).map_err(ServiceError::runtime)?);
        let guard = RtspGuard::new(&config.server, Arc::clone(&access), certificate.clone());
        let rtsp = RtspServer::start_guarded(config.server.rtsp, Some(&guard)).map_err(ServiceError::runtime)?;
        warn_of_readable_passwords(&config.server, &guard);
        let wanted = config.streams.clone();
        let encoders = begin("encoders", move || check_encoders(&wanted))?;
        let encoders = finish(&encoders, stop)?.map_err(|errors| ServiceError::runtime(lines(&errors)))?;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let pool = Arc::new(Pool::idle(cores + 1).map_err(ServiceError::runtime)?);
        let (view, incoming) = ServiceView::new(rtsp.address(), pool.stats());
        let view = Arc::new(view);
        let streams: Streams = Arc::new(Mutex::new(config.streams.clone()));
        let keeper = ModelManager::new(Arc::clone(&pool), Arc::clone(&view), Arc::clone(&streams));
        let whep = Arc::new(Whep::new(config.server.webrtc.clone()));
        // Before the first client comes: it finds all streams, though none has begun.
        let running: Vec<StreamRunner> =
            config.streams.iter().map(|stream| StreamRunner::prepare(stream, None, &rtsp)).collect();
        view.set_streams(running.iter().map(StreamRunner::view).collect());
        let http = http
            .serve_guarded(Arc::clone(&view), Arc::clone(&whep), Arc::clone(&access), certificate.as_ref())
            .map_err(ServiceError::runtime)?;
        let (server, model) = (config.server.clone(), config.model.clone());
        let mut service = Service {
            view,
            server,
            model,
            running,
            ending: Vec::new(),
            stop: stop.clone(),
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
        let started = service.start_all(config, keeper, changes);
        match started.and_then(|keeper| Models::start(keeper, service.model.clone(), incoming.models)) {
            Ok(models) => service.models = Some(models),
            Err(error) => {
                service.stop();
                return Err(error);
            }
        }
        Ok(service)
    }

    /// Loads the first model on a thread of its own and starts the streams, some of them before it is there.
    fn start_all(
        &mut self,
        config: &Config,
        mut keeper: ModelManager,
        changes: &mut dyn EarlyRequests,
    ) -> Result<ModelManager, ServiceError> {
        let model = config.model.clone();
        let loading = begin("model", move || {
            let result = keeper.first(&model);
            (keeper, result)
        })?;
        let patience = Instant::now() + QUICK_LOAD;
        let asked = self.asked.clone();
        while loading.is_empty() && !self.stop.is_raised() {
            // The time only paces the look at the thread.
            if let Ok(asked) = asked.recv_timeout(Duration::from_millis(10)) {
                changes.make_early(asked, self);
            }
            changes.tick(self);
            if Instant::now() < patience {
                continue;
            }
            // A file at full speed would be through before the model is there.
            for running in self.running.iter_mut().filter(|running| !running.is_blocking() && !running.has_begun()) {
                running.start(&self.pool)?;
            }
        }
        let (keeper, result) = finish(&loading, &self.stop)?;
        result?;
        for running in self.running.iter_mut().filter(|running| !running.has_begun()) {
            running.start(&self.pool)?;
        }
        Ok(keeper)
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
        !self.running.is_empty() && self.running.iter().all(StreamRunner::has_ended)
    }

    /// Follows the certificate's files, restarts streams whose stages were lost to a panic, and tells the viewers of those that have ended for good.
    pub fn tick(&mut self) {
        if let Some(certificate) = self.certificate.as_ref().filter(|certificate| certificate.follow(Instant::now()))
            && let Err(error) = self.rtsp.set_certificate(certificate)
        {
            tracing::error!("{error}; RTSP goes on with the old certificate");
        }
        for running in &mut self.running {
            running.restart_if_dead(&self.pool);
            if running.has_ended() && running.is_finished() {
                running.view().outputs.h264.close();
            }
        }
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

    /// The workers that all streams share.
    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }

    /// Changes that clients ask for.
    pub fn asked(&self) -> Receiver<ChangeRequest> {
        self.asked.clone()
    }

    /// Lets in those whom the configuration lets in now; true when it also says what holds after a restart only.
    fn set_server(&mut self, config: &ServerConfig) -> Result<bool, ServiceError> {
        let ServerConfig { http, rtsp, ref tls, .. } = self.server;
        let restart = (config.http, config.rtsp, &config.tls) != (http, rtsp, tls);
        // Who is let in depends on where is really listened.
        let server = ServerConfig { http, rtsp, tls: tls.clone(), ..config.clone() };
        if server != self.server {
            // The RTSP server reads the users from `access`, to make its digests and to find those to disconnect.
            self.access.set(&server);
            let guard = RtspGuard::new(&server, Arc::clone(&self.access), self.certificate.clone());
            if let Err(error) = self.rtsp.set_guard(&guard) {
                self.access.set(&self.server);
                return Err(ServiceError::runtime(error));
            }
            if let Some(warning) = opened(&self.server, &server) {
                tracing::warn!("{warning}");
            }
            self.whep.set_settings(server.webrtc.clone());
            self.whep.disconnect_unless(|who| self.access.still_knows(who));
            warn_of_readable_passwords(&server, &guard);
            self.server = server;
        }
        Ok(restart)
    }

    fn show_streams(&self) {
        self.view.set_streams(self.running.iter().map(StreamRunner::view).collect());
    }

    /// Stops the sources, lets what is under way come out, closes recordings, and writes each stream's account to the log.
    /// Gives the names of streams that did not stop in time.
    pub fn stop(mut self) -> Vec<String> {
        let deadline = Instant::now() + MODEL_DEADLINE;
        // A model that is being loaded now is not needed any more; its thread is waited for last.
        let models = self.models.take();
        let unloaded = begin("model-end", move || drop(models));
        // They leave while the streams end.
        self.whep.disconnect_all();
        let mut streams = std::mem::take(&mut self.running);
        streams.append(&mut self.ending);
        let unstopped = stop_all(streams, None);
        match self.whep.close(WHEP_DEADLINE) {
            0 => {}
            left => tracing::error!("{left} WebRTC viewers do not end and are left behind"),
        }
        if unloaded.is_ok_and(|unloaded| unloaded.recv_deadline(deadline).is_err()) {
            tracing::info!("a model is still being loaded and is not waited for");
        }
        unstopped.hung
    }
}

/// Begins work that may hang, in a driver for instance, on a thread of its own; the result comes through the receiver, a
/// panic as an error.
fn begin<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Receiver<Result<T, ServiceError>>, ServiceError> {
    let (sender, result) = crossbeam_channel::bounded(1);
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        // There is no receiver any more when the service was stopped.
        let _ = sender.send(result.map_err(|panic| ServiceError::Runtime(panic_text(&*panic).to_owned())));
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(|error| ServiceError::runtime(format_args!("no thread for {name}: {error}")))?;
    Ok(result)
}

/// Waits for the result of work that was begun, or for the stop.
fn finish<T>(result: &Receiver<Result<T, ServiceError>>, stop: &Stop) -> Result<T, ServiceError> {
    loop {
        match stop.wait_or_receive(Duration::from_secs(60), result) {
            WakeReason::Raised => return Err(ServiceError::Stopped),
            WakeReason::Item(result) => return result,
            WakeReason::Time => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_does_not_hold_up_the_stop() {
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let hangs = begin("hangs", move || gate.recv().is_err()).unwrap();
        let stop = Stop::default();
        stop.raise();
        assert!(matches!(finish(&hangs, &stop), Err(ServiceError::Stopped)));
        drop(open);
        assert!(finish(&hangs, &Stop::default()).is_ok());
        let panics = begin("panics", || panic!("on purpose")).unwrap();
        let outcome: Result<(), ServiceError> = finish(&panics, &Stop::default());
        assert!(matches!(outcome, Err(ServiceError::Runtime(problem)) if problem == "on purpose"));
    }
}
