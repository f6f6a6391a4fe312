//! What GStreamer's errors mean to people who run cameras: a table of errors, causes and remedies.
//!
//! GStreamer's own words are kept behind these, but they alone mislead: a camera that refuses TCP counts as a missing plug-in,
//! and a process without file descriptors as one without a JPEG encoder. An error is therefore explained by the element that
//! reports it, its code and, where a server has answered, the status of that answer.

use gst::prelude::*;
use gstreamer as gst;

use gst::{CoreError, LibraryError, ResourceError, StreamError};

use super::error::{GstError, GstErrorKind};

/// The code of an error, in the domain that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Core(CoreError),
    Library(LibraryError),
    Resource(ResourceError),
    Stream(StreamError),
}

use Code::{Core, Library, Resource, Stream};

/// Which elements a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ElementMatch {
    Any,
    /// ElementMatch the name of the factory.
    Factory(&'static str),
    /// Those that GStreamer counts among the sources in a network.
    Network,
}

/// A row: the first one that fits an error explains it.
struct ErrorRow {
    by: ElementMatch,
    code: Option<Code>,
    /// Of an answer by RTSP or HTTP.
    status: Option<u32>,
    /// What the debug text contains, where an element reports another one's error.
    debug: &'static str,
    kind: GstErrorKind,
    cause: &'static str,
    remedy: &'static str,
}

impl ErrorRow {
    /// The cause and, where there is one, the remedy.
    fn text(&self) -> String {
        if self.remedy.is_empty() { self.cause.to_string() } else { format!("{} ({})", self.cause, self.remedy) }
    }
}

const fn row(by: ElementMatch, code: Code, cause: &'static str, remedy: &'static str) -> ErrorRow {
    ErrorRow { by, code: Some(code), status: None, debug: "", kind: GstErrorKind::Other, cause, remedy }
}

const fn unreachable_row(code: Code, cause: &'static str) -> ErrorRow {
    ErrorRow { kind: GstErrorKind::Unreachable, ..row(ElementMatch::Network, code, cause, ADDRESS) }
}

const fn answer(status: u32, kind: GstErrorKind, cause: &'static str, remedy: &'static str) -> ErrorRow {
    ErrorRow { by: ElementMatch::Network, code: None, status: Some(status), debug: "", kind, cause, remedy }
}

const CREDENTIALS: &str = "set user and password_file or password_env";
const ADDRESS: &str = "is it switched on, and is the address right?";
const NO_TRANSPORT: &str = "the camera offers no video over this transport";
const OTHER_TRANSPORT: &str =
    "set transport = \"udp\" where it is \"tcp\", which some servers refuse with 461, or \"tcp\" where it is \"udp\"";
const CODECS: &str = "try installing gstreamer1.0-libav";
const INSTALLATION: &str = "`maskcast doctor` lists what is missing";

/// Rows about certain elements stand before those about any.
const TABLE: &[ErrorRow] = &[
    // What a server has answered says more than the code that an element makes of it.
    answer(401, GstErrorKind::Unauthorized, "user or password is refused", CREDENTIALS),
    answer(
        403,
        GstErrorKind::Other,
        "this user may not see this stream",
        "give the user that right in the camera's settings",
    ),
    answer(404, GstErrorKind::Other, "there is no such file, device or stream", "check the path in the address"),
    answer(406, GstErrorKind::Other, "the camera refuses the request", "check the path in the address"),
    answer(407, GstErrorKind::Other, "a proxy asks for a password", "reach the camera without a proxy (no_proxy)"),
    answer(
        453,
        GstErrorKind::Other,
        "the camera has no bandwidth left for another viewer",
        "close another viewer of it",
    ),
    answer(454, GstErrorKind::Other, "the camera has ended the session", "nothing: it is opened again"),
    answer(461, GstErrorKind::Other, "the camera refuses this transport", "set transport = \"udp\", or \"auto\""),
    answer(500, GstErrorKind::Other, "the camera has failed", "look at the camera's log, or restart it"),
    answer(503, GstErrorKind::Other, "the camera serves no more viewers at present", "close another viewer of it"),
    // None of its own codes fits, it says: every SETUP was refused (461). uridecodebin makes a missing plug-in of it.
    row(ElementMatch::Factory("rtspsrc"), Stream(StreamError::CodecNotFound), NO_TRANSPORT, OTHER_TRANSPORT),
    ErrorRow {
        debug: "GstRTSPSrc:",
        ..row(ElementMatch::Factory("uridecodebin"), Core(CoreError::MissingPlugin), NO_TRANSPORT, OTHER_TRANSPORT)
    },
    row(
        ElementMatch::Factory("rtspsrc"),
        Resource(ResourceError::Settings),
        "the camera's description of the stream cannot be used",
        "choose H.264, H.265 or MJPEG in the camera's settings",
    ),
    row(
        ElementMatch::Factory("rtspsrc"),
        Resource(ResourceError::OpenRead),
        "the camera offers no login that GStreamer can do",
        "choose digest with MD5, or basic, in the camera's settings",
    ),
    unreachable_row(Stream(StreamError::Failed), "nothing answers at this address"),
    unreachable_row(Resource(ResourceError::OpenReadWrite), "it cannot be opened"),
    unreachable_row(Resource(ResourceError::OpenRead), "it cannot be opened"),
    row(
        ElementMatch::Network,
        Resource(ResourceError::Read),
        "the connection has failed",
        "check the network, the transport, and the scheme: a camera that takes TLS only needs rtsps://",
    ),
    row(ElementMatch::Network, Resource(ResourceError::Write), "the connection has failed", "check the network"),
    row(
        ElementMatch::Factory("multipartdemux"),
        Stream(StreamError::Demux),
        "the camera's multipart answer has no boundary",
        "choose another address of the camera, by RTSP where it has one",
    ),
    row(
        ElementMatch::Factory("v4l2src"),
        Resource(ResourceError::NotFound),
        "there is no such device",
        "is it plugged in?",
    ),
    row(ElementMatch::Any, Resource(ResourceError::NotAuthorized), "user or password is refused", CREDENTIALS),
    row(
        ElementMatch::Any,
        Resource(ResourceError::NotFound),
        "there is no such file, device or stream",
        "check the address",
    ),
    row(ElementMatch::Any, Resource(ResourceError::Busy), "another program uses it", "close that program"),
    row(ElementMatch::Any, Resource(ResourceError::OpenRead), "it cannot be opened", ADDRESS),
    row(ElementMatch::Any, Resource(ResourceError::OpenReadWrite), "it cannot be opened", ADDRESS),
    row(
        ElementMatch::Any,
        Resource(ResourceError::OpenWrite),
        "it cannot be written",
        "check the folder and its permissions",
    ),
    row(ElementMatch::Any, Resource(ResourceError::Read), "reading has failed", "check the device or the disk"),
    row(ElementMatch::Any, Resource(ResourceError::Write), "writing has failed", "check the disk"),
    row(
        ElementMatch::Any,
        Resource(ResourceError::Seek),
        "it cannot be read from another place",
        "copy it to a local file",
    ),
    row(ElementMatch::Any, Resource(ResourceError::Sync), "what was written may not be on the disk", "check the disk"),
    row(
        ElementMatch::Any,
        Resource(ResourceError::Close),
        "it was not closed properly",
        "check the device or the disk",
    ),
    row(ElementMatch::Any, Resource(ResourceError::Settings), "the device refuses these settings", "choose other ones"),
    row(
        ElementMatch::Any,
        Resource(ResourceError::NoSpaceLeft),
        "the disk is full",
        "make room, or set stream.record.min_free",
    ),
    row(ElementMatch::Any, Resource(ResourceError::TooLazy), "an element does not say what failed", ""),
    row(ElementMatch::Any, Resource(ResourceError::Failed), "a resource has failed", ""),
    row(
        ElementMatch::Any,
        Stream(StreamError::TypeNotFound),
        "it is not video in a format that GStreamer knows",
        "check the address",
    ),
    row(
        ElementMatch::Any,
        Stream(StreamError::WrongType),
        "it is not video in a format that GStreamer knows",
        "check the address",
    ),
    row(ElementMatch::Any, Stream(StreamError::CodecNotFound), "GStreamer has no decoder for it", CODECS),
    row(ElementMatch::Any, Stream(StreamError::NotImplemented), "GStreamer has no decoder for this kind of it", CODECS),
    row(
        ElementMatch::Any,
        Stream(StreamError::Decode),
        "the video is damaged, or its decoder does not know this kind",
        CODECS,
    ),
    row(
        ElementMatch::Any,
        Stream(StreamError::Demux),
        "the file or stream is damaged",
        "try another one, or copy it again",
    ),
    row(
        ElementMatch::Any,
        Stream(StreamError::Mux),
        "this video does not fit the output's format",
        "choose another format",
    ),
    row(
        ElementMatch::Any,
        Stream(StreamError::Encode),
        "the encoder has failed",
        "choose another one (encode.encoder)",
    ),
    row(ElementMatch::Any, Stream(StreamError::Format), "the video's format does not fit", ""),
    row(
        ElementMatch::Any,
        Stream(StreamError::Decrypt),
        "the stream is encrypted",
        "turn encryption off, or give its passphrase",
    ),
    row(
        ElementMatch::Any,
        Stream(StreamError::DecryptNokey),
        "the stream is encrypted",
        "turn encryption off, or give its passphrase",
    ),
    row(ElementMatch::Any, Stream(StreamError::TooLazy), "an element does not say what failed", ""),
    row(ElementMatch::Any, Stream(StreamError::Failed), "the stream has failed", ""),
    row(ElementMatch::Any, Core(CoreError::MissingPlugin), "a GStreamer plug-in is missing", INSTALLATION),
    row(ElementMatch::Any, Core(CoreError::Negotiation), "two elements know no common format", ""),
    row(ElementMatch::Any, Core(CoreError::Disabled), "this build of GStreamer lacks it", INSTALLATION),
    row(ElementMatch::Any, Library(LibraryError::Init), "a library does not start", INSTALLATION),
    row(ElementMatch::Any, Library(LibraryError::Settings), "a library refuses these settings", ""),
    row(ElementMatch::Any, Library(LibraryError::Encode), "a library cannot encode this", ""),
];

/// An error message as one line: what it means, GStreamer's words for it, and what to do. The debug text is
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
        return GstError::new(format!("{shortage}: {message}{detail}"));
    }
    let element = error.src().and_then(|source| source.downcast_ref::<gst::Element>());
    match explain(element, &cause, status(error), error.debug().as_deref().unwrap_or_default()) {
        Some(row) => {
            let words = format!("{message}{detail}");
            // Found by another element's debug text: the words of the element that reports it name a wrong cause.
            let message = if row.debug.is_empty() { format!("{}: {words}", row.text()) } else { row.text() };
            GstError { message, words, kind: row.kind }
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
            ElementMatch::Any => true,
            ElementMatch::Network => is_network,
            ElementMatch::Factory(wanted) => name.as_deref() == Some(wanted),
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

/// Of the answer that an error is about, which `rtspsrc` and `souphttpsrc` note.
fn status(error: &gst::message::Error) -> Option<u32> {
    let details = error.details()?;
    ["rtsp-status-code", "http-status-code"].iter().find_map(|name| details.get::<u32>(*name).ok())
}

/// Whether an error can come from a plug-in that is not installed.
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

/// That no more files can be opened, where that is so: then nothing else that fails has the cause that it names.
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
            Some(Core(code)) => gst::glib::Error::new(code, "its own words"),
            Some(Library(code)) => gst::glib::Error::new(code, "its own words"),
            Some(Resource(code)) => gst::glib::Error::new(code, "its own words"),
            Some(Stream(code)) => gst::glib::Error::new(code, "its own words"),
            None => gst::glib::Error::new(ResourceError::Read, "its own words"),
        }
    }

    fn message(by: ElementMatch, error: &gst::glib::Error, status: Option<u32>, inner: &str) -> GstError {
        let factory = match by {
            ElementMatch::Any => "identity",
            ElementMatch::Network => "souphttpsrc",
            ElementMatch::Factory(name) => name,
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

    /// No row is hidden by another one before it, and all say what, why and what to do.
    #[test]
    fn every_row_explains_its_error() {
        super::super::init().unwrap();
        for row in TABLE {
            let shown = message(row.by, &error_of(row.code), row.status, row.debug);
            // A row that is found by another element's text leaves out the words of the one that reports it.
            let wanted = match row.debug {
                "" => format!("{}: its own words (detail of it)", row.text()),
                _ => row.text(),
            };
            assert_eq!((shown.message, shown.kind), (wanted, row.kind), "{:?} {:?} {:?}", row.by, row.code, row.status);
        }
    }

    /// The right cause, by hand: what users met.
    #[test]
    fn causes_are_the_right_ones() {
        super::super::init().unwrap();
        let rtsp = ElementMatch::Factory("rtspsrc");
        let http = ElementMatch::Factory("souphttpsrc");
        for (by, code, status, part) in [
            (rtsp, Stream(StreamError::CodecNotFound), None, "transport = \"udp\""),
            (ElementMatch::Any, Stream(StreamError::CodecNotFound), None, "gstreamer1.0-libav"),
            (rtsp, Resource(ResourceError::Read), Some(503), "serves no more viewers"),
            (rtsp, Resource(ResourceError::Read), Some(453), "bandwidth"),
            (rtsp, Resource(ResourceError::Read), Some(403), "may not see this stream"),
            (rtsp, Resource(ResourceError::NotAuthorized), Some(401), "user or password is refused"),
            (rtsp, Resource(ResourceError::NotFound), Some(404), "check the path"),
            (http, Resource(ResourceError::NotAuthorized), None, "user or password is refused"),
            (http, Stream(StreamError::Failed), None, "nothing answers"),
            (ElementMatch::Any, Resource(ResourceError::NoSpaceLeft), None, "the disk is full"),
            (ElementMatch::Factory("filesink"), Resource(ResourceError::OpenWrite), None, "its permissions"),
        ] {
            let shown = message(by, &error_of(Some(code)), status, "").message;
            assert!(shown.contains(part), "{code:?} {status:?}: {shown}");
        }
    }

    #[test]
    fn a_plugin_is_missing_only_where_one_can_be() {
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
