//! Notifications to systemd: READY when every stream has shown its first frame or is known to be offline, WATCHDOG while
//! there is no fault that only a restart of the service repairs.
//!
//! A stream whose stage hangs or whose output accepts no frames is restarted alone ([`super::stream_runner`]). So the
//! watchdog checks what all streams share, the run loop and the segmentation workers, and a stream only when restarts have
//! not helped and hanging threads accumulate. It runs on its own thread: a run loop that waits for a stream to stop does
//! not hang.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sd_notify::NotifyState;

use super::ServiceError;
use super::pools::Pools;
use crate::base::status::StreamState;
use crate::base::stop::Stop;
use crate::segment::pool::{MAKE_LIMIT, RUN_LIMIT};
use crate::view::{NamedModel, ServiceView};

/// How long one iteration of the run loop may take, even if the watchdog's interval is shorter: stopping streams takes
/// seconds.
const LOOP_LIMIT: Duration = Duration::from_secs(10);

/// Number of abandoned runs of one stream from which on the service must be restarted.
const HUNG_LIMIT: usize = 3;

/// The time of the run loop's latest iteration. Clones share it.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// Called at the start of each iteration.
    pub fn beat(&self) {
        *self.0.lock() = Instant::now();
    }

    fn age(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// How long each part of the service may not respond.
#[derive(Clone, Copy, Debug)]
struct WatchdogLimits {
    run_loop: Duration,
    /// A run of the model.
    run: Duration,
    /// Creating a segmenter.
    make: Duration,
}

/// A fault that only a restart of the service repairs.
fn fault(view: &ServiceView, pools: &Pools, beat: &Heartbeat, limits: WatchdogLimits) -> Option<String> {
    let age = beat.age();
    if age > limits.run_loop {
        return Some(format!("the run loop has not responded for {:.0} s", age.as_secs_f64()));
    }
    let hung = |(name, runs): (&str, usize)| (runs >= HUNG_LIMIT).then(|| format!("{runs} runs of stream {name} hang"));
    let streams = view.streams();
    let mut streams = streams.iter().map(|stream| (&*stream.status.name, stream.status.hung()));
    pools.stuck(limits.run, limits.make).or_else(|| streams.find_map(hung))
}

/// The thread that notifies systemd's watchdog while there is no fault. Dropping this stops it.
pub struct Watchdog {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread if the unit has `WatchdogSec=`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(view: Arc<ServiceView>, pools: Pools, beat: Heartbeat) -> Result<Watchdog, ServiceError> {
        let stop = Stop::default();
        let Some(interval) = sd_notify::watchdog_enabled() else { return Ok(Watchdog { stop, thread: None }) };
        let limits = WatchdogLimits { run_loop: interval.max(LOOP_LIMIT), run: RUN_LIMIT, make: MAKE_LIMIT };
        let stopped = stop.clone();
        let report = move || {
            let mut reported = None;
            loop {
                let fault = fault(&view, &pools, &beat, limits);
                match &fault {
                    None => notify(&[NotifyState::Watchdog]),
                    Some(fault) if reported.is_none() => {
                        tracing::error!("watchdog not notified: {fault}; systemd restarts the service if this lasts");
                    }
                    Some(_) => {}
                }
                reported = fault;
                if stopped.wait(interval / 3) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(report);
        let thread = thread.map_err(|source| ServiceError::Thread { thread: "watchdog", source })?;
        Ok(Watchdog { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.raise();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("thread ended in a panic: watchdog");
        }
    }
}

/// Notifies systemd of the service's start, reloads and stop.
pub struct SystemdNotifier {
    view: Arc<ServiceView>,
    ready: bool,
}

impl SystemdNotifier {
    pub fn new(view: Arc<ServiceView>) -> Self {
        SystemdNotifier { view, ready: false }
    }

    /// Checks the streams; returns true the first time that the service is ready.
    pub fn tick(&mut self) -> bool {
        let became_ready = !self.ready && self.view.is_ready();
        if became_ready {
            self.ready = true;
            notify(&[NotifyState::Ready, NotifyState::Status(&self.summary())]);
        }
        became_ready
    }

    /// Notifies systemd before and after `work`, which reloads the configuration.
    pub fn reloading(&self, work: impl FnOnce()) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("systemd not notified of the reload: no monotonic clock: {error}"),
        }
        work();
        notify(&[NotifyState::Ready, NotifyState::Status(&self.summary())]);
    }

    /// Notifies systemd that the service is stopping.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    fn summary(&self) -> String {
        let streams = self.view.streams();
        let live = streams.iter().filter(|stream| stream.status.state() == StreamState::Live).count();
        let models = self.view.models();
        let place =
            |model: &NamedModel| model.running().map_or("not loaded".into(), |model| format!("on {}", model.actual));
        let models: Vec<String> = match &*models {
            [only] => vec![format!("model {}", place(only))],
            several => several.iter().map(|model| format!("model {} {}", model.name, place(model))).collect(),
        };
        format!("{live} of {} streams live, {}", streams.len(), models.join(", "))
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        crate::base::log_dedup::warn("", "", &format!("systemd not notified: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::ledger::DropReason;
    use crate::base::status::Status;
    use crate::config::{SourceSpec, defaults_stream};
    use crate::publish::outputs::StreamOutputs;
    use crate::segment::pool::Pool;
    use crate::view::StreamView;

    const LIMITS: WatchdogLimits = WatchdogLimits {
        run_loop: Duration::from_secs(600),
        run: Duration::from_secs(600),
        make: Duration::from_secs(600),
    };

    /// A service with one running stream.
    fn service() -> (ServiceView, Pools, Arc<Status>) {
        let pools = Pools::default();
        pools.add("default", Arc::new(Pool::idle(2).unwrap()));
        let (view, _) = ServiceView::new("127.0.0.1:8554".parse().unwrap(), Vec::new());
        let config = defaults_stream("gate", SourceSpec::parse("test://black", Path::new("/")).unwrap());
        let status = Arc::new(Status::quiet("gate"));
        view.set_streams(vec![Arc::new(StreamView {
            status: Arc::clone(&status),
            ..StreamView::new(&config, StreamOutputs::default(), &Arc::default())
        })]);
        (view, pools, status)
    }

    #[test]
    fn a_stream_that_publishes_nothing_is_not_a_fault_of_the_service() {
        let (view, pools, status) = service();
        let beat = Heartbeat::default();
        status.set_shown(StreamState::Live, None, Instant::now());
        for reason in [DropReason::OutputFailed, DropReason::EncoderBusy] {
            status.ledger.open().dropped(reason);
            assert_eq!(fault(&view, &pools, &beat, LIMITS), None);
        }
        status.set_hung(HUNG_LIMIT - 1);
        assert_eq!(fault(&view, &pools, &beat, LIMITS), None, "each was replaced by a new run");
        status.set_hung(HUNG_LIMIT);
        assert_eq!(fault(&view, &pools, &beat, LIMITS).as_deref(), Some("3 runs of stream gate hang"));
    }

    #[test]
    fn a_run_loop_that_hangs_is_a_fault_of_the_service() {
        let (view, pools, _) = service();
        let beat = Heartbeat::default();
        let limits = WatchdogLimits { run_loop: Duration::ZERO, ..LIMITS };
        let found = fault(&view, &pools, &beat, limits).expect("it has not responded");
        assert!(found.starts_with("the run loop has not responded for "), "{found}");
        assert_eq!(fault(&view, &pools, &beat, LIMITS), None);
    }
}
