//! Recordings that were cut off are made whole: browsers cannot seek in a file that ends in fragments.
//!
//! Such a file is copied into a finished one beside it, picture by picture without decoding. The copy is read again, and
//! takes its place if it holds the same pictures, and they are all that there are in the file, byte for byte: a demuxer may
//! take damage in the middle of one for its end. The disk must have room for both.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use gstreamer as gst;

use gst::prelude::*;
use jiff::Timestamp;

use super::archive::{Archive, FoundRecording};
use super::file::{self, Layout};
use super::in_use;
use super::length::{self, Length};
use crate::base::atomic_file::put_in_place;
use crate::config::Container;
use crate::gst::make;
use crate::publish::OutputError;
use crate::publish::encoder::glib_error;

/// Ends the name of a copy that is not finished. No recording is called like that.
const COPY: &str = ".part";

/// Mends a stream's cut off recordings on a thread of its own; stops when it is dropped.
pub struct Repair {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repair {
    /// Looks at what the stream has recorded before. `None` when there is no thread for it: files stay as they are.
    pub fn start(archive: Arc<Archive>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let began = Timestamp::now().as_second();
        let work = move || {
            remove_copies(&archive);
            // What this recorder writes is none of its business.
            let is_old = |found: &FoundRecording| found.name.start.as_second() < began && !archive.is_open(&found.file);
            let mut found = archive.scan().unwrap_or_default();
            found.retain(is_old);
            for found in found.iter().take_while(|_| !stopped.load(Ordering::Relaxed)) {
                mend(&archive, found, &stopped);
            }
        };
        let thread = std::thread::Builder::new().name("repair".into()).spawn(work).ok()?;
        Some(Repair { stop, thread: Some(thread) })
    }

    /// Waits until it has looked at everything; false after a panic.
    pub fn finish(mut self) -> bool {
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the repair of recordings ended in a panic; they are as they were");
        }
    }
}

/// Removes what an earlier repair left, cut off itself.
fn remove_copies(archive: &Archive) {
    for entry in std::fs::read_dir(&archive.config().dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.strip_suffix(COPY).is_some_and(|file| archive.parse(file).is_some()) {
            // One that stays is overwritten.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn mend(archive: &Archive, found: &FoundRecording, stop: &AtomicBool) {
    let path = archive.config().dir.join(&found.file);
    let copy = archive.config().dir.join(format!("{}{COPY}", found.file));
    let length = length::look(&path, found.name.container).unwrap_or(Length::Open);
    if matches!(length, Length::Finished(_)) || (length == Length::Open && found.name.container != Container::Mp4) {
        return;
    }
    let stream = &**archive.stream();
    // Held until the copy has taken its place.
    let Some(_claim) = in_use::claim(&path) else {
        let text = format!("{}: another program is writing it; give each service a folder of its own", path.display());
        tracing::warn!(stream, stage = "record", "{text}");
        return;
    };
    if length == Length::Nothing {
        let (file, bytes) = (path.display(), found.bytes);
        let text =
            format!("{file}: was cut off before its first pictures, and nothing can be read from it ({bytes} bytes)");
        tracing::warn!(stream, stage = "record", "{text}");
        return;
    }
    if !archive.has_room(found.bytes) {
        // The recordings of today are worth more.
        let text = format!("{}: was cut off, is playable, and there is no room to mend it", path.display());
        tracing::warn!(stream, stage = "record", "{text}");
        return;
    }
    let problem = |error: std::io::Error| OutputError(error.to_string());
    let mended = complete(&path).and_then(|pictures| {
        finish(&path, &copy, stop)?;
        if !holds(&copy, &path, &pictures).map_err(problem)? {
            return Err(OutputError("not all of its pictures can be read".into()));
        }
        replace(&path, &copy).map_err(problem)
    });
    match mended {
        Ok(()) => tracing::info!(stream, stage = "record", "{}: was cut off, and is whole again", path.display()),
        Err(problem) => {
            // What there is of it stays playable.
            let _ = std::fs::remove_file(&copy);
            tracing::debug!(stream, stage = "record", "{}: was cut off, and stays so: {problem}", path.display());
        }
    }
}

/// Where the pictures are in the MP4 at `path`, where that is all that there is of it.
fn complete(path: &Path) -> Result<Vec<Range<u64>>, OutputError> {
    let pictures = length::pictures_in_fragments(path).map_err(|error| OutputError(error.to_string()))?;
    pictures.ok_or_else(|| OutputError("it is damaged before its end".into()))
}

/// Whether the finished file at `copy` begins with the pictures that are in these parts of the file at `path`, byte for byte:
/// muxers copy them one behind the other, and what a demuxer took for other pictures is none.
fn holds(copy: &Path, path: &Path, parts: &[Range<u64>]) -> std::io::Result<bool> {
    let copied = length::pictures(copy)?;
    if parts.iter().map(|part| part.end - part.start).sum::<u64>() > copied.end - copied.start {
        return Ok(false);
    }
    let (mut file, mut copy) = (File::open(path)?, File::open(copy)?);
    copy.seek(SeekFrom::Start(copied.start))?;
    let (mut wanted, mut found) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    for part in parts {
        file.seek(SeekFrom::Start(part.start))?;
        let mut left = part.end - part.start;
        while left > 0 {
            let count = left.min(wanted.len() as u64) as usize;
            file.read_exact(&mut wanted[..count])?;
            copy.read_exact(&mut found[..count])?;
            if wanted[..count] != found[..count] {
                return Ok(false);
            }
            left -= count as u64;
        }
    }
    Ok(true)
}

/// Lets the copy take the recording's place; not before it is on the disk, for the power may fail at any time.
fn replace(path: &Path, copy: &Path) -> std::io::Result<()> {
    let file = File::options().write(true).open(copy)?;
    // Its age stays what it was.
    file.set_modified(std::fs::metadata(path)?.modified()?)?;
    put_in_place(copy, path)
}

/// Copies the pictures of the MP4 at `from` into a finished one, and reads that again: it has to hold the same.
fn finish(from: &Path, to: &Path, stop: &AtomicBool) -> Result<(), OutputError> {
    let copied = read(from, stop, |pipeline| file::add_file(pipeline, Container::Mp4, to, Layout::HeaderLast))?;
    let found = read(to, stop, |pipeline| {
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().map_err(glib_error)?;
        pipeline.add(&sink).map_err(glib_error)?;
        Ok(sink)
    })?;
    if copied.count == 0 || found != copied {
        return Err(OutputError(format!(
            "it has {} pictures, and {} of the copy are right",
            copied.count, found.count
        )));
    }
    Ok(())
}

/// Which pictures were read, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pictures {
    count: u64,
    /// Of all their bytes.
    hash: u64,
}

/// Reads the MP4 at `path` as fast as it goes, its video into what `next` adds.
fn read(
    path: &Path,
    stop: &AtomicBool,
    next: impl FnOnce(&gst::Pipeline) -> Result<gst::Element, OutputError>,
) -> Result<Pictures, OutputError> {
    let (pipeline, bus) = crate::gst::pipeline()?;
    let (source, demux) = (make("filesrc")?, make("qtdemux")?);
    source.set_property("location", path.to_string_lossy().as_ref());
    pipeline.add_many([&source, &demux]).map_err(glib_error)?;
    source.link(&demux).map_err(glib_error)?;
    let next = next(&pipeline)?;
    let pictures = Arc::new(Mutex::new(Pictures::default()));
    let seen = Arc::clone(&pictures);
    demux.connect_pad_added(move |_, pad| {
        // A pad that finds no place ends the demuxer with an error.
        let Some(sink) = next.compatible_pad(pad, None) else { return };
        let seen = Arc::clone(&seen);
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(kinds, move |_, info| {
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).add(buffer)
                }
                Some(gst::PadProbeData::Event(event)) => without_rate(event),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        let _ = pad.link(&sink);
    });
    let result = match pipeline.set_state(gst::State::Playing) {
        Ok(_) => wait(&bus, stop),
        Err(_) => Err(crate::gst::state_error(&pipeline, "it cannot be read").into()),
    };
    let stopped = pipeline.set_state(gst::State::Null);
    result?;
    stopped.map_err(|_| OutputError("reading it did not end".into()))?;
    let pictures = pictures.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(pictures)
}

impl Pictures {
    fn add(&mut self, buffer: &gst::Buffer) {
        let mut hasher = DefaultHasher::new();
        self.hash.hash(&mut hasher);
        if let Ok(bytes) = buffer.map_readable() {
            bytes.hash(&mut hasher);
        }
        (self.count, self.hash) = (self.count + 1, hasher.finish());
    }
}

/// The demuxer guesses the frame rate anew with each fragment, from a camera's uneven times; to the muxer, another rate
/// is another format, with a header of its own.
fn without_rate(event: &mut gst::Event) {
    let gst::EventView::Caps(caps) = event.view() else { return };
    let mut caps = caps.caps_owned();
    for structure in caps.make_mut().iter_mut() {
        structure.remove_field("framerate");
    }
    *event = gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build();
}

fn wait(bus: &gst::Bus, stop: &AtomicBool) -> Result<(), OutputError> {
    let patience = gst::ClockTime::from_mseconds(100);
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = bus.timed_pop_filtered(patience, &[gst::MessageType::Eos, gst::MessageType::Error]) else {
            continue;
        };
        return match message.view() {
            gst::MessageView::Error(error) => Err(crate::gst::describe(error).into()),
            _ => Ok(()),
        };
    }
    Err(OutputError("the recorder stops".into()))
}
