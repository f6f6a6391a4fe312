//! Code around webrtcbin that viewers (WHEP) and pushes (WHIP) share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_webrtc as gst_webrtc;
use parking_lot::Mutex;

use gst::glib;
use gst::prelude::*;

use super::fanout::Fanout;
use crate::gst::{GstError, make, package_of};

/// A change of a connection that webrtcbin reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerEvent {
    /// All local candidates have been gathered.
    Gathered,
    Connected,
    Ended(PeerEndReason),
}

/// Why a WebRTC connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerEndReason {
    #[error("the network path to the peer failed (ICE); UDP may be blocked")]
    NetworkFailed,
    #[error("the connection failed")]
    Failed,
    #[error("the peer closed the connection")]
    Closed,
}

/// When the peer last sent a packet. An atomic value and not an event, because it changes with every packet.
pub(super) struct LastActivity {
    start: Instant,
    /// Milliseconds since the start.
    at: AtomicU64,
}

impl LastActivity {
    pub fn new() -> Self {
        LastActivity { start: Instant::now(), at: AtomicU64::new(0) }
    }

    pub fn update(&self) {
        self.at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }
}

/// Checks the elements that webrtcbin creates itself: without them it starts, and later fails without a reason.
///
/// # Errors
/// Names the first missing element and its package.
pub(super) fn check_elements() -> Result<(), GstError> {
    for needed in ["nicesink", "dtlssrtpenc", "srtpenc", "rtpbin"] {
        if !crate::gst::has(needed) {
            let package = package_of(needed);
            return Err(GstError::new(format!("the GStreamer element {needed} is missing (install {package})")));
        }
    }
    Ok(())
}

/// A webrtcbin that does not ask the router of the network to forward ports to this machine. Its ICE agent (libnice) does
/// that over UPnP by default, without a setting of webrtcbin: nothing here needs it, it would make the box reachable from
/// outside without anyone having configured it, and each connection would start a UPnP client.
///
/// # Errors
/// When the element is missing.
pub(super) fn make_webrtcbin() -> Result<gst::Element, GstError> {
    let webrtc = make("webrtcbin")?;
    // Both properties are those of GStreamer's and libnice's objects, which have no bindings; other ICE agents have none
    // of them and do no port forwarding.
    let nice = webrtc
        .find_property("ice-agent")
        .and_then(|_| webrtc.property::<Option<glib::Object>>("ice-agent"))
        .filter(|ice| ice.find_property("agent").is_some())
        .and_then(|ice| ice.property::<Option<glib::Object>>("agent"));
    if let Some(nice) = nice.filter(|nice| nice.find_property("upnp").is_some()) {
        nice.set_property("upnp", false);
    }
    Ok(webrtc)
}

/// An element that replaces all caps by `caps` with `ssrc`. The caps of the payloader contain the parameter sets, which
/// change with the frame size of the camera. webrtcbin would renegotiate then, although the stream itself contains the
/// parameter sets.
///
/// # Errors
/// When the element is missing.
pub(super) fn fixed_caps(caps: &gst::Caps, ssrc: u32) -> Result<gst::Element, GstError> {
    let fixed_caps = make("capssetter")?;
    let mut with_ssrc = caps.clone();
    with_ssrc.make_mut().set("ssrc", ssrc);
    fixed_caps.set_property("caps", &with_ssrc);
    fixed_caps.set_property("join", false);
    fixed_caps.set_property("replace", true);
    Ok(fixed_caps)
}

/// Links `last` to webrtcbin as a track that is only sent, in the format of `caps`.
///
/// # Errors
/// When webrtcbin does not accept it.
pub(super) fn link_video(webrtc: &gst::Element, last: &gst::Element, caps: &gst::Caps) -> Result<(), GstError> {
    let (Some(pad), Some(last)) = (webrtc.request_pad_simple("sink_0"), last.static_pad("src")) else {
        return Err(GstError::new("webrtcbin does not accept a video track"));
    };
    let transceiver = pad.property::<gst_webrtc::WebRTCRTPTransceiver>("transceiver");
    transceiver.set_property("direction", gst_webrtc::WebRTCRTPTransceiverDirection::Sendonly);
    transceiver.set_property("codec-preferences", caps);
    // Lost packets are sent again when the peer requests it.
    transceiver.set_property("do-nack", true);
    last.link(&pad).map(|_| ()).map_err(|error| GstError::new(format!("webrtcbin does not accept RTP: {error}")))
}

/// Passes keyframe requests of the peer (PLI, FIR) to the encoder of the stream, at most one per `interval`: a peer
/// with packet loss must not use up the bitrate of the others.
pub(super) fn pass_keyframe_requests(source: &gst_app::AppSrc, fanout: &Weak<Fanout>, interval: Duration) {
    let Some(pad) = source.static_pad("src") else { return };
    let fanout = Weak::clone(fanout);
    let last_request = Mutex::new(None::<Instant>);
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let wants_keyframe =
            info.event().is_some_and(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok());
        if wants_keyframe && let Some(fanout) = fanout.upgrade() {
            let mut last_request = last_request.lock();
            if last_request.is_none_or(|at| at.elapsed() >= interval) {
                *last_request = Some(Instant::now());
                fanout.request_keyframe();
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Calls `on_event` for every change of the connection, on a thread of webrtcbin: it must not block. Updates
/// `last_activity` with every packet of the peer.
pub(super) fn connect_signals(
    webrtc: &gst::Element,
    last_activity: &Arc<LastActivity>,
    on_event: impl Fn(PeerEvent) + Clone + Send + Sync + 'static,
) {
    let on_gathered = on_event.clone();
    webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state");
        if state == gst_webrtc::WebRTCICEGatheringState::Complete {
            on_gathered(PeerEvent::Gathered);
        }
    });
    let on_failed = on_event.clone();
    webrtc.connect_notify(Some("ice-connection-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEConnectionState>("ice-connection-state");
        if state == gst_webrtc::WebRTCICEConnectionState::Failed {
            on_failed(PeerEvent::Ended(PeerEndReason::NetworkFailed));
        }
    });
    webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
        use gst_webrtc::WebRTCPeerConnectionState::{Closed, Connected, Failed};
        on_event(match webrtc.property::<gst_webrtc::WebRTCPeerConnectionState>("connection-state") {
            Connected => PeerEvent::Connected,
            Failed => PeerEvent::Ended(PeerEndReason::Failed),
            Closed => PeerEvent::Ended(PeerEndReason::Closed),
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
                last_activity.update();
                gst::PadProbeReturn::Ok
            });
        }
    });
}

/// The reply of a promise.
///
/// # Errors
/// The text of webrtcbin's error.
pub(super) fn promise_result(
    reply: Result<Option<&gst::StructureRef>, gst::PromiseError>,
) -> Result<Option<&gst::StructureRef>, String> {
    let reply = reply.map_err(|error| format!("{error:?}"))?;
    match reply.and_then(|reply| reply.get::<glib::Error>("error").ok()) {
        Some(error) => Err(error.message().to_owned()),
        None => Ok(reply),
    }
}

/// The session description in a field of a promise's reply.
///
/// # Errors
/// The text of webrtcbin's error.
pub(super) fn session_description(
    reply: Result<Option<&gst::StructureRef>, gst::PromiseError>,
    field: &str,
) -> Result<gst_webrtc::WebRTCSessionDescription, String> {
    let reply = promise_result(reply)?.ok_or("webrtcbin returned no description")?;
    reply.get::<gst_webrtc::WebRTCSessionDescription>(field).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the default agent UPnP is on, so the test fails if the objects change.
    #[test]
    fn a_connection_does_not_ask_the_router_to_forward_ports() {
        crate::gst::init().unwrap();
        let upnp = |webrtc: gst::Element| {
            let ice = webrtc.property::<glib::Object>("ice-agent");
            ice.property::<glib::Object>("agent").property::<bool>("upnp")
        };
        assert!(upnp(make("webrtcbin").unwrap()), "webrtcbin has UPnP off by default now: remove make_webrtcbin");
        assert!(!upnp(make_webrtcbin().unwrap()));
    }
}
