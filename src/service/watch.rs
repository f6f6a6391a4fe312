//! What systemd is told: READY when streams have shown their first frame or are known to be offline, WATCHDOG only
//! while frames move, so that a hung service is restarted and one with dead cameras is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::view::View;
use crate::stream::status::State;

/// Follows the service and reports to systemd, when there is one.
pub struct Watch {
    view: Arc<View>,
    /// Interval at which systemd wants to hear from us; `None` without a watchdog.
    interval: Option<Duration>,
    ready: bool,
    last_sent: Option<Instant>,
    /// By stream.
    moves: HashMap<Arc<str>, Movement>,
}

/// When a stream last showed that it works.
struct Movement {
    published: u64,
    at: Instant,
}

/// A supervisor that has not been heard of for this long hangs: opening a source may take some time, but not this much.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(60);

impl Watch {
    pub fn new(view: Arc<View>) -> Self {
        Watch { view, interval: sd_notify::watchdog_enabled(), ready: false, last_sent: None, moves: HashMap::new() }
    }

    /// Looks at the streams; true the first time that all have started.
    pub fn tick(&mut self) -> bool {
        let now = Instant::now();
        let streams = self.view.streams();
        self.moves.retain(|name, _| streams.iter().any(|stream| stream.status.name == *name));
        for stream in streams.iter() {
            let fresh = || Movement { published: 0, at: now };
            let movement = self.moves.entry(Arc::clone(&stream.status.name)).or_insert_with(fresh);
            // Published, not captured: frames that only come in and are dropped are no sign of life of what is behind.
            let published = stream.status.ledger.counts().published;
            let away = stream.status.state() == State::Offline && stream.status.since_beat() < SUPERVISOR_LIMIT;
            if published != movement.published || away {
                *movement = Movement { published, at: now };
            }
        }
        if let Some(interval) = self.interval {
            let moving = self.moves.values().all(|movement| now - movement.at < interval);
            let due = self.last_sent.is_none_or(|at| now - at >= interval / 3);
            if moving && due {
                notify(&[NotifyState::Watchdog]);
                self.last_sent = Some(now);
            }
        }
        let became_ready = !self.ready && self.view.is_ready();
        if became_ready {
            self.ready = true;
            notify(&[NotifyState::Ready, NotifyState::Status(&self.summary())]);
        }
        became_ready
    }

    /// Tells systemd that the configuration is being read anew, and, with the result, that this is over.
    pub fn reloading(&self, work: impl FnOnce()) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("there is no monotonic clock for systemd: {error}"),
        }
        work();
        notify(&[NotifyState::Ready, NotifyState::Status(&self.summary())]);
    }

    /// Tells systemd that the service is stopping.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    fn summary(&self) -> String {
        let streams = self.view.streams();
        let live = streams.iter().filter(|stream| stream.status.state() == State::Live).count();
        let model = self.view.model().map_or("not loaded".into(), |model| format!("on {}", model.actual));
        format!("{live} of {} streams live, model {model}", streams.len())
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        crate::repeats::warn("", "", &format!("systemd cannot be told: {error}"));
    }
}
