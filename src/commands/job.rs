//! One file through the whole pipeline: what `segment` does, and what `bench` measures.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Failure;
use crate::capture::GstSource;
use crate::config::{EncodeConfig, OverlayConfig, Show, SourceSpec, defaults_stream};
use crate::frame::{Frame, Mask};
use crate::publish::file::FileOutput;
use crate::segment::choose::Plan;
use crate::segment::onnx::Model;
use crate::segment::pool::Pool;
use crate::stream::display::Display;
use crate::stream::status::Status;
use crate::stream::stop::Stop;
use crate::stream::{Pace, Parts, Stream, Tap};

/// A file to segment.
pub struct Job<'a> {
    pub model: &'a Arc<Model>,
    pub plan: Plan,
    pub source: SourceSpec,
    pub output: PathBuf,
    pub overlay: OverlayConfig,
    pub encode: EncodeConfig,
    /// Sees each mask with its frame, in order.
    pub on_mask: Option<Tap>,
}

/// How a job ended.
pub struct Done {
    pub status: Arc<Status>,
    /// From the start of the pipeline to the finished file.
    pub elapsed: Duration,
    /// Pixels of each class, over all masks.
    pub class_pixels: Box<[u64; 256]>,
    /// Whether it was stopped before the source's end.
    pub stopped: bool,
}

/// Runs a job. `progress` is called about ten times a second.
///
/// # Errors
/// The first thing that went wrong; frames before it are in the output file.
pub fn run(job: Job<'_>, stop: &Stop, mut progress: impl FnMut(&Status)) -> Result<Done, Failure> {
    let Job { model, plan, source, output, overlay, encode, on_mask } = job;
    let mut config = defaults_stream("file", source);
    (config.show, config.overlay, config.encode) = (Show::Matched, overlay, encode.clone());
    let status = Arc::new(Status::quiet(&config.name));
    let file = FileOutput::new(output, encode, Arc::clone(&status)).map_err(Failure::usage)?;
    let counts = Arc::new(Mutex::new(Box::new([0_u64; 256])));
    let maker = Arc::clone(model);
    let factory = move || maker.segmenter(plan.threads).map(|segmenter| Box::new(segmenter) as Box<_>);
    let pool = Pool::start(plan.workers, plan.max_batch, Box::new(factory)).map_err(Failure::runtime)?;
    let display = Arc::new(Display::new(config.overlay.clone()));
    let parts = Parts {
        source: Box::new(GstSource::new(config.source.clone())),
        config,
        pace: Pace::File,
        output: Box::new(file),
        status: Arc::clone(&status),
        display,
        tap: Some(tap(Arc::clone(&counts), on_mask)),
        watch: None,
    };
    let started = Instant::now();
    let stream = Stream::start(parts, &pool).map_err(Failure::usage)?;
    let mut stopped = false;
    // Short files should not wait for a long look.
    let (quick, slow) = (Duration::from_millis(10), Duration::from_millis(100));
    while !stream.is_finished() {
        progress(&status);
        let pause = if started.elapsed() < Duration::from_secs(2) { quick } else { slow };
        if stopped {
            // The source is told; what is under way comes out.
            let _ = crossbeam_channel::after(quick).recv();
        } else if stop.wait(pause) {
            stopped = true;
            stream.stop();
        }
    }
    stream.join().map_err(Failure::runtime)?;
    let elapsed = started.elapsed();
    progress(&status);
    // A stop that came when the source had ended has stopped nothing.
    let stopped = stopped && !status.condition().ended;
    let class_pixels = counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Done { status, elapsed, class_pixels, stopped })
}

/// Counts classes, then passes the mask on.
fn tap(counts: Arc<Mutex<Box<[u64; 256]>>>, mut on_mask: Option<Tap>) -> Tap {
    Box::new(move |frame: &Frame, mask: &Mask| {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        for &class in &mask.classes {
            counts[usize::from(class)] += 1;
        }
        on_mask.as_mut().map_or(Ok(()), |on_mask| on_mask(frame, mask))
    })
}
