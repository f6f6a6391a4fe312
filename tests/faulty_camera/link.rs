//! What happens to pictures and packets between the camera and its clients.

use std::sync::{Mutex, PoisonError};

use fastrand::Rng;
use gstreamer as gst;

/// Faults of the network and of the camera's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Share of packets that are lost.
    pub lost: f64,
    /// Share of packets in which bytes are damaged.
    pub damaged: f64,
    /// From, to.
    pub delay_ms: Option<[u32; 2]>,
    /// Added to RTP timestamps, in seconds.
    pub clock_offset: f64,
    /// RTP seconds in a second.
    pub clock_rate: f64,
}

impl Faults {
    const NONE: Faults = Faults { lost: 0.0, damaged: 0.0, delay_ms: None, clock_offset: 0.0, clock_rate: 1.0 };
}

/// The faults as they are now, and the dice: the same ones in every run.
pub struct Link {
    faults: Mutex<Faults>,
    random: Mutex<Rng>,
}

impl Default for Link {
    fn default() -> Self {
        Link { faults: Mutex::new(Faults::NONE), random: Mutex::new(Rng::with_seed(7)) }
    }
}

/// What becomes of a packet.
pub enum Fate {
    Arrives,
    Lost,
    Damaged,
}

impl Link {
    pub fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn mend(&self) {
        self.set(|faults| *faults = Faults::NONE);
    }

    /// Throws the dice for the next packet.
    pub fn fate(&self) -> Fate {
        let Faults { lost, damaged, .. } = self.faults();
        match self.dice(|random| random.f64()) {
            value if value < lost => Fate::Lost,
            value if value < lost + damaged => Fate::Damaged,
            _ => Fate::Arrives,
        }
    }

    /// Damages bytes of `data` from `start` on: one in 16, at least one.
    pub fn damage(&self, data: &mut [u8], start: usize) {
        let Some(rest) = data.get_mut(start..).filter(|rest| !rest.is_empty()) else { return };
        self.dice(|random| {
            for _ in 0..rest.len().div_ceil(16) {
                let at = random.usize(..rest.len());
                rest[at] ^= random.u8(1..);
            }
        });
    }

    fn dice<T>(&self, throw: impl FnOnce(&mut Rng) -> T) -> T {
        throw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// RTP's fixed header (RFC 3550, 5.1), without contributing sources or extension: payloaders write none.
const RTP_HEADER: usize = 12;

/// Bytes after it that tell how the payload is packed (fragments of a NAL unit, of a JPEG): left whole, so that damage
/// reaches the decoder.
const PAYLOAD_HEADER: usize = 8;

/// RTP clock of all video formats that are sent here.
const RTP_CLOCK: f64 = 90_000.0;

/// The RTP packets of one payloader, on their way.
pub struct Packets {
    /// The first timestamp, where the camera's clock and time agree.
    start: Option<u32>,
}

impl Packets {
    pub fn new() -> Self {
        Packets { start: None }
    }

    /// The packet as it arrives, if it does.
    pub fn pass(&mut self, link: &Link, mut packet: gst::Buffer) -> Option<gst::Buffer> {
        let fate = link.fate();
        if matches!(fate, Fate::Lost) {
            return None;
        }
        let faults = link.faults();
        let restamp = faults.clock_offset != 0.0 || faults.clock_rate != 1.0;
        if !restamp && matches!(fate, Fate::Arrives) && self.start.is_some() {
            return Some(packet);
        }
        let Ok(mut map) = packet.make_mut().map_writable() else { return None };
        if let Some(stamp) = map.get_mut(4..8).and_then(|stamp| <&mut [u8; 4]>::try_from(stamp).ok()) {
            let time = u32::from_be_bytes(*stamp);
            let start = *self.start.get_or_insert(time);
            let passed = f64::from(time.wrapping_sub(start)) * faults.clock_rate + faults.clock_offset * RTP_CLOCK;
            *stamp = start.wrapping_add(passed.round() as i64 as u32).to_be_bytes();
        }
        if matches!(fate, Fate::Damaged) {
            link.damage(&mut map, RTP_HEADER + PAYLOAD_HEADER);
        }
        drop(map);
        Some(packet)
    }
}
