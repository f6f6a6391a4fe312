//! What is the same around webrtcbin wherever we send by it: to viewers (WHEP) and to media servers (WHIP).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_webrtc as gst_webrtc;

use gst::glib;
use gst::prelude::*;

use super::fanout::Fanout;
use crate::gst::{GstError, make, package_of};

/// What webrtcbin tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerEvent {
    /// There will be no more candidates of ours.
    Gathered,
    Connected,
    /// Why it is over.
    Ended(&'static str),
}

/// When the other end last sent something. Noted with every packet, so that it takes no place among the events.
pub(super) struct LastActivity {
    start: Instant,
    /// Milliseconds after the start.
    at: AtomicU64,
}

impl LastActivity {
    pub fn new() -> Self {
        LastActivity { start: Instant::now(), at: AtomicU64::new(0) }
    }

    pub fn note(&self) {
        self.at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn ago(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }
}

/// Without these webrtcbin is there, and fails later with no reason.
///
/// # Errors
/// The first that is missing, and its package.
pub(super) fn check_elements() -> Result<(), GstError> {
    for needed in ["nicesink", "dtlssrtpenc", "srtpenc", "rtpbin"] {
        if !crate::gst::has(needed) {
            let package = package_of(needed);
            return Err(GstError::new(format!("the GStreamer element {needed} is missing (install {package})")));
        }
    }
    Ok(())
}

/// An element that makes all caps that pass it `caps`, with `ssrc`. The payloader tells the parameter sets in its caps, which
/// change when a camera changes its size. To webrtcbin that would be something to negotiate anew; the pictures carry it
/// anyway.
///
/// # Errors
/// When GStreamer has none.
pub(super) fn fixed_caps(caps: &gst::Caps, ssrc: u32) -> Result<gst::Element, GstError> {
    let fixed_caps = make("capssetter")?;
    let mut with_ssrc = caps.clone();
    with_ssrc.make_mut().set("ssrc", ssrc);
    fixed_caps.set_property("caps", &with_ssrc);
    fixed_caps.set_property("join", false);
    fixed_caps.set_property("replace", true);
    Ok(fixed_caps)
}

/// Has webrtcbin send what comes out of `last`, as `caps` say it.
///
/// # Errors
/// When it does not take that.
pub(super) fn send(webrtc: &gst::Element, last: &gst::Element, caps: &gst::Caps) -> Result<(), GstError> {
    let (Some(pad), Some(last)) = (webrtc.request_pad_simple("sink_0"), last.static_pad("src")) else {
        return Err(GstError::new("webrtcbin takes no video"));
    };
    let transceiver = pad.property::<gst_webrtc::WebRTCRTPTransceiver>("transceiver");
    transceiver.set_property("direction", gst_webrtc::WebRTCRTPTransceiverDirection::Sendonly);
    transceiver.set_property("codec-preferences", caps);
    // Lost packets are sent again when the other end asks for them.
    transceiver.set_property("do-nack", true);
    last.link(&pad).map(|_| ()).map_err(|error| GstError::new(format!("webrtcbin takes no RTP: {error}")))
}

/// Keyframes that the other end asks for (PLI, FIR) are asked of the stream's encoder; one in `pause`, for one with a bad line
/// must not spend the others' bits.
pub(super) fn pass_keyframe_requests(source: &gst_app::AppSrc, fanout: &Weak<Fanout>, pause: Duration) {
    let Some(pad) = source.static_pad("src") else { return };
    let fanout = Weak::clone(fanout);
    let asked = Mutex::new(None::<Instant>);
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let wants_keyframe =
            info.event().is_some_and(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok());
        if wants_keyframe && let Some(fanout) = fanout.upgrade() {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_none_or(|at| at.elapsed() >= pause) {
                *asked = Some(Instant::now());
                fanout.request_keyframe();
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Passes on what webrtcbin tells, on its threads: `tell` must not wait. Every packet of the other end is noted in `last_activity`.
pub(super) fn listen(
    webrtc: &gst::Element,
    last_activity: &Arc<LastActivity>,
    tell: impl Fn(PeerEvent) + Clone + Send + Sync + 'static,
) {
    let told = tell.clone();
    webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state");
        if state == gst_webrtc::WebRTCICEGatheringState::Complete {
            told(PeerEvent::Gathered);
        }
    });
    let told = tell.clone();
    webrtc.connect_notify(Some("ice-connection-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEConnectionState>("ice-connection-state");
        if state == gst_webrtc::WebRTCICEConnectionState::Failed {
            told(PeerEvent::Ended("the network between us has failed (ICE)"));
        }
    });
    webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
        use gst_webrtc::WebRTCPeerConnectionState::{Closed, Connected, Failed};
        tell(match webrtc.property::<gst_webrtc::WebRTCPeerConnectionState>("connection-state") {
            Connected => PeerEvent::Connected,
            Failed => PeerEvent::Ended("the connection has failed"),
            Closed => PeerEvent::Ended("it has closed the connection"),
            _ => return,
        });
    });
    let Some(bin) = webrtc.downcast_ref::<gst::Bin>() else { return };
    let last_activity = Arc::clone(last_activity);
    bin.connect_deep_element_added(move |_, _, element| {
        let is_nice = element.factory().is_some_and(|factory| factory.name() == "nicesrc");
        if let Some(pad) = element.static_pad("src").filter(|_| is_nice) {
            let last_activity = Arc::clone(&last_activity);
            pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
                last_activity.note();
                gst::PadProbeReturn::Ok
            });
        }
    });
}

/// A promise's reply, or webrtcbin's reason.
pub(super) fn outcome(
    reply: Result<Option<&gst::StructureRef>, gst::PromiseError>,
) -> Result<Option<&gst::StructureRef>, String> {
    let reply = reply.map_err(|error| format!("{error:?}"))?;
    match reply.and_then(|reply| reply.get::<glib::Error>("error").ok()) {
        Some(error) => Err(error.message().to_owned()),
        None => Ok(reply),
    }
}

/// The description in the reply's field of this name.
pub(super) fn description(
    reply: Result<Option<&gst::StructureRef>, gst::PromiseError>,
    field: &str,
) -> Result<gst_webrtc::WebRTCSessionDescription, String> {
    let reply = outcome(reply)?.ok_or("webrtcbin gives none")?;
    reply.get::<gst_webrtc::WebRTCSessionDescription>(field).map_err(|error| error.to_string())
}
