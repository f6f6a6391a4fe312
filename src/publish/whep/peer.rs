//! The pipeline of a viewer: `appsrc ! rtph264pay ! capssetter ! webrtcbin`. It reports its progress as events.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::Sender;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_sdp as gst_sdp;
use gstreamer_webrtc as gst_webrtc;

use gst::glib;
use gst::prelude::*;

use super::event::ViewerEvent;
use super::offer::Offer;
use crate::config::WebRtcConfig;
use crate::gst::{GstError, bus_error, make, state_error};
use crate::publish::fanout::{AppSrcSink, Fanout};
use crate::publish::webrtc::{
    LastActivity, PeerEvent, check_elements, connect_signals, fixed_caps, link_video, make_webrtcbin,
    pass_keyframe_requests, promise_result, session_description,
};

/// Access units that may wait for a viewer: half a second at 30 fps. Queued frames add delay, so a slow viewer
/// continues with the next keyframe instead.
const MAX_QUEUED_UNITS: u64 = 15;

/// The minimum interval between two keyframes that a viewer requests: a viewer with packet loss must not use up the
/// bitrate of the others.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

/// The largest RTP packet in bytes, small enough for the headers of tunnels and relays.
const MTU: u32 = 1200;

/// The pipeline of a viewer. Dropping it stops the pipeline.
pub(super) struct WebRtcPeer {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    webrtc: gst::Element,
}

impl WebRtcPeer {
    /// Builds and starts the pipeline and sets the offer. The results arrive as events.
    ///
    /// # Errors
    /// When an element is missing or the pipeline does not start.
    pub fn start(
        offer: &Offer,
        settings: &WebRtcConfig,
        fanout: &Weak<Fanout>,
        events: &Sender<ViewerEvent>,
        last_activity: &Arc<LastActivity>,
    ) -> Result<Self, GstError> {
        crate::gst::init()?;
        check_elements()?;
        let (pipeline, bus) = crate::gst::pipeline()?;
        let source = gst_app::AppSrc::builder()
            .format(gst::Format::Time)
            .is_live(true)
            .max_buffers(MAX_QUEUED_UNITS)
            .max_bytes(0)
            .build();
        let ssrc = fastrand::u32(1..);
        let payloader = make("rtph264pay")?;
        payloader.set_property("pt", u32::from(offer.payload));
        payloader.set_property("ssrc", ssrc);
        payloader.set_property("config-interval", -1_i32);
        payloader.set_property("mtu", MTU);
        payloader.set_property_from_str("aggregate-mode", "zero-latency");
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("clock-rate", 90_000_i32)
            .field("encoding-name", "H264")
            .field("payload", i32::from(offer.payload))
            .build();
        let fixed_caps = fixed_caps(&caps, ssrc)?;
        let webrtc = make_webrtcbin()?;
        configure(&webrtc, settings);
        pipeline
            .add_many([source.upcast_ref(), &payloader, &fixed_caps, &webrtc])
            .and_then(|()| gst::Element::link_many([source.upcast_ref(), &payloader, &fixed_caps]))
            .map_err(|error| GstError::new(format!("GStreamer: {}", error.message)))?;
        link_video(&webrtc, &fixed_caps, &caps)?;
        pass_keyframe_requests(&source, fanout, KEYFRAME_INTERVAL);
        let sender = events.clone();
        connect_signals(&webrtc, last_activity, move |event| {
            // Fails when the viewer's thread has ended.
            let _ = sender.send(match event {
                PeerEvent::Gathered => ViewerEvent::Gathered,
                PeerEvent::Connected => ViewerEvent::Connected,
                PeerEvent::Ended(reason) => ViewerEvent::Ended(reason.into()),
            });
        });
        let peer = WebRtcPeer { pipeline, bus, source, webrtc };
        peer.pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&peer.pipeline, "webrtcbin does not start"))?;
        peer.set_offer(offer, events)?;
        Ok(peer)
    }

    fn set_offer(&self, offer: &Offer, events: &Sender<ViewerEvent>) -> Result<(), GstError> {
        let message = gst_sdp::SDPMessage::parse_buffer(offer.text.as_bytes())
            .map_err(|_| GstError::new("GStreamer cannot parse the offer"))?;
        let description = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Offer, message);
        let events = events.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let _ = events.send(ViewerEvent::Offered(promise_result(reply).map(|_| ())));
        });
        self.webrtc.emit_by_name::<()>("set-remote-description", &[&description, &promise]);
        Ok(())
    }

    /// Requests an answer from webrtcbin; it arrives as an event.
    pub fn create_answer(&self, events: &Sender<ViewerEvent>) {
        let events = events.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let _ = events.send(ViewerEvent::Answered(session_description(reply, "answer")));
        });
        self.webrtc.emit_by_name::<()>("create-answer", &[&None::<gst::Structure>, &promise]);
    }

    /// Sets the answer, which starts the gathering of candidates.
    pub fn set_answer(&self, answer: &gst_webrtc::WebRTCSessionDescription) {
        self.webrtc.emit_by_name::<()>("set-local-description", &[answer, &None::<gst::Promise>]);
    }

    /// The answer with the candidates that have been gathered so far.
    pub fn local_description(&self) -> Option<String> {
        let description = self.webrtc.property::<Option<gst_webrtc::WebRTCSessionDescription>>("local-description")?;
        description.sdp().as_text().ok()
    }

    /// Adds a candidate of the viewer.
    pub fn add_candidate(&self, candidate: &str) {
        self.webrtc.emit_by_name::<()>("add-ice-candidate", &[&0_u32, &candidate]);
    }

    /// The error of the pipeline, if it failed.
    pub fn error(&self) -> Option<GstError> {
        bus_error(&self.bus)
    }

    /// The frame sink through which the viewer receives the stream.
    pub fn frame_sink(&self, fanout: &Fanout) -> AppSrcSink {
        AppSrcSink::new(self.source.clone(), MAX_QUEUED_UNITS, true, fanout.lost_counter())
    }
}

impl Drop for WebRtcPeer {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            crate::base::log_dedup::warn("", "publish", "cannot stop the pipeline of a WebRTC viewer");
        }
    }
}

fn configure(webrtc: &gst::Element, settings: &WebRtcConfig) {
    webrtc.set_property_from_str("bundle-policy", "max-bundle");
    webrtc.set_property("latency", 0_u32);
    if let Some(stun) = &settings.stun {
        webrtc.set_property("stun-server", format!("stun://{stun}"));
    }
    for turn in &settings.turn {
        if !webrtc.emit_by_name::<bool>("add-turn-server", &[&turn.for_gstreamer().expose()]) {
            tracing::warn!("server.webrtc.turn: GStreamer rejects a TURN server, it is not used: {turn}");
        }
    }
    let ice = webrtc.property::<gst::Object>("ice-agent");
    if let Some((min, max)) = settings.udp_ports {
        ice.set_property("min-rtp-port", u32::from(min));
        ice.set_property("max-rtp-port", u32::from(max));
    }
    if ice.find_property("agent").is_some() {
        let agent = ice.property::<glib::Object>("agent");
        // TCP would need ports of its own. Ports of the router (UPnP) are opened by the operator.
        for switch in ["ice-tcp", "upnp"] {
            if agent.find_property(switch).is_some() {
                agent.set_property(switch, false);
            }
        }
    }
}
