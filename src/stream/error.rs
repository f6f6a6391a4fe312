//! Why a stream, or one of its frames, failed.

use std::sync::Arc;
use std::time::Duration;

use crate::capture::SourceError;
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
    /// The source of a stream at file pace failed; `label` names it without secrets.
    #[error("{label}: {source}")]
    Source { label: String, source: Box<SourceFailure> },
    /// A frame could not be published.
    #[error("frame {seq} at {pts:?}: {source}")]
    Frame { seq: u64, pts: Duration, source: Box<FrameError> },
    /// A mask sink of a file job failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The output could not be completed.
    #[error(transparent)]
    Finish(#[from] OutputError),
}

/// Why a connection to a source ended.
#[derive(Debug, thiserror::Error)]
pub enum SourceFailure {
    /// The source cannot be opened, or has failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The host cannot be reached; with host, port and the reason.
    #[error("{0}")]
    Unreachable(String),
    /// No frame came for this time.
    #[error("no frame for {:.1} s", .0.as_secs_f64())]
    NoFrame(Duration),
    /// The source sent no data for this time, while a keyframe was awaited.
    #[error("no data for {:.1} s", .0.as_secs_f64())]
    NoData(Duration),
    /// The source sent data without a keyframe for this time.
    #[error("no keyframe within {} s; set the camera's keyframe interval to a few seconds", .0.as_secs())]
    NoKeyframe(Duration),
    /// A live source has ended.
    #[error("the source ended the stream")]
    Ended,
    /// The capture stage panicked with this message, after `seq` frames.
    #[error("the capture stage panicked at frame {seq}: {message}")]
    Panicked { seq: u64, message: String },
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
