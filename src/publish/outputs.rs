//! What servers hold of the outputs of a stream.

use std::sync::Arc;

use parking_lot::Mutex;

use super::clock::OutputClock;
use super::fanout::Fanout;
use super::jpeg_broadcast::JpegBroadcast;
use super::runs::{OutputRun, OutputRuns};

/// Where viewers of a stream are added. It lives as long as the stream; encoders come and go.
#[derive(Clone, Default)]
pub struct StreamOutputs {
    pub h264: Arc<Fanout>,
    pub jpeg: JpegBroadcast,
    /// It continues when the stream is restarted, as its viewers do.
    pub(super) clock: Arc<Mutex<OutputClock>>,
    runs: OutputRuns,
}

impl StreamOutputs {
    /// A new run of the output. The earlier ones publish nothing from now on, whatever their threads do.
    pub fn begin_run(&self) -> OutputRun {
        let run = self.runs.begin();
        self.close_revoked();
        run
    }

    /// Revokes all runs: they hang, and cannot end by themselves. Nothing that they publish after this call reaches a viewer, a
    /// recording or a push.
    pub fn revoke_runs(&self) {
        self.runs.revoke();
        self.close_revoked();
    }

    fn close_revoked(&self) {
        self.jpeg.forget();
        self.h264.close_revoked();
    }
}
