//! The state of a source's tracks: whether there is video, and how far the tracks have been read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gstreamer as gst;
use parking_lot::{Condvar, Mutex};

use gst::prelude::*;

use crate::base::status::Shortfall;

/// The tracks of one capture pipeline.
#[derive(Debug, Default)]
pub struct Tracks {
    /// All tracks are known, and none is video.
    no_video: AtomicBool,
    extent: Mutex<Extent>,
    /// The number of other tracks that have not been read to their end.
    unfinished: Mutex<usize>,
    finished: Condvar,
}

/// The time limit for reading the other tracks to their end after the video has ended. Other threads read them, and may be
/// slightly behind; they are not decoded.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How far the tracks have been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// The latest end of a frame or sample, from the start of the file.
    reached: Duration,
    /// The first timestamp in the file, which need not be zero, and the latest end.
    written: Option<(Duration, Duration)>,
}

impl Tracks {
    /// Records that all tracks are known and none is video.
    pub fn set_no_video(&self) {
        self.no_video.store(true, Ordering::Release);
    }

    /// Whether all tracks are known and none is video.
    pub fn has_no_video(&self) -> bool {
        self.no_video.load(Ordering::Acquire)
    }

    /// Records a frame or sample of a track, with its timestamp `start` and its duration `length`.
    pub fn reach(&self, segment: Option<&gst::Segment>, start: gst::ClockTime, length: Duration) {
        let from_start = segment.and_then(|segment| segment.downcast_ref::<gst::ClockTime>()?.to_stream_time(start));
        let (start, mut extent) = (Duration::from(start), self.extent.lock());
        extent.reached = extent.reached.max(from_start.map(Duration::from).unwrap_or_default() + length);
        let (first, last) = extent.written.unwrap_or((start, start));
        extent.written = Some((first.min(start), last.max(start + length)));
    }

    /// Waits until all other tracks than the video have been read to their end, for [`READ_LIMIT`] at most.
    pub fn wait_for_other_tracks(&self) {
        let mut unfinished = self.unfinished.lock();
        let _ = self.finished.wait_while_for(&mut unfinished, |unfinished| *unfinished > 0, READ_LIMIT);
    }

    fn begin_other(&self) {
        *self.unfinished.lock() += 1;
    }

    fn end_other(&self) {
        let mut unfinished = self.unfinished.lock();
        *unfinished = unfinished.saturating_sub(1);
        self.finished.notify_all();
    }

    /// How far the tracks have been read.
    pub fn extent(&self) -> Extent {
        *self.extent.lock()
    }
}

/// Records how far a track is read that is not used (audio, subtitles): a file whose video ends before its audio is complete.
pub fn follow_unused_track(pad: &gst::Pad, tracks: &Arc<Tracks>) {
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
    /// Extended to `length`, the time from the first frame to the end of the last one in the timeline.
    pub fn with(self, length: Duration) -> Self {
        Extent { reached: self.reached.max(length), ..self }
    }
}

impl Extent {
    /// The missing part of a file that announces `length`, which in some formats includes the time before its first frame;
    /// `None` if it is complete. `frame` is the duration of the last frame. Announced lengths are not exact: some are rounded
    /// up to whole frames, some are estimates.
    pub fn shortfall(self, length: Duration, frame: Duration) -> Option<Shortfall> {
        let is_short = |reached: Duration, length: Duration| reached + length / 50 + 2 * frame < length;
        let written = self.written.is_none_or(|(first, last)| {
            // A first timestamp beyond the length cannot be included in it.
            first >= length || is_short(last - first, length - first)
        });
        (written && is_short(self.reached, length)).then_some(Shortfall { reached: self.reached, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_short_when_its_end_is_missing_and_not_when_it_has_few_frames() {
        let seconds = Duration::from_secs_f64;
        let extent = |first, reached| Extent {
            reached: seconds(reached),
            written: Some((seconds(first), seconds(first + reached))),
        };
        let of = |reached, length, frame| extent(0.0, reached).shortfall(seconds(length), seconds(frame)).is_some();
        assert!(!of(10.0, 10.0, 1.0 / 60.0));
        assert!(!of(9.95, 10.0, 1.0 / 30.0), "a rounded length");
        assert!(!of(20.0, 30.0, 5.0), "one frame in five seconds: the duration of the last one is not known");
        assert!(of(5.0, 10.0, 1.0 / 30.0) && of(9.5, 10.0, 1.0 / 30.0) && of(0.4, 1.0, 1.0 / 15.0));
        assert!(!of(5.0, 0.0, 0.0), "no length");
        // Timestamps that begin at an hour. The length of Matroska is the latest end, that of others the time from the first
        // timestamp to it.
        let late = |reached, length| extent(3600.0, reached).shortfall(seconds(length), seconds(1.0 / 15.0));
        assert_eq!((late(2.0, 3602.0), late(2.0, 2.0)), (None, None));
        assert_eq!(late(1.0, 3602.0), Some(Shortfall { reached: seconds(1.0), length: seconds(3602.0) }));
        assert!(late(1.0, 2.0).is_some());
    }
}
