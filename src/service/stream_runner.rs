//! A stream of the running service: its settings, its view for API and metrics, and its threads, which are restarted after a
//! panic, when one hangs, and when its output stalls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pools::Pools;
use super::{ServiceError, StreamStartError};
use crate::base::ledger::{DropReason, LedgerCounts};
use crate::base::log_dedup;
use crate::base::paths::state_folders;
use crate::capture::GstSource;
use crate::collect::collector::{self, CollectorEnds, CollectorSink};
use crate::config::{SourceUri, StreamConfig};
use crate::drift::DriftSink;
use crate::events::{EventHub, EventSink};
use crate::history::MinuteSink;
use crate::publish::live::LiveOutput;
use crate::publish::outputs::StreamOutputs;
use crate::publish::rtsp::RtspServer;
use crate::segment::pool::Pool;
use crate::sink::{FeedSink, MaskSink, QueuedSink};
use crate::stream::{Pace, Stream, StreamParts};
use crate::view::StreamView;

/// The pause before a stream whose stage failed is restarted: the first, doubled after each failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After a stream has run this long, the next pause is the first one again.
const STABLE: Duration = Duration::from_secs(60);

/// A stage that has not responded for this long hangs: opening a source takes less.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// A stream whose output delivers no frame for this long is restarted. The limit doubles with each restart that did not help, up
/// to the longest.
const FIRST_STALL_LIMIT: Duration = Duration::from_secs(60);
const LONGEST_STALL_LIMIT: Duration = Duration::from_secs(16 * 60);

/// The run loop checks each stream several times a second. After a longer time, this process was paused, and the threads of the
/// stream may have been as well.
const INTERRUPTION: Duration = Duration::from_secs(2);

/// How long the threads of a stream that is restarted may take to end before they are abandoned.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// One stream.
pub struct StreamRunner {
    pub config: StreamConfig,
    view: Arc<StreamView>,
    stream: Option<Stream>,
    started: Instant,
    /// Restarts since it was last stable.
    restarts: u32,
    /// When a stream that failed, or could not be started, is started again.
    start_due: Option<Instant>,
    /// Why its threads are being stopped for a restart, and the time after which they are abandoned.
    stopping: Option<(StreamFault, Instant)>,
    /// Earlier runs whose threads hang; other threads have replaced them.
    abandoned: Vec<Stream>,
    progress: PublishProgress,
    /// When the stream was last checked for faults.
    checked_at: Instant,
    /// The start of the checks without an interruption: silence while this process was stopped is not a fault.
    watched_since: Instant,
}

/// A fault because of which a stream is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum StreamFault {
    /// A stage hangs in a call that does not return.
    #[error("the {stage} stage has not responded for {:.0} s", .silence.as_secs_f64())]
    SilentStage { stage: &'static str, silence: Duration },
    /// The output has refused frames and delivered none for this time.
    #[error("the output has delivered no frame for {} s", .0.as_secs())]
    OutputStalled(Duration),
}

/// Tracks whether a stream publishes frames while it captures frames.
struct PublishProgress {
    /// Number of frames that the encoder has delivered. A failed encoder delivers none, although the frames that were pushed to it
    /// count as published.
    delivered: u64,
    /// Number of frames that the output had refused when the last frame was delivered.
    refused_at_delivery: u64,
    /// Number of frames that the output had refused at the last check.
    refused_at_check: u64,
    /// Since when no frame is delivered although frames are captured.
    since: Instant,
    /// How long no frame may be delivered before the stream is restarted.
    limit: Duration,
}

impl PublishProgress {
    fn new(limit: Duration) -> Self {
        PublishProgress { delivered: 0, refused_at_delivery: 0, refused_at_check: 0, since: Instant::now(), limit }
    }

    /// Whether the output has refused frames and delivered none for the time limit, which is then doubled.
    fn has_stalled(&mut self, delivered: u64, counts: &LedgerCounts) -> bool {
        use DropReason::{Abandoned, EncoderBusy, OutputFailed};
        let refused = [EncoderBusy, OutputFailed, Abandoned].map(|reason| counts.dropped_for(reason)).iter().sum();
        let more = refused > std::mem::replace(&mut self.refused_at_check, refused);
        if delivered != self.delivered {
            (self.delivered, self.refused_at_delivery, self.limit) = (delivered, refused, FIRST_STALL_LIMIT);
            self.since = Instant::now();
        } else if refused == self.refused_at_delivery {
            self.since = Instant::now();
        } else if more && self.since.elapsed() >= self.limit {
            self.limit = (2 * self.limit).min(LONGEST_STALL_LIMIT);
            (self.refused_at_delivery, self.since) = (refused, Instant::now());
            return true;
        }
        false
    }
}

impl StreamRunner {
    /// A stream that viewers can connect to and that has no threads yet. With `before`, the viewers of the stream of that name stay.
    pub fn prepare(config: &StreamConfig, before: Option<&StreamView>, rtsp: &RtspServer, hub: &Arc<EventHub>) -> Self {
        let outputs = match before {
            Some(before) => before.outputs.clone(),
            None => {
                let outputs = StreamOutputs::default();
                rtsp.add(&config.name, Arc::clone(&outputs.h264));
                outputs
            }
        };
        let mut view = StreamView::new(config, outputs, hub);
        if let Some(before) = before {
            // Clients of the API stay connected, and events continue.
            (view.masks, view.events) = (Arc::clone(&before.masks), Arc::clone(&before.events));
            view.zones = Arc::clone(&before.zones);
            view.minutes = Arc::clone(&before.minutes);
            if (&before.config.source, &before.config.drift) == (&config.source, &config.drift) {
                view.drift = Arc::clone(&before.drift);
            } else {
                before.drift.save(true);
            }
            // Of the same folder, so that two do not write to it.
            if before.collection.as_ref().map(|known| &known.config) == view.collection.as_ref().map(|new| &new.config)
            {
                view.collection.clone_from(&before.collection);
            }
        }
        view.configure_rules();
        if let Some(folder) = state_folders(&std::env::var_os("STATE_DIRECTORY").unwrap_or_default()).next() {
            view.drift.keep_in(&folder.join("drift").join(format!("{}.json", config.name)), &config.source.uri.label());
        }
        let view = Arc::new(view);
        StreamRunner {
            config: config.clone(),
            view,
            stream: None,
            started: Instant::now(),
            restarts: 0,
            start_due: None,
            stopping: None,
            abandoned: Vec::new(),
            progress: PublishProgress::new(FIRST_STALL_LIMIT),
            checked_at: Instant::now(),
            watched_since: Instant::now(),
        }
    }

    /// Whether its source waits for the stages after it: a file at full speed.
    pub fn is_blocking(&self) -> bool {
        matches!(self.config.source.uri, SourceUri::File(_)) && !self.config.source.real_time
    }

    pub fn has_begun(&self) -> bool {
        self.stream.is_some()
    }

    /// Starts its threads, which get masks from the pool of its model.
    ///
    /// # Errors
    /// When an output or a thread cannot be started.
    pub fn start(&mut self, pools: &Pools) -> Result<(), ServiceError> {
        let model = &self.config.model;
        let pool = pools.of(model).ok_or_else(|| ServiceError::NoModel(model.clone()))?;
        let StreamConfig { encode, source, .. } = &self.config;
        let (status, outputs) = (Arc::clone(&self.view.status), self.view.outputs.clone());
        let mut output = LiveOutput::new(encode.clone(), Arc::clone(&status), outputs);
        output.start_sinks(&self.config, self.view.recordings.as_ref())?;
        let (tap, collector) = self.start_collector(&pool)?.unzip();
        let blocking = self.is_blocking();
        let pace = if blocking { Pace::Blocking } else { Pace::Live };
        let parts = StreamParts {
            config: self.config.clone(),
            pace,
            source: Box::new(GstSource::new(source.clone())),
            output: Box::new(if blocking { output.blocking() } else { output }),
            status,
            overlay_state: Arc::clone(&self.view.overlay_state),
            model_share: Arc::clone(&self.view.model_share),
            zones: Arc::clone(&self.view.zones),
            mask_sinks: self.mask_sinks(pace, collector)?,
            tap,
        };
        self.stream = Some(Stream::start(parts, &pool)?);
        self.started = Instant::now();
        self.progress.since = self.started;
        self.start_due = None;
        Ok(())
    }

    /// The collector, if frames of the stream are collected.
    fn start_collector(&self, pool: &Pool) -> Result<Option<CollectorEnds>, ServiceError> {
        let Some(collection) = &self.view.collection else { return Ok(None) };
        let started = collector::start(&self.view.status.name, collection, pool.stats());
        started.map(Some).map_err(|source| ServiceError::Collector { stream: self.config.name.clone(), source })
    }

    /// The rules of the stream, the feed of the API, the collector, and the configured sinks.
    fn mask_sinks(&self, pace: Pace, collector: Option<CollectorSink>) -> Result<Vec<Box<dyn MaskSink>>, ServiceError> {
        let status = &self.view.status;
        let (events, masks) = (Arc::clone(&self.view.events), Arc::clone(&self.view.masks));
        let mut sinks: Vec<Box<dyn MaskSink>> = vec![Box::new(EventSink(events)), Box::new(FeedSink(masks))];
        sinks.push(Box::new(MinuteSink(Arc::clone(&self.view.minutes))));
        sinks.push(Box::new(DriftSink(Arc::clone(&self.view.drift))));
        sinks.extend(collector.map(|collector| Box::new(collector) as Box<dyn MaskSink>));
        for sink in &self.config.sinks {
            let sink_status = status.outputs.add_sink(sink.kind.name, sink.label());
            let opened = (sink.kind.open)(&sink.settings);
            let queued = QueuedSink::start(opened, &status.name, sink_status, sink.every(), pace.when_full())?;
            sinks.push(Box::new(queued));
        }
        Ok(sinks)
    }

    /// Starts the stream by `start`. If that fails, the state is set to offline, and the next attempt is due after a pause.
    ///
    /// # Errors
    /// Why the stream could not be started, and the pause.
    pub fn start_or_retry(
        &mut self,
        start: impl FnOnce(&mut Self) -> Result<(), ServiceError>,
    ) -> Result<(), StreamStartError> {
        let Err(source) = start(self) else { return Ok(()) };
        let error = StreamStartError { source: Box::new(source), pause: self.next_pause() };
        self.view.status.set_offline(error.to_string());
        Err(error)
    }

    /// The pause before the next attempt, which is due after it.
    fn next_pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.restarts.min(5)).min(LONGEST_PAUSE);
        self.restarts += 1;
        self.start_due = Some(Instant::now() + pause);
        pause
    }

    /// Restarts the stream, after a pause, when its threads have ended without a request to stop, when one of them hangs, or when its
    /// output takes no more frames. Threads that hang are abandoned; `Status::hung` counts them.
    pub fn restart_if_dead(&mut self, pools: &Pools) {
        self.restart_if_dead_within(pools, SILENCE_LIMIT, STOP_LIMIT);
    }

    fn restart_if_dead_within(&mut self, pools: &Pools, silence_limit: Duration, stop_limit: Duration) {
        self.abandoned.retain(|stream| !stream.is_finished());
        let name = self.config.name.clone();
        let ended = self.view.status.condition().ended;
        if self.stopping.is_none()
            && !ended
            && let Some(fault) = self.fault(silence_limit)
        {
            log_dedup::error(&name, "", None, &format!("stream has failed, its threads are stopped: {fault}"));
            self.stop();
            self.stopping = Some((fault, Instant::now() + stop_limit));
        }
        let is_stopping = self.stopping.is_some();
        let overdue = self.stopping.as_ref().is_some_and(|(_, until)| Instant::now() >= *until);
        let has_ended = |stream: &mut Stream| (stream.is_finished() && (is_stopping || !ended)) || overdue;
        if let Some(stream) = self.stream.take_if(has_ended) {
            if self.started.elapsed() > STABLE {
                self.restarts = 0;
            }
            let pause = self.next_pause();
            let fault = self.stopping.take().map(|(fault, _)| fault.to_string());
            let reason = if stream.is_finished() {
                let end = stream.join();
                fault.unwrap_or_else(|| {
                    self.view.status.count_panic();
                    match end {
                        Err(error) => error.to_string(),
                        Ok(()) => format!("stream {name}: its stages have ended without a request to stop"),
                    }
                })
            } else {
                self.abandon_outputs();
                self.abandoned.push(stream);
                format!("{}, and its threads are abandoned", fault.unwrap_or_default())
            };
            log_dedup::error(&name, "", None, &format!("stream restarts in {} s: {reason}", pause.as_secs()));
            self.view.status.set_offline(reason);
        }
        self.view.status.set_hung(self.abandoned.len());
        if self.start_due.is_some_and(|due| Instant::now() >= due)
            && let Err(error) = self.start_or_retry(|running| running.start(pools))
        {
            log_dedup::error(&name, "", None, &format!("stream cannot be started: {error}"));
        }
    }

    /// The fault of its threads or of its output, if there is one.
    fn fault(&mut self, silence_limit: Duration) -> Option<StreamFault> {
        let now = Instant::now();
        if now.saturating_duration_since(std::mem::replace(&mut self.checked_at, now)) > INTERRUPTION {
            (self.watched_since, self.progress.since) = (now, now);
        }
        let stream = self.stream.as_ref()?;
        if let Some((stage, silence)) = stream.silent_stage(self.started.max(self.watched_since), silence_limit) {
            return Some(StreamFault::SilentStage { stage, silence });
        }
        let limit = self.progress.limit;
        let status = &self.view.status;
        if !self.progress.has_stalled(status.latency.count(), &status.ledger.counts()) {
            return None;
        }
        Some(StreamFault::OutputStalled(limit))
    }

    /// Ends the recording and the pushes of an output that hangs. Nothing of it reaches a viewer from now on.
    pub(super) fn abandon_outputs(&self) {
        self.view.outputs.revoke_runs();
    }

    /// Applies what does not need a restart: overlay, masks, mask rate, motion gate, priority, zones and rules, from the next frame
    /// on.
    pub fn adjust(&mut self, config: &StreamConfig) {
        self.config = config.clone();
        self.view.overlay_state.set_overlay(config.overlay.clone());
        self.view.model_share.set(config.masks, config.mask_rate, config.priority);
        self.view.model_share.set_gate(config.gate);
        self.view = Arc::new(StreamView { config: config.clone(), ..StreamView::clone(&self.view) });
        self.view.configure_rules();
    }

    pub fn view(&self) -> Arc<StreamView> {
        Arc::clone(&self.view)
    }

    /// Whether its source has ended and is not opened again.
    pub fn has_ended(&self) -> bool {
        self.view.status.condition().ended
    }

    /// Requests the stream to stop, at its source.
    pub fn stop(&self) {
        if let Some(stream) = &self.stream {
            stream.stop();
        }
        self.view.drift.save(true);
    }

    pub fn is_finished(&self) -> bool {
        self.stream.as_ref().is_none_or(Stream::is_finished)
    }

    /// Joins its threads, if they have ended; otherwise they are abandoned.
    pub fn join_finished(mut self) {
        if let Some(stream) = self.stream.take_if(|stream| stream.is_finished())
            && let Err(error) = stream.join()
        {
            tracing::error!("stream ended with an error: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::stopping::stop_all;
    use super::*;
    use crate::base::ledger::Ledger;
    use crate::base::status::StreamState;
    use crate::base::stop::Stop;
    use crate::config::{SourceSpec, defaults_stream};

    /// Guards against hanging.
    const DEADLINE: Duration = Duration::from_secs(180);

    /// A stream whose source hangs when it is opened, until the pipe has a writer.
    fn hanging(pipe: &Path, rtsp: &RtspServer) -> StreamRunner {
        let made = std::process::Command::new("mkfifo").arg(pipe).status().unwrap();
        assert!(made.success());
        let source = format!(
            "gst:filesrc location={} blocksize=6144 ! rawvideoparse format=i420 width=64 height=64",
            pipe.display()
        );
        StreamRunner::prepare(
            &defaults_stream("gate", SourceSpec::parse(&source, Path::new("/")).unwrap()),
            None,
            rtsp,
            &Arc::default(),
        )
    }

    fn parts(folder: &Path) -> (Pools, RtspServer, std::path::PathBuf) {
        crate::gst::init().unwrap();
        let rtsp = RtspServer::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let pools = Pools::default();
        pools.add("default", Arc::new(Pool::idle(2).unwrap()));
        (pools, rtsp, folder.join("pipe"))
    }

    /// Opens a pipe for writing again and again, and closes it: a reader finds it empty.
    struct StreamOpener(Stop, Option<std::thread::JoinHandle<()>>);

    impl StreamOpener {
        fn start(pipe: &Path) -> Self {
            let (stop, pipe) = (Stop::default(), pipe.to_path_buf());
            let stopped = stop.clone();
            let open = move || {
                while !stopped.wait(Duration::from_millis(5)) {
                    drop(std::fs::File::options().read(true).write(true).open(&pipe).unwrap());
                }
            };
            StreamOpener(stop, Some(std::thread::spawn(open)))
        }
    }

    impl Drop for StreamOpener {
        fn drop(&mut self) {
            self.0.raise();
            self.1.take().unwrap().join().unwrap();
        }
    }

    /// Calls `restart_if_dead` until a condition holds.
    fn until(what: &str, running: &mut StreamRunner, pools: &Pools, mut holds: impl FnMut(&StreamRunner) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let tick = crossbeam_channel::tick(Duration::from_millis(5));
        while !holds(running) {
            assert!(Instant::now() < deadline, "never: {what}");
            running.restart_if_dead_within(pools, Duration::from_secs(2), Duration::from_millis(100));
            let _ = tick.recv();
        }
    }

    #[test]
    fn a_stream_that_hangs_is_restarted_and_its_threads_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (pools, rtsp, pipe) = parts(folder.path());
        let mut running = hanging(&pipe, &rtsp);
        running.start(&pools).unwrap();
        let status = Arc::clone(&running.view().status);
        until("its threads are abandoned", &mut running, &pools, |_| status.hung() == 1);
        let condition = status.condition();
        assert_eq!(condition.state, StreamState::Offline);
        let reason = condition.reason.unwrap();
        assert!(reason.starts_with("the capture stage has not responded for 2 s"), "{reason}");
        until("it is started again", &mut running, &pools, StreamRunner::has_begun);
        // The thread that hung continues, sees that its stream was stopped, and ends.
        let _opener = StreamOpener::start(&pipe);
        until("nothing hangs any more", &mut running, &pools, |running| status.hung() == 0 && running.has_begun());
        assert!(stop_all(vec![running], None).hung.is_empty());
    }

    #[test]
    fn a_stream_that_does_not_stop_does_not_delay_the_end_of_the_service() {
        let folder = tempfile::tempdir().unwrap();
        let (pools, rtsp, pipe) = parts(folder.path());
        let mut running = hanging(&pipe, &rtsp);
        running.start(&pools).unwrap();
        let service = Stop::default();
        service.raise();
        let unstopped = stop_all(vec![running], Some(&service));
        assert_eq!((unstopped.ending.len(), unstopped.hung.len()), (1, 0), "it is stopped together with the others");
        let _opener = StreamOpener::start(&pipe);
        assert!(stop_all(unstopped.ending, None).hung.is_empty());
    }

    #[test]
    fn an_output_that_refuses_every_frame_is_a_fault_after_its_time() {
        let ledger = Arc::new(Ledger::default());
        let (mut at_once, mut later) = (PublishProgress::new(Duration::ZERO), PublishProgress::new(DEADLINE));
        let mut has_stalled = |delivered| {
            let counts = ledger.counts();
            assert!(!later.has_stalled(delivered, &counts));
            at_once.has_stalled(delivered, &counts)
        };
        assert!(!has_stalled(0), "no frame has come");
        ledger.open().dropped(DropReason::SegmenterBusy);
        assert!(!has_stalled(0), "the output has not seen it");
        // Given to an encoder that fails.
        ledger.open().published();
        ledger.open().dropped(DropReason::OutputFailed);
        assert!(has_stalled(0));
        assert!(!has_stalled(0), "no more have come since");
        ledger.open().dropped(DropReason::EncoderBusy);
        assert!(!has_stalled(1), "one came out");
        assert_eq!(later.limit, FIRST_STALL_LIMIT);
    }
}
