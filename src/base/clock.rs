//! A monotonic clock that tests can advance.
//!
//! Code that waits, or that compares times which may be minutes apart, takes a [`Clock`]. The service passes the system's
//! clock; tests pass a manual clock, which changes only when they advance it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use parking_lot::Mutex;

/// Two readings of the clocks that are closer together than this are taken as one moment.
const ONE_MOMENT: Duration = Duration::from_micros(20);

/// How often the clocks are read until two readings are that close.
const MOST_READINGS: usize = 8;

/// Now, by the wall clock and by the monotonic clock. A thread that is interrupted between two readings gets times of
/// different moments, so that they are repeated until they are close together.
pub fn now_by_both() -> (Timestamp, Instant) {
    let read = || {
        let (before, wall) = (Instant::now(), Timestamp::now());
        (before.elapsed(), wall, before)
    };
    let mut best = read();
    for _ in 1..MOST_READINGS {
        if best.0 < ONE_MOMENT {
            break;
        }
        let next = read();
        if next.0 < best.0 {
            best = next;
        }
    }
    (best.1, best.2)
}

/// A time with the precision of messages and of the history: the millisecond that it is in. Text with three digits
/// (`{:.3}`) has the same.
pub fn to_millisecond(time: Timestamp) -> Timestamp {
    time.round(TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Trunc)).unwrap_or(time)
}

/// A monotonic clock: the system's, or a manual one. Clones of a manual clock share its time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// The time of a manual clock.
#[derive(Debug)]
struct Manual {
    start: Instant,
    elapsed: Mutex<Duration>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock(None)
    }

    /// A clock that starts at the current time and does not run. [`Clock::advance`] and [`Clock::sleep_until`] advance it.
    pub fn manual() -> Self {
        Clock(Some(Arc::new(Manual { start: Instant::now(), elapsed: Mutex::default() })))
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.start + *manual.elapsed.lock(),
        }
    }

    /// Blocks the thread until `deadline`. With a manual clock it returns at once and advances the clock to `deadline`, if
    /// that is later.
    pub fn sleep_until(&self, deadline: Instant) {
        match &self.0 {
            None => std::thread::sleep(deadline.saturating_duration_since(Instant::now())),
            Some(manual) => {
                let mut elapsed = manual.elapsed.lock();
                *elapsed = deadline.saturating_duration_since(manual.start).max(*elapsed);
            }
        }
    }

    /// Advances a manual clock.
    ///
    /// # Panics
    /// When this is the system's clock.
    pub fn advance(&self, by: Duration) {
        let manual = self.0.as_ref().expect("only a manual clock can be advanced");
        *manual.elapsed.lock() += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_millisecond_that_their_text_has() {
        for text in ["2026-11-30T04:00:00.1239999Z", "2026-11-30T04:00:00.123Z", "2026-11-30T04:00:00.9995Z"] {
            let time: Timestamp = text.parse().unwrap();
            let shown: Timestamp = format!("{time:.3}").parse().unwrap();
            assert_eq!(to_millisecond(time), shown, "{text}");
            assert!(time.duration_since(shown).as_secs_f64() < 0.001, "{text}");
        }
    }

    /// The difference of the two clocks is the same in all readings, also on a busy machine.
    #[test]
    fn both_clocks_are_read_at_the_same_moment() {
        let (wall, monotonic) = now_by_both();
        for _ in 0..1000 {
            let (later, at) = now_by_both();
            let difference = later.duration_since(wall).as_secs_f64() - at.duration_since(monotonic).as_secs_f64();
            assert!(difference.abs() < 0.001, "{difference} s");
        }
    }

    #[test]
    fn a_manual_clock_changes_only_when_it_is_advanced() {
        let clock = Clock::manual();
        let (start, same) = (clock.now(), clock.clone());
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(same.now(), start + Duration::from_secs(3600));
        // A sleep advances the clock to its deadline; a deadline in the past changes nothing.
        same.sleep_until(start + Duration::from_secs(7200));
        same.sleep_until(start);
        assert_eq!(clock.now(), start + Duration::from_secs(7200));
    }

    #[test]
    fn a_sleep_with_the_systems_clock_lasts_until_its_deadline() {
        let clock = Clock::system();
        let deadline = clock.now() + Duration::from_millis(20);
        clock.sleep_until(deadline);
        assert!(Instant::now() >= deadline);
    }
}
