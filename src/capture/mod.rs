//! Sources: where frames come from. GStreamer captures and decodes; frames reach the pipeline as read-only I420 or
//! NV12 buffers, without a copy.
//!
//! [`Source`] and [`Capture`] are the edge where tests put fakes: slow, silent, failing and panicking ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::status::Shortfall;
use crate::base::timing::Elapsed;
use crate::frame::Pixels;
use crate::gst::GstError;

mod challenge;
mod color;
mod convert;
mod decode;
mod deinterlace;
mod keepalive;
mod keyframe;
mod looping;
mod mapped;
mod movie;
mod multipart;
mod network;
mod pipeline;
mod reachability;
mod rtp;
pub(crate) mod secrets;
mod stuck;
#[cfg(test)]
mod tests;
mod timeline;
mod tracks;
mod transport_stream;
mod trust;

pub use keyframe::KeyframeWait;
pub use pipeline::{GstSource, check_description};
pub use reachability::Reachability;

/// Why a source has no more frames. The message names no secrets.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

impl From<GstError> for SourceError {
    fn from(error: GstError) -> Self {
        SourceError(error.message)
    }
}

/// What a capture has to say.
pub enum Captured {
    Frame(CapturedFrame),
    /// Nothing within the time given.
    Silence,
    /// No picture within the time given, though data comes: it cannot be decoded before a keyframe.
    NoKeyframe(KeyframeWait),
    /// The source has ended by itself.
    End,
}

/// A decoded picture on its way into the pipeline.
pub struct CapturedFrame {
    pub pixels: Arc<dyn Pixels>,
    /// Monotonic in the source's own time line, also across the loops of a file.
    pub pts: Duration,
    /// By the source's own clock, from some moment on; `None` where it tells no times.
    pub source_time: Option<Duration>,
    pub captured_at: Instant,
    /// What decoding it took.
    pub decode: Elapsed,
    /// How long the decoder had nothing to do before it got this one.
    pub waited: Duration,
}

/// A place that frames can be had from, again and again.
pub trait Source: Send {
    /// Its address without secrets.
    fn label(&self) -> String;

    /// Whether an end is a fault, after which it is tried again: true for cameras, false for files and whatever else
    /// ends by design.
    fn is_restartable(&self) -> bool;

    /// Where its return can be looked for while it is away, if that can be told without opening it.
    fn reachability(&self) -> Option<Reachability> {
        None
    }

    /// Connects. May return before the first frame is there.
    ///
    /// # Errors
    /// What the source refused, in one line.
    fn open(&self) -> Result<Box<dyn Capture>, SourceError>;
}

/// One connection to a source. Dropping it disconnects.
pub trait Capture: Send {
    /// Waits at most `patience` for the next frame.
    ///
    /// # Errors
    /// The connection has failed and is of no more use.
    fn next(&mut self, patience: Duration) -> Result<Captured, SourceError>;

    /// Whether frames that are not taken at once wait somewhere, while the source goes on: what comes next may then be
    /// old, although it is new here. Asked when the first frame has come.
    fn may_fall_behind(&self) -> bool {
        false
    }

    /// Whether a long pause between two frames is normal: a file shows some frames for longer than a camera may be silent.
    fn may_pause(&self) -> bool {
        false
    }

    /// About how many frames the source has by its length and nominal rate, for a progress bar.
    fn expected_frames(&self) -> Option<u64> {
        None
    }

    /// At the end: what is missing of the length that the source announces. `None` where nothing is, or no length is
    /// announced.
    fn shortfall(&self) -> Option<Shortfall> {
        None
    }
}
