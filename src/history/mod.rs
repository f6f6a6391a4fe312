//! The history: events, and the shares of the classes minute by minute, in a database (SQLite) in the state directory.
//!
//! [`HistoryThreads`] are two threads. The writer (`writer`) takes the messages about events from a queue of the
//! [`EventHub`], the finished minutes from the [`StreamMinutes`] of each stream, which add up masks on
//! the thread of the overlay stage, and the snapshots from the other thread (`snapshots`). It stores what has come in one
//! transaction (`store`), and deletes what is old (`retention`). Readers ([`HistoryReader`]) open the database for each query.
//!
//! | case | what happens |
//! | --- | --- |
//! | the process is killed | all transactions remain; events that lasted are ended at the next start, with the reason `restart`, at the last time at which they are known to have lasted; of the minute that was not over, nothing is stored |
//! | the power fails | the last transactions may be lost; the database is not damaged |
//! | the disk is full or broken | the history stops and is tried again every five seconds; what waits meanwhile is stored later, up to a limit, and the rest is counted as lost |
//! | the database is damaged | it is renamed, and a new one is begun |
//! | the database is of a newer version | it is not changed, and nothing is stored |
//! | the clock is set | see `minutes`; nothing is deleted because of its age until the clock has run evenly for ten minutes |

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use tokio::sync::watch;

mod entry;
mod error;
mod minutes;
mod reader;
mod retention;
mod rows;
mod schema;
mod snapshots;
mod store;
mod streams;
mod writer;

#[cfg(test)]
mod tests;

pub use entry::SnapshotKind;
pub use error::HistoryError;
pub use minutes::{MinuteSink, StreamMinutes};
pub use reader::{EventQuery, HistoryReader, ShareQuery, StoredEvent, StoredShares};
pub use streams::{HistoryStream, HistoryStreams};

use crate::base::history_status::HistoryStatus;
use crate::base::stop::Stop;
use crate::events::EventHub;
use snapshots::Snapshots;
use writer::{Limits, Writer};

/// Snapshots that wait to be stored, each of a few hundred kilobytes.
const WAITING_SNAPSHOTS: usize = 32;

/// The history, as API and streams use it.
pub struct History {
    /// The folder of the database.
    dir: PathBuf,
    limits: Limits,
    pub reader: HistoryReader,
    pub status: Arc<HistoryStatus>,
    /// The streams whose history is stored.
    pub streams: Arc<HistoryStreams>,
}

impl History {
    /// A history in this folder, which stores nothing until [`HistoryThreads::start`]. What is older than `keep` is deleted, and so
    /// are the oldest entries of a database that is larger than `max_size` bytes.
    pub fn new(dir: &Path, keep: Duration, max_size: u64) -> Self {
        let status: Arc<HistoryStatus> = Arc::default();
        History {
            dir: dir.to_owned(),
            limits: Limits { keep, max_size },
            reader: HistoryReader::new(dir.join(store::FILE), Arc::clone(&status)),
            status,
            streams: Arc::default(),
        }
    }
}

/// The threads of a history.
pub struct HistoryThreads {
    stop: Stop,
    /// Closed by its end.
    writer_ended: Receiver<()>,
    writer: JoinHandle<()>,
    /// Dropping it ends the thread of the snapshots.
    _snapshots: watch::Sender<()>,
}

impl HistoryThreads {
    /// Starts to store the events that `hub` sends from now on. Events that the previous process did not end are ended: `hub` sends
    /// the messages about that.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(history: &History, hub: &Arc<EventHub>) -> std::io::Result<Self> {
        let (taken, waiting) = bounded(WAITING_SNAPSHOTS);
        let snapshots = Snapshots {
            messages: hub.subscribe(),
            streams: Arc::clone(&history.streams),
            taken,
            status: Arc::clone(&history.status),
        };
        let stop = Stop::default();
        let writer = Writer {
            dir: history.dir.clone(),
            limits: history.limits.clone(),
            hub: Arc::clone(hub),
            events: hub.queue(),
            snapshots: waiting,
            streams: Arc::clone(&history.streams),
            status: Arc::clone(&history.status),
            stop: stop.clone(),
        };
        let (stop_snapshots, stopped) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new()
            .name("history-jpeg".into())
            .spawn(move || runtime.block_on(snapshots.run(stopped)))?;
        let (alive, writer_ended) = bounded(0);
        let writer = std::thread::Builder::new().name("history".into()).spawn(move || {
            let _alive = alive;
            writer.run();
        })?;
        Ok(HistoryThreads { stop, writer_ended, writer, _snapshots: stop_snapshots })
    }

    /// Stores what has come, and closes the database. If that takes longer than the limit, the thread is abandoned.
    pub fn stop(self, limit: Duration) {
        self.stop.raise();
        // Nothing is ever sent: the channel is closed with the thread.
        if self.writer_ended.recv_timeout(limit) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            tracing::error!("history not closed in time, its last entries may be lost");
        } else if self.writer.join().is_err() {
            tracing::error!("thread ended in a panic: history");
        }
    }
}
