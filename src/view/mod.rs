//! The state of the service, read by the HTTP server, the watchdog and the final log lines. Streams and models may change at
//! any time; readers take snapshots. Requests for changes are sent through it to the service.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

pub mod change_ticket;
mod model;
pub mod redaction;
pub mod request;

pub use model::{
    ModelBusy, ModelChange, ModelChangeRequest, ModelChangeState, ModelFiles, ModelView, NamedModel, Saving,
};

use change_ticket::ChangeTicket;
use redaction::WeakenedRedaction;
use request::{Change, ChangeOutcome, ChangeRefusal, ChangeRequest};

use crate::base::mqtt_status::MqttStatus;
use crate::base::status::{Status, StreamState};
use crate::base::webhook_status::WebhookStatus;
use crate::collect::stream_collection::StreamCollection;
use crate::config::{SourceHost, SourceUri, StreamConfig, ZoneConfig, is_rest};
use crate::drift::StreamDrift;
use crate::events::{EventHub, Rule, StreamEvents};
use crate::frame::{Label, Labels, Rgb, Weight};
use crate::history::{History, HistoryStream, StreamMinutes};
use crate::publish::outputs::StreamOutputs;
use crate::publish::recording::Archive;
use crate::segment::pool::ModelShare;
use crate::sink::MaskFeed;
use crate::stream::overlay_state::OverlayState;
use crate::zones::{Zone, ZoneState};

/// The state of the whole service.
pub struct ServiceView {
    streams: RwLock<Arc<[Arc<StreamView>]>>,
    models: RwLock<Arc<[Arc<NamedModel>]>>,
    mqtt: RwLock<Option<Arc<MqttStatus>>>,
    changes: Sender<ChangeRequest>,
    pub started: Instant,
    /// The address of the RTSP server.
    pub rtsp: SocketAddr,
    /// The messages about the events of all streams.
    pub events: Arc<EventHub>,
    webhooks: Mutex<Vec<Arc<WebhookStatus>>>,
    history: OnceLock<Arc<History>>,
    weakened: Mutex<Vec<WeakenedRedaction>>,
    weakened_count: AtomicU64,
}

/// The state of one stream.
#[derive(Clone)]
pub struct StreamView {
    pub status: Arc<Status>,
    pub outputs: StreamOutputs,
    /// `None` for a stream that is not recorded.
    pub recordings: Option<Arc<Archive>>,
    /// Its newest mask.
    pub overlay_state: Arc<OverlayState>,
    /// Its share in the time of the model.
    pub model_share: Arc<ModelShare>,
    /// Its masks, for API clients.
    pub masks: Arc<MaskFeed>,
    /// Its shares minute by minute, for the history.
    pub minutes: Arc<StreamMinutes>,
    /// Its rules and their events.
    pub events: Arc<StreamEvents>,
    /// Whether its camera has changed.
    pub drift: Arc<StreamDrift>,
    /// The zones in which its masks are measured.
    pub zones: Arc<ZoneState>,
    /// Its collected frames; `None` for a stream that collects none.
    pub collection: Option<Arc<StreamCollection>>,
    pub config: StreamConfig,
}

/// A class of the model as a stream draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegendEntry {
    pub name: String,
    pub color: Rgb,
    pub hidden: bool,
    /// Whether it stands for the rest of the frame: the class `other`, for instance.
    pub rest: bool,
    pub weight: Weight,
}

/// Maximum number of queued changes; further ones are refused with 503.
pub const MAX_PENDING_CHANGES: usize = 128;

/// The queue of changes is full, or the service does not apply changes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeQueueFull;

/// A requested change. If it is dropped before it is started (its client has disconnected), it is withdrawn.
#[derive(Debug)]
pub struct PendingChange {
    /// Receives the result when the change was applied or refused.
    pub result: oneshot::Receiver<Result<ChangeOutcome, ChangeRefusal>>,
    ticket: ChangeTicket,
}

impl PendingChange {
    /// Withdraws the change; returns false if it was started: then there will be a result.
    pub fn withdraw(&self) -> bool {
        self.ticket.withdraw()
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        self.ticket.withdraw();
    }
}

impl ServiceView {
    /// A view without streams, of these models in the order of the configuration, and the queue of requests for other settings.
    pub fn new(rtsp: SocketAddr, models: Vec<Arc<NamedModel>>) -> (ServiceView, Receiver<ChangeRequest>) {
        let (changes, queued) = bounded(MAX_PENDING_CHANGES);
        let view = ServiceView {
            streams: RwLock::new([].into()),
            models: RwLock::new(models.into()),
            mqtt: RwLock::default(),
            changes,
            started: Instant::now(),
            rtsp,
            events: Arc::default(),
            webhooks: Mutex::default(),
            history: OnceLock::new(),
            weakened: Mutex::default(),
            weakened_count: AtomicU64::new(0),
        };
        (view, queued)
    }

    /// The current streams in the order of the configuration.
    pub fn streams(&self) -> Arc<[Arc<StreamView>]> {
        Arc::clone(&self.streams.read())
    }

    pub fn set_streams(&self, streams: Vec<Arc<StreamView>>) {
        if let Some(history) = self.history() {
            let listed = |stream: &Arc<StreamView>| HistoryStream {
                minutes: Arc::clone(&stream.minutes),
                jpeg: stream.outputs.jpeg.clone(),
            };
            history.streams.set(streams.iter().map(listed));
        }
        *self.streams.write() = streams.into();
    }

    /// The history; `None` if it is off.
    pub fn history(&self) -> Option<&Arc<History>> {
        self.history.get()
    }

    /// Stores the history of the streams that are set from now on. Only the first call has an effect.
    pub fn set_history(&self, history: Arc<History>) {
        self.history.get_or_init(|| history);
    }

    pub fn stream(&self, name: &str) -> Option<Arc<StreamView>> {
        self.streams().iter().find(|stream| &*stream.status.name == name).cloned()
    }

    /// The models in the order of the configuration. The first is that of the streams that name none.
    pub fn models(&self) -> Arc<[Arc<NamedModel>]> {
        Arc::clone(&self.models.read())
    }

    pub fn set_models(&self, models: Vec<Arc<NamedModel>>) {
        *self.models.write() = models.into();
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<Arc<NamedModel>> {
        self.models().iter().find(|model| *model.name == *name).cloned()
    }

    /// The labels of the running model of this name; `None` until it is loaded.
    pub fn labels_of(&self, model: &str) -> Option<Labels> {
        Some(Arc::clone(&self.model(model)?.running()?.labels))
    }

    /// The connection to the MQTT broker; `None` without `[mqtt]`.
    pub fn mqtt(&self) -> Option<Arc<MqttStatus>> {
        self.mqtt.read().clone()
    }

    pub fn set_mqtt(&self, status: Option<Arc<MqttStatus>>) {
        *self.mqtt.write() = status;
    }

    /// The status of each webhook, in the order of the configuration.
    pub fn webhooks(&self) -> Vec<Arc<WebhookStatus>> {
        self.webhooks.lock().clone()
    }

    pub fn set_webhooks(&self, webhooks: Vec<Arc<WebhookStatus>>) {
        *self.webhooks.lock() = webhooks;
    }

    /// The changes of the configuration that have weakened the redaction of a stream in the last day.
    pub fn weakened_redaction(&self) -> Vec<WeakenedRedaction> {
        let now = Timestamp::now();
        self.weakened.lock().iter().filter(|change| change.is_shown(now)).cloned().collect()
    }

    /// Replaces these changes; `new` of them happened now.
    pub fn set_weakened_redaction(&self, changes: Vec<WeakenedRedaction>, new: usize) {
        *self.weakened.lock() = changes;
        self.weakened_count.fetch_add(new as u64, Ordering::Relaxed);
    }

    /// How many such changes there were since the service started, its start included.
    pub fn weakened_redaction_count(&self) -> u64 {
        self.weakened_count.load(Ordering::Relaxed)
    }

    /// Requests a change of settings. `host` is the host of its source, which the caller has looked up, so that the run loop
    /// does not wait for a name server.
    ///
    /// # Errors
    /// The queue is full, or the service is stopping.
    pub fn request_change(&self, change: Change, host: Option<SourceHost>) -> Result<PendingChange, ChangeQueueFull> {
        let (sender, result) = oneshot::channel();
        let ticket = ChangeTicket::default();
        let request = ChangeRequest { change, host, ticket: ticket.clone(), result: sender };
        self.changes.try_send(request).map_err(|_| ChangeQueueFull)?;
        Ok(PendingChange { result, ticket })
    }

    /// Whether all models are loaded and no stream is in the state `starting`.
    pub fn is_ready(&self) -> bool {
        self.models().iter().all(|model| model.running().is_some())
            && self.streams().iter().all(|stream| stream.status.state() != StreamState::Starting)
    }
}

impl StreamView {
    /// Masks per second ([`Status::mask_rate`]); 0 while the model does not run for the stream.
    pub fn mask_rate(&self) -> f64 {
        if self.model_share.is_needed() { self.status.mask_rate() } else { 0.0 }
    }

    /// A stream that has not started, without outputs for viewers yet.
    pub fn new(config: &StreamConfig, outputs: StreamOutputs, hub: &Arc<EventHub>) -> Self {
        let zones: Arc<ZoneState> = Arc::default();
        let recordings = config
            .record
            .clone()
            .map(|record| Arc::new(Archive::with_rules(&config.name, record, config.recorded_rules())));
        StreamView {
            status: Arc::new(Status::new(&config.name)),
            outputs,
            recordings,
            overlay_state: Arc::new(OverlayState::new(config.overlay.clone())),
            model_share: Arc::new(ModelShare::new(config.masks, config.mask_rate, config.priority).gated(config.gate)),
            masks: Arc::default(),
            minutes: Arc::new(StreamMinutes::new(&config.name)),
            events: Arc::new(StreamEvents::new(&config.name, Arc::clone(hub), Arc::clone(&zones))),
            drift: Arc::new(StreamDrift::new(config.drift.clone())),
            zones,
            collection: config.collects().map(|collect| Arc::new(StreamCollection::new(&config.name, collect))),
            config: config.clone(),
        }
    }

    /// Applies the zones and rules of `config`.
    pub fn configure_rules(&self) {
        let StreamConfig { zones, rules, record, source, max_mask_age, .. } = &self.config;
        let events = record.iter().flat_map(|record| record.events.iter().map(Rule::from));
        let rules = rules.iter().map(Rule::from).chain(events).collect();
        let zone =
            |zone: &ZoneConfig| Arc::new(Zone { name: Some(zone.name.as_str().into()), polygon: zone.polygon.clone() });
        let recording = self.recordings.as_ref().and_then(|recordings| recordings.event_state()).cloned();
        let is_hurried = matches!(source.uri, SourceUri::File(_)) && !source.real_time;
        self.events.configure(rules, zones.iter().map(zone).collect(), *max_mask_age, is_hurried, recording);
    }

    /// The classes of `labels` as this stream draws them.
    pub fn legend(&self, labels: &[Label]) -> Vec<LegendEntry> {
        let overlay = &self.config.overlay;
        let entry = |label: &Label| LegendEntry {
            name: label.name.clone(),
            color: overlay.color_of(label),
            hidden: overlay.hides(&label.name),
            rest: is_rest(&label.name),
            weight: overlay.weight_of(label),
        };
        labels.iter().map(entry).collect()
    }
}
