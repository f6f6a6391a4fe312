//! Waiting for a change in another process, which sends no event for it.

use std::time::{Duration, Instant};

use crossbeam_channel::tick;

/// How long a test waits for an expected event. It only ends tests that hang: test machines may be slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// Calls `poll` repeatedly until it returns a value.
pub fn until<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, poll)
}

/// The same with another deadline.
pub fn until_within<T>(timeout: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    let interval = tick(Duration::from_millis(25));
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {timeout:?}");
        let _ = interval.recv();
    }
}
