//! WebRTC viewers by WHEP (draft-ietf-wish-whep): an offer comes by HTTP, an answer goes back, and the stream's one H.264
//! encode is sent over DTLS-SRTP.
//!
//! ```text
//! fan-out ──▶ [appsrc] ─▶ rtph264pay ─▶ webrtcbin (ICE by libnice, DTLS, SRTP, RTCP) ─▶ UDP ─▶ browser
//! ```
//!
//! | file | what it knows |
//! | --- | --- |
//! | `offer` | SDP: what of an offer is answered, and the answer to all of it |
//! | `candidate` | which of a viewer's candidates are looked at |
//! | `trickle` | candidates that come later, by PATCH |
//! | `viewer` | one viewer, from the offer to the teardown, on a thread of its own |
//! | `peer` | its pipeline |
//! | `event` | what happens to a viewer |
//! | `refusal` | why a viewer is refused |
//!
//! It is built on GStreamer's webrtcbin, not on the crate gst-plugin-webrtc (looked at: 0.15.4), whose WHEP server makes
//! promises that a service for months cannot take: its `webrtcsink` wants to have seen a stream's pictures before the first
//! viewer asks (`in_caps.unwrap()` in a task; the request then waits for a timeout), but here nothing is encoded until
//! somebody does; PATCH through its action signal always panics (it takes its fourth argument from the third's
//! place); an offer that cannot be read stays in a map for ever, and a gathering that completes twice, or ends after the
//! request did, hits an `expect` inside a C callback, which ends the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use tokio::sync::oneshot;

use super::encoder::Level;
use super::fanout::Fanout;
use crate::access::Identity;
use crate::base::descriptors;
use crate::config::WebRtcConfig;

pub(super) mod candidate;
mod event;
pub mod offer;
mod peer;
mod refusal;
pub mod trickle;
mod viewer;

pub use refusal::WhepRefusal;

use event::{CandidatePermit, ViewerEvent};
use offer::Offer;
use trickle::Fragment;
use viewer::ViewerSession;

/// Fragments of candidates that may wait for a viewer's thread.
const FRAGMENTS: usize = 64;

/// Somebody who has been let in.
pub struct AdmittedViewer {
    /// Names the viewer; cannot be guessed.
    pub id: String,
    /// Comes as soon as all candidates are gathered, within seconds. Dropped unread, the viewer leaves.
    pub answer: oneshot::Receiver<Result<String, WhepRefusal>>,
}

/// Everybody who watches by WebRTC. Dropping it lets all of them go.
pub struct Whep {
    room: Arc<ViewerRegistry>,
}

struct ViewerRegistry {
    settings: RwLock<Arc<WebRtcConfig>>,
    seats: Mutex<HashMap<String, ViewerSlot>>,
    /// Told when somebody has left.
    left: Condvar,
}

/// What is known of a viewer from outside its thread.
struct ViewerSlot {
    stream: String,
    who: Option<Identity>,
    leave: Arc<AtomicBool>,
    events: Sender<ViewerEvent>,
    /// Fragments that wait.
    fragments: Arc<AtomicUsize>,
}

impl ViewerSlot {
    /// Whether it watches this stream, and is to go on with it.
    fn is_of(&self, stream: &str) -> bool {
        self.stream == stream && !self.leave.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.leave.store(true, Ordering::Release);
        // Only wakes the thread up, if it has not ended.
        let _ = self.events.send(ViewerEvent::Look);
    }
}

impl Whep {
    pub fn new(settings: WebRtcConfig) -> Self {
        let settings = RwLock::new(Arc::new(settings));
        Whep { room: Arc::new(ViewerRegistry { settings, seats: Mutex::default(), left: Condvar::new() }) }
    }

    /// What the next viewer is served by.
    pub fn settings(&self) -> Arc<WebRtcConfig> {
        self.room.settings()
    }

    /// Serves whoever comes from now on by other settings; who is here stays.
    pub fn set(&self, settings: WebRtcConfig) {
        *self.room.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Lets somebody in who sends this offer. `level` is that of the stream's pictures, where it is known; `who` is for
    /// [`Whep::dismiss_unless`].
    ///
    /// # Errors
    /// An offer that cannot be answered, too many viewers, no thread or no WebRTC on this machine.
    pub fn admit(
        &self,
        stream: &str,
        fanout: &Arc<Fanout>,
        offer: &str,
        level: Option<Level>,
        who: Option<Identity>,
    ) -> Result<AdmittedViewer, WhepRefusal> {
        let offer = Offer::read(offer)?;
        if descriptors::are_scarce() {
            return Err(WhepRefusal::Scarce);
        }
        let id = new_id()?;
        let (events, inbox) = unbounded();
        let leave = Arc::new(AtomicBool::new(false));
        let settings = self.room.settings();
        let most = settings.max_viewers;
        let mut seats = self.room.seats();
        if seats.len() >= most {
            return Err(WhepRefusal::Full(most));
        }
        let (leaves, told) = (Arc::clone(&leave), events.clone());
        let seat =
            ViewerSlot { stream: stream.to_owned(), who, leave: leaves, events: told, fragments: Arc::default() };
        seats.insert(id.clone(), seat);
        drop(seats);
        // From here on the seat is given back by whatever happens to this.
        let taken = SlotGuard { room: Arc::clone(&self.room), id: id.clone() };
        let (sender, answer) = oneshot::channel();
        let viewer = ViewerSession {
            stream: stream.into(),
            fanout: Arc::downgrade(fanout),
            offer,
            level: level.map(|level| level.idc),
            events,
            inbox,
            leave,
            answer: sender,
        };
        std::thread::Builder::new()
            .name(format!("whep-{stream}"))
            .spawn(move || {
                let _taken = taken;
                viewer.watch(&settings);
            })
            .map_err(|error| WhepRefusal::Failed(format!("no thread for a viewer: {error}")))?;
        Ok(AdmittedViewer { id, answer })
    }

    /// Hands on candidates that a viewer found after its offer (`application/trickle-ice-sdpfrag`).
    ///
    /// # Errors
    /// Somebody unknown; no such fragment, or one that asks for more than candidates.
    pub fn trickle(&self, stream: &str, id: &str, fragment: &str) -> Result<(), WhepRefusal> {
        let seats = self.room.seats();
        let seat = seats.get(id).filter(|seat| seat.is_of(stream)).ok_or(WhepRefusal::Unknown)?;
        let fragment = Fragment::read(fragment)?;
        let busy = || WhepRefusal::Failed("the viewer is busy with earlier candidates".into());
        let place = CandidatePermit::take(&seat.fragments, FRAGMENTS).ok_or_else(busy)?;
        seat.events.send(ViewerEvent::Candidates(fragment, place)).map_err(|_| WhepRefusal::Unknown)
    }

    /// Lets somebody go who asks for it; the pipeline ends in the background.
    ///
    /// # Errors
    /// Somebody unknown.
    pub fn dismiss(&self, stream: &str, id: &str) -> Result<(), WhepRefusal> {
        let seats = self.room.seats();
        seats.get(id).filter(|seat| seat.is_of(stream)).ok_or(WhepRefusal::Unknown)?.end();
        Ok(())
    }

    /// Asks all to leave who are not to go on.
    pub fn dismiss_unless(&self, may: impl Fn(&Identity) -> bool) {
        self.room.seats().values().filter(|seat| !seat.who.as_ref().is_none_or(&may)).for_each(ViewerSlot::end);
    }

    /// Asks everybody to leave.
    pub fn dismiss_all(&self) {
        self.room.seats().values().for_each(ViewerSlot::end);
    }

    /// Who is here, connected or not yet.
    pub fn viewers(&self) -> usize {
        self.room.seats().len()
    }

    /// Asks everybody to leave and waits until they have, at most so long; says how many have not.
    pub fn close(&self, patience: Duration) -> usize {
        self.dismiss_all();
        let deadline = Instant::now() + patience;
        let mut seats = self.room.seats();
        while !seats.is_empty() {
            let Some(rest) = deadline.checked_duration_since(Instant::now()) else { break };
            seats = self.room.left.wait_timeout(seats, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        seats.len()
    }
}

impl Drop for Whep {
    fn drop(&mut self) {
        self.dismiss_all();
    }
}

impl ViewerRegistry {
    fn settings(&self) -> Arc<WebRtcConfig> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<String, ViewerSlot>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat in use. Given back when it is dropped, also by a panic.
struct SlotGuard {
    room: Arc<ViewerRegistry>,
    id: String,
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.room.seats().remove(&self.id);
        self.room.left.notify_all();
    }
}

/// 128 bits that nobody can guess: who knows them may end the viewer.
fn new_id() -> Result<String, WhepRefusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| WhepRefusal::Failed(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_a_reload_is_served_by_what_it_says() {
        let whep = Whep::new(WebRtcConfig::default());
        whep.set(WebRtcConfig { max_viewers: 0, ..WebRtcConfig::default() });
        let refused = whep.admit("gate", &Arc::default(), offer::tests::OFFER, None, None);
        assert_eq!(refused.err(), Some(WhepRefusal::Full(0)));
    }

    /// A viewer whose thread reads nothing, and whose client sends candidates without end.
    #[test]
    fn candidates_are_limited_and_leave_room_for_what_happens_to_the_viewer() {
        crate::gst::init().unwrap();
        let whep = Whep::new(WebRtcConfig::default());
        let (events, inbox) = unbounded();
        let leave = Arc::new(AtomicBool::new(false));
        let told = events.clone();
        let seat = ViewerSlot { stream: "gate".into(), who: None, leave, events: told, fragments: Arc::default() };
        whep.room.seats().insert("viewer".into(), seat);
        let candidate = "a=mid:0\r\na=candidate:1 1 udp 2113 192.0.2.1 40000 typ host\r\n";
        let trickle = || whep.trickle("gate", "viewer", candidate);
        for n in 0..FRAGMENTS {
            assert_eq!(trickle(), Ok(()), "{n}");
        }
        assert!(matches!(trickle(), Err(WhepRefusal::Failed(_))));
        let source = gstreamer_app::AppSrc::builder().build();
        let packet_sink = super::super::fanout::AppSrcSink::new(source, 1, true, Arc::default());
        drop(viewer::ViewerSink { packet_sink, events });
        let candidates = inbox.try_iter().take(FRAGMENTS);
        assert_eq!(candidates.filter(|event| matches!(event, ViewerEvent::Candidates(..))).count(), FRAGMENTS);
        assert!(matches!(inbox.try_recv(), Ok(ViewerEvent::Ended("the stream has ended"))));
        assert_eq!(trickle(), Ok(()), "those that were read have given their places back");
    }
}
