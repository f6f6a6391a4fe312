//! The camera's own clock, as its RTP packets carry it (RFC 3550, section 5.1).
//!
//! What GStreamer stamps buffers with is no help where it matters: its jitter buffer takes a backlog, which comes at
//! once, for a clock that has jumped, and stamps old pictures as new.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;

use gst::prelude::*;

/// Time of the first packet: packets may be older than the first that came.
const START: Duration = Duration::from_secs(1 << 30);

/// Ticks a second where the stream does not say; all video has this rate.
const VIDEO_RATE: u32 = 90_000;

/// The time of the newest packet that went into the decoder.
#[derive(Debug, Default)]
pub struct RtpClock {
    newest: Mutex<Option<Packet>>,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    ticks: u32,
    time: Duration,
}

impl RtpClock {
    /// From some moment on; `None` where there are no packets.
    pub fn now(&self) -> Option<Duration> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).map(|packet| packet.time)
    }

    fn set(&self, ticks: u32, rate: u32) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let time = newest.map_or(START, |before| {
            // Ticks begin anew every thirteen hours; half of that may lie between two packets.
            let passed = ticks.wrapping_sub(before.ticks) as i32;
            let span = Duration::from_secs_f64(f64::from(passed.unsigned_abs()) / f64::from(rate.max(1)));
            if passed < 0 { before.time.saturating_sub(span) } else { before.time + span }
        });
        *newest = Some(Packet { ticks, time });
    }
}

/// Lets `clock` follow what goes through `element`, if that takes video out of RTP packets.
pub fn follow(element: &gst::Element, clock: &Arc<RtpClock>) {
    let is_depayloader =
        element.factory().is_some_and(|factory| factory.has_type(gst::ElementFactoryType::DEPAYLOADER));
    let Some(pad) = element.static_pad("sink").filter(|_| is_depayloader) else { return };
    let clock = Arc::clone(clock);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let rate = pad.current_caps().and_then(|caps| video_rate(&caps));
        let ticks = info.buffer().and_then(timestamp);
        if let (Some(rate), Some(ticks)) = (rate, ticks) {
            clock.set(ticks, rate);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Ticks a second, if it is video.
fn video_rate(caps: &gst::Caps) -> Option<u32> {
    let fields = caps.structure(0)?;
    let rate = fields.get::<i32>("clock-rate").ok().and_then(|rate| u32::try_from(rate).ok());
    (fields.get::<&str>("media") == Ok("video")).then(|| rate.unwrap_or(VIDEO_RATE))
}

/// Of a packet's header.
fn timestamp(packet: &gst::Buffer) -> Option<u32> {
    let mut ticks = [0; 4];
    packet.copy_to_slice(4, &mut ticks).ok()?;
    Some(u32::from_be_bytes(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_time_across_their_wrap_and_backwards() {
        let clock = RtpClock::default();
        assert_eq!(clock.now(), None);
        for (ticks, millis) in [(u32::MAX - 899, 0), (900, 20), (0, 10), (90_000, 1010), (90_000 - 45_000, 510)] {
            clock.set(ticks, VIDEO_RATE);
            assert_eq!(clock.now(), Some(START + Duration::from_millis(millis)), "{ticks}");
        }
    }
}
