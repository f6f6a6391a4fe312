//! WebRTC viewers over WHEP (draft-ietf-wish-whep): the client posts an offer over HTTP and receives an answer; the
//! H.264 encode of the stream is sent over DTLS-SRTP.
//!
//! ```text
//! fan-out ──▶ [appsrc] ─▶ rtph264pay ─▶ webrtcbin (ICE by libnice, DTLS, SRTP, RTCP) ─▶ UDP ─▶ browser
//! ```
//!
//! | file | content |
//! | --- | --- |
//! | `offer` | SDP: reduces the offer to the part that is answered, and completes the answer |
//! | `candidate` | which candidates of a viewer are used |
//! | `trickle` | candidates that the viewer sends after the offer, with PATCH |
//! | `viewer` | one viewer, from the offer to the teardown, on its own thread |
//! | `peer` | the pipeline of a viewer |
//! | `event` | the events that the thread of a viewer handles |
//! | `refusal` | why a viewer is refused or disconnected |
//!
//! The implementation uses GStreamer's webrtcbin. The WHEP server of the crate gst-plugin-webrtc (version 0.15.4 was
//! examined) is not suitable for a service that runs for months:
//!
//! - Its `webrtcsink` must have received a frame before the first viewer connects (`in_caps.unwrap()` in a task; the request
//!   then waits for a timeout), but Maskcast encodes nothing before that.
//! - PATCH through its action signal always panics: it reads its fourth argument at the index of the third.
//! - An offer that cannot be parsed stays in a map forever.
//! - When gathering completes twice, or after the request has ended, an `expect` fails inside a C callback, which ends the
//!   process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;

use super::encoder::Level;
use super::fanout::Fanout;
use super::frame_sink_kind::{FrameSinkKind, ViewerCount, start_none};
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

pub use refusal::{InvalidBody, ViewerError, WhepRefusal};

use event::{CandidatePermit, ViewerEvent};
use offer::Offer;
use trickle::Fragment;
use viewer::{KIND_NAME, ViewerSession};

/// Each WebRTC viewer has a sink, which feeds the pipeline of its connection.
pub static KIND: FrameSinkKind = FrameSinkKind {
    name: KIND_NAME,
    start: start_none,
    viewers: Some(ViewerCount { about: "WebRTC viewers.", count: |outputs| outputs.h264.viewers(KIND_NAME) }),
};

/// The most fragments of candidates that may wait for the thread of a viewer.
const MAX_QUEUED_FRAGMENTS: usize = 64;

/// A viewer whose offer was accepted.
pub struct AdmittedViewer {
    /// Identifies the viewer; cannot be guessed.
    pub id: String,
    /// The SDP answer; available when all candidates are gathered, within seconds. The viewer is disconnected when this
    /// is dropped before that.
    pub answer: oneshot::Receiver<Result<String, WhepRefusal>>,
}

/// All WebRTC viewers. Dropping it disconnects them.
pub struct Whep {
    registry: Arc<ViewerRegistry>,
}

struct ViewerRegistry {
    settings: RwLock<Arc<WebRtcConfig>>,
    slots: Mutex<HashMap<String, ViewerSlot>>,
    /// Notified when a viewer has left.
    left: Condvar,
}

/// The state of a viewer that is shared with its thread.
struct ViewerSlot {
    stream: String,
    /// Who is logged in; `None` for an anonymous viewer.
    identity: Option<Identity>,
    leave: Arc<AtomicBool>,
    events: Sender<ViewerEvent>,
    /// Number of fragments that wait for the thread.
    fragments: Arc<AtomicUsize>,
}

impl ViewerSlot {
    /// Whether the viewer watches this stream and is not being disconnected.
    fn watches(&self, stream: &str) -> bool {
        self.stream == stream && !self.leave.load(Ordering::Acquire)
    }

    fn disconnect(&self) {
        self.leave.store(true, Ordering::Release);
        // Wakes the thread up. Fails when it has ended.
        let _ = self.events.send(ViewerEvent::Wake);
    }
}

impl Whep {
    pub fn new(settings: WebRtcConfig) -> Self {
        let settings = RwLock::new(Arc::new(settings));
        Whep { registry: Arc::new(ViewerRegistry { settings, slots: Mutex::default(), left: Condvar::new() }) }
    }

    /// The settings for new viewers.
    pub fn settings(&self) -> Arc<WebRtcConfig> {
        self.registry.settings()
    }

    /// Sets the settings for new viewers; those of connected viewers do not change.
    pub fn set_settings(&self, settings: WebRtcConfig) {
        *self.registry.settings.write() = Arc::new(settings);
    }

    /// Admits a viewer with this offer. `level` is the H.264 level of the stream, where it is known; `identity` is for
    /// [`Whep::disconnect_unless`].
    ///
    /// # Errors
    /// When the offer cannot be answered, too many viewers are connected, or the thread cannot be started.
    pub fn admit(
        &self,
        stream: &str,
        fanout: &Arc<Fanout>,
        offer: &str,
        level: Option<Level>,
        identity: Option<Identity>,
    ) -> Result<AdmittedViewer, WhepRefusal> {
        let offer = Offer::parse(offer)?;
        if descriptors::are_scarce() {
            return Err(WhepRefusal::Scarce);
        }
        let id = new_id()?;
        let (events, inbox) = unbounded();
        let leave = Arc::new(AtomicBool::new(false));
        let settings = self.registry.settings();
        let max_viewers = settings.max_viewers;
        let mut slots = self.registry.slots();
        if slots.len() >= max_viewers {
            return Err(WhepRefusal::Full(max_viewers));
        }
        let slot = ViewerSlot {
            stream: stream.to_owned(),
            identity,
            leave: Arc::clone(&leave),
            events: events.clone(),
            fragments: Arc::default(),
        };
        slots.insert(id.clone(), slot);
        drop(slots);
        // Frees the slot in every case, also when the thread does not start or panics.
        let guard = SlotGuard { registry: Arc::clone(&self.registry), id: id.clone() };
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
                let _guard = guard;
                viewer.run(&settings);
            })
            .map_err(|error| ViewerError::Thread(error.kind()))?;
        Ok(AdmittedViewer { id, answer })
    }

    /// Adds candidates that a viewer found after its offer (`application/trickle-ice-sdpfrag`, RFC 8840).
    ///
    /// # Errors
    /// When there is no such viewer, or the fragment is invalid or requests more than candidates.
    pub fn trickle(&self, stream: &str, id: &str, fragment: &str) -> Result<(), WhepRefusal> {
        let slots = self.registry.slots();
        let slot = slots.get(id).filter(|slot| slot.watches(stream)).ok_or(WhepRefusal::Unknown)?;
        let fragment = Fragment::parse(fragment)?;
        let permit = CandidatePermit::try_acquire(&slot.fragments, MAX_QUEUED_FRAGMENTS).ok_or(ViewerError::Busy)?;
        slot.events.send(ViewerEvent::Candidates(fragment, permit)).map_err(|_| WhepRefusal::Unknown)
    }

    /// Disconnects a viewer at its request; its pipeline stops in the background.
    ///
    /// # Errors
    /// When there is no such viewer.
    pub fn disconnect(&self, stream: &str, id: &str) -> Result<(), WhepRefusal> {
        let slots = self.registry.slots();
        slots.get(id).filter(|slot| slot.watches(stream)).ok_or(WhepRefusal::Unknown)?.disconnect();
        Ok(())
    }

    /// Disconnects the viewers who are logged in and not `allowed` any longer.
    pub fn disconnect_unless(&self, allowed: impl Fn(&Identity) -> bool) {
        let slots = self.registry.slots();
        slots.values().filter(|slot| !slot.identity.as_ref().is_none_or(&allowed)).for_each(ViewerSlot::disconnect);
    }

    /// Disconnects all viewers.
    pub fn disconnect_all(&self) {
        self.registry.slots().values().for_each(ViewerSlot::disconnect);
    }

    /// Number of viewers, including those that are still connecting.
    pub fn viewers(&self) -> usize {
        self.registry.slots().len()
    }

    /// Disconnects all viewers and waits until their threads have ended, at most for `timeout`. Returns how many are
    /// left.
    pub fn close(&self, timeout: Duration) -> usize {
        self.disconnect_all();
        let deadline = Instant::now() + timeout;
        let mut slots = self.registry.slots();
        while !slots.is_empty() {
            let Some(rest) = deadline.checked_duration_since(Instant::now()) else { break };
            self.registry.left.wait_for(&mut slots, rest);
        }
        slots.len()
    }
}

impl Drop for Whep {
    fn drop(&mut self) {
        self.disconnect_all();
    }
}

impl ViewerRegistry {
    fn settings(&self) -> Arc<WebRtcConfig> {
        Arc::clone(&self.settings.read())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, ViewerSlot>> {
        self.slots.lock()
    }
}

/// Removes the slot of a viewer when it is dropped, also by a panic.
struct SlotGuard {
    registry: Arc<ViewerRegistry>,
    id: String,
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.registry.slots().remove(&self.id);
        self.registry.left.notify_all();
    }
}

/// 128 random bits in hexadecimal. A client that has the identifier may disconnect the viewer, so it must not be
/// guessable.
fn new_id() -> Result<String, ViewerError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ViewerError::Random(error.to_string()))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_settings_apply_to_the_next_viewer() {
        let whep = Whep::new(WebRtcConfig::default());
        whep.set_settings(WebRtcConfig { max_viewers: 0, ..WebRtcConfig::default() });
        let refused = whep.admit("gate", &Arc::default(), offer::tests::OFFER, None, None);
        assert_eq!(refused.err(), Some(WhepRefusal::Full(0)));
    }

    /// A viewer whose thread handles no events, and whose client keeps sending candidates.
    #[test]
    fn queued_candidates_are_limited_and_do_not_block_other_events() {
        crate::gst::init().unwrap();
        let whep = Whep::new(WebRtcConfig::default());
        let (events, inbox) = unbounded();
        let leave = Arc::new(AtomicBool::new(false));
        let slot = ViewerSlot {
            stream: "gate".into(),
            identity: None,
            leave,
            events: events.clone(),
            fragments: Arc::default(),
        };
        whep.registry.slots().insert("viewer".into(), slot);
        let candidate = "a=mid:0\r\na=candidate:1 1 udp 2113 192.0.2.1 40000 typ host\r\n";
        let trickle = || whep.trickle("gate", "viewer", candidate);
        for n in 0..MAX_QUEUED_FRAGMENTS {
            assert_eq!(trickle(), Ok(()), "{n}");
        }
        assert_eq!(trickle(), Err(WhepRefusal::Failed(ViewerError::Busy)));
        let source = gstreamer_app::AppSrc::builder().build();
        let frame_sink = super::super::fanout::AppSrcSink::new(source, 1, true, Arc::default());
        let counted = super::super::fanout::Fanout::default().count_viewer(KIND_NAME);
        drop(viewer::ViewerSink { frame_sink, events, _counted: counted });
        let candidates = inbox.try_iter().take(MAX_QUEUED_FRAGMENTS);
        assert_eq!(
            candidates.filter(|event| matches!(event, ViewerEvent::Candidates(..))).count(),
            MAX_QUEUED_FRAGMENTS
        );
        assert!(matches!(inbox.try_recv(), Ok(ViewerEvent::Ended(ViewerError::StreamEnded))));
        assert_eq!(trickle(), Ok(()), "handled candidates free their permits");
    }
}
