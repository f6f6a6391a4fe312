//! The pre-roll of event recordings: a ring of the newest encoded frames, starting at a keyframe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An encoded frame in the ring.
pub trait RingUnit {
    /// Whether decoding can start with this frame.
    fn is_keyframe(&self) -> bool;
    /// When the frame was received from the encoder.
    fn at(&self) -> Instant;
    /// Size in memory.
    fn bytes(&self) -> usize;
}

/// Holds the frames of the last `span` and the earlier ones back to the keyframe that they depend on, up to `max_bytes`
/// in total.
pub struct Ring<U> {
    units: VecDeque<U>,
    bytes: usize,
    span: Duration,
    max_bytes: usize,
}

impl<U: RingUnit> Ring<U> {
    pub fn new(span: Duration, max_bytes: usize) -> Self {
        Ring { units: VecDeque::new(), bytes: 0, span, max_bytes }
    }

    /// Adds the newest frame. A frame that cannot be decoded, because the ring is empty and it is not a keyframe, is
    /// dropped.
    pub fn push(&mut self, unit: U) {
        if self.units.is_empty() && !unit.is_keyframe() {
            return;
        }
        let begin = unit.at().checked_sub(self.span);
        self.bytes += unit.bytes();
        self.units.push_back(unit);
        // The oldest group of pictures is dropped when the next one starts before the span, or when the ring is too
        // large.
        while let Some(next) = self.second_keyframe()
            && (self.bytes > self.max_bytes || begin.is_some_and(|begin| self.units[next].at() <= begin))
        {
            self.drop_front(next);
        }
        if self.bytes > self.max_bytes {
            // A single group of pictures exceeds the limit: the ring fills again from the next keyframe.
            self.clear();
        }
    }

    /// The frames with which a recording must start to contain everything since `from`: from the last keyframe at or
    /// before `from`, or else from the oldest frame of the ring.
    pub fn since(&self, from: Instant) -> impl Iterator<Item = &U> {
        let start = self.units.iter().rposition(|unit| unit.is_keyframe() && unit.at() <= from).unwrap_or(0);
        self.units.range(start..)
    }

    /// Removes all frames, for example when the frame size changes.
    pub fn clear(&mut self) {
        self.units.clear();
        self.bytes = 0;
    }

    fn second_keyframe(&self) -> Option<usize> {
        self.units.iter().skip(1).position(RingUnit::is_keyframe).map(|index| index + 1)
    }

    fn drop_front(&mut self, count: usize) {
        self.bytes -= self.units.drain(..count).map(|unit| unit.bytes()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct TestUnit {
        n: u64,
        start: Instant,
        keyframe: bool,
    }

    impl RingUnit for TestUnit {
        fn is_keyframe(&self) -> bool {
            self.keyframe
        }
        fn at(&self) -> Instant {
            self.start + Duration::from_secs(self.n)
        }
        fn bytes(&self) -> usize {
            10
        }
    }

    /// A ring after `count` frames, one per second, every `group`-th a keyframe; `first` is the number of the first
    /// frame.
    fn ring(span: u64, max_bytes: usize, group: u64, first: u64, count: u64, start: Instant) -> Ring<TestUnit> {
        let mut ring = Ring::new(Duration::from_secs(span), max_bytes);
        for n in first..first + count {
            ring.push(TestUnit { n, start, keyframe: n % group == 0 });
        }
        ring
    }

    fn numbers(ring: &Ring<TestUnit>, from: Instant) -> Vec<u64> {
        ring.since(from).map(|unit| unit.n).collect()
    }

    #[test]
    fn the_ring_holds_its_span_from_a_keyframe() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ring = ring(5, 10_000, 4, 0, 100, start);
        assert_eq!(
            ring.units.front().map(|unit| unit.n),
            Some(92),
            "94 is 5 s before the last frame and depends on keyframe 92"
        );
        assert_eq!(numbers(&ring, at(94)), (92..100).collect::<Vec<_>>());
        assert_eq!(numbers(&ring, at(96)), (96..100).collect::<Vec<_>>());
        assert_eq!(numbers(&ring, at(98)), (96..100).collect::<Vec<_>>());
        assert_eq!(numbers(&ring, at(3)), (92..100).collect::<Vec<_>>(), "earlier frames are gone");
        assert_eq!(ring.bytes, 80);
    }

    #[test]
    fn the_ring_starts_with_a_keyframe() {
        let start = Instant::now();
        assert_eq!(numbers(&ring(5, 10_000, 4, 5, 3, start), start), [] as [u64; 0]);
        assert_eq!(numbers(&ring(5, 10_000, 4, 5, 5, start), start), [8, 9]);
    }

    #[test]
    fn the_ring_is_limited_in_bytes() {
        let start = Instant::now();
        let ring_of = |max_bytes, count| numbers(&ring(1000, max_bytes, 4, 0, count, start), start);
        assert_eq!(ring_of(100, 12), (4..12).collect::<Vec<_>>(), "complete groups of pictures are dropped");
        assert_eq!(ring_of(30, 8), [] as [u64; 0], "a group of 40 bytes does not fit");
        assert_eq!(ring_of(30, 10), [8, 9], "the ring fills again from the next keyframe");
        for count in 0..50 {
            assert!(ring(1000, 75, 4, 0, count, start).bytes <= 75, "{count}");
        }
    }
}
