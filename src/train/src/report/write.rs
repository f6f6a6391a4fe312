//! Reports as files. Each appears when it is complete: a reader never sees half of one.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{CompareReport, Report, ReportError};

/// The files that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFiles {
    pub json: PathBuf,
    pub html: PathBuf,
    /// Of a comparison.
    pub svg: Option<PathBuf>,
}

impl Report {
    /// Writes `report.json` and `report.html` to `dir`, which is made.
    ///
    /// # Errors
    /// If a part cannot be drawn, or a file cannot be written; files of an earlier report stay as they were.
    pub fn write(&self, dir: &Path) -> Result<ReportFiles, ReportError> {
        let (json, html) = (serde_json::to_string_pretty(self)?, self.html()?);
        Ok(ReportFiles { json: file(dir, "report.json", &json)?, html: file(dir, "report.html", &html)?, svg: None })
    }
}

impl CompareReport {
    /// Writes `compare.json`, `compare.html` and `compare.svg` to `dir`, which is made.
    ///
    /// # Errors
    /// As [`Report::write`].
    pub fn write(&self, dir: &Path) -> Result<ReportFiles, ReportError> {
        let (json, html, svg) = (serde_json::to_string_pretty(self)?, self.html()?, self.svg()?);
        Ok(ReportFiles {
            json: file(dir, "compare.json", &json)?,
            html: file(dir, "compare.html", &html)?,
            svg: Some(file(dir, "compare.svg", &svg)?),
        })
    }
}

fn file(dir: &Path, name: &str, text: &str) -> Result<PathBuf, ReportError> {
    let path = dir.join(name);
    let write = || {
        std::fs::create_dir_all(dir)?;
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        // Temporary files are for their owner only; a report is for whoever may look into the folder.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| ReportError::Write { path: path.clone(), source })?;
    Ok(path)
}
