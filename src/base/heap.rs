//! Returns freed memory to the system.
//!
//! glibc keeps freed memory for later allocations, and returns only free memory at the end of a heap. A long-lived
//! allocation there keeps all below it: after fifty viewers have disconnected, half of the process's memory is unused.
//! Therefore `malloc_trim` is called from time to time, which returns every page without an allocation.
//!
//! The call is unsafe, because glibc's function has no safe wrapper.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// The time between two calls. A call blocks threads that allocate for some milliseconds at most, and pages that are needed
/// again cost a page fault each.
const INTERVAL: Duration = Duration::from_secs(30);

/// Returns freed memory to the system every 30 seconds.
pub struct Heap {
    trimmed_at: Instant,
}

impl Default for Heap {
    fn default() -> Self {
        Heap { trimmed_at: Instant::now() }
    }
}

impl Heap {
    /// Returns memory if the interval has passed. To be called at least that often.
    pub fn tick(&mut self) {
        if self.trimmed_at.elapsed() >= INTERVAL {
            trim();
            self.trimmed_at = Instant::now();
        }
    }
}

/// Other C libraries have no such function.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: The argument is a number, not a pointer. The function may be called at any time by any thread: it takes the
    // locks of the heaps, and releases only pages without an allocation.
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
    fn memory_between_long_lived_allocations_is_returned() {
        // Other tests may allocate half of it meanwhile.
        const FREED: usize = 128 << 20;
        let mut pieces: Vec<Option<Box<[u8]>>> =
            (0..FREED / 1024).map(|_| Some(vec![1; 1024].into_boxed_slice())).collect();
        // One piece in 64 is kept, so that the end of no heap is free.
        pieces.iter_mut().enumerate().filter(|(at, _)| at % 64 != 63).for_each(|(_, piece)| *piece = None);
        let before = resident();
        trim();
        let returned = before.saturating_sub(resident());
        assert!(returned > FREED / 2, "{returned} of {FREED} bytes returned");
        drop(pieces);
    }
}
