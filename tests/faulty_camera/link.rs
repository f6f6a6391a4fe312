//! Faults of the network between the camera and its clients, and of the camera's clock.

use std::sync::{Mutex, PoisonError};

use fastrand::Rng;
use gstreamer as gst;

/// The faults that are active.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Fraction of packets that are lost.
    pub lost: f64,
    /// Fraction of packets with damaged bytes.
    pub damaged: f64,
    /// Minimum and maximum.
    pub delay_ms: Option<[u32; 2]>,
    /// Added to RTP timestamps, in seconds.
    pub clock_offset: f64,
    /// Speed of the RTP clock relative to real time.
    pub clock_rate: f64,
}

impl Faults {
    const NONE: Faults = Faults { lost: 0.0, damaged: 0.0, delay_ms: None, clock_offset: 0.0, clock_rate: 1.0 };
}

/// The active faults, and a random number generator with a fixed seed.
pub struct Link {
    faults: Mutex<Faults>,
    random: Mutex<Rng>,
}

impl Default for Link {
    fn default() -> Self {
        Link { faults: Mutex::new(Faults::NONE), random: Mutex::new(Rng::with_seed(7)) }
    }
}

/// What happens to a packet.
pub enum PacketFate {
    Delivered,
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

    pub fn clear(&self) {
        self.set(|faults| *faults = Faults::NONE);
    }

    /// Decides at random what happens to the next packet.
    pub fn fate(&self) -> PacketFate {
        let Faults { lost, damaged, .. } = self.faults();
        match self.with_random(|random| random.f64()) {
            value if value < lost => PacketFate::Lost,
            value if value < lost + damaged => PacketFate::Damaged,
            _ => PacketFate::Delivered,
        }
    }

    /// Damages one byte in 16 of `data` after `start`, at least one.
    pub fn damage(&self, data: &mut [u8], start: usize) {
        let Some(rest) = data.get_mut(start..).filter(|rest| !rest.is_empty()) else { return };
        self.with_random(|random| {
            for _ in 0..rest.len().div_ceil(16) {
                let at = random.usize(..rest.len());
                rest[at] ^= random.u8(1..);
            }
        });
    }

    fn with_random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Length of the RTP header (RFC 3550, 5.1) without contributing sources and extensions, which payloaders do not write.
const RTP_HEADER: usize = 12;

/// Length of the payload header (fragments of a NAL unit, of a JPEG). It stays undamaged, so that damaged data reaches the
/// decoder.
const PAYLOAD_HEADER: usize = 8;

/// RTP clock rate of all video formats that the camera sends, Hz.
const RTP_CLOCK: f64 = 90_000.0;

/// Applies the faults to the RTP packets of one payloader.
pub struct PacketFilter {
    /// The first RTP timestamp, at which clock faults start.
    start: Option<u32>,
}

impl PacketFilter {
    pub fn new() -> Self {
        PacketFilter { start: None }
    }

    /// The packet with faults applied; `None` when it is lost.
    pub fn apply(&mut self, link: &Link, mut packet: gst::Buffer) -> Option<gst::Buffer> {
        let fate = link.fate();
        if matches!(fate, PacketFate::Lost) {
            return None;
        }
        let faults = link.faults();
        let restamp = faults.clock_offset != 0.0 || faults.clock_rate != 1.0;
        if !restamp && matches!(fate, PacketFate::Delivered) && self.start.is_some() {
            return Some(packet);
        }
        let Ok(mut map) = packet.make_mut().map_writable() else { return None };
        if let Some(stamp) = map.get_mut(4..8).and_then(|stamp| <&mut [u8; 4]>::try_from(stamp).ok()) {
            let time = u32::from_be_bytes(*stamp);
            let start = *self.start.get_or_insert(time);
            let passed = f64::from(time.wrapping_sub(start)) * faults.clock_rate + faults.clock_offset * RTP_CLOCK;
            *stamp = start.wrapping_add(passed.round() as i64 as u32).to_be_bytes();
        }
        if matches!(fate, PacketFate::Damaged) {
            link.damage(&mut map, RTP_HEADER + PAYLOAD_HEADER);
        }
        drop(map);
        Some(packet)
    }
}
