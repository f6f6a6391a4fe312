//! Walks a parsed TOML document and collects what is wrong with it.
//!
//! A [`Section`] is a table, a [`Value`] is what stands at one key. Reading returns `None` both for an absent and for
//! a wrong value, after noting the error in the [`Document`]; the caller goes on with a default, so that one run finds
//! every error. A section remembers which keys it was asked for: the others are unknown, as [`Section::finish`] says.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration;
use super::error::{ConfigError, did_you_mean, line_of, suggest};

/// Which key lives where, for keys that are found in the wrong table: in TOML, a key below `[stream.overlay]` belongs
/// to the overlay, however the lines are indented.
pub(super) const HOMES: [(&str, &[&str]); 10] = [
    ("[model]", &["path", "providers", "require", "threads", "workers", "max_batch", "device", "cache_dir", "runtime"]),
    (
        "[server]",
        &["http", "rtsp", "allow_anonymous", "users", "rtsp_plain_auth", "hosts", "trusted_proxies", "api_sources"],
    ),
    ("[server.tls]", &["cert", "key"]),
    ("[server.webrtc]", &["stun", "turn", "udp_ports", "host_addresses", "max_viewers"]),
    (
        "[[stream]]",
        &[
            "name",
            "source",
            "show",
            "max_latency",
            "max_mask_age",
            "silence_timeout",
            "loop",
            "speed",
            "transport",
            "latency",
            "user",
            "password_file",
            "password_env",
            "tls_ca",
            "tls_fingerprint",
        ],
    ),
    ("[stream.overlay]", &["style", "alpha", "hide", "legend", "colors"]),
    ("[stream.encode]", &["encoder", "bitrate", "preset", "keyframe_interval", "jpeg_quality"]),
    (
        "[stream.record]",
        &["dir", "format", "segment", "segment_size", "max_age", "max_size", "min_free", "when", "event"],
    ),
    ("[[stream.record.event]]", &["classes", "zone", "share", "for", "pre_roll", "post_roll"]),
    ("[[stream.push]]", &["url"]),
];

/// The document being read: its text, the folder of its relative paths, its surroundings and its errors so far.
pub(super) struct Document<'a> {
    text: &'a str,
    base: PathBuf,
    env: &'a dyn Fn(&str) -> Option<String>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Document<'a> {
    /// `base` is the folder that relative paths start from, `env` looks up environment variables.
    pub(super) fn new(text: &'a str, base: PathBuf, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Document { text, base, env, errors: RefCell::default() }
    }

    /// The folder that relative paths start from.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// An environment variable.
    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// The whole document as a section.
    pub(super) fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        Section { doc: self, key: String::new(), at: None, table: Some(table), asked: RefCell::default() }
    }

    fn note(&self, key: String, at: Option<usize>, problem: String, help: Option<&str>) {
        let line = at.map(|offset| line_of(self.text.as_bytes(), offset));
        self.errors.borrow_mut().push(ConfigError { key, line, problem, help: help.map(str::to_owned) });
    }

    /// All errors in the order of the file's lines, those without a line last.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        errors
    }
}

/// A table, or the place where one could be: an absent section answers `None` to everything.
pub(super) struct Section<'a> {
    pub(super) doc: &'a Document<'a>,
    key: String,
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The same table under another key path.
    pub(super) fn renamed(self, key: String) -> Self {
        Section { key, ..self }
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The value at `key`, which counts as known from now on.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let value = self.table?.get(key)?;
        Some(Value { doc: self.doc, key: self.path_of(key), at: value.span().start, value: value.get_ref() })
    }

    /// Like [`Section::get`]; an absent key is an error.
    pub(super) fn require(&self, key: &'static str, help: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.fail(key, "is missing", Some(help));
        }
        value
    }

    /// The table at `key`, absent if there is none or what is there is no table.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        self.get(key).and_then(|value| value.section()).unwrap_or_else(|| Section {
            doc: self.doc,
            key: self.path_of(key),
            at: self.at,
            table: None,
            asked: RefCell::default(),
        })
    }

    /// Every key with its value, for tables whose keys are free names.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let entry = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            let place =
                Value { doc: self.doc, key: self.path_of(name), at: value.span().start, value: value.get_ref() };
            (name.as_ref(), place)
        };
        self.table.into_iter().flat_map(DeTable::iter).map(entry).collect()
    }

    /// Notes an error about `key`, on its line, or on this section's where it is absent.
    pub(super) fn fail(&self, key: &str, problem: impl Into<String>, help: Option<&str>) {
        let written = self.table.and_then(|table| table.get_key_value(key)).map(|(name, _)| name.span().start);
        self.doc.note(self.path_of(key), written.or(self.at), problem.into(), help);
    }

    /// Notes every key that nobody asked for. To be called when all known keys were.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (name, value) in self.entries().into_iter().filter(|(name, _)| !asked.contains(name)) {
            let home = HOMES.iter().find(|(_, keys)| keys.contains(&name)).map(|(table, _)| table);
            let near = suggest(name, asked.iter().copied());
            let help = match (home, near) {
                _ if name == "password" => {
                    "name a file that holds the password in password_file, or a variable in password_env".into()
                }
                (Some(table), _) => format!("it belongs in {table}"),
                (None, _) => did_you_mean(name, asked.iter().copied()),
            };
            let _: Option<()> = value.on_key(self, name).fail("unknown key", Some(&help));
        }
    }

    fn path_of(&self, key: &str) -> String {
        let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let key = if bare { key.to_owned() } else { format!("{key:?}") };
        if self.key.is_empty() { key } else { format!("{}.{key}", self.key) }
    }
}

/// What stands at one key.
pub(super) struct Value<'a> {
    pub(super) doc: &'a Document<'a>,
    key: String,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Notes an error about this value; always `None`, so that a reader can end with it.
    pub(super) fn fail<T>(&self, problem: impl Into<String>, help: Option<&str>) -> Option<T> {
        self.doc.note(self.key.clone(), Some(self.at), problem.into(), help);
        None
    }

    /// Moves the place of errors from the value to its key; they may stand on different lines.
    fn on_key(mut self, section: &Section<'a>, name: &str) -> Self {
        if let Some((key, _)) = section.table.and_then(|table| table.get_key_value(name)) {
            self.at = key.span().start;
        }
        self
    }

    fn wrong_type<T>(&self, expected: &str, help: Option<&str>) -> Option<T> {
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

    pub(super) fn section(&self) -> Option<Section<'a>> {
        match self.value {
            DeValue::Table(table) => Some(Section {
                doc: self.doc,
                key: self.key.clone(),
                at: Some(self.at),
                table: Some(table),
                asked: RefCell::default(),
            }),
            _ => self.wrong_type("a table", None),
        }
    }

    /// The elements of an array, with keys like `providers[1]`.
    pub(super) fn list(&self, help: Option<&str>) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(array) = self.value else { return self.wrong_type("an array", help) };
        let element = |(i, value): (usize, &'a Spanned<DeValue<'a>>)| Value {
            doc: self.doc,
            key: format!("{}[{i}]", self.key),
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A string that is not empty.
    pub(super) fn string(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) if text.is_empty() => self.fail("must not be empty", None),
            DeValue::String(text) => Some(text),
            _ => self.wrong_type("a string", None),
        }
    }

    /// A string, or nothing where it is empty.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text).filter(|text| !text.is_empty()).map(|text| text.as_ref()),
            _ => self.wrong_type("a string", None),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type("true or false", None),
        }
    }

    /// A whole number. `T` must hold the whole range.
    pub(super) fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>, help: &str) -> Option<T> {
        let DeValue::Integer(integer) = self.value else { return self.wrong_type("an integer", Some(help)) };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.fail(format!("{integer} is not between {} and {}", range.start(), range.end()), Some(help)),
        }
    }

    /// A number with or without a fraction.
    pub(super) fn number(&self, range: RangeInclusive<f64>, help: &str) -> Option<f64> {
        let Some(number) = self.as_f64() else { return self.wrong_type("a number", Some(help)) };
        if range.contains(&number) {
            return Some(number);
        }
        self.fail(format!("{number} is not between {} and {}", range.start(), range.end()), Some(help))
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
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let word = self.string()?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*choice);
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let help = suggest(word, choices.iter().map(|(name, _)| *name)).map(|near| format!("did you mean {near:?}?"));
        self.fail(format!("{word:?} is none of {}", names.join(", ")), help.as_deref())
    }

    /// A path; relative ones start at the configuration file's folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.string().map(|text| tidy(self.doc.base.join(text)))
    }

    /// The path of a file that is there.
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

    /// The path of a folder that is there or can still be made.
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

/// The path without `..`, where it leads somewhere, so that logs name the place that people know. Links stay: a manifest lies
/// beside the link to its model.
pub(super) fn tidy(path: PathBuf) -> PathBuf {
    let detours = path.components().any(|part| part == std::path::Component::ParentDir);
    let direct = if detours { path.canonicalize().ok() } else { None };
    direct.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that has a home is accepted there: the list above cannot fall behind the readers.
    #[test]
    fn every_home_is_true() {
        for (table, keys) in HOMES {
            for key in keys {
                // Text under a key of another type is wrong, but never unknown.
                let text = format!("[[stream]]\nname = \"a\"\nsource = \"test://\"\n{table}\n{key} = 1979-05-27\n");
                let text = if table == "[[stream]]" { format!("[[stream]]\n{key} = 1979-05-27\n") } else { text };
                let errors = super::super::parse(&text, Path::new("test.toml")).unwrap_err();
                assert!(errors.errors.iter().any(|e| e.key.ends_with(key)), "{table} {key}: {errors}");
                assert!(!errors.to_string().contains("unknown key"), "{table} {key}: {errors}");
            }
        }
    }
}
