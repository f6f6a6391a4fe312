//! TensorBoard event files: scalars over steps, for people who watch their runs there.
//!
//! An event file is a row of TFRecords (tensorflow/core/lib/io/record_writer.h), each an `Event` message
//! (tensorflow/core/util/event.proto, summary.proto); the few fields that scalars need are written out here, so that
//! the build needs neither `protoc` nor a download. Files are never appended to: each start makes its own, as
//! TensorBoard expects, and it shows all of a folder as one run.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write TensorBoard events to {}: {source}; is the disk full, or the folder read-only?", path.display())]
pub struct EventError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "EventContent", tags = "3, 5, 7")]
    what: Option<EventContent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum EventContent {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    ScalarSummary(ScalarSummary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct ScalarSummary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<ScalarValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScalarValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, so that a zero is written out too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`: what earlier files say of this step and later ones is void.
const START: i32 = 1;

/// Writes scalars. EventContent is not flushed is lost when the process dies; dropping flushes.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Makes `dir` and a new event file in it. A resumed run gives the first step that it does again: TensorBoard then
    /// forgets what the killed run had said from there on.
    ///
    /// # Errors
    /// If the folder or file cannot be made.
    pub fn create(dir: &Path, resumed_at: Option<i64>) -> Result<Self, EventError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EventError { path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        let (path, file) = new_file(dir).map_err(failed(dir))?;
        let mut writer = EventWriter { path, file: BufWriter::new(file) };
        writer.event(0, EventContent::FileVersion("brain.Event:2".into()))?;
        if let Some(step) = resumed_at {
            writer.event(step, EventContent::SessionLog(SessionLog { status: START }))?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One value of one curve. Tags with a slash (`loss/train`) are grouped by what is before it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f64, step: i64) -> Result<(), EventError> {
        let value = ScalarValue { tag: tag.to_owned(), simple_value: Some(value as f32) };
        self.event(step, EventContent::ScalarSummary(ScalarSummary { value: vec![value] }))
    }

    /// Hands everything to the operating system: it survives the death of the process from here on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn flush(&mut self) -> Result<(), EventError> {
        self.file.flush().map_err(|source| EventError { path: self.path.clone(), source })
    }

    fn event(&mut self, step: i64, what: EventContent) -> Result<(), EventError> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let event = Event { wall_time, step, what: Some(what) };
        let record = record(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|source| EventError { path: self.path.clone(), source })
    }
}

/// A file that was not there: `events.out.tfevents.SECONDS.HOST.PID.N`. TensorBoard reads a folder's files by name, so
/// the seconds come first.
fn new_file(dir: &Path) -> io::Result<(PathBuf, File)> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    let mut n = 0;
    loop {
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.{host}.{}.{n}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A TFRecord: length, its checksum, the data, their checksum; all numbers little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc(data).to_le_bytes());
    out
}

/// A checksum of data that may hold checksums themselves (tensorflow/core/lib/hash/crc32c.h).
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (head, body) = rest.split_at(12);
            assert_eq!(head[8..], masked_crc(&head[..8]).to_le_bytes());
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            assert_eq!(body[length..length + 4], masked_crc(&body[..length]).to_le_bytes());
            events.push(Event::decode(&body[..length]).unwrap());
            rest = &body[length + 4..];
        }
        events
    }

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(masked_crc(&[0; 32]), 0x8A91_36AAu32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn scalars_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("run"), None).unwrap();
        writer.scalar("loss/train", 0.25, 3).unwrap();
        writer.scalar("val/miou", 0.0, 4).unwrap();
        writer.flush().unwrap();
        let events = events(writer.path());
        assert_eq!(events[0].what, Some(EventContent::FileVersion("brain.Event:2".into())));
        let scalar = |n: usize| match &events[n].what {
            Some(EventContent::ScalarSummary(summary)) => {
                (summary.value[0].tag.clone(), summary.value[0].simple_value, events[n].step)
            }
            other => panic!("not a scalar: {other:?}"),
        };
        assert_eq!(scalar(1), ("loss/train".into(), Some(0.25), 3));
        assert_eq!(scalar(2), ("val/miou".into(), Some(0.0), 4));
        assert!(events[2].wall_time > 1.6e9);
    }

    #[test]
    fn a_resumed_run_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), None).unwrap();
        let second = EventWriter::create(dir.path(), Some(7)).unwrap();
        assert_ne!(first.path(), second.path());
        let start = events(second.path()).pop().unwrap();
        assert_eq!((start.step, start.what), (7, Some(EventContent::SessionLog(SessionLog { status: START }))));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = EventWriter::create(&file.path().join("run"), None).unwrap_err();
        assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
    }
}
