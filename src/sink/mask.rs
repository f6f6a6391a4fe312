//! The mask of a stream as its sinks get it, and what a sink is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::clock::now_by_both;
use crate::frame::{Mask, VideoInfo};
use crate::zones::MaskCounts;

/// A mask with the identity of the frame that it belongs to.
#[derive(Clone, Debug)]
pub struct StreamMask {
    /// The name of the stream.
    pub stream: Arc<str>,
    /// The mask: the frame's sequence number and time in the source's time line, classes, labels, the name of the model.
    pub mask: Arc<Mask>,
    /// The shape of the stream's video when the mask arrived.
    pub video: VideoInfo,
    /// When the frame was captured, by the wall clock.
    pub captured: Timestamp,
    /// The time from the capture of the frame until its mask was given to the sinks.
    pub age: Duration,
    /// The pixels of each class in the frame and in the zones of the stream.
    pub counts: Arc<MaskCounts>,
}

impl StreamMask {
    /// A mask that arrives now, with its counts.
    pub fn new(stream: &Arc<str>, mask: Arc<Mask>, video: VideoInfo, counts: MaskCounts) -> Self {
        let (now, at) = now_by_both();
        let age = at.saturating_duration_since(mask.captured_at);
        // Out of range only where the wall clock is thousands of years wrong.
        let captured = now.checked_sub(age).unwrap_or(now);
        StreamMask { stream: Arc::clone(stream), mask, video, captured, age, counts: Arc::new(counts) }
    }
}

/// A destination of all masks of one stream.
pub trait MaskSink: Send {
    /// Takes the next mask. Masks come in the order of their frames. It is called on the thread of the overlay stage, which draws
    /// no frame meanwhile; a sink that may wait is wrapped in a [`QueuedSink`](super::QueuedSink).
    ///
    /// # Errors
    /// The mask is lost for this sink. It ends a file job; a live stream logs it and continues.
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError>;

    /// The source is offline, or the model does not run for the stream: the masks that were pushed are out of date.
    fn clear(&mut self) {}

    /// Whether the sink uses masks now. While no sink does and the video is not watched, the model does not run for the stream.
    fn needs_masks(&self) -> bool {
        true
    }
}

impl<F: FnMut(&StreamMask) -> Result<(), SinkError> + Send> MaskSink for F {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self(mask)
    }
}

/// Why a sink could not take a mask.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A file or folder could not be written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// A mask could not be sent to a network address, `HOST:PORT`.
    #[error("{to}: {source}")]
    Send { to: String, source: std::io::Error },
    /// The system has no thread for the sink.
    #[error("cannot start the thread for the sink {sink}: {source}")]
    Thread { sink: String, source: std::io::Error },
    /// The sink panicked, with this message.
    #[error("the sink panicked: {0}")]
    Panicked(String),
    /// Any other failure of the sink.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}
