//! Why a push failed.

use crate::gst::GstError;
use crate::publish::webrtc::PeerEndReason;

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

/// Why a WHIP connection could not be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum WhipError {
    #[error(transparent)]
    Gst(#[from] GstError),
    /// webrtcbin created no offer; with its reason.
    #[error("webrtcbin cannot create an offer: {0}")]
    Offer(String),
    #[error("webrtcbin did not create an offer in time")]
    OfferTimeout,
    #[error("webrtcbin has no local description")]
    NoLocalDescription,
    #[error("webrtcbin has ended")]
    WebrtcbinEnded,
    #[error("the HTTP request failed: {0}")]
    Request(#[source] ureq::Error),
    /// HTTP 401 or 403.
    #[error("the server rejects the user, password or token (set user, and password_file or password_env)")]
    Unauthorized,
    /// HTTP 404.
    #[error("there is no WHIP endpoint at this address (HTTP 404)")]
    NoEndpoint,
    #[error("the server rejects the stream: HTTP {0}")]
    Status(u16),
    #[error("the server's answer is incomplete: {0}")]
    AnswerIncomplete(#[source] ureq::Error),
    #[error("the server's answer is not a session description (SDP)")]
    AnswerNotSdp,
    #[error("the server answered, but cannot be reached over UDP; open UDP in the firewall, or push over RTSP")]
    Unreachable,
    #[error(transparent)]
    Ended(PeerEndReason),
    /// The server sent no packet for this many seconds.
    #[error("the server has sent nothing for {0} s")]
    Silent(u64),
}
