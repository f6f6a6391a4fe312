//! Settings of demuxers and decoders, and the measurement of the time for decoding and of waiting for the source.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;

use super::rtp::RtpClock;
use crate::base::timing::Elapsed;

/// The clocks of a streaming thread.
#[derive(Clone, Copy)]
struct Clocks {
    wall: Instant,
    cpu: Duration,
    /// Time during which the thread was ready to run and had no core.
    queued: Duration,
}

impl Clocks {
    fn read() -> Self {
        Clocks { wall: Instant::now(), cpu: ThreadTime::now().as_duration(), queued: queued() }
    }
}

/// How long this thread has been ready to run without a core. Zero if the kernel does not measure it.
fn queued() -> Duration {
    // Nanoseconds on a core, nanoseconds in a run queue, number of time slices (Linux, sched-stats.rst): 20 digits at most.
    let mut text = [0; 64];
    let read = COUNTS.with(|counts| counts.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()));
    let counts = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
    let nanoseconds = counts.split_ascii_whitespace().nth(1).and_then(|count| count.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

thread_local! {
    /// This thread's scheduler statistics: opened once, read with every frame.
    static COUNTS: Option<File> = File::open("/proc/thread-self/schedstat").ok();
    /// The clocks of this streaming thread when it delivered its last frame.
    static LAST: Cell<Option<Clocks>> = const { Cell::new(None) };
}

/// The measurement of a streaming thread between its last two frames.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadWork {
    cpu: Duration,
    slept: Duration,
    /// When the frame was taken, by the camera's clock.
    rtp: Option<Duration>,
}

/// Measures the CPU time between two frames of the thread that pushes to `pad`. The decoder runs on that thread, so this is
/// the time for decoding a frame, and for converting it if needed. The rest of the wall time, except for waiting for a core,
/// is waiting for the source or for the queue of the pad's element. `clock` is read with each frame.
pub fn measure(pad: &gst::Pad, clock: Arc<RtpClock>) -> DecodeMeter {
    let newest = Arc::new(Mutex::new(ThreadWork::default()));
    let writer = Arc::clone(&newest);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let now = Clocks::read();
        let last = LAST.replace(Some(now)).unwrap_or(now);
        let (cpu, queued) = (now.cpu.saturating_sub(last.cpu), now.queued.saturating_sub(last.queued));
        let slept = (now.wall - last.wall).saturating_sub(cpu + queued);
        let work = ThreadWork { cpu, slept, rtp: clock.now() };
        *writer.lock() = work;
        gst::PadProbeReturn::Ok
    });
    DecodeMeter { newest }
}

/// The measurements of [`measure`].
pub struct DecodeMeter {
    newest: Arc<Mutex<ThreadWork>>,
}

impl DecodeMeter {
    /// The CPU time of the newest frame. The wall time is the same, because the thread's waiting is not part of decoding.
    pub fn spent(&self) -> Elapsed {
        let cpu = self.work().cpu;
        Elapsed { wall: cpu, cpu }
    }

    /// How long the thread waited before the newest frame.
    pub fn slept(&self) -> Duration {
        self.work().slept
    }

    /// When the newest frame was taken, by the camera's clock; `None` if it did not arrive in RTP packets.
    pub fn source_time(&self) -> Option<Duration> {
        self.work().rtp
    }

    fn work(&self) -> ThreadWork {
        *self.newest.lock()
    }
}

/// Sets the threads of a software decoder. Each frame thread delays live video by a frame, and on few cores the threads
/// compete with the model; slice threads do not delay.
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

/// Declares to the demuxer of HTTP cameras that there is one track. Otherwise it never reports that it has found all tracks,
/// and decoding begins only after megabytes of data, which takes longer than a camera's first frame may take.
pub fn tune_demuxer(element: &gst::Element) {
    if element.factory().is_some_and(|factory| factory.name() == "multipartdemux") {
        element.set_property("single-stream", true);
    }
}
