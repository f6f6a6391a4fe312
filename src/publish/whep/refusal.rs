//! Why a WebRTC viewer is refused or disconnected.

use super::offer::OfferError;
use super::trickle::FragmentError;
use crate::gst::GstError;
use crate::publish::webrtc::PeerEndReason;

/// Why a request of a WebRTC viewer is refused. Displayed on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhepRefusal {
    /// The body cannot be parsed.
    #[error(transparent)]
    NotSdp(InvalidBody),
    /// The body is valid SDP that the server cannot answer.
    #[error(transparent)]
    Unusable(InvalidBody),
    #[error("too many WebRTC viewers: {0} are connected, the limit of server.webrtc.max_viewers")]
    Full(usize),
    /// The remaining file descriptors are reserved for cameras and recordings.
    #[error("too many files and connections are open: the limit of open files (LimitNOFILE=, ulimit -n) is too low")]
    Scarce,
    #[error(transparent)]
    Failed(#[from] ViewerError),
    /// The stream has no viewer with this identifier.
    #[error("there is no such viewer")]
    Unknown,
}

/// Why the body of a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    #[error(transparent)]
    Offer(OfferError),
    #[error(transparent)]
    Fragment(FragmentError),
}

/// Why a viewer could not be connected, or was disconnected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewerError {
    #[error(transparent)]
    Gst(#[from] GstError),
    #[error("the system returned no random numbers: {0}")]
    Random(String),
    #[error("cannot start a thread for the viewer: {0}")]
    Thread(std::io::ErrorKind),
    #[error("the viewer's thread has ended")]
    ThreadEnded,
    /// Too many candidates of the viewer are still queued.
    #[error("earlier candidates of the viewer are still being processed; send this request again")]
    Busy,
    /// webrtcbin rejected the offer; the viewer was refused with [`OfferError::Rejected`].
    #[error("the offer was rejected: {0}")]
    OfferRejected(String),
    #[error("webrtcbin cannot create an answer: {0}")]
    Answer(String),
    #[error("webrtcbin has no answer to the offer")]
    NoAnswer,
    #[error("no candidates: this machine has no network address, or server.webrtc.udp_ports are taken")]
    NoCandidates,
    #[error("the viewer was disconnected on request")]
    Requested,
    #[error("the stream has ended")]
    StreamEnded,
    #[error("the client closed its request before the answer")]
    RequestAborted,
    #[error("no connection within {0} s; UDP may be blocked")]
    NotConnected(u64),
    #[error("the viewer has sent nothing for {0} s")]
    Silent(u64),
    #[error(transparent)]
    Peer(#[from] PeerEndReason),
}

impl From<OfferError> for WhepRefusal {
    fn from(error: OfferError) -> Self {
        match &error {
            OfferError::NotSdp(_) => WhepRefusal::NotSdp(InvalidBody::Offer(error)),
            _ => WhepRefusal::Unusable(InvalidBody::Offer(error)),
        }
    }
}

impl From<FragmentError> for WhepRefusal {
    fn from(error: FragmentError) -> Self {
        match &error {
            FragmentError::NotSdp(_) => WhepRefusal::NotSdp(InvalidBody::Fragment(error)),
            _ => WhepRefusal::Unusable(InvalidBody::Fragment(error)),
        }
    }
}
