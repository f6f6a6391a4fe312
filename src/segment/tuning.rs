//! Distributes the cores of a CPU: several parallel sessions with one thread each, or one session with many threads.
//!
//! Parallel sessions have more throughput and more delay for each frame, which is right for files and for several streams.
//! One session with many threads has the least delay, which is right for a single live stream. How much each gains depends
//! on the machine and the model, so the service measures at start.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::SegmentError;
use super::onnx::Model;
use super::segmenter::OnnxSegmenter;
use crate::base::panic::panic_text;
use crate::config::{ModelConfig, Provider};

/// Number of sessions, threads and frames with which a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadPlan {
    /// Parallel sessions.
    pub workers: usize,
    /// Threads of each session.
    pub threads: usize,
    /// Largest number of frames in one run.
    pub max_batch: usize,
}

/// What to optimise for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuningGoal {
    /// Frames a second.
    Throughput,
    /// Delay of one frame.
    Latency,
}

/// The measurement of a plan.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTrial {
    pub plan: ThreadPlan,
    /// Frames a second of all workers together.
    pub fps: f64,
    /// Median time of one run.
    pub latency: Duration,
}

/// Shortest time for which each candidate is measured.
const TRIAL: Duration = Duration::from_millis(400);

/// Number of cores that the model may use.
fn cores(config: &ModelConfig) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        threads => threads,
    }
}

/// Threads of the first session of [`default_plan`]; known before the model is loaded.
pub fn default_threads(config: &ModelConfig, goal: TuningGoal) -> usize {
    match (goal, config.workers) {
        (TuningGoal::Throughput, 0) => 1,
        (TuningGoal::Latency, 0) => cores(config),
        (_, workers) => (cores(config) / workers).max(1),
    }
}

/// The plan of the configuration and the provider, or the default plan for `goal`. Does not measure.
pub fn default_plan(model: &Model, goal: TuningGoal) -> ThreadPlan {
    let max_batch = model.max_batch();
    let cores = cores(model.config());
    match (model.provider, model.config().workers, goal) {
        (Provider::Cpu, 0, TuningGoal::Throughput) => ThreadPlan { workers: cores, threads: 1, max_batch },
        (Provider::Cpu, 0, TuningGoal::Latency) => ThreadPlan { workers: 1, threads: cores, max_batch },
        (Provider::Cpu, workers, goal) => {
            ThreadPlan { workers, threads: default_threads(model.config(), goal), max_batch }
        }
        // One session keeps each GPU busy; a second prepares the next input while the first waits for its result. The threads
        // run the nodes that the GPU does not support.
        (_, workers, goal) => ThreadPlan {
            workers: if workers == 0 { 2 * model.config().device.numbers().len() } else { workers },
            threads: default_threads(model.config(), goal),
            max_batch,
        },
    }
}

/// Measures the candidate plans and returns the best for `goal` with all measurements. There are no measurements when only
/// one plan is possible.
///
/// # Errors
/// The model cannot be run.
pub fn tune(model: &Model, goal: TuningGoal) -> Result<(ThreadPlan, Vec<ThreadTrial>), SegmentError> {
    let default = default_plan(model, goal);
    let cores = cores(model.config());
    if model.provider != Provider::Cpu || model.config().workers > 0 || cores == 1 {
        return Ok((default, Vec::new()));
    }
    let mut trials = Vec::new();
    for workers in candidates(cores, goal) {
        let plan = ThreadPlan { workers, threads: cores / workers, ..default };
        trials.push(measure(model, plan, TRIAL)?);
    }
    let best = match goal {
        TuningGoal::Throughput => trials.iter().max_by(|a, b| a.fps.total_cmp(&b.fps)),
        TuningGoal::Latency => trials.iter().min_by_key(|trial| trial.latency),
    };
    Ok((best.map_or(default, |trial| trial.plan), trials))
}

/// Worker counts to measure: one, the square root of the number of cores, and all cores. Many sessions never reduce the
/// delay of a frame, so with the goal latency all cores as workers are measured on small machines only.
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
/// The model cannot be run.
pub fn measure(model: &Model, plan: ThreadPlan, time: Duration) -> Result<ThreadTrial, SegmentError> {
    let segmenters: Vec<OnnxSegmenter> =
        (0..plan.workers).map(|_| model.segmenter(plan.threads)).collect::<Result<_, _>>()?;
    let start = Barrier::new(plan.workers);
    let times: Vec<Result<Vec<Duration>, SegmentError>> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            segmenters.into_iter().map(|segmenter| scope.spawn(|| run_for(segmenter, &start, time))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| Err(trial_panic(&*panic)))).collect()
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

fn trial_panic(panic: &(dyn std::any::Any + Send)) -> SegmentError {
    SegmentError::TrialPanic(panic_text(panic).into())
}

fn run_for(mut segmenter: OnnxSegmenter, start: &Barrier, time: Duration) -> Result<Vec<Duration>, SegmentError> {
    // The first runs fill caches and memory arenas.
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
    fn candidates_depend_on_cores_and_goal() {
        assert_eq!(candidates(1, TuningGoal::Throughput), [1]);
        assert_eq!(candidates(2, TuningGoal::Latency), [1, 2]);
        assert_eq!(candidates(16, TuningGoal::Throughput), [1, 4, 16]);
        assert_eq!(candidates(16, TuningGoal::Latency), [1, 4]);
    }
}
