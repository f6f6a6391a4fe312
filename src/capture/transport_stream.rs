//! Detection of packet loss in MPEG transport streams (ISO/IEC 13818-1; SRT, HTTP), which GStreamer's demuxer does not report:
//! it drops the damaged frame, and outputs those that refer to it.

use std::collections::HashMap;

use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;

use super::keyframe::report_loss;

/// The size of a packet in bytes, and its first byte (ISO/IEC 13818-1, section 2.4.3.2).
const PACKET: usize = 188;
const SYNC: u8 = 0x47;

/// The packet identifier (PID) of null packets.
const PADDING: u16 = 0x1fff;

/// The state of one transport stream.
#[derive(Debug, Default)]
struct Scan {
    /// The first bytes of an incomplete packet.
    rest: Vec<u8>,
    tracks: HashMap<u16, Track>,
}

#[derive(Debug, Default)]
struct Track {
    /// The continuity counter of the newest packet with a payload.
    counter: Option<u8>,
    video: bool,
}

impl Scan {
    /// Reads the next bytes; true if packets of a video track are missing in or before them.
    fn scan(&mut self, bytes: &[u8]) -> bool {
        let mut data = std::mem::take(&mut self.rest);
        data.extend_from_slice(bytes);
        let (mut at, mut lost) = (0, false);
        while let Some(packet) = data.get(at..at + PACKET) {
            if packet[0] == SYNC {
                lost |= self.packet(packet);
                at += PACKET;
            } else {
                at += packet.iter().position(|&byte| byte == SYNC).unwrap_or(PACKET);
            }
        }
        self.rest = data.split_off(at);
        lost
    }

    fn packet(&mut self, packet: &[u8]) -> bool {
        let id = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let (has_payload, has_adaptation) = (packet[3] & 0x10 != 0, packet[3] & 0x20 != 0);
        if id == PADDING || !has_payload {
            return false;
        }
        let payload = if has_adaptation { 5 + usize::from(packet[4]) } else { 4 };
        let track = self.tracks.entry(id).or_default();
        // A PES packet begins here; its stream identifier shows whether the track is video (section 2.4.3.7).
        if packet[1] & 0x40 != 0
            && let Some(&[0, 0, 1, kind]) = packet.get(payload..payload + 4)
        {
            track.video = (0xe0..=0xef).contains(&kind);
        }
        let counter = packet[3] & 0x0f;
        // A packet may be sent twice (section 2.4.3.3).
        let follows = track.counter.is_none_or(|before| counter == before || counter == (before + 1) & 0x0f);
        track.counter = Some(counter);
        track.video && !follows
    }
}

/// Reports lost packets in the input of `element`, if that is a demuxer of transport streams.
pub fn report_losses(element: &gst::Element) {
    let is_demuxer = element.factory().is_some_and(|factory| factory.name() == "tsdemux");
    let Some(pad) = element.static_pad("sink").filter(|_| is_demuxer) else { return };
    let scan = Mutex::new(Scan::default());
    // Data from the network is pushed.
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::PUSH, move |pad, info| {
        let lost =
            info.buffer().and_then(|buffer| buffer.map_readable().ok()).is_some_and(|bytes| scan.lock().scan(&bytes));
        if lost {
            // The parser still has the last complete frame.
            report_loss(pad, None, None, 1);
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: u16 = 0x100;
    const AUDIO: u16 = 0x101;

    /// A packet of the track `id`, in which a PES packet with the stream identifier `starts` begins.
    fn packet(id: u16, counter: u8, starts: Option<u8>) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let mut packet = vec![SYNC, high | if starts.is_some() { 0x40 } else { 0 }, low, 0x10 | counter];
        packet.extend(starts.map_or([9; 4], |kind| [0, 0, 1, kind]));
        packet.resize(PACKET, 0x55);
        packet
    }

    fn feed_all(scan: &mut Scan, packets: &[Vec<u8>]) -> bool {
        scan.scan(&packets.concat())
    }

    #[test]
    fn only_missing_packets_of_a_video_track_are_a_loss() {
        let mut scan = Scan::default();
        let begin = [packet(VIDEO, 14, Some(0xe0)), packet(AUDIO, 3, Some(0xc0)), packet(VIDEO, 15, None)];
        assert!(!feed_all(&mut scan, &begin));
        assert!(!feed_all(&mut scan, &[packet(VIDEO, 0, None), packet(VIDEO, 0, None), packet(VIDEO, 1, Some(0xe0))]));
        assert!(!feed_all(&mut scan, &[packet(AUDIO, 9, None)]), "audio");
        assert!(!feed_all(&mut scan, &[packet(PADDING, 5, None), packet(PADDING, 5, None)]));
        assert!(feed_all(&mut scan, &[packet(VIDEO, 4, None)]));
        assert!(!feed_all(&mut scan, &[packet(VIDEO, 5, None)]), "once");
    }

    #[test]
    fn packets_are_found_in_pieces_and_after_other_bytes() {
        let stream =
            [packet(VIDEO, 0, Some(0xe0)), vec![1, 2, 3], packet(VIDEO, 1, None), packet(VIDEO, 3, None)].concat();
        for size in [1, 100, 188, 1316] {
            let mut scan = Scan::default();
            let losses: Vec<usize> =
                stream.chunks(size).enumerate().filter(|(_, piece)| scan.scan(piece)).map(|(n, _)| n).collect();
            assert_eq!(losses.len(), 1, "in pieces of {size}: {losses:?}");
            assert_eq!(losses[0], (stream.len() - 1) / size);
        }
    }
}
