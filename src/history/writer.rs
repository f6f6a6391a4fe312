//! The thread that writes the history.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;

use super::entry::{Batch, Snapshot};
use super::error::HistoryError;
use super::retention::{self, SteadyClock};
use super::store::{FILE, Store};
use super::streams::HistoryStreams;
use crate::base::database_file::{NewFolders, move_aside, remove_log};
use crate::base::history_status::HistoryStatus;
use crate::base::log_dedup;
use crate::base::stop::{Stop, WakeReason};
use crate::events::{EndReason, Event, EventHub, EventMessage, EventPhase, EventReceiver};

/// How often finished minutes and snapshots are looked for.
const TICK: Duration = Duration::from_millis(500);

/// How often the time until which events have lasted is stored.
const SEEN_INTERVAL: Duration = Duration::from_secs(2);

/// How often old entries are deleted.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// How often the file is compared with the one at its path: SQLite continues to write to a file that was removed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The most events and snapshots of one transaction.
const MAX_EVENTS: usize = 1000;
const MAX_SNAPSHOTS: usize = 16;

/// The limits of the history.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub keep: Duration,
    /// In bytes.
    pub max_size: u64,
}

/// Writes events, minutes and snapshots. While the database cannot be written, events wait in their queue, minutes in their
/// streams, and snapshots in their channel; each of them has a limit, and what exceeds it is counted as lost.
pub(super) struct Writer {
    pub dir: PathBuf,
    pub limits: Limits,
    pub hub: Arc<EventHub>,
    pub events: EventReceiver,
    pub snapshots: Receiver<Snapshot>,
    pub streams: Arc<HistoryStreams>,
    pub status: Arc<HistoryStatus>,
    pub stop: Stop,
}

/// The writer at work.
struct Running {
    writer: Writer,
    store: Option<Store>,
    /// What is being written; kept after a failure.
    batch: Batch,
    retry_at: Instant,
    /// The last time a damaged file was moved aside, or a removed one was created again.
    replaced_at: Option<Instant>,
    /// When the file is compared with the one at its path next.
    check_at: Instant,
    /// Created when the database is opened: those above its folder only before it was opened first.
    folders: NewFolders,
    /// Whether the events that a previous process did not end have been ended.
    has_ended_interrupted: bool,
    seen_at: Instant,
    retention_at: Instant,
    clock: SteadyClock,
}

impl Writer {
    /// Writes until the stop is raised, and then what is left.
    pub fn run(self) {
        let now = Instant::now();
        let mut running = Running {
            writer: self,
            store: None,
            batch: Batch::default(),
            retry_at: now,
            replaced_at: None,
            check_at: now,
            folders: NewFolders::All,
            has_ended_interrupted: false,
            seen_at: now,
            retention_at: now,
            clock: SteadyClock::default(),
        };
        while !running.wait() {
            running.turn(false);
        }
        // Several transactions, if more waits than one takes.
        running.turn(true);
        if running.store.is_none() {
            // The file was removed: it is created again.
            running.turn(true);
        }
        while running.store.is_some() && !running.writer.events.messages.is_empty() {
            running.turn(true);
        }
        running.close();
    }
}

impl Running {
    /// Waits for something to do; true when the stop is raised.
    fn wait(&mut self) -> bool {
        let Writer { stop, events, .. } = &self.writer;
        if self.store.is_none() {
            return stop.wait(self.retry_at.saturating_duration_since(Instant::now()).min(TICK));
        }
        match stop.wait_or_receive(TICK, &events.messages) {
            WakeReason::Raised => true,
            WakeReason::Item(message) => {
                self.batch.events.push(message);
                false
            }
            WakeReason::Time => false,
        }
    }

    /// Opens the database if it is time, stores what has come, and deletes what is old. At the end also the minutes that are not
    /// over.
    fn turn(&mut self, is_end: bool) {
        let lost = self.writer.events.lost.swap(0, Ordering::Relaxed);
        self.writer.status.count_lost(lost);
        if self.store.is_none() && (is_end || Instant::now() >= self.retry_at) {
            self.open();
        }
        let Some(mut store) = self.store.take() else { return };
        match self.work(&mut store, is_end) {
            Ok(()) => self.store = Some(store),
            Err(error) => self.fail(Some(store), &error),
        }
    }

    fn open(&mut self) {
        let opened = Store::open(&self.writer.dir, self.folders).and_then(|mut store| {
            if !self.has_ended_interrupted {
                self.end_interrupted(&mut store)?;
                self.has_ended_interrupted = true;
            }
            Ok(store)
        });
        match opened {
            Ok(store) => {
                tracing::debug!("history opened: {}", store.path().display());
                self.store = Some(store);
                self.folders = NewFolders::Last;
                self.note_success();
            }
            Err(error) => self.fail(None, &error),
        }
    }

    /// Ends the events that lasted when the previous process ended. They are stored before the first event of this process, so that
    /// a process that is killed early leaves none open; then the messages go to all consumers.
    fn end_interrupted(&self, store: &mut Store) -> Result<(), HistoryError> {
        let ended = |(event, seen): (Event, i64)| {
            let seen = Timestamp::from_millisecond(seen).unwrap_or(event.peak);
            let end = seen.max(event.start);
            let event = Event { end: Some(end), end_reason: Some(EndReason::Restart), ..event };
            Arc::new(EventMessage { phase: EventPhase::End, event })
        };
        let events: Vec<Arc<EventMessage>> = store.open_events()?.into_iter().map(ended).collect();
        store.write(&Batch { events: events.clone(), ..Batch::default() })?;
        for message in events {
            let Event { stream, rule, id, .. } = &message.event;
            let (stream, rule, id) = (&**stream, &**rule, &**id);
            tracing::info!(stream, stage = "event", event = rule, id, "event ended by the restart: {rule}");
            self.writer.hub.send(EventMessage::clone(&message));
        }
        Ok(())
    }

    fn work(&mut self, store: &mut Store, is_end: bool) -> Result<(), HistoryError> {
        if self.writer.status.take_suspicion() {
            store.check_content()?;
        }
        self.gather(is_end);
        let now = Instant::now();
        if is_end || now >= self.check_at {
            store.check_identity()?;
            self.check_at = now + CHECK_INTERVAL;
        }
        if !self.batch.is_empty() {
            store.write(&self.batch)?;
            self.writer.status.count_stored(self.batch.entries());
            self.batch = Batch::default();
            self.note_success();
        }
        let bytes = store.bytes()?;
        self.writer.status.set_bytes(bytes);
        if !is_end && (bytes > self.writer.limits.max_size || now >= self.retention_at) {
            self.retention_at = now + RETENTION_INTERVAL;
            let wall = Timestamp::now();
            let oldest =
                self.clock.is_steady(wall, now).then(|| wall.checked_sub(self.writer.limits.keep).ok()).flatten();
            let oldest = oldest.map(Timestamp::as_millisecond);
            let removed = retention::apply(store, oldest, self.writer.limits.max_size)?;
            self.writer.status.count_removed(removed);
            self.writer.status.set_bytes(store.bytes()?);
        }
        Ok(())
    }

    /// Adds to the batch what waits, unless the batch is one whose writing has failed.
    fn gather(&mut self, is_end: bool) {
        let Writer { events, snapshots, streams, status, .. } = &self.writer;
        let Batch { seen, .. } = &mut self.batch;
        let now = Instant::now();
        // First: an event that ends meanwhile has lasted at least until these times, or its end comes after it in the queue.
        if is_end || now >= self.seen_at {
            *seen = streams.newest();
            self.seen_at = now + SEEN_INTERVAL;
        }
        // Before the events: the event of a snapshot is in the queue, or was.
        let room = MAX_SNAPSHOTS.saturating_sub(self.batch.snapshots.len());
        self.batch.snapshots.extend(snapshots.try_iter().take(room));
        let room = MAX_EVENTS.saturating_sub(self.batch.events.len());
        self.batch.events.extend(events.messages.try_iter().take(room));
        let taken = streams.take_minutes((!is_end).then(Timestamp::now));
        self.batch.minutes.extend(taken.minutes);
        status.count_lost(taken.lost);
    }

    fn note_success(&mut self) {
        if self.writer.status.works() {
            log_dedup::info("", "history", "history works again");
        }
    }

    fn fail(&mut self, store: Option<Store>, error: &HistoryError) {
        if let (HistoryError::Replaced { path }, Some(mut store)) = (error, store) {
            self.keep_open_events(&mut store);
            drop(store);
            remove_log(path);
        }
        let now = Instant::now();
        let status = &self.writer.status;
        self.retry_at = now + RETRY;
        status.fail(error.to_string());
        let is_first = self.replaced_at.is_none_or(|at| now.saturating_duration_since(at) > RETENTION_INTERVAL);
        if is_first && matches!(error, HistoryError::Replaced { .. }) {
            self.replaced_at = Some(now);
            self.retry_at = now;
            log_dedup::error("", "history", None, &format!("history is stored in a new file: {error}"));
            return;
        }
        if is_first && error.is_damage() {
            self.replaced_at = Some(now);
            match move_aside(&self.writer.dir.join(FILE)) {
                Ok(kept) => {
                    let kept = kept.display();
                    let text =
                        format!("history database is damaged, a new one was created: {error}; the old one is {kept}");
                    log_dedup::error("", "history", None, &text);
                    self.retry_at = now;
                    return;
                }
                Err(moving) => {
                    let text = format!("history database is damaged and cannot be moved: {error}; {moving}");
                    log_dedup::error("", "history", None, &text);
                    return;
                }
            }
        }
        if error.is_about_the_data() {
            status.count_lost(self.batch.entries());
            self.batch = Batch::default();
        }
        let text = format!("history failed, next try in {} s: {error}", RETRY.as_secs());
        log_dedup::error("", "history", None, &text);
    }

    /// The events that last are stored again: those that have ended are only in the file that was removed, which can be read
    /// as long as it is open.
    fn keep_open_events(&mut self, removed: &mut Store) {
        let open = removed.open_events().unwrap_or_default();
        let message = |(event, _)| Arc::new(EventMessage { phase: EventPhase::Start, event });
        self.batch.events.splice(0..0, open.into_iter().map(message));
    }

    fn close(self) {
        let left = self.batch.entries() + self.writer.events.messages.len() as u64;
        let closed = self.store.map_or(Ok(()), Store::close);
        if let Err(error) = closed {
            tracing::error!("history not closed: {error}; it is repaired at the next start");
        }
        if left > 0 {
            self.writer.status.count_lost(left);
            tracing::error!("history entries lost, the database could not be written before the stop: {left}");
        }
    }
}
