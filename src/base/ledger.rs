//! The closed account of a stream's frames: captured = published + dropped, by reason.
//!
//! Every captured frame gets an [`LedgerEntry`]. The entry is settled exactly once, as published or as dropped for a reason;
//! one that is let go unsettled (a stage panicked, a queue was torn down) settles itself as dropped. So the account
//! closes by construction, at any moment and after any end: `captured` counts the settled frames, and the few frames
//! that are under way are shown beside it as `in_flight`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a captured frame was not published. The names are the `reason` labels of `maskcast_frames_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// `matched`: a newer frame came before the model had time for this one.
    SegmenterBusy,
    /// The model could not be run on it.
    SegmentFailed,
    /// A newer frame came before the overlay had time for this one.
    OverlayBusy,
    /// The encoder had not finished earlier frames.
    EncoderBusy,
    /// It was older than `max_latency`: what waited before it was captured, or in a queue while the process was stopped.
    Late,
    /// The output refused it.
    OutputFailed,
    /// The stream was stopped or restarted while the frame was under way.
    Stopped,
    /// A stage ended without saying what became of it.
    Abandoned,
}

impl DropReason {
    pub const ALL: [DropReason; 8] = [
        DropReason::SegmenterBusy,
        DropReason::SegmentFailed,
        DropReason::OverlayBusy,
        DropReason::EncoderBusy,
        DropReason::Late,
        DropReason::OutputFailed,
        DropReason::Stopped,
        DropReason::Abandoned,
    ];

    pub fn name(self) -> &'static str {
        match self {
            DropReason::SegmenterBusy => "segmenter_busy",
            DropReason::SegmentFailed => "segment_failed",
            DropReason::OverlayBusy => "overlay_busy",
            DropReason::EncoderBusy => "encoder_busy",
            DropReason::Late => "late",
            DropReason::OutputFailed => "output_failed",
            DropReason::Stopped => "stopped",
            DropReason::Abandoned => "abandoned",
        }
    }
}

/// What the ledger says at one moment; consistent in itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Frames that came as far as anybody wanted them.
    pub published: u64,
    /// By [`DropReason`], in the order of [`DropReason::ALL`].
    dropped: [u64; DropReason::ALL.len()],
    /// Frames captured whose fate is not known yet.
    pub in_flight: u64,
}

impl LedgerCounts {
    /// Frames captured and settled: always `published + dropped()`.
    pub fn captured(&self) -> u64 {
        self.published + self.dropped()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn reasons(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.dropped_for(reason))).filter(|&(_, count)| count > 0)
    }
}

/// The account of one stream.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<LedgerCounts>,
}

impl Ledger {
    /// Enters a captured frame.
    pub fn open(self: &Arc<Self>) -> LedgerEntry {
        self.lock().in_flight += 1;
        LedgerEntry { ledger: Arc::clone(self), settled: false }
    }

    pub fn counts(&self) -> LedgerCounts {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, LedgerCounts> {
        // Counts are plain numbers, whole after every statement: a panic elsewhere cannot leave them half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A captured frame's place in the ledger.
#[derive(Debug)]
pub struct LedgerEntry {
    ledger: Arc<Ledger>,
    settled: bool,
}

impl LedgerEntry {
    pub fn published(mut self) {
        self.settle(|counts| counts.published += 1);
    }

    pub fn dropped(mut self, reason: DropReason) {
        self.settle(|counts| counts.dropped[reason as usize] += 1);
    }

    fn settle(&mut self, how: impl FnOnce(&mut LedgerCounts)) {
        let mut counts = self.ledger.lock();
        counts.in_flight -= 1;
        how(&mut counts);
        self.settled = true;
    }
}

impl Drop for LedgerEntry {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(|counts| counts.dropped[DropReason::Abandoned as usize] += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_whatever_becomes_of_the_frames() {
        let ledger = Arc::new(Ledger::default());
        let entries: Vec<LedgerEntry> = (0..5).map(|_| ledger.open()).collect();
        assert_eq!((ledger.counts().in_flight, ledger.counts().captured()), (5, 0));
        for (n, entry) in entries.into_iter().enumerate() {
            match n {
                0 => entry.published(),
                1 => entry.dropped(DropReason::EncoderBusy),
                _ => drop(entry),
            }
        }
        let counts = ledger.counts();
        assert_eq!((counts.in_flight, counts.captured(), counts.published), (0, 5, 1));
        let reasons: Vec<_> = counts.reasons().collect();
        assert_eq!(reasons, [(DropReason::EncoderBusy, 1), (DropReason::Abandoned, 3)]);
    }

    #[test]
    fn a_panicking_stage_does_not_open_the_account() {
        let ledger = Arc::new(Ledger::default());
        let entry = ledger.open();
        let stage = std::thread::spawn(move || {
            let _entry = entry;
            panic!("stage fails on purpose");
        });
        assert!(stage.join().is_err());
        assert_eq!(ledger.counts().dropped_for(DropReason::Abandoned), 1);
        assert_eq!(ledger.counts().in_flight, 0);
    }
}
