//! Measurement of wall time and CPU time per frame and stage, and of the delay from capture to publication.

use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// The duration of one piece of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elapsed {
    /// Wall time.
    pub wall: Duration,
    /// CPU time of the thread that did the work; that of a library's own threads is not included.
    pub cpu: Duration,
}

impl Elapsed {
    /// An equal share for each of `n` frames that were processed together.
    pub fn share(self, n: usize) -> Elapsed {
        let n = n.max(1) as u32;
        Elapsed { wall: self.wall / n, cpu: self.cpu / n }
    }
}

/// A running measurement. It must be read on the thread that started it.
pub struct Stopwatch {
    wall: Instant,
    cpu: ThreadTime,
}

impl Stopwatch {
    /// Starts a measurement on this thread.
    pub fn start() -> Self {
        Stopwatch { wall: Instant::now(), cpu: ThreadTime::now() }
    }

    /// The time since the start.
    pub fn spent(&self) -> Elapsed {
        Elapsed { wall: self.wall.elapsed(), cpu: self.cpu.elapsed() }
    }
}

/// The stages of a stream; the names are the `stage` labels of `maskcast_stage_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Decode,
    Preprocess,
    Segment,
    Overlay,
    Encode,
}

impl Stage {
    /// All stages, in the order of their discriminants.
    pub const ALL: [Stage; 5] = [Stage::Decode, Stage::Preprocess, Stage::Segment, Stage::Overlay, Stage::Encode];

    /// The name in metrics and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Preprocess => "preprocess",
            Stage::Segment => "segment",
            Stage::Overlay => "overlay",
            Stage::Encode => "encode",
        }
    }
}

/// A histogram of durations up to a minute, in microseconds with two significant digits, and the sums of wall and CPU time.
/// Its memory is constant (a few KiB).
pub struct Distribution {
    inner: Mutex<DistributionBins>,
}

struct DistributionBins {
    micros: Histogram<u64>,
    wall: Duration,
    cpu: Duration,
}

/// The contents of a [`Distribution`], all read at the same time.
#[derive(Clone, Debug, PartialEq)]
pub struct TimingSummary {
    /// Number of recorded durations.
    pub count: u64,
    /// Median wall time.
    pub p50: Duration,
    /// 99th percentile of the wall time.
    pub p99: Duration,
    /// Sum of the wall times.
    pub wall: Duration,
    /// Sum of the CPU times.
    pub cpu: Duration,
    /// Number of wall times at or below each of [`BUCKETS`].
    pub buckets: Vec<u64>,
}

/// Upper bounds of the Prometheus buckets, in seconds.
pub const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

impl Default for Distribution {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds and precision are constants in range");
        Distribution { inner: Mutex::new(DistributionBins { micros, wall: Duration::ZERO, cpu: Duration::ZERO }) }
    }
}

impl Distribution {
    /// Adds a duration.
    pub fn record(&self, spent: Elapsed) {
        let mut inner = self.inner.lock();
        inner.micros.saturating_record(spent.wall.as_micros().min(u128::from(u64::MAX)) as u64);
        inner.wall += spent.wall;
        inner.cpu += spent.cpu;
    }

    /// Adds a duration whose CPU time is not known.
    pub fn record_wall(&self, wall: Duration) {
        self.record(Elapsed { wall, cpu: Duration::ZERO });
    }

    /// The number of recorded durations.
    pub fn count(&self) -> u64 {
        self.inner.lock().micros.len()
    }

    /// The current contents.
    pub fn summary(&self) -> TimingSummary {
        let inner = self.inner.lock();
        let at = |quantile| Duration::from_micros(inner.micros.value_at_quantile(quantile));
        TimingSummary {
            count: inner.micros.len(),
            p50: at(0.5),
            p99: at(0.99),
            wall: inner.wall,
            cpu: inner.cpu,
            buckets: BUCKETS.iter().map(|bound| inner.micros.count_between(0, (bound * 1e6) as u64)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_quantiles_sums_and_cumulative_buckets() {
        let distribution = Distribution::default();
        for millis in 1..=100 {
            let wall = Duration::from_millis(millis);
            distribution.record(Elapsed { wall, cpu: wall / 2 });
        }
        let summary = distribution.summary();
        assert_eq!(summary.count, 100);
        assert!(summary.p50.as_millis().abs_diff(50) <= 1, "{:?}", summary.p50);
        assert!(summary.p99.as_millis().abs_diff(99) <= 1, "{:?}", summary.p99);
        assert_eq!(summary.wall, 2 * summary.cpu);
        assert_eq!(summary.buckets[7], 100, "all durations are at or below 0.1 s");
        assert!(summary.buckets.is_sorted());
        assert!((19..=21).contains(&summary.buckets[5]), "{:?}", summary.buckets);
    }

    #[test]
    fn waiting_counts_as_wall_time_and_not_as_cpu_time() {
        let watch = Stopwatch::start();
        let (_sender, receiver) = crossbeam_channel::bounded::<()>(1);
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        let spent = watch.spent();
        assert!(spent.wall >= Duration::from_millis(50));
        assert!(spent.cpu < spent.wall / 2, "{spent:?}");
    }
}
