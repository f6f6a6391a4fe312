//! The camera's clock by the timestamps of its RTP packets (RFC 3550, section 5.1).
//!
//! GStreamer's timestamps cannot be used to detect late frames: its jitter buffer treats a backlog, whose packets arrive at
//! once, as a jump of the clock, and gives old frames new timestamps.

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;

use super::keyframe::report_loss;

/// The time of the first packet. It is not zero, because later packets may have an earlier timestamp.
const START: Duration = Duration::from_secs(1 << 30);

/// The clock rate of video in ticks per second (RFC 3551, section 5), if the caps do not have it.
const VIDEO_RATE: u32 = 90_000;

/// The time of the newest packet that was passed to the decoder.
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
    /// The time from an arbitrary start; `None` before the first packet.
    pub fn now(&self) -> Option<Duration> {
        self.newest.lock().map(|packet| packet.time)
    }

    fn set(&self, ticks: u32, rate: u32) {
        let mut newest = self.newest.lock();
        let time = newest.map_or(START, |before| {
            // The timestamp wraps every 13 hours. Up to half of that may be between two packets.
            let passed = ticks.wrapping_sub(before.ticks) as i32;
            let span = Duration::from_secs_f64(f64::from(passed.unsigned_abs()) / f64::from(rate.max(1)));
            if passed < 0 { before.time.saturating_sub(span) } else { before.time + span }
        });
        *newest = Some(Packet { ticks, time });
    }
}

/// The header of a packet (RFC 3550, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RtpHeader {
    sequence: u16,
    ticks: u32,
    source: u32,
}

impl RtpHeader {
    fn of(packet: &gst::BufferRef) -> Option<Self> {
        let mut bytes = [0; 12];
        // `copy_to_slice` panics if the buffer is too short.
        if packet.size() < bytes.len() {
            return None;
        }
        packet.copy_to_slice(0, &mut bytes).ok()?;
        let [_, _, s0, s1, t0, t1, t2, t3, source @ ..] = bytes;
        Some(RtpHeader {
            sequence: u16::from_be_bytes([s0, s1]),
            ticks: u32::from_be_bytes([t0, t1, t2, t3]),
            source: u32::from_be_bytes(source),
        })
    }

    /// Whether packets are missing between `before` and this one.
    fn follows_a_gap(&self, before: &RtpHeader) -> bool {
        self.source != before.source || !matches!(self.sequence.wrapping_sub(before.sequence), 0 | 1)
    }
}

/// Updates `clock` with the packets of `element`, if that is a depayloader of video, and reports lost packets to the
/// decoder's gate.
pub fn follow_rtp(element: &gst::Element, clock: &Arc<RtpClock>) {
    let is_depayloader =
        element.factory().is_some_and(|factory| factory.has_type(gst::ElementFactoryType::DEPAYLOADER));
    let Some(pad) = element.static_pad("sink").filter(|_| is_depayloader) else { return };
    let clock = Arc::clone(clock);
    // The newest packet and its timestamp.
    let last: Mutex<Option<(RtpHeader, Option<gst::ClockTime>)>> = Mutex::default();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let rate = pad.current_caps().and_then(|caps| video_rate(&caps));
        let (Some(rate), Some(buffer)) = (rate, info.buffer()) else { return gst::PadProbeReturn::Ok };
        let Some(header) = RtpHeader::of(buffer) else { return gst::PadProbeReturn::Ok };
        clock.set(header.ticks, rate);
        let before = last.lock().replace((header, buffer.pts()));
        if let Some((before, time)) = before
            && header.follows_a_gap(&before)
        {
            report_loss(pad, time, buffer.pts(), 0);
        }
        gst::PadProbeReturn::Ok
    });
}

/// The clock rate in ticks per second; `None` if the caps are not video.
fn video_rate(caps: &gst::Caps) -> Option<u32> {
    let fields = caps.structure(0)?;
    let rate = fields.get::<i32>("clock-rate").ok().and_then(|rate| u32::try_from(rate).ok());
    (fields.get::<&str>("media") == Ok("video")).then(|| rate.unwrap_or(VIDEO_RATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_become_times_also_backwards_and_when_they_wrap() {
        let clock = RtpClock::default();
        assert_eq!(clock.now(), None);
        for (ticks, millis) in [(u32::MAX - 899, 0), (900, 20), (0, 10), (90_000, 1010), (90_000 - 45_000, 510)] {
            clock.set(ticks, VIDEO_RATE);
            assert_eq!(clock.now(), Some(START + Duration::from_millis(millis)), "{ticks}");
        }
    }

    #[test]
    fn a_gap_is_a_missing_sequence_number_or_another_source() {
        let header = |sequence, source| RtpHeader { sequence, ticks: 0, source };
        let gap = |before, after| header(after, 1).follows_a_gap(&header(before, 1));
        assert!(!gap(7, 8) && !gap(u16::MAX, 0) && !gap(7, 7));
        assert!(gap(7, 9) && gap(u16::MAX, 1) && gap(7, 6));
        assert!(header(8, 2).follows_a_gap(&header(7, 1)), "another source");
        let mut bytes = vec![0x80, 96, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 5, 1, 2, 3];
        let packet = gst_buffer(&bytes);
        assert_eq!(RtpHeader::of(&packet), Some(RtpHeader { sequence: 0x1234, ticks: 9, source: 5 }));
        bytes.truncate(11);
        assert_eq!(RtpHeader::of(&gst_buffer(&bytes)), None);
    }

    fn gst_buffer(bytes: &[u8]) -> gst::Buffer {
        gst::init().unwrap();
        gst::Buffer::from_slice(bytes.to_vec())
    }
}
