//! Waiting for what another process does: it sends no event for it.

use std::time::{Duration, Instant};

use crossbeam_channel::tick;

/// How long a test waits for what must come. It only ends tests that hang: machines that run tests are slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, ask)
}

/// The same with another deadline.
pub fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    let again = tick(Duration::from_millis(25));
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        let _ = again.recv();
    }
}
