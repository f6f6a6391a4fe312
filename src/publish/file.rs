//! `maskcast segment`'s output: every frame into one video file, as fast as the encoder takes them.

use std::path::PathBuf;
use std::sync::Arc;

use gstreamer as gst;

use gst::prelude::*;

use super::encoder::{EncodeChain, Purpose, build};
use super::raw::RawPool;
use super::recording::add_file;
use super::{Accepted, Output, OutputError, Paint, Stamp};
use crate::config::{Container, EncodeConfig};
use crate::frame::VideoInfo;
use crate::gst::{bus_error, state_error};
use crate::stream::status::Status;

/// Writes one file. The first picture's shape is the file's.
pub struct FileOutput {
    path: PathBuf,
    container: Container,
    encode: EncodeConfig,
    status: Arc<Status>,
    open: Option<OpenFile>,
}

struct OpenFile {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    chain: EncodeChain,
    pool: RawPool,
    first: std::time::Duration,
}

impl FileOutput {
    /// # Errors
    /// An extension that is not mp4, m4v, mov or mkv.
    pub fn new(path: PathBuf, encode: EncodeConfig, status: Arc<Status>) -> Result<Self, OutputError> {
        let container = match path.extension().and_then(|extension| extension.to_str()) {
            Some("mp4" | "m4v" | "mov") => Container::Mp4,
            Some("mkv") => Container::Mkv,
            _ => return Err(OutputError(format!("{}: the output's name must end in .mp4 or .mkv", path.display()))),
        };
        Ok(FileOutput { path, container, encode, status, open: None })
    }

    fn open(&self, info: VideoInfo, stamp: Stamp) -> Result<OpenFile, OutputError> {
        let pool = RawPool::new(info)?;
        let pipeline = gst::Pipeline::new();
        let bus = pipeline.bus().ok_or_else(|| OutputError("a GStreamer pipeline has no bus".into()))?;
        let chain = build(&pipeline, &pool.caps, &info, &self.encode, Purpose::File, &self.status)?;
        add_file(&pipeline, &chain.last, self.container, &self.path, false)?;
        pipeline.set_state(gst::State::Playing).map_err(|_| state_error(&pipeline, "it cannot be written"))?;
        Ok(OpenFile { pipeline, bus, chain, pool, first: stamp.pts })
    }

    fn located(&self, problem: impl std::fmt::Display) -> OutputError {
        OutputError(format!("{}: {problem}", self.path.display()))
    }
}

impl Output for FileOutput {
    fn wanted(&self) -> bool {
        true
    }

    fn publish(&mut self, stamp: Stamp, info: VideoInfo, paint: &mut Paint<'_>) -> Result<Accepted, OutputError> {
        if self.open.is_none() {
            self.open = Some(self.open(info, stamp).map_err(|error| self.located(error))?);
        }
        let Some(open) = &self.open else { return Err(self.located("it is not open")) };
        let shape = open.pool.info;
        if (info.width, info.height, info.format) != (shape.width, shape.height, shape.format) {
            return Err(self.located(format!(
                "the picture changes from {shape} to {info} at {:?}; one file holds one size",
                stamp.pts
            )));
        }
        let mut buffer = open.pool.paint(paint)?;
        let times = buffer.make_mut();
        let at = gst::ClockTime::from_nseconds(stamp.pts.saturating_sub(open.first).as_nanos() as u64);
        times.set_pts(at);
        // Waits while the encoder is busy: that is what sets the pace.
        match open.chain.source.push_buffer(buffer) {
            Ok(_) => Ok(Accepted::Published),
            Err(_) => {
                Err(self
                    .located(bus_error(&open.bus).map_or("the encoder takes no more".into(), |error| error.message)))
            }
        }
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let ended = open.chain.source.end_of_stream();
        let message =
            open.bus.timed_pop_filtered(gst::ClockTime::NONE, &[gst::MessageType::Eos, gst::MessageType::Error]);
        let problem = match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => Some(error.error().to_string()),
            _ => ended.err().map(|error| error.to_string()),
        };
        let stopped = open.pipeline.set_state(gst::State::Null);
        match (problem, stopped) {
            (Some(problem), _) => Err(self.located(problem)),
            (None, Err(error)) => Err(self.located(error)),
            (None, Ok(_)) => Ok(()),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // After `finish` this changes nothing; after an error it frees the threads.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
