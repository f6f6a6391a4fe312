//! The newest JPEG image of a stream, for any number of viewers. Each gets the newest one when it is ready for it: a slow viewer
//! sees fewer images and does not affect the others.

use bytes::Bytes;
use gstreamer as gst;
use tokio::sync::watch;

use super::frame_sink::{FrameSink, FrameSinkResult};
use super::runs::OutputRun;

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

    /// Gives a new image of a run of the output to all viewers, unless the run is revoked.
    pub fn publish(&self, run: &OutputRun, jpeg: Bytes) {
        // Under the lock of the image, which `forget` takes after the run was revoked.
        self.newest.send_if_modified(|newest| {
            let is_valid = !run.is_revoked();
            if is_valid {
                *newest = Some(jpeg);
            }
            is_valid
        });
    }

    /// Drops the newest image: a viewer that has not taken it yet waits for the next one.
    pub(super) fn forget(&self) {
        self.newest.send_if_modified(|newest| {
            *newest = None;
            false
        });
    }

    pub fn viewers(&self) -> usize {
        self.newest.receiver_count()
    }
}

/// Where the JPEG encoder of a run sends its images.
pub(super) struct JpegSink {
    pub viewers: JpegBroadcast,
    pub run: OutputRun,
}

impl FrameSink for JpegSink {
    fn push(&mut self, sample: &gst::Sample, _: bool) -> FrameSinkResult {
        if let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) {
            self.viewers.publish(&self.run, Bytes::copy_from_slice(&map));
        }
        FrameSinkResult::Taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::outputs::StreamOutputs;

    #[test]
    fn a_run_that_was_revoked_shows_no_image() {
        let outputs = StreamOutputs::default();
        let hung = outputs.begin_run();
        let mut viewer = outputs.jpeg.subscribe();
        let shown = |viewer: &mut watch::Receiver<Option<Bytes>>| {
            let has_changed = viewer.has_changed().unwrap();
            viewer.borrow_and_update().clone().filter(|_| has_changed)
        };
        outputs.jpeg.publish(&hung, Bytes::from_static(b"first"));
        assert_eq!(shown(&mut viewer).as_deref(), Some(&b"first"[..]));
        // A slow viewer has not taken this one when the run is revoked.
        outputs.jpeg.publish(&hung, Bytes::from_static(b"second"));
        outputs.revoke_runs();
        outputs.jpeg.publish(&hung, Bytes::from_static(b"third"));
        assert_eq!(shown(&mut viewer), None);
        let next = outputs.begin_run();
        outputs.jpeg.publish(&hung, Bytes::from_static(b"fourth"));
        assert_eq!(shown(&mut viewer), None);
        outputs.jpeg.publish(&next, Bytes::from_static(b"fifth"));
        assert_eq!(shown(&mut viewer).as_deref(), Some(&b"fifth"[..]));
    }
}
