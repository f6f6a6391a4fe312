//! Writes TensorBoard event files with scalars.
//!
//! An event file is a sequence of TFRecords (tensorflow/core/lib/io/record_writer.h), each with an `Event` message
//! (tensorflow/core/util/event.proto, summary.proto). The fields that scalars need are defined here, so that the build needs
//! no protobuf compiler. Each start of a run creates a file, as TensorBoard expects. It shows all files of a folder as one
//! run.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

/// An event file cannot be created or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write TensorBoard events to {}: {source}; is the disk full, or the folder read-only?", path.display())]
pub struct EventError {
    path: PathBuf,
    source: io::Error,
}

/// `Event`
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "EventContent", tags = "3, 5, 7")]
    content: Option<EventContent>,
}

/// `Event.what`
#[derive(Clone, PartialEq, prost::Oneof)]
enum EventContent {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    ScalarSummary(ScalarSummary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `Summary`
#[derive(Clone, PartialEq, Message)]
struct ScalarSummary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<ScalarValue>,
}

/// `Summary.Value`
#[derive(Clone, PartialEq, Message)]
struct ScalarValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, so that the value 0 is written.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `SessionLog`
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`: TensorBoard ignores events of earlier files from this step on.
const START: i32 = 1;

/// Writes scalars. Events that are not flushed are lost if the process is killed. Dropping the writer flushes them.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates an event file in `dir`, which is created if necessary. With `resumed_at`, TensorBoard ignores the events of
    /// earlier files from this step on.
    ///
    /// # Errors
    /// The folder or the file cannot be created.
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

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a value of the curve `tag`. TensorBoard groups curves by the part of the tag before a slash (`loss/train`).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f64, step: i64) -> Result<(), EventError> {
        let value = ScalarValue { tag: tag.to_owned(), simple_value: Some(value as f32) };
        self.event(step, EventContent::ScalarSummary(ScalarSummary { value: vec![value] }))
    }

    /// Writes all events to the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), EventError> {
        self.file.flush().map_err(|source| EventError { path: self.path.clone(), source })
    }

    fn event(&mut self, step: i64, content: EventContent) -> Result<(), EventError> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let event = Event { wall_time, step, content: Some(content) };
        let record = record(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|source| EventError { path: self.path.clone(), source })
    }
}

/// Creates the file `events.out.tfevents.SECONDS.HOST.PID.N`. TensorBoard reads the files of a folder in the order of their
/// names, so that the seconds come first.
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

/// A TFRecord: the length, its checksum, the data, and their checksum, all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc(data).to_le_bytes());
    out
}

/// The masked CRC-32C, for data that contain CRCs themselves (tensorflow/core/lib/hash/crc32c.h).
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
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(masked_crc(&[0; 32]), 0x8A91_36AAu32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn written_scalars_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("run"), None).unwrap();
        writer.scalar("loss/train", 0.25, 3).unwrap();
        writer.scalar("val/miou", 0.0, 4).unwrap();
        writer.flush().unwrap();
        let events = events(writer.path());
        assert_eq!(events[0].content, Some(EventContent::FileVersion("brain.Event:2".into())));
        let scalar = |n: usize| match &events[n].content {
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
    fn a_resumed_run_creates_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), None).unwrap();
        let second = EventWriter::create(dir.path(), Some(7)).unwrap();
        assert_ne!(first.path(), second.path());
        let start = events(second.path()).pop().unwrap();
        assert_eq!((start.step, start.content), (7, Some(EventContent::SessionLog(SessionLog { status: START }))));
    }

    #[test]
    fn a_folder_that_cannot_be_created_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = file.path().join("run");
        let error = EventWriter::create(&folder, None).unwrap_err();
        assert_eq!((error.path, error.source.kind()), (folder, io::ErrorKind::NotADirectory));
    }
}
