//! Keeps pictures that cannot be decoded correctly away from the decoder and from the stream.
//!
//! A camera that is joined in the middle of a group of pictures, and one that has lost packets, sends pictures that refer
//! to others which are not there. Decoders show them all the same: grey or smeared for as long as the group lasts, and a
//! model sees something in them. The gate stands between parser and decoder. It drops delta units (pictures that need
//! others) until a sync point comes: a keyframe, or a recovery point, both as the parser marks them. It closes again
//! where the network, the demuxer, the parser or the decoder reports a loss.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video as gst_video;

use gst::prelude::*;

/// A decoder that has got a sync point and still marks its pictures as corrupted is believed for this long. A picture that
/// is refreshed part by part (H.264 recovery point) takes at most a few seconds until it is whole.
const CORRUPTED_LIMIT: Duration = Duration::from_secs(20);

/// Decoded pictures before the sync point that are skipped at most: more are not older pictures, but a clock that was
/// set back.
const LEADING_LIMIT: u32 = 64;

/// What the parser hands to the decoder.
#[derive(Clone, Copy, Debug, Default)]
struct CodedUnit {
    /// It cannot be decoded without earlier units.
    delta: bool,
    /// Only parameters, no picture.
    header: bool,
    /// Something is missing before it.
    discont: bool,
    /// Something is missing in it.
    corrupted: bool,
    pts: Option<gst::ClockTime>,
}

impl CodedUnit {
    fn of(buffer: &gst::BufferRef) -> Self {
        let flags = buffer.flags();
        CodedUnit {
            delta: flags.contains(gst::BufferFlags::DELTA_UNIT),
            header: flags.contains(gst::BufferFlags::HEADER),
            discont: flags.contains(gst::BufferFlags::DISCONT),
            corrupted: flags.contains(gst::BufferFlags::CORRUPTED),
            pts: buffer.pts(),
        }
    }
}

/// What happens to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateDecision {
    Pass,
    Drop,
    /// It is the first that is dropped: a keyframe should be requested.
    DropFirst,
}

/// How long a sync point has been waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyframeWait {
    /// Since the first picture that was dropped.
    pub lasting: Duration,
    /// Since the newest unit came from the source, whatever it was.
    pub silent: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Delta units are dropped; `since` the first of them.
    Closed { since: Option<Instant> },
    /// A sync point has gone into the decoder at `at`. What comes out may still be older, or not whole.
    Opened { at: Instant, first: Option<gst::ClockTime>, skipped: u32, since: Option<Instant> },
    /// Whole pictures come out.
    Flowing,
}

#[derive(Debug)]
struct GateState {
    phase: Phase,
    /// When the newest unit came; `None` where nothing is decoded.
    newest: Option<Instant>,
    /// Packets were lost: the units that are still whole, before the first one that may need what is missing.
    lost: Option<u32>,
    /// Times of the pictures that the newest loss may have cut.
    cut: [Option<gst::ClockTime>; 2],
}

/// The gate of one capture pipeline. Without a decoder that [`guard`] was called for, every picture is shown.
#[derive(Debug)]
pub struct KeyframeGate {
    inner: Mutex<GateState>,
}

impl Default for KeyframeGate {
    fn default() -> Self {
        let phase = Phase::Closed { since: None };
        KeyframeGate { inner: Mutex::new(GateState { phase, newest: None, lost: None, cut: [None; 2] }) }
    }
}

impl KeyframeGate {
    /// Packets were lost; see [`report_loss`].
    fn lose(&self, before: Option<gst::ClockTime>, after: Option<gst::ClockTime>, whole: u32) {
        let mut inner = self.lock();
        inner.lost = Some(whole);
        inner.cut = [before, after];
    }

    /// How long a sync point has been waited for, while pictures that need one come; `None` when none is missing.
    pub fn wait(&self, now: Instant) -> Option<KeyframeWait> {
        let inner = self.lock();
        let (Phase::Closed { since } | Phase::Opened { since, .. }) = inner.phase else { return None };
        let lasting = now.saturating_duration_since(since?);
        let silent = inner.newest.map_or(lasting, |newest| now.saturating_duration_since(newest));
        Some(KeyframeWait { lasting, silent })
    }

    /// Whether a decoded picture may be shown: not one from before the sync point, and not one that the decoder marks as
    /// corrupted.
    pub fn shows(&self, pts: Option<gst::ClockTime>, corrupted: bool, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.newest.is_none() {
            // There is no decoder behind the gate: raw pictures, or JPEGs.
            return true;
        }
        match &mut inner.phase {
            // What the decoder had kept back, and what it makes of parameters and pictures that came with them.
            Phase::Closed { .. } => false,
            Phase::Flowing if corrupted => {
                inner.phase = Phase::Closed { since: Some(now) };
                false
            }
            Phase::Flowing => true,
            Phase::Opened { at, first, skipped, since } => {
                let leads = first.zip(pts).is_some_and(|(first, pts)| pts < first) && *skipped < LEADING_LIMIT;
                let broken = corrupted && now.saturating_duration_since(*at) < CORRUPTED_LIMIT;
                if broken {
                    since.get_or_insert(now);
                }
                if leads || broken {
                    *skipped += u32::from(leads);
                    return false;
                }
                inner.phase = Phase::Flowing;
                true
            }
        }
    }

    fn judge(&self, unit: CodedUnit, now: Instant) -> GateDecision {
        let mut inner = self.lock();
        inner.newest = Some(now);
        let lost = inner.lost == Some(0) || unit.discont || unit.corrupted;
        inner.lost = inner.lost.and_then(|whole| whole.checked_sub(1));
        if lost && unit.delta && !matches!(inner.phase, Phase::Closed { .. }) {
            inner.phase = Phase::Closed { since: None };
        }
        // A keyframe of which a part is missing is of no use; without times this cannot be seen.
        let is_cut = unit.corrupted || unit.pts.is_some() && inner.cut.contains(&unit.pts);
        let syncs = !unit.delta && !is_cut;
        match &mut inner.phase {
            Phase::Opened { .. } | Phase::Flowing if !is_cut => GateDecision::Pass,
            Phase::Closed { since } if syncs => {
                let (at, since) = (now, *since);
                inner.phase = Phase::Opened { at, first: unit.pts, skipped: 0, since };
                GateDecision::Pass
            }
            // Parameters may come apart from the keyframe that they belong to.
            Phase::Closed { .. } if unit.header && !is_cut => GateDecision::Pass,
            Phase::Closed { since: Some(_) } => GateDecision::Drop,
            phase => {
                *phase = Phase::Closed { since: Some(now) };
                GateDecision::DropFirst
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        // Plain values, whole after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event that reports a loss to the gates of decoders.
const LOSS: &str = "maskcast-loss";

/// Reports that packets are missing before what `pad` gets next. The report goes through the elements with the data, so that
/// it reaches the gate where the loss is. The pictures with the times `before` and `after` may be incomplete; `whole` units
/// that the gate has not seen came before the loss.
pub fn report_loss(pad: &gst::Pad, before: Option<gst::ClockTime>, after: Option<gst::ClockTime>, whole: u32) {
    let loss =
        gst::Structure::builder(LOSS).field("before", before).field("after", after).field("whole", whole).build();
    // Refused before the stream has begun, when there is nothing to protect.
    pad.send_event(gst::event::CustomDownstream::new(loss));
}

/// Lets `gate` decide what `element` gets to decode, if it is a video decoder.
pub fn guard(element: &gst::Element, gate: &Arc<KeyframeGate>) {
    let decoder = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
    let is_decoder = element.factory().is_some_and(|factory| factory.has_type(decoder));
    let Some(pad) = element.static_pad("sink").filter(|_| is_decoder) else { return };
    let (gate, told) = (Arc::clone(gate), Arc::clone(gate));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Event(event)) = &info.data else { return gst::PadProbeReturn::Ok };
        if let Some(loss) = event.structure().filter(|structure| structure.name() == LOSS) {
            let time = |field: &str| loss.get::<Option<gst::ClockTime>>(field).ok().flatten();
            told.lose(time("before"), time("after"), loss.get("whole").unwrap_or(0));
        }
        gst::PadProbeReturn::Ok
    });
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        match gate.judge(CodedUnit::of(buffer), Instant::now()) {
            GateDecision::Pass => gst::PadProbeReturn::Ok,
            GateDecision::Drop => drop_unit(info),
            GateDecision::DropFirst => {
                // Where the camera has agreed to be asked (RTCP feedback), this becomes a request for a keyframe.
                pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
                drop_unit(info)
            }
        }
    });
}

/// `PadProbeReturn::Drop` frees the buffer twice over with these bindings (gstreamer-rs 0.25, GStreamer 1.22), which
/// GStreamer complains about; a buffer that has been taken out and handled is freed once.
fn drop_unit(info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
    info.data = None;
    info.flow_res = Ok(gst::FlowSuccess::Ok);
    gst::PadProbeReturn::Handled
}

/// Has `element` repeat the parameter sets before each keyframe, if it is a parser that can: those at the start of the
/// stream are of no use where the gate drops what comes with them.
pub fn repeat_parameters(element: &gst::Element) {
    if element.factory().is_some_and(|factory| ["h264parse", "h265parse"].contains(&factory.name().as_str())) {
        element.set_property("config-interval", -1_i32);
    }
}

#[cfg(test)]
mod tests;
