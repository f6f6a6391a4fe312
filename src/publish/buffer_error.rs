//! Errors of the buffers of images.

use crate::frame::VideoInfo;

/// Why there is no buffer for an image, or why a buffer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BufferError {
    #[error("a {info} image cannot be made: {problem}")]
    Pool { info: VideoInfo, problem: PoolProblem },
    #[error("no memory for a {0} image")]
    NoMemory(VideoInfo),
    #[error("GStreamer has no format for a {0} image")]
    NoFormat(VideoInfo),
    /// The buffer is too small, or has another layout.
    #[error("a buffer does not hold a {0} image")]
    OtherLayout(VideoInfo),
    #[error("a {0} image cannot be read")]
    Unreadable(VideoInfo),
    #[error("a {from} image cannot be scaled to {to}")]
    NotScalable { from: VideoInfo, to: VideoInfo },
}

/// Why a pool of buffers cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolProblem {
    #[error("its format is unknown")]
    UnknownFormat,
    #[error("it has no caps")]
    NoCaps,
    #[error("its buffer pool is refused")]
    ConfigRefused,
    #[error("no memory for its buffers")]
    NoMemory,
}
