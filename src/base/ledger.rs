//! The account of a stream's frames: captured = published + dropped, by reason.
//!
//! Every captured frame gets a [`LedgerEntry`], which is settled exactly once: as published, or as dropped for a reason.
//! An entry that is dropped before it is settled (a stage panicked, a queue was closed) settles itself as abandoned.
//! Therefore the equation holds at any time: `captured` counts the settled frames, and `in_flight` the frames that are
//! still in the pipeline.

use std::sync::Arc;

use parking_lot::Mutex;

/// Why a captured frame was not published. The names are the `reason` labels of `maskcast_frames_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// With `show = "matched"`: a newer frame came before the model was free for this one.
    SegmenterBusy,
    /// The model failed on it.
    SegmentFailed,
    /// A newer frame came before the overlay stage was free for this one.
    OverlayBusy,
    /// The encoder had not finished earlier frames.
    EncoderBusy,
    /// It was older than `max_latency`: it waited before it was captured, or in a queue while the process was stopped.
    Late,
    /// The output refused it.
    OutputFailed,
    /// The stream was stopped or restarted while the frame was in the pipeline.
    Stopped,
    /// A stage ended without settling the frame's entry.
    Abandoned,
}

impl DropReason {
    /// All reasons, in the order of their discriminants.
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

    /// The name in metrics and in the API.
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

/// The counts of a ledger, all read at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Frames that reached the last stage which a consumer needed.
    pub published: u64,
    /// By [`DropReason`], in the order of [`DropReason::ALL`].
    dropped: [u64; DropReason::ALL.len()],
    /// Captured frames whose entry is not settled yet.
    pub in_flight: u64,
}

impl LedgerCounts {
    /// Captured frames whose entry is settled: `published + dropped()`.
    pub fn captured(&self) -> u64 {
        self.published + self.dropped()
    }

    /// Dropped frames, for any reason.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Frames dropped for this reason.
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
    /// Adds a captured frame.
    pub fn open(self: &Arc<Self>) -> LedgerEntry {
        self.counts.lock().in_flight += 1;
        LedgerEntry { ledger: Arc::clone(self), settled: false }
    }

    /// The current counts.
    pub fn counts(&self) -> LedgerCounts {
        *self.counts.lock()
    }
}

/// The entry of one captured frame in the ledger.
#[derive(Debug)]
pub struct LedgerEntry {
    ledger: Arc<Ledger>,
    settled: bool,
}

impl LedgerEntry {
    /// Settles the entry as published.
    pub fn published(mut self) {
        self.settle(|counts| counts.published += 1);
    }

    /// Settles the entry as dropped.
    pub fn dropped(mut self, reason: DropReason) {
        self.settle(|counts| counts.dropped[reason as usize] += 1);
    }

    fn settle(&mut self, count: impl FnOnce(&mut LedgerCounts)) {
        let mut counts = self.ledger.counts.lock();
        counts.in_flight -= 1;
        count(&mut counts);
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
    fn captured_is_published_plus_dropped_also_for_abandoned_frames() {
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
    fn the_frame_of_a_panicking_stage_is_settled_as_abandoned() {
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
