//! The resident memory of this process, and how much of it a piece of work added.

use std::sync::atomic::{AtomicU64, Ordering};

use procfs::process::Process;

use super::heap;

/// Resident memory of this process in bytes; `None` where `/proc` does not have it.
pub fn resident() -> Option<u64> {
    let status = Process::myself().and_then(|process| process.status()).ok()?;
    status.vmrss.map(|kib| kib * 1024)
}

/// Measures the growth of the resident memory. Other work of the process at the same time is measured with it.
#[derive(Debug)]
pub struct MemoryGrowth {
    before: Option<u64>,
    /// The most bytes above `before` so far.
    grown: AtomicU64,
}

impl MemoryGrowth {
    /// Starts a measurement. Memory that was freed before is returned to the system, so that its reuse counts as growth.
    pub fn start() -> Self {
        heap::trim();
        MemoryGrowth { before: resident(), grown: AtomicU64::new(0) }
    }

    /// Measures now, without memory that is free. To be called when the memory has been allocated.
    pub fn observe(&self) {
        heap::trim();
        if let (Some(before), Some(now)) = (self.before, resident()) {
            self.grown.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
        }
    }

    /// The largest growth that was observed, in bytes; `None` if it cannot be measured.
    pub fn bytes(&self) -> Option<u64> {
        self.before.map(|_| self.grown.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::own_process::ran_in_own_process;

    /// Runs in a process of its own: other tests of this one measure memory, too.
    #[test]
    fn the_growth_is_that_of_the_observed_moment() {
        if ran_in_own_process(module_path!(), "the_growth_is_that_of_the_observed_moment") {
            return;
        }
        const SIZE: usize = 64 << 20;
        let growth = MemoryGrowth::start();
        assert_eq!(growth.bytes(), Some(0));
        let memory = std::hint::black_box(vec![1_u8; SIZE]);
        growth.observe();
        drop(memory);
        growth.observe();
        let grown = growth.bytes().unwrap();
        assert!((SIZE as u64..SIZE as u64 + (16 << 20)).contains(&grown), "{grown}");
    }
}
