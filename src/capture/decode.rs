//! The part of a capture pipeline that is the same for all sources: settings of demuxers and decoders, and the
//! measurement of decoding and of waiting for the source.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use gstreamer as gst;

use gst::prelude::*;

use super::rtp::RtpClock;
use crate::base::timing::Elapsed;

/// The clocks of a streaming thread.
#[derive(Clone, Copy)]
struct Clocks {
    wall: Instant,
    cpu: Duration,
    /// Ready to run, and not run.
    queued: Duration,
}

impl Clocks {
    fn read() -> Self {
        Clocks { wall: Instant::now(), cpu: ThreadTime::now().as_duration(), queued: queued() }
    }
}

/// How long this thread has been ready to run without a core to run on. Zero where the kernel does not count it.
fn queued() -> Duration {
    // Nanoseconds on a core, nanoseconds in a core's queue, number of turns (Linux, sched-stats.rst): 20 digits at most.
    let mut text = [0; 64];
    let read = COUNTS.with(|counts| counts.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()));
    let counts = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
    let nanoseconds = counts.split_ascii_whitespace().nth(1).and_then(|count| count.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

thread_local! {
    /// This thread's counts; opened once, read with every frame.
    static COUNTS: Option<File> = File::open("/proc/thread-self/schedstat").ok();
    /// The clocks of this streaming thread when it delivered its last frame.
    static LAST: Cell<Option<Clocks>> = const { Cell::new(None) };
}

/// What the thread that feeds a pad did between its last frame and its newest.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadWork {
    cpu: Duration,
    slept: Duration,
    /// When it was taken, by the camera's clock.
    rtp: Option<Duration>,
}

/// Measures the CPU time that the thread which feeds `pad` spends between two frames: with the decoder in that thread,
/// that is what decoding (and converting, where needed) a frame costs, whatever the thread waits for in between. The
/// rest is waiting for the source, or for room in the pad's own element; not waiting for a core, which says nothing of
/// the source. `clock` is read beside them.
pub fn measure(pad: &gst::Pad, clock: Arc<RtpClock>) -> DecodeMeter {
    let newest = Arc::new(Mutex::new(ThreadWork::default()));
    let writer = Arc::clone(&newest);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let now = Clocks::read();
        let last = LAST.replace(Some(now)).unwrap_or(now);
        let (cpu, queued) = (now.cpu.saturating_sub(last.cpu), now.queued.saturating_sub(last.queued));
        let slept = (now.wall - last.wall).saturating_sub(cpu + queued);
        let work = ThreadWork { cpu, slept, rtp: clock.now() };
        *writer.lock().unwrap_or_else(PoisonError::into_inner) = work;
        gst::PadProbeReturn::Ok
    });
    DecodeMeter { newest }
}

/// Reads what [`measure`] measures.
pub struct DecodeMeter {
    newest: Arc<Mutex<ThreadWork>>,
}

impl DecodeMeter {
    /// CPU time of the newest frame. It is given as wall time too: the thread's waiting is not decoding.
    pub fn spent(&self) -> Elapsed {
        let cpu = self.work().cpu;
        Elapsed { wall: cpu, cpu }
    }

    /// How long the newest frame was waited for.
    pub fn slept(&self) -> Duration {
        self.work().slept
    }

    /// When it was taken, by the camera's clock, if it came in RTP packets.
    pub fn source_time(&self) -> Option<Duration> {
        self.work().rtp
    }

    fn work(&self) -> ThreadWork {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
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
