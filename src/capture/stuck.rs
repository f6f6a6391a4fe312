//! The end of files whose demuxer does not detect it.
//!
//! With the FFmpeg of Debian 12, GStreamer's libav demuxers (`avdemux_gif` and others) treat the end of the file as missing
//! data: after the last frame of some GIFs they read past the end for ever, and the stream does not end.

use std::sync::atomic::{AtomicU32, Ordering};

use gstreamer as gst;

use gst::prelude::*;

/// The number of consecutive reads past the end after which the stream is ended. A demuxer makes a few such reads while it
/// detects the format.
const READS: u32 = 500;

/// Ends the stream when `element`, if it is a libav demuxer, repeatedly reads past the end of the file.
pub fn end_at_last_byte(element: &gst::Element) {
    let is_libav = element.factory().is_some_and(|factory| factory.name().starts_with("avdemux_"));
    let Some(pad) = element.static_pad("sink").filter(|_| is_libav) else { return };
    let reads = AtomicU32::new(0);
    let demuxer = element.downgrade();
    // Called before each read, on the thread that pushes the frames. The probe does not block, although its type is BLOCK.
    pad.add_probe(gst::PadProbeType::PULL | gst::PadProbeType::BLOCK, move |pad, info| {
        let size = pad.peer_query_duration::<gst::format::Bytes>();
        if size.is_none_or(|size| info.offset < *size) {
            reads.store(0, Ordering::Relaxed);
        } else if reads.fetch_add(1, Ordering::Relaxed) + 1 == READS
            && let Some(demuxer) = demuxer.upgrade()
        {
            for pad in demuxer.src_pads() {
                pad.push_event(gst::event::Eos::new());
            }
        }
        gst::PadProbeReturn::Pass
    });
}
