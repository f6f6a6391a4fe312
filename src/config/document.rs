//! The document that is read: its text, the line of each key that is written in it, and the errors found so far.
//!
//! A key path names a place: `stream[gate].overlay.alpha`. [`Section`] is a table by its path, whether it is written or not;
//! checks that look at several keys report their errors through it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, line_of};

/// A document, the folder of its relative paths, its environment, and its errors.
pub(super) struct Document<'a> {
    text: &'a str,
    base: PathBuf,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Key path → byte offset of the key, or of the element of an array.
    offsets: RefCell<HashMap<String, usize>>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Document<'a> {
    /// Relative paths start at the folder `base`; `env` returns environment variables.
    pub(super) fn new(text: &'a str, base: PathBuf, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Document { text, base, env, offsets: RefCell::default(), errors: RefCell::default() }
    }

    /// The folder that relative paths start at.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// An environment variable.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// Notes that the key of this path is written at a byte offset.
    pub(super) fn mark(&self, key: &str, offset: usize) {
        self.offsets.borrow_mut().insert(key.to_owned(), offset);
    }

    /// Notes an error at a byte offset; without one, the error has no line.
    pub(super) fn note(&self, key: &str, offset: Option<usize>, problem: String, help: Option<&str>) {
        let line = offset.map(|offset| line_of(self.text.as_bytes(), offset));
        let error = ConfigError { key: key.to_owned(), line, problem, help: help.map(str::to_owned) };
        self.errors.borrow_mut().push(error);
    }

    /// The table of this key path; empty for the whole document.
    pub(super) fn section<'d>(&'d self, key: &str) -> Section<'d> {
        Section { doc: self, key: key.to_owned() }
    }

    /// All errors in the order of the file's lines, those without a line last.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        errors
    }
}

/// A table of the document by its key path.
#[derive(Clone)]
pub(super) struct Section<'d> {
    doc: &'d Document<'d>,
    key: String,
}

impl<'d> Section<'d> {
    pub(super) fn doc(&self) -> &'d Document<'d> {
        self.doc
    }

    /// The table at `key` in this one.
    pub(super) fn section(&self, key: &str) -> Section<'d> {
        Section { doc: self.doc, key: join(&self.key, key) }
    }

    /// The table at this place of an array of tables.
    pub(super) fn element(&self, key: &str, place: impl std::fmt::Display) -> Section<'d> {
        Section { doc: self.doc, key: format!("{}[{place}]", join(&self.key, key)) }
    }

    /// Whether the table is written as an element of an array.
    pub(super) fn is_element(&self) -> bool {
        self.key.ends_with(']') && self.doc.offsets.borrow().contains_key(&self.key)
    }

    /// Whether the key is written, with a valid value or not.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.doc.offsets.borrow().contains_key(&join(&self.key, key))
    }

    /// Whether the key is written, and no error was found in its value.
    pub(super) fn is_valid(&self, key: &str) -> bool {
        let path = join(&self.key, key);
        let concerns = |error: &ConfigError| {
            error.key.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.is_written(key) && !self.doc.errors.borrow().iter().any(concerns)
    }

    /// Whether an error was noted about the key itself.
    pub(super) fn is_reported(&self, key: &str) -> bool {
        let path = join(&self.key, key);
        self.doc.errors.borrow().iter().any(|error| error.key == path)
    }

    /// Notes an error about `key`, on its line, or on the line of the nearest table around it that is written.
    pub(super) fn fail(&self, key: &str, problem: impl Into<String>, help: Option<&str>) {
        let path = join(&self.key, key);
        let offsets = self.doc.offsets.borrow();
        let mut around = path.as_str();
        let mut offset = offsets.get(around);
        while offset.is_none() && !around.is_empty() {
            around = around.rfind(['.', '[']).map_or("", |end| &around[..end]);
            offset = offsets.get(around);
        }
        self.doc.note(&path, offset.copied(), problem.into(), help);
    }
}

/// The path of `key` in the table at `path`. Keys that are not bare keys of TOML are quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
