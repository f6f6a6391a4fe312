//! One viewer: a pipeline of its own, from the offer to the teardown, on a thread that does nothing else. Whatever hangs
//! in it hangs alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use gstreamer as gst;
use tokio::sync::oneshot;

use super::WhepRefusal;
use super::event::ViewerEvent;
use super::offer::Offer;
use super::peer::WebRtcPeer;
use crate::config::WebRtcConfig;
use crate::publish::fanout::{AppSrcSink, Fanout, PacketSink, PacketSinkId, PushResult};
use crate::publish::webrtc::LastActivity;

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

/// Somebody who wants to watch.
pub(super) struct ViewerSession {
    pub stream: Arc<str>,
    /// Its owner is the stream: when it is gone, so is the stream.
    pub fanout: Weak<Fanout>,
    pub offer: Offer,
    /// Of the pictures (`level_idc`), where it is known.
    pub level: Option<u8>,
    pub events: Sender<ViewerEvent>,
    pub inbox: Receiver<ViewerEvent>,
    /// Asked to leave.
    pub leave: Arc<AtomicBool>,
    pub answer: oneshot::Sender<Result<String, WhepRefusal>>,
}

impl ViewerSession {
    /// Answers, sends pictures, and returns when the viewer has left and everything of it is given back.
    pub(super) fn watch(self, settings: &WebRtcConfig) {
        let ViewerSession { stream, fanout, offer, level, events, inbox, leave, answer } = self;
        let last_activity = Arc::new(LastActivity::new());
        let peer = WebRtcPeer::start(&offer, settings, &fanout, &events, &last_activity);
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                crate::base::log_dedup::error(&stream, "publish", None, &format!("no WebRTC: {error}"));
                // Whoever asked may have left.
                let _ = answer.send(Err(WhepRefusal::Failed(error.message)));
                return;
            }
        };
        let mut call = ActiveViewer {
            peer,
            stream,
            fanout,
            offer,
            level,
            settings,
            events,
            leave,
            answer: Some(answer),
            last_activity,
            began: Instant::now(),
            gather_until: None,
            seat: None,
        };
        let why = call.attend(&inbox);
        tracing::debug!(stream = &*call.stream, "a WebRTC viewer leaves: {why}");
        call.answer(Err(WhepRefusal::Failed(why)));
    }
}

/// A viewer being served.
struct ActiveViewer<'a> {
    peer: WebRtcPeer,
    stream: Arc<str>,
    fanout: Weak<Fanout>,
    offer: Offer,
    level: Option<u8>,
    settings: &'a WebRtcConfig,
    events: Sender<ViewerEvent>,
    leave: Arc<AtomicBool>,
    /// Until it is answered.
    answer: Option<oneshot::Sender<Result<String, WhepRefusal>>>,
    last_activity: Arc<LastActivity>,
    began: Instant,
    gather_until: Option<Instant>,
    /// Among the stream's packet_sinks, once connected.
    seat: Option<PacketSinkId>,
}

impl ActiveViewer<'_> {
    /// Does what is to do until it is over; says why it is.
    fn attend(&mut self, inbox: &Receiver<ViewerEvent>) -> String {
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

    fn handle(&mut self, event: ViewerEvent) -> Option<String> {
        match event {
            ViewerEvent::Offered(Ok(())) => self.peer.create_answer(&self.events),
            ViewerEvent::Offered(Err(why)) => {
                let why = format!("the offer is not taken: {why}");
                // What is wrong is the viewer's, not ours.
                self.answer(Err(WhepRefusal::Unusable(why.clone())));
                return Some(why);
            }
            ViewerEvent::Answered(Ok(description)) => {
                self.gather_until = Some(Instant::now() + GATHERING);
                self.peer.set_answer(&description);
            }
            ViewerEvent::Answered(Err(why)) => return Some(format!("there is no answer to the offer: {why}")),
            ViewerEvent::Gathered => return self.send_answer(),
            ViewerEvent::Candidates(fragment, _place) => {
                for candidate in fragment.candidates {
                    self.peer.add_candidate(&candidate);
                }
            }
            ViewerEvent::Connected => return self.send_pictures(),
            ViewerEvent::Ended(why) => return Some(why.into()),
            ViewerEvent::Look => {}
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
        if let Some(error) = self.peer.error() {
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
        (self.seat.is_some() && self.last_activity.ago() >= SILENCE)
            .then(|| format!("it has sent nothing for {} s", SILENCE.as_secs()))
    }

    fn send_answer(&mut self) -> Option<String> {
        self.answer.as_ref()?;
        self.gather_until = None;
        let text = match self.peer.local_description() {
            Some(text) => self.offer.answer(&text, &self.settings.host_addresses, self.level),
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

    fn answer(&mut self, answer: Result<String, WhepRefusal>) {
        if let Some(sender) = self.answer.take() {
            // Whoever asked may have left, which is seen later.
            let _ = sender.send(answer);
        }
    }

    /// The viewer is there: from now on it is one of the stream's packet_sinks, and begins with a keyframe.
    fn send_pictures(&mut self) -> Option<String> {
        if self.seat.is_some() {
            return None;
        }
        let Some(fanout) = self.fanout.upgrade() else { return Some("the stream is gone".into()) };
        self.last_activity.note();
        let packet_sink = self.peer.packet_sink(&fanout);
        self.seat = Some(fanout.add_webrtc(Box::new(ViewerSink { packet_sink, events: self.events.clone() })));
        tracing::debug!(stream = &*self.stream, "a WebRTC viewer is connected after {:.0?}", self.began.elapsed());
        None
    }
}

impl Drop for ActiveViewer<'_> {
    fn drop(&mut self) {
        if let (Some(seat), Some(fanout)) = (self.seat, self.fanout.upgrade()) {
            fanout.remove(seat);
        }
    }
}

/// The packet_sink in the stream's fan-out. When it goes, there will be no more pictures.
pub(super) struct ViewerSink {
    pub packet_sink: AppSrcSink,
    pub events: Sender<ViewerEvent>,
}

impl PacketSink for ViewerSink {
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> PushResult {
        self.packet_sink.push(sample, keyframe)
    }
}

impl Drop for ViewerSink {
    fn drop(&mut self) {
        // A viewer that is leaving anyway reads it no more.
        let _ = self.events.send(ViewerEvent::Ended("the stream has ended"));
    }
}
