//! Errors of the history.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::base::database_file::{self, DatabaseFileError};

/// Why the history cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder or a file beside the database cannot be used.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// Another process writes this history.
    #[error("{}: another process uses it; every service needs its own folder (history.dir)", path.display())]
    InUse { path: PathBuf },
    /// The file has a schema that this version does not know.
    #[error("{}: written by a newer version of Maskcast (schema {found}, this version knows {known})", path.display())]
    TooNew { path: PathBuf, found: usize, known: usize },
    /// The file was removed or replaced while it was open.
    #[error("{}: the file was removed or replaced", path.display())]
    Replaced { path: PathBuf },
    /// `PRAGMA quick_check` has found damage.
    #[error("{}: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// SQLite has failed: a full or broken disk, or a damaged database.
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
}

impl HistoryError {
    /// Whether the content of the file is damaged: a retry does not help, a new file does.
    pub fn is_damage(&self) -> bool {
        match self {
            HistoryError::Damaged { .. } => true,
            HistoryError::Database { source, .. } => database_file::is_damage(source),
            _ => false,
        }
    }

    /// Whether what was to be stored is wrong, so that a retry fails as well.
    pub(super) fn is_about_the_data(&self) -> bool {
        let HistoryError::Database { source, .. } = self else { return false };
        match source.sqlite_error_code() {
            None => true,
            Some(code) => matches!(
                code,
                ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::ApiMisuse
                    | ErrorCode::ParameterOutOfRange
            ),
        }
    }
}

impl From<DatabaseFileError> for HistoryError {
    fn from(error: DatabaseFileError) -> Self {
        match error {
            DatabaseFileError::File { path, source } => HistoryError::File { path, source },
            DatabaseFileError::InUse { path } => HistoryError::InUse { path },
            DatabaseFileError::Replaced { path } => HistoryError::Replaced { path },
        }
    }
}
