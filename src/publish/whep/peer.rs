//! A viewer's pipeline: `appsrc ! rtph264pay ! capssetter ! webrtcbin`, and what it tells of itself.

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
    LastActivity, PeerEvent, check_elements, description, fixed_caps, listen, outcome, pass_keyframe_requests, send,
};

/// Access units that may wait for a viewer: half a second of 30 a second. What waits is delay; a viewer that was held up
/// goes on with a keyframe instead.
const WAITING: u64 = 15;

/// The least time between two keyframes that one viewer is given for its losses: one with a bad line must not spend the
/// others' bits.
const KEYFRAME_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an RTP packet, so that one fits through tunnels and relays with all that is put around it.
const MTU: u32 = 1200;

/// The pipeline; stopped when it is dropped.
pub(super) struct WebRtcPeer {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    webrtc: gst::Element,
}

impl WebRtcPeer {
    /// Builds the pipeline and hands it the offer; the rest comes as events.
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
            .max_buffers(WAITING)
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
        let webrtc = make("webrtcbin")?;
        configure(&webrtc, settings);
        pipeline
            .add_many([source.upcast_ref(), &payloader, &fixed_caps, &webrtc])
            .and_then(|()| gst::Element::link_many([source.upcast_ref(), &payloader, &fixed_caps]))
            .map_err(|error| GstError::new(format!("GStreamer: {}", error.message)))?;
        send(&webrtc, &fixed_caps, &caps)?;
        pass_keyframe_requests(&source, fanout, KEYFRAME_PAUSE);
        let told = events.clone();
        listen(&webrtc, last_activity, move |news| {
            // A viewer that has left reads nothing any more.
            let _ = told.send(match news {
                PeerEvent::Gathered => ViewerEvent::Gathered,
                PeerEvent::Connected => ViewerEvent::Connected,
                PeerEvent::Ended(why) => ViewerEvent::Ended(why),
            });
        });
        let peer = WebRtcPeer { pipeline, bus, source, webrtc };
        peer.pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&peer.pipeline, "webrtcbin does not start"))?;
        peer.take_offer(offer, events)?;
        Ok(peer)
    }

    fn take_offer(&self, offer: &Offer, events: &Sender<ViewerEvent>) -> Result<(), GstError> {
        let message = gst_sdp::SDPMessage::parse_buffer(offer.text.as_bytes())
            .map_err(|_| GstError::new("GStreamer cannot read the offer"))?;
        let description = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Offer, message);
        let events = events.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let _ = events.send(ViewerEvent::Offered(outcome(reply).map(|_| ())));
        });
        self.webrtc.emit_by_name::<()>("set-remote-description", &[&description, &promise]);
        Ok(())
    }

    pub fn create_answer(&self, events: &Sender<ViewerEvent>) {
        let events = events.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let _ = events.send(ViewerEvent::Answered(description(reply, "answer")));
        });
        self.webrtc.emit_by_name::<()>("create-answer", &[&None::<gst::Structure>, &promise]);
    }

    /// Gathering begins with it.
    pub fn set_answer(&self, answer: &gst_webrtc::WebRTCSessionDescription) {
        self.webrtc.emit_by_name::<()>("set-local-description", &[answer, &None::<gst::Promise>]);
    }

    /// The answer with the candidates that are known by now.
    pub fn local_description(&self) -> Option<String> {
        let description = self.webrtc.property::<Option<gst_webrtc::WebRTCSessionDescription>>("local-description")?;
        description.sdp().as_text().ok()
    }

    /// A candidate of the viewer's.
    pub fn add_candidate(&self, candidate: &str) {
        self.webrtc.emit_by_name::<()>("add-ice-candidate", &[&0_u32, &candidate]);
    }

    /// What the pipeline failed of.
    pub fn error(&self) -> Option<GstError> {
        bus_error(&self.bus)
    }

    /// Takes the stream's pictures.
    pub fn packet_sink(&self, fanout: &Fanout) -> AppSrcSink {
        AppSrcSink::new(self.source.clone(), WAITING, true, fanout.lost_counter())
    }
}

impl Drop for WebRtcPeer {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            crate::base::log_dedup::warn("", "publish", "a WebRTC viewer's pipeline did not stop");
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
            tracing::warn!("server.webrtc.turn: GStreamer does not take {turn}");
        }
    }
    let ice = webrtc.property::<gst::Object>("ice-agent");
    if let Some((least, most)) = settings.udp_ports {
        ice.set_property("min-rtp-port", u32::from(least));
        ice.set_property("max-rtp-port", u32::from(most));
    }
    if ice.find_property("agent").is_some() {
        let agent = ice.property::<glib::Object>("agent");
        // TCP would need ports of its own, and asking the router for some is the operator's business.
        for switch in ["ice-tcp", "upnp"] {
            if agent.find_property(switch).is_some() {
                agent.set_property(switch, false);
            }
        }
    }
}
