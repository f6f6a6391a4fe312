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
    fn every_kind_is_documented_and_viewers_are_counted_by_kind() {
        let page = concat!(include_str!("../../docs/outputs.md"), include_str!("../../docs/recording.md"));
        for kind in FRAME_SINKS {
            assert!(kind.about.ends_with('.'), "{}", kind.name);
            if let Some(section) = kind.section {
                assert!(page.contains(&format!("[stream.{section}]")), "docs: {section}");
            }
        }
        let outputs = StreamOutputs::default();
        let _viewer = outputs.jpeg.subscribe();
        let mut counts = viewers(&outputs).filter(|(_, count)| *count > 0);
        assert_eq!((counts.next(), counts.next()), (Some(("mjpeg", 1)), None));
    }
}
