//! A stream of the running service: its settings, what is shown of it, and its threads, which are started again when a
//! panic has ended them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServiceError;
use super::view::StreamView;
use crate::capture::GstSource;
use crate::config::{OverlayConfig, SourceUri, StreamConfig};
use crate::events::Watch;
use crate::publish::live::{LiveOutput, Outlets};
use crate::publish::recording::Archive;
use crate::publish::rtsp::RtspServer;
use crate::repeats;
use crate::segment::pool::Pool;
use crate::stream::display::Display;
use crate::stream::status::Status;
use crate::stream::{Pace, Parts, Stream};

/// Pauses before a stream whose stage was lost is started again: this, then twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A stream that ran this long has earned a quick restart again.
const STABLE: Duration = Duration::from_secs(60);

/// One stream.
pub struct Running {
    pub config: StreamConfig,
    view: Arc<StreamView>,
    stream: Option<Stream>,
    started: Instant,
    /// Restarts since it last was stable.
    restarts: u32,
    /// When a stream that was lost is due again.
    due: Option<Instant>,
}

impl Running {
    /// A stream that can be watched and has not begun. With `before`, the viewers of a stream of that name stay.
    pub fn prepare(config: &StreamConfig, before: Option<&StreamView>, rtsp: &RtspServer) -> Self {
        let status = Arc::new(Status::new(&config.name));
        let outlets = match before {
            Some(before) => before.outlets.clone(),
            None => {
                let outlets = Outlets::default();
                rtsp.add(&config.name, Arc::clone(&outlets.h264));
                outlets
            }
        };
        let display = Arc::new(Display::new(config.overlay.clone()));
        let recordings = config.record.clone().map(|record| Arc::new(Archive::new(&config.name, record)));
        let view = Arc::new(StreamView { status, outlets, recordings, display, config: config.clone() });
        Running { config: config.clone(), view, stream: None, started: Instant::now(), restarts: 0, due: None }
    }

    /// A file at full speed waits for the stages after it, where a camera would not.
    pub fn is_patient(&self) -> bool {
        matches!(self.config.source.uri, SourceUri::File(_)) && !self.config.source.real_time
    }

    pub fn has_begun(&self) -> bool {
        self.stream.is_some()
    }

    /// Starts its threads.
    ///
    /// # Errors
    /// When an output or a thread cannot be had.
    pub fn start(&mut self, pool: &Pool) -> Result<(), ServiceError> {
        let StreamConfig { encode, push, source, .. } = &self.config;
        let recordings = self.view.recordings.clone();
        let board = recordings.as_ref().and_then(|recordings| recordings.board()).cloned();
        let (status, outlets) = (Arc::clone(&self.view.status), self.view.outlets.clone());
        let output = LiveOutput::new(encode.clone(), recordings, push, Arc::clone(&status), outlets)
            .map_err(ServiceError::runtime)?;
        let patient = self.is_patient();
        let parts = Parts {
            config: self.config.clone(),
            pace: if patient { Pace::Patient } else { Pace::Live },
            source: Box::new(GstSource::new(source.clone())),
            output: Box::new(if patient { output.patient() } else { output }),
            status,
            display: Arc::clone(&self.view.display),
            tap: None,
            watch: board.map(Watch::new),
        };
        self.stream = Some(Stream::start(parts, pool).map_err(ServiceError::runtime)?);
        self.started = Instant::now();
        self.due = None;
        Ok(())
    }

    /// Starts it again, after a pause, when its threads have ended and nobody asked them to.
    pub fn revive(&mut self, pool: &Pool) {
        let ended = self.view.status.condition().ended;
        if let Some(lost) = self.stream.take_if(|stream| stream.is_finished() && !ended) {
            if self.started.elapsed() > STABLE {
                self.restarts = 0;
            }
            let pause = FIRST_PAUSE.saturating_mul(1 << self.restarts.min(5)).min(LONGEST_PAUSE);
            self.restarts += 1;
            self.due = Some(Instant::now() + pause);
            let name = self.config.name.as_str();
            let reason = match lost.join() {
                Err(error) => error.to_string(),
                Ok(()) => format!("stream {name}: its stages have ended by themselves"),
            };
            repeats::error(name, "", None, &format!("{reason}; started again in {} s", pause.as_secs()));
            self.view.status.count_panic();
            self.view.status.set_offline(reason);
        }
        if self.due.is_some_and(|due| Instant::now() >= due)
            && let Err(error) = self.start(pool)
        {
            repeats::error(&self.config.name, "", None, &format!("cannot be started again: {error}"));
            self.due = Some(Instant::now() + LONGEST_PAUSE);
        }
    }

    /// Has it drawn by other settings from its next frame on.
    pub fn redraw(&mut self, overlay: &OverlayConfig) {
        self.config.overlay = overlay.clone();
        self.view.display.set_overlay(overlay.clone());
        self.view = Arc::new(StreamView { config: self.config.clone(), ..StreamView::clone(&self.view) });
    }

    pub fn view(&self) -> Arc<StreamView> {
        Arc::clone(&self.view)
    }

    /// Whether its source has ended for good.
    pub fn has_ended(&self) -> bool {
        self.view.status.condition().ended
    }

    /// Asks it to stop at its source.
    pub fn stop(&self) {
        if let Some(stream) = &self.stream {
            stream.stop();
        }
    }

    pub fn is_finished(&self) -> bool {
        self.stream.as_ref().is_none_or(Stream::is_finished)
    }

    /// Takes leave of threads that have ended; others are left behind.
    pub fn join_finished(mut self) {
        if let Some(stream) = self.stream.take_if(|stream| stream.is_finished())
            && let Err(error) = stream.join()
        {
            tracing::error!("{error}");
        }
    }
}
