//! One viewer: a pipeline of its own, from the offer to the teardown, on a thread that does nothing else. Whatever hangs
//! in it hangs alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_sdp as gst_sdp;
use gstreamer_video as gst_video;
use gstreamer_webrtc as gst_webrtc;
use tokio::sync::oneshot;

use gst::glib;
use gst::prelude::*;

use super::Refusal;
use super::offer::Offer;
use super::trickle::Fragment;
use crate::config::WebRtcConfig;
use crate::gst::{GstError, bus_error, make, package_of, state_error};
use crate::publish::fanout::{AppSrcTaker, Fanout, Taken, Taker, TakerId};

/// Access units that may wait for a viewer: half a second of 30 a second. What waits is delay; a viewer that was held up
/// goes on with a keyframe instead.
const WAITING: u64 = 15;

/// How often a viewer is looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// How long candidates are gathered. Those of this machine's own addresses are there at once; a STUN or TURN server that
/// does not answer is not waited for longer.
const GATHERING: Duration = Duration::from_secs(3);

/// From the offer to the connection.
const CONNECTING: Duration = Duration::from_secs(15);

/// A viewer that is connected sends receiver reports, at least every five seconds. One that has sent nothing for this long
/// is gone without a word: a killed browser, a laptop that sleeps.
const SILENCE: Duration = Duration::from_secs(20);

/// The least time between two keyframes that one viewer is given for its losses: one with a bad line must not spend the
/// others' bits.
const KEYFRAME_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an RTP packet, so that one fits through tunnels and relays with all that is put around it.
const MTU: u32 = 1200;

/// What happens to a viewer, told by GStreamer's threads and by HTTP.
pub(super) enum Event {
    /// The offer was taken, or why not.
    Offered(Result<(), String>),
    Answered(Result<gst_webrtc::WebRTCSessionDescription, String>),
    /// There will be no more candidates of ours.
    Gathered,
    /// There are more of the viewer's.
    Candidates(Fragment),
    Connected,
    /// Why it is over.
    Ended(&'static str),
    /// Something outside may have changed.
    Look,
}

/// Somebody who wants to watch.
pub(super) struct Viewer {
    pub stream: Arc<str>,
    /// Its owner is the stream: when it is gone, so is the stream.
    pub fanout: Weak<Fanout>,
    pub offer: Offer,
    pub events: Sender<Event>,
    pub inbox: Receiver<Event>,
    /// Asked to leave.
    pub leave: Arc<AtomicBool>,
    pub answer: oneshot::Sender<Result<String, Refusal>>,
}

impl Viewer {
    /// Answers, sends pictures, and returns when the viewer has left and everything of it is given back.
    pub(super) fn watch(self, settings: &WebRtcConfig) {
        let Viewer { stream, fanout, offer, events, inbox, leave, answer } = self;
        let heard = Arc::new(Heard::new());
        let peer = Peer::start(&offer, settings, &fanout, &events, &heard);
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                crate::repeats::error(&stream, "publish", None, &format!("no WebRTC: {error}"));
                // Whoever asked may have left.
                let _ = answer.send(Err(Refusal::Failed(error.message)));
                return;
            }
        };
        let mut call = Call {
            peer,
            stream,
            fanout,
            offer,
            settings,
            events,
            leave,
            answer: Some(answer),
            heard,
            began: Instant::now(),
            gather_until: None,
            seat: None,
        };
        let why = call.attend(&inbox);
        tracing::debug!(stream = &*call.stream, "a WebRTC viewer leaves: {why}");
        call.answer(Err(Refusal::Failed(why)));
    }
}

/// A viewer being served.
struct Call<'a> {
    peer: Peer,
    stream: Arc<str>,
    fanout: Weak<Fanout>,
    offer: Offer,
    settings: &'a WebRtcConfig,
    events: Sender<Event>,
    leave: Arc<AtomicBool>,
    /// Until it is answered.
    answer: Option<oneshot::Sender<Result<String, Refusal>>>,
    heard: Arc<Heard>,
    began: Instant,
    gather_until: Option<Instant>,
    /// Among the stream's takers, once connected.
    seat: Option<TakerId>,
}

impl Call<'_> {
    /// Does what is to do until it is over; says why it is.
    fn attend(&mut self, inbox: &Receiver<Event>) -> String {
        loop {
            let wait = self.gather_until.map_or(TICK, |until| until.saturating_duration_since(Instant::now()));
            let over = match inbox.recv_timeout(wait.min(TICK)) {
                Ok(event) => self.handle(event),
                // We hold a sender ourselves, so that it is the time that has passed.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
            };
            if let Some(why) = over.or_else(|| self.look()) {
                return why;
            }
        }
    }

    fn handle(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Offered(Ok(())) => self.peer.create_answer(&self.events),
            Event::Offered(Err(why)) => return Some(format!("the offer is not taken: {why}")),
            Event::Answered(Ok(description)) => {
                self.gather_until = Some(Instant::now() + GATHERING);
                self.peer.set_answer(&description);
            }
            Event::Answered(Err(why)) => return Some(format!("there is no answer to the offer: {why}")),
            Event::Gathered => return self.send_answer(),
            Event::Candidates(fragment) => {
                for candidate in fragment.candidates {
                    self.peer.webrtc.emit_by_name::<()>("add-ice-candidate", &[&0_u32, &candidate]);
                }
            }
            Event::Connected => return self.send_pictures(),
            Event::Ended(why) => return Some(why.into()),
            Event::Look => {}
        }
        None
    }

    /// What nobody tells.
    fn look(&mut self) -> Option<String> {
        if self.leave.load(Ordering::Acquire) {
            return Some("it was asked to".into());
        }
        if self.fanout.strong_count() == 0 {
            return Some("the stream is gone".into());
        }
        if let Some(error) = bus_error(&self.peer.bus) {
            return Some(error.message);
        }
        if self.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return Some("whoever asked has hung up".into());
        }
        if self.answer.is_some() && self.gather_until.is_some_and(|until| Instant::now() >= until) {
            return self.send_answer();
        }
        if self.seat.is_none() && self.began.elapsed() >= CONNECTING {
            return Some(format!("no connection within {} s", CONNECTING.as_secs()));
        }
        (self.seat.is_some() && self.heard.ago() >= SILENCE)
            .then(|| format!("it has sent nothing for {} s", SILENCE.as_secs()))
    }

    fn send_answer(&mut self) -> Option<String> {
        self.answer.as_ref()?;
        self.gather_until = None;
        let text = match self.peer.local_description() {
            Some(text) => self.offer.answer(&text, &self.settings.host_addresses),
            None => return Some("there is no answer to the offer".into()),
        };
        if !text.contains("a=candidate:") {
            return Some(
                "no candidates: this machine has no network address, or server.webrtc.udp_ports are taken".into(),
            );
        }
        self.answer(Ok(text));
        None
    }

    fn answer(&mut self, answer: Result<String, Refusal>) {
        if let Some(sender) = self.answer.take() {
            // Whoever asked may have left, which is seen later.
            let _ = sender.send(answer);
        }
    }

    /// The viewer is there: from now on it is one of the stream's takers, and begins with a keyframe.
    fn send_pictures(&mut self) -> Option<String> {
        if self.seat.is_some() {
            return None;
        }
        let Some(fanout) = self.fanout.upgrade() else { return Some("the stream is gone".into()) };
        self.heard.note();
        let taker = AppSrcTaker::new(self.peer.source.clone(), WAITING, true, fanout.lost_counter());
        self.seat = Some(fanout.add_webrtc(Box::new(ViewersTaker { taker, events: self.events.clone() })));
        tracing::debug!(stream = &*self.stream, "a WebRTC viewer is connected after {:.0?}", self.began.elapsed());
        None
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let (Some(seat), Some(fanout)) = (self.seat, self.fanout.upgrade()) {
            fanout.remove(seat);
        }
    }
}

/// The taker in the stream's fan-out. When it goes, there will be no more pictures.
struct ViewersTaker {
    taker: AppSrcTaker,
    events: Sender<Event>,
}

impl Taker for ViewersTaker {
    fn take(&mut self, sample: &gst::Sample, keyframe: bool) -> Taken {
        self.taker.take(sample, keyframe)
    }
}

impl Drop for ViewersTaker {
    fn drop(&mut self) {
        // A viewer that is leaving anyway reads it no more.
        let _ = self.events.try_send(Event::Ended("the stream has ended"));
    }
}

/// When the viewer last sent something.
struct Heard {
    start: Instant,
    /// Milliseconds after the start.
    at: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Heard { start: Instant::now(), at: AtomicU64::new(0) }
    }

    fn note(&self) {
        self.at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn ago(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)))
    }
}

/// `appsrc ! rtph264pay ! capssetter ! webrtcbin`
struct Peer {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    webrtc: gst::Element,
}

impl Peer {
    /// Builds the pipeline and hands it the offer; the rest comes as events.
    fn start(
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

    fn create_answer(&self, events: &Sender<Event>) {
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
    fn set_answer(&self, answer: &gst_webrtc::WebRTCSessionDescription) {
        self.webrtc.emit_by_name::<()>("set-local-description", &[answer, &None::<gst::Promise>]);
    }

    /// The answer with the candidates that are known by now.
    fn local_description(&self) -> Option<String> {
        let description = self.webrtc.property::<Option<gst_webrtc::WebRTCSessionDescription>>("local-description")?;
        description.sdp().as_text().ok()
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
