//! The runs of the output of a stream, of which only the newest may publish.
//!
//! A stream that is restarted has a new run, whose settings may differ: it may hide more. The threads of a run that hangs are
//! abandoned and cannot be ended, and may continue at any time. What they publish then is dropped where viewers get it: a run is
//! revoked, and [`Fanout`](super::fanout::Fanout) and [`JpegBroadcast`](super::jpeg_broadcast::JpegBroadcast) ask under their
//! locks whether it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The runs of the output of one stream.
#[derive(Clone, Default)]
pub struct OutputRuns(Arc<RunNumbers>);

#[derive(Default)]
struct RunNumbers {
    /// The number of the next run.
    next: AtomicU64,
    /// Runs with smaller numbers are revoked.
    first_valid: AtomicU64,
}

/// One run of the output, from the start of a stream to its end.
#[derive(Clone)]
pub struct OutputRun {
    number: u64,
    runs: OutputRuns,
}

impl OutputRuns {
    /// A new run. All others are revoked.
    pub(super) fn begin(&self) -> OutputRun {
        let number = self.0.next.fetch_add(1, Ordering::AcqRel);
        self.0.first_valid.fetch_max(number, Ordering::AcqRel);
        OutputRun { number, runs: self.clone() }
    }

    /// Revokes all runs.
    pub(super) fn revoke(&self) {
        self.0.first_valid.fetch_max(self.0.next.load(Ordering::Acquire), Ordering::AcqRel);
    }
}

impl OutputRun {
    /// Whether nothing of this run may be published any more.
    pub(super) fn is_revoked(&self) -> bool {
        self.number < self.runs.0.first_valid.load(Ordering::Acquire)
    }
}

impl PartialEq for OutputRun {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number && Arc::ptr_eq(&self.runs.0, &other.runs.0)
    }
}
