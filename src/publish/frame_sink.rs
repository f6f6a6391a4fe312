//! What an output for frames is.

use gstreamer as gst;

/// A destination of the encoded frames of one stream. RTSP media, WebRTC viewers, pushes and recordings get H.264 access
/// units from the [`Fanout`](super::fanout::Fanout); MJPEG viewers share one sink, which gets JPEG images.
pub trait FrameSink: Send {
    /// Takes one encoded frame with its caps. It is called on the thread of the encoder and must not block: a sink queues the
    /// frame, or drops it and counts that. Every JPEG image is a keyframe.
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> FrameSinkResult;
}

/// What a sink did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSinkResult {
    /// The sink has the frame, or has dropped and counted it.
    Taken,
    /// It starts, or starts again, with a keyframe, and requests one.
    WantsKeyframe,
    /// It has ended: it gets no more frames.
    Ended,
}
