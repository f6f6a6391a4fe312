//! Stops streams in parallel within a time limit, and logs the frame counts of each.

use std::time::{Duration, Instant};

use super::stream_runner::StreamRunner;
use crate::base::status::Status;
use crate::base::stop::Stop;

/// How long stopping may take before a stream that hangs is logged and abandoned.
const DEADLINE: Duration = Duration::from_secs(4);

/// How often it is checked whether the threads have ended.
const POLL: Duration = Duration::from_millis(10);

/// Streams that have not stopped.
#[derive(Default)]
pub(super) struct UnstoppedStreams {
    /// Names of the streams that did not stop in time and were abandoned.
    pub hung: Vec<String>,
    /// Streams that are still stopping, because the wait was aborted.
    pub ending: Vec<StreamRunner>,
}

/// Stops streams in parallel and logs their frame counts. If `abort` is raised meanwhile, the remaining streams are returned,
/// to be stopped together with all others.
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
            tracing::error!(
                stream = name,
                "stream not stopped within {} s; its threads are abandoned",
                DEADLINE.as_secs()
            );
            stream.abandon_outputs();
            unstopped.hung.push(name);
        }
        let (view, has_started) = (stream.view(), stream.has_begun());
        stream.join_finished();
        if has_started {
            log_frame_counts(&view.status);
        }
    }
    unstopped
}

/// Logs the final frame counts of a stream.
pub fn log_frame_counts(status: &Status) {
    let counts = status.ledger.counts();
    let reasons: Vec<String> = counts.reasons().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
    let by_reason = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    tracing::info!(
        stream = &*status.name,
        captured = counts.captured(),
        published = counts.published,
        dropped = counts.dropped(),
        in_flight = counts.in_flight,
        "captured {} = published {} + dropped {}{by_reason}",
        counts.captured(),
        counts.published,
        counts.dropped()
    );
}
