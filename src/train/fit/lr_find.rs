//! The learning-rate range test (Smith, "Cyclical learning rates", 2015): the rate rises with every batch, and the loss
//! shows from which rate on training works and from which on it breaks.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::plan;
use super::progress::Meter;
use super::run::{FitError, Rates};
use super::session::{Session, SessionError};
use crate::train::loader::{Batches, Loader};
use crate::train::report::{ReportError, curve};
use crate::train::tensor_file::write_atomically;

/// The rates that are tried.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    pub from: f64,
    pub to: f64,
    pub batches: u64,
}

/// Weight of a new loss in the smoothed one.
const SMOOTHING: f64 = 0.15;
/// A loss this many times the lowest has broken loose.
const BROKEN: f64 = 3.0;
/// Where the loss falls fastest is close to where it breaks: a step back is safer (fast.ai's rule of thumb).
const STEP_BACK: f64 = 3.0;

/// Rates and the smoothed losses under them.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub points: Vec<(f64, f64)>,
}

/// Runs the sweep; the session's weights are spoilt by it.
///
/// # Errors
/// When a batch cannot be loaded.
pub fn find(session: &mut Session, sweep: Sweep) -> Result<Found, SessionError> {
    let batches = Batches::of(&session.config.fit);
    let mut loader = Loader::start(&session.dataset, &batches, 0, sweep.batches).map_err(FitError::Thread)?;
    let phases = plan::phases(&session.config.fit);
    let phase = phases.last().expect("a run has a phase");
    let share = session.config.fit.encoder_lr / session.config.fit.lr;
    let mut meter = Meter::new("lr", 0, sweep.batches);
    let mut found = Found::default();
    let (mut smooth, mut weight) = (0.0, 0.0);
    let (fit, state) = session.parts();
    fit.prepare(state, phase, phase.to);
    for step in 0..sweep.batches {
        let rate = sweep.from * (sweep.to / sweep.from).powf(step as f64 / (sweep.batches - 1) as f64);
        let encoder = phase.encoder_lr.map_or(0.0, |_| rate * share);
        let rates = Rates { encoder, decoder: rate };
        let Some(batch) = loader.next_batch().map_err(FitError::Load)? else { break };
        let Ok(loss) = fit.learn(state, &batch, phase, phase.to, rates, true) else { break };
        smooth += SMOOTHING * (loss - smooth);
        weight += SMOOTHING * (1.0 - weight);
        found.points.push((rate, smooth / weight));
        let lowest = found.points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        if smooth / weight > BROKEN * lowest {
            break;
        }
        meter.show(step + 1, || format!("rate {rate:.1e}, loss {:.4}", smooth / weight));
    }
    Ok(found)
}

impl Found {
    /// A rate to begin with: a third of the one under which the loss fell fastest.
    pub fn suggestion(&self) -> Option<f64> {
        let falls = self.points.windows(2).map(|pair| {
            let slope = (pair[1].1 - pair[0].1) / (pair[1].0 / pair[0].0).ln();
            (slope, pair[1].0)
        });
        let steepest = falls.min_by(|a, b| a.0.total_cmp(&b.0))?;
        (steepest.0 < 0.0).then_some(steepest.1 / STEP_BACK)
    }

    /// Writes `lr.svg` and `lr.csv`; gives the former's path.
    ///
    /// # Errors
    /// When the curve cannot be drawn or written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, ReportError> {
        let mut csv = String::from("rate,loss\n");
        for (rate, loss) in &self.points {
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{rate:e},{loss}");
        }
        let logarithms: Vec<(f64, f64)> = self.points.iter().map(|&(rate, loss)| (rate.log10(), loss)).collect();
        let svg = curve("Loss by learning rate", "loss", logarithms)?;
        let path = folder.join("lr.svg");
        for (path, text) in [(folder.join("lr.csv"), csv), (path.clone(), svg)] {
            write_atomically(&path, text.as_bytes()).map_err(|source| ReportError::Write { path, source })?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_is_before_the_steepest_fall() {
        // Flat, a fall between 1e-3 and 1e-2, then it breaks.
        let points = vec![(1e-5, 2.0), (1e-4, 1.99), (1e-3, 1.9), (1e-2, 1.0), (1e-1, 4.0)];
        let rate = Found { points }.suggestion().unwrap();
        assert!((rate - 1e-2 / 3.0).abs() < 1e-9, "{rate}");
        assert_eq!(Found { points: vec![(1e-3, 1.0), (1e-2, 2.0)] }.suggestion(), None);
    }
}
