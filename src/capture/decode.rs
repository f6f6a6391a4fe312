//! The part of a capture pipeline that is the same for all sources: settings of demuxers and decoders, and the
//! measurement of decoding.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cpu_time::ThreadTime;
use gstreamer as gst;

use gst::prelude::*;

use crate::stream::timing::Spent;

thread_local! {
    /// CPU time of this streaming thread when it delivered its last frame.
    static LAST: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Measures the CPU time that the thread which feeds `pad` spends between two frames: with the decoder in that thread,
/// that is what decoding (and converting, where needed) a frame costs, whatever the thread waits for in between.
pub fn measure(pad: &gst::Pad) -> DecodeMeter {
    let newest = Arc::new(Mutex::new(Duration::ZERO));
    let writer = Arc::clone(&newest);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let now = ThreadTime::now().as_duration();
        let before = LAST.replace(Some(now));
        *writer.lock().unwrap_or_else(PoisonError::into_inner) =
            before.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        gst::PadProbeReturn::Ok
    });
    DecodeMeter { newest }
}

/// Reads what [`measure`] measures.
pub struct DecodeMeter {
    newest: Arc<Mutex<Duration>>,
}

impl DecodeMeter {
    /// CPU time of the newest frame. It is given as wall time too: the thread's waiting is not decoding.
    pub fn spent(&self) -> Spent {
        let cpu = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        Spent { wall: cpu, cpu }
    }
}

/// Sets a software decoder's threads. Frame threads delay a live picture by a frame each, and on few cores they only
/// take turns with the model; slice threads do not delay.
pub fn tune_decoder(element: &gst::Element, live: bool) {
    if element.factory().is_none_or(|factory| !factory.name().starts_with("avdec_")) {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = (cores / 4).clamp(1, 4);
    crate::gst::set_if_present(element, "max-threads", &threads.to_string());
    if live {
        crate::gst::set_if_present(element, "thread-type", "slice");
    }
}

/// Tells the demuxer of HTTP cameras that there is one picture track. It never says so itself, and until it does decoding
/// does not begin but when megabytes have piled up: longer than anybody waits for a camera's first picture.
pub fn tune_demuxer(element: &gst::Element) {
    if element.factory().is_some_and(|factory| factory.name() == "multipartdemux") {
        element.set_property("single-stream", true);
    }
}
