//! The hidden area at the resolution of the mask: the pixels of the classes, grown, without holes, and held for a time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
        let mut now: Vec<u8> =
            mask.classes.iter().map(|&class: &ClassId| marked(is_hidden[usize::from(class)])).collect();
        if let Some(probable) = &mask.probable {
            add_probable(&mut now, (width, height), probable)?;
        }
        // Most frames of most cameras have nothing to hide.
        if now.contains(&HIDDEN) {
            let mut grown = grow(&Mat::new_rows_cols_with_data(height as i32, width as i32, &now)?, growth)?;
            fill_holes(&mut grown)?;
            self.hold(grown.data_typed::<u8>()?, mask.captured_at, epoch, hold);
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
        self.hidden.clear();
        self.hidden.extend(self.seen.iter_mut().zip(now).map(|(seen, &now)| {
            *seen = if now == HIDDEN { time } else { *seen };
            marked(*seen >= oldest)
        }));
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

/// Hides the parts that are not hidden, do not touch the border of the frame, and are small.
fn fill_holes(area: &mut Mat) -> opencv::Result<()> {
    let mut shown = Mat::default();
    opencv::core::bitwise_not(area, &mut shown, &opencv::core::no_array())?;
    let (mut labels, mut stats, mut centroids) = (Mat::default(), Mat::default(), Mat::default());
    let parts = imgproc::connected_components_with_stats(
        &shown,
        &mut labels,
        &mut stats,
        &mut centroids,
        4,
        opencv::core::CV_32S,
    )?;
    let (width, height) = (area.cols(), area.rows());
    let largest = (f64::from(width) * f64::from(height) * LARGEST_HOLE) as i32;
    let mut is_hole = vec![false; parts as usize];
    // The first part are the pixels that are hidden.
    for part in 1..parts {
        let stat = |column: i32| stats.at_2d::<i32>(part, column).copied();
        let (left, top) = (stat(imgproc::CC_STAT_LEFT)?, stat(imgproc::CC_STAT_TOP)?);
        let (right, bottom) = (left + stat(imgproc::CC_STAT_WIDTH)?, top + stat(imgproc::CC_STAT_HEIGHT)?);
        let touches = left == 0 || top == 0 || right == width || bottom == height;
        is_hole[part as usize] = !touches && stat(imgproc::CC_STAT_AREA)? <= largest;
    }
    if is_hole.contains(&true) {
        let labels = labels.data_typed::<i32>()?;
        for (pixel, &part) in area.data_typed_mut::<u8>()?.iter_mut().zip(labels) {
            if is_hole[part as usize] {
                *pixel = HIDDEN;
            }
        }
    }
    Ok(())
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
