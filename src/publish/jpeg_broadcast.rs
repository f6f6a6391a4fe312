//! The newest JPEG image of a stream, for any number of viewers. Each gets the newest one when it is ready for it: a slow viewer
//! sees fewer images and does not affect the others.

use bytes::Bytes;
use gstreamer as gst;
use tokio::sync::watch;

use super::frame_sink::{FrameSink, FrameSinkResult};

/// The newest JPEG image of a stream. It lives as long as the stream; encoders come and go.
#[derive(Clone)]
pub struct JpegBroadcast {
    newest: watch::Sender<Option<Bytes>>,
}

impl Default for JpegBroadcast {
    fn default() -> Self {
        JpegBroadcast { newest: watch::Sender::new(None) }
    }
}

impl JpegBroadcast {
    /// The receiving end of a viewer: it holds the newest image only. While one exists, frames are drawn and encoded.
    pub fn subscribe(&self) -> watch::Receiver<Option<Bytes>> {
        let mut viewer = self.newest.subscribe();
        // An image that was made for an earlier viewer is out of date.
        viewer.mark_unchanged();
        viewer
    }

    /// Gives a new image to all viewers.
    pub fn publish(&self, jpeg: Bytes) {
        self.newest.send_replace(Some(jpeg));
    }

    pub fn viewers(&self) -> usize {
        self.newest.receiver_count()
    }
}

impl FrameSink for JpegBroadcast {
    fn push(&mut self, sample: &gst::Sample, _: bool) -> FrameSinkResult {
        if let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) {
            self.publish(Bytes::copy_from_slice(&map));
        }
        FrameSinkResult::Taken
    }
}
