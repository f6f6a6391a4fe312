//! Pushes over WHIP (RFC 9725): `appsrc ! h264parse ! rtph264pay ! webrtcbin` creates an offer, the offer is posted to
//! the server, and the server's answer establishes the connection.
//!
//! All candidates are sent with the offer, which every WHIP server supports. STUN and TURN are not used, because a
//! media server has a reachable address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_sdp as gst_sdp;
use gstreamer_webrtc as gst_webrtc;

use base64::Engine as _;
use gst::prelude::*;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use super::error::{PushError, WhipError};
use super::link::{Link, MAX_QUEUED_UNITS, PushConnection};
use crate::base::stop::Stop;
use crate::config::Credentials;
use crate::gst::{GstError, make, state_error};
use crate::publish::encoder::{Level, glib_error};
use crate::publish::fanout::Fanout;
use crate::publish::webrtc::{
    LastActivity, PeerEvent, check_elements, connect_signals, fixed_caps, link_video, make_webrtcbin,
    pass_keyframe_requests, session_description,
};
use crate::publish::whep::candidate::remove_hidden_candidates;

/// How long candidates are gathered; those of local addresses are available immediately.
const GATHERING_TIMEOUT: Duration = Duration::from_secs(3);

/// How long webrtcbin, the server's answer, and the connection may take, each.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the request to end the session may take.
const DELETE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server sends receiver reports at least every five seconds. A connection without any packet for this long has
/// failed.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// The minimum interval between two keyframes that the server requests after packet loss.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// How often the push checks whether it must stop.
const POLL: Duration = Duration::from_millis(100);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// The RTP payload type of H.264 in the offer.
const PAYLOAD: u32 = 96;

/// An event from a GStreamer thread.
enum WhipEvent {
    Offer(Result<gst_webrtc::WebRTCSessionDescription, String>),
    Peer(PeerEvent),
}

/// An established connection.
pub(super) struct WhipConnection {
    events: Receiver<WhipEvent>,
    last_activity: Arc<LastActivity>,
    /// Ends the session at the server when it is dropped.
    _session: WhipSession,
}

/// A connection that is not established yet.
struct Connecting;

impl PushConnection for Connecting {
    fn poll(&mut self, _: Option<&gst::Message>) -> Result<bool, PushError> {
        Ok(false)
    }
}

impl PushConnection for WhipConnection {
    fn poll(&mut self, _: Option<&gst::Message>) -> Result<bool, PushError> {
        for event in self.events.try_iter() {
            if let WhipEvent::Peer(PeerEvent::Ended(reason)) = event {
                return Err(WhipError::Ended(reason).into());
            }
        }
        if self.last_activity.elapsed() > SILENCE_TIMEOUT {
            return Err(WhipError::Silent(SILENCE_TIMEOUT.as_secs()).into());
        }
        Ok(true)
    }
}

/// Offers the stream with this H.264 level, and connects. `None` when the push must stop.
///
/// # Errors
/// When an element is missing, or the server refuses, does not answer, or cannot be reached over UDP.
pub(super) fn connect(
    url: &Url,
    credentials: Option<&Credentials>,
    fanout: &Arc<Fanout>,
    level: Level,
    stop: &Stop,
) -> Result<Option<Link>, WhipError> {
    let (sender, events) = unbounded();
    let last_activity = Arc::new(LastActivity::new());
    let (mut link, webrtc) = build(fanout, level, &sender, &last_activity)?;
    let pipeline = &link.pipeline;
    pipeline.set_state(gst::State::Playing).map_err(|_| state_error(pipeline, "webrtcbin does not start"))?;
    create_offer(&webrtc, &sender);
    let wait = |timeout: Duration| wait(&events, timeout, stop);
    let offer = loop {
        match wait(STEP_TIMEOUT)? {
            Waited::Stopped => return Ok(None),
            Waited::Event(WhipEvent::Offer(offer)) => break offer.map_err(WhipError::Offer)?,
            Waited::Event(_) => {}
            Waited::TimedOut => return Err(WhipError::OfferTimeout),
        }
    };
    webrtc.emit_by_name::<()>("set-local-description", &[&offer, &None::<gst::Promise>]);
    loop {
        match wait(GATHERING_TIMEOUT)? {
            Waited::Stopped => return Ok(None),
            Waited::Event(WhipEvent::Peer(PeerEvent::Gathered)) | Waited::TimedOut => break,
            Waited::Event(_) => {}
        }
    }
    let offer = webrtc
        .property::<Option<gst_webrtc::WebRTCSessionDescription>>("local-description")
        .and_then(|description| description.sdp().as_text().ok())
        .ok_or(WhipError::NoLocalDescription)?;
    let (answer, session) = WhipSession::open(url, credentials, &offer)?;
    let answer = gst_sdp::SDPMessage::parse_buffer(remove_hidden_candidates(&answer).as_bytes())
        .map_err(|_| WhipError::AnswerNotSdp)?;
    let answer = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Answer, answer);
    webrtc.emit_by_name::<()>("set-remote-description", &[&answer, &None::<gst::Promise>]);
    let until = Instant::now() + STEP_TIMEOUT;
    loop {
        match wait(until.saturating_duration_since(Instant::now()))? {
            Waited::Stopped => return Ok(None),
            Waited::Event(WhipEvent::Peer(PeerEvent::Connected)) => break,
            Waited::Event(WhipEvent::Peer(PeerEvent::Ended(reason))) => return Err(WhipError::Ended(reason)),
            Waited::Event(_) => {}
            Waited::TimedOut => return Err(WhipError::Unreachable),
        }
    }
    last_activity.update();
    link.connection = Box::new(WhipConnection { events, last_activity, _session: session });
    Ok(Some(link))
}

enum Waited {
    Event(WhipEvent),
    Stopped,
    TimedOut,
}

fn wait(events: &Receiver<WhipEvent>, timeout: Duration, stop: &Stop) -> Result<Waited, WhipError> {
    let until = Instant::now() + timeout;
    loop {
        if stop.is_raised() {
            return Ok(Waited::Stopped);
        }
        match events.recv_timeout(POLL.min(until.saturating_duration_since(Instant::now()))) {
            Ok(event) => return Ok(Waited::Event(event)),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Ok(Waited::TimedOut),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(WhipError::WebrtcbinEnded),
        }
    }
}

/// Builds the pipeline, which is not started, and returns it with its webrtcbin.
fn build(
    fanout: &Arc<Fanout>,
    level: Level,
    sender: &Sender<WhipEvent>,
    last_activity: &Arc<LastActivity>,
) -> Result<(Link, gst::Element), GstError> {
    check_elements()?;
    let (pipeline, bus) = crate::gst::pipeline()?;
    let source = gst_app::AppSrc::builder()
        .format(gst::Format::Time)
        .is_live(true)
        .max_buffers(MAX_QUEUED_UNITS)
        .max_bytes(0)
        .build();
    let parse = make("h264parse")?;
    let payloader = make("rtph264pay")?;
    payloader.set_property("pt", PAYLOAD);
    payloader.set_property("config-interval", -1_i32);
    payloader.set_property_from_str("aggregate-mode", "zero-latency");
    let ssrc = fastrand::u32(1..);
    payloader.set_property("ssrc", ssrc);
    let caps = gst::Caps::builder("application/x-rtp")
        .field("media", "video")
        .field("clock-rate", 90_000_i32)
        .field("encoding-name", "H264")
        .field("payload", PAYLOAD as i32)
        .field("packetization-mode", "1")
        .field("profile-level-id", format!("42e0{:02x}", level.idc))
        .field("level-asymmetry-allowed", "1")
        .build();
    let fixed_caps = fixed_caps(&caps, ssrc)?;
    let webrtc = make_webrtcbin()?;
    webrtc.set_property_from_str("bundle-policy", "max-bundle");
    webrtc.set_property("latency", 0_u32);
    let elements = [source.upcast_ref(), &parse, &payloader, &fixed_caps];
    pipeline.add_many(elements).and_then(|()| pipeline.add(&webrtc)).map_err(glib_error)?;
    gst::Element::link_many(elements).map_err(glib_error)?;
    link_video(&webrtc, &fixed_caps, &caps)?;
    pass_keyframe_requests(&source, &Arc::downgrade(fanout), KEYFRAME_INTERVAL);
    let sender = sender.clone();
    // Sending fails after the connection has ended, which does not matter.
    connect_signals(&webrtc, last_activity, move |event| drop(sender.send(WhipEvent::Peer(event))));
    Ok((Link { pipeline, bus, source, connection: Box::new(Connecting) }, webrtc))
}

fn create_offer(webrtc: &gst::Element, sender: &Sender<WhipEvent>) {
    let sender = sender.clone();
    let promise = gst::Promise::with_change_func(move |reply| {
        let _ = sender.send(WhipEvent::Offer(session_description(reply, "offer")));
    });
    webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
}

/// The session at the server; deleted when it is dropped (RFC 9725, section 4.2).
struct WhipSession {
    /// From the `Location` header; not every server sends it.
    url: Option<Url>,
    authorization: Option<String>,
}

impl WhipSession {
    /// Posts the offer; returns the answer and the session.
    fn open(url: &Url, credentials: Option<&Credentials>, offer: &str) -> Result<(String, WhipSession), WhipError> {
        let authorization = credentials.map(authorization);
        let mut request = agent(STEP_TIMEOUT).post(url.as_str()).content_type("application/sdp");
        if let Some(authorization) = &authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.send(offer).map_err(WhipError::Request)?;
        match response.status().as_u16() {
            201 => {}
            401 | 403 => return Err(WhipError::Unauthorized),
            404 => return Err(WhipError::NoEndpoint),
            status => return Err(WhipError::Status(status)),
        }
        let location = response.headers().get("location").and_then(|location| location.to_str().ok());
        let session = WhipSession { url: location.and_then(|location| url.join(location).ok()), authorization };
        let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        answer.map(|answer| (answer, session)).map_err(WhipError::AnswerIncomplete)
    }
}

impl Drop for WhipSession {
    fn drop(&mut self) {
        let Some(url) = &self.url else { return };
        let mut request = agent(DELETE_TIMEOUT).delete(url.as_str());
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        // A failure is harmless: the server ends sessions that send nothing.
        if let Err(error) = request.call() {
            tracing::debug!(stage = "push", "cannot end the WHIP session at the server: {error}");
        }
    }
}

/// The `Authorization` header: basic for user and password, bearer for a password without a user.
fn authorization(credentials: &Credentials) -> String {
    let Credentials { user, password } = credentials;
    if user.is_empty() {
        return format!("Bearer {}", password.expose());
    }
    let plain = format!("{user}:{}", password.expose());
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
}

/// An HTTP client that trusts the certificates of the system and follows no redirects, so that the credentials are sent
/// to the configured server only.
fn agent(timeout: Duration) -> ureq::Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("maskcast/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::publish::webrtc::PeerEndReason;

    #[test]
    fn a_password_without_a_user_is_a_bearer_token() {
        let credentials = |user: &str| Credentials { user: user.into(), password: Secret::new("pass:word") };
        assert_eq!(authorization(&credentials("")), "Bearer pass:word");
        assert_eq!(authorization(&credentials("cam")), "Basic Y2FtOnBhc3M6d29yZA==");
    }

    /// Also after many packets between two polls.
    #[test]
    fn the_end_of_a_connection_is_reported_after_many_packets() {
        let (sender, events) = unbounded();
        let last_activity = Arc::new(LastActivity::new());
        let session = WhipSession { url: None, authorization: None };
        let mut connection = WhipConnection { events, last_activity: Arc::clone(&last_activity), _session: session };
        for _ in 0..1000 {
            last_activity.update();
        }
        assert!(matches!(connection.poll(None), Ok(true)));
        sender.send(WhipEvent::Peer(PeerEvent::Ended(PeerEndReason::Closed))).unwrap();
        let ended = connection.poll(None);
        assert!(matches!(ended, Err(PushError::Whip(WhipError::Ended(PeerEndReason::Closed)))), "{ended:?}");
    }
}
