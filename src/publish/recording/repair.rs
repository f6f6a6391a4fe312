//! Recordings that were cut off are made whole: browsers cannot seek in a file that ends in fragments.
//!
//! Such a file is copied into a finished one beside it, picture by picture without decoding, which then takes its place.
//! The disk must have room for two of it: the muxer, too, keeps the pictures in a file beside its own until it can write the
//! header that stands before them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use gstreamer as gst;

use gst::prelude::*;
use jiff::Timestamp;

use super::archive::{Archive, Found};
use super::{file, length};
use crate::config::Container;
use crate::gst::make;
use crate::publish::OutputError;
use crate::publish::encoder::glib_error;

/// Ends the name of a copy that is not finished. No recording is called like that.
const COPY: &str = ".part";

/// Ends the name of the muxer's own file.
const PICTURES: &str = ".faststart";

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
            let is_old = |found: &Found| found.name.start.as_second() < began && !archive.is_open(&found.file);
            let mut found = archive.scan().unwrap_or_default();
            found.retain(|found| found.name.container == Container::Mp4 && is_old(found));
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
        let file = name.strip_suffix(COPY).or_else(|| name.strip_suffix(PICTURES));
        if file.is_some_and(|file| archive.parse(file).is_some()) {
            // One that stays is overwritten.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn mend(archive: &Archive, found: &Found, stop: &AtomicBool) {
    let path = archive.config().dir.join(&found.file);
    let copy = archive.config().dir.join(format!("{}{COPY}", found.file));
    if length::finished(&path).is_ok_and(|length| length.is_some()) {
        return;
    }
    let stream = &**archive.stream();
    if !archive.has_room(found.bytes.saturating_mul(2)) {
        // The recordings of today are worth more.
        tracing::debug!(stream, stage = "record", "{}: was cut off, and there is no room to mend it", path.display());
        return;
    }
    let mended = finish(&path, &copy, stop).and_then(|()| {
        let problem = |error: std::io::Error| OutputError(error.to_string());
        // Its age stays what it was.
        let modified = std::fs::metadata(&path).and_then(|found| found.modified()).map_err(problem)?;
        std::fs::File::options().write(true).open(&copy).and_then(|f| f.set_modified(modified)).map_err(problem)?;
        std::fs::rename(&copy, &path).map_err(problem)
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

/// Copies the pictures of the MP4 at `from` into a finished one.
fn finish(from: &Path, to: &Path, stop: &AtomicBool) -> Result<(), OutputError> {
    let (pipeline, bus) = crate::gst::pipeline()?;
    let (source, demux, parse) = (make("filesrc")?, make("qtdemux")?, make("h264parse")?);
    source.set_property("location", from.to_string_lossy().as_ref());
    pipeline.add_many([&source, &demux, &parse]).map_err(glib_error)?;
    source.link(&demux).map_err(glib_error)?;
    file::add_file(&pipeline, &parse, Container::Mp4, to, true)?;
    let sink = parse.static_pad("sink").ok_or_else(|| OutputError("h264parse takes nothing".into()))?;
    demux.connect_pad_added(move |_, pad| {
        if !sink.is_linked() {
            // A pad that does not fit ends the demuxer with an error.
            let _ = pad.link(&sink);
        }
    });
    let result = match pipeline.set_state(gst::State::Playing) {
        Ok(_) => wait(&bus, stop),
        Err(_) => Err(crate::gst::state_error(&pipeline, "it cannot be read").into()),
    };
    let stopped = pipeline.set_state(gst::State::Null);
    result.and(stopped.map(|_| ()).map_err(|_| OutputError("the copy did not end".into())))
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
