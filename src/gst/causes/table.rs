//! The table of causes and remedies.

use gstreamer as gst;

use gst::{CoreError, LibraryError, ResourceError, StreamError};

use crate::gst::GstErrorKind;

/// The code of an error, by its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Core(CoreError),
    Library(LibraryError),
    Resource(ResourceError),
    Stream(StreamError),
}

use Code::{Core, Library, Resource, Stream};

/// The elements that a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementMatch {
    Any,
    /// Elements of the factory with this name.
    Factory(&'static str),
    /// Elements of the class `Source/Network`.
    Network,
}

use ElementMatch::{Any, Factory, Network};

/// A row of the table. The first row that matches an error explains it.
pub(super) struct ErrorRow {
    pub by: ElementMatch,
    /// `None` matches every code.
    pub code: Option<Code>,
    /// The status of an RTSP or HTTP response; `None` matches every error.
    pub status: Option<u32>,
    /// A part of the debug text, if an element reports the error of another one.
    pub debug: &'static str,
    pub kind: GstErrorKind,
    pub cause: &'static str,
    pub remedy: &'static str,
}

impl ErrorRow {
    /// The cause and, if there is one, the remedy.
    pub fn text(&self) -> String {
        if self.remedy.is_empty() { self.cause.to_string() } else { format!("{} ({})", self.cause, self.remedy) }
    }
}

const fn row(by: ElementMatch, code: Code, kind: GstErrorKind, cause: &'static str, remedy: &'static str) -> ErrorRow {
    ErrorRow { by, code: Some(code), status: None, debug: "", kind, cause, remedy }
}

const fn response(status: u32, kind: GstErrorKind, cause: &'static str, remedy: &'static str) -> ErrorRow {
    ErrorRow { by: Network, code: None, status: Some(status), debug: "", kind, cause, remedy }
}

const CREDENTIALS: &str = "set user and password_file or password_env";
const ADDRESS: &str = "check that it is switched on, and the address";
const NO_TRANSPORT: &str = "the camera offers no video over this transport";
const OTHER_TRANSPORT: &str =
    "set transport = \"udp\" if it is \"tcp\", which some servers refuse with 461, or \"tcp\" if it is \"udp\"";
const CODECS: &str = "try installing gstreamer1.0-libav";
const INSTALLATION: &str = "`maskcast doctor` lists what is missing";

/// Rows for certain elements are before those for any element.
pub(super) const TABLE: &[ErrorRow] = &[
    // The status of a response is more precise than the code that an element derives from it.
    response(401, GstErrorKind::Unauthorized, "user or password is refused", CREDENTIALS),
    response(
        403,
        GstErrorKind::Forbidden,
        "this user may not see this stream",
        "give the user that right in the camera's settings",
    ),
    response(404, GstErrorKind::NotFound, "there is no such file, device or stream", "check the path in the address"),
    response(406, GstErrorKind::Refused, "the camera refuses the request", "check the path in the address"),
    response(
        407,
        GstErrorKind::Refused,
        "a proxy asks for a password",
        "connect to the camera without a proxy (no_proxy)",
    ),
    response(
        453,
        GstErrorKind::Busy,
        "the camera has no bandwidth left for another viewer",
        "close another viewer of it",
    ),
    response(
        454,
        GstErrorKind::SessionEnded,
        "the camera has ended the session",
        "no action is needed: it is opened again",
    ),
    response(
        461,
        GstErrorKind::TransportRefused,
        "the camera refuses this transport",
        "set transport = \"udp\", or \"auto\"",
    ),
    response(500, GstErrorKind::ServerFailed, "the camera has failed", "check the camera's log, or restart it"),
    response(503, GstErrorKind::Busy, "the camera serves no more viewers at present", "close another viewer of it"),
    // rtspsrc uses this code when every SETUP was refused (461), for lack of a better one. uridecodebin reports it as a
    // missing plug-in.
    row(
        Factory("rtspsrc"),
        Stream(StreamError::CodecNotFound),
        GstErrorKind::TransportRefused,
        NO_TRANSPORT,
        OTHER_TRANSPORT,
    ),
    ErrorRow {
        debug: "GstRTSPSrc:",
        ..row(
            Factory("uridecodebin"),
            Core(CoreError::MissingPlugin),
            GstErrorKind::TransportRefused,
            NO_TRANSPORT,
            OTHER_TRANSPORT,
        )
    },
    row(
        Factory("rtspsrc"),
        Resource(ResourceError::Settings),
        GstErrorKind::UnsupportedFormat,
        "the camera's description of the stream cannot be used",
        "select H.264, H.265 or MJPEG in the camera's settings",
    ),
    row(
        Factory("rtspsrc"),
        Resource(ResourceError::OpenRead),
        GstErrorKind::UnsupportedLogin,
        "the camera offers no login that GStreamer supports",
        "select digest with MD5, or basic, in the camera's settings",
    ),
    row(Network, Stream(StreamError::Failed), GstErrorKind::Unreachable, "no server answers at this address", ADDRESS),
    row(
        Network,
        Resource(ResourceError::OpenReadWrite),
        GstErrorKind::Unreachable,
        "the address cannot be opened",
        ADDRESS,
    ),
    row(Network, Resource(ResourceError::OpenRead), GstErrorKind::Unreachable, "the address cannot be opened", ADDRESS),
    row(
        Network,
        Resource(ResourceError::Read),
        GstErrorKind::ConnectionFailed,
        "the connection has failed",
        "check the network, the transport, and the scheme: a camera that accepts TLS only needs rtsps://",
    ),
    row(
        Network,
        Resource(ResourceError::Write),
        GstErrorKind::ConnectionFailed,
        "the connection has failed",
        "check the network",
    ),
    row(
        Factory("multipartdemux"),
        Stream(StreamError::Demux),
        GstErrorKind::UnsupportedFormat,
        "the camera's multipart response has no boundary",
        "use another address of the camera, an RTSP address if it has one",
    ),
    row(
        Factory("v4l2src"),
        Resource(ResourceError::NotFound),
        GstErrorKind::NotFound,
        "there is no such device",
        "check that it is plugged in",
    ),
    row(
        Any,
        Resource(ResourceError::NotAuthorized),
        GstErrorKind::Forbidden,
        "user or password is refused",
        CREDENTIALS,
    ),
    row(
        Any,
        Resource(ResourceError::NotFound),
        GstErrorKind::NotFound,
        "there is no such file, device or stream",
        "check the address",
    ),
    row(Any, Resource(ResourceError::Busy), GstErrorKind::Busy, "another program uses it", "close that program"),
    row(
        Any,
        Resource(ResourceError::OpenRead),
        GstErrorKind::CannotOpen,
        "the file, device or address cannot be opened",
        ADDRESS,
    ),
    row(
        Any,
        Resource(ResourceError::OpenReadWrite),
        GstErrorKind::CannotOpen,
        "the file, device or address cannot be opened",
        ADDRESS,
    ),
    row(
        Any,
        Resource(ResourceError::OpenWrite),
        GstErrorKind::CannotOpen,
        "the file cannot be written",
        "check the folder and its permissions",
    ),
    row(Any, Resource(ResourceError::Read), GstErrorKind::Io, "reading has failed", "check the device or the disk"),
    row(Any, Resource(ResourceError::Write), GstErrorKind::Io, "writing has failed", "check the disk"),
    row(Any, Resource(ResourceError::Seek), GstErrorKind::Io, "seeking has failed", "copy it to a local file"),
    row(Any, Resource(ResourceError::Sync), GstErrorKind::Io, "written data may not be on the disk", "check the disk"),
    row(Any, Resource(ResourceError::Close), GstErrorKind::Io, "closing has failed", "check the device or the disk"),
    row(
        Any,
        Resource(ResourceError::Settings),
        GstErrorKind::Settings,
        "the device refuses these settings",
        "select other settings",
    ),
    row(
        Any,
        Resource(ResourceError::NoSpaceLeft),
        GstErrorKind::DiskFull,
        "the disk is full",
        "free disk space, or set stream.record.min_free",
    ),
    row(
        Any,
        Resource(ResourceError::TooLazy),
        GstErrorKind::Other,
        "a GStreamer element has failed without a reason",
        "",
    ),
    row(Any, Resource(ResourceError::Failed), GstErrorKind::Other, "a file, device or connection has failed", ""),
    row(
        Any,
        Stream(StreamError::TypeNotFound),
        GstErrorKind::UnsupportedFormat,
        "it is not video, or GStreamer does not support its format",
        "check the address",
    ),
    row(
        Any,
        Stream(StreamError::WrongType),
        GstErrorKind::UnsupportedFormat,
        "it is not video, or GStreamer does not support its format",
        "check the address",
    ),
    row(
        Any,
        Stream(StreamError::CodecNotFound),
        GstErrorKind::UnsupportedFormat,
        "GStreamer has no decoder for this format",
        CODECS,
    ),
    row(
        Any,
        Stream(StreamError::NotImplemented),
        GstErrorKind::UnsupportedFormat,
        "GStreamer has no decoder for this variant of the format",
        CODECS,
    ),
    row(
        Any,
        Stream(StreamError::Decode),
        GstErrorKind::Damaged,
        "the video is damaged, or the decoder does not support it",
        CODECS,
    ),
    row(
        Any,
        Stream(StreamError::Demux),
        GstErrorKind::Damaged,
        "the file or stream is damaged",
        "try another one, or copy it again",
    ),
    row(
        Any,
        Stream(StreamError::Mux),
        GstErrorKind::UnsupportedFormat,
        "the output's format does not support this video",
        "select another format",
    ),
    row(
        Any,
        Stream(StreamError::Encode),
        GstErrorKind::EncoderFailed,
        "the encoder has failed",
        "select another one (encode.encoder)",
    ),
    row(
        Any,
        Stream(StreamError::Format),
        GstErrorKind::UnsupportedFormat,
        "the format of the video is not supported",
        "",
    ),
    row(
        Any,
        Stream(StreamError::Decrypt),
        GstErrorKind::Encrypted,
        "the stream is encrypted",
        "turn encryption off, or set its passphrase",
    ),
    row(
        Any,
        Stream(StreamError::DecryptNokey),
        GstErrorKind::Encrypted,
        "the stream is encrypted",
        "turn encryption off, or set its passphrase",
    ),
    row(Any, Stream(StreamError::TooLazy), GstErrorKind::Other, "a GStreamer element has failed without a reason", ""),
    row(Any, Stream(StreamError::Failed), GstErrorKind::Other, "the stream has failed", ""),
    row(
        Any,
        Core(CoreError::MissingPlugin),
        GstErrorKind::MissingPlugin,
        "a GStreamer plug-in is missing",
        INSTALLATION,
    ),
    row(
        Any,
        Core(CoreError::Negotiation),
        GstErrorKind::UnsupportedFormat,
        "two GStreamer elements have no common format",
        "",
    ),
    row(
        Any,
        Core(CoreError::Disabled),
        GstErrorKind::MissingPlugin,
        "this build of GStreamer lacks a feature",
        INSTALLATION,
    ),
    row(Any, Library(LibraryError::Init), GstErrorKind::Other, "a library cannot be initialised", INSTALLATION),
    row(Any, Library(LibraryError::Settings), GstErrorKind::Settings, "a library refuses these settings", ""),
    row(Any, Library(LibraryError::Encode), GstErrorKind::EncoderFailed, "a library cannot encode this video", ""),
];
