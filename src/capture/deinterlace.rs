//! GStreamer's `deinterlace`, with the times of the frames that went in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;

use gst::prelude::*;

use super::SourceError;
use crate::gst::make;

/// FrameTimes that are kept; an element that swallows frames must not fill the memory.
const INSIDE: usize = 16;

/// Pictures in a row that may be stamped wrongly where a stream begins or ends.
const AT_AN_END: u32 = 2;

/// A frame's time and duration.
type FrameTimes = (gst::ClockTime, Option<gst::ClockTime>);

/// The times of the interlaced frames inside of the element.
#[derive(Default)]
struct PendingTimes {
    is_interlaced: bool,
    times: VecDeque<FrameTimes>,
    /// Pictures in a row whose stamp was not that of their frame.
    corrected: u32,
}

impl PendingTimes {
    /// The times of the frame of a picture that comes out stamped with `stamped`; frames are `step` apart. `None` where
    /// the stamp has to stand: progressive frames, and pictures beyond the number of frames, as telecine has them.
    fn leave(&mut self, stamped: gst::ClockTime, step: gst::ClockTime) -> Option<FrameTimes> {
        let frame = self.times.pop_front()?;
        if frame.0 == stamped {
            self.corrected = 0;
            return Some(frame);
        }
        self.corrected += 1;
        if frame.0.absdiff(stamped) <= step + step / 2 && self.corrected <= AT_AN_END {
            return Some(frame);
        }
        // Another number of pictures than of frames came out: from here on by the stamps.
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

/// An element that makes one progressive picture of each interlaced frame, and hands on progressive frames as they are.
///
/// The picture is made around the frame's top field. Where nothing moves it is woven with the bottom field and keeps its
/// full height (YADIF); that waits for the next frame, with interlaced video only.
///
/// # Errors
/// When the element is missing, with what to install.
pub(super) fn deinterlacer() -> Result<gst::Element, SourceError> {
    let element = make("deinterlace")?;
    element.set_property_from_str("mode", "auto");
    element.set_property_from_str("fields", "top");
    element.set_property_from_str("method", "yadif");
    keep_times(&element);
    Ok(element)
}

/// Gives each picture the time of its frame. By itself, GStreamer 1.22 stamps the first picture as the second and the last
/// as the one before it, when YADIF has no neighbours there.
fn keep_times(element: &gst::Element) {
    let (Some(sink), Some(source)) = (element.static_pad("sink"), element.static_pad("src")) else { return };
    let inside = Arc::new(Mutex::new(PendingTimes::default()));
    let entering = Arc::clone(&inside);
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
    sink.add_probe(what, move |_, info| {
        let mut inside = entering.lock().unwrap_or_else(PoisonError::into_inner);
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) if inside.is_interlaced => {
                if inside.times.len() == INSIDE {
                    inside.times.pop_front();
                }
                if let Some(pts) = buffer.pts() {
                    inside.times.push_back((pts, buffer.duration()));
                }
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(event) => {
                    let mode = event.caps().structure(0).and_then(|fields| fields.get::<&str>("interlace-mode").ok());
                    inside.is_interlaced = mode.is_some_and(|mode| mode != "progressive");
                }
                gst::EventView::FlushStop(_) => inside.times.clear(),
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
        let frame = inside.lock().unwrap_or_else(PoisonError::into_inner).leave(stamped, step);
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

    /// What comes out for stamps, when frames at these times are inside; all in milliseconds.
    fn leave(inside: &mut PendingTimes, stamps: &[u64]) -> Vec<u64> {
        let time = |&stamp: &u64| inside.leave(millis(stamp), millis(40)).map_or(stamp, |(pts, _)| pts.mseconds());
        stamps.iter().map(time).collect()
    }

    fn inside(times: &[u64]) -> PendingTimes {
        PendingTimes {
            times: times.iter().map(|&time| (millis(time), Some(millis(40)))).collect(),
            ..PendingTimes::default()
        }
    }

    #[test]
    fn both_ends_of_a_stream_get_their_frames_times() {
        let mut inside = inside(&[0, 40, 80, 120]);
        assert_eq!(leave(&mut inside, &[40, 40, 80, 80]), [0, 40, 80, 120]);
        assert!(inside.times.is_empty());
    }

    #[test]
    fn another_number_of_pictures_than_of_frames_does_not_shift_the_times_for_long() {
        // The frame at 80 never comes out.
        let mut swallowed = inside(&[0, 40, 80, 120, 160, 200, 240, 280]);
        assert_eq!(leave(&mut swallowed, &[0, 40, 120, 160, 200, 240, 280]), [0, 40, 80, 120, 200, 240, 280]);
        // One comes out twice.
        let mut doubled = inside(&[0, 40, 80, 120, 160]);
        assert_eq!(leave(&mut doubled, &[0, 40, 60, 80, 120, 160])[4..], [120, 160]);
        // The source's times jump back.
        let mut jumped = inside(&[1_000_000, 0, 40]);
        assert_eq!(leave(&mut jumped, &[1_000_000, 0, 40]), [1_000_000, 0, 40]);
        assert_eq!(leave(&mut inside(&[]), &[40]), [40]);
    }
}
