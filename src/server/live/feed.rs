//! What a client gets: the messages of its source, pings, and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::super::{SharedApp, stopped};
use crate::access::Identity;
use crate::events::{EventMessage, LiveEventMessage};
use crate::sink::{LiveMaskMessage, MaskFeed, MaskMessage, MaskPixels, PixelsFormat, StreamMask};

/// How often the server checks whether the client may still receive, while there are no messages.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The pause between two pings. Proxies close connections on which nothing is sent, most of them after a minute.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);

/// What is sent to the client next.
pub(super) enum LiveItem {
    /// A JSON object.
    Message(String),
    Ping,
}

/// Why the messages end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LiveEnd {
    ServerStops,
    StreamRemoved,
    AccessRemoved,
}

impl LiveEnd {
    /// The reason in words, for the client.
    pub(super) fn reason(self) -> &'static str {
        match self {
            LiveEnd::ServerStops => "the server stops",
            LiveEnd::StreamRemoved => "the stream was removed",
            LiveEnd::AccessRemoved => "the user or token was removed",
        }
    }
}

/// Where messages come from.
pub(super) enum LiveSource {
    Masks(MaskSource),
    Events(EventSource),
}

/// The masks of one stream.
pub(super) struct MaskSource {
    feed: Arc<MaskFeed>,
    masks: broadcast::Receiver<StreamMask>,
    every: Option<Duration>,
    pixels: Option<PixelsFormat>,
    /// The capture time of the last mask that was sent.
    last: Option<Instant>,
    lost: u64,
}

/// The messages about events, of one stream or rule or of all.
pub(super) struct EventSource {
    events: broadcast::Receiver<Arc<EventMessage>>,
    stream: Option<String>,
    rule: Option<String>,
    lost: u64,
}

/// The messages for one client.
pub(super) struct LiveFeed {
    source: LiveSource,
    app: SharedApp,
    identity: Option<Identity>,
    /// The stream whose removal ends the messages.
    stream: Option<String>,
    check: Interval,
    pinged: Instant,
    /// The client's place among the clients.
    _place: OwnedSemaphorePermit,
}

impl LiveSource {
    /// The name of its server-sent events.
    pub(super) fn name(&self) -> &'static str {
        match self {
            LiveSource::Masks(_) => "mask",
            LiveSource::Events(_) => "event",
        }
    }

    /// The next message; `None` when there are no more. If the future is dropped, no message is lost.
    async fn next(&mut self) -> Option<String> {
        match self {
            LiveSource::Masks(source) => source.next().await,
            LiveSource::Events(source) => source.next().await,
        }
    }
}

impl MaskSource {
    pub(super) fn new(feed: &Arc<MaskFeed>, every: Option<Duration>, pixels: Option<PixelsFormat>) -> Self {
        MaskSource { feed: Arc::clone(feed), masks: feed.subscribe(), every, pixels, last: None, lost: 0 }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            match self.masks.recv().await {
                Ok(mask) if self.is_due(&mask) => {
                    self.last = Some(mask.mask.captured_at);
                    match self.message(&mask) {
                        Ok(text) => return Some(text),
                        // No mask of a model is without pixels.
                        Err(error) => tracing::debug!("mask not sent to a client: {error}"),
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => self.skip_to_newest(lost),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn is_due(&self, mask: &StreamMask) -> bool {
        let is_too_soon =
            |(last, every): (Instant, Duration)| mask.mask.captured_at.saturating_duration_since(last) < every;
        !self.last.zip(self.every).is_some_and(is_too_soon)
    }

    /// The masks that still wait are old. They are lost too, so that the next message is about a current mask.
    fn skip_to_newest(&mut self, lost: u64) {
        let mut lost = lost;
        loop {
            match self.masks.try_recv() {
                Ok(_) => lost += 1,
                Err(TryRecvError::Lagged(more)) => lost += more,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.lost += lost;
        self.feed.count_lost(lost);
    }

    fn message(&mut self, mask: &StreamMask) -> Result<String, Box<dyn std::error::Error>> {
        let pixels = self.pixels.map(|format| MaskPixels::of(&mask.mask, format)).transpose()?;
        let lost = std::mem::take(&mut self.lost);
        self.feed.count_sent();
        let message = LiveMaskMessage {
            mask_message: MaskMessage::of(mask),
            mask: pixels,
            lost: Some(lost).filter(|&lost| lost > 0),
        };
        Ok(serde_json::to_string(&message)?)
    }
}

impl EventSource {
    pub(super) fn new(
        events: broadcast::Receiver<Arc<EventMessage>>,
        stream: Option<String>,
        rule: Option<String>,
    ) -> Self {
        EventSource { events, stream, rule, lost: 0 }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            match self.events.recv().await {
                Ok(message) if self.wants(&message) => {
                    let lost = Some(std::mem::take(&mut self.lost)).filter(|&lost| lost > 0);
                    let message = LiveEventMessage { message: EventMessage::clone(&message), lost };
                    // Fails for no value of this type.
                    return serde_json::to_string(&message).ok();
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => self.lost += lost,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, message: &EventMessage) -> bool {
        let matches = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        matches(&self.stream, &message.event.stream) && matches(&self.rule, &message.event.rule)
    }
}

impl LiveFeed {
    /// The messages of `source` for a client with this identity. The removal of `stream` ends them.
    pub(super) fn new(
        source: LiveSource,
        app: &SharedApp,
        identity: Option<Identity>,
        stream: Option<String>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        LiveFeed { source, app: app.clone(), identity, stream, check, pinged: Instant::now(), _place: place }
    }

    pub(super) fn name(&self) -> &'static str {
        self.source.name()
    }

    /// Becomes true when the server stops.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.app.stopping.clone()
    }

    /// The next item. If the future is dropped, nothing is lost.
    ///
    /// # Errors
    /// The messages end.
    pub(super) async fn next(&mut self) -> Result<LiveItem, LiveEnd> {
        loop {
            tokio::select! {
                biased;
                () = stopped(self.app.stopping.clone()) => return Err(LiveEnd::ServerStops),
                _ = self.check.tick() => {
                    self.check_access()?;
                    self.check_stream()?;
                    if self.pinged.elapsed() >= PING_INTERVAL {
                        self.pinged = Instant::now();
                        return Ok(LiveItem::Ping);
                    }
                }
                message = self.source.next() => {
                    self.check_access()?;
                    return message.map(LiveItem::Message).ok_or(LiveEnd::StreamRemoved);
                }
            }
        }
    }

    /// A user or token may have been removed meanwhile.
    fn check_access(&self) -> Result<(), LiveEnd> {
        let is_valid = self.identity.as_ref().is_none_or(|identity| self.app.access.is_valid(identity));
        if is_valid { Ok(()) } else { Err(LiveEnd::AccessRemoved) }
    }

    fn check_stream(&self) -> Result<(), LiveEnd> {
        let is_there = self.stream.as_ref().is_none_or(|name| self.app.view.stream(name).is_some());
        if is_there { Ok(()) } else { Err(LiveEnd::StreamRemoved) }
    }
}
