//! The service of `maskcast run`: starts everything that a configuration describes.
//!
//! [`reload`] applies another configuration and restarts only the streams that have changed, [`changes`] applies changes of
//! API clients, [`models`] loads and replaces the models, [`stopping`] stops streams.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use crate::access::Access;
use crate::access::tls::Certificate;
use crate::base::panic::panic_text;
use crate::base::paths::state_folders;
use crate::base::stop::{Stop, WakeReason};
use crate::config::{Config, ConfigError, HistoryConfig, MqttConfig, OverlayConfig, ServerConfig, StreamConfig};
use crate::frame::Label;
use crate::history::HistoryThreads;
use crate::mqtt::Mqtt;
use crate::publish::encoder::{Choice, H264};
use crate::publish::rtsp::RtspServer;
use crate::publish::rtsp_auth::RtspGuard;
use crate::publish::whep::Whep;
use crate::server::HttpServer;

pub mod changes;
mod check;
mod error;
mod history;
pub mod models;
pub mod pools;
pub mod redaction;
pub mod reload;
pub mod reserved;
mod saved_models;
pub mod stopping;
pub mod stream_runner;
mod warn;
pub mod watch;

pub use check::{check_labels, unused_names};
pub use error::{ModelChangeError, ServiceError, SettingErrors, StreamStartError};
pub use reload::ReloadReport;
pub use stopping::log_frame_counts;

use crate::view::ServiceView;
use crate::view::request::ChangeRequest;
use crate::webhook::Webhooks;
use check::check_encoders;
use models::{Models, NewModel, PreparedModels, Streams};
use pools::Pools;
use redaction::RedactionWatch;
use stopping::stop_all;
use stream_runner::StreamRunner;
use warn::{warn_of_plain_passwords, warn_of_removed_users, warn_of_unused_names};

/// Handles requests of clients while the service starts.
pub trait EarlyRequests {
    /// Applies a change that does not need the model; queues or refuses others.
    fn apply_early(&mut self, request: ChangeRequest, service: &mut Service);

    /// Periodic work; called several times a second.
    fn tick(&mut self, service: &Service);
}

/// A running service.
pub struct Service {
    pub view: Arc<ServiceView>,
    server: ServerConfig,
    mqtt_config: Option<MqttConfig>,
    mqtt: Option<Mqtt>,
    running: Vec<StreamRunner>,
    /// Streams that a reload was stopping when the service was stopped.
    ending: Vec<StreamRunner>,
    /// Raised when the service is to stop.
    stop: Stop,
    /// The settings that the model must match.
    streams: Streams,
    /// Requests of clients for [`changes::Changes`].
    change_requests: Receiver<ChangeRequest>,
    // Dropped after the streams, in this order.
    models: Models,
    http: HttpServer,
    rtsp: RtspServer,
    access: Arc<Access>,
    certificate: Option<Arc<Certificate>>,
    whep: Arc<Whep>,
    pools: Pools,
    /// The encoders that have been logged.
    logged_encoders: Vec<H264>,
    webhooks: Webhooks,
    /// `None` if it is off.
    history: Option<HistoryThreads>,
    history_settings: HistoryConfig,
    redaction: RedactionWatch,
}

/// If loading the model takes longer than this, streams start without masks.
const QUICK_LOAD: Duration = Duration::from_secs(2);

/// How long the stop waits for WebRTC viewers after the streams have stopped.
const WHEP_DEADLINE: Duration = Duration::from_millis(500);

/// How long the stop waits for a model that is still loading, from the beginning of the stop. Stopping the streams takes as
/// long in the worst case.
const MODEL_DEADLINE: Duration = Duration::from_millis(4400);

impl Service {
    /// Starts everything: first the ports, so that nothing starts if one is in use; then the models, so that no camera is
    /// opened if one of them cannot work; then the streams. While a model takes long to load, streams run without masks, and
    /// `changes` applies changes that do not need the model. Raising `stop` aborts the start.
    ///
    /// # Errors
    /// The first failure; everything that was started before is stopped.
    pub fn start(config: &Config, changes: &mut dyn EarlyRequests, stop: &Stop) -> Result<Service, ServiceError> {
        if config.streams.iter().any(|stream| stream.redact.is_some()) {
            redaction::protect_memory();
        }
        let http = HttpServer::bind(config.server.http)?;
        let certificate = config.server.tls.as_ref().map(Certificate::load).transpose()?;
        let access = Arc::new(Access::new(&config.server)?);
        let guard = RtspGuard::new(&config.server, Arc::clone(&access), certificate.clone());
        let rtsp = RtspServer::start_guarded(config.server.rtsp, Some(&guard))?;
        warn_of_plain_passwords(&config.server, &guard);
        let streams = config.streams.clone();
        let encoders = run_on_thread("encoders", move || check_encoders(&streams))?;
        let encoders = wait_for(&encoders, stop)?.map_err(|errors| ServiceError::Encoders(SettingErrors(errors)))?;
        let streams: Streams = Arc::new(Mutex::new(config.streams.clone()));
        let new_models = NewModel::all(config, &streams)?;
        let pools = Pools::default();
        new_models.iter().for_each(|model| pools.add(&model.view().name, model.pool()));
        let (view, change_requests) = ServiceView::new(rtsp.address(), new_models.iter().map(NewModel::view).collect());
        let view = Arc::new(view);
        let mut webhooks = Webhooks::new(Arc::clone(&view.events));
        webhooks.set(&config.webhooks)?;
        view.set_webhooks(webhooks.status());
        let history = history::prepare(&config.history);
        history.iter().for_each(|history| view.set_history(Arc::clone(history)));
        let whep = Arc::new(Whep::new(config.server.webrtc.clone()));
        // Before the first client connects, so that it finds all streams, though none has started.
        let running: Vec<StreamRunner> =
            config.streams.iter().map(|stream| StreamRunner::prepare(stream, None, &rtsp, &view.events)).collect();
        view.set_streams(running.iter().map(StreamRunner::view).collect());
        let http =
            http.serve_with_access(Arc::clone(&view), Arc::clone(&whep), Arc::clone(&access), certificate.as_ref())?;
        let state = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
        let server = config.server.clone();
        let mut service = Service {
            view,
            server,
            mqtt_config: None,
            mqtt: None,
            running,
            ending: Vec::new(),
            stop: stop.clone(),
            streams,
            change_requests,
            models: Models::default(),
            http,
            rtsp,
            access,
            certificate,
            whep,
            pools,
            logged_encoders: Vec::new(),
            webhooks,
            history: None,
            history_settings: config.history.clone(),
            redaction: RedactionWatch::in_folder(state_folders(&state).next()),
        };
        service.watch_redaction(&config.streams);
        tracing::info!("page {}", service.page());
        for stream in &config.streams {
            tracing::info!(
                stream = stream.name,
                "source {} -> {}",
                stream.source.label(),
                service.rtsp_address(&stream.name)
            );
        }
        service.log_encoders(encoders);
        // Before the streams and the history, so that it gets their first events.
        service.set_mqtt(config.mqtt.as_ref());
        // After all consumers of events have their queues, because it ends the events that a previous process did not end.
        let started = history::start(history.as_ref(), &service.view.events).and_then(|threads| {
            service.history = threads;
            service.start_all(new_models, changes)
        });
        match started.and_then(Models::start) {
            Ok(models) => service.models = models,
            Err(error) => {
                service.stop();
                return Err(error);
            }
        }
        warn_of_unused_names(config, service.known_labels().as_deref());
        Ok(service)
    }

    /// Loads the models, one after the other, on a thread and starts the streams, some of them before their models are loaded.
    fn start_all(
        &mut self,
        mut new_models: Vec<NewModel>,
        changes: &mut dyn EarlyRequests,
    ) -> Result<Vec<NewModel>, ServiceError> {
        let loading = run_on_thread("model", move || {
            new_models.iter_mut().try_for_each(NewModel::load)?;
            Ok::<_, ServiceError>(new_models)
        })?;
        let start_without_model = Instant::now() + QUICK_LOAD;
        let requests = self.change_requests.clone();
        while loading.is_empty() && !self.stop.is_raised() {
            // The time-out is the interval at which the thread is checked.
            if let Ok(request) = requests.recv_timeout(Duration::from_millis(10)) {
                changes.apply_early(request, self);
            }
            changes.tick(self);
            if Instant::now() < start_without_model {
                continue;
            }
            // Blocking streams (files at full speed) wait: they could end before the model is loaded.
            for running in self.running.iter_mut().filter(|running| !running.is_blocking() && !running.has_begun()) {
                running.start(&self.pools)?;
            }
        }
        let loaded: Vec<NewModel> = wait_for(&loading, &self.stop)??;
        for running in self.running.iter_mut().filter(|running| !running.has_begun()) {
            running.start(&self.pools)?;
        }
        Ok(loaded)
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

    /// Whether all sources have ended and are not opened again.
    pub fn has_ended(&self) -> bool {
        !self.running.is_empty() && self.running.iter().all(StreamRunner::has_ended)
    }

    /// Periodic work: reloads the certificate, restarts streams whose stages have panicked or hang, and disconnects the viewers
    /// of streams that have ended.
    pub fn tick(&mut self) {
        if let Some(certificate) =
            self.certificate.as_ref().filter(|certificate| certificate.reload_if_changed(Instant::now()))
            && let Err(error) = self.rtsp.set_certificate(certificate)
        {
            tracing::error!("RTSP certificate not reloaded, the old one stays in use: {error}");
        }
        let now = Instant::now();
        for running in &mut self.running {
            running.view().events.tick(now);
            running.view().drift.save(false);
            running.restart_if_dead(&self.pools);
            if running.has_ended() && running.is_finished() {
                running.view().outputs.h264.remove_viewers();
            }
        }
    }

    /// Checks whether [`Service::reload`] can apply `config`.
    ///
    /// # Errors
    /// All errors that are found without applying it.
    pub fn check(&self, config: &Config) -> Result<(), Vec<ConfigError>> {
        self.check_with(config, &PreparedModels::default())
    }

    /// The same with the models that the reload adds. The labels of a model that the reload changes are not known yet; it checks them
    /// itself.
    fn check_with(&self, config: &Config, prepared: &PreparedModels) -> Result<(), Vec<ConfigError>> {
        let mut errors = check_encoders(&config.streams).err().unwrap_or_default();
        for model in &config.models {
            let labels = match self.models.config(&model.name) {
                Some(running) if running == model => self.view.labels_of(&model.name),
                Some(_) => None,
                None => prepared.labels(model),
            };
            if let Some(labels) = labels {
                errors.extend(check_labels(config.streams_of(&model.name), &labels).err().unwrap_or_default());
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Checks that the running model of a stream has the labels that the stream names.
    ///
    /// # Errors
    /// All unknown labels.
    pub fn check_labels(&self, stream: &StreamConfig) -> Result<(), Vec<ConfigError>> {
        self.view.labels_of(&stream.model).map_or(Ok(()), |labels| check_labels([stream], &labels))
    }

    /// The models of `config` that do not run, because it was not reloaded since they were added.
    pub fn new_models(&self, config: &Config) -> Vec<String> {
        let is_new = |name: &String| self.models.config(name).is_none();
        config.models.iter().map(|model| model.name.clone()).filter(is_new).collect()
    }

    /// The names of the models that run.
    pub fn models(&self) -> Vec<String> {
        self.models.names()
    }

    /// The labels of all models; `None` while one is being loaded.
    fn known_labels(&self) -> Option<Vec<Label>> {
        let models = self.view.models();
        let labels: Option<Vec<Vec<Label>>> =
            models.iter().map(|model| Some(model.running()?.labels.to_vec())).collect();
        labels.map(|labels| labels.concat())
    }

    /// Logs, counts and shows where `streams` hide less than before.
    fn watch_redaction(&mut self, streams: &[StreamConfig]) {
        let new = self.redaction.update(streams, jiff::Timestamp::now());
        self.view.set_weakened_redaction(self.redaction.weakened(), new.len());
    }

    /// The current settings of a stream.
    pub fn config_of(&self, name: &str) -> Option<&StreamConfig> {
        self.running.iter().map(|running| &running.config).find(|config| config.name == name)
    }

    /// Changes the overlay of a stream from the next frame on.
    pub fn set_overlay(&mut self, name: &str, overlay: &OverlayConfig) {
        let Some(running) = self.running.iter_mut().find(|running| running.config.name == name) else { return };
        running.adjust(&StreamConfig { overlay: overlay.clone(), ..running.config.clone() });
        let mut streams = self.streams.lock();
        streams.iter_mut().filter(|stream| stream.name == name).for_each(|stream| stream.overlay = overlay.clone());
        drop(streams);
        self.show_streams();
    }

    /// Logs the chosen encoders, each once.
    fn log_encoders(&mut self, chosen: Vec<Choice>) {
        for choice in chosen {
            tracing::debug!("H.264 encoder {choice}");
            if !self.logged_encoders.contains(&choice.encoder) {
                tracing::info!("H.264 encoder {} ({})", choice.encoder.kind(), choice.encoder.element());
                self.logged_encoders.push(choice.encoder);
            }
        }
    }

    /// The segmentation workers of all models.
    pub fn pools(&self) -> Pools {
        self.pools.clone()
    }

    /// The queue of changes that clients request.
    pub fn change_requests(&self) -> Receiver<ChangeRequest> {
        self.change_requests.clone()
    }

    /// Applies `[server]`: users, sessions and WebRTC. Returns whether it has changes that need a restart.
    fn set_server(&mut self, config: &ServerConfig) -> Result<bool, ServiceError> {
        let ServerConfig { http, rtsp, ref tls, .. } = self.server;
        let restart = (config.http, config.rtsp, &config.tls) != (http, rtsp, tls);
        // Access depends on the addresses that are in use, not on new ones.
        let server = ServerConfig { http, rtsp, tls: tls.clone(), ..config.clone() };
        if server != self.server {
            // The RTSP server reads the users from `access`, for its digests and to disconnect removed users.
            self.access.set(&server);
            let guard = RtspGuard::new(&server, Arc::clone(&self.access), self.certificate.clone());
            if let Err(error) = self.rtsp.set_guard(&guard) {
                self.access.set(&self.server);
                return Err(error.into());
            }
            warn_of_removed_users(&self.server, &server);
            self.whep.set_settings(server.webrtc.clone());
            self.whep.disconnect_unless(|identity| self.access.is_valid(identity));
            warn_of_plain_passwords(&server, &guard);
            self.server = server;
        }
        Ok(restart)
    }

    /// Applies `[mqtt]`. If it has changed, the service connects again; events that come meanwhile are sent then.
    fn set_mqtt(&mut self, config: Option<&MqttConfig>) {
        if self.mqtt_config.as_ref() == config {
            return;
        }
        self.mqtt_config = config.cloned();
        let before = self.mqtt.take().map(Mqtt::stop);
        self.view.set_mqtt(None);
        if let Some(config) = config {
            match Mqtt::start(config, &self.view, before) {
                Ok(mqtt) => self.mqtt = Some(mqtt),
                Err(error) => tracing::error!("MQTT cannot be started, the service continues without it: {error}"),
            }
        }
    }

    fn show_streams(&self) {
        self.view.set_streams(self.running.iter().map(StreamRunner::view).collect());
    }

    /// Stops the sources, publishes the frames in flight, closes recordings, and logs the frame counts of each stream. Returns
    /// the names of streams that did not stop in time.
    pub fn stop(mut self) -> Vec<String> {
        let deadline = Instant::now() + MODEL_DEADLINE;
        // A model that is still loading is not needed; its thread is joined last.
        let models = std::mem::take(&mut self.models);
        let unloaded = run_on_thread("model-end", move || drop(models));
        // WebRTC viewers disconnect while the streams stop.
        self.whep.disconnect_all();
        let mut streams = std::mem::take(&mut self.running);
        streams.append(&mut self.ending);
        let unstopped = stop_all(streams, None);
        // In parallel with the viewers below.
        let webhooks = std::mem::replace(&mut self.webhooks, Webhooks::new(Arc::clone(&self.view.events)));
        let webhooks_ended = run_on_thread("webhooks", move || webhooks.stop());
        // After the streams, so that it sends the ends of their events.
        drop(self.mqtt.take().map(Mqtt::stop));
        match self.whep.close(WHEP_DEADLINE) {
            0 => {}
            left => tracing::error!("WebRTC viewers not stopped; their threads are abandoned: {left}"),
        }
        if webhooks_ended.is_ok_and(|ended| ended.recv_deadline(deadline).is_err()) {
            tracing::warn!("webhooks have not stopped in time: messages that are not stored are lost");
        }
        if unloaded.is_ok_and(|unloaded| unloaded.recv_deadline(deadline).is_err()) {
            tracing::info!("model still loading at the stop; the service ends without it");
        }
        // Last: it stores the events and masks of the streams until their end.
        if let Some(history) = self.history.take() {
            history.stop(history::STOP_LIMIT);
        }
        unstopped.hung
    }
}

/// Runs work that may hang, for example in a driver, on its own thread. The receiver gets its result, or a panic as an
/// error.
fn run_on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Receiver<Result<T, ServiceError>>, ServiceError> {
    let (sender, result) = crossbeam_channel::bounded(1);
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        // The receiver was dropped if the service was stopped.
        let panicked =
            |panic: Box<dyn Any + Send>| ServiceError::Panicked { thread: name, message: panic_text(&*panic).into() };
        let _ = sender.send(result.map_err(panicked));
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(|source| ServiceError::Thread { thread: name, source })?;
    Ok(result)
}

/// Waits for the result of [`run_on_thread`], or for the stop.
fn wait_for<T>(result: &Receiver<Result<T, ServiceError>>, stop: &Stop) -> Result<T, ServiceError> {
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
    fn work_that_hangs_does_not_delay_the_stop() {
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let hangs = run_on_thread("hangs", move || gate.recv().is_err()).unwrap();
        let stop = Stop::default();
        stop.raise();
        assert!(matches!(wait_for(&hangs, &stop), Err(ServiceError::Stopped)));
        drop(open);
        assert!(wait_for(&hangs, &Stop::default()).is_ok());
        let panics = run_on_thread("panics", || panic!("on purpose")).unwrap();
        let outcome: Result<(), ServiceError> = wait_for(&panics, &Stop::default());
        assert!(
            matches!(outcome, Err(ServiceError::Panicked { thread: "panics", message }) if message == "on purpose")
        );
    }
}
