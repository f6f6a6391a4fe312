//! The end of streams: side by side, within a time limit, with the account of each in the log.

use std::time::{Duration, Instant};

use super::stream_runner::StreamRunner;
use crate::base::status::Status;
use crate::base::stop::Stop;

/// How long stopping may take before a stream that hangs is named and left behind.
const DEADLINE: Duration = Duration::from_secs(4);

/// How often threads that end by themselves are looked at.
const POLL: Duration = Duration::from_millis(10);

/// Streams that have not stopped.
#[derive(Default)]
pub(super) struct UnstoppedStreams {
    /// The names of those that did not stop in time and were left behind.
    pub hung: Vec<String>,
    /// Those whose end was not waited for, because the whole service stops.
    pub ending: Vec<StreamRunner>,
}

/// Stops streams side by side and logs their accounts. With `abort`, the wait ends when that is raised: then the streams are
/// handed back, to be stopped together with all others.
pub(super) fn stop_all(mut streams: Vec<StreamRunner>, abort: Option<&Stop>) -> UnstoppedStreams {
    streams.iter().for_each(StreamRunner::stop);
    let deadline = Instant::now() + DEADLINE;
    let never = Stop::default();
    let abort = abort.unwrap_or(&never);
    let mut unstopped = UnstoppedStreams::default();
    while streams.iter().any(|stream| !stream.is_finished()) && Instant::now() < deadline {
        if abort.wait(POLL) {
            (streams, unstopped.ending) = streams.into_iter().partition(StreamRunner::is_finished);
            break;
        }
    }
    for stream in streams {
        if !stream.is_finished() {
            let name = stream.config.name.clone();
            tracing::error!(stream = name, "has not stopped within {} s and is left behind", DEADLINE.as_secs());
            stream.abandon_outputs();
            unstopped.hung.push(name);
        }
        let (view, has_begun) = (stream.view(), stream.has_begun());
        stream.join_finished();
        if has_begun {
            log_account(&view.status);
        }
    }
    unstopped
}

/// Writes a stream's closed account to the log.
pub fn log_account(status: &Status) {
    let counts = status.ledger.counts();
    let reasons: Vec<String> = counts.reasons().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    tracing::info!(
        stream = &*status.name,
        captured = counts.captured(),
        published = counts.published,
        dropped = counts.dropped(),
        in_flight = counts.in_flight,
        "captured {} = published {} + dropped {}{why}",
        counts.captured(),
        counts.published,
        counts.dropped()
    );
}
