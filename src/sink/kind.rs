//! The description of a sink that can be configured: its type, its keys, how it is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mask::MaskSink;

/// A type of `[[stream.sink]]`. Two are the same if their names are.
#[derive(Debug)]
pub struct MaskSinkKind {
    /// The value of the key `type`.
    pub name: &'static str,
    /// What it does, for the reference of the configuration.
    pub about: &'static str,
    /// The keys of its table beside [`COMMON_KEYS`].
    pub keys: &'static [SinkKey],
    /// Names one sink among those of a stream, in logs, metrics and the API: a path, an address; without secrets.
    pub label: fn(&SinkSettings) -> String,
    /// Makes the sink. It runs on a thread of its own, and opens files and connections when the first mask comes.
    pub open: fn(&SinkSettings) -> Box<dyn MaskSink>,
}

impl PartialEq for MaskSinkKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Keys of every sink beside `type`.
pub static COMMON_KEYS: &[SinkKey] = &[SinkKey {
    name: "every",
    kind: KeyKind::Duration { least: Duration::from_millis(100), most: Duration::from_secs(24 * 3600) },
    is_required: false,
    about: "At most one mask in this time; without it, every mask.",
}];

/// A key of a sink's table.
#[derive(Debug)]
pub struct SinkKey {
    pub name: &'static str,
    pub kind: KeyKind,
    pub is_required: bool,
    /// Its meaning, for the reference of the configuration and for error messages.
    pub about: &'static str,
}

/// What the value of a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The path of a file, which may not exist yet; relative paths start at the folder of the configuration.
    File,
    /// A time, with its range.
    Duration { least: Duration, most: Duration },
}

/// The values of a sink's keys, read and validated by their [`KeyKind`]. A required key has a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkSettings {
    pub files: BTreeMap<&'static str, PathBuf>,
    pub durations: BTreeMap<&'static str, Duration>,
}

impl SinkSettings {
    /// The path at a key of [`KeyKind::File`]; empty for a key without a value.
    pub fn file(&self, key: &str) -> &Path {
        self.files.get(key).map_or(Path::new(""), PathBuf::as_path)
    }

    /// The time at a key of [`KeyKind::Duration`].
    pub fn duration(&self, key: &str) -> Option<Duration> {
        self.durations.get(key).copied()
    }
}
