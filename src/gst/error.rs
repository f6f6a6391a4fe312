//! What GStreamer could not do.

/// Something that GStreamer could not do, in one line that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GstError {
    pub message: String,
    /// The end of the message: GStreamer's own words, without what they usually mean.
    pub words: String,
    pub kind: GstErrorKind,
}

/// Errors of which more can be found out where they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GstErrorKind {
    /// A server refuses the user or the password, or asks for them.
    Unauthorized,
    /// No connection comes about, and the element does not say why.
    Unreachable,
    Other,
}

impl GstError {
    pub fn new(message: impl Into<String>) -> Self {
        // What a camera answers may be in it.
        let message = crate::base::bounded::line(&message.into()).into_owned();
        GstError { words: message.clone(), message, kind: GstErrorKind::Other }
    }
}
