//! Steady masks: a pixel changes its class when the evidence holds, not when one mask says so.
//!
//! A model processes each frame independently, so pixels near a border between classes, and areas that it is unsure about, change their
//! class from frame to frame although nothing in the image changed. [`Steady`] keeps a class for each pixel of the mask, moves
//! it with the image, and changes it by hysteresis:
//!
//! 1. *Motion* (`motion`, `field`): hierarchical block matching with a refinement to fractions of a pixel finds where each cell
//!    of 4×4 pixels of the [`Guide`] was in the previous one. Classes and evidence move along, in whole mask pixels; fractions add
//!    up until they are a pixel.
//! 2. *Evidence*: where the mask disagrees with the class that is shown, each mask adds evidence; where it agrees, it takes as
//!    much away. At `FULL` the class changes. A class that is not the one the evidence is for takes evidence away first
//!    (the majority vote of Boyer and Moore).
//! 3. *Change* (`change`): where the image changed otherwise than by motion, evidence grows with the change, and a clear change
//!    is enough for one mask: the class of an object that appears, or of background that is uncovered, is right at once.
//! 4. *Moving objects*: two masks in a row are enough where motion from the previous image to this one does not lead back (what
//!    was found is not the motion of anything), and, if the camera stands still, where something moves.
//!
//! Of a stream with a crop, this is done with the pixels that the model saw. The others stay as they are: nothing moves into the crop or
//! out of it.
//!
//! The method uses no confidence of the model, because models give only classes.

mod change;
mod differences;
mod field;
mod motion;
mod pyramid;
mod seen;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use self::change::{CellChange, STILL};
use self::motion::{CELL, Motion, Vector, WINDOW};
use self::pyramid::Pyramid;
use crate::config::Smooth;
use crate::frame::{ClassId, Guide, Mask, PixelArea};

/// The evidence at which a pixel changes its class.
const FULL: u8 = 240;

/// The evidence of a mask where two in a row are enough.
const HALF: f32 = FULL as f32 / 2.0;

/// The evidence of a step of change beyond [`UNCHANGED`].
const CHANGE: f32 = 12.0;

/// The change, in steps of a sample, that is noise in any video.
const UNCHANGED: f32 = 4.0;

/// The level of the motion from the previous image to this one. Half the resolution is enough to check the motion back.
const CHECKED: usize = 1;

/// Motion to the previous image and back that ends further away than this, in guide pixels, was not found: while the camera stands
/// still, and while it moves.
const LOST: f32 = 1.5;
const LOST_WHILE_MOVING: f32 = 3.0;

/// A window whose pixels differ by more than this on average at its match, in steps of a sample, shows something new: while the
/// camera stands still, and while it moves, when more differences are errors of the motion.
const NEW: u32 = 7;
const NEW_WHILE_MOVING: u32 = 12;

/// A cell moves if its vector differs by more than this from that of most cells, in guide pixels.
const MOVES: f32 = 0.25;

/// A camera stands still if, for a moment, no more than this share of the cells with texture moves more than [`DRIFT`].
const STANDS: f32 = 0.05;

/// In guide pixels.
const DRIFT: f32 = 0.25;

/// How fast that moment is forgotten: the share of cells a second.
const FORGETS: f32 = 0.02;

/// The error of a position in mask pixels at which fractions of motion that were left out are made up for.
const SLIP: f32 = 1.3;

/// The part of that error that is kept from mask to mask; evidence corrects the rest.
const KEPT: f32 = 0.8;

/// After a longer gap between two masks, the second is shown as it is.
const GAP: Duration = Duration::from_secs(1);

/// If the image is another one in more than this share of the cells, the camera was turned or the scene was cut.
const CUT: f32 = 0.6;

/// How long a class must hold, in seconds and in masks.
struct Hold {
    seconds: f32,
    at_least: f32,
    at_most: f32,
}

impl Hold {
    fn of(smooth: Smooth) -> Option<Self> {
        match smooth {
            Smooth::Off => None,
            Smooth::Light => Some(Hold { seconds: 0.3, at_least: 3.0, at_most: 8.0 }),
            Smooth::Normal => Some(Hold { seconds: 0.6, at_least: 5.0, at_most: 15.0 }),
            Smooth::Strong => Some(Hold { seconds: 1.2, at_least: 8.0, at_most: 30.0 }),
        }
    }

    /// The evidence of one mask that comes `elapsed` after the one before. The first masks, `counted` of which came before, need
    /// less: the class that is shown has not been confirmed by more.
    fn step(&self, elapsed: Duration, counted: u32) -> f32 {
        let masks = self.seconds / elapsed.as_secs_f32().max(1e-3);
        let masks = masks.clamp(self.at_least, self.at_most).min(counted as f32 + 1.0);
        (f32::from(FULL) / masks).ceil()
    }
}

/// What is known of each mask pixel.
#[derive(Default)]
struct Memory {
    shown: Vec<ClassId>,
    /// The class that evidence is for.
    candidate: Vec<ClassId>,
    evidence: Vec<u8>,
}

impl Memory {
    fn fit(&mut self, pixels: usize) {
        self.shown.resize(pixels, 0);
        self.candidate.resize(pixels, 0);
        self.evidence.resize(pixels, 0);
    }

    /// Copies a run of pixels.
    fn copy(&mut self, to: usize, other: &Memory, from: usize, length: usize) {
        self.shown[to..][..length].copy_from_slice(&other.shown[from..][..length]);
        self.candidate[to..][..length].copy_from_slice(&other.candidate[from..][..length]);
        self.evidence[to..][..length].copy_from_slice(&other.evidence[from..][..length]);
    }
}

/// What is known of a cell.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// Where its pixels were in the previous mask, in mask pixels.
    source: (i32, i32),
    /// The fractions of `source` that were left out.
    remainder: Vector,
    /// Whether it, or one beside it, moves or shows something that was not found.
    spreads: bool,
    /// Whether two masks in a row are enough, now and in the mask before.
    quick: bool,
    was_quick: bool,
    /// Whether its content is not in the previous image: one mask is enough.
    is_new: bool,
}

/// Makes the masks of one stream steady. Allocates only when the size of masks changes, and for each mask of a crop.
#[derive(Default)]
pub struct Steady {
    /// The steady mask; of a stream with a crop, that of the crop.
    mask: Option<Mask>,
    /// The steady mask of the whole frame, of a stream with a crop.
    framed: Option<Mask>,
    now: Memory,
    before: Memory,
    guide: Guide,
    pyramid: Pyramid,
    previous: Pyramid,
    /// From this image to the previous one.
    backward: Motion,
    /// From the previous image to this one.
    forward: Motion,
    cells: Vec<Cell>,
    /// The number of masks since the last restart.
    counted: u32,
    /// The smallest share of moving cells, see [`STANDS`].
    least_motion: Option<f32>,
}

impl Steady {
    /// Forgets all masks: the next one is shown as it is.
    pub fn reset(&mut self) {
        (self.mask, self.framed) = (None, None);
    }

    /// The mask to draw for `mask`: the steady one, or `mask` itself if smoothing is off or it has no guide.
    ///
    /// The masks must be given in the order of their frames. A mask that was given last is not counted again. The state is reset
    /// by a gap of more than a second, a jump back in time, another size, another model, and a cut.
    pub fn steady<'a>(&'a mut self, mask: &'a Mask, smooth: Smooth) -> &'a Mask {
        match mask.seen {
            None => self.steady_whole(mask, smooth),
            Some(area) => self.steady_seen(mask, area, smooth),
        }
    }

    /// [`Steady::steady`] of the pixels that the model saw.
    fn steady_seen<'a>(&'a mut self, mask: &'a Mask, area: PixelArea, smooth: Smooth) -> &'a Mask {
        let before = self.framed.take();
        if smooth != Smooth::Off && before.as_ref().is_some_and(|before| seen::is_of(before, mask)) {
            self.framed = before;
        } else {
            let part = seen::part(mask, area);
            let steady = self.steady_whole(&part, smooth);
            // The mask itself is returned if it cannot be made steady.
            let framed = (!std::ptr::eq(steady, &raw const part)).then(|| seen::whole(mask, area, steady, before));
            self.framed = framed;
        }
        self.framed.as_ref().unwrap_or(mask)
    }

    /// [`Steady::steady`] of a mask whose guide shows all of it.
    fn steady_whole<'a>(&'a mut self, mask: &'a Mask, smooth: Smooth) -> &'a Mask {
        let pixels = mask.width * mask.height;
        let hold = Hold::of(smooth).filter(|_| pixels > 0 && mask.classes.len() >= pixels);
        let (Some(hold), Some(guide)) = (hold, mask.guide.as_deref().filter(|guide| guide.is_complete())) else {
            self.reset();
            return mask;
        };
        let last = self.mask.as_ref().filter(|last| {
            (last.width, last.height) == (mask.width, mask.height)
                && (self.guide.width, self.guide.height) == (guide.width, guide.height)
                && Arc::ptr_eq(&last.labels, &mask.labels)
        });
        let is_new = last.is_none_or(|last| (last.seq, last.pts) != (mask.seq, mask.pts));
        if is_new {
            let elapsed = last.and_then(|last| mask.pts.checked_sub(last.pts)).filter(|elapsed| *elapsed <= GAP);
            std::mem::swap(&mut self.pyramid, &mut self.previous);
            self.pyramid.build(guide);
            if !elapsed.is_some_and(|elapsed| self.step(mask, guide, &hold, elapsed)) {
                self.restart(mask);
            }
            self.guide.copy_from(guide);
            self.publish(mask);
        }
        self.mask.as_ref().unwrap_or(mask)
    }

    /// Copies the classes that are shown to the steady mask.
    fn publish(&mut self, mask: &Mask) {
        let mut steady = self.mask.take().unwrap_or_else(|| Mask {
            classes: Vec::new(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
            ..mask.clone()
        });
        (steady.seq, steady.pts, steady.captured_at) = (mask.seq, mask.pts, mask.captured_at);
        (steady.width, steady.height) = (mask.width, mask.height);
        (steady.labels, steady.model) = (Arc::clone(&mask.labels), Arc::clone(&mask.model));
        steady.classes.clear();
        steady.classes.extend_from_slice(&self.now.shown);
        self.mask = Some(steady);
    }

    fn restart(&mut self, mask: &Mask) {
        let pixels = mask.width * mask.height;
        self.now.fit(pixels);
        self.before.fit(pixels);
        self.now.shown.copy_from_slice(&mask.classes[..pixels]);
        self.now.evidence.fill(0);
        self.backward.reset();
        self.forward.reset();
        self.cells.clear();
        self.least_motion = None;
        self.counted = 1;
    }

    /// Counts a mask that follows another one. False after a cut.
    fn step(&mut self, mask: &Mask, guide: &Guide, hold: &Hold, elapsed: Duration) -> bool {
        self.backward.estimate(&self.pyramid, &self.previous, 0);
        self.forward.estimate(&self.previous, &self.pyramid, CHECKED);
        let cells = self.backward.field(0).vectors.len();
        self.cells.resize(cells, Cell::default());
        if self.find_lost() > CUT * cells as f32 {
            return false;
        }
        self.find_moving(elapsed);
        self.find_sources(mask, guide);
        std::mem::swap(&mut self.now, &mut self.before);
        self.follow(mask, guide);
        self.count(mask, guide, hold.step(elapsed, self.counted));
        self.counted = self.counted.saturating_add(1);
        true
    }

    /// Whether the camera stands still, as far as is known.
    fn stands(&self) -> bool {
        self.least_motion.is_none_or(|least| least <= STANDS)
    }

    /// Marks the cells whose motion does not lead back, and returns their number.
    fn find_lost(&mut self) -> f32 {
        let (backward, forward) = (self.backward.field(0), self.forward.field(CHECKED));
        let (side, scale) = (CELL as f32, (1 << CHECKED) as f32);
        let stands = self.stands();
        let limit = if stands { LOST } else { LOST_WHILE_MOVING };
        let new = if stands { NEW } else { NEW_WHILE_MOVING };
        let mut lost = 0.0;
        for (at, (cell, vector)) in self.cells.iter_mut().zip(&backward.vectors).enumerate() {
            let middle = |cell: usize| (cell as f32 + 0.5) * side;
            let x = (middle(at % backward.columns) + vector.x) / side;
            let y = (middle(at / backward.columns) + vector.y) / side;
            let inside = x >= 0.0 && y >= 0.0 && x < backward.columns as f32 && y < backward.rows as f32;
            // The cells of the coarser level are larger, and its vectors shorter.
            let (column, row) = ((x / scale) as usize, (y / scale) as usize);
            let leads_back = inside && column < forward.columns && row < forward.rows && {
                let back = forward.vectors[row * forward.columns + column];
                (scale * back.x + vector.x).abs() + (scale * back.y + vector.y).abs() <= limit
            };
            (cell.was_quick, cell.quick) = (cell.quick && stands, !leads_back);
            cell.is_new = backward.differences[at] > new * (WINDOW * WINDOW) as u32;
            lost += f32::from(u8::from(!leads_back));
        }
        lost
    }

    /// Marks the cells that move, and those around them, unless the camera itself moves.
    fn find_moving(&mut self, elapsed: Duration) {
        let field = self.backward.field(0);
        let most = Vector { x: median(&field.vectors, |v| v.x), y: median(&field.vectors, |v| v.y) };
        let exceeds = |vector: &Vector, limit: f32| (vector.x - most.x).abs().max((vector.y - most.y).abs()) > limit;
        let (mut textured, mut drifting) = (0_u32, 0_u32);
        for (_, vector) in field.vectors.iter().enumerate().filter(|(at, _)| field.has_texture(*at)) {
            textured += 1;
            drifting += u32::from(exceeds(vector, DRIFT));
        }
        let share = drifting as f32 / textured.max(1) as f32;
        let least = self.least_motion.map_or(share, |least| share.min(least + FORGETS * elapsed.as_secs_f32()));
        self.least_motion = Some(least);
        let stands = self.stands();
        for (cell, vector) in self.cells.iter_mut().zip(&field.vectors) {
            cell.spreads = stands && (cell.quick || cell.is_new || exceeds(vector, MOVES));
        }
        let (columns, rows) = (field.columns, field.rows);
        for at in (0..self.cells.len()).filter(|_| stands) {
            if self.cells[at].spreads {
                let (column, row) = (at % columns, at / columns);
                for row in row.saturating_sub(1)..(row + 2).min(rows) {
                    for cell in &mut self.cells[row * columns..][column.saturating_sub(1)..(column + 2).min(columns)] {
                        cell.quick = true;
                    }
                }
            }
        }
    }

    /// Turns the vectors of cells into whole mask pixels.
    fn find_sources(&mut self, mask: &Mask, guide: &Guide) {
        let scale = (mask.width as f32 / guide.width as f32, mask.height as f32 / guide.height as f32);
        for (cell, vector) in self.cells.iter_mut().zip(&self.backward.field(0).vectors) {
            if vector.x.abs() < STILL && vector.y.abs() < STILL {
                (cell.source, cell.remainder) = ((0, 0), Vector::default());
            } else {
                let x = whole(vector.x * scale.0, &mut cell.remainder.x);
                let y = whole(vector.y * scale.1, &mut cell.remainder.y);
                cell.source = (x, y);
            }
        }
    }

    /// Moves what is known of the pixels with the image.
    fn follow(&mut self, mask: &Mask, guide: &Guide) {
        let (columns, rows) = (self.backward.field(0).columns, self.backward.field(0).rows);
        let (width, height) = (mask.width, mask.height);
        for row in 0..rows {
            let cells = &self.cells[row * columns..][..columns];
            for y in span(row, guide.height, height) {
                // Cells that move alike are copied together.
                let mut first = 0;
                for next in 1..=columns {
                    if next < columns && cells[next].source == cells[first].source {
                        continue;
                    }
                    let (left, right) =
                        (span(first, guide.width, width).start as i32, span(next - 1, guide.width, width).end as i32);
                    let (vx, vy) = cells[first].source;
                    let from = (y as i32 + vy).clamp(0, height as i32 - 1) as usize * width;
                    // Beyond the border, the pixels at the border.
                    let (start, end) = ((left + vx).clamp(0, width as i32), (right + vx).clamp(0, width as i32));
                    let to = y * width;
                    for x in left..(start - vx).min(right) {
                        self.now.copy(to + x as usize, &self.before, from, 1);
                    }
                    if start < end {
                        let length = (end - start) as usize;
                        self.now.copy(to + (start - vx) as usize, &self.before, from + start as usize, length);
                    }
                    for x in (end - vx).max(left)..right {
                        self.now.copy(to + x as usize, &self.before, from + width - 1, 1);
                    }
                    first = next;
                }
            }
        }
    }

    /// Counts the evidence of a mask, and changes the classes of the pixels that have enough.
    fn count(&mut self, mask: &Mask, guide: &Guide, step: f32) {
        let field = self.backward.field(0);
        let (columns, rows) = (field.columns, field.rows);
        let less = step as u8;
        for row in 0..rows {
            let lines = span(row, guide.height, mask.height);
            for column in 0..columns {
                let at = row * columns + column;
                let across = span(column, guide.width, mask.width);
                // The second of two masks, too, which may come when nothing moves any more.
                let least = match self.cells[at] {
                    Cell { is_new: true, .. } => f32::from(FULL),
                    Cell { quick: true, .. } | Cell { was_quick: true, .. } => HALF,
                    _ => 0.0,
                };
                let mut change = None;
                for y in lines.clone() {
                    let pixels = y * mask.width + across.start..y * mask.width + across.end;
                    let classes = &mask.classes[pixels.clone()];
                    let shown = &mut self.now.shown[pixels.clone()];
                    let evidence = &mut self.now.evidence[pixels.clone()];
                    if classes == shown {
                        evidence.iter_mut().for_each(|evidence| *evidence = evidence.saturating_sub(less));
                        continue;
                    }
                    let candidates = &mut self.now.candidate[pixels];
                    let change = change.get_or_insert_with(|| {
                        CellChange::measure(guide, &self.guide, (column, row), field.vectors[at])
                    });
                    let guide_y = y * guide.height / mask.height - row * CELL;
                    for (n, &class) in classes.iter().enumerate() {
                        if class == shown[n] {
                            evidence[n] = evidence[n].saturating_sub(less);
                            continue;
                        }
                        let guide_x = ((across.start + n) * guide.width / mask.width).saturating_sub(column * CELL);
                        let changed = (change.at(guide_x, guide_y) - UNCHANGED).max(0.0);
                        let step = (step + CHANGE * changed).max(least).min(255.0) as u8;
                        if class == candidates[n] || evidence[n] < step {
                            if class != candidates[n] {
                                (candidates[n], evidence[n]) = (class, 0);
                            }
                            evidence[n] = evidence[n].saturating_add(step);
                        } else {
                            evidence[n] -= step.min(less);
                        }
                        if evidence[n] >= FULL {
                            (shown[n], evidence[n]) = (class, 0);
                        }
                    }
                }
            }
        }
    }
}

/// The whole pixels of a motion. What was left out before is made up for when it is more than [`SLIP`].
fn whole(motion: f32, remainder: &mut f32) -> i32 {
    let exact = motion + *remainder;
    let whole = if (exact - motion.round()).abs() <= SLIP { motion.round() } else { exact.round() };
    *remainder = (exact - whole) * KEPT;
    whole as i32
}

/// The mask pixels of a cell, in one direction: those whose guide pixel is in the cell.
fn span(cell: usize, guide: usize, mask: usize) -> std::ops::Range<usize> {
    let first = |cell: usize| ((cell * CELL).min(guide) * mask).div_ceil(guide);
    first(cell)..first(cell + 1)
}

/// The median, to an eighth of a pixel.
fn median(vectors: &[Vector], part: impl Fn(&Vector) -> f32) -> f32 {
    const PARTS: f32 = 8.0;
    /// In parts.
    const REACH: i32 = 512;
    let mut counts = [0_u16; 2 * REACH as usize + 1];
    for vector in vectors {
        let at = ((part(vector) * PARTS).round() as i32).clamp(-REACH, REACH) + REACH;
        counts[at as usize] += 1;
    }
    let mut below = 0;
    let reaches_half = |count: &u16| {
        below += usize::from(*count);
        2 * below >= vectors.len()
    };
    counts.iter().position(reaches_half).map_or(0.0, |at| (at as i32 - REACH) as f32 / PARTS)
}
