//! A monotonic clock that tests can advance.
//!
//! Code that waits, or that compares times which may be minutes apart, takes a [`Clock`]. The service passes the system's
//! clock; tests pass a manual clock, which changes only when they advance it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

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
