//! The error type of GStreamer.

/// An error of GStreamer, in one line with cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GstError {
    /// The whole text: cause, remedy and GStreamer's own text. It may contain secrets of an address.
    pub message: String,
    /// GStreamer's own text, which is the end of the message.
    pub detail: String,
    /// What has failed.
    pub kind: GstErrorKind,
}

/// What has failed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GstErrorKind {
    /// A server refuses user or password, or asks for them (401).
    Unauthorized,
    /// The user may not do this (403), or an element other than a network source refuses access.
    Forbidden,
    /// A camera offers no login that GStreamer supports.
    UnsupportedLogin,
    /// There is no such file, device or path on the server (404).
    NotFound,
    /// A server or proxy refuses the request for another reason (406, 407).
    Refused,
    /// A camera refuses the transport, TCP or UDP (461).
    TransportRefused,
    /// A server has too many clients (453, 503), or another program uses the device.
    Busy,
    /// A server has ended the session (454).
    SessionEnded,
    /// A server has failed (500).
    ServerFailed,
    /// No connection to a server could be opened; GStreamer does not report why.
    Unreachable,
    /// A connection failed after it was opened.
    ConnectionFailed,
    /// A file or device cannot be opened.
    CannotOpen,
    /// Reading, writing, seeking or closing a file or device failed.
    Io,
    /// A device or library refuses its settings.
    Settings,
    /// The disk is full.
    DiskFull,
    /// The format is not supported, or elements have no common format.
    UnsupportedFormat,
    /// The data is damaged.
    Damaged,
    /// The data is encrypted.
    Encrypted,
    /// An encoder has failed.
    EncoderFailed,
    /// An element or plug-in is not installed or cannot be loaded.
    MissingPlugin,
    /// The process or the machine has no file descriptors left.
    NoDescriptors,
    /// Any other failure.
    Other,
}

impl GstError {
    /// An error without a more precise kind than [`GstErrorKind::Other`].
    pub fn new(message: impl Into<String>) -> Self {
        GstError::of(GstErrorKind::Other, message)
    }

    /// An error of this kind.
    pub fn of(kind: GstErrorKind, message: impl Into<String>) -> Self {
        // The text may contain what a camera has sent.
        let message = crate::base::bounded::line(&message.into()).into_owned();
        GstError { detail: message.clone(), message, kind }
    }
}
