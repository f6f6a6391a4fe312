//! Requests that keep a camera's RTSP session open when its packets are sent in the RTSP connection (TCP).
//!
//! Cameras close a session when they receive no request within the time-out of their `Session` header (RFC 2326, section
//! 12.37; 60 s if the header names none). With UDP, `rtspsrc` sends a request in time. With TCP, it sends one only when no
//! data comes, and otherwise RTCP, which many cameras do not count: they close the connection after every time-out (rtspsrc
//! of GStreamer 1.22, `gst_rtspsrc_loop_interleaved`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;

/// The time between two requests. `rtspsrc` does not expose the camera's time-out. The shortest that cameras use is 10 s.
const INTERVAL: Duration = Duration::from_secs(3);

/// `GST_RTSP_ERROR`: the request was not sent, because the camera has not announced the method. With any response, the
/// result is 0.
const NOT_SENT: i32 = -1;

/// Sends an empty `GET_PARAMETER` every few seconds, which tests that the client is alive (RFC 2326, section 10.8), while
/// `source`, an `rtspsrc`, receives packets by TCP. None is sent to a camera that has not announced the method; `rtspsrc` has
/// no signal for another request.
pub fn keep_alive(source: &gst::Element) {
    let session = Arc::new(CameraSession { newest: Mutex::new(Instant::now()), unsupported: AtomicBool::new(false) });
    source.connect("new-manager", false, move |arguments| {
        let element = |at: usize| arguments.get(at).and_then(|value| value.get::<gst::Element>().ok());
        let (Some(source), Some(manager)) = (element(0), element(1)) else { return None };
        let (source, session) = (source.downgrade(), Arc::clone(&session));
        manager.connect_pad_added(move |_, pad| {
            if !pad.name().starts_with("recv_rtp_sink_") {
                return;
            }
            let (source, session) = (source.clone(), Arc::clone(&session));
            // Sent between two packets, on the thread that reads them: the request interrupts the reading, and in the middle
            // of a packet its first part would be lost, and with it the start of the next packet.
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
                if is_interleaved(pad)
                    && session.is_due()
                    && let Some(source) = source.upgrade()
                {
                    request(&source, &session);
                }
                gst::PadProbeReturn::Ok
            });
        });
        None
    });
}

/// The state of a camera's session.
struct CameraSession {
    /// When the last request was sent.
    newest: Mutex<Instant>,
    /// The camera does not announce `GET_PARAMETER`.
    unsupported: AtomicBool,
}

impl CameraSession {
    /// Whether a request is due. If so, it counts as sent now.
    fn is_due(&self) -> bool {
        let mut newest = self.newest.lock();
        let due = newest.elapsed() >= INTERVAL && !self.unsupported.load(Ordering::Relaxed);
        if due {
            *newest = Instant::now();
        }
        due
    }
}

/// Whether the packets are received in the RTSP connection. With UDP the peer pad belongs to an element; with TCP it is a pad
/// of `rtspsrc` itself, which has no parent element.
fn is_interleaved(pad: &gst::Pad) -> bool {
    pad.peer().is_some_and(|peer| peer.parent_element().is_none())
}

/// Sends a request, and does not wait for the response.
fn request(source: &gst::Element, session: &Arc<CameraSession>) {
    let session = Arc::clone(session);
    let answered = gst::Promise::with_change_func(move |answer| {
        let result = answer.ok().flatten().and_then(|answer| answer.get::<i32>("rtsp-result").ok());
        if result == Some(NOT_SENT) {
            session.unsupported.store(true, Ordering::Relaxed);
            tracing::debug!(
                stage = "capture",
                "RTSP session is not kept alive: the camera does not support GET_PARAMETER"
            );
        }
    });
    source.emit_by_name::<bool>("get-parameters", &[&Vec::<String>::new(), &None::<String>, &answered]);
}
