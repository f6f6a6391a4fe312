//! The data of a run: samples of the process, recoveries from faults, and visits of viewers. All threads write to it; it is
//! evaluated at the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::client::Protocol;
use super::viewers::Departure;

/// A sample of the service's process and streams.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Seconds from the start of the run.
    pub at: f64,
    /// Anonymous private memory, MiB. Leaks appear here; the other figures also change with processes that share libraries.
    pub anonymous: f64,
    /// Resident memory, MiB.
    pub rss: f64,
    /// Proportional set size, MiB.
    pub pss: f64,
    pub descriptors: u64,
    pub threads: u64,
    /// Set in the idle phases, in which there are no viewers and no faults.
    pub idle: Option<IdlePhase>,
    pub streams: Vec<StreamStatus>,
}

/// The idle phases before and after the faults, whose figures are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdlePhase {
    Before,
    After,
}

/// The state of a stream in the API.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    pub name: String,
    pub state: String,
    pub captured: u64,
    pub published: u64,
    pub dropped: u64,
    pub in_flight: u64,
    pub panics: u64,
}

/// A fault of a camera and the recovery of its stream.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    pub camera: String,
    pub fault: String,
    /// End of the fault, seconds from the start of the run.
    pub at: f64,
    /// Duration of the fault, seconds.
    pub outage: f64,
    /// Time from the end of the fault to live frames, seconds; `None` when the stream did not recover.
    pub took: Option<f64>,
    /// Whether a reload restarted the stream in the meantime, so that the time does not measure the retry.
    pub disturbed: bool,
}

/// The visit of a viewer.
#[derive(Clone, Debug, Serialize)]
pub struct Visit {
    pub stream: String,
    pub protocol: Protocol,
    pub departure: Departure,
    /// Time from its start until it disconnected or stopped reading.
    pub seconds: f64,
    pub frames: u64,
}

/// The end of the process, and data from its log.
#[derive(Clone, Debug, Default, Serialize)]
pub struct End {
    /// Whether it ended before SIGTERM.
    pub early: bool,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    /// From SIGTERM to the end, seconds.
    pub took: f64,
    /// Log messages about panics.
    pub panics: Vec<String>,
    /// The final ledgers.
    pub accounts: Vec<Account>,
    /// Reloads and refused reloads in the log.
    pub reloads: u64,
    pub reloads_refused: u64,
    /// Lines of the log, by level.
    pub errors: u64,
    pub warnings: u64,
    pub infos: u64,
}

/// The final ledger of a stream in the log.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    pub stream: String,
    pub captured: u64,
    pub published: u64,
    pub dropped: u64,
    pub in_flight: u64,
}

/// All data of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    pub seed: u64,
    pub minutes: f64,
    pub samples: Vec<Sample>,
    pub recoveries: Vec<Recovery>,
    pub visits: Vec<Visit>,
    /// Changed models and refused models.
    pub model_changes: u64,
    pub models_refused: u64,
    /// Reloads with valid and with invalid configurations.
    pub reloads: u64,
    pub reloads_refused: u64,
    /// Problems that the figures do not show.
    pub problems: Vec<String>,
    pub end: End,
}

/// The data of the current run.
pub struct Record {
    pub start: Instant,
    run: Mutex<Run>,
}

impl Record {
    pub fn new(seed: u64, minutes: f64) -> Self {
        Record { start: Instant::now(), run: Mutex::new(Run { seed, minutes, ..Run::default() }) }
    }

    /// Seconds from the start of the run to `at`.
    pub fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    pub fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records and prints a problem.
    pub fn problem(&self, what: impl std::fmt::Display) {
        let at = self.seconds(Instant::now());
        eprintln!("{at:7.1} s  {what}");
        self.run().problems.push(format!("{at:.1} s: {what}"));
    }
}
