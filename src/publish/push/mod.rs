//! Pushes: the stream's one encode, handed on to media servers.
//!
//! Each has a thread that connects, watches the connection, and connects again for as long as the stream runs, with the
//! pauses that sources have ([`Retry`]). To the stream it is one more packet_sink: what a slow server does not take in time is
//! lost for that server, and while it waits for its next attempt, nothing is encoded for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gstreamer as gst;

use gst::prelude::*;

use super::OutputError;
use super::encoder::Level;
use super::fanout::{AppSrcSink, Fanout, OutputId};
use crate::base::log_dedup;
use crate::base::push_status::{PushState, PushStatus};
use crate::base::retry::Retry;
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::capture::secrets::Secrets;
use crate::config::{PushConfig, PushTarget};
use crate::frame::{PixelFormat, VideoInfo};
use crate::gst::state_error;

mod link;
mod rtsp;
mod whip;

use link::WAITING;

/// How often the wish to stop is looked for.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// A server that takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(10);

/// How long saying goodbye may take when the stream stops.
const GOODBYE: Duration = Duration::from_millis(1500);

/// A push at work; ends when it is dropped.
pub struct Push {
    to: String,
    stop: Stop,
    /// Until when its end is waited for, once it was asked to.
    until: Option<Instant>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Push {
    /// Begins to push what `fanout` hands out, for one of its outputs.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn start(
        config: PushConfig,
        status: &Arc<Status>,
        fanout: Arc<Fanout>,
        output: OutputId,
    ) -> Result<Self, OutputError> {
        let to = config.target.label();
        let stop = Stop::default();
        let (alive, ended) = crossbeam_channel::bounded(0);
        let pusher = Pusher {
            origin: Arc::clone(status),
            status: status.add_push(to.clone()),
            secrets: Secrets::of_push(&config),
            config,
            fanout,
            output,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("push-{}", status.name))
            .spawn(move || {
                let _alive = alive;
                pusher.run();
            })
            .map_err(|error| OutputError(format!("no thread to push to {to}: {error}")))?;
        Ok(Push { to, stop, until: None, ended, thread: Some(thread) })
    }

    /// Asks it to end; dropping it waits until it has, at most so long as a goodbye may take from now: several servers
    /// that hang are waited for side by side.
    pub(super) fn stop(&mut self) {
        self.stop.raise();
        self.until.get_or_insert_with(|| Instant::now() + GOODBYE);
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.stop();
        // Nothing is ever sent: the channel closes with the thread.
        if self.until.is_some_and(|until| self.ended.recv_deadline(until) == Err(RecvTimeoutError::Timeout)) {
            log_dedup::warn("", "push", &format!("{} does not answer a goodbye and is left", self.to));
        } else if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the push to {} ended in a panic", self.to);
        }
    }
}

/// The working end of a [`Push`].
struct Pusher {
    /// The stream.
    origin: Arc<Status>,
    config: PushConfig,
    status: Arc<PushStatus>,
    secrets: Secrets,
    fanout: Arc<Fanout>,
    output: OutputId,
    stop: Stop,
}

impl Pusher {
    fn run(&self) {
        let (stream, to) = (&*self.origin.name, &self.status.to);
        let mut retry = Retry::new();
        while !self.stop.is_raised() && !self.fanout.is_abandoned(self.output) {
            self.status.set(PushState::Connecting);
            let mut live_since = None;
            let Err(problem) = self.run_once(&mut live_since) else { return };
            let problem = self.secrets.hide(&problem.0);
            let flowed = live_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            let pause = retry.pause(flowed);
            let text = format!("{to}: {problem}; next try in {:.1} s", pause.as_secs_f64());
            log_dedup::error(stream, "push", None, &text);
            self.status.fail(problem);
            self.stop.wait(pause);
        }
    }

    /// Of the stream's pictures; before there is one, of the largest that are usual.
    fn level(&self) -> Level {
        let usual = VideoInfo { fps: (30, 1), ..VideoInfo::new(PixelFormat::I420, 1920, 1080) };
        Level::of(&self.origin.condition().info.unwrap_or(usual))
    }

    /// One connection, until it fails, or the stop is raised.
    fn run_once(&self, live_since: &mut Option<Instant>) -> Result<(), OutputError> {
        let credentials = self.config.credentials.as_ref();
        let mut link = match &self.config.target {
            PushTarget::Rtsp(url) => rtsp::link(url, credentials)?,
            PushTarget::Whip(url) => match whip::connect(url, credentials, &self.fanout, self.level(), &self.stop)? {
                Some(link) => link,
                None => return Ok(()),
            },
        };
        let packet_sink = AppSrcSink::new(link.source.clone(), WAITING, true, self.fanout.lost_counter());
        link.pipeline.set_state(gst::State::Playing).map_err(|_| state_error(&link.pipeline, "it does not start"))?;
        self.fanout.add_for_output(self.output, Box::new(packet_sink));
        let mut taken = Instant::now();
        while !self.stop.is_raised() {
            let message = link.bus.timed_pop(POLL);
            let live = match link.look(message.as_ref()) {
                // The stream's end reaches the server, too.
                Err(_) if self.stop.is_raised() => return Ok(()),
                live => live?,
            };
            if live && live_since.is_none() {
                *live_since = Some(Instant::now());
                self.status.set(PushState::Live);
                tracing::info!(stream = &*self.origin.name, stage = "push", "pushing to {}", self.status.to);
            }
            if link.source.current_level_buffers() < WAITING {
                taken = Instant::now();
            } else if taken.elapsed() > STALL {
                return Err(OutputError(format!("it has taken nothing for {} s", STALL.as_secs())));
            }
        }
        Ok(())
    }
}
