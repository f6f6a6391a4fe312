//! The value at a key, and functions that read each kind of value.
//!
//! They report an invalid value as an error in the [`Document`] and return `None`. The caller continues with a default, so
//! that all errors are found at once.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::duration;
use super::error::suggest;
use super::path::tidy;

/// The value that is written at a key.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) doc: &'a Document<'a>,
    /// The key's path.
    pub(super) key: String,
    /// Byte offset of the value.
    pub(super) at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn new(doc: &'a Document<'a>, key: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Value { doc, key, at: value.span().start, value: value.get_ref() }
    }

    /// The same value as the first element of an array at its key.
    pub(super) fn into_first(mut self) -> Self {
        self.key += "[0]";
        self
    }

    /// Reports an error about this value. Always returns `None`, so that readers can return the result.
    pub(super) fn fail<T>(&self, problem: impl Into<String>, help: Option<&str>) -> Option<T> {
        self.doc.note(&self.key, Some(self.at), problem.into(), help);
        None
    }

    /// Reports that the value is of another kind.
    pub(super) fn wrong_type<T>(&self, expected: &str, help: Option<&str>) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.fail(format!("must be {expected}, not {found}"), help)
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    pub(super) fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self.value, DeValue::Integer(_) | DeValue::Float(_))
    }

    pub(super) fn is_boolean(&self) -> bool {
        matches!(self.value, DeValue::Boolean(_))
    }

    pub(super) fn table(&self) -> Option<&'a DeTable<'a>> {
        match self.value {
            DeValue::Table(table) => Some(table),
            _ => self.wrong_type("a table", None),
        }
    }

    /// The elements of an array, with keys like `providers[1]`.
    pub(super) fn list(&self, help: Option<&str>) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(array) = self.value else { return self.wrong_type("an array", help) };
        let element = |(i, value)| Value::new(self.doc, format!("{}[{i}]", self.key), value);
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A string that is not empty.
    pub(super) fn string(&self, help: Option<&str>) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) if text.is_empty() => self.fail("must not be empty", help),
            DeValue::String(text) => Some(text),
            _ => self.wrong_type("a string", help),
        }
    }

    /// A string, which may be empty.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type("a string", None),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type("true or false", None),
        }
    }

    /// An integer.
    pub(super) fn integer(&self, range: RangeInclusive<i64>, help: Option<&str>) -> Option<i64> {
        let DeValue::Integer(integer) = self.value else { return self.wrong_type("an integer", help) };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        number.or_else(|| self.fail(format!("{integer} is not between {} and {}", range.start(), range.end()), help))
    }

    /// An integer or a floating-point number.
    pub(super) fn number(&self, range: RangeInclusive<f64>, help: Option<&str>) -> Option<f64> {
        let Some(number) = self.as_f64() else { return self.wrong_type("a number", help) };
        if range.contains(&number) {
            return Some(number);
        }
        self.fail(format!("{number} is not between {} and {}", range.start(), range.end()), help)
    }

    fn as_f64(&self) -> Option<f64> {
        match self.value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|integer| integer as f64)
            }
            _ => None,
        }
    }

    /// A string with a unit or a number of seconds.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (parsed, shown) = match (self.value, self.as_f64()) {
            (DeValue::String(text), _) => match duration::parse(text) {
                None => return self.fail(format!("{text:?} is not a duration"), Some(duration::HELP)),
                parsed => (parsed, text.to_string()),
            },
            (_, Some(seconds)) => (duration::from_seconds(seconds), format!("{seconds} s")),
            _ => return self.wrong_type("a duration", Some(duration::HELP)),
        };
        if let Some(duration) = parsed.filter(|duration| range.contains(duration)) {
            return Some(duration);
        }
        let (least, most) = (duration::show(*range.start()), duration::show(*range.end()));
        self.fail(format!("{shown} is not between {least} and {most}"), None)
    }

    /// A string with a unit or a number of bytes.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        const HELP: &str = r#"write "500MB", "50GB" or a number of bytes"#;
        let show = |bytes: u64| ByteSize::b(bytes).display().si().to_string();
        let (bytes, shown) = match self.value {
            DeValue::String(text) => match text.parse::<ByteSize>() {
                Ok(size) => (Some(size.as_u64()), text.to_string()),
                Err(_) => return self.fail(format!("{text:?} is not a size"), Some(HELP)),
            },
            DeValue::Integer(integer) => {
                (u64::from_str_radix(integer.as_str(), integer.radix()).ok(), format!("{integer} bytes"))
            }
            _ => return self.wrong_type("a size", Some(HELP)),
        };
        if let Some(bytes) = bytes.filter(|bytes| range.contains(bytes)) {
            return Some(bytes);
        }
        self.fail(format!("{shown} is not between {} and {}", show(*range.start()), show(*range.end())), Some(HELP))
    }

    /// One of a few words.
    pub(super) fn choice(&self, choices: &[&str], help: Option<&str>) -> Option<&'a str> {
        let word = self.string(help)?;
        if choices.contains(&word) {
            return Some(word);
        }
        let names: Vec<String> = choices.iter().map(|name| format!("{name:?}")).collect();
        let near = suggest(word, choices.iter().copied()).map(|near| format!("did you mean {near:?}?"));
        self.fail(format!("{word:?} is not one of {}", names.join(", ")), near.as_deref())
    }

    /// A path; relative paths start at the folder of the configuration file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.string(None).map(|text| tidy(self.doc.base().join(text)))
    }

    /// The path of a file that exists.
    pub(super) fn existing_file(&self) -> Option<PathBuf> {
        let path = self.path()?;
        let problem = match path.metadata() {
            Ok(metadata) if !metadata.is_dir() => return Some(path),
            Ok(_) => "is a folder, not a file".into(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "no such file".into(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.fail(problem, Some(&format!("looked for {}", path.display())))
    }

    /// The path of a file that exists or can be created.
    pub(super) fn file_to_write(&self) -> Option<PathBuf> {
        let path = self.path()?;
        match path.is_dir() {
            true => self.fail("is a folder, not a file", Some(&format!("it is {}", path.display()))),
            // One text for one path, so that it names the file in logs and metrics.
            false => Some(path.components().collect()),
        }
    }

    /// The path of a folder that exists or can be created.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let path = self.path()?;
        match path.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                self.fail("is a file, not a folder", Some(&format!("it is {}", path.display())))
            }
            _ => Some(path),
        }
    }
}
