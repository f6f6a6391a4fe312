//! The thread with the connection to the broker: connects, sends, and connects again after a growing pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::client::{Client, KEEP_ALIVE, LARGEST_PACKET, Signal};
use super::error::MqttError;
use super::session::Session;
use super::snapshots::Snapshots;
use super::topics::Topics;
use crate::base::mqtt_status::MqttStatus;
use crate::base::retry::Retry;
use crate::config::MqttConfig;
use crate::outbox::EventQueue;
use crate::view::ServiceView;

/// How often states are compared with what was sent. Events wake the connection at once.
const STATE_INTERVAL: Duration = Duration::from_millis(200);

/// A broker that sends nothing for this long, not even an answer to a ping, is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(3 * KEEP_ALIVE.as_secs());

/// How long the stop waits for the acknowledgement of events, and then for the end of the connection.
const STOP_EVENTS_LIMIT: Duration = Duration::from_millis(700);
const STOP_OFFLINE_LIMIT: Duration = Duration::from_millis(500);

/// Space that a packet needs beside its content.
const PACKET_HEADER: usize = 1024;

/// The connection and what it needs to connect again.
pub struct Connection {
    config: MqttConfig,
    client_id: String,
    topics: Topics,
    view: Arc<ServiceView>,
    queue: Arc<Mutex<EventQueue>>,
    status: Arc<MqttStatus>,
    /// New messages are in the queue; the streams of those whose event began.
    events: UnboundedReceiver<Option<Arc<str>>>,
    stopping: watch::Receiver<bool>,
    runtime: Runtime,
}

/// Why a connection ended.
enum End {
    Stopped,
    Lost { reason: String, lasted: Duration },
}

impl Connection {
    /// Does not connect yet.
    ///
    /// # Errors
    /// The system has no resources for the connection.
    pub fn new(
        config: MqttConfig,
        view: Arc<ServiceView>,
        queue: Arc<Mutex<EventQueue>>,
        status: Arc<MqttStatus>,
        events: UnboundedReceiver<Option<Arc<str>>>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, MqttError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| MqttError::Thread { thread: "mqtt", source })?;
        let topics = Topics::new(&config.prefix);
        let client_id = config.client_id.clone().unwrap_or_else(|| default_client_id(&config.prefix));
        Ok(Connection { config, client_id, topics, view, queue, status, events, stopping, runtime })
    }

    /// Runs until it is stopped.
    pub fn run(self) {
        let Connection { config, client_id, topics, view, queue, status, mut events, mut stopping, runtime } = self;
        runtime.block_on(async {
            let mut retry = Retry::new();
            let mut logged: Option<String> = None;
            loop {
                let parts =
                    Parts { config: &config, client_id: &client_id, topics: &topics, view: &view, queue: &queue };
                let end = parts.connect(&status, &mut events, &mut stopping, &mut logged).await;
                let End::Lost { reason, lasted } = end else { return };
                let pause = retry.pause(lasted);
                let to = status.to.as_str();
                // One line for each reason: the broker may be away for days.
                if logged.as_ref() == Some(&reason) {
                    tracing::debug!(stage = "mqtt", ?pause, "MQTT not connected: {to}: {reason}");
                } else {
                    let seconds = pause.as_secs_f64();
                    tracing::warn!(
                        stage = "mqtt",
                        "MQTT not connected, next try in {seconds:.1} s, events are kept: {to}: {reason}"
                    );
                    logged = Some(reason.clone());
                }
                status.fail(reason);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
            }
        });
        // A look-up of the host may hang.
        runtime.shutdown_background();
    }
}

/// What does not change from one connection to the next.
struct Parts<'a> {
    config: &'a MqttConfig,
    client_id: &'a str,
    topics: &'a Topics,
    view: &'a ServiceView,
    queue: &'a Mutex<EventQueue>,
}

impl Parts<'_> {
    /// One connection, from the attempt until it is lost or stopped.
    async fn connect(
        &self,
        status: &MqttStatus,
        events: &mut UnboundedReceiver<Option<Arc<str>>>,
        stopping: &mut watch::Receiver<bool>,
        logged: &mut Option<String>,
    ) -> End {
        let lost = |reason: String, lasted: Duration| End::Lost { reason, lasted };
        let will = self.topics.status();
        let (client, mut signals) = match Client::connect(self.config, self.client_id, (&will, "offline")) {
            Ok(connecting) => connecting,
            Err(error) => return lost(error.to_string(), Duration::ZERO),
        };
        let largest_packet = loop {
            let signal = tokio::select! {
                signal = signals.recv() => signal,
                _ = stopping.wait_for(|stop| *stop) => return End::Stopped,
            };
            match signal {
                Some(Signal::Connected { largest_packet }) => break largest_packet,
                Some(Signal::Lost(reason)) => return lost(reason, Duration::ZERO),
                Some(_) => {}
                None => return lost("the connection ended".into(), Duration::ZERO),
            }
        };
        status.connected();
        *logged = None;
        tracing::info!(stage = "mqtt", "MQTT connected: {}", status.to);
        let began = Instant::now();
        let mut session = Session::new(self.config, self.topics, self.view, self.queue, status, &client);
        let (sender, mut images) = mpsc::unbounded_channel();
        let largest = largest_packet.unwrap_or(LARGEST_PACKET).min(LARGEST_PACKET).saturating_sub(PACKET_HEADER);
        let mut snapshots = Snapshots::new(self.config.snapshot_every, largest, sender);
        let mut heard = Instant::now();
        let mut states = tokio::time::interval(STATE_INTERVAL);
        let mut shares = tokio::time::interval(self.config.every);
        states.set_missed_tick_behavior(MissedTickBehavior::Delay);
        shares.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = signals.recv() => {
                    let Some(signal) = signal else { return lost("the connection ended".into(), began.elapsed()) };
                    if !matches!(signal, Signal::Taken(_)) {
                        heard = Instant::now();
                    }
                    if let Some(reason) = apply(&mut session, signal, &mut signals) {
                        return lost(reason, began.elapsed());
                    }
                    session.send_events();
                }
                began = events.recv() => {
                    let mut next = began;
                    while let Some(began) = next {
                        began.iter().for_each(|stream| snapshots.event_began(stream));
                        next = events.try_recv().ok();
                    }
                    session.send_states();
                    session.send_events();
                }
                _ = states.tick() => {
                    session.send_states();
                    session.send_events();
                    if self.config.snapshots {
                        snapshots.request(session.streams(), Instant::now());
                    }
                    if heard.elapsed() > SILENCE_LIMIT {
                        return lost("no answer".into(), began.elapsed());
                    }
                }
                _ = shares.tick() => session.send_shares(Instant::now()),
                image = images.recv() => {
                    let Some((stream, image)) = image else { continue };
                    snapshots.received(&stream, image.is_some(), Instant::now());
                    image.into_iter().for_each(|image| session.send_snapshot(&stream, image));
                }
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        close(&mut session, &client, &mut signals).await;
        End::Stopped
    }
}

/// Sends the messages that are stored, says that the service is offline, and disconnects.
async fn close(session: &mut Session<'_>, client: &Client, signals: &mut UnboundedReceiver<Signal>) {
    session.send_states();
    session.send_events();
    let limit = tokio::time::Instant::now() + STOP_EVENTS_LIMIT;
    while session.has_pending_events() {
        let Ok(Some(signal)) = tokio::time::timeout_at(limit, signals.recv()).await else { break };
        if apply(session, signal, signals).is_some() {
            return;
        }
        session.send_events();
    }
    session.send_offline();
    let limit = tokio::time::Instant::now() + STOP_OFFLINE_LIMIT;
    while !session.is_offline_acknowledged() {
        let Ok(Some(signal)) = tokio::time::timeout_at(limit, signals.recv()).await else { return };
        if apply(session, signal, signals).is_some() {
            return;
        }
    }
    client.close();
    while let Ok(Some(signal)) = tokio::time::timeout_at(limit, signals.recv()).await {
        if apply(session, signal, signals).is_some() {
            return;
        }
    }
}

/// Applies a signal and those that have come meanwhile, so that acknowledgements are stored together. Returns the reason if
/// the connection has ended.
fn apply(session: &mut Session<'_>, first: Signal, signals: &mut UnboundedReceiver<Signal>) -> Option<String> {
    let mut answers = Vec::new();
    let mut next = Some(first);
    let mut end = None;
    while let Some(signal) = next {
        match signal {
            Signal::Taken(id) => session.taken(id),
            Signal::Acknowledged { id, refused } => answers.extend(session.answered(id).map(|sent| (sent, refused))),
            Signal::Lost(reason) => end = Some(reason),
            Signal::Closed => end = Some("the connection was closed".into()),
            Signal::Connected { .. } | Signal::Alive => {}
        }
        next = signals.try_recv().ok();
    }
    session.acknowledged(answers);
    end
}

/// The prefix and the name of this machine.
fn default_client_id(prefix: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    format!("{prefix}-{}", host.trim()).chars().map(fits).take(64).collect()
}
