//! Sources of frames: cameras, files and test patterns. GStreamer captures and decodes; frames reach the pipeline as
//! read-only I420 or NV12 buffers, without a copy.
//!
//! Tests implement [`Source`] and [`Capture`] for sources that are slow, silent, failing or panicking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::status::Shortfall;
use crate::base::timing::Elapsed;
use crate::frame::Pixels;

mod challenge;
mod color;
mod convert;
mod decode;
mod deinterlace;
mod elements;
mod error;
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
mod stuck;
#[cfg(test)]
mod tests;
mod timeline;
mod tracks;
mod transport_stream;
mod trust;

pub use elements::check_description;
pub use error::{CertificateRefusal, SourceError};
pub use keyframe::KeyframeWait;
pub use pipeline::GstSource;
pub use reachability::Reachability;

/// The result of waiting for the next frame.
pub enum Captured {
    /// A frame.
    Frame(CapturedFrame),
    /// No frame within the timeout.
    Silence,
    /// No frame within the timeout, although data comes: it cannot be decoded before the next keyframe.
    NoKeyframe(KeyframeWait),
    /// The source has ended.
    End,
}

/// A decoded frame and its times.
pub struct CapturedFrame {
    /// The frame, I420 or NV12.
    pub pixels: Arc<dyn Pixels>,
    /// The timestamp in the source's timeline. It increases with every frame, also across the passes of a looped file.
    pub pts: Duration,
    /// When the frame was taken, by the source's own clock, from an arbitrary start; `None` if the source sends no times.
    pub source_time: Option<Duration>,
    /// When the frame left the decoder.
    pub captured_at: Instant,
    /// The time for decoding it.
    pub decode: Elapsed,
    /// How long the decoder waited for the data of this frame.
    pub waited: Duration,
}

/// A source of frames that can be opened repeatedly.
pub trait Source: Send {
    /// The address without secrets.
    fn label(&self) -> String;

    /// Whether the end of the source is a failure, after which it is opened again: true for cameras, false for files and
    /// other sources that end.
    fn is_restartable(&self) -> bool;

    /// How to check whether the source can be reached without opening it; `None` if that is not possible.
    fn reachability(&self) -> Option<Reachability> {
        None
    }

    /// Connects to the source. May return before the first frame has come.
    ///
    /// # Errors
    /// When the source cannot be opened.
    fn open(&self) -> Result<Box<dyn Capture>, SourceError>;
}

/// One connection to a source. Dropping it disconnects.
pub trait Capture: Send {
    /// Waits at most `timeout` for the next frame.
    ///
    /// # Errors
    /// When the connection has failed. It brings no more frames then.
    fn next(&mut self, timeout: Duration) -> Result<Captured, SourceError>;

    /// Whether frames are buffered while they are not taken, so that the next one may be old when it is taken. Valid after
    /// the first frame.
    fn may_fall_behind(&self) -> bool {
        false
    }

    /// Whether long pauses between two frames are normal, as in a file whose frames have long durations.
    fn may_pause(&self) -> bool {
        false
    }

    /// The approximate number of frames, by length and nominal rate, for a progress bar.
    fn expected_frames(&self) -> Option<u64> {
        None
    }

    /// At the end of the source: how much is missing of the length that it announces. `None` if the source is complete or
    /// announces no length.
    fn shortfall(&self) -> Option<Shortfall> {
        None
    }
}
