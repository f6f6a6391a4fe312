//! GStreamer's `deinterlace`, with the timestamps of the input frames.

use std::collections::VecDeque;
use std::sync::Arc;

use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;

use super::error::SourceError;
use crate::gst::make;

/// The most timestamps that are kept, if the element drops frames.
const MAX_PENDING: usize = 16;

/// The most consecutive output frames whose timestamp is corrected, at the beginning or end of a stream.
const MAX_CORRECTED: u32 = 2;

/// A frame's timestamp and duration.
type FrameTimes = (gst::ClockTime, Option<gst::ClockTime>);

/// The timestamps of the interlaced frames inside the element.
#[derive(Default)]
struct PendingTimes {
    is_interlaced: bool,
    times: VecDeque<FrameTimes>,
    /// Consecutive output frames whose timestamp was not that of their input frame.
    corrected: u32,
}

impl PendingTimes {
    /// The times for an output frame with the timestamp `stamped`; frames are `step` apart. `None` if the timestamp is to be
    /// kept: for progressive frames, and if there are more output than input frames, as with telecine.
    fn times_of(&mut self, stamped: gst::ClockTime, step: gst::ClockTime) -> Option<FrameTimes> {
        let frame = self.times.pop_front()?;
        if frame.0 == stamped {
            self.corrected = 0;
            return Some(frame);
        }
        self.corrected += 1;
        if frame.0.absdiff(stamped) <= step + step / 2 && self.corrected <= MAX_CORRECTED {
            return Some(frame);
        }
        // The number of output frames differs from that of input frames: continue from the timestamp.
        if frame.0 > stamped {
            self.times.push_front(frame);
        }
        while self.times.front().is_some_and(|(pts, _)| *pts <= stamped) {
            self.times.pop_front();
        }
        self.corrected = 0;
        None
    }
}

/// Creates an element that outputs one progressive frame for each interlaced frame, and passes progressive frames on.
///
/// The output frame is based on the top field. Where there is no motion, it is combined with the bottom field at full height
/// (YADIF). That delays interlaced video by one frame.
///
/// # Errors
/// When the element is missing.
pub(super) fn deinterlacer() -> Result<gst::Element, SourceError> {
    let element = make("deinterlace")?;
    element.set_property_from_str("mode", "auto");
    element.set_property_from_str("fields", "top");
    element.set_property_from_str("method", "yadif");
    keep_times(&element);
    Ok(element)
}

/// Sets the timestamp of each output frame to that of its input frame. GStreamer 1.22 gives the first output frame the
/// timestamp of the second, and the last one that of its predecessor, because YADIF has no neighbours there.
fn keep_times(element: &gst::Element) {
    let (Some(sink), Some(source)) = (element.static_pad("sink"), element.static_pad("src")) else { return };
    let pending = Arc::new(Mutex::new(PendingTimes::default()));
    let input = Arc::clone(&pending);
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
    sink.add_probe(mask, move |_, info| {
        let mut pending = input.lock();
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) if pending.is_interlaced => {
                if pending.times.len() == MAX_PENDING {
                    pending.times.pop_front();
                }
                if let Some(pts) = buffer.pts() {
                    pending.times.push_back((pts, buffer.duration()));
                }
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(event) => {
                    let mode = event.caps().structure(0).and_then(|fields| fields.get::<&str>("interlace-mode").ok());
                    pending.is_interlaced = mode.is_some_and(|mode| mode != "progressive");
                }
                gst::EventView::FlushStop(_) => pending.times.clear(),
                _ => {}
            },
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    source.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else { return gst::PadProbeReturn::Ok };
        let Some(stamped) = buffer.pts() else { return gst::PadProbeReturn::Ok };
        let step = buffer.duration().filter(|step| !step.is_zero()).unwrap_or(gst::ClockTime::from_mseconds(40));
        let frame = pending.lock().times_of(stamped, step);
        if let Some((pts, duration)) = frame.filter(|(pts, _)| *pts != stamped) {
            let times = buffer.make_mut();
            times.set_pts(pts);
            times.set_duration(duration);
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(millis)
    }

    /// The timestamps after the correction of `stamps`, in milliseconds.
    fn corrected(pending: &mut PendingTimes, stamps: &[u64]) -> Vec<u64> {
        let time = |&pts: &u64| pending.times_of(millis(pts), millis(40)).map_or(pts, |(pts, _)| pts.mseconds());
        stamps.iter().map(time).collect()
    }

    /// The state after input frames at these times in milliseconds.
    fn pending(times: &[u64]) -> PendingTimes {
        PendingTimes {
            times: times.iter().map(|&time| (millis(time), Some(millis(40)))).collect(),
            ..PendingTimes::default()
        }
    }

    #[test]
    fn frames_at_both_ends_of_a_stream_get_the_times_of_their_input_frames() {
        let mut pending = pending(&[0, 40, 80, 120]);
        assert_eq!(corrected(&mut pending, &[40, 40, 80, 80]), [0, 40, 80, 120]);
        assert!(pending.times.is_empty());
    }

    #[test]
    fn a_missing_or_extra_output_frame_shifts_at_most_two_timestamps() {
        // The frame at 80 is dropped.
        let mut dropped = pending(&[0, 40, 80, 120, 160, 200, 240, 280]);
        assert_eq!(corrected(&mut dropped, &[0, 40, 120, 160, 200, 240, 280]), [0, 40, 80, 120, 200, 240, 280]);
        // One frame is output twice.
        let mut doubled = pending(&[0, 40, 80, 120, 160]);
        assert_eq!(corrected(&mut doubled, &[0, 40, 60, 80, 120, 160])[4..], [120, 160]);
        // The timestamps of the source jump back.
        let mut jumped = pending(&[1_000_000, 0, 40]);
        assert_eq!(corrected(&mut jumped, &[1_000_000, 0, 40]), [1_000_000, 0, 40]);
        assert_eq!(corrected(&mut pending(&[]), &[40]), [40]);
    }
}
