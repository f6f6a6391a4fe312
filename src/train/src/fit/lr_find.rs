//! The learning-rate range test (Smith, "Cyclical learning rates", 2015): the rate rises with every batch, and the loss
//! shows from which rate on training works and from which on it breaks.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::plan;
use super::progress::Meter;
use super::run::{Accumulation, FitError, Rates};
use super::session::{Session, SessionError};
use crate::loader::{BatchSpec, Loader};
use crate::report::{ReportError, curve};
use crate::tensor_file::write_atomically;

/// The rates that are tried.
#[derive(Clone, Copy, Debug)]
pub struct LearningRateSweep {
    pub from: f64,
    pub to: f64,
    pub batches: u64,
}

/// Weight of a new loss in the smoothed one.
const SMOOTHING: f64 = 0.1;
/// Share of the points at the start that tell more of the first batches than of their rates.
const START: f64 = 0.1;
/// Share of the points over which a fall is measured: one batch may be easier than the one before it.
const WINDOW: f64 = 0.125;
/// A loss this many times the lowest has broken loose.
const BROKEN: f64 = 3.0;

/// Rates and the smoothed losses under them.
#[derive(Clone, Debug, Default)]
pub struct LearningRateCurve {
    pub points: Vec<(f64, f64)>,
}

/// Runs the sweep; the session's weights are spoilt by it.
///
/// # Errors
/// If a batch cannot be loaded.
pub fn find(session: &mut Session, sweep: LearningRateSweep) -> Result<LearningRateCurve, SessionError> {
    let batches = BatchSpec::of(&session.config.fit);
    let mut loader = Loader::start(&session.dataset, &batches, 0, sweep.batches).map_err(FitError::Thread)?;
    let phases = plan::phases(&session.config.fit);
    let phase = phases.last().expect("a run has a phase");
    let share = session.config.fit.encoder_lr / session.config.fit.lr;
    let mut meter = Meter::new("lr", 0, sweep.batches);
    let mut found = LearningRateCurve::default();
    let (mut smooth, mut weight) = (0.0, 0.0);
    let (fit, state) = session.parts();
    fit.prepare(state, phase, phase.to);
    for step in 0..sweep.batches {
        let rate = sweep.from * (sweep.to / sweep.from).powf(step as f64 / (sweep.batches - 1) as f64);
        let encoder = phase.encoder_lr.map_or(0.0, |_| rate * share);
        let rates = Rates { encoder, decoder: rate };
        let Some(batch) = loader.next_batch().map_err(FitError::Load)? else { break };
        let Ok(loss) = fit.learn(state, &batch, phase, phase.to, rates, Accumulation::ALONE) else { break };
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

impl LearningRateCurve {
    /// A rate to begin with: the middle of the stretch over which the loss falls fastest, a line laid through it.
    pub fn suggestion(&self) -> Option<f64> {
        let count = self.points.len() as f64;
        let points: Vec<(f64, f64)> =
            self.points.iter().skip((START * count) as usize).map(|&(rate, loss)| (rate.ln(), loss)).collect();
        let falls = points.windows(((WINDOW * count) as usize).max(3)).map(|window| {
            let middle = window.iter().map(|point| point.0).sum::<f64>() / window.len() as f64;
            let loss = window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64;
            let along: f64 = window.iter().map(|point| (point.0 - middle) * (point.1 - loss)).sum();
            let square: f64 = window.iter().map(|point| (point.0 - middle).powi(2)).sum();
            (along / square, middle.exp())
        });
        let steepest = falls.min_by(|a, b| a.0.total_cmp(&b.0))?;
        (steepest.0 < 0.0).then_some(steepest.1)
    }

    /// Writes `lr.svg` and `lr.csv`; gives the former's path.
    ///
    /// # Errors
    /// If the curve cannot be drawn or written.
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

    /// Rates from 1e-6 to 1, and the loss under each.
    fn sweep(loss: impl Fn(f64) -> f64) -> LearningRateCurve {
        let rates = (0..80).map(|n| 10f64.powf(-6.0 + 6.0 * f64::from(n) / 79.0));
        LearningRateCurve { points: rates.map(|rate| (rate, loss(rate.log10()))).collect() }
    }

    #[test]
    fn the_suggestion_is_where_the_loss_falls() {
        // A fall of the first batches, flat, a fall around 1e-3, then it breaks.
        let curve = |x: f64| {
            let first = 0.3 * (-(x + 6.0) * 8.0).exp();
            let fall = 1.0 / (1.0 + (3.0 * (x + 3.0)).exp());
            first + fall + if x > -1.0 { 3.0 * (x + 1.0) } else { 0.0 }
        };
        let rate = sweep(curve).suggestion().unwrap();
        assert!((5e-4..2e-3).contains(&rate), "{rate}");
        assert_eq!(sweep(|x| x).suggestion(), None);
        assert_eq!(LearningRateCurve::default().suggestion(), None);
    }
}
