//! One file through the whole pipeline: what `segment` does, and what `bench` measures.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Failure;
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::capture::GstSource;
use crate::config::{CropArea, EncodeConfig, OverlayConfig, Show, SourceSpec, TileGrid, defaults_stream};
use crate::publish::file::FileOutput;
use crate::segment::onnx::Model;
use crate::segment::pool::Pool;
use crate::segment::tuning::ThreadPlan;
use crate::sink::{MaskSink, SinkError, StreamMask};
use crate::stream::overlay_state::OverlayState;
use crate::stream::{Pace, Stream, StreamParts};

/// A file to segment.
pub struct SegmentJob<'a> {
    pub model: &'a Arc<Model>,
    pub plan: ThreadPlan,
    pub source: SourceSpec,
    pub crop: CropArea,
    pub tiles: TileGrid,
    pub output: PathBuf,
    pub overlay: OverlayConfig,
    pub encode: EncodeConfig,
    /// Gets each mask, in the order of the frames.
    pub on_mask: Option<Box<dyn MaskSink>>,
}

/// How a job ended.
pub struct Done {
    pub status: Arc<Status>,
    /// From the start of the pipeline to the complete file.
    pub elapsed: Duration,
    /// Pixels of each class, over all masks.
    pub class_pixels: Box<[u64; 256]>,
    /// Whether it was stopped before the source's end.
    pub stopped: bool,
}

/// How long a stopped job may run without another frame before its output counts as hanging.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// When the newest frame came out of a job that was stopped.
struct Ending {
    published: u64,
    since: Instant,
}

impl Ending {
    /// Whether no frame has come out for too long.
    fn hangs(&mut self, published: u64, now: Instant) -> bool {
        if published != self.published {
            *self = Ending { published, since: now };
        }
        now.saturating_duration_since(self.since) >= STOP_LIMIT
    }
}

/// Runs a job. `progress` is called about ten times a second.
///
/// # Errors
/// The first failure; frames before it are in the output file.
pub fn run(job: SegmentJob<'_>, stop: &Stop, mut progress: impl FnMut(&Status)) -> Result<Done, Failure> {
    let SegmentJob { model, plan, source, crop, tiles, output, overlay, encode, on_mask } = job;
    let mut config = defaults_stream("file", source);
    (config.show, config.crop, config.tiles) = (Show::Matched, crop, tiles);
    (config.overlay, config.encode) = (overlay, encode.clone());
    let status = Arc::new(Status::quiet(&config.name));
    let shown = output.display().to_string();
    let file = FileOutput::new(output, encode, Arc::clone(&status)).map_err(Failure::usage)?;
    let counts = Arc::new(Mutex::new(Box::new([0_u64; 256])));
    let maker = Arc::clone(model);
    let factory = move || maker.segmenter(plan.threads).map(|segmenter| Box::new(segmenter) as Box<_>);
    let pool = Pool::start(plan.workers, plan.max_batch, Box::new(factory)).map_err(Failure::runtime)?;
    let overlay_state = Arc::new(OverlayState::new(config.overlay.clone()));
    let counter: Box<dyn MaskSink> = Box::new(counter(Arc::clone(&counts)));
    let parts = StreamParts {
        source: Box::new(GstSource::new(config.source.clone())),
        config,
        pace: Pace::File,
        output: Box::new(file),
        status: Arc::clone(&status),
        model_share: Arc::default(),
        overlay_state,
        zones: Arc::default(),
        mask_sinks: std::iter::once(counter).chain(on_mask).collect(),
        tap: None,
    };
    let started = Instant::now();
    let stream = Stream::start(parts, &pool).map_err(Failure::usage)?;
    crate::base::heap::reuse_large_blocks();
    let mut ending: Option<Ending> = None;
    // A short file must not wait for a long pause.
    let (quick, slow) = (Duration::from_millis(10), Duration::from_millis(100));
    while !stream.is_finished() {
        progress(&status);
        let pause = if started.elapsed() < Duration::from_secs(2) { quick } else { slow };
        let published = status.ledger.counts().published;
        if let Some(ending) = &mut ending {
            if ending.hangs(published, Instant::now()) {
                // Neither the stream nor the pool is waited for: their threads end with the process.
                std::mem::forget(pool);
                let limit = STOP_LIMIT.as_secs();
                return Err(Failure::runtime(format!(
                    "{shown}: after the stop it took no frame for {limit} s and was given up; what it holds is incomplete"
                )));
            }
            // The source was stopped; frames in the pipeline still come out.
            let _ = crossbeam_channel::after(quick).recv();
        } else if stop.wait(pause) {
            ending = Some(Ending { published, since: Instant::now() });
            stream.stop();
        }
    }
    stream.join().map_err(Failure::runtime)?;
    let elapsed = started.elapsed();
    progress(&status);
    // A stop after the end of the source did not stop anything.
    let stopped = ending.is_some() && !status.condition().ended;
    let class_pixels = counts.lock().clone();
    Ok(Done { status, elapsed, class_pixels, stopped })
}

/// Counts the pixels of each class that the model saw.
fn counter(counts: Arc<Mutex<Box<[u64; 256]>>>) -> impl MaskSink {
    move |mask: &StreamMask| -> Result<(), SinkError> {
        for (class, count) in (0..=u8::MAX).zip(counts.lock().iter_mut()) {
            *count += u64::from(mask.counts.frame.of(class));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_job_hangs_only_when_no_frame_comes_out() {
        let start = Instant::now();
        let mut ending = Ending { published: 3, since: start };
        assert!(!ending.hangs(3, start + STOP_LIMIT / 2));
        assert!(!ending.hangs(4, start + STOP_LIMIT), "a slow job is not ended");
        assert!(!ending.hangs(4, start + STOP_LIMIT * 3 / 2));
        assert!(ending.hangs(4, start + STOP_LIMIT * 2));
    }
}
