//! Comparison of two models on labelled images: which is better, and whether the images are enough to say so.
//!
//! `maskcast model compare` makes a [`report::Comparison`] and writes it as `report.json` and `report.html`; the API serves what lies
//! beside a model. The statistics are in [`score`], the labelled images are read by [`dataset`].

pub mod dataset;
pub mod page;
pub mod panels;
pub mod report;
pub mod score;

use std::path::{Path, PathBuf};

/// The page of a comparison in its folder.
pub const HTML_FILE: &str = "report.html";

/// The result of a comparison in its folder, a [`report::Comparison`].
pub const JSON_FILE: &str = "report.json";

/// The folder of the newest comparison of a model, beside its file: `yard.compare` for `yard.onnx`.
pub fn report_folder(model: &Path) -> PathBuf {
    model.with_extension("compare")
}
