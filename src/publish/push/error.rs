//! Why a push failed.

use super::whip::WhipError;
use crate::gst::GstError;
use crate::publish::OutputError;

/// Why a push could not be started, or its connection ended. Displayed on one line.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The pipeline failed; for RTSP that includes every refusal of the server.
    #[error(transparent)]
    Gst(#[from] GstError),
    #[error(transparent)]
    Whip(#[from] WhipError),
    #[error("the server ended the connection")]
    Ended,
    /// The queue was full for this many seconds.
    #[error("the server has accepted no data for {0} s")]
    Stalled(u64),
    #[error("cannot start a thread to push to {to}: {source}")]
    Thread { to: String, source: std::io::Error },
}

impl From<PushError> for OutputError {
    fn from(error: PushError) -> Self {
        OutputError(error.to_string())
    }
}
