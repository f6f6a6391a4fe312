//! `maskcast bench --gate CLIP…`: what the motion gate saves on clips, and what it changes.
//!
//! The model runs for every frame. Beside it, a motion gate judges each frame at the clip's own timestamps, as in a live stream: a
//! confirmed frame gets the mask of the last frame that the gate let through. Both sequences of masks are compared, pixel by pixel
//! and by the events of the same rules.

mod events;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::events::{Comparison, Watch, compare};
use super::Failure;
use crate::capture::{Captured, GstSource, Source};
use crate::config::{SourceSpec, SourceUri};
use crate::frame::{ClassId, Crop, Frame, Mask, Tiles};
use crate::gate::{Gate, GateInput, GatedMask, ModelId, Verdict};
use crate::segment::Segmenter;
use crate::segment::onnx::Model;
use crate::segment::preprocess::Preprocessor;

/// How long a clip may take to its next frame.
const SILENCE: Duration = Duration::from_secs(10);

/// Classes with a smaller share of the pixels of a clip do not count in the mean IoU.
const LEAST_SHARE: f64 = 0.001;

/// What was measured on one clip.
struct Measured {
    frames: u64,
    /// Frames that the gate let through.
    runs: u64,
    /// Intersection, union and pixels of the model's masks, for each class.
    classes: Vec<[u64; 3]>,
    /// The time of the gate for each frame.
    times: Vec<Duration>,
    events: Comparison,
}

impl Measured {
    fn saved_percent(&self) -> f64 {
        100.0 * (self.frames - self.runs) as f64 / self.frames.max(1) as f64
    }

    /// The mean IoU of the masks with the gate and of those of the model, over the classes in the clip.
    fn miou(&self) -> f64 {
        let pixels: u64 = self.classes.iter().map(|[_, _, pixels]| pixels).sum();
        let is_present = |pixels_of: u64| pixels_of > 0 && pixels_of as f64 >= LEAST_SHARE * pixels as f64;
        let present = self.classes.iter().filter(|[_, _, pixels]| is_present(*pixels));
        let ious: Vec<f64> = present.map(|[both, either, _]| *both as f64 / *either as f64).collect();
        ious.iter().sum::<f64>() / ious.len().max(1) as f64
    }

    /// Median time of the gate in milliseconds.
    fn millis(&mut self) -> f64 {
        self.times.sort_unstable();
        self.times.get(self.times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    fn count(&mut self, made: &[ClassId], gated: &[ClassId]) {
        for (&made, &gated) in made.iter().zip(gated) {
            self.classes[usize::from(made)][1] += 1;
            self.classes[usize::from(made)][2] += 1;
            if made == gated {
                self.classes[usize::from(made)][0] += 1;
            } else {
                self.classes[usize::from(gated)][1] += 1;
            }
        }
    }
}

/// Measures, prints a table, and returns the result as JSON.
///
/// # Errors
/// A clip cannot be read or has no frames, or the model fails.
pub fn measure(clips: &[PathBuf], model: &Arc<Model>) -> Result<Value, Failure> {
    println!("{}; rules of the events: {}", model.name(), Watch::describe(&model.contract.labels));
    println!(
        "{:<28} {:>6} {:>6} {:>8} {:>6} {:>8} {:>6} {:>6} {:>7} {:>5}",
        "clip", "frames", "runs", "saved", "mIoU", "ms/frame", "events", "missed", "late", "more"
    );
    let mut rows = Vec::new();
    for clip in clips {
        let mut measured = measure_clip(clip, model)?;
        let (saved, miou, millis) = (measured.saved_percent(), measured.miou(), measured.millis());
        let Comparison { events, missed, more, latest } = measured.events;
        let name = clip.file_name().map_or_else(|| clip.display().to_string(), |name| name.to_string_lossy().into());
        println!(
            "{name:<28} {:>6} {:>6} {saved:>6.1} % {miou:>6.3} {millis:>8.3} {events:>6} {missed:>6} {:>5.2} s {more:>5}",
            measured.frames,
            measured.runs,
            latest.as_secs_f64()
        );
        rows.push(json!({
            "clip": clip.display().to_string(),
            "frames": measured.frames,
            "runs": measured.runs,
            "saved_percent": saved,
            "miou": miou,
            "gate_ms": millis,
            "events": events,
            "events_missed": missed,
            "events_late_s": latest.as_secs_f64(),
            "events_more": more,
        }));
    }
    Ok(json!({"model": model.name(), "clips": rows}))
}

fn measure_clip(clip: &Path, model: &Arc<Model>) -> Result<Measured, Failure> {
    let located = |error: &dyn std::fmt::Display| Failure::runtime(format!("{}: {error}", clip.display()));
    let mut spec = SourceSpec::new(SourceUri::File(clip.to_path_buf()));
    (spec.real_time, spec.looped) = (false, false);
    let mut capture = GstSource::new(spec).open().map_err(|error| located(&error))?;
    let mut segmenter = model.segmenter(1).map_err(Failure::runtime)?;
    let (width, height) = (model.contract.input.width, model.contract.input.height);
    let mut preprocessor = Preprocessor::new(width, height);
    let mut rgb = vec![0; 3 * width * height];
    let id: ModelId = Arc::clone(&model.contract) as ModelId;
    let gate = Gate::default();
    let (mut all, mut gated) = (Watch::new(&model.contract.labels), Watch::new(&model.contract.labels));
    let classes = vec![[0; 3]; usize::from(ClassId::MAX) + 1];
    let mut measured = Measured { frames: 0, runs: 0, classes, times: Vec::new(), events: Comparison::default() };
    let (name, start): (Arc<str>, _) = ("gate".into(), Instant::now());
    loop {
        let captured = match capture.next(SILENCE).map_err(|error| located(&error))? {
            Captured::Frame(captured) => captured,
            Captured::Silence | Captured::NoKeyframe(_) => return Err(located(&"no frame for 10 s")),
            Captured::End => break,
        };
        let frame = Frame {
            stream: Arc::clone(&name),
            seq: measured.frames,
            pts: captured.pts,
            // As if the clip were a camera.
            captured_at: start + captured.pts,
            pixels: captured.pixels,
            bias: None,
            gate: None,
            crop: Crop::default(),
            tiles: Tiles::default(),
        };
        let segmented = segmenter.segment(std::slice::from_ref(&frame)).map_err(|error| located(&error))?;
        let Some(made) = segmented.masks.into_iter().next() else { return Err(located(&"the model made no mask")) };
        preprocessor.run(&frame.pixels.image(), &mut rgb).map_err(|error| located(&error))?;
        let info = frame.info();
        let timed = Instant::now();
        let verdict = gate.judge(&GateInput {
            seq: frame.seq,
            captured_at: frame.captured_at,
            video: (info.width, info.height),
            model: &id,
            rgb: &rgb,
            width,
            height,
        });
        measured.times.push(timed.elapsed());
        measured.frames += 1;
        let confirmed = match verdict {
            Verdict::Still(mask) => Some(mask.classes),
            Verdict::Run(image) => {
                measured.runs += 1;
                let (width, height, classes) = (made.width, made.height, made.classes.as_slice().into());
                gate.keep(*image, GatedMask { width, height, classes });
                None
            }
        };
        let shown = match confirmed {
            Some(classes) => Mask { classes: classes.to_vec(), confirmed: true, ..made.clone() },
            None => made.clone(),
        };
        measured.count(&made.classes, &shown.classes);
        all.push(made, info).map_err(|error| located(&error))?;
        gated.push(shown, info).map_err(|error| located(&error))?;
    }
    if measured.frames == 0 {
        return Err(located(&"the file has no frames that can be decoded"));
    }
    measured.events = compare(&all.starts(), &gated.starts());
    Ok(measured)
}
