//! The kinds of outputs for frames.

use super::frame_sink_kind::FrameSinkKind;
use super::outputs::StreamOutputs;
use super::{mjpeg, push, recording, rtsp, whep};

/// All kinds, in the order in which they are started.
pub static FRAME_SINKS: &[&FrameSinkKind] = &[&rtsp::KIND, &whep::KIND, &mjpeg::KIND, &recording::KIND, &push::KIND];

/// The number of viewers by each kind that has viewers.
pub fn viewers(outputs: &StreamOutputs) -> impl Iterator<Item = (&'static str, usize)> {
    FRAME_SINKS.iter().filter_map(|kind| Some((kind.name, (kind.viewers.as_ref()?.count)(outputs))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_counted_by_kind() {
        let outputs = StreamOutputs::default();
        let _viewer = outputs.jpeg.subscribe();
        let mut counts = viewers(&outputs).filter(|(_, count)| *count > 0);
        assert_eq!((counts.next(), counts.next()), (Some(("mjpeg", 1)), None));
    }
}
