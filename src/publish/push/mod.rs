//! Pushes: send the encoded stream to media servers.
//!
//! Each push has a thread that connects, monitors the connection, and reconnects while the stream runs, with the same
//! pauses as sources ([`Retry`]). For the stream it is a frame sink: frames that a slow server does not accept in time
//! are lost for that server only, and between two attempts the push does not cause an encode.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gstreamer as gst;

use gst::prelude::*;

use super::encoder::Level;
use super::fanout::{AppSrcSink, Fanout};
use super::frame_sink_kind::{FrameSinkContext, FrameSinkKind, RunningSink};
use super::runs::OutputRun;
use crate::base::log_dedup;
use crate::base::push_status::{PushState, PushStatus};
use crate::base::retry::Retry;
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::config::{EncodeConfig, PushConfig, PushTarget};
use crate::frame::{PixelFormat, VideoInfo};
use crate::gst::secrets::Secrets;
use crate::gst::state_error;

mod error;
mod link;
mod rtsp;
mod whip;

pub use error::{PushError, WhipError};

use link::MAX_QUEUED_UNITS;

/// How often the thread checks whether it must stop.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// A connection whose server accepts no data for this long is closed.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the teardown at the server may take when the stream stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// Sends the H.264 stream to a media server, by RTSP or WHIP.
pub static KIND: FrameSinkKind = FrameSinkKind {
    name: "push",
    start: |context| {
        let FrameSinkContext { config, status, outputs, run, .. } = context;
        let mut pushes: Vec<Box<dyn RunningSink>> = Vec::new();
        for push in &config.push {
            pushes.push(Box::new(Push::start(push.clone(), &config.encode, status, Arc::clone(&outputs.h264), run)?));
        }
        Ok(pushes)
    },
    viewers: None,
};

/// A running push. Dropping it stops the push.
pub struct Push {
    to: String,
    stop: Stop,
    /// The deadline for the end of the thread; set by [`Push::stop`].
    stop_deadline: Option<Instant>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Push {
    /// Starts to push the encoded stream of `fanout`, for the run `run` of the output.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        config: PushConfig,
        encode: &EncodeConfig,
        status: &Arc<Status>,
        fanout: Arc<Fanout>,
        run: &OutputRun,
    ) -> Result<Self, PushError> {
        let to = config.target.label();
        let stop = Stop::default();
        let (alive, ended) = crossbeam_channel::bounded(0);
        let pusher = Pusher {
            stream: Arc::clone(status),
            status: status.outputs.add_push(to.clone()),
            secrets: Secrets::of_push(&config),
            config,
            encode: encode.clone(),
            fanout,
            run: run.clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("push-{}", status.name))
            .spawn(move || {
                let _alive = alive;
                pusher.run();
            })
            .map_err(|source| PushError::Thread { to: to.clone(), source })?;
        Ok(Push { to, stop, stop_deadline: None, ended, thread: Some(thread) })
    }
}

impl RunningSink for Push {
    /// Requests the push to stop. The drop waits until the thread has ended, at most `STOP_TIMEOUT` from this call,
    /// so that several pushes whose servers hang are waited for at the same time.
    fn stop(&mut self) {
        self.stop.raise();
        self.stop_deadline.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.stop();
        // Nothing is sent: the channel is disconnected when the thread ends.
        let timed_out = |deadline| self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout);
        if self.stop_deadline.is_some_and(timed_out) {
            let text =
                format!("the push does not stop, its server does not respond; it is not waited for: {}", self.to);
            log_dedup::warn("", "push", &text);
        } else if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(stage = "push", "thread ended in a panic: push to {}", self.to);
        }
    }
}

/// The part of a [`Push`] that runs on its thread.
struct Pusher {
    stream: Arc<Status>,
    config: PushConfig,
    encode: EncodeConfig,
    status: Arc<PushStatus>,
    secrets: Secrets,
    fanout: Arc<Fanout>,
    run: OutputRun,
    stop: Stop,
}

impl Pusher {
    /// Whether the push ends. A run that was revoked must not send the frames that wait for a slow server either.
    fn must_end(&self) -> bool {
        self.stop.is_raised() || self.run.is_revoked()
    }

    fn run(&self) {
        let (stream, to) = (&*self.stream.name, &self.status.to);
        let mut retry = Retry::new();
        while !self.must_end() {
            self.status.set(PushState::Connecting);
            let mut live_since = None;
            let Err(error) = self.run_once(&mut live_since) else { return };
            let reason = self.secrets.hide(&error.to_string());
            let live_for = live_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            let pause = retry.pause(live_for);
            let text = format!("push failed, retry in {:.1} s: {to}: {reason}", pause.as_secs_f64());
            log_dedup::error(stream, "push", None, &text);
            self.status.fail(reason);
            self.stop.wait(pause);
        }
    }

    /// The H.264 level of the stream; that of 1080p at 30 fps before the first frame.
    fn level(&self) -> Level {
        let default = VideoInfo { fps: (30, 1), ..VideoInfo::new(PixelFormat::I420, 1920, 1080) };
        Level::of_stream(&self.stream.condition().info.unwrap_or(default), &self.encode)
    }

    /// Runs one connection until it fails or the push must stop. Sets `live_since` when the server accepts the stream.
    fn run_once(&self, live_since: &mut Option<Instant>) -> Result<(), PushError> {
        let credentials = self.config.credentials.as_ref();
        let mut link = match &self.config.target {
            PushTarget::Rtsp(url) => rtsp::link(url, credentials)?,
            PushTarget::Whip(url) => match whip::connect(url, credentials, &self.fanout, self.level(), &self.stop)? {
                Some(link) => link,
                None => return Ok(()),
            },
        };
        let frame_sink = AppSrcSink::new(link.source.clone(), MAX_QUEUED_UNITS, true, self.fanout.lost_counter());
        link.pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&link.pipeline, "the pipeline does not start"))?;
        self.fanout.add_for_run(&self.run, Box::new(frame_sink));
        let mut accepted_at = Instant::now();
        while !self.must_end() {
            let message = link.bus.timed_pop(POLL);
            let live = match link.poll(message.as_ref()) {
                // The end of the stream also ends the connection.
                Err(_) if self.must_end() => return Ok(()),
                live => live?,
            };
            if live && live_since.is_none() {
                *live_since = Some(Instant::now());
                self.status.set(PushState::Live);
                tracing::info!(stream = &*self.stream.name, stage = "push", "pushing to {}", self.status.to);
            }
            if link.source.current_level_buffers() < MAX_QUEUED_UNITS {
                accepted_at = Instant::now();
            } else if accepted_at.elapsed() > STALL_TIMEOUT {
                return Err(PushError::Stalled(STALL_TIMEOUT.as_secs()));
            }
        }
        Ok(())
    }
}
