//! The causes of GStreamer's errors and their remedies, for operators of cameras.
//!
//! GStreamer's own text alone is misleading: it reports a camera that refuses TCP as a missing plug-in, and a process without
//! file descriptors as one without a JPEG encoder. Therefore an error is explained by the element that reports it, its
//! code and, if a server has responded, the status of the response: the first row of [`table`] that matches them.
//! GStreamer's text follows the explanation.

use gst::prelude::*;
use gstreamer as gst;

use gst::{CoreError, StreamError};

use self::table::Code::{Core, Library, Resource, Stream};
use self::table::ElementMatch::{Any, Factory, Network};
use self::table::{Code, ErrorRow, TABLE};
use super::error::{GstError, GstErrorKind};

mod table;

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
    use gst::ResourceError;

    use super::table::ElementMatch;
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
