//! What a run leaves for people: `report.json` and one `report.html` that needs nothing beside it; for comparisons
//! `compare.json`, `compare.html` and `compare.svg`.
//!
//! The pages have no scripts and load nothing: plots are SVG in the page, images are in it as base64. What comes
//! from outside (names of classes and files, commands) is escaped by the template engine.

mod compare;
mod compare_page;
mod facts;
mod history;
mod how;
mod images;
mod page;
mod plot;
mod text;
mod write;

use serde::{Deserialize, Serialize};

pub use compare::{CompareEntry, CompareReport, CompareRun};
pub use facts::{ClassFacts, DatasetFacts, Environment, Machine, Speed, Training, shell_line};
pub use history::{EpochRecord, History};
pub use images::{ImageFacts, Panels, Rank, choose, choose_apart, image_miou};
pub use write::ReportFiles;

use crate::metrics::{CalibrationScores, ConfusionMatrix, MetricsError, Scores};

/// Everything that a run, or an evaluation, has to show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    /// The exported model's file name.
    pub model: Option<String>,
    /// `None` for a model that does not say how it was made.
    pub training: Option<Training>,
    pub dataset: DatasetFacts,
    pub environment: Environment,
    pub scores: Scores,
    pub confusion: ConfusionMatrix,
    /// `None` for a model that gives no confidence.
    pub calibration: Option<CalibrationScores>,
    /// Empty for an evaluation.
    #[serde(default)]
    pub history: History,
    #[serde(rename = "pictures")]
    pub images: Vec<ImageFacts>,
    /// One entry a file and setting that was timed.
    #[serde(default)]
    pub speed: Vec<Speed>,
}

/// One curve over learning rates as an SVG file of its own; `x` of a point is the rate's power of ten.
///
/// # Errors
/// If it cannot be drawn.
pub fn curve(title: &str, name: &str, points: Vec<(f64, f64)>) -> Result<String, ReportError> {
    let line = plot::PlotLine { name: name.to_owned(), points, ..Default::default() };
    plot::Plot { lines: vec![line], across: plot::XAxis::Rates, ..Default::default() }.standalone(title)
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("the report's numbers do not fit together: {0}")]
    Metrics(#[from] MetricsError),
    #[error("OpenCV cannot draw an image of the report: {0}")]
    Image(#[from] opencv::Error),
    #[error("a mask of the report cannot be written as PNG: {0}")]
    Png(#[from] png::EncodingError),
    #[error("a plot of the report cannot be drawn: {0}")]
    Plot(String),
    #[error("the report's page cannot be made: {0}")]
    Page(#[from] askama::Error),
    #[error("the report's numbers cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write {}: {source}; is the disk full, or the folder read-only?", path.display())]
    Write { path: std::path::PathBuf, source: std::io::Error },
}

#[cfg(test)]
mod tests;
