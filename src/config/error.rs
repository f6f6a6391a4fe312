//! The errors of a configuration file: all of them, each with line and key path.

use std::fmt;
use std::path::{Path, PathBuf};

/// An error in a configuration, with its key and line.
///
/// The value of a key that may hold a secret is never part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key's path, e.g. `stream[gate].overlay.alpha`; `stream[1]` (counted from 0) where the stream has no valid
    /// name of its own. Empty when the error is about the file as a whole.
    pub key: String,
    /// The line in the file, counted from 1, where the key or its table is written.
    pub line: Option<usize>,
    /// Description of the error, which follows the key.
    pub problem: String,
    /// What to do, if known.
    pub help: Option<String>,
}

impl fmt::Display for ConfigError {
    /// Displays key, problem and help, without the line, which [`ConfigErrors`] displays with the name of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", OneLine(&self.key))?;
        }
        write!(f, "{}", OneLine(&self.problem))?;
        match &self.help {
            Some(help) => write!(f, " (help: {})", OneLine(help)),
            None => Ok(()),
        }
    }
}

/// Displays text with control characters escaped: paths and values of the file may contain any character, and an error must
/// be one line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_debug()) } else { write!(f, "{c}") })
    }
}

impl std::error::Error for ConfigError {}

/// All errors of a configuration file, in the order of its lines. Never empty.
///
/// Displayed as one line for each error: `maskcast.toml:12: stream[gate].overlay.alpha: 1.7 is not between 0 and 1 (help:
/// …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, as the caller named it.
    pub path: PathBuf,
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// An error about the file as a whole.
    pub(super) fn whole_file(path: &Path, line: Option<usize>, problem: String) -> Self {
        let error = ConfigError { key: String::new(), line, problem, help: None };
        ConfigErrors { path: path.to_path_buf(), errors: vec![error] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some(line) = error.line {
                write!(f, "{line}:")?;
            }
            write!(f, " {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Byte offset → line, counted from 1.
pub(super) fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

/// The known word that `word` was probably meant to be.
pub(super) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, &plain(candidate)), candidate))
        // Below this, a suggestion is noise, like "http" for "speed".
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?`, or the list of the known words.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match suggest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean {candidate}?"),
        None => format!("known are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path with a line break in it was two lines of the log once.
    #[test]
    fn an_error_is_one_line_whatever_the_file_says() {
        let path = Path::new("maskcast.toml");
        let text = "[model]\npath = \"a\\nERROR b\\u001b[2J\"\n[[stream]]\nname = \"x\"\nsource = \"test://\"\n";
        let errors = super::super::parse(text, path).unwrap_err();
        let shown = errors.to_string();
        assert_eq!(shown.lines().count(), errors.errors.len(), "{shown}");
        assert!(shown.contains(r"a\nERROR b\u{1b}[2J"), "{shown}");
    }

    #[test]
    fn each_error_is_one_line() {
        let errors = ConfigErrors {
            path: "maskcast.toml".into(),
            errors: vec![
                ConfigError {
                    key: "stream[gate].overlay.alpha".into(),
                    line: Some(12),
                    problem: "1.7 is not between 0 and 1".into(),
                    help: Some("0 is invisible, 1 is opaque; the default is 0.45".into()),
                },
                ConfigError { key: "stream".into(), line: None, problem: "there is none".into(), help: None },
                ConfigError { key: String::new(), line: Some(3), problem: "bad syntax".into(), help: None },
            ],
        };
        assert_eq!(
            errors.to_string(),
            "maskcast.toml:12: stream[gate].overlay.alpha: 1.7 is not between 0 and 1 \
             (help: 0 is invisible, 1 is opaque; the default is 0.45)\n\
             maskcast.toml: stream: there is none\n\
             maskcast.toml:3: bad syntax"
        );
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        assert_eq!(suggest("sorce", ["name", "source"]), Some("source"));
        assert_eq!(suggest("max-batch", ["max_batch", "path"]), Some("max_batch"));
        assert_eq!(suggest("zebra", ["name", "source"]), None);
        assert_eq!(did_you_mean("rstp", ["rtsp", "http"]), "did you mean rtsp?");
        assert_eq!(did_you_mean("zebra", ["rtsp", "http"]), "known are: rtsp, http");
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of(b"a\nb", 0), 1);
        assert_eq!(line_of(b"a\nb", 2), 2);
        assert_eq!(line_of(b"a\nb", 99), 2);
    }
}
