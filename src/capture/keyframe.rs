//! A gate in front of the decoder that drops frames which cannot be decoded correctly.
//!
//! A connection to a camera begins in the middle of a group of pictures, and after packet loss frames are missing: later
//! frames refer to frames that are not there. Decoders output them all the same, grey or smeared until the group ends, and
//! the model finds objects in them. The gate is between parser and decoder. It drops delta units (frames that refer to
//! others) until the parser marks a sync point: a keyframe or a recovery point. It closes again when the network, the
//! demuxer, the parser or the decoder reports a loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use gst::prelude::*;

/// For how long after a sync point frames that the decoder marks as corrupted are dropped. A gradual refresh (H.264 recovery
/// point) takes at most a few seconds; a decoder that marks frames for longer is ignored.
const CORRUPTED_LIMIT: Duration = Duration::from_secs(20);

/// The most decoded frames with a timestamp before the sync point that are dropped. When there are more, the clock of the
/// source was set back.
const LEADING_LIMIT: u32 = 64;

/// An access unit from the parser.
#[derive(Clone, Copy, Debug, Default)]
struct CodedUnit {
    /// It cannot be decoded without earlier units.
    delta: bool,
    /// It has parameters only, and no frame.
    header: bool,
    /// Data is missing before it.
    discont: bool,
    /// Data is missing in it.
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

/// The decision about a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateDecision {
    Pass,
    Drop,
    /// The first unit that is dropped: a keyframe should be requested.
    DropFirst,
}

/// The wait for a sync point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyframeWait {
    /// The time since the first frame that was dropped.
    pub elapsed: Duration,
    /// The time since the last unit of any kind came from the source.
    pub since_data: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Delta units are dropped, the first of them at `since`.
    Closed { since: Option<Instant> },
    /// A sync point was passed to the decoder at `at`. Decoded frames may still be older, or corrupted.
    Opened { at: Instant, first: Option<gst::ClockTime>, skipped: u32, since: Option<Instant> },
    /// Decoded frames are complete.
    Flowing,
}

#[derive(Debug)]
struct GateState {
    phase: Phase,
    /// When the newest unit came; `None` if there is no decoder.
    newest: Option<Instant>,
    /// After a loss of packets: the number of complete units that come before the missing data.
    lost: Option<u32>,
    /// Timestamps of the frames that the newest loss may have made incomplete.
    cut: [Option<gst::ClockTime>; 2],
}

/// The gate of one capture pipeline. All frames are allowed until [`gate_decoder`] has been called for a decoder.
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
    /// Records a loss of packets; see [`report_loss`].
    fn record_loss(&self, before: Option<gst::ClockTime>, after: Option<gst::ClockTime>, complete: u32) {
        let mut inner = self.inner.lock();
        inner.lost = Some(complete);
        inner.cut = [before, after];
    }

    /// How long frames have waited for a keyframe; `None` if they do not need one.
    pub fn wait(&self, now: Instant) -> Option<KeyframeWait> {
        let inner = self.inner.lock();
        let (Phase::Closed { since } | Phase::Opened { since, .. }) = inner.phase else { return None };
        let elapsed = now.saturating_duration_since(since?);
        let since_data = inner.newest.map_or(elapsed, |newest| now.saturating_duration_since(newest));
        Some(KeyframeWait { elapsed, since_data })
    }

    /// Whether a decoded frame may be shown: not if its timestamp is before the sync point, or the decoder marks it as
    /// corrupted.
    pub fn allows(&self, pts: Option<gst::ClockTime>, corrupted: bool, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        if inner.newest.is_none() {
            // There is no decoder: raw frames or JPEGs.
            return true;
        }
        match &mut inner.phase {
            // A frame that the decoder had delayed, or one that came with parameters.
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

    fn decide(&self, unit: CodedUnit, now: Instant) -> GateDecision {
        let mut inner = self.inner.lock();
        inner.newest = Some(now);
        let lost = inner.lost == Some(0) || unit.discont || unit.corrupted;
        inner.lost = inner.lost.and_then(|complete| complete.checked_sub(1));
        if lost && unit.delta && !matches!(inner.phase, Phase::Closed { .. }) {
            inner.phase = Phase::Closed { since: None };
        }
        // A keyframe with missing data is not a sync point. Without timestamps this cannot be detected.
        let is_cut = unit.corrupted || unit.pts.is_some() && inner.cut.contains(&unit.pts);
        let syncs = !unit.delta && !is_cut;
        match &mut inner.phase {
            Phase::Opened { .. } | Phase::Flowing if !is_cut => GateDecision::Pass,
            Phase::Closed { since } if syncs => {
                let (at, since) = (now, *since);
                inner.phase = Phase::Opened { at, first: unit.pts, skipped: 0, since };
                GateDecision::Pass
            }
            // Parameters may be in a separate unit before their keyframe.
            Phase::Closed { .. } if unit.header && !is_cut => GateDecision::Pass,
            Phase::Closed { since: Some(_) } => GateDecision::Drop,
            phase => {
                *phase = Phase::Closed { since: Some(now) };
                GateDecision::DropFirst
            }
        }
    }
}

/// The name of the event that reports a loss to the gates of decoders.
const LOSS: &str = "maskcast-loss";

/// Reports that packets are missing before the next data of `pad`. The event passes the elements in order with the data, so
/// that it reaches the gate at the position of the loss. The frames with the timestamps `before` and `after` may be
/// incomplete. `complete` units before the loss have not reached the gate yet.
pub fn report_loss(pad: &gst::Pad, before: Option<gst::ClockTime>, after: Option<gst::ClockTime>, complete: u32) {
    let loss =
        gst::Structure::builder(LOSS).field("before", before).field("after", after).field("complete", complete).build();
    // The event is refused before the stream has begun, when no frame can be affected.
    pad.send_event(gst::event::CustomDownstream::new(loss));
}

/// Puts `gate` in front of `element`, if that is a video decoder.
pub fn gate_decoder(element: &gst::Element, gate: &Arc<KeyframeGate>) {
    let decoder = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
    let is_decoder = element.factory().is_some_and(|factory| factory.has_type(decoder));
    let Some(pad) = element.static_pad("sink").filter(|_| is_decoder) else { return };
    let (gate, loss_gate) = (Arc::clone(gate), Arc::clone(gate));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Event(event)) = &info.data else { return gst::PadProbeReturn::Ok };
        if let Some(loss) = event.structure().filter(|structure| structure.name() == LOSS) {
            let time = |field: &str| loss.get::<Option<gst::ClockTime>>(field).ok().flatten();
            loss_gate.record_loss(time("before"), time("after"), loss.get("complete").unwrap_or(0));
        }
        gst::PadProbeReturn::Ok
    });
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        match gate.decide(CodedUnit::of(buffer), Instant::now()) {
            GateDecision::Pass => gst::PadProbeReturn::Ok,
            GateDecision::Drop => drop_unit(info),
            GateDecision::DropFirst => {
                // If the camera supports RTCP feedback (RFC 4585), rtpsession sends a request for a keyframe.
                pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
                drop_unit(info)
            }
        }
    });
}

/// Drops the buffer of a probe. With `PadProbeReturn::Drop` it is freed twice (gstreamer-rs 0.25, GStreamer 1.22), and
/// GStreamer logs an error; a buffer that is removed and reported as handled is freed once.
fn drop_unit(info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
    info.data = None;
    info.flow_res = Ok(gst::FlowSuccess::Ok);
    gst::PadProbeReturn::Handled
}

/// Makes `element`, if it is a parser for H.264 or H.265, repeat the parameter sets before each keyframe: those at the start
/// of the stream are lost when the gate drops the unit that contains them.
pub fn repeat_parameters(element: &gst::Element) {
    if element.factory().is_some_and(|factory| ["h264parse", "h265parse"].contains(&factory.name().as_str())) {
        element.set_property("config-interval", -1_i32);
    }
}

#[cfg(test)]
mod tests;
