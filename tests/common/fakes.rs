//! Fakes for the three traits at the ends of a stream: sources, segmenters and outputs that are slow, send nothing, fail
//! or panic as a test requires.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use maskcast::base::status::Status;
use maskcast::base::timing::Elapsed;
use maskcast::capture::{Capture, Captured, CapturedFrame, KeyframeWait, Source, SourceError};
use maskcast::config::{Legend, Smooth, SourceSpec, StreamConfig, defaults_stream};
use maskcast::frame::{
    Crop, Frame, Guide, ImageMut, Label, Labels, Mask, OwnedImage, PixelFormat, Rgb, Tiles, VideoInfo,
};
use maskcast::gst::GstError;
use maskcast::overlay::OutputImage;
use maskcast::publish::{CaptureTime, Output, OutputError, Paint, PublishOutcome};
use maskcast::segment::pool::{Factory, Pool, WorkerSpec};
use maskcast::segment::{SegmentError, Segmented, Segmenter};
use maskcast::sink::MaskSink;
use maskcast::stream::overlay_state::OverlayState;
use maskcast::stream::{Pace, Stream, StreamParts};

/// Width and height of the fakes' frames, pixels; masks have the same size.
pub const SIDE: usize = 32;

pub use super::wait::DEADLINE;

/// What a fake source does next.
#[derive(Clone, Debug)]
pub enum Step {
    Frame,
    /// Frames that arrive as fast as they are read.
    Frames(usize),
    /// Endless frames, one every few milliseconds, whose source times are all that of the first one.
    OldFrames,
    /// No more frames.
    Silence,
    /// Data that cannot be decoded before a keyframe, for this many milliseconds.
    NoKeyframe(u64),
    Fail(&'static str),
    Panic,
}

/// A source that plays one script per connection and then ends; further connections repeat the last script.
pub struct ScriptedSource {
    pub scripts: Mutex<VecDeque<Vec<Step>>>,
    pub opened: Arc<AtomicUsize>,
    pub restartable: bool,
    /// If set, each frame waits for a message.
    pub pace: Option<Receiver<()>>,
}

impl ScriptedSource {
    pub fn new(scripts: Vec<Vec<Step>>) -> Self {
        ScriptedSource { scripts: Mutex::new(scripts.into()), opened: Arc::default(), restartable: true, pace: None }
    }

    /// A source with one connection, which is not opened again.
    pub fn file(script: Vec<Step>) -> Self {
        ScriptedSource { restartable: false, ..ScriptedSource::new(vec![script]) }
    }
}

impl Source for ScriptedSource {
    fn label(&self) -> String {
        "fake".into()
    }

    fn is_restartable(&self) -> bool {
        self.restartable
    }

    fn open(&self) -> Result<Box<dyn Capture>, SourceError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let mut scripts = self.scripts.lock().unwrap();
        let script = if scripts.len() > 1 { scripts.pop_front().unwrap() } else { scripts[0].clone() };
        let old = script.iter().any(|step| matches!(step, Step::OldFrames));
        Ok(Box::new(ScriptedCapture {
            script: script.into(),
            frames: 0,
            old,
            pace: self.pace.clone(),
            waiting_since: None,
        }))
    }
}

struct ScriptedCapture {
    script: VecDeque<Step>,
    frames: u64,
    /// Plays [`Step::OldFrames`].
    old: bool,
    pace: Option<Receiver<()>>,
    /// When a keyframe was first missing.
    waiting_since: Option<Instant>,
}

impl ScriptedCapture {
    fn frame(&mut self) -> Captured {
        let pts = Duration::from_millis(40 * self.frames);
        self.frames += 1;
        let image = OwnedImage::new(VideoInfo::new(PixelFormat::I420, SIDE, SIDE), 0);
        Captured::Frame(CapturedFrame {
            pixels: Arc::new(image),
            pts,
            source_time: Some(if self.old { Duration::ZERO } else { pts }),
            captured_at: Instant::now(),
            decode: Elapsed::default(),
            waited: Duration::ZERO,
        })
    }
}

impl Capture for ScriptedCapture {
    fn next(&mut self, timeout: Duration) -> Result<Captured, SourceError> {
        if let (Some(pace), Some(Step::Frame | Step::Frames(_))) = (&self.pace, self.script.front())
            && pace.recv_timeout(timeout).is_err()
        {
            return Ok(Captured::Silence);
        }
        match self.script.pop_front() {
            None => Ok(Captured::End),
            Some(Step::Frame) => Ok(self.frame()),
            Some(Step::Frames(n)) => {
                if n > 1 {
                    self.script.push_front(Step::Frames(n - 1));
                }
                Ok(self.frame())
            }
            Some(Step::OldFrames) => {
                self.script.push_front(Step::OldFrames);
                let _ = crossbeam_channel::after(Duration::from_millis(5)).recv();
                Ok(self.frame())
            }
            Some(Step::Silence) => {
                self.script.push_front(Step::Silence);
                // Waits as long as the caller allows, like a camera that sends nothing.
                let _ = crossbeam_channel::after(timeout).recv();
                Ok(Captured::Silence)
            }
            Some(Step::NoKeyframe(millis)) => {
                let began = *self.waiting_since.get_or_insert_with(Instant::now);
                let elapsed = began.elapsed();
                if elapsed < Duration::from_millis(millis) {
                    self.script.push_front(Step::NoKeyframe(millis));
                }
                let _ = crossbeam_channel::after(timeout).recv();
                Ok(Captured::NoKeyframe(KeyframeWait { elapsed, since_data: Duration::ZERO }))
            }
            Some(Step::Fail(reason)) => Err(SourceError::GStreamer(GstError::new(reason))),
            Some(Step::Panic) => panic!("the source panics on purpose"),
        }
    }

    fn may_fall_behind(&self) -> bool {
        self.old
    }
}

/// Result of a fake segmenter for each batch.
pub type Behaviour = dyn Fn(&[Frame]) -> Result<(), SegmentError> + Send + Sync;

/// A segmenter whose masks depend on the frame's number: every pixel has class `seq % 2`.
pub struct FakeSegmenter {
    behaviour: Arc<Behaviour>,
}

impl Segmenter for FakeSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        (self.behaviour)(frames)?;
        let mask = |frame: &Frame| Mask {
            seq: frame.seq,
            pts: frame.pts,
            captured_at: frame.captured_at,
            width: SIDE,
            height: SIDE,
            classes: vec![(frame.seq % 2) as u8; SIDE * SIDE],
            labels: Arc::clone(&LABELS),
            model: "fake".into(),
            guide: Some(Box::new(Guide::new(SIDE, SIDE))),
            probable: None,
            confirmed: false,
            seen: None,
        };
        Ok(Segmented {
            masks: frames.iter().map(mask).collect(),
            preprocess: Elapsed::default(),
            run: Elapsed::default(),
        })
    }
}

/// A pool of fake segmenters, and the number of segmenters made so far.
pub fn pool(
    workers: usize,
    max_batch: usize,
    behaviour: impl Fn(&[Frame]) -> Result<(), SegmentError> + Send + Sync + 'static,
) -> (Pool, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let factory = factory(behaviour, Arc::clone(&made));
    (Pool::start(workers, max_batch, factory).unwrap(), made)
}

/// Fake workers that replace those of a pool.
pub fn workers(
    workers: usize,
    max_batch: usize,
    behaviour: impl Fn(&[Frame]) -> Result<(), SegmentError> + Send + Sync + 'static,
) -> WorkerSpec {
    WorkerSpec { workers, max_batch, factory: factory(behaviour, Arc::default()) }
}

fn factory(
    behaviour: impl Fn(&[Frame]) -> Result<(), SegmentError> + Send + Sync + 'static,
    made: Arc<AtomicUsize>,
) -> Box<Factory> {
    let behaviour: Arc<Behaviour> = Arc::new(behaviour);
    Box::new(move || {
        made.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeSegmenter { behaviour: Arc::clone(&behaviour) }))
    })
}

/// A frame that reached the output: its time, and luma and chroma of its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedFrame {
    pub pts: Duration,
    pub luma: u8,
    pub chroma: u8,
}

/// Result of a fake output for the n-th frame.
pub type PublishResult = dyn FnMut(usize) -> Result<PublishOutcome, OutputError> + Send;

/// An output that sends what it received to a channel.
pub struct FakeOutput {
    published: Sender<PublishedFrame>,
    result: Box<PublishResult>,
    frames: usize,
}

impl FakeOutput {
    pub fn new(
        result: impl FnMut(usize) -> Result<PublishOutcome, OutputError> + Send + 'static,
    ) -> (Self, Receiver<PublishedFrame>) {
        let (published, received) = unbounded();
        (FakeOutput { published, result: Box::new(result), frames: 0 }, received)
    }
}

impl Output for FakeOutput {
    fn wanted(&mut self) -> bool {
        true
    }

    fn publish(
        &mut self,
        stamp: CaptureTime,
        info: VideoInfo,
        paint: &mut Paint<'_>,
    ) -> Result<PublishOutcome, OutputError> {
        let n = self.frames;
        self.frames += 1;
        let outcome = (self.result)(n)?;
        if outcome == PublishOutcome::Busy {
            return Ok(outcome);
        }
        let mut image = OwnedImage::new(info, 0);
        let mut view: ImageMut<'_> = image.image_mut();
        paint(&mut OutputImage::new(&mut view));
        let middle = info.height / 2 * view.planes[0].stride + info.width / 4;
        let chroma = info.height / 4 * view.planes[1].stride + info.width / 8;
        let frame =
            PublishedFrame { pts: stamp.pts, luma: view.planes[0].data[middle], chroma: view.planes[1].data[chroma] };
        // The test may have dropped the receiver.
        let _ = self.published.send(frame);
        Ok(outcome)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Two classes, black and white, so that the luma of a `mask-only` frame shows the class.
static LABELS: LazyLock<Labels> = LazyLock::new(|| {
    let label = |name: &str, v| Label::new(name, Rgb(v, v, v));
    [label("even", 0), label("odd", 255)].into()
});

/// Frame 7 of a stream: its left half is red and its right half is blue (BT.601, limited range), and its rows have padding.
pub fn red_and_blue(width: usize, height: usize) -> Frame {
    let mut image = OwnedImage::new(VideoInfo::new(PixelFormat::I420, width, height), 3);
    let view = image.image_mut();
    for (plane, (red, blue)) in view.planes.into_iter().zip([(81, 41), (90, 240), (240, 110)]) {
        let side = if plane.stride == width + 3 { width } else { width.div_ceil(2) };
        for row in plane.data.chunks_mut(plane.stride) {
            row[..side / 2].fill(red);
            row[side / 2..].fill(blue);
        }
    }
    Frame {
        stream: "test".into(),
        seq: 7,
        pts: Duration::ZERO,
        captured_at: Instant::now(),
        pixels: Arc::new(image),
        bias: None,
        gate: None,
        crop: Crop::default(),
        tiles: Tiles::default(),
    }
}

/// Settings of a stream for fakes: mask only, no legend, a short `silence_timeout`.
pub fn config() -> StreamConfig {
    let here = std::env::current_dir().unwrap();
    let mut config = defaults_stream("fake", SourceSpec::parse("test://black", &here).unwrap());
    config.overlay.style = maskcast::config::Style::MaskOnly;
    config.overlay.legend = Legend::Off;
    // Each frame shows its mask.
    config.overlay.smooth = Smooth::Off;
    config.silence_timeout = Duration::from_millis(200);
    // No frame is late, however busy the machine is.
    config.max_latency = DEADLINE;
    config
}

/// Starts a stream with a fake source and a fake output.
pub fn start(
    config: StreamConfig,
    pace: Pace,
    source: ScriptedSource,
    output: FakeOutput,
    pool: &Pool,
) -> (Stream, Arc<Status>) {
    start_with_sinks(config, pace, source, output, pool, Vec::new())
}

/// As [`start`], with mask sinks.
pub fn start_with_sinks(
    config: StreamConfig,
    pace: Pace,
    source: ScriptedSource,
    output: FakeOutput,
    pool: &Pool,
    mask_sinks: Vec<Box<dyn MaskSink>>,
) -> (Stream, Arc<Status>) {
    let status = Arc::new(Status::new(&config.name));
    let overlay_state = Arc::new(OverlayState::new(config.overlay.clone()));
    let parts = StreamParts {
        config,
        pace,
        source: Box::new(source),
        output: Box::new(output),
        status: Arc::clone(&status),
        model_share: Arc::default(),
        overlay_state,
        zones: Arc::default(),
        mask_sinks,
        tap: None,
    };
    (Stream::start(parts, pool).unwrap(), status)
}

/// Waits until `condition` is true: evaluates it every few milliseconds and fails at the deadline.
pub fn wait_until(name: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let tick = crossbeam_channel::tick(Duration::from_millis(5));
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {name}");
        let _ = tick.recv();
    }
}
