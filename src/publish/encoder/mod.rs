//! The H.264 encode of a stream: `appsrc ! encoder ! h264parse`, with the first encoder that works on this machine.
//!
//! [`select`] chooses the encoder after a trial of each candidate (`probe`), [`chain`] builds the elements around it,
//! `bitrate` has the automatic bitrate, and `settings` sets the properties of each encoder.

use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::gst::GstError;

mod bitrate;
pub mod chain;
mod h264;
pub mod level;
mod probe;
pub mod report;
pub mod select;
mod settings;

pub use bitrate::bitrate_limit;
pub(super) use bitrate::fps;
pub use chain::{EncodeChain, build};
pub use h264::H264;
pub use level::Level;
pub use report::{MissingElement, gstreamer_report};
pub use select::Choice;

/// The use of an encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Constant quality below a limit of the bitrate, or constant bitrate; the encoder buffers no frames.
    Live,
    /// Constant quality.
    File,
}

/// Frames that may wait for an encoder: one that is ready, one that is being handed over. When the queue is full, the
/// caller drops the next frame or waits.
pub(super) const ENCODER_QUEUE: u64 = 2;

/// Pushes a frame and blocks while the queue of the encoder is full. This limits the pace where no frame may be lost.
///
/// # Errors
/// The error of the pipeline, when it fails meanwhile. (An `appsrc` with `block=true` would wait forever in that case.)
pub(super) fn push_blocking(source: &gst_app::AppSrc, bus: &gst::Bus, buffer: gst::Buffer) -> Result<(), GstError> {
    while source.current_level_buffers() >= ENCODER_QUEUE {
        let wait = gst::ClockTime::from_mseconds(2);
        if let Some(message) = bus.timed_pop_filtered(wait, &[gst::MessageType::Error])
            && let gst::MessageView::Error(error) = message.view()
        {
            return Err(crate::gst::describe(error));
        }
    }
    source
        .push_buffer(buffer)
        .map(|_| ())
        .map_err(|_| crate::gst::bus_error(bus).unwrap_or_else(|| GstError::new("the encoder accepts no more frames")))
}

/// Wraps an error of adding or linking elements.
pub(super) fn glib_error(error: gst::glib::BoolError) -> GstError {
    GstError::new(format!("GStreamer: {}", error.message))
}
