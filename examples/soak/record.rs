//! What a run leaves behind: samples of the process, what became of each fault, who watched. Written by all threads,
//! judged and drawn at the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::viewers::Leaves;
use super::watching::By;

/// One look at the service's process and streams.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Seconds from the start of the run.
    pub at: f64,
    /// Memory of its own that is no file's, MiB: what leaks. The others change with the processes that share libraries.
    pub anonymous: f64,
    /// Resident memory, MiB.
    pub rss: f64,
    /// Resident memory, what is shared counted by its share, MiB.
    pub pss: f64,
    pub descriptors: u64,
    pub threads: u64,
    /// Nobody watches and every camera is well: before the first viewer, or after the last.
    pub quiet: Option<Quiet>,
    pub streams: Vec<Standing>,
}

/// The calm before the faults and after them, which compare like with like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quiet {
    Before,
    After,
}

/// What the API says of a stream.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    pub name: String,
    pub state: String,
    pub captured: u64,
    pub published: u64,
    pub dropped: u64,
    pub in_flight: u64,
    pub panics: u64,
}

/// A camera's fault and the stream's return.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    pub camera: String,
    pub fault: String,
    /// When the camera was back, seconds from the start of the run.
    pub at: f64,
    /// How long the camera was away, seconds.
    pub outage: f64,
    /// From the camera's return to live pictures that were taken after it, seconds; none within the patience.
    pub took: Option<f64>,
    /// A reload started the stream anew meanwhile, so that its time says nothing of retrying.
    pub disturbed: bool,
}

/// A viewer's visit.
#[derive(Clone, Debug, Serialize)]
pub struct Visit {
    pub stream: String,
    pub by: By,
    pub leaves: Leaves,
    /// From its start until it left or fell silent.
    pub seconds: f64,
    pub pictures: u64,
}

/// How the process ended, and what its log says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct End {
    /// It ended before it was asked to.
    pub early: bool,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    /// From SIGTERM to the end, seconds.
    pub took: f64,
    /// Log lines that tell of panics.
    pub panics: Vec<String>,
    /// The closing accounts.
    pub accounts: Vec<Account>,
    /// Configurations that the log calls read again, or not used.
    pub reloads: u64,
    pub reloads_refused: u64,
    /// Lines of the log, by level.
    pub errors: u64,
    pub warnings: u64,
    pub infos: u64,
}

/// A stream's closing account in the log.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    pub stream: String,
    pub captured: u64,
    pub published: u64,
    pub dropped: u64,
    pub in_flight: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    pub seed: u64,
    pub minutes: f64,
    pub samples: Vec<Sample>,
    pub recoveries: Vec<Recovery>,
    pub visits: Vec<Visit>,
    /// Models exchanged, and wrong ones refused.
    pub model_swaps: u64,
    pub models_refused: u64,
    /// Configurations to be taken up, and wrong ones to be refused.
    pub reloads: u64,
    pub reloads_refused: u64,
    /// What went wrong that no figure shows.
    pub problems: Vec<String>,
    pub end: End,
}

/// A run that is still going on.
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

    /// Notes what went wrong.
    pub fn problem(&self, what: impl std::fmt::Display) {
        let at = self.seconds(Instant::now());
        eprintln!("{at:7.1} s  {what}");
        self.run().problems.push(format!("{at:.1} s: {what}"));
    }
}
