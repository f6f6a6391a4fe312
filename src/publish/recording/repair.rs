//! Repairs MP4 recordings that were cut off: browsers cannot seek in a file that ends in fragments.
//!
//! The frames are copied, without decoding, into a finished file in the same folder. The copy is then read back. It
//! replaces the recording only if it contains the same frames, and if these are all of the media data in the recording,
//! byte for byte: a demuxer may take damage in the middle of a file for its end. The disk must have room for both
//! files.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;
use jiff::Timestamp;

use super::archive::{Archive, FoundRecording};
use super::file::{self, Layout};
use super::in_use;
use super::length::{self, Length};
use crate::base::atomic_file::put_in_place;
use crate::config::Container;
use crate::gst::{GstError, make};
use crate::publish::encoder::glib_error;

/// The suffix of an unfinished copy. No recording has such a name.
const COPY_SUFFIX: &str = ".part";

/// Why a recording was not repaired.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Gst(#[from] GstError),
    #[error("the file is damaged before its end")]
    Damaged,
    #[error("the file has {frames} frames, and {copied} of the copy are identical")]
    CopyDiffers { frames: u64, copied: u64 },
    #[error("some of its frames cannot be read")]
    FramesMissing,
    #[error("the pipeline that reads the file did not stop")]
    PipelineRuns,
    #[error("the recorder stops")]
    Stopped,
}

/// Repairs the recordings of a stream that were cut off, on its own thread. Dropping it stops the repair.
pub struct Repair {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repair {
    /// Starts to check all recordings that the stream made earlier. `None` when the thread cannot be started; the files
    /// then stay as they are.
    pub fn start(archive: Arc<Archive>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let now = Timestamp::now().as_second();
        let work = move || {
            remove_copies(&archive);
            // Files of this recorder are not repaired.
            let is_old = |found: &FoundRecording| found.name.start.as_second() < now && !archive.is_open(&found.file);
            let mut found = archive.scan().unwrap_or_default();
            found.retain(is_old);
            for found in found.iter().take_while(|_| !stopped.load(Ordering::Relaxed)) {
                repair_file(&archive, found, &stopped);
            }
        };
        let thread = std::thread::Builder::new().name("repair".into()).spawn(work).ok()?;
        Some(Repair { stop, thread: Some(thread) })
    }

    /// Waits until all recordings have been checked; false after a panic.
    pub fn finish(mut self) -> bool {
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(stage = "record", "thread ended in a panic: repair of recordings; the files are unchanged");
        }
    }
}

/// Removes copies of an earlier repair that was interrupted.
fn remove_copies(archive: &Archive) {
    for entry in std::fs::read_dir(&archive.config().dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.strip_suffix(COPY_SUFFIX).is_some_and(|file| archive.parse(file).is_some()) {
            // A copy that cannot be removed is overwritten by the next repair.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Repairs the recording if it was cut off, and logs the result.
fn repair_file(archive: &Archive, found: &FoundRecording, stop: &AtomicBool) {
    let path = archive.config().dir.join(&found.file);
    let copy = archive.config().dir.join(format!("{}{COPY_SUFFIX}", found.file));
    let length = length::inspect(&path, found.name.container).unwrap_or(Length::Open);
    if matches!(length, Length::Finished(_)) || (length == Length::Open && found.name.container != Container::Mp4) {
        return;
    }
    let stream = &**archive.stream();
    let file = path.display();
    // Held until the copy has replaced the recording.
    let Some(_lock) = in_use::try_lock(&path) else {
        tracing::warn!(
            stream,
            stage = "record",
            "cannot repair a recording, another program is writing it; use a separate folder for each service: {file}"
        );
        return;
    };
    if length == Length::Empty {
        tracing::warn!(
            stream,
            stage = "record",
            "cannot repair a recording, it was cut off before its first frame and cannot be played; delete it: {file} \
             ({} bytes)",
            found.bytes
        );
        return;
    }
    if !archive.has_room(found.bytes) {
        // No older recordings are removed for the copy: new recordings need the space.
        tracing::warn!(
            stream,
            stage = "record",
            "cannot repair a recording, the disk has no room for a copy; it was cut off and can be played, but not sought \
             in: {file}"
        );
        return;
    }
    match replace_by_copy(&path, &copy, stop) {
        Ok(()) => tracing::info!(stream, stage = "record", "repaired a recording that was cut off: {file}"),
        Err(error) => {
            let _ = std::fs::remove_file(&copy);
            tracing::debug!(
                stream,
                stage = "record",
                "cannot repair a recording; it was cut off and can be played, but not sought in: {file}: {error}"
            );
        }
    }
}

fn replace_by_copy(path: &Path, copy: &Path, stop: &AtomicBool) -> Result<(), RepairError> {
    let fragments = length::media_data_of_fragments(path)?.ok_or(RepairError::Damaged)?;
    copy_frames(path, copy, stop)?;
    if !contains_media_data(copy, path, &fragments)? {
        return Err(RepairError::FramesMissing);
    }
    replace(path, copy)?;
    Ok(())
}

/// Whether the media data of the finished file at `copy` begins with the bytes in `parts` of the file at `path`. Muxers
/// write the frames one after the other, so damage that a demuxer took for other frames makes the bytes differ.
fn contains_media_data(copy: &Path, path: &Path, parts: &[Range<u64>]) -> std::io::Result<bool> {
    let copied = length::media_data(copy)?;
    if parts.iter().map(|part| part.end - part.start).sum::<u64>() > copied.end - copied.start {
        return Ok(false);
    }
    let (mut file, mut copy) = (File::open(path)?, File::open(copy)?);
    copy.seek(SeekFrom::Start(copied.start))?;
    let (mut expected, mut actual) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    for part in parts {
        file.seek(SeekFrom::Start(part.start))?;
        let mut left = part.end - part.start;
        while left > 0 {
            let count = left.min(expected.len() as u64) as usize;
            file.read_exact(&mut expected[..count])?;
            copy.read_exact(&mut actual[..count])?;
            if expected[..count] != actual[..count] {
                return Ok(false);
            }
            left -= count as u64;
        }
    }
    Ok(true)
}

/// Replaces the recording by the copy, after the copy is on the disk, so that a power failure cannot lose both.
fn replace(path: &Path, copy: &Path) -> std::io::Result<()> {
    let file = File::options().write(true).open(copy)?;
    // Keeps the age of the recording.
    file.set_modified(std::fs::metadata(path)?.modified()?)?;
    put_in_place(copy, path)
}

/// Copies the frames of the MP4 file at `from` into a finished one at `to`, and reads that back to compare.
fn copy_frames(from: &Path, to: &Path, stop: &AtomicBool) -> Result<(), RepairError> {
    let original = read(from, stop, |pipeline| file::add_file(pipeline, Container::Mp4, to, Layout::HeaderLast))?;
    let copy = read(to, stop, |pipeline| {
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().map_err(glib_error)?;
        pipeline.add(&sink).map_err(glib_error)?;
        Ok(sink)
    })?;
    if original.count == 0 || copy != original {
        return Err(RepairError::CopyDiffers { frames: original.count, copied: copy.count });
    }
    Ok(())
}

/// Number and hash of the frames that were read, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FrameDigest {
    count: u64,
    /// Of the bytes of all frames.
    hash: u64,
}

/// Reads the MP4 file at `path` as fast as possible, and sends its video to the element that `add_sink` adds.
fn read(
    path: &Path,
    stop: &AtomicBool,
    add_sink: impl FnOnce(&gst::Pipeline) -> Result<gst::Element, GstError>,
) -> Result<FrameDigest, RepairError> {
    let (pipeline, bus) = crate::gst::pipeline()?;
    let (source, demux) = (make("filesrc")?, make("qtdemux")?);
    source.set_property("location", path.to_string_lossy().as_ref());
    pipeline.add_many([&source, &demux]).map_err(glib_error)?;
    source.link(&demux).map_err(glib_error)?;
    let sink = add_sink(&pipeline)?;
    let digest = Arc::new(Mutex::new(FrameDigest::default()));
    let seen = Arc::clone(&digest);
    demux.connect_pad_added(move |_, pad| {
        // The demuxer reports an error for a pad that is not linked.
        let Some(target) = sink.compatible_pad(pad, None) else { return };
        let seen = Arc::clone(&seen);
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(kinds, move |_, info| {
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => seen.lock().add(buffer),
                Some(gst::PadProbeData::Event(event)) => remove_frame_rate(event),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        let _ = pad.link(&target);
    });
    let result = match pipeline.set_state(gst::State::Playing) {
        Ok(_) => wait_for_end(&bus, stop),
        Err(_) => Err(crate::gst::state_error(&pipeline, "the file cannot be read").into()),
    };
    let stopped = pipeline.set_state(gst::State::Null);
    result?;
    stopped.map_err(|_| RepairError::PipelineRuns)?;
    let digest = digest.lock().clone();
    Ok(digest)
}

impl FrameDigest {
    fn add(&mut self, buffer: &gst::Buffer) {
        let mut hasher = DefaultHasher::new();
        self.hash.hash(&mut hasher);
        if let Ok(bytes) = buffer.map_readable() {
            bytes.hash(&mut hasher);
        }
        (self.count, self.hash) = (self.count + 1, hasher.finish());
    }
}

/// Removes the frame rate from the caps of the demuxer. It estimates the rate from the timestamps of each fragment,
/// which vary with a camera's timing, and the muxer takes another rate for another format that needs a new header.
fn remove_frame_rate(event: &mut gst::Event) {
    let gst::EventView::Caps(caps) = event.view() else { return };
    let mut caps = caps.caps_owned();
    for structure in caps.make_mut().iter_mut() {
        structure.remove_field("framerate");
    }
    *event = gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build();
}

fn wait_for_end(bus: &gst::Bus, stop: &AtomicBool) -> Result<(), RepairError> {
    let poll = gst::ClockTime::from_mseconds(100);
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = bus.timed_pop_filtered(poll, &[gst::MessageType::Eos, gst::MessageType::Error]) else {
            continue;
        };
        return match message.view() {
            gst::MessageView::Error(error) => Err(crate::gst::describe(error).into()),
            _ => Ok(()),
        };
    }
    Err(RepairError::Stopped)
}
