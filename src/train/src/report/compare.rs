//! Comparison of strategies and encoders with the same budget and seeds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plot::{AxisLabels, Plot, PlotLine};
use super::{Environment, History, ReportError};

/// The report of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareReport {
    pub title: String,
    /// The name of the data set.
    pub dataset: String,
    /// The options that all runs have in common, as a text: epochs, batch, crop.
    pub budget: String,
    pub environment: Environment,
    /// In any order. The page is sorted by mean mIoU.
    pub entries: Vec<CompareEntry>,
}

/// A strategy with an encoder, trained with one or more seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareEntry {
    pub strategy: String,
    pub encoder: String,
    /// Where the initial weights come from.
    pub weights: String,
    pub runs: Vec<CompareRun>,
}

/// A run of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareRun {
    pub seed: u64,
    /// Validation mIoU (0 to 1) of the best weights; `None` for a run that failed before the first validation.
    pub miou: Option<f64>,
    /// Wall-clock time.
    pub seconds: f64,
    pub history: History,
}

/// Validation mIoU (0 to 1) of the runs of an entry after one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    pub epoch: u32,
    pub mean: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl CompareEntry {
    /// Strategy and encoder: `freeze-then-finetune, efficientnet-lite0`.
    pub fn name(&self) -> String {
        format!("{}, {}", self.strategy, self.encoder)
    }

    fn mious(&self) -> Vec<f64> {
        self.runs.iter().filter_map(|run| run.miou).collect()
    }

    /// Mean of the mIoUs; `None` if no run has one.
    pub fn mean(&self) -> Option<f64> {
        let mious = self.mious();
        (!mious.is_empty()).then(|| mious.iter().sum::<f64>() / mious.len() as f64)
    }

    /// Sample standard deviation of the mIoUs; `None` with fewer than two.
    pub fn spread(&self) -> Option<f64> {
        let (mious, mean) = (self.mious(), self.mean()?);
        let squares: f64 = mious.iter().map(|miou| (miou - mean).powi(2)).sum();
        (mious.len() > 1).then(|| (squares / (mious.len() - 1) as f64).sqrt())
    }

    /// Mean wall-clock seconds of a run.
    pub fn seconds(&self) -> f64 {
        self.runs.iter().map(|run| run.seconds).sum::<f64>() / self.runs.len().max(1) as f64
    }

    /// Validation mIoU by epoch. For runs with a moving average of the weights, it is that of the average.
    pub fn curve(&self) -> Vec<CurvePoint> {
        let mut epochs: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for record in self.runs.iter().flat_map(|run| &run.history.0) {
            if let Some(miou) = record.val_miou_ema.or(record.val_miou) {
                epochs.entry(record.epoch).or_default().push(miou);
            }
        }
        let point = |(epoch, mious): (u32, Vec<f64>)| CurvePoint {
            epoch,
            mean: mious.iter().sum::<f64>() / mious.len() as f64,
            lowest: mious.iter().copied().fold(f64::INFINITY, f64::min),
            highest: mious.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        epochs.into_iter().map(point).collect()
    }
}

impl CompareReport {
    /// The entries sorted by mean mIoU, the best first, those without mIoU last.
    pub fn ranked(&self) -> Vec<&CompareEntry> {
        let mut entries: Vec<&CompareEntry> = self.entries.iter().collect();
        let key = |entry: &CompareEntry| entry.mean().unwrap_or(f64::NEG_INFINITY);
        entries.sort_by(|a, b| key(b).total_cmp(&key(a)));
        entries
    }

    /// The plot of all curves, as the content of an SVG file.
    ///
    /// # Errors
    /// The plot cannot be drawn.
    pub fn svg(&self) -> Result<String, ReportError> {
        self.plot().standalone(&format!("{} – validation mIoU by epoch", self.title))
    }

    /// The plot of all curves.
    pub(super) fn plot(&self) -> Plot {
        let ranked = self.ranked();
        let lines = ranked.iter().enumerate().map(|(n, entry)| line(entry, n, &entry.name()));
        Plot {
            lines: lines.collect(),
            from_zero: true,
            to: Some(1.0),
            labels: AxisLabels::Percent,
            ..Default::default()
        }
    }

    /// The curve of one entry as a sparkline, with the scale of all curves.
    pub(super) fn sparkline(&self, entry: &CompareEntry, color: usize) -> Result<String, ReportError> {
        let highest = self.entries.iter().flat_map(CompareEntry::curve).map(|point| point.highest).reduce(f64::max);
        Plot { lines: vec![line(entry, color, "")], at_least: highest, ..self.plot() }.sparkline()
    }
}

/// The curve of an entry. Its band is from the lowest to the highest run.
fn line(entry: &CompareEntry, color: usize, name: &str) -> PlotLine {
    let curve = entry.curve();
    let points = curve.iter().map(|point| (f64::from(point.epoch), point.mean)).collect();
    let spread = curve.iter().any(|point| point.highest > point.lowest);
    let band = curve.iter().filter(|_| spread).map(|point| (f64::from(point.epoch), point.lowest, point.highest));
    PlotLine { name: name.to_owned(), color, points, band: band.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::EpochRecord;

    fn run(seed: u64, mious: &[f64]) -> CompareRun {
        let mut history = History::default();
        for (n, &miou) in mious.iter().enumerate() {
            history.push(EpochRecord { epoch: n as u32 + 1, val_miou: Some(miou), ..Default::default() });
        }
        CompareRun { seed, miou: mious.last().copied(), seconds: 10.0, history }
    }

    #[test]
    fn deviation_and_curve_are_those_of_all_seeds() {
        let entry = CompareEntry {
            strategy: "scratch".into(),
            encoder: "vgg16".into(),
            weights: "random".into(),
            runs: vec![run(1, &[0.1, 0.5]), run(2, &[0.3, 0.7]), run(3, &[0.2])],
        };
        assert!((entry.mean().unwrap() - 1.4 / 3.0).abs() < 1e-12);
        let variance = [0.5f64, 0.7, 0.2].map(|miou| (miou - 1.4 / 3.0).powi(2)).iter().sum::<f64>() / 2.0;
        assert!((entry.spread().unwrap() - variance.sqrt()).abs() < 1e-12);
        let curve = entry.curve();
        assert_eq!((curve[0].lowest, curve[0].highest, curve.len()), (0.1, 0.3, 2));
        assert!((curve[1].mean - 0.6).abs() < 1e-12);
        let single = CompareEntry { runs: vec![run(1, &[0.4])], ..entry };
        assert_eq!((single.mean(), single.spread()), (Some(0.4), None));
    }
}
