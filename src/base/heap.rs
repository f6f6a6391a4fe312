//! Memory that the process has freed, for the system to have.
//!
//! glibc keeps what is freed for whoever asks next, and gives back only what lies at a heap's end, which something that
//! lives long always pins. When fifty viewers have left, half of the process's memory lies idle: so from time to time glibc
//! is asked to give back every page that nothing is on.
//!
//! The one call that is not safe Rust: glibc's function has no safe wrapper.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Between two times. Threads that allocate wait for some milliseconds at most, and pages that are needed again cost a
/// little: too little to be seen if it is not done all the time.
const PAUSE: Duration = Duration::from_secs(30);

/// Gives memory back from time to time.
pub struct Heap {
    tidied: Instant,
}

impl Default for Heap {
    fn default() -> Self {
        Heap { tidied: Instant::now() }
    }
}

impl Heap {
    /// Gives memory back if it is time to; called often.
    pub fn tick(&mut self) {
        if self.tidied.elapsed() >= PAUSE {
            give_back();
            self.tidied = Instant::now();
        }
    }
}

/// Other C libraries have no such function, and no need of it.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: It takes a number, no pointer, and may be called at any time and by any thread: it takes the heaps' own locks,
    // and touches only pages on which nothing is allocated.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Resident memory, bytes.
    fn resident() -> usize {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        1024 * line.split_whitespace().next().unwrap().parse::<usize>().unwrap()
    }

    #[test]
    fn memory_between_what_lives_long_is_given_back() {
        // Half of it may be other tests' doing.
        const FREED: usize = 128 << 20;
        let mut pieces: Vec<Option<Box<[u8]>>> =
            (0..FREED / 1024).map(|_| Some(vec![1; 1024].into_boxed_slice())).collect();
        // A piece in 64 stays, so that no end of a heap is free.
        pieces.iter_mut().enumerate().filter(|(at, _)| at % 64 != 63).for_each(|(_, piece)| *piece = None);
        let kept = resident();
        give_back();
        let given_back = kept.saturating_sub(resident());
        assert!(given_back > FREED / 2, "{given_back} of {FREED} bytes");
        drop(pieces);
    }
}
