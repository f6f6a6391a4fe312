//! Requests that keep a camera's RTSP session open while its packets come inside the connection.
//!
//! Cameras close a session when they have got no request within the time-out that their `CameraSession` header names (RFC 2326,
//! 12.37; 60 s where it names none). Over UDP `rtspsrc` sends a request in time. Over TCP it sends one only after a silence,
//! and RTCP otherwise, which many cameras do not count: they hang up at every time-out (rtspsrc of GStreamer 1.22,
//! `gst_rtspsrc_loop_interleaved`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;

use gst::prelude::*;

/// The time between two requests. `rtspsrc` does not show the camera's time-out; the shortest that cameras name is 10 s, of
/// which this is a third.
const INTERVAL: Duration = Duration::from_secs(3);

/// `GST_RTSP_ERROR`: the request was not sent, because the camera has not announced the method. Whatever is answered is 0.
const NOT_SENT: i32 = -1;

/// Sends an empty `GET_PARAMETER` every few seconds, in which RFC 2326 sees a sign of life (10.8), as long as `source`, an
/// `rtspsrc`, gets packets by TCP. A camera that does not announce that method gets none: `rtspsrc` offers no other request.
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
            // Between two packets, on the thread that reads them: the request interrupts the reading, and in the middle of a
            // packet that would lose its first part and with it the beginning of the next one.
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

/// What is known of a camera's session.
struct CameraSession {
    /// When the newest request was sent.
    newest: Mutex<Instant>,
    /// The camera does not announce `GET_PARAMETER`.
    unsupported: AtomicBool,
}

impl CameraSession {
    /// Whether a request is due, which is then taken to be sent.
    fn is_due(&self) -> bool {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let due = newest.elapsed() >= INTERVAL && !self.unsupported.load(Ordering::Relaxed);
        if due {
            *newest = Instant::now();
        }
        due
    }
}

/// Over UDP the packets come from an element of their own; inside the connection, from a pad of `rtspsrc` that has none.
fn is_interleaved(pad: &gst::Pad) -> bool {
    pad.peer().is_some_and(|peer| peer.parent_element().is_none())
}

/// Does not wait for the answer.
fn request(source: &gst::Element, session: &Arc<CameraSession>) {
    let session = Arc::clone(session);
    let answered = gst::Promise::with_change_func(move |answer| {
        let result = answer.ok().flatten().and_then(|answer| answer.get::<i32>("rtsp-result").ok());
        if result == Some(NOT_SENT) {
            session.unsupported.store(true, Ordering::Relaxed);
            tracing::debug!(stage = "capture", "the camera takes no GET_PARAMETER, so its session is not kept alive");
        }
    });
    source.emit_by_name::<bool>("get-parameters", &[&Vec::<String>::new(), &None::<String>, &answered]);
}
