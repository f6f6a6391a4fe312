//! The H.264 encode of a stream: `appsrc ! encoder ! h264parse`, by the first encoder that truly works on this machine.
//!
//! [`select`] chooses the encoder, after a trial of each candidate; [`chain`] builds the elements around it, and
//! `settings` says what each of them is told.

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::OutputError;
use crate::gst::GstError;

pub mod chain;
mod h264;
pub mod level;
mod probe;
pub mod report;
pub mod select;
mod settings;

pub use chain::{EncodeChain, build};
pub use h264::H264;
pub use level::Level;
pub use report::{Missing, gstreamer_report};
pub use select::Choice;
pub use settings::auto_bitrate;
pub(super) use settings::fps;

/// What the encode is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Constant bitrate, no frame kept back.
    Live,
    /// Constant quality.
    File,
}

/// Pictures that wait for an encoder: one to have the next ready, one for the hand-over. The caller drops or waits when
/// both places are taken.
pub(super) const ENCODER_QUEUE: u64 = 2;

/// Pushes a picture as soon as the encoder has room for it; that is what sets the pace where no frame may be lost.
///
/// # Errors
/// The pipeline's error, when it fails while we wait. Left to itself a blocking appsrc would wait for ever then.
pub(super) fn push_blocking(source: &gst_app::AppSrc, bus: &gst::Bus, buffer: gst::Buffer) -> Result<(), OutputError> {
    while source.current_level_buffers() >= ENCODER_QUEUE {
        let wait = gst::ClockTime::from_mseconds(2);
        if let Some(message) = bus.timed_pop_filtered(wait, &[gst::MessageType::Error])
            && let gst::MessageView::Error(error) = message.view()
        {
            return Err(crate::gst::describe(error).into());
        }
    }
    source.push_buffer(buffer).map(|_| ()).map_err(|_| {
        crate::gst::bus_error(bus).unwrap_or_else(|| GstError::new("the encoder takes no more pictures")).into()
    })
}

pub(super) fn glib_error(error: gst::glib::BoolError) -> OutputError {
    OutputError(format!("GStreamer: {}", error.message))
}
