//! Writes reports. Each file is replaced in one step.

use std::io::Write;
use std::path::{Path, PathBuf};

use maskcast::base::atomic_file::AtomicFile;

use super::{CompareReport, LabelReport, Report, ReportError};

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFiles {
    pub json: PathBuf,
    pub html: PathBuf,
    /// The plot of a comparison; `None` for the report of a run.
    pub svg: Option<PathBuf>,
}

impl Report {
    /// Writes `report.json` and `report.html` into `folder`, which is created if necessary.
    ///
    /// # Errors
    /// A part cannot be drawn (existing files are unchanged then), or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<ReportFiles, ReportError> {
        let (json, html) = (serde_json::to_string_pretty(self)?, self.html()?);
        Ok(ReportFiles {
            json: write_file(folder, "report.json", &json)?,
            html: write_file(folder, "report.html", &html)?,
            svg: None,
        })
    }
}

impl LabelReport {
    /// Writes `report.json` and `report.html` into `folder`, which is created if necessary.
    ///
    /// # Errors
    /// As [`Report::write`].
    pub fn write(&self, folder: &Path) -> Result<ReportFiles, ReportError> {
        let (json, html) = (serde_json::to_string_pretty(self)?, self.html()?);
        Ok(ReportFiles {
            json: write_file(folder, "report.json", &json)?,
            html: write_file(folder, "report.html", &html)?,
            svg: None,
        })
    }
}

impl CompareReport {
    /// Writes `compare.json`, `compare.html` and `compare.svg` into `folder`, which is created if necessary.
    ///
    /// # Errors
    /// As [`Report::write`].
    pub fn write(&self, folder: &Path) -> Result<ReportFiles, ReportError> {
        let (json, html, svg) = (serde_json::to_string_pretty(self)?, self.html()?, self.svg()?);
        Ok(ReportFiles {
            json: write_file(folder, "compare.json", &json)?,
            html: write_file(folder, "compare.html", &html)?,
            svg: Some(write_file(folder, "compare.svg", &svg)?),
        })
    }
}

/// Writes a text file into `folder`, which is created if necessary. An existing file is replaced in one step. Returns the path.
///
/// # Errors
/// The folder or the file cannot be written. An existing file is unchanged then.
pub fn write_file(folder: &Path, name: &str, text: &str) -> Result<PathBuf, ReportError> {
    let path = folder.join(name);
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = AtomicFile::create(&path, 0o666)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    };
    match write() {
        Ok(()) => Ok(path),
        Err(source) => Err(ReportError::Write { path, source }),
    }
}
