//! The time that the service goes by, so that tests can move it.
//!
//! Code that waits, or that compares moments which may lie minutes apart, takes a [`Clock`]. The service gives it the
//! system's clock, tests give it one that stands still until they move it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A monotonic clock: the system's, or one that a test moves. Clones of a manual clock show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// A clock that stands still until it is moved.
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

    /// A clock that starts at the present time and then stands still: [`Clock::advance`] moves it, and so does a thread that
    /// sleeps by it.
    pub fn manual() -> Self {
        Clock(Some(Arc::new(Manual { start: Instant::now(), elapsed: Mutex::default() })))
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.start + *manual.elapsed.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Blocks the thread until `deadline`. By a manual clock it returns at once, and the clock then shows `deadline` at
    /// least.
    pub fn sleep_until(&self, deadline: Instant) {
        match &self.0 {
            None => std::thread::sleep(deadline.saturating_duration_since(Instant::now())),
            Some(manual) => {
                let mut elapsed = manual.elapsed.lock().unwrap_or_else(PoisonError::into_inner);
                *elapsed = deadline.saturating_duration_since(manual.start).max(*elapsed);
            }
        }
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// The system's clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        let manual = self.0.as_ref().expect("only a manual clock can be moved");
        *manual.elapsed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_it_is_moved() {
        let clock = Clock::manual();
        let (start, same) = (clock.now(), clock.clone());
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(same.now(), start + Duration::from_secs(3600));
        // A sleep ends at its deadline, and one that is over already moves nothing.
        same.sleep_until(start + Duration::from_secs(7200));
        same.sleep_until(start);
        assert_eq!(clock.now(), start + Duration::from_secs(7200));
    }

    #[test]
    fn a_sleep_by_the_systems_clock_lasts_until_its_deadline() {
        let clock = Clock::system();
        let deadline = clock.now() + Duration::from_millis(20);
        clock.sleep_until(deadline);
        assert!(Instant::now() >= deadline);
    }
}
