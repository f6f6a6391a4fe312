//! How a CPU's cores are shared out: several one-thread sessions side by side, or one session with many threads.
//!
//! Side by side they make more frames a second, at the price of each frame's delay: right for files and for several
//! streams. Together they bring a single live stream its mask sooner. Which pays how much depends on the machine and
//! the model, so the service measures at start.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::SegmentError;
use super::onnx::Model;
use super::segmenter::OnnxSegmenter;
use crate::config::{ModelConfig, Provider};

/// How the model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadPlan {
    /// Sessions side by side.
    pub workers: usize,
    /// Threads of each.
    pub threads: usize,
    /// Frames in one run, at most.
    pub max_batch: usize,
}

/// What matters more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuningGoal {
    /// Frames a second.
    Throughput,
    /// Delay of one frame.
    Latency,
}

/// One measured way of sharing the cores.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTrial {
    pub plan: ThreadPlan,
    /// Of all workers together.
    pub fps: f64,
    /// Median of one run.
    pub latency: Duration,
}

/// How long each candidate is measured, at least.
const TRIAL: Duration = Duration::from_millis(400);

/// Cores the model may use.
fn cores(config: &ModelConfig) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        threads => threads,
    }
}

/// Threads that the first session of [`usual`] will have; known before the model is loaded.
pub fn usual_threads(config: &ModelConfig, goal: TuningGoal) -> usize {
    match (goal, config.workers) {
        (TuningGoal::Throughput, 0) => 1,
        (TuningGoal::Latency, 0) => cores(config),
        (_, workers) => (cores(config) / workers).max(1),
    }
}

/// The plan that the configuration or the provider dictates, or the usual one for `goal`; measures nothing.
pub fn usual(model: &Model, goal: TuningGoal) -> ThreadPlan {
    let max_batch = model.max_batch();
    let cores = cores(model.config());
    match (model.provider, model.config().workers, goal) {
        (Provider::Cpu, 0, TuningGoal::Throughput) => ThreadPlan { workers: cores, threads: 1, max_batch },
        (Provider::Cpu, 0, TuningGoal::Latency) => ThreadPlan { workers: 1, threads: cores, max_batch },
        (Provider::Cpu, workers, goal) => {
            ThreadPlan { workers, threads: usual_threads(model.config(), goal), max_batch }
        }
        // One session keeps a GPU busy; a second makes the next input while the first waits for the result. The threads
        // run what the GPU does not take.
        (_, workers, goal) => ThreadPlan {
            workers: if workers == 0 { 2 } else { workers },
            threads: usual_threads(model.config(), goal),
            max_batch,
        },
    }
}

/// Measures the ways to share the cores and picks the best for `goal`. Trials are empty when there was nothing to choose.
///
/// # Errors
/// When the model cannot be run.
pub fn measured(model: &Model, goal: TuningGoal) -> Result<(ThreadPlan, Vec<ThreadTrial>), SegmentError> {
    let usual_plan = usual(model, goal);
    let cores = cores(model.config());
    if model.provider != Provider::Cpu || model.config().workers > 0 || cores == 1 {
        return Ok((usual_plan, Vec::new()));
    }
    let mut trials = Vec::new();
    for workers in candidates(cores, goal) {
        let plan = ThreadPlan { workers, threads: cores / workers, ..usual_plan };
        trials.push(trial(model, plan, TRIAL)?);
    }
    let best = match goal {
        TuningGoal::Throughput => trials.iter().max_by(|a, b| a.fps.total_cmp(&b.fps)),
        TuningGoal::Latency => trials.iter().min_by_key(|trial| trial.latency),
    };
    Ok((best.map_or(usual_plan, |trial| trial.plan), trials))
}

/// Worker counts worth a trial: one, all cores, and the square root between them on large machines. A frame is never
/// sooner done by one thread of many idle ones, so for its delay alone all cores as workers are not tried where that
/// would mean many sessions.
fn candidates(cores: usize, goal: TuningGoal) -> Vec<usize> {
    let mut candidates = vec![1, cores.isqrt()];
    if goal == TuningGoal::Throughput || cores <= 4 {
        candidates.push(cores);
    }
    candidates.dedup();
    candidates
}

/// Runs `plan` on grey frames, all workers at once, for at least `time`.
///
/// # Errors
/// When the model cannot be run.
pub fn trial(model: &Model, plan: ThreadPlan, time: Duration) -> Result<ThreadTrial, SegmentError> {
    let segmenters: Vec<OnnxSegmenter> =
        (0..plan.workers).map(|_| model.segmenter(plan.threads)).collect::<Result<_, _>>()?;
    let start = Barrier::new(plan.workers);
    let times: Vec<Result<Vec<Duration>, SegmentError>> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            segmenters.into_iter().map(|segmenter| scope.spawn(|| run_for(segmenter, &start, time))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(SegmentError::new("a trial run panicked"))))
            .collect()
    });
    let mut fps = 0.0;
    let mut latencies = Vec::new();
    for times in times {
        let times = times?;
        fps += times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
        latencies.extend(times);
    }
    latencies.sort_unstable();
    Ok(ThreadTrial { plan, fps, latency: latencies[latencies.len() / 2] })
}

fn run_for(mut segmenter: OnnxSegmenter, start: &Barrier, time: Duration) -> Result<Vec<Duration>, SegmentError> {
    // The first runs fill caches and arenas.
    let warm = segmenter.time(1);
    start.wait();
    warm?;
    let deadline = Instant::now() + time;
    let mut times = Vec::new();
    while times.is_empty() || Instant::now() < deadline {
        let begin = Instant::now();
        segmenter.run_grey()?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_fit_the_machine() {
        assert_eq!(candidates(1, TuningGoal::Throughput), [1]);
        assert_eq!(candidates(2, TuningGoal::Latency), [1, 2]);
        assert_eq!(candidates(16, TuningGoal::Throughput), [1, 4, 16]);
        assert_eq!(candidates(16, TuningGoal::Latency), [1, 4]);
    }
}
