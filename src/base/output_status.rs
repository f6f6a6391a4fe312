//! What the outputs of a stream have done: pushes, mask sinks, the recording, WebRTC viewers. Written by the outputs, read by
//! API and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::push_status::PushStatus;
use super::sink_status::SinkStatus;

/// The status of the outputs of one stream. Counts begin with the stream's status, and continue when its threads are restarted.
#[derive(Default)]
pub struct OutputStatus {
    pushes: Mutex<Vec<Arc<PushStatus>>>,
    sinks: Mutex<Vec<Arc<SinkStatus>>>,
    recording_failures: AtomicU64,
    refused_viewers: AtomicU64,
}

impl OutputStatus {
    /// The status of the push to the address `to`, without secrets. A push that starts again continues the counts of the
    /// previous one to the same address.
    pub fn add_push(&self, to: String) -> Arc<PushStatus> {
        let mut pushes = self.pushes.lock();
        if let Some(known) = pushes.iter().find(|push| push.to == to) {
            return Arc::clone(known);
        }
        let push = Arc::new(PushStatus::new(to));
        pushes.push(Arc::clone(&push));
        push
    }

    /// The pushes of the stream.
    pub fn pushes(&self) -> Vec<Arc<PushStatus>> {
        self.pushes.lock().clone()
    }

    /// The status of a mask sink. One that starts again continues the counts of the previous one.
    pub fn add_sink(&self, kind: &'static str, label: String) -> Arc<SinkStatus> {
        let mut sinks = self.sinks.lock();
        if let Some(known) = sinks.iter().find(|sink| sink.kind == kind && sink.label == label) {
            return Arc::clone(known);
        }
        let sink = Arc::new(SinkStatus::new(kind, label));
        sinks.push(Arc::clone(&sink));
        sink
    }

    /// The mask sinks of the stream.
    pub fn sinks(&self) -> Vec<Arc<SinkStatus>> {
        self.sinks.lock().clone()
    }

    /// Counts a failure of the recording, which is retried within a minute.
    pub fn count_recording_failure(&self) {
        self.recording_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Failures of the recording since the service started.
    pub fn recording_failures(&self) -> u64 {
        self.recording_failures.load(Ordering::Relaxed)
    }

    /// Counts a WebRTC viewer that was refused because of a limit.
    pub fn count_refused_viewer(&self) {
        self.refused_viewers.fetch_add(1, Ordering::Relaxed);
    }

    /// WebRTC viewers that were refused since the service started.
    pub fn refused_viewers(&self) -> u64 {
        self.refused_viewers.load(Ordering::Relaxed)
    }
}
