//! A connection to a media server, whatever its protocol.

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use crate::base::log_dedup;
use crate::gst::describe;
use crate::publish::OutputError;

/// Access units that may wait for a server: two seconds of 30 a second, which a connection takes to be made.
pub(super) const WAITING: u64 = 60;

/// A connection. Dropping it ends it.
pub(super) struct Link {
    pub pipeline: gst::Pipeline,
    pub bus: gst::Bus,
    /// Takes the stream's access units.
    pub source: gst_app::AppSrc,
    pub connection: Box<dyn PushConnection>,
}

/// Tells whether a connection stands.
pub(super) trait PushConnection {
    /// Whether frames flow from now on, after the bus's newest message, which is neither an error nor the end.
    ///
    /// # Errors
    /// Why the connection is over.
    fn look(&mut self, message: Option<&gst::Message>) -> Result<bool, OutputError>;
}

impl Link {
    /// Whether pictures flow from now on, after the bus's newest message.
    ///
    /// # Errors
    /// Why the connection is over.
    pub(super) fn look(&mut self, message: Option<&gst::Message>) -> Result<bool, OutputError> {
        match message.map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => return Err(describe(error).into()),
            Some(gst::MessageView::Eos(_)) => return Err(OutputError("the connection has ended".into())),
            _ => {}
        }
        self.connection.look(message)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            log_dedup::warn("", "push", "a push's pipeline did not stop");
        }
    }
}
