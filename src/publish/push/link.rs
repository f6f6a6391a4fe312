//! A connection to a media server, independent of its protocol.

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::PushError;
use crate::base::log_dedup;
use crate::gst::describe;

/// Access units that may wait for a server: two seconds at 30 fps, which is about the time that connecting takes.
pub(super) const MAX_QUEUED_UNITS: u64 = 60;

/// The pipeline of a connection. Dropping it closes the connection.
pub(super) struct Link {
    pub pipeline: gst::Pipeline,
    pub bus: gst::Bus,
    /// Receives the access units of the stream.
    pub source: gst_app::AppSrc,
    pub connection: Box<dyn PushConnection>,
}

/// The state of a connection, by its protocol.
pub(super) trait PushConnection {
    /// Whether the connection is established. `message` is the newest message of the bus; it is neither an error nor
    /// the end of the stream. Once true was returned, the connection stays established until an error is returned.
    ///
    /// # Errors
    /// When the connection has ended.
    fn poll(&mut self, message: Option<&gst::Message>) -> Result<bool, PushError>;
}

impl Link {
    /// Whether the connection is established, after the newest message of the bus.
    ///
    /// # Errors
    /// When the pipeline failed or the connection has ended.
    pub(super) fn poll(&mut self, message: Option<&gst::Message>) -> Result<bool, PushError> {
        match message.map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => return Err(describe(error).into()),
            Some(gst::MessageView::Eos(_)) => return Err(PushError::Ended),
            _ => {}
        }
        self.connection.poll(message)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            log_dedup::warn("", "push", "cannot stop the pipeline of a push");
        }
    }
}
