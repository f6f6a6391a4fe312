//! By WHIP (RFC 9725): `appsrc ! h264parse ! rtph264pay ! webrtcbin` offers the stream, the offer is posted to the server,
//! and what it answers makes the connection.
//!
//! Candidates are sent with the offer, as every WHIP server takes them; STUN and TURN are for the server to offer where
//! it needs them, and are not used from here: a media server is reached at an address of its own.

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

use super::link::{Link, PushConnection, WAITING};
use crate::base::stop::Stop;
use crate::config::Credentials;
use crate::gst::{make, state_error};
use crate::publish::OutputError;
use crate::publish::encoder::{Level, glib_error};
use crate::publish::fanout::Fanout;
use crate::publish::webrtc::{
    LastActivity, PeerEvent, check_elements, description, fixed_caps, listen, pass_keyframe_requests, send,
};
use crate::publish::whep::candidate::plain;

/// How long candidates are gathered; those of this machine's own addresses are there at once.
const GATHERING: Duration = Duration::from_secs(3);

/// How long webrtcbin, the server's answer, and the connection may take, each.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the server may take to hear that the stream ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// A server sends receiver reports at least every five seconds. One that has sent nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// The least time between two keyframes that the server is given for its losses.
const KEYFRAME_PAUSE: Duration = Duration::from_millis(500);

/// How often the wish to stop is looked for.
const POLL: Duration = Duration::from_millis(100);

/// The most that an answer may have, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

const PAYLOAD: u32 = 96;

/// What GStreamer's threads tell.
enum WhipEvent {
    Offer(Result<gst_webrtc::WebRTCSessionDescription, String>),
    News(PeerEvent),
}

/// A connection that stands.
pub(super) struct WhipConnection {
    events: Receiver<WhipEvent>,
    last_activity: Arc<LastActivity>,
    /// Ended at the server when this is dropped.
    _session: WhipSession,
}

/// A connection that does not stand yet.
struct Connecting;

impl PushConnection for Connecting {
    fn look(&mut self, _: Option<&gst::Message>) -> Result<bool, OutputError> {
        Ok(false)
    }
}

impl PushConnection for WhipConnection {
    /// It stands from the beginning.
    fn look(&mut self, _: Option<&gst::Message>) -> Result<bool, OutputError> {
        for event in self.events.try_iter() {
            if let WhipEvent::News(PeerEvent::Ended(why)) = event {
                return Err(OutputError(why.into()));
            }
        }
        if self.last_activity.ago() > SILENCE {
            return Err(OutputError(format!("it has sent nothing for {} s", SILENCE.as_secs())));
        }
        Ok(true)
    }
}

/// Offers the stream, whose pictures have this level, and connects; `None` when the stop was raised meanwhile.
///
/// # Errors
/// Missing elements, a server that refuses, does not answer, or is not reached by UDP.
pub(super) fn connect(
    url: &Url,
    credentials: Option<&Credentials>,
    fanout: &Arc<Fanout>,
    level: Level,
    stop: &Stop,
) -> Result<Option<Link>, OutputError> {
    let (told, events) = unbounded();
    let last_activity = Arc::new(LastActivity::new());
    let (mut link, webrtc) = build(fanout, level, &told, &last_activity)?;
    let pipeline = &link.pipeline;
    pipeline.set_state(gst::State::Playing).map_err(|_| state_error(pipeline, "webrtcbin does not start"))?;
    create_offer(&webrtc, &told);
    let wait = |patience: Duration| wait(&events, patience, stop);
    let offer = loop {
        match wait(PATIENCE)? {
            Waited::Stopped => return Ok(None),
            Waited::Event(WhipEvent::Offer(offer)) => break offer.map_err(OutputError)?,
            Waited::Event(_) => {}
            Waited::Nothing => return Err(OutputError("webrtcbin makes no offer".into())),
        }
    };
    webrtc.emit_by_name::<()>("set-local-description", &[&offer, &None::<gst::Promise>]);
    loop {
        match wait(GATHERING)? {
            Waited::Stopped => return Ok(None),
            Waited::Event(WhipEvent::News(PeerEvent::Gathered)) | Waited::Nothing => break,
            Waited::Event(_) => {}
        }
    }
    let offer = webrtc
        .property::<Option<gst_webrtc::WebRTCSessionDescription>>("local-description")
        .and_then(|description| description.sdp().as_text().ok())
        .ok_or_else(|| OutputError("webrtcbin has no offer".into()))?;
    let (answer, session) = WhipSession::open(url, credentials, &offer)?;
    let answer = gst_sdp::SDPMessage::parse_buffer(plain(&answer).as_bytes())
        .map_err(|_| OutputError("the server's answer is no session description".into()))?;
    let answer = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Answer, answer);
    webrtc.emit_by_name::<()>("set-remote-description", &[&answer, &None::<gst::Promise>]);
    let until = Instant::now() + PATIENCE;
    loop {
        match wait(until.saturating_duration_since(Instant::now()))? {
            Waited::Stopped => return Ok(None),
            Waited::Event(WhipEvent::News(PeerEvent::Connected)) => break,
            Waited::Event(WhipEvent::News(PeerEvent::Ended(why))) => return Err(OutputError(why.into())),
            Waited::Event(_) => {}
            Waited::Nothing => {
                let problem = "it has answered, and is not reached (does a firewall between us pass UDP?)";
                return Err(OutputError(problem.into()));
            }
        }
    }
    last_activity.note();
    link.connection = Box::new(WhipConnection { events, last_activity, _session: session });
    Ok(Some(link))
}

enum Waited {
    Event(WhipEvent),
    Stopped,
    Nothing,
}

fn wait(events: &Receiver<WhipEvent>, patience: Duration, stop: &Stop) -> Result<Waited, OutputError> {
    let until = Instant::now() + patience;
    loop {
        if stop.is_raised() {
            return Ok(Waited::Stopped);
        }
        match events.recv_timeout(POLL.min(until.saturating_duration_since(Instant::now()))) {
            Ok(event) => return Ok(Waited::Event(event)),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Ok(Waited::Nothing),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(OutputError("webrtcbin has ended".into())),
        }
    }
}

/// The pipeline, not yet playing, and its webrtcbin.
fn build(
    fanout: &Arc<Fanout>,
    level: Level,
    told: &Sender<WhipEvent>,
    last_activity: &Arc<LastActivity>,
) -> Result<(Link, gst::Element), OutputError> {
    check_elements()?;
    let (pipeline, bus) = crate::gst::pipeline()?;
    let source =
        gst_app::AppSrc::builder().format(gst::Format::Time).is_live(true).max_buffers(WAITING).max_bytes(0).build();
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
    let webrtc = make("webrtcbin")?;
    webrtc.set_property_from_str("bundle-policy", "max-bundle");
    webrtc.set_property("latency", 0_u32);
    let elements = [source.upcast_ref(), &parse, &payloader, &fixed_caps];
    pipeline.add_many(elements).and_then(|()| pipeline.add(&webrtc)).map_err(glib_error)?;
    gst::Element::link_many(elements).map_err(glib_error)?;
    send(&webrtc, &fixed_caps, &caps)?;
    pass_keyframe_requests(&source, &Arc::downgrade(fanout), KEYFRAME_PAUSE);
    let told = told.clone();
    // The receiver is dropped once the connection is over.
    listen(&webrtc, last_activity, move |news| drop(told.send(WhipEvent::News(news))));
    Ok((Link { pipeline, bus, source, connection: Box::new(Connecting) }, webrtc))
}

fn create_offer(webrtc: &gst::Element, told: &Sender<WhipEvent>) {
    let told = told.clone();
    let promise = gst::Promise::with_change_func(move |reply| {
        let _ = told.send(WhipEvent::Offer(description(reply, "offer")));
    });
    webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
}

/// What the server keeps for us; given back when dropped.
struct WhipSession {
    /// Where it is; not every server tells.
    url: Option<Url>,
    authorization: Option<String>,
}

impl WhipSession {
    /// Posts the offer; gives the answer.
    fn open(url: &Url, credentials: Option<&Credentials>, offer: &str) -> Result<(String, WhipSession), OutputError> {
        let authorization = credentials.map(authorization);
        let mut request = agent(PATIENCE).post(url.as_str()).content_type("application/sdp");
        if let Some(authorization) = &authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response =
            request.send(offer).map_err(|error| OutputError(format!("it cannot be asked by HTTP: {error}")))?;
        match response.status().as_u16() {
            201 => {}
            401 | 403 => {
                let problem = "user, password or token is refused (set user, and password_file or password_env)";
                return Err(OutputError(problem.into()));
            }
            404 => return Err(OutputError("there is no WHIP endpoint at this address (HTTP 404)".into())),
            status => return Err(OutputError(format!("it refuses the stream: HTTP {status}"))),
        }
        let location = response.headers().get("location").and_then(|location| location.to_str().ok());
        let session = WhipSession { url: location.and_then(|location| url.join(location).ok()), authorization };
        let answer = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        answer.map(|answer| (answer, session)).map_err(|error| OutputError(format!("its answer breaks off: {error}")))
    }
}

impl Drop for WhipSession {
    fn drop(&mut self) {
        let Some(url) = &self.url else { return };
        let mut request = agent(GOODBYE).delete(url.as_str());
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        // A server that is gone has forgotten us anyway.
        if let Err(error) = request.call() {
            tracing::debug!(stage = "push", "the server does not hear our goodbye: {error}");
        }
    }
}

/// User and password, or a password alone, which is a token.
fn authorization(credentials: &Credentials) -> String {
    let Credentials { user, password } = credentials;
    if user.is_empty() {
        return format!("Bearer {}", password.expose());
    }
    let plain = format!("{user}:{}", password.expose());
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
}

/// Trusts whom this system trusts, and follows no redirection: what we know is for this server.
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

    #[test]
    fn a_password_alone_is_a_token() {
        let credentials = |user: &str| Credentials { user: user.into(), password: Secret::new("pass:word") };
        assert_eq!(authorization(&credentials("")), "Bearer pass:word");
        assert_eq!(authorization(&credentials("cam")), "Basic Y2FtOnBhc3M6d29yZA==");
    }

    /// However many packets have come before it is looked at.
    #[test]
    fn the_end_of_a_connection_is_not_lost_among_signs_of_life() {
        let (told, events) = unbounded();
        let last_activity = Arc::new(LastActivity::new());
        let session = WhipSession { url: None, authorization: None };
        let mut call = WhipConnection { events, last_activity: Arc::clone(&last_activity), _session: session };
        for _ in 0..1000 {
            last_activity.note();
        }
        assert_eq!(call.look(None), Ok(true));
        told.send(WhipEvent::News(PeerEvent::Ended("it has closed the connection"))).unwrap();
        assert_eq!(call.look(None), Err(OutputError("it has closed the connection".into())));
    }
}
