//! The hidden area at the resolution of the mask: the pixels of the classes, grown, without holes, and held for a time.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use multiversion::multiversion;
use opencv::core::{BORDER_CONSTANT, Mat, Point, Scalar, Size};
use opencv::imgproc::{self, MORPH_RECT};
use opencv::prelude::*;

use crate::frame::{ClassId, Mask, Probable, VideoInfo};

/// Pixels are held for at least this number of masks after the one in which they were seen.
const HELD_MASKS: usize = 2;

/// A pixel of an area that is hidden; any other is 0.
pub const HIDDEN: u8 = 255;

/// Unhidden parts of an area that are surrounded by hidden pixels and have at most this share of all pixels are hidden, too: a
/// face that the model did not recognise within a person.
const LARGEST_HOLE: f64 = 0.002;

/// How far an area grows, in pixels of the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    pub columns: usize,
    pub rows: usize,
}

impl Growth {
    /// The growth by `part` of the height of the frame, the same distance in all directions of the picture as it is shown.
    /// Rounded up, and at least one pixel of the mask if `part` is not 0: the border of a mask pixel is not that of the object.
    pub fn new(part: f64, mask: (usize, usize), video: &VideoInfo) -> Self {
        let (width, height) = mask;
        let shown_width = video.width as f64 * f64::from(video.par.0.max(1)) / f64::from(video.par.1.max(1));
        let columns = part * video.height as f64 / shown_width.max(1.0) * width as f64;
        Growth { columns: columns.ceil() as usize, rows: (part * height as f64).ceil() as usize }
    }
}

/// Which pixels of a mask are hidden, over time.
#[derive(Default)]
pub struct Area {
    width: usize,
    height: usize,
    /// When one of the classes was last at a pixel or near it, in microseconds since `epoch`, plus one; 0: never.
    seen: Vec<u64>,
    epoch: Option<Instant>,
    /// `[height × width]`: [`HIDDEN`] or 0.
    hidden: Vec<u8>,
    /// What was seen until then is not known.
    unknown_until: Option<Instant>,
    /// The times of the last masks, oldest first, as in `seen`.
    last: VecDeque<u64>,
}

impl Area {
    /// The area for `mask`, whose classes for which `is_hidden` is true are hidden, `[height × width]`, each pixel [`HIDDEN`] or 0.
    ///
    /// # Errors
    /// OpenCV fails, the mask is not complete, or what was seen before is not known. The whole frame must be hidden then.
    pub fn update(
        &mut self,
        mask: &Mask,
        is_hidden: &[bool; 256],
        growth: Growth,
        hold: Duration,
    ) -> Result<&[u8], AreaError> {
        let (width, height) = (mask.width, mask.height);
        if width == 0 || height == 0 || mask.classes.len() != width * height {
            return Err(AreaError::Incomplete);
        }
        let epoch = *self.epoch.get_or_insert(mask.captured_at);
        if (self.width, self.height) != (width, height) {
            if !self.seen.is_empty() {
                self.unknown_until = self.unknown_until.max(Some(mask.captured_at));
            }
            (self.width, self.height) = (width, height);
            self.seen = vec![0; width * height];
        }
        let mut now = vec![0; width * height];
        for classes in hidden_ranges(is_hidden) {
            mark(&mask.classes, classes, &mut now);
        }
        if let Some(probable) = &mask.probable {
            add_probable(&mut now, (width, height), probable)?;
        }
        // Most frames of most cameras have nothing to hide.
        if now.contains(&HIDDEN) {
            let mut grown = grow(&Mat::new_rows_cols_with_data(height as i32, width as i32, &now)?, growth)?;
            let grown = grown.data_typed_mut::<u8>()?;
            fill_holes(grown, (width, height));
            self.hold(grown, mask.captured_at, epoch, hold);
        } else {
            self.hold(&now, mask.captured_at, epoch, hold);
        }
        match self.unknown_until {
            Some(until) if mask.captured_at <= until + hold => Err(AreaError::UnknownPast),
            _ => Ok(&self.hidden),
        }
    }

    /// Forgets what was seen until now: it is not known for as long as pixels are held.
    pub fn forget(&mut self, now: Instant) {
        self.unknown_until = Some(now);
    }

    /// Adds what is hidden now, and keeps what was hidden at most `hold` ago.
    fn hold(&mut self, now: &[u8], captured_at: Instant, epoch: Instant, hold: Duration) {
        let time = micros(captured_at, epoch);
        let oldest = time.saturating_sub(u64::try_from(hold.as_micros()).unwrap_or(u64::MAX));
        // With a slow camera or model, the time may have no other mask in it.
        let oldest = self.last.front().filter(|_| !hold.is_zero()).map_or(oldest, |&last| oldest.min(last)).max(1);
        if self.last.len() == HELD_MASKS {
            self.last.pop_front();
        }
        self.last.push_back(time);
        self.hidden.resize(now.len(), 0);
        hold_pixels(now, time, oldest, &mut self.seen, &mut self.hidden);
    }
}

/// The classes that are hidden, as ranges of indices.
fn hidden_ranges(is_hidden: &[bool; 256]) -> Vec<RangeInclusive<ClassId>> {
    let mut start = 0;
    let runs = is_hidden.chunk_by(|a, b| a == b).map(|run| {
        start += run.len();
        (run[0], (start - run.len()) as ClassId..=(start - 1) as ClassId)
    });
    runs.filter(|(hidden, _)| *hidden).map(|(_, range)| range).collect()
}

/// Hides the pixels of a range of classes: one comparison for many pixels.
#[multiversion(targets("x86_64+avx2"))]
fn mark(classes: &[ClassId], range: RangeInclusive<ClassId>, area: &mut [u8]) {
    let (first, last) = (*range.start(), *range.end());
    for (pixel, &class) in area.iter_mut().zip(classes) {
        *pixel |= marked(class.wrapping_sub(first) <= last - first);
    }
}

/// Marks in `hidden` what was seen at `oldest` or later. What is seen now was seen at `time`.
#[multiversion(targets("x86_64+avx2"))]
fn hold_pixels(now: &[u8], time: u64, oldest: u64, seen: &mut [u64], hidden: &mut [u8]) {
    for ((hidden, seen), &now) in hidden.iter_mut().zip(seen).zip(now) {
        *seen = if now == HIDDEN { time } else { *seen };
        *hidden = marked(*seen >= oldest);
    }
}

/// Hides the pixels in which the classes are probable. Their size may differ from that of the mask.
fn add_probable(area: &mut [u8], (width, height): (usize, usize), probable: &Probable) -> Result<(), AreaError> {
    if probable.width * probable.height == 0 || probable.pixels.len() != probable.width * probable.height {
        return Err(AreaError::Incomplete);
    }
    let columns: Vec<usize> = (0..width).map(|x| Mask::index(x, width, probable.width)).collect();
    for (y, row) in area.chunks_exact_mut(width).enumerate() {
        let marks = &probable.pixels[Mask::index(y, height, probable.height) * probable.width..][..probable.width];
        for (pixel, &column) in row.iter_mut().zip(&columns) {
            *pixel |= marked(marks[column]);
        }
    }
    Ok(())
}

/// A time as [`Area::seen`] has it. Times before the epoch are those of the epoch.
fn micros(time: Instant, epoch: Instant) -> u64 {
    time.saturating_duration_since(epoch).as_micros() as u64 + 1
}

#[inline(always)]
fn marked(is_hidden: bool) -> u8 {
    if is_hidden { HIDDEN } else { 0 }
}

/// A rectangle around each hidden pixel: a distance in rows and columns includes all points at that distance.
fn grow(area: &impl opencv::core::ToInputArray, growth: Growth) -> opencv::Result<Mat> {
    let side = |radius: usize| i32::try_from(2 * radius + 1).unwrap_or(i32::MAX);
    let size = Size::new(side(growth.columns), side(growth.rows));
    let kernel = imgproc::get_structuring_element(MORPH_RECT, size, Point::new(-1, -1))?;
    let mut grown = Mat::default();
    // The border counts as not hidden.
    let outside = Scalar::all(0.0);
    imgproc::dilate(area, &mut grown, &kernel, Point::new(-1, -1), 1, BORDER_CONSTANT, outside)?;
    Ok(grown)
}

/// Pixels of a row that are not hidden, one beside the other.
struct Run {
    pixels: Range<usize>,
    /// The number of a run of the same part: an earlier one, or its own.
    part: usize,
}

/// Hides the parts that are not hidden, do not touch the border of the frame, and are small. The pixels of a part touch at their
/// sides.
///
/// The parts are found from runs of pixels, of which a row has a few: Rosenfeld and Pfaltz, *Sequential operations in digital picture
/// processing*, Journal of the ACM 13(4), 1966.
fn fill_holes(area: &mut [u8], (width, height): (usize, usize)) {
    let largest = (width as f64 * height as f64 * LARGEST_HOLE) as usize;
    let mut runs: Vec<Run> = Vec::new();
    let mut above = 0..0;
    for (row, pixels) in area.chunks_exact(width).enumerate() {
        let first = runs.len();
        let mut start = 0;
        while start < width {
            let end = run_end(pixels, start);
            if pixels[start] != HIDDEN {
                runs.push(Run { pixels: row * width + start..row * width + end, part: runs.len() });
            }
            start = end;
        }
        let mut at = above.start;
        for run in first..runs.len() {
            let columns = runs[run].pixels.start - width * row..runs[run].pixels.end - width * row;
            let column =
                |at: usize, runs: &[Run]| (runs[at].pixels.start % width, (runs[at].pixels.end - 1) % width + 1);
            while at < above.end && column(at, &runs).1 <= columns.start {
                at += 1;
            }
            // The last of these may also touch the next run.
            while at < above.end && column(at, &runs).0 < columns.end {
                join(&mut runs, at, run);
                if column(at, &runs).1 > columns.end {
                    break;
                }
                at += 1;
            }
        }
        above = first..runs.len();
    }
    let mut sizes = vec![0; runs.len()];
    for run in 0..runs.len() {
        let Run { pixels, .. } = &runs[run];
        let (row, start, end) = (pixels.start / width, pixels.start % width, (pixels.end - 1) % width + 1);
        let touches_border = row == 0 || row == height - 1 || start == 0 || end == width;
        // All others are small enough.
        let size = if touches_border { largest + 1 } else { pixels.len() };
        sizes[first_of(&mut runs, run)] += size;
    }
    for run in 0..runs.len() {
        if sizes[first_of(&mut runs, run)] <= largest {
            area[runs[run].pixels.clone()].fill(HIDDEN);
        }
    }
}

/// The end of the equal pixels from `start` on.
fn run_end(row: &[u8], start: usize) -> usize {
    let (pixel, rest) = (row[start], &row[start..]);
    let (chunks, _) = rest.as_chunks::<16>();
    let equal = u128::from_ne_bytes([pixel; 16]);
    let skipped = 16 * chunks.iter().take_while(|chunk| u128::from_ne_bytes(**chunk) == equal).count();
    start + skipped + rest[skipped..].iter().take_while(|other| **other == pixel).count()
}

/// The first run of the part of a run.
fn first_of(runs: &mut [Run], mut run: usize) -> usize {
    while runs[run].part != run {
        // Shortens the way of the next search.
        runs[run].part = runs[runs[run].part].part;
        run = runs[run].part;
    }
    run
}

/// Makes one part of those of two runs.
fn join(runs: &mut [Run], a: usize, b: usize) {
    let (a, b) = (first_of(runs, a), first_of(runs, b));
    runs[a.max(b)].part = a.min(b);
}

/// Why the area is not known.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    #[error("what was seen before is not known")]
    UnknownPast,
    #[error("the mask has no pixels, or not as many as its size")]
    Incomplete,
    #[error(transparent)]
    OpenCv(#[from] opencv::Error),
}
