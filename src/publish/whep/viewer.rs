//! One viewer, from the offer to the teardown, on its own thread, so that a call that hangs affects this viewer only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use gstreamer as gst;
use tokio::sync::oneshot;

use super::event::ViewerEvent;
use super::offer::{Offer, OfferError};
use super::peer::WebRtcPeer;
use super::{ViewerError, WhepRefusal};
use crate::config::WebRtcConfig;
use crate::publish::fanout::{AppSrcSink, CountedViewer, Fanout, FrameSinkId};
use crate::publish::frame_sink::{FrameSink, FrameSinkResult};
use crate::publish::webrtc::LastActivity;

/// The name of the kind of output, by which its viewers are counted.
pub(super) const KIND_NAME: &str = "webrtc";

/// How often the timeouts and the shared state are checked.
const TICK: Duration = Duration::from_secs(1);

/// How long candidates are gathered. Those of local addresses are available immediately; a STUN or TURN server may not
/// respond.
const GATHERING_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time from the offer to the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A connected viewer sends receiver reports at least every five seconds. A viewer that has sent nothing for this long
/// is gone, for example because the browser was killed or the laptop sleeps.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// A viewer that was admitted; not started yet.
pub(super) struct ViewerSession {
    pub stream: Arc<str>,
    /// Weak, because the stream owns it: when it is gone, the stream has ended.
    pub fanout: Weak<Fanout>,
    pub offer: Offer,
    /// The H.264 level of the stream (`level_idc`), where it is known.
    pub level: Option<u8>,
    pub events: Sender<ViewerEvent>,
    pub inbox: Receiver<ViewerEvent>,
    /// Set when the viewer must be disconnected.
    pub leave: Arc<AtomicBool>,
    pub answer: oneshot::Sender<Result<String, WhepRefusal>>,
}

impl ViewerSession {
    /// Answers the offer and sends the stream. Returns when the viewer is disconnected and its pipeline has stopped.
    pub(super) fn run(self, settings: &WebRtcConfig) {
        let ViewerSession { stream, fanout, offer, level, events, inbox, leave, answer } = self;
        let last_activity = Arc::new(LastActivity::new());
        let peer = WebRtcPeer::start(&offer, settings, &fanout, &events, &last_activity);
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                let text = format!("cannot start WebRTC for a viewer: {error}");
                crate::base::log_dedup::error(&stream, "publish", None, &text);
                // Fails when the client has closed its request.
                let _ = answer.send(Err(ViewerError::Gst(error).into()));
                return;
            }
        };
        let mut viewer = ActiveViewer {
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
            started_at: Instant::now(),
            gather_until: None,
            sink_id: None,
        };
        let reason = viewer.handle_events(&inbox);
        tracing::debug!(stream = &*viewer.stream, "disconnected a WebRTC viewer: {reason}");
        viewer.answer(Err(reason.into()));
    }
}

/// A viewer whose pipeline runs.
struct ActiveViewer<'a> {
    peer: WebRtcPeer,
    stream: Arc<str>,
    fanout: Weak<Fanout>,
    offer: Offer,
    level: Option<u8>,
    settings: &'a WebRtcConfig,
    events: Sender<ViewerEvent>,
    leave: Arc<AtomicBool>,
    /// `None` after the answer was sent.
    answer: Option<oneshot::Sender<Result<String, WhepRefusal>>>,
    last_activity: Arc<LastActivity>,
    started_at: Instant,
    gather_until: Option<Instant>,
    /// Its frame sink at the fan-out; `None` before the connection.
    sink_id: Option<FrameSinkId>,
}

impl ActiveViewer<'_> {
    /// Handles events until the viewer must be disconnected; returns the reason.
    fn handle_events(&mut self, inbox: &Receiver<ViewerEvent>) -> ViewerError {
        loop {
            let wait = self.gather_until.map_or(TICK, |until| until.saturating_duration_since(Instant::now()));
            let outcome = match inbox.recv_timeout(wait.min(TICK)) {
                Ok(event) => self.handle(event),
                // This thread holds a sender itself, so the channel is never disconnected.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
            };
            if let Err(reason) = outcome.and_then(|()| self.check()) {
                return reason;
            }
        }
    }

    /// # Errors
    /// The reason to disconnect the viewer.
    fn handle(&mut self, event: ViewerEvent) -> Result<(), ViewerError> {
        match event {
            ViewerEvent::Offered(Ok(())) => self.peer.create_answer(&self.events),
            ViewerEvent::Offered(Err(reason)) => {
                // The fault is in the offer of the viewer, not in the server.
                self.answer(Err(OfferError::Rejected(reason.clone()).into()));
                return Err(ViewerError::OfferRejected(reason));
            }
            ViewerEvent::Answered(Ok(description)) => {
                self.gather_until = Some(Instant::now() + GATHERING_TIMEOUT);
                self.peer.set_answer(&description);
            }
            ViewerEvent::Answered(Err(reason)) => return Err(ViewerError::Answer(reason)),
            ViewerEvent::Gathered => return self.send_answer(),
            ViewerEvent::Candidates(fragment, _permit) => {
                for candidate in fragment.candidates {
                    self.peer.add_candidate(&candidate);
                }
            }
            ViewerEvent::Connected => return self.start_video(),
            ViewerEvent::Ended(reason) => return Err(reason),
            ViewerEvent::Wake => {}
        }
        Ok(())
    }

    /// Checks the conditions for which there is no event.
    ///
    /// # Errors
    /// The reason to disconnect the viewer.
    fn check(&mut self) -> Result<(), ViewerError> {
        if self.leave.load(Ordering::Acquire) {
            return Err(ViewerError::Requested);
        }
        if self.fanout.strong_count() == 0 {
            return Err(ViewerError::StreamEnded);
        }
        if let Some(error) = self.peer.error() {
            return Err(error.into());
        }
        if self.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return Err(ViewerError::RequestAborted);
        }
        if self.answer.is_some() && self.gather_until.is_some_and(|until| Instant::now() >= until) {
            return self.send_answer();
        }
        if self.sink_id.is_none() && self.started_at.elapsed() >= CONNECT_TIMEOUT {
            return Err(ViewerError::NotConnected(CONNECT_TIMEOUT.as_secs()));
        }
        if self.sink_id.is_some() && self.last_activity.elapsed() >= SILENCE_TIMEOUT {
            return Err(ViewerError::Silent(SILENCE_TIMEOUT.as_secs()));
        }
        Ok(())
    }

    fn send_answer(&mut self) -> Result<(), ViewerError> {
        if self.answer.is_none() {
            return Ok(());
        }
        self.gather_until = None;
        let text = self.peer.local_description().ok_or(ViewerError::NoAnswer)?;
        let text = self.offer.answer(&text, &self.settings.host_addresses, self.level);
        let text = text.map_err(|error| ViewerError::Answer(error.to_string()))?;
        if !text.contains("a=candidate:") {
            return Err(ViewerError::NoCandidates);
        }
        self.answer(Ok(text));
        Ok(())
    }

    fn answer(&mut self, answer: Result<String, WhepRefusal>) {
        if let Some(sender) = self.answer.take() {
            // Fails when the client has closed its request; `check` detects that.
            let _ = sender.send(answer);
        }
    }

    /// Adds the connected viewer to the frame sinks of the stream. It starts with a keyframe.
    fn start_video(&mut self) -> Result<(), ViewerError> {
        if self.sink_id.is_some() {
            return Ok(());
        }
        let fanout = self.fanout.upgrade().ok_or(ViewerError::StreamEnded)?;
        self.last_activity.update();
        let frame_sink = self.peer.frame_sink(&fanout);
        let (events, counted) = (self.events.clone(), fanout.count_viewer(KIND_NAME));
        self.sink_id = Some(fanout.add(Box::new(ViewerSink { frame_sink, events, _counted: counted })));
        tracing::debug!(stream = &*self.stream, "connected a WebRTC viewer after {:.0?}", self.started_at.elapsed());
        Ok(())
    }
}

impl Drop for ActiveViewer<'_> {
    fn drop(&mut self) {
        if let (Some(sink_id), Some(fanout)) = (self.sink_id, self.fanout.upgrade()) {
            fanout.remove(sink_id);
        }
    }
}

/// The frame sink of a viewer. The fan-out drops it when the stream ends.
pub(super) struct ViewerSink {
    pub frame_sink: AppSrcSink,
    pub events: Sender<ViewerEvent>,
    pub _counted: CountedViewer,
}

impl FrameSink for ViewerSink {
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> FrameSinkResult {
        self.frame_sink.push(sample, keyframe)
    }
}

impl Drop for ViewerSink {
    fn drop(&mut self) {
        // Not read when the viewer is already being disconnected.
        let _ = self.events.send(ViewerEvent::Ended(ViewerError::StreamEnded));
    }
}
