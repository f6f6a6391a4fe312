//! Slates: images that viewers get while a source is offline: the last frame, with a text.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use crate::base::status::{StatusFields, StreamState};
use crate::frame::{Frame, PixelFormat, VideoInfo};
use crate::publish::CaptureTime;
use crate::redact::{ClearedFrame, ClearedImage};

/// How often viewers of an offline source get a slate. Players need a few frames before they show the first.
pub(super) const SLATE_INTERVAL: Duration = Duration::from_millis(200);

/// While the source sends no keyframe, the last frame stays without a text for this long.
const BRIEF: Duration = Duration::from_secs(1);

/// The size of a slate before the first frame of the camera.
const SLATE_SIZE: (usize, usize) = (640, 360);

/// The slates of a stream, since its last frame.
#[derive(Default)]
pub(super) struct Slates {
    shown_at: Option<Instant>,
    /// The last frame after redaction.
    image: Option<ClearedImage>,
}

/// What is published as a slate, beside the last frame.
pub(super) struct Slate {
    pub stamp: CaptureTime,
    pub info: VideoInfo,
    pub lines: [String; 2],
}

impl Slates {
    /// Whether one was shown since the last frame.
    pub fn are_shown(&self) -> bool {
        self.shown_at.is_some()
    }

    /// Whether viewers get one now, in this condition of a stream whose newest frame is `last`.
    pub fn is_due(&self, condition: &StatusFields, last: Option<&Frame>) -> bool {
        let due = self.shown_at.is_none_or(|at| at.elapsed() >= SLATE_INTERVAL - SLATE_INTERVAL / 10);
        // A loss that the next keyframe repairs at once needs no text.
        let brief = condition.state == StreamState::AwaitsKeyframe
            && last.is_some_and(|last| last.captured_at.elapsed() < BRIEF);
        due && condition.state.shows_slate() && !brief
    }

    /// Sets what the slates show of the last frame.
    pub fn set_image(&mut self, image: Option<ClearedImage>) {
        self.image = image;
    }

    /// What the slates show of the last frame.
    pub fn image(&self) -> Option<ClearedFrame<'_>> {
        self.image.as_ref().map(ClearedImage::frame)
    }

    /// The slate that is shown now.
    pub fn next(&mut self, condition: &StatusFields, last: Option<&Frame>) -> Slate {
        let now = Instant::now();
        self.shown_at = Some(now);
        let info = last.map_or(
            VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, SLATE_SIZE.0, SLATE_SIZE.1) },
            Frame::info,
        );
        let title = match condition.state {
            StreamState::AwaitsKeyframe => "WAITING FOR A KEYFRAME",
            _ if condition.ended => "ENDED",
            _ => "OFFLINE",
        };
        let since = condition.since.to_zoned_datetime(TimeZone::system()).strftime("since %H:%M:%S").to_string();
        // The clock of the source does not advance; that of the slate continues from the last frame.
        let pts = last.map_or(Duration::ZERO, |last| last.pts + last.captured_at.elapsed());
        Slate { stamp: CaptureTime { pts, captured_at: now, slate: true }, info, lines: [title.to_owned(), since] }
    }
}
