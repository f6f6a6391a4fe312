//! The end of files whose demuxer does not see it.
//!
//! GStreamer's demuxers from libav (`avdemux_gif` and others) take "no more bytes" for "no bytes yet" with the FFmpeg of
//! Debian 12: behind the last picture of some GIFs they ask for the bytes behind the end for ever, and no end of the
//! stream comes.

use std::sync::atomic::{AtomicU32, Ordering};

use gstreamer as gst;

use gst::prelude::*;

/// A demuxer reads a few times behind the end while it finds out what the file is.
const READS: u32 = 500;

/// Ends the stream for `element`, if it is such a demuxer, when it keeps reading behind the end of the file.
pub fn end(element: &gst::Element) {
    let is_libav = element.factory().is_some_and(|factory| factory.name().starts_with("avdemux_"));
    let Some(pad) = element.static_pad("sink").filter(|_| is_libav) else { return };
    let reads = AtomicU32::new(0);
    let demuxer = element.downgrade();
    // Called before each read, on the thread that pushes the pictures; it blocks nothing, whatever the type is called.
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
