//! `maskcast segment`'s output: every frame into one video file, as fast as the encoder takes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;

use gst::prelude::*;

use super::encoder::{EncodeChain, H264, Purpose, build, fps, glib_error, push_blocking};
use super::raw::{RawPool, Scaler, announced};
use super::recording::{Layout, add_file};
use super::{BufferError, CaptureTime, Output, OutputError, Paint, PublishOutcome};
use crate::base::log_dedup;
use crate::base::status::Status;
use crate::config::{Container, EncodeConfig};
use crate::frame::VideoInfo;
use crate::gst::{GstError, describe, state_error};
use crate::overlay::OutputImage;

/// The minimum time between two frames.
const LEAST: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// Writes one file, which has the shape of its first frame: frames of another shape are scaled to it.
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
    /// For the shape of the newest frame, if it differs from that of the file.
    scaler: Option<Scaler>,
    /// The time of the first frame.
    first: Duration,
    /// The time of the newest frame, in the file.
    newest: Option<gst::ClockTime>,
    /// The pipeline has failed: it will not reach the end of the stream.
    failed: bool,
}

impl FileOutput {
    /// # Errors
    /// [`OutputError::FileName`] for an extension that is not mp4, m4v, mov or mkv (upper or lower case).
    pub fn new(path: PathBuf, encode: EncodeConfig, status: Arc<Status>) -> Result<Self, OutputError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let container = match extension.as_deref() {
            Some("mp4" | "m4v" | "mov") => Container::Mp4,
            Some("mkv") => Container::Mkv,
            _ => return Err(OutputError::FileName(path)),
        };
        Ok(FileOutput { path, container, encode, status, open: None })
    }

    fn open(&self, info: VideoInfo, time: CaptureTime) -> Result<OpenFile, OutputError> {
        let pool = RawPool::new(info)?;
        let (pipeline, bus) = crate::gst::pipeline()?;
        let kind = H264::choose(self.encode.encoder, &[])?.encoder;
        let chain = build(&pipeline, &announced(&pool), &info, kind, &self.encode, Purpose::File, &self.status)?;
        let mux = add_file(&pipeline, self.container, &self.path, Layout::HeaderFirst)?;
        chain.last.link(&mux).map_err(glib_error)?;
        pipeline.set_state(gst::State::Playing).map_err(|_| state_error(&pipeline, "it cannot be written"))?;
        Ok(OpenFile { pipeline, bus, chain, pool, scaler: None, first: time.pts, newest: None, failed: false })
    }

    fn located(&self, source: impl Into<OutputError>) -> OutputError {
        OutputError::File { path: self.path.clone(), source: Box::new(source.into()) }
    }
}

impl Output for FileOutput {
    fn wanted(&mut self) -> bool {
        true
    }

    fn publish(
        &mut self,
        time: CaptureTime,
        info: VideoInfo,
        paint: &mut Paint<'_>,
    ) -> Result<PublishOutcome, OutputError> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let opened = self.open(info, time).map_err(|error| self.located(error))?;
                self.open.insert(opened)
            }
        };
        let mut buffer = open.paint(info, time, &self.path, paint)?;
        let at = gst::ClockTime::from_nseconds(time.pts.saturating_sub(open.first).as_nanos() as u64);
        // Muxers refuse times that do not rise.
        let at = open.newest.map_or(at, |newest| at.max(newest + LEAST));
        open.newest = Some(at);
        let times = buffer.make_mut();
        times.set_pts(at);
        // The duration of the last frame; the others are shown until the next one.
        times.set_duration(gst::ClockTime::from_nseconds((1e9 / fps(&info)) as u64));
        push_blocking(&open.chain.source, &open.bus, buffer).map_err(|error| {
            open.failed = true;
            OutputError::File { path: self.path.clone(), source: Box::new(error.into()) }
        })?;
        Ok(PublishOutcome::Published)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.failed {
            // The error was returned already, and the end of the stream will not come. What was written stays.
            return Ok(());
        }
        let ended = open.chain.source.end_of_stream();
        let message =
            open.bus.timed_pop_filtered(gst::ClockTime::NONE, &[gst::MessageType::Eos, gst::MessageType::Error]);
        let problem = match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => Some(describe(error)),
            _ => ended.err().map(|error| GstError::new(error.to_string())),
        };
        let stopped = open.pipeline.set_state(gst::State::Null);
        match (problem, stopped) {
            (Some(problem), _) => Err(self.located(problem)),
            (None, Err(error)) => Err(self.located(GstError::new(error.to_string()))),
            (None, Ok(_)) => Ok(()),
        }
    }
}

impl OpenFile {
    /// The next frame in the shape of the file.
    fn paint(
        &mut self,
        info: VideoInfo,
        time: CaptureTime,
        path: &Path,
        paint: &mut Paint<'_>,
    ) -> Result<gst::Buffer, BufferError> {
        let shape = |info: VideoInfo| (info.width, info.height, info.format, info.par, info.color);
        if shape(info) == shape(self.pool.info) {
            self.scaler = None;
            return self.pool.paint(&mut |memory| paint(&mut OutputImage::new(memory)));
        }
        let scaler = match self.scaler.take() {
            Some(scaler) if shape(scaler.info()) == shape(info) => scaler,
            _ => {
                let (path, size, at) =
                    (path.display(), self.pool.info, time.pts.saturating_sub(self.first).as_secs_f64());
                let text = format!(
                    "frame size changes, frames are scaled to {size}, the size of the file: {path}: {info} at {at:.1} s"
                );
                log_dedup::warn("", "publish", &text);
                Scaler::new(info, &self.pool)?
            }
        };
        let scaler = self.scaler.insert(scaler);
        scaler.paint(&self.pool, &mut |memory| paint(&mut OutputImage::new(memory)))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // After `finish` this changes nothing; after an error it frees the threads.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
