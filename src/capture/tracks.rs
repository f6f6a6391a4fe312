//! What is known of a source's tracks: whether there is video, and how far any of them has been read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;

use gst::prelude::*;

use crate::base::status::Shortfall;

/// The tracks of one capture pipeline.
#[derive(Debug, Default)]
pub struct Tracks {
    /// All tracks are known, and none is video.
    no_video: AtomicBool,
    extent: Mutex<Extent>,
    /// Tracks beside the video that have not been read to their end.
    unfinished: Mutex<usize>,
    finished: Condvar,
}

/// How long the end of a file is waited for in the tracks beside its video: they are read by other threads, which may be a
/// little behind. Reading them takes no decoding.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// What the tracks have brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Its end, from the start of the file.
    reached: Duration,
    /// The first and the last time that is written in the file, which need not begin at zero.
    written: Option<(Duration, Duration)>,
}

impl Tracks {
    pub fn set_no_video(&self) {
        self.no_video.store(true, Ordering::Release);
    }

    pub fn has_no_video(&self) -> bool {
        self.no_video.load(Ordering::Acquire)
    }

    /// A track has brought something that is shown from `start` on for `length`.
    pub fn reach(&self, segment: Option<&gst::Segment>, start: gst::ClockTime, length: Duration) {
        let from_start = segment.and_then(|segment| segment.downcast_ref::<gst::ClockTime>()?.to_stream_time(start));
        let (start, mut extent) = (Duration::from(start), self.extent.lock().unwrap_or_else(PoisonError::into_inner));
        extent.reached = extent.reached.max(from_start.map(Duration::from).unwrap_or_default() + length);
        let (first, last) = extent.written.unwrap_or((start, start));
        extent.written = Some((first.min(start), last.max(start + length)));
    }

    /// Waits until the tracks beside the video have been read to their end, for [`READ_LIMIT`] at most.
    pub fn wait_for_others(&self) {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.finished.wait_timeout_while(unfinished, READ_LIMIT, |unfinished| *unfinished > 0);
    }

    fn begin_other(&self) {
        *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn end_other(&self) {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        *unfinished = unfinished.saturating_sub(1);
        self.finished.notify_all();
    }

    pub fn extent(&self) -> Extent {
        *self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a track that is not used (sound, subtitles): a file whose video ends before its sound is complete all the same.
pub fn follow(pad: &gst::Pad, tracks: &Arc<Tracks>) {
    tracks.begin_other();
    let ending = Arc::clone(tracks);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| match info.event().map(|event| event.type_()) {
        Some(gst::EventType::Eos) => {
            ending.end_other();
            gst::PadProbeReturn::Remove
        }
        _ => gst::PadProbeReturn::Ok,
    });
    let tracks = Arc::clone(tracks);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        if let Some((buffer, start)) = info.buffer().and_then(|buffer| Some((buffer, buffer.pts()?))) {
            let length = buffer.duration().map(Duration::from).unwrap_or_default();
            tracks.reach(segment.as_ref().map(|segment| segment.segment()), start, length);
        }
        gst::PadProbeReturn::Ok
    });
}

impl Extent {
    /// With pictures that follow one another for `length`, though the file gives them other times.
    pub fn with(self, length: Duration) -> Self {
        Extent { reached: self.reached.max(length), ..self }
    }
}

impl Extent {
    /// What is missing of a file that announces `length`, which in some formats includes the time before its first picture;
    /// `None` where nothing is missing. `picture` is how long the last picture is shown. Announced lengths are not exact:
    /// some are rounded up to whole pictures, some are estimates.
    pub fn shortfall(self, length: Duration, picture: Duration) -> Option<Shortfall> {
        let is_short = |reached: Duration, length: Duration| reached + length / 50 + 2 * picture < length;
        let written = self.written.is_none_or(|(first, last)| {
            // A first time beyond the length cannot be part of it.
            first >= length || is_short(last - first, length - first)
        });
        (written && is_short(self.reached, length)).then_some(Shortfall { reached: self.reached, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_short_when_its_end_is_missing_not_when_it_has_few_pictures() {
        let seconds = Duration::from_secs_f64;
        let extent = |first, reached| Extent {
            reached: seconds(reached),
            written: Some((seconds(first), seconds(first + reached))),
        };
        let of = |reached, length, picture| extent(0.0, reached).shortfall(seconds(length), seconds(picture)).is_some();
        assert!(!of(10.0, 10.0, 1.0 / 60.0));
        assert!(!of(9.95, 10.0, 1.0 / 30.0), "a rounded length");
        assert!(!of(20.0, 30.0, 5.0), "one picture in five seconds: the last one's length is not known");
        assert!(of(5.0, 10.0, 1.0 / 30.0) && of(9.5, 10.0, 1.0 / 30.0) && of(0.4, 1.0, 1.0 / 15.0));
        assert!(!of(5.0, 0.0, 0.0), "no length");
        // Times that begin at an hour; Matroska's length is the last time, others' the time between first and last.
        let late = |reached, length| extent(3600.0, reached).shortfall(seconds(length), seconds(1.0 / 15.0));
        assert_eq!((late(2.0, 3602.0), late(2.0, 2.0)), (None, None));
        assert_eq!(late(1.0, 3602.0), Some(Shortfall { reached: seconds(1.0), length: seconds(3602.0) }));
        assert!(late(1.0, 2.0).is_some());
    }
}
