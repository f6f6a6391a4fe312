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
    /// Makes the sink. It runs on a thread of its own, and opens files and connections when the first mask arrives.
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
    about: "Minimum time between two masks that are written. Without this key, every mask is written.",
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

/// What the value of a key may be. `src/config/sink_key.rs` reads and shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The path of a file, which may not exist yet; relative paths start at the folder of the configuration.
    File,
    /// A time, with its range.
    Duration { least: Duration, most: Duration },
    /// `HOST:PORT` of a destination in the network; HOST is a name, an IPv4 address, or an IPv6 address in brackets.
    Address,
}

/// The value of a key, of the [`KeyKind`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValue {
    File(PathBuf),
    Duration(Duration),
    Address(String),
}

/// The values of a sink's keys by name, read and validated by their [`KeyKind`]. A required key has a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkSettings(pub BTreeMap<&'static str, KeyValue>);

impl SinkSettings {
    /// The path at a key of [`KeyKind::File`]; empty for a key without a value.
    pub fn file(&self, key: &str) -> &Path {
        match self.0.get(key) {
            Some(KeyValue::File(path)) => path,
            _ => Path::new(""),
        }
    }

    /// The time at a key of [`KeyKind::Duration`].
    pub fn duration(&self, key: &str) -> Option<Duration> {
        match self.0.get(key) {
            Some(KeyValue::Duration(time)) => Some(*time),
            _ => None,
        }
    }

    /// The destination at a key of [`KeyKind::Address`]; empty for a key without a value.
    pub fn address(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(KeyValue::Address(address)) => address,
            _ => "",
        }
    }
}
