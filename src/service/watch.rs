//! What systemd is told: READY when streams have shown their first frame or are known to be offline, WATCHDOG only
//! while frames move, so that a hung service is restarted and one with dead cameras is not.

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
    moves: Vec<Movement>,
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
        let now = Instant::now();
        let moves = view.streams.iter().map(|_| Movement { published: 0, at: now }).collect();
        Watch { view, interval: sd_notify::watchdog_enabled(), ready: false, last_sent: None, moves }
    }

    /// Looks at the streams; true the first time that all have started.
    pub fn tick(&mut self) -> bool {
        let now = Instant::now();
        for (movement, stream) in self.moves.iter_mut().zip(&self.view.streams) {
            // Published, not captured: frames that only come in and are dropped are no sign of life of what is behind.
            let published = stream.status.ledger.counts().published;
            let away = stream.status.state() == State::Offline && stream.status.since_beat() < SUPERVISOR_LIMIT;
            if published != movement.published || away {
                *movement = Movement { published, at: now };
            }
        }
        if let Some(interval) = self.interval {
            let moving = self.moves.iter().all(|movement| now - movement.at < interval);
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

    /// Tells systemd that the service is stopping.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    fn summary(&self) -> String {
        let count = |state| self.view.streams.iter().filter(|stream| stream.status.state() == state).count();
        let streams = self.view.streams.len();
        format!("{} of {streams} streams live, model on {}", count(State::Live), self.view.model.actual)
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd cannot be told: {error}");
    }
}
