//! Limits the memory that the allocator of glibc keeps. GStreamer, OpenCV and ONNX Runtime use it as well, so a Rust
//! allocator would not change most of the memory.
//!
//! glibc keeps freed memory for later allocations, and returns only free memory at the end of a heap. A long-lived
//! allocation there keeps all below it: after fifty viewers have disconnected, half of the process's memory is unused.
//! Therefore `malloc_trim` is called from time to time, which returns every page without an allocation.
//!
//! The calls are unsafe, because glibc's functions have no safe wrappers.
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

/// Limits the number of arenas to two, unless `MALLOC_ARENA_MAX` is set. By default glibc creates an arena for each of the
/// dozens of threads. Frames are allocated by one thread and freed by another, and each arena keeps its freed memory, so that
/// the service would grow for hours. To be called before other threads start: it does not remove arenas.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: The arguments are numbers, not pointers. The function takes the lock of the main arena.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Maps allocations of 256 KiB and more on their own while the program starts, unless `MALLOC_MMAP_THRESHOLD_` is set. glibc raises
/// this limit with each such block that is freed, up to 32 MiB, so that the large blocks of loading a model would come from its
/// heaps and leave gaps in them. To be called before other threads start.
pub fn map_large_blocks() {
    set_mapping_threshold(256 << 10, 128 << 10);
}

/// Takes large allocations from the heaps again, where the memory of the frame before is reused; mapping costs a page fault for
/// each 4 KiB. To be called when the models are loaded.
pub fn reuse_large_blocks() {
    set_mapping_threshold(32 << 20, 64 << 20);
}

/// Allocations from `map` bytes on are mapped on their own, and free memory at the end of a heap is returned from `trim` bytes on.
#[cfg(target_env = "gnu")]
fn set_mapping_threshold(map: i32, trim: i32) {
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
        // SAFETY: The arguments are numbers, not pointers. The function takes the lock of the main arena.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, map);
            libc::mallopt(libc::M_TRIM_THRESHOLD, trim);
        }
    }
}

/// Other C libraries have no such function.
#[cfg(not(target_env = "gnu"))]
fn set_mapping_threshold(_: i32, _: i32) {}

/// Other C libraries have no such function.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}

/// Returns freed memory to the system now.
#[cfg(target_env = "gnu")]
pub fn trim() {
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
