//! What servers hold of the outputs of a stream.

use std::sync::Arc;

use parking_lot::Mutex;

use super::clock::OutputClock;
use super::fanout::Fanout;
use super::jpeg_broadcast::JpegBroadcast;

/// Where viewers of a stream are added. It lives as long as the stream; encoders come and go.
#[derive(Clone, Default)]
pub struct StreamOutputs {
    pub h264: Arc<Fanout>,
    pub jpeg: JpegBroadcast,
    /// It continues when the stream is restarted, as its viewers do.
    pub(super) clock: Arc<Mutex<OutputClock>>,
}
