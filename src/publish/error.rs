//! Errors of outputs.

use std::path::PathBuf;
use std::time::Duration;

use super::buffer_error::BufferError;
use super::encoder::H264;
use super::encoder::chain::EncodeError;
use super::encoder::select::SelectError;
use super::push::PushError;
use super::recording::RecordingError;
use crate::gst::GstError;

/// Why a frame could not be published, or an output could not be started or finished. Displayed on one line.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A pipeline cannot be built or has failed.
    #[error(transparent)]
    Gst(#[from] GstError),
    /// No H.264 encoder can be used.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The elements around the H.264 encoder cannot be built.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// There is no buffer for the frame.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// A running H.264 encoder has failed; it is replaced.
    #[error("the encoder {} failed: {source}", .encoder.element())]
    H264 { encoder: H264, source: EncoderFault },
    /// A running JPEG encoder has failed; it is replaced.
    #[error("the JPEG encoder failed: {0}")]
    Jpeg(#[source] EncoderFault),
    /// A push could not be started.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A recording could not be started.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The name of an output file has another extension.
    #[error("{}: the output's name must end in .mp4 or .mkv", .0.display())]
    FileName(PathBuf),
    /// A video file could not be written.
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: Box<OutputError> },
}

/// Why a running encoder accepts no more frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncoderFault {
    /// Its pipeline has failed.
    #[error(transparent)]
    Gst(#[from] GstError),
    /// The conversion of the value range before the encoder has failed.
    #[error(transparent)]
    Range(#[from] BufferError),
    /// Its queue has been full for this time.
    #[error("it has accepted no frame for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Its queue is closed, and the pipeline reports no error.
    #[error("it accepts no more frames")]
    Closed,
}
