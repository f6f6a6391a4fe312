//! What an event's recording begins with: the newest encoded pictures, from a keyframe on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An encoded picture in the ring.
pub trait RingUnit {
    /// Whether decoding can begin with it.
    fn is_keyframe(&self) -> bool;
    /// When it came.
    fn at(&self) -> Instant;
    /// What it takes of the memory.
    fn bytes(&self) -> usize;
}

/// Holds the pictures of the last `span`, and those before it as far back as the keyframe that they need; never more
/// than `most_bytes`.
pub struct Ring<U> {
    units: VecDeque<U>,
    bytes: usize,
    span: Duration,
    most_bytes: usize,
}

impl<U: RingUnit> Ring<U> {
    pub fn new(span: Duration, most_bytes: usize) -> Self {
        Ring { units: VecDeque::new(), bytes: 0, span, most_bytes }
    }

    /// Adds the newest picture. Pictures that cannot be decoded, because nothing before them is held, are not taken.
    pub fn push(&mut self, unit: U) {
        if self.units.is_empty() && !unit.is_keyframe() {
            return;
        }
        let begin = unit.at().checked_sub(self.span);
        self.bytes += unit.bytes();
        self.units.push_back(unit);
        // A group of pictures goes when the next one begins early enough, or when there is too much.
        while let Some(next) = self.second_keyframe()
            && (self.bytes > self.most_bytes || begin.is_some_and(|begin| self.units[next].at() <= begin))
        {
            self.drop_front(next);
        }
        if self.bytes > self.most_bytes {
            // One group is too large by itself: the ring is of use again from the next keyframe on.
            self.clear();
        }
    }

    /// The pictures to begin a recording with that shall hold everything from `from` on: from the last keyframe that is
    /// not younger, or else from the first that is held.
    pub fn since(&self, from: Instant) -> impl Iterator<Item = &U> {
        let start = self.units.iter().rposition(|unit| unit.is_keyframe() && unit.at() <= from).unwrap_or(0);
        self.units.range(start..)
    }

    /// Forgets everything, as when the pictures change their size.
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

    /// A ring after `count` pictures, one a second, every `group`-th a keyframe; `first` is the first picture's number.
    fn ring(span: u64, most: usize, group: u64, first: u64, count: u64, start: Instant) -> Ring<TestUnit> {
        let mut ring = Ring::new(Duration::from_secs(span), most);
        for n in first..first + count {
            ring.push(TestUnit { n, start, keyframe: n % group == 0 });
        }
        ring
    }

    fn numbers(ring: &Ring<TestUnit>, from: Instant) -> Vec<u64> {
        ring.since(from).map(|unit| unit.n).collect()
    }

    #[test]
    fn holds_its_span_from_a_keyframe_on() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ring = ring(5, 10_000, 4, 0, 100, start);
        assert_eq!(ring.units.front().map(|unit| unit.n), Some(92), "94 is 5 s before the last and needs 92");
        assert_eq!(numbers(&ring, at(94)), (92..100).collect::<Vec<_>>());
        assert_eq!(numbers(&ring, at(96)), (96..100).collect::<Vec<_>>());
        assert_eq!(numbers(&ring, at(98)), (96..100).collect::<Vec<_>>());
        assert_eq!(numbers(&ring, at(3)), (92..100).collect::<Vec<_>>(), "what there is");
        assert_eq!(ring.bytes, 80);
    }

    #[test]
    fn begins_with_a_keyframe() {
        let start = Instant::now();
        assert_eq!(numbers(&ring(5, 10_000, 4, 5, 3, start), start), [] as [u64; 0]);
        assert_eq!(numbers(&ring(5, 10_000, 4, 5, 5, start), start), [8, 9]);
    }

    #[test]
    fn is_bounded_by_bytes() {
        let start = Instant::now();
        let ring_of = |most, count| numbers(&ring(1000, most, 4, 0, count, start), start);
        assert_eq!(ring_of(100, 12), (4..12).collect::<Vec<_>>(), "whole groups go");
        assert_eq!(ring_of(30, 8), [] as [u64; 0], "a group of 40 bytes does not fit");
        assert_eq!(ring_of(30, 10), [8, 9], "the next one is taken");
        for count in 0..50 {
            assert!(ring(1000, 75, 4, 0, count, start).bytes <= 75, "{count}");
        }
    }
}
