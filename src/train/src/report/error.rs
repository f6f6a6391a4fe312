//! Errors of a report.

use std::path::PathBuf;

use crate::metrics::MetricsError;

/// Why a report cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("labels and prediction of an image of the report do not fit: {0}")]
    Metrics(#[from] MetricsError),
    #[error("OpenCV cannot draw an image of the report: {0}")]
    Image(#[from] opencv::Error),
    #[error("a mask of the report cannot be encoded as PNG: {0}")]
    Png(#[from] png::EncodingError),
    /// The message of the plotting library.
    #[error("a plot of the report cannot be drawn: {0}")]
    Plot(String),
    #[error("the page of the report cannot be rendered: {0}")]
    Page(#[from] askama::Error),
    #[error("the report cannot be encoded as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write {}: {source}; is the disk full, or the folder read-only?", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}
