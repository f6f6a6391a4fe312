//! The media of the RTSP server, one for each stream with clients, kept prepared while a client requests it.
//!
//! GStreamer's server (1.22) looks the media of a stream up and prepares it in two steps. If the last client leaves in between,
//! or the media is still being torn down, the media cannot be prepared again and the server answers 503.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer_rtsp_server as rtsp_server;
use parking_lot::{Condvar, Mutex};

use glib::object::ObjectExt;
use rtsp_server::RTSPMediaStatus::{Prepared, Suspended};
use rtsp_server::prelude::*;

/// How long a client waits for the teardown of a media.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The media of each stream.
#[derive(Clone, Default)]
pub(super) struct StreamMedias(Arc<Shared>);

#[derive(Default)]
struct Shared {
    medias: Mutex<Medias>,
    changed: Condvar,
}

#[derive(Default)]
struct Medias {
    /// By the name of the stream.
    by_stream: HashMap<String, glib::WeakRef<rtsp_server::RTSPMedia>>,
    /// Number of times that a media was added, prepared or torn down.
    changes: u64,
}

impl StreamMedias {
    /// Adds a media that is not prepared yet, until it is torn down.
    pub fn add(&self, stream: &str, media: &rtsp_server::RTSPMedia) {
        self.change(|medias| medias.insert(stream.to_owned(), media.downgrade()));
        let shared = self.clone();
        media.connect_prepared(move |_| shared.change(|_| ()));
        let shared = self.clone();
        // After the handler of the server, which then no longer finds the media.
        media.connect("unprepared", true, move |values| {
            let media = values.first().and_then(|value| value.get::<rtsp_server::RTSPMedia>().ok());
            shared.change(|medias| medias.retain(|_, other| other.upgrade() != media));
            None
        });
    }

    /// Removes the media of a stream that is no longer served.
    pub fn remove(&self, stream: &str) {
        self.change(|medias| medias.remove(stream));
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, glib::WeakRef<rtsp_server::RTSPMedia>>) -> T) {
        let mut medias = self.0.medias.lock();
        change(&mut medias.by_stream);
        medias.changes += 1;
        self.0.changed.notify_all();
    }

    /// Keeps the media of a stream prepared, so that the server can use it for a client. Waits while it is torn down. `None`
    /// when the server must create a media, or the teardown takes longer than two seconds.
    pub fn hold(&self, stream: &str) -> Option<PreparedMedia> {
        let deadline = Instant::now() + TEARDOWN_TIMEOUT;
        loop {
            let medias = self.0.medias.lock();
            let changes = medias.changes;
            let media = medias.by_stream.get(stream)?.upgrade()?;
            // Reading the status blocks while the media is being prepared.
            drop(medias);
            if matches!(media.status(), Prepared | Suspended) && media.prepare(None).is_ok() {
                return Some(PreparedMedia(media));
            }
            let mut medias = self.0.medias.lock();
            while medias.changes == changes {
                if self.0.changed.wait_until(&mut medias, deadline).timed_out() {
                    return None;
                }
            }
        }
    }
}

/// Keeps a media prepared until it is dropped.
pub(super) struct PreparedMedia(rtsp_server::RTSPMedia);

impl Drop for PreparedMedia {
    fn drop(&mut self) {
        if self.0.unprepare().is_err() {
            tracing::debug!("cannot release an RTSP media: it was not prepared");
        }
    }
}
