//! By RTSP: `appsrc ! h264parse ! rtspclientsink` announces the stream and records it at the server (RFC 2326).

use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;
use url::Url;

use super::link::{Link, PushConnection, WAITING};
use crate::config::Credentials;
use crate::gst::{make, set_if_present};
use crate::publish::OutputError;
use crate::publish::encoder::glib_error;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the connection's pipeline; it connects when the pipeline plays.
///
/// # Errors
/// Missing elements, with what to install.
pub(super) fn link(url: &Url, credentials: Option<&Credentials>) -> Result<Link, OutputError> {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or_else(|| OutputError("a GStreamer pipeline has no bus".into()))?;
    bus.set_sync_handler(|_, message| match message.type_() {
        gst::MessageType::Error | gst::MessageType::Eos | gst::MessageType::Progress => gst::BusSyncReply::Pass,
        _ => gst::BusSyncReply::Drop,
    });
    let caps =
        gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build();
    let source = gst_app::AppSrc::builder()
        .caps(&caps)
        .format(gst::Format::Time)
        .is_live(true)
        .max_buffers(WAITING)
        .max_bytes(0)
        .build();
    let parse = make("h264parse")?;
    let sink = make("rtspclientsink")?;
    sink.set_property("location", url.as_str());
    // Interleaved: no loss, passes firewalls, and every media server knows it.
    sink.set_property_from_str("protocols", "tcp");
    // It would hold everything back for two seconds.
    sink.set_property("latency", 0_u32);
    sink.set_property("tcp-timeout", PATIENCE.as_micros() as u64);
    set_if_present(&sink, "user-agent", concat!("maskcast/", env!("CARGO_PKG_VERSION")));
    if let Some(credentials) = credentials {
        sink.set_property("user-id", &credentials.user);
        sink.set_property("user-pw", credentials.password.expose());
    }
    sink.connect("new-payloader", false, |arguments| {
        if let Some(Ok(payloader)) = arguments.get(1).map(gst::glib::Value::get::<gst::Element>) {
            // Parameter sets with every keyframe: viewers of the server may come later.
            set_if_present(&payloader, "config-interval", "-1");
            set_if_present(&payloader, "aggregate-mode", "zero-latency");
        }
        None
    });
    pipeline.add_many([source.upcast_ref(), &parse, &sink]).map_err(glib_error)?;
    gst::Element::link_many([source.upcast_ref(), &parse, &sink]).map_err(glib_error)?;
    Ok(Link { pipeline, bus, source, connection: Box::new(Announced) })
}

/// Connects while the first frames wait for it; the pipeline's bus reports when it stands.
struct Announced;

impl PushConnection for Announced {
    fn look(&mut self, message: Option<&gst::Message>) -> Result<bool, OutputError> {
        Ok(message.is_some_and(says_live))
    }
}

/// The element reports when it sends RECORD, its last request; a refusal comes as an error.
fn says_live(message: &gst::Message) -> bool {
    let gst::MessageView::Progress(progress) = message.view() else { return false };
    let (_, code, text) = progress.get();
    code == "record" && text == "Starting recording"
}
