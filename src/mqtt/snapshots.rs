//! Images of the streams. A stream is drawn and encoded as JPEG only while somebody wants it, so that an image is requested,
//! and arrives later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::base::status::StreamState;
use crate::view::StreamView;

/// How long an image is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// When an image is requested again that did not come.
const RETRY: Duration = Duration::from_secs(5);

/// The name of a stream, and its image; `None` if there was none in time.
pub type Snapshot = (Arc<str>, Option<Bytes>);

/// Requests images.
pub struct Snapshots {
    every: Duration,
    largest: usize,
    sender: UnboundedSender<Snapshot>,
    /// For each stream, when the next image is due; `None` while one is waited for.
    due: HashMap<Arc<str>, Option<Instant>>,
}

impl Snapshots {
    /// Images go to `sender`, at most `largest` bytes each.
    pub fn new(every: Duration, largest: usize, sender: UnboundedSender<Snapshot>) -> Self {
        Snapshots { every, largest, sender, due: HashMap::new() }
    }

    /// An event has begun: the next image of the stream is due now.
    pub fn event_began(&mut self, stream: &str) {
        if let Some(Some(due)) = self.due.get_mut(stream) {
            *due = Instant::now();
        }
    }

    /// Requests the images that are due, of streams that show something.
    pub fn request(&mut self, streams: &[Arc<StreamView>], now: Instant) {
        self.due.retain(|name, _| streams.iter().any(|view| view.status.name == *name));
        for view in streams {
            let due = self.due.entry(Arc::clone(&view.status.name)).or_insert(Some(now));
            let is_due = due.is_some_and(|due| due <= now);
            if is_due && matches!(view.status.state(), StreamState::Live | StreamState::Stale) {
                *due = None;
                tokio::spawn(take(Arc::clone(view), self.largest, self.sender.clone()));
            }
        }
    }

    /// A request has ended, with an image or without.
    pub fn received(&mut self, stream: &str, has_image: bool, now: Instant) {
        if let Some(due) = self.due.get_mut(stream) {
            *due = Some(now + if has_image { self.every } else { RETRY.min(self.every) });
        }
    }
}

/// The next image of a stream.
async fn take(view: Arc<StreamView>, largest: usize, sender: UnboundedSender<Snapshot>) {
    let mut images = view.outputs.jpeg.subscribe();
    let next = async {
        loop {
            images.changed().await.ok()?;
            if let Some(image) = &*images.borrow_and_update() {
                return Some(image.clone());
            }
        }
    };
    let image = tokio::time::timeout(LIMIT, next).await.ok().flatten();
    if image.as_ref().is_some_and(|image| image.len() > largest) {
        let stream = &*view.status.name;
        let text = format!("MQTT image not sent, it is larger than the broker accepts: {largest} bytes");
        crate::base::log_dedup::warn(stream, "mqtt", &text);
    }
    let image = image.filter(|image| image.len() <= largest);
    // The connection may have ended.
    let _ = sender.send((Arc::clone(&view.status.name), image));
}
