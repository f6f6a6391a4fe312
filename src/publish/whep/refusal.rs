//! Why a WebRTC viewer is refused.

/// Why somebody cannot watch; in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhepRefusal {
    /// It is no SDP.
    #[error("the offer is no SDP: {0}")]
    NoSdp(String),
    /// It is SDP that nothing can be made of.
    #[error("{0}")]
    Unusable(String),
    /// No more viewers are let in.
    #[error("{0} viewers are watching, as many as server.webrtc.max_viewers allows")]
    Full(usize),
    /// What is left of the file descriptors is kept for cameras and recordings.
    #[error("too many files and connections are open: the limit of open files (LimitNOFILE=, ulimit -n) is too low")]
    Scarce,
    /// The machine does not give what is needed.
    #[error("{0}")]
    Failed(String),
    /// Nobody of this name watches this stream.
    #[error("there is no such viewer")]
    Unknown,
}
