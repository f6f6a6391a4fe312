//! Why a stream, or one of its frames, failed.

use std::sync::Arc;
use std::time::Duration;

use crate::publish::OutputError;
use crate::segment::pool::NoMask;
use crate::sink::SinkError;

/// Why a stream could not be started, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The system has no thread for a stage.
    #[error("stream {stream}: cannot start the thread for its {stage} stage: {source}")]
    Thread { stream: Arc<str>, stage: &'static str, source: std::io::Error },
    /// A stage panicked outside of its work on a frame.
    #[error("stream {stream}: the {stage} stage panicked: {message}")]
    Panicked { stream: Arc<str>, stage: &'static str, message: String },
    /// The source of a file job failed, for this reason.
    #[error("{0}")]
    Source(String),
    /// A frame could not be published.
    #[error("frame {seq} at {pts:?}: {source}")]
    Frame { seq: u64, pts: Duration, source: FrameError },
    /// A mask sink of a file job failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The output could not be completed.
    #[error(transparent)]
    Finish(#[from] OutputError),
}

/// Why a frame could not be published.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It has no mask, which a file job needs.
    #[error(transparent)]
    NoMask(#[from] NoMask),
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Drawing or publishing it panicked, with this message.
    #[error("the overlay stage panicked: {0}")]
    Panicked(String),
}
