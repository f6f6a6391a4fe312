//! `maskcast bench --flicker CLIP`: how much masks flicker, as the model makes them and as they are drawn.
//!
//! A pixel flips if its class differs from that of the pixel of the previous mask that dense optical flow leads to (the nearest
//! one). Pixels whose flow does not lead back to them within a pixel (what appears or is covered), or leaves the image, do not
//! count. What remains are changes of the mask without a change of the image: flicker, and errors of the flow at borders.

mod flow;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::flow::{Grey, flow};
use super::Failure;
use crate::capture::{Captured, GstSource, Source};
use crate::config::{Smooth, SourceSpec, SourceUri};
use crate::frame::{ClassId, Crop, Frame, Image, Tiles};
use crate::segment::Segmenter;
use crate::segment::onnx::Model;
use crate::steady::Steady;

/// Flow that leads further than this from its start when it is followed back is not used, in mask pixels.
const LEADS_BACK: f32 = 1.0;

/// How long a clip may take to its next frame.
const SILENCE: Duration = Duration::from_secs(10);

/// The flicker of the masks of a clip.
#[derive(Clone, Debug, Serialize)]
pub struct Flicker {
    /// Path of the clip.
    pub clip: String,
    /// Name of the model.
    pub model: String,
    /// Number of masks.
    pub masks: u32,
    pub masks_per_second: f64,
    /// For each value of `smooth`, from off on.
    pub smooth: Vec<FlickerOfSmooth>,
}

/// The flicker with one value of `smooth`.
#[derive(Clone, Debug, Serialize)]
pub struct FlickerOfSmooth {
    /// The value of `smooth`.
    pub smooth: &'static str,
    /// Pixels that flip in a mask, in percent.
    pub flips_percent: f64,
    /// Pixels that differ from the mask of the model, in percent.
    pub differs_percent: f64,
    /// Median time to smooth a mask, in milliseconds.
    pub ms: f64,
}

/// The masks of one strength.
struct Series {
    smooth: Smooth,
    steady: Steady,
    previous: Vec<ClassId>,
    /// Pixels that flipped, and pixels that counted.
    flips: u64,
    counted: u64,
    /// Pixels that differ from the mask of the model.
    differ: u64,
    pixels: u64,
    times: Vec<Duration>,
}

impl Series {
    fn new(smooth: Smooth) -> Self {
        let (steady, previous, times) = (Steady::default(), Vec::new(), Vec::new());
        Series { smooth, steady, previous, flips: 0, counted: 0, differ: 0, pixels: 0, times }
    }

    /// Share of pixels that flip in a mask, in percent.
    fn flip_percent(&self) -> f64 {
        100.0 * self.flips as f64 / self.counted.max(1) as f64
    }

    fn differ_percent(&self) -> f64 {
        100.0 * self.differ as f64 / self.pixels.max(1) as f64
    }

    /// Median time of one mask in milliseconds.
    fn millis(&mut self) -> f64 {
        self.times.sort_unstable();
        self.times.get(self.times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

/// Measures the flicker of the masks of a clip.
///
/// # Errors
/// The clip cannot be read or has fewer than two frames, or the model fails.
pub fn measure(clip: &Path, model: &Model) -> Result<Flicker, Failure> {
    let located = |error: &dyn std::fmt::Display| Failure::runtime(format!("{}: {error}", clip.display()));
    let mut spec = SourceSpec::new(SourceUri::File(clip.to_path_buf()));
    (spec.real_time, spec.looped) = (false, false);
    let mut capture = GstSource::new(spec).open().map_err(|error| located(&error))?;
    let mut segmenter = model.segmenter(1).map_err(Failure::runtime)?;
    let name: Arc<str> = "flicker".into();
    let mut all = Smooth::ALL.map(Series::new);
    let mut before: Option<Vec<Grey>> = None;
    let (mut masks, mut first, mut last) = (0_u32, None, Duration::ZERO);
    loop {
        let frame = match capture.next(SILENCE).map_err(|error| located(&error))? {
            Captured::Frame(frame) => frame,
            Captured::Silence | Captured::NoKeyframe(_) => return Err(located(&"no frame for 10 s")),
            Captured::End => break,
        };
        let frame = Frame {
            stream: Arc::clone(&name),
            seq: u64::from(masks),
            pts: frame.pts,
            captured_at: frame.captured_at,
            pixels: frame.pixels,
            bias: None,
            gate: None,
            crop: Crop::default(),
            tiles: Tiles::default(),
        };
        let segmented = segmenter.segment(std::slice::from_ref(&frame)).map_err(|error| located(&error))?;
        let Some(mask) = segmented.masks.first() else { return Err(located(&"the model made no mask")) };
        let grey = grey(&frame.pixels.image(), mask.width, mask.height).pyramid();
        // For each pixel, the pixel of the previous mask with its content.
        let sources = before.as_ref().map(|before| sources(&grey, before));
        for series in &mut all {
            let start = Instant::now();
            let shown = series.steady.steady(mask, series.smooth);
            series.times.push(start.elapsed());
            if let Some(sources) = &sources {
                for (class, source) in shown.classes.iter().zip(sources) {
                    let Some(source) = *source else { continue };
                    series.counted += 1;
                    series.flips += u64::from(series.previous[source] != *class);
                }
            }
            series.pixels += mask.classes.len() as u64;
            series.differ += mask.classes.iter().zip(&shown.classes).filter(|(raw, shown)| raw != shown).count() as u64;
            series.previous.clone_from(&shown.classes);
        }
        before = Some(grey);
        masks += 1;
        first.get_or_insert(frame.pts);
        last = frame.pts;
    }
    if masks < 2 {
        return Err(located(&"flicker is measured between masks, and the clip has fewer than two frames"));
    }
    let seconds = last.saturating_sub(first.unwrap_or_default()).as_secs_f64();
    let rate = if seconds > 0.0 { f64::from(masks - 1) / seconds } else { 0.0 };
    let smooth = all.iter_mut().map(|series| FlickerOfSmooth {
        smooth: series.smooth.name(),
        flips_percent: series.flip_percent(),
        differs_percent: series.differ_percent(),
        ms: series.millis(),
    });
    Ok(Flicker {
        clip: clip.display().to_string(),
        model: model.name(),
        masks,
        masks_per_second: rate,
        smooth: smooth.collect(),
    })
}

impl Flicker {
    /// Prints the result as a table.
    pub fn print(&self) {
        println!("{}; {}; {} masks, {:.1} a second", self.clip, self.model, self.masks, self.masks_per_second);
        println!(
            "{:<8} {:>13} {:>7} {:>19} {:>10}",
            "smooth", "flips a mask", "of off", "differs from model", "ms a mask"
        );
        let off = self.smooth.first().map_or(0.0, |row| row.flips_percent);
        for FlickerOfSmooth { smooth, flips_percent: flips, differs_percent: differ, ms } in &self.smooth {
            println!("{smooth:<8} {flips:>11.3} % {:>7.2} {differ:>17.2} % {ms:>10.3}", flips / off.max(1e-9));
        }
    }
}

/// The luma of a frame at the size of the mask, by the mean of the pixels of each mask pixel.
fn grey(image: &Image<'_>, width: usize, height: usize) -> Grey {
    let (info, plane) = (&image.info, &image.planes[0]);
    let range = |at: usize, of: usize, size: usize| {
        let start = at * size / of;
        start..((at + 1) * size / of).max(start + 1)
    };
    let mean = |n: usize| {
        let (columns, rows) = (range(n % width, width, info.width), range(n / width, height, info.height));
        let count = (columns.len() * rows.len()) as f32;
        let row = |row: usize| -> u32 {
            plane.data[row * plane.stride..][columns.clone()].iter().map(|&value| u32::from(value)).sum()
        };
        rows.map(row).sum::<u32>() as f32 / count
    };
    Grey { width, height, values: (0..width * height).map(mean).collect() }
}

/// For each pixel of `now`, the index of the pixel of `before` that shows the same; `None` where the flow is not consistent.
fn sources(now: &[Grey], before: &[Grey]) -> Vec<Option<usize>> {
    let (backward, forward) = (flow(now, before), flow(before, now));
    let (width, height) = (now[0].width, now[0].height);
    let source = |(at, &(u, v)): (usize, &(f32, f32))| {
        let (x, y) = (((at % width) as f32 + u).round(), ((at / width) as f32 + v).round());
        let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
        let source = inside.then(|| y as usize * width + x as usize)?;
        let (back_u, back_v) = forward[source];
        ((u + back_u).hypot(v + back_v) <= LEADS_BACK).then_some(source)
    };
    backward.iter().enumerate().map(source).collect()
}
