//! Pushes over RTSP: `appsrc ! h264parse ! rtspclientsink` sends ANNOUNCE and RECORD (RFC 2326, sections 10.3 and
//! 10.11).

use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;
use url::Url;

use super::PushError;
use super::link::{Link, MAX_QUEUED_UNITS, PushConnection};
use crate::config::Credentials;
use crate::gst::{GstError, make, set_if_present};
use crate::publish::encoder::glib_error;

/// How long the server may take for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds the pipeline of the connection, which connects when the pipeline is set to playing.
///
/// # Errors
/// When an element is missing; with the package to install.
pub(super) fn link(url: &Url, credentials: Option<&Credentials>) -> Result<Link, GstError> {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or_else(|| GstError::new("a GStreamer pipeline has no bus"))?;
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
        .max_buffers(MAX_QUEUED_UNITS)
        .max_bytes(0)
        .build();
    let parse = make("h264parse")?;
    let sink = make("rtspclientsink")?;
    sink.set_property("location", url.as_str());
    // Interleaved TCP has no packet loss, passes firewalls, and is supported by every media server.
    sink.set_property_from_str("protocols", "tcp");
    // The default delays everything by two seconds.
    sink.set_property("latency", 0_u32);
    sink.set_property("tcp-timeout", RESPONSE_TIMEOUT.as_micros() as u64);
    set_if_present(&sink, "user-agent", concat!("maskcast/", env!("CARGO_PKG_VERSION")));
    if let Some(credentials) = credentials {
        sink.set_property("user-id", &credentials.user);
        sink.set_property("user-pw", credentials.password.expose());
    }
    sink.connect("new-payloader", false, |arguments| {
        if let Some(Ok(payloader)) = arguments.get(1).map(gst::glib::Value::get::<gst::Element>) {
            // Parameter sets with every keyframe, for viewers who connect to the server later.
            set_if_present(&payloader, "config-interval", "-1");
            set_if_present(&payloader, "aggregate-mode", "zero-latency");
        }
        None
    });
    pipeline.add_many([source.upcast_ref(), &parse, &sink]).map_err(glib_error)?;
    gst::Element::link_many([source.upcast_ref(), &parse, &sink]).map_err(glib_error)?;
    Ok(Link { pipeline, bus, source, connection: Box::new(RtspConnection) })
}

/// An RTSP connection. It is made while the first frames wait in the queue; the bus reports when it is established.
struct RtspConnection;

impl PushConnection for RtspConnection {
    fn poll(&mut self, message: Option<&gst::Message>) -> Result<bool, PushError> {
        Ok(message.is_some_and(starts_recording))
    }
}

/// Whether the element reports that it sends RECORD, its last request. A refusal by the server is reported as an error.
fn starts_recording(message: &gst::Message) -> bool {
    let gst::MessageView::Progress(progress) = message.view() else { return false };
    let (_, code, text) = progress.get();
    code == "record" && text == "Starting recording"
}
