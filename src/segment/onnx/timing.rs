//! Measures how long the runs of a model take.

use std::time::Duration;

use super::Model;
use crate::segment::SegmentError;

/// Number of runs of which the median is taken.
const TIMED_RUNS: usize = 3;

impl Model {
    /// Median time of a few runs with one frame, on a session of `threads` threads (CPU; 0 = one for each core).
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn time(&self, threads: usize) -> Result<Duration, SegmentError> {
        let mut segmenter = self.take_session(threads)?;
        let time = segmenter.time(TIMED_RUNS)?;
        self.return_session(threads, segmenter);
        Ok(time)
    }

    /// Median times of a run of this model and of `other`, which is in use, under the same conditions: sessions of as many
    /// threads, run alternately, so that the load of the machine is the same for both.
    ///
    /// # Errors
    /// One of the models cannot be run.
    pub fn time_beside(&self, other: &Model, threads: usize) -> Result<(Duration, Duration), SegmentError> {
        let (mut segmenter, mut beside) = (self.take_session(threads)?, other.take_session(threads)?);
        let (mut times, mut times_beside) = (Vec::new(), Vec::new());
        for _ in 0..TIMED_RUNS {
            times.push(segmenter.time(1)?);
            times_beside.push(beside.time(1)?);
        }
        times.sort_unstable();
        times_beside.sort_unstable();
        self.return_session(threads, segmenter);
        other.return_session(threads, beside);
        Ok((times[TIMED_RUNS / 2], times_beside[TIMED_RUNS / 2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelConfig, Provider};

    #[test]
    fn two_models_are_timed_with_the_same_number_of_threads() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
        let load = |threads: usize| {
            let config = ModelConfig { providers: vec![Provider::Cpu], threads: 3, ..ModelConfig::with_path(&path) };
            Model::load(&config, threads).unwrap()
        };
        let kept = |model: &Model| model.checked_session.lock().as_ref().map(|(threads, _)| *threads);
        let (before, next) = (load(1), load(1));
        // The worker of the model in use has taken the checked session.
        let _worker = before.segmenter(1).unwrap();
        assert_eq!(kept(&before), None);
        next.time_beside(&before, 1).unwrap();
        assert_eq!((kept(&next), kept(&before)), (Some(1), Some(1)));
        // A session with another number of threads does not replace the one that is kept.
        next.time(2).unwrap();
        assert_eq!(kept(&next), Some(1));
    }
}
