//! A table of GStreamer's errors with their causes and remedies, for operators of cameras.
//!
//! GStreamer's own text alone is misleading: it reports a camera that refuses TCP as a missing plug-in, and a process without
//! file descriptors as one without a JPEG encoder. Therefore an error is explained by the element that reports it, its
//! code and, if a server has responded, the status of the response. GStreamer's text follows the explanation.

use gst::prelude::*;
use gstreamer as gst;

use gst::{CoreError, LibraryError, ResourceError, StreamError};

use super::error::{GstError, GstErrorKind};

/// The code of an error, by its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Core(CoreError),
    Library(LibraryError),
    Resource(ResourceError),
    Stream(StreamError),
}

use Code::{Core, Library, Resource, Stream};

/// The elements that a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ElementMatch {
    Any,
    /// Elements of the factory with this name.
    Factory(&'static str),
    /// Elements of the class `Source/Network`.
    Network,
}

use ElementMatch::{Any, Factory, Network};

/// A row of the table. The first row that matches an error explains it.
struct ErrorRow {
    by: ElementMatch,
    /// `None` matches every code.
    code: Option<Code>,
    /// The status of an RTSP or HTTP response; `None` matches every error.
    status: Option<u32>,
    /// A part of the debug text, if an element reports the error of another one.
    debug: &'static str,
    kind: GstErrorKind,
    cause: &'static str,
    remedy: &'static str,
}

impl ErrorRow {
    /// The cause and, if there is one, the remedy.
    fn text(&self) -> String {
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
const TABLE: &[ErrorRow] = &[
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
        "the camera's multipart answer has no boundary",
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

/// Explains an error message in one line: cause, remedy and GStreamer's own text. GStreamer's debug text has the form
/// `file.c(line): function (): path:\ndetail`.
pub fn describe(error: &gst::message::Error) -> GstError {
    let cause = error.error();
    let message = cause.message().trim_end_matches('.').to_string();
    let detail = error.debug().and_then(|debug| debug.split_once('\n').map(|(_, detail)| detail.trim().to_string()));
    let detail = match detail {
        Some(detail) if !detail.is_empty() && !message.contains(&detail) => {
            format!(" ({})", detail.trim_end_matches('.').replace('\n', " "))
        }
        _ => String::new(),
    };
    if let Some(shortage) = descriptor_shortage() {
        return GstError::of(GstErrorKind::NoDescriptors, format!("{shortage}: {message}{detail}"));
    }
    let element = error.src().and_then(|source| source.downcast_ref::<gst::Element>());
    match explain(element, &cause, status(error), error.debug().as_deref().unwrap_or_default()) {
        Some(row) => {
            let detail = format!("{message}{detail}");
            // When the row matched the debug text of another element, the text of the reporting one names a wrong cause.
            let message = if row.debug.is_empty() { format!("{}: {detail}", row.text()) } else { row.text() };
            GstError { message, detail, kind: row.kind }
        }
        None => GstError::new(format!("{message}{detail}")),
    }
}

fn explain(
    element: Option<&gst::Element>,
    error: &gst::glib::Error,
    status: Option<u32>,
    debug: &str,
) -> Option<&'static ErrorRow> {
    let factory = element.and_then(|element| element.factory());
    let name = factory.as_ref().map(|factory| factory.name());
    let is_network = factory.as_ref().is_some_and(|factory| factory.metadata("klass") == Some("Source/Network"));
    let code = code(error);
    TABLE.iter().find(|row| {
        let by = match row.by {
            Any => true,
            Network => is_network,
            Factory(wanted) => name.as_deref() == Some(wanted),
        };
        by && row.code.is_none_or(|wanted| Some(wanted) == code)
            && row.status.is_none_or(|wanted| Some(wanted) == status)
            && debug.contains(row.debug)
    })
}

fn code(error: &gst::glib::Error) -> Option<Code> {
    None.or_else(|| error.kind().map(Core))
        .or_else(|| error.kind().map(Library))
        .or_else(|| error.kind().map(Resource))
        .or_else(|| error.kind().map(Stream))
}

/// The status of the response that caused an error; `rtspsrc` and `souphttpsrc` add it to the details.
fn status(error: &gst::message::Error) -> Option<u32> {
    let details = error.details()?;
    ["rtsp-status-code", "http-status-code"].iter().find_map(|name| details.get::<u32>(*name).ok())
}

/// Whether a missing plug-in can be the cause of an error.
pub(super) fn is_missing_plugin(error: &gst::glib::Error) -> bool {
    matches!(
        code(error),
        Some(
            Core(CoreError::MissingPlugin)
                | Stream(
                    StreamError::CodecNotFound
                        | StreamError::TypeNotFound
                        | StreamError::WrongType
                        | StreamError::NotImplemented
                )
        )
    )
}

/// The cause and the remedy if no more files can be opened; an error then has this cause, whatever it reports.
pub(super) fn descriptor_shortage() -> Option<String> {
    match std::fs::File::open("/dev/null").map_err(|error| error.raw_os_error()) {
        Err(Some(libc::EMFILE)) => Some(
            "this process has no file descriptors left (raise its limit: LimitNOFILE= in the systemd unit, or `ulimit -n`)"
                .to_string(),
        ),
        Err(Some(libc::ENFILE)) => {
            Some("this machine has no file descriptors left (raise the sysctl fs.file-max)".to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(code: Option<Code>) -> gst::glib::Error {
        match code {
            Some(Core(code)) => gst::glib::Error::new(code, "its own text"),
            Some(Library(code)) => gst::glib::Error::new(code, "its own text"),
            Some(Resource(code)) => gst::glib::Error::new(code, "its own text"),
            Some(Stream(code)) => gst::glib::Error::new(code, "its own text"),
            None => gst::glib::Error::new(ResourceError::Read, "its own text"),
        }
    }

    fn message(by: ElementMatch, error: &gst::glib::Error, status: Option<u32>, inner: &str) -> GstError {
        let factory = match by {
            Any => "identity",
            Network => "souphttpsrc",
            Factory(name) => name,
        };
        let source = super::super::make(factory).unwrap();
        let debug = format!("gstx.c(1): gst_x (): /GstPipeline:p/GstX:x:\ndetail of it{inner}");
        let mut message = gst::message::Error::builder_from_error(error.clone()).src(&source).debug(&debug);
        if let Some(status) = status {
            let details = gst::Structure::builder("details").field("rtsp-status-code", status).build();
            message = message.other_field("details", details);
        }
        let message = message.build();
        let gst::MessageView::Error(error) = message.view() else { panic!("it is an error") };
        describe(error)
    }

    /// No row is shadowed by one before it, and GStreamer's text follows each explanation.
    #[test]
    fn every_row_explains_its_error() {
        super::super::init().unwrap();
        for row in TABLE {
            let shown = message(row.by, &error_of(row.code), row.status, row.debug);
            // A row that matches the debug text of another element omits the text of the reporting one.
            let wanted = match row.debug {
                "" => format!("{}: its own text (detail of it)", row.text()),
                _ => row.text(),
            };
            assert_eq!((shown.message, shown.kind), (wanted, row.kind), "{:?} {:?} {:?}", row.by, row.code, row.status);
        }
    }

    /// Errors that users reported, with the kind that each must have and a part of its remedy.
    #[test]
    fn errors_of_cameras_have_the_right_kind_and_remedy() {
        use GstErrorKind::{
            Busy, CannotOpen, DiskFull, Forbidden, NotFound, TransportRefused, Unauthorized, Unreachable,
            UnsupportedFormat,
        };
        super::super::init().unwrap();
        let rtsp = Factory("rtspsrc");
        let http = Factory("souphttpsrc");
        for (by, code, status, kind, remedy) in [
            (rtsp, Stream(StreamError::CodecNotFound), None, TransportRefused, "transport = \"udp\""),
            (Any, Stream(StreamError::CodecNotFound), None, UnsupportedFormat, "gstreamer1.0-libav"),
            (rtsp, Resource(ResourceError::Read), Some(503), Busy, "close another viewer"),
            (rtsp, Resource(ResourceError::Read), Some(453), Busy, "bandwidth"),
            (rtsp, Resource(ResourceError::Read), Some(403), Forbidden, "give the user that right"),
            (rtsp, Resource(ResourceError::NotAuthorized), Some(401), Unauthorized, "password_file"),
            (rtsp, Resource(ResourceError::NotFound), Some(404), NotFound, "check the path"),
            (http, Resource(ResourceError::NotAuthorized), None, Forbidden, "password_file"),
            (http, Stream(StreamError::Failed), None, Unreachable, "switched on"),
            (Any, Resource(ResourceError::NoSpaceLeft), None, DiskFull, "min_free"),
            (Factory("filesink"), Resource(ResourceError::OpenWrite), None, CannotOpen, "its permissions"),
        ] {
            let error = message(by, &error_of(Some(code)), status, "");
            assert_eq!(error.kind, kind, "{code:?} {status:?}: {error}");
            assert!(error.message.contains(remedy), "{code:?} {status:?}: {error}");
        }
    }

    #[test]
    fn a_missing_plugin_is_assumed_only_for_errors_that_one_can_cause() {
        for (code, missing) in [
            (Core(CoreError::MissingPlugin), true),
            (Stream(StreamError::CodecNotFound), true),
            (Resource(ResourceError::NotAuthorized), false),
            (Resource(ResourceError::Read), false),
            (Stream(StreamError::Failed), false),
        ] {
            assert_eq!(is_missing_plugin(&error_of(Some(code))), missing, "{code:?}");
        }
    }
}
