//! Reports: `report.json` and `report.html` of a run, an evaluation or proposals, and `compare.json`, `compare.html` and `compare.svg` of a
//! comparison.
//!
//! The pages are single files without scripts: they contain plots as SVG and images as base64. The template engine escapes
//! the names of classes and files, and commands.

mod compare;
mod compare_page;
mod error;
mod facts;
mod history;
mod images;
mod labels;
mod page;
mod plot;
mod run_facts;
mod text;
mod write;

use serde::{Deserialize, Serialize};

pub use compare::{CompareEntry, CompareReport, CompareRun};
pub use error::ReportError;
pub use facts::{ClassFacts, DatasetFacts, Environment, Machine, Speed, Training, shell_line};
pub use history::{EpochRecord, History};
pub use images::{ImageFacts, Panels, ProposalFacts, ProposalPanels, Rank, choose, choose_apart, image_miou};
pub use labels::LabelReport;
pub use write::{ReportFiles, write_file};

use crate::metrics::{CalibrationScores, ConfusionMatrix, Scores, SizeScores};

/// The report of a run or an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    /// The file name of the exported model.
    pub model: Option<String>,
    /// `None` for an evaluation.
    pub training: Option<Training>,
    pub dataset: DatasetFacts,
    pub environment: Environment,
    pub scores: Scores,
    pub confusion: ConfusionMatrix,
    /// `None` for a model without confidences.
    pub calibration: Option<CalibrationScores>,
    /// Recall of objects by height; empty if it was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SizeScores>,
    /// Empty for an evaluation.
    #[serde(default)]
    pub history: History,
    #[serde(rename = "pictures")]
    pub images: Vec<ImageFacts>,
    /// One entry for each measured file.
    #[serde(default)]
    pub speed: Vec<Speed>,
}

/// A curve over learning rates, as the content of an SVG file. The `x` of a point is the decimal logarithm of the rate.
///
/// # Errors
/// The curve cannot be drawn.
pub fn curve(title: &str, name: &str, points: Vec<(f64, f64)>) -> Result<String, ReportError> {
    let line = plot::PlotLine { name: name.to_owned(), points, ..Default::default() };
    plot::Plot { lines: vec![line], across: plot::XAxis::Rates, ..Default::default() }.standalone(title)
}

#[cfg(test)]
mod tests;
