//! A viewer's pipeline: `appsrc ! rtph264pay ! capssetter ! webrtcbin`, and what it tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_sdp as gst_sdp;
use gstreamer_video as gst_video;
use gstreamer_webrtc as gst_webrtc;

use gst::glib;
use gst::prelude::*;

use super::offer::Offer;
use super::viewer::Event;
use crate::config::WebRtcConfig;
use crate::gst::{GstError, bus_error, make, package_of, state_error};
use crate::publish::fanout::{AppSrcTaker, Fanout};

/// Access units that may wait for a viewer: half a second of 30 a second. What waits is delay; a viewer that was held up
/// goes on with a keyframe instead.
const WAITING: u64 = 15;

/// The least time between two keyframes that one viewer is given for its losses: one with a bad line must not spend the
/// others' bits.
const KEYFRAME_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an RTP packet, so that one fits through tunnels and relays with all that is put around it.
const MTU: u32 = 1200;

/// When the viewer last sent something.
pub(super) struct Heard {
    start: Instant,
    /// Milliseconds after the start.
    at: AtomicU64,
}

impl Heard {
    pub fn new() -> Self {
        Heard { start: Instant::now(), at: AtomicU64::new(0) }
    }

    pub fn note(&self) {
        self.at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn ago(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }
}

/// The pipeline; stopped when it is dropped.
pub(super) struct Peer {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    webrtc: gst::Element,
}

impl Peer {
    /// Builds the pipeline and hands it the offer; the rest comes as events.
    pub fn start(
        offer: &Offer,
        settings: &WebRtcConfig,
        fanout: &Weak<Fanout>,
        events: &Sender<Event>,
        heard: &Arc<Heard>,
    ) -> Result<Self, GstError> {
        crate::gst::init()?;
        // Without these webrtcbin is there, and fails later with no reason.
        for needed in ["nicesink", "dtlssrtpenc", "srtpenc", "rtpbin"] {
            if !crate::gst::has(needed) {
                let package = package_of(needed);
                return Err(GstError::new(format!("the GStreamer element {needed} is missing (install {package})")));
            }
        }
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
        // The payloader tells the parameter sets in its caps, which change when a camera changes its size. To webrtcbin that
        // would be something to negotiate anew; the pictures carry it anyway.
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("clock-rate", 90_000_i32)
            .field("encoding-name", "H264")
            .field("payload", i32::from(offer.payload))
            .build();
        let steady = make("capssetter")?;
        let mut with_ssrc = caps.clone();
        with_ssrc.make_mut().set("ssrc", ssrc);
        steady.set_property("caps", &with_ssrc);
        steady.set_property("join", false);
        steady.set_property("replace", true);
        let webrtc = make("webrtcbin")?;
        configure(&webrtc, settings);
        pipeline
            .add_many([source.upcast_ref(), &payloader, &steady, &webrtc])
            .and_then(|()| gst::Element::link_many([source.upcast_ref(), &payloader, &steady]))
            .map_err(|error| GstError::new(format!("GStreamer: {}", error.message)))?;
        let (Some(pad), Some(last)) = (webrtc.request_pad_simple("sink_0"), steady.static_pad("src")) else {
            return Err(GstError::new("webrtcbin takes no video"));
        };
        let transceiver = pad.property::<gst_webrtc::WebRTCRTPTransceiver>("transceiver");
        transceiver.set_property("direction", gst_webrtc::WebRTCRTPTransceiverDirection::Sendonly);
        transceiver.set_property("codec-preferences", &caps);
        // Lost packets are sent again when the viewer asks for them.
        transceiver.set_property("do-nack", true);
        last.link(&pad).map_err(|error| GstError::new(format!("webrtcbin takes no RTP: {error}")))?;
        pass_keyframe_requests(&source, fanout);
        listen(&webrtc, events, heard);
        let peer = Peer { pipeline, bus, source, webrtc };
        peer.pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&peer.pipeline, "webrtcbin does not start"))?;
        peer.take_offer(offer, events)?;
        Ok(peer)
    }

    fn take_offer(&self, offer: &Offer, events: &Sender<Event>) -> Result<(), GstError> {
        let message = gst_sdp::SDPMessage::parse_buffer(offer.text.as_bytes())
            .map_err(|_| GstError::new("GStreamer cannot read the offer"))?;
        let description = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Offer, message);
        let events = events.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let _ = events.try_send(Event::Offered(outcome(reply).map(|_| ())));
        });
        self.webrtc.emit_by_name::<()>("set-remote-description", &[&description, &promise]);
        Ok(())
    }

    pub fn create_answer(&self, events: &Sender<Event>) {
        let events = events.clone();
        let promise = gst::Promise::with_change_func(move |reply| {
            let answer = outcome(reply).and_then(|reply| {
                let reply = reply.ok_or("webrtcbin gives none")?;
                reply.get::<gst_webrtc::WebRTCSessionDescription>("answer").map_err(|error| error.to_string())
            });
            let _ = events.try_send(Event::Answered(answer));
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
    pub fn taker(&self, fanout: &Fanout) -> AppSrcTaker {
        AppSrcTaker::new(self.source.clone(), WAITING, true, fanout.lost_counter())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            crate::repeats::warn("", "publish", "a WebRTC viewer's pipeline did not stop");
        }
    }
}

/// A promise's reply, or webrtcbin's reason.
fn outcome(reply: Result<Option<&gst::StructureRef>, gst::PromiseError>) -> Result<Option<&gst::StructureRef>, String> {
    let reply = reply.map_err(|error| format!("{error:?}"))?;
    match reply.and_then(|reply| reply.get::<glib::Error>("error").ok()) {
        Some(error) => Err(error.message().to_owned()),
        None => Ok(reply),
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

/// Keyframes that the viewer asks for (PLI, FIR) are asked of the stream's encoder.
fn pass_keyframe_requests(source: &gst_app::AppSrc, fanout: &Weak<Fanout>) {
    let Some(pad) = source.static_pad("src") else { return };
    let fanout = Weak::clone(fanout);
    let asked = Mutex::new(None::<Instant>);
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let wants_keyframe =
            info.event().is_some_and(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok());
        if wants_keyframe && let Some(fanout) = fanout.upgrade() {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_none_or(|at| at.elapsed() >= KEYFRAME_PAUSE) {
                *asked = Some(Instant::now());
                fanout.request_keyframe();
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Turns what webrtcbin tells into events.
fn listen(webrtc: &gst::Element, events: &Sender<Event>, heard: &Arc<Heard>) {
    let told = events.clone();
    webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state");
        if state == gst_webrtc::WebRTCICEGatheringState::Complete {
            let _ = told.try_send(Event::Gathered);
        }
    });
    let told = events.clone();
    webrtc.connect_notify(Some("ice-connection-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEConnectionState>("ice-connection-state");
        if state == gst_webrtc::WebRTCICEConnectionState::Failed {
            let _ = told.try_send(Event::Ended("the network between us has failed (ICE)"));
        }
    });
    let told = events.clone();
    webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
        use gst_webrtc::WebRTCPeerConnectionState::{Closed, Connected, Failed};
        let event = match webrtc.property::<gst_webrtc::WebRTCPeerConnectionState>("connection-state") {
            Connected => Event::Connected,
            Failed => Event::Ended("the connection has failed"),
            Closed => Event::Ended("it has closed the connection"),
            _ => return,
        };
        let _ = told.try_send(event);
    });
    let Some(bin) = webrtc.downcast_ref::<gst::Bin>() else { return };
    let heard = Arc::clone(heard);
    bin.connect_deep_element_added(move |_, _, element| {
        let is_nice = element.factory().is_some_and(|factory| factory.name() == "nicesrc");
        if let Some(pad) = element.static_pad("src").filter(|_| is_nice) {
            let heard = Arc::clone(&heard);
            pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
                heard.note();
                gst::PadProbeReturn::Ok
            });
        }
    });
}
