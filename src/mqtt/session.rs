//! What is sent on one connection: the retained messages that describe the present, shares at their rate, images, and the
//! messages of the queue until the broker has acknowledged them.
//!
//! Nothing here waits for the client. A message for which it has no room is sent later: retained messages are compared with
//! what was sent, and the queue remains.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::client::{Client, Publication};
use super::message::{SharesMessage, differ, labels_of};
use super::retained::{Retained, all_topics, descriptions, states};
use super::topics::Topics;
use crate::base::mqtt_status::MqttStatus;
use crate::config::MqttConfig;
use crate::outbox::{Cursor, EventKey, EventQueue};
use crate::sink::StreamMask;
use crate::view::{ServiceView, StreamView};

/// Messages of the queue that are sent before the broker has acknowledged the first of them. After a connection is lost, so
/// many may arrive twice.
const EVENTS_IN_FLIGHT: usize = 8;

/// With a deadband, shares that have not changed are sent after this time.
const UNCHANGED: Duration = Duration::from_secs(60);

/// What a publication with QoS 1 was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Event(EventKey),
    /// The topic of a retained message that was cleared.
    Cleared(String),
    Offline,
    Other,
}

/// The shares that were sent last to a topic.
struct SentShares {
    shares: BTreeMap<String, f64>,
    at: Instant,
}

/// The state of a connection.
pub struct Session<'a> {
    config: &'a MqttConfig,
    topics: &'a Topics,
    view: &'a ServiceView,
    queue: &'a Mutex<EventQueue>,
    status: &'a MqttStatus,
    client: &'a Client,
    /// Publications with QoS 1 that the client has not taken, in their order.
    untaken: VecDeque<Sent>,
    /// Publications that the broker has not acknowledged, by their packet identifier.
    unacknowledged: HashMap<u16, Sent>,
    /// Retained messages as they were sent.
    sent: Retained,
    streams: Arc<[Arc<StreamView>]>,
    descriptions: Retained,
    /// All retained topics.
    wanted: BTreeSet<String>,
    /// Retained topics that no longer exist.
    obsolete: BTreeSet<String>,
    cursor: Cursor,
    /// Messages of the queue for the client.
    events: VecDeque<(EventKey, Publication)>,
    /// Those that the broker has not acknowledged.
    pending_events: HashSet<EventKey>,
    /// The mask that was sent last, for each stream.
    masks: HashMap<Arc<str>, u64>,
    shares: HashMap<String, SentShares>,
    is_offline_acknowledged: bool,
}

impl<'a> Session<'a> {
    /// A connection that the broker has just accepted.
    pub fn new(
        config: &'a MqttConfig,
        topics: &'a Topics,
        view: &'a ServiceView,
        queue: &'a Mutex<EventQueue>,
        status: &'a MqttStatus,
        client: &'a Client,
    ) -> Self {
        let mut session = Session {
            config,
            topics,
            view,
            queue,
            status,
            client,
            untaken: VecDeque::new(),
            unacknowledged: HashMap::new(),
            sent: Retained::new(),
            streams: [].into(),
            descriptions: Retained::new(),
            wanted: BTreeSet::new(),
            obsolete: BTreeSet::new(),
            cursor: Cursor::default(),
            events: VecDeque::new(),
            pending_events: HashSet::new(),
            masks: HashMap::new(),
            shares: HashMap::new(),
            is_offline_acknowledged: false,
        };
        session.list_topics(view.streams());
        session
    }

    /// The current streams, as they were when [`Session::send_states`] was called last.
    pub fn streams(&self) -> &[Arc<StreamView>] {
        &self.streams
    }

    /// The client has written a publication.
    pub fn taken(&mut self, id: u16) {
        self.status.add_sent();
        if id != 0
            && let Some(sent) = self.untaken.pop_front()
        {
            self.unacknowledged.insert(id, sent);
        }
    }

    /// The broker has acknowledged or refused the publication with this packet identifier, which may be used again.
    pub fn answered(&mut self, id: u16) -> Option<Sent> {
        self.unacknowledged.remove(&id)
    }

    /// The broker has acknowledged these publications, or refused them for a reason.
    pub fn acknowledged(&mut self, answers: Vec<(Sent, Option<String>)>) {
        let (mut done, mut refusals, mut cleared) = (Vec::new(), 0, Vec::new());
        for (sent, refused) in answers {
            match sent {
                Sent::Event(key) => {
                    if let Some(reason) = refused {
                        refusals += 1;
                        let text = format!("MQTT broker refuses messages about events, they are lost: {reason}");
                        crate::base::log_dedup::warn("", "mqtt", &text);
                    }
                    self.pending_events.remove(&key);
                    done.push(key);
                }
                Sent::Cleared(topic) => cleared.push(topic),
                Sent::Offline => self.is_offline_acknowledged = true,
                Sent::Other => {}
            }
        }
        if !done.is_empty() {
            self.queue.lock().remove(&done);
            self.status.add_acknowledged(done.len() as u64 - refusals);
            self.status.add_lost(refusals);
        }
        // A topic may exist again meanwhile.
        cleared.retain(|topic| !self.wanted.contains(topic));
        if !cleared.is_empty() {
            self.queue.lock().note_retained(std::iter::empty(), cleared.iter().map(String::as_str));
        }
    }

    /// Sends retained messages that differ from what was sent: that the service is online, states, descriptions. Clears those
    /// that no longer exist.
    pub fn send_states(&mut self) {
        let streams = self.view.streams();
        if !Arc::ptr_eq(&streams, &self.streams) {
            self.list_topics(streams);
        }
        let mut wanted = states(self.topics, &self.streams);
        wanted.extend(self.descriptions.iter().map(|(topic, payload)| (topic.clone(), payload.clone())));
        wanted.insert(self.topics.status(), Bytes::from_static(b"online"));
        for (topic, payload) in wanted {
            if self.sent.get(&topic) == Some(&payload) {
                continue;
            }
            if !self.publish(retained(&topic, payload.clone()), Sent::Other) {
                return;
            }
            self.sent.insert(topic, payload);
        }
        while let Some(topic) = self.obsolete.first().cloned() {
            if !self.publish(retained(&topic, Bytes::new()), Sent::Cleared(topic.clone())) {
                return;
            }
            self.sent.remove(&topic);
            self.obsolete.remove(&topic);
        }
    }

    /// Sends messages of the queue as far as the broker has acknowledged those before them.
    pub fn send_events(&mut self) {
        loop {
            while let Some((key, message)) = self.events.front().cloned() {
                if !self.publish(message, Sent::Event(key)) {
                    return;
                }
                self.events.pop_front();
            }
            let room = EVENTS_IN_FLIGHT.saturating_sub(self.pending_events.len());
            let next = if room > 0 { self.queue.lock().next(&mut self.cursor, room) } else { Vec::new() };
            if next.is_empty() {
                return;
            }
            for event in next {
                let (topic, payload) = (self.topics.events(&event.stream), Bytes::from(event.message));
                let message = Publication { topic, payload, is_acknowledged: true, is_retained: false };
                self.events.push_back((event.key, message));
                self.pending_events.insert(event.key);
            }
        }
    }

    /// Sends the shares of the newest mask of each stream, unless it was sent already or differs too little.
    pub fn send_shares(&mut self, now: Instant) {
        for view in Arc::clone(&self.streams).iter() {
            view.masks.keep_new();
            if let Some(mask) = view.masks.newest()
                && self.masks.insert(Arc::clone(&mask.stream), mask.mask.seq) != Some(mask.mask.seq)
            {
                self.send_shares_of(&mask, now);
            }
        }
    }

    fn send_shares_of(&mut self, mask: &StreamMask, now: Instant) {
        let labels = labels_of(mask);
        for message in SharesMessage::all(mask, &labels) {
            let topic = match message.zone {
                Some(zone) => self.topics.zone_shares(message.stream, zone),
                None => self.topics.shares(message.stream),
            };
            let deadband = self.config.deadband;
            if deadband > 0.0
                && let Some(before) = self.shares.get(&topic)
                && now.saturating_duration_since(before.at) < UNCHANGED
                && !differ(&before.shares, &message.shares, deadband)
            {
                continue;
            }
            // It has no values that JSON does not have.
            let Ok(payload) = serde_json::to_vec(&message) else { continue };
            let (is_acknowledged, is_retained) = (false, false);
            let payload = Bytes::from(payload);
            if self.publish(Publication { topic: topic.clone(), payload, is_acknowledged, is_retained }, Sent::Other) {
                self.shares.insert(topic, SentShares { shares: message.shares, at: now });
            }
        }
    }

    /// Sends an image of a stream, if the stream still exists.
    pub fn send_snapshot(&mut self, stream: &str, jpeg: Bytes) {
        if self.streams.iter().any(|view| &*view.status.name == stream) {
            let (is_acknowledged, is_retained) = (false, true);
            let topic = self.topics.snapshot(stream);
            // If there is no room, the next image replaces this one.
            self.publish(Publication { topic, payload: jpeg, is_acknowledged, is_retained }, Sent::Other);
        }
    }

    /// Sends that the service is offline: the last message of a connection.
    pub fn send_offline(&mut self) {
        self.publish(retained(&self.topics.status(), Bytes::from_static(b"offline")), Sent::Offline);
    }

    /// Whether the broker has acknowledged that.
    pub fn is_offline_acknowledged(&self) -> bool {
        self.is_offline_acknowledged
    }

    /// Whether messages of the queue are sent and not acknowledged.
    pub fn has_pending_events(&self) -> bool {
        !self.pending_events.is_empty()
    }

    /// Returns false if the client has no room.
    fn publish(&mut self, message: Publication, sent: Sent) -> bool {
        let is_accepted = self.client.publish(&message);
        if is_accepted && message.is_acknowledged {
            self.untaken.push_back(sent);
        }
        is_accepted
    }

    /// The streams have changed: describes the entities, and finds the retained topics that no longer exist.
    fn list_topics(&mut self, streams: Arc<[Arc<StreamView>]>) {
        self.descriptions = descriptions(self.config, self.topics, &streams);
        let wanted = all_topics(self.config, self.topics, &streams, &self.descriptions);
        let mut queue = self.queue.lock();
        let known = queue.retained();
        let added: Vec<&str> = wanted.difference(&known).map(String::as_str).collect();
        if !added.is_empty() {
            queue.note_retained(added.into_iter(), std::iter::empty());
        }
        drop(queue);
        self.obsolete = known.difference(&wanted).cloned().collect();
        self.wanted = wanted;
        let names: Vec<&str> = streams.iter().map(|view| &*view.status.name).collect();
        self.masks.retain(|name, _| names.contains(&&**name));
        self.streams = streams;
    }
}

/// A retained message that the broker acknowledges.
fn retained(topic: &str, payload: Bytes) -> Publication {
    Publication { topic: topic.to_owned(), payload, is_acknowledged: true, is_retained: true }
}
