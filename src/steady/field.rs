//! The vectors of one resolution, and what makes them smooth.

use super::pyramid::Level;

/// Side of a cell in pixels of its level. All pixels of a cell have one vector.
pub const CELL: usize = 4;

/// A vector stays within this distance of the whole pixels for which the equations of its cell were made.
const REACH: f32 = 1.0;

/// How much the eight cells around a cell count in its equations; the cell itself has 1.
const SHARE: f32 = 0.5;

/// How strongly a vector is drawn to each of its four neighbours, in units of the equations.
const SMOOTHNESS: f32 = 0.3;

/// How fast that force fades when the vectors differ: they may belong to different objects.
const EDGE: f32 = 0.5;

/// How strongly a cell that matches best at rest stays there, in units of the equations. Without texture, nothing else does.
const AT_REST: f32 = 0.3;

/// The sum of squared gradients that counts as 1 in the equations.
const TEXTURE: f32 = 1600.0;

/// A cell whose mean difference is this much counts half in the equations.
const MISMATCH: f32 = 3.0;

/// How often every vector is drawn to its neighbours.
const ROUNDS: usize = 2;

/// The determinant below which equations have no solution.
const SINGULAR: f32 = 1e-6;

/// Where a cell was in the previous image: its pixel `p` shows what was at `p + vector`, in pixels of the level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vector {
    pub x: f32,
    pub y: f32,
}

impl Vector {
    /// Whole pixels.
    pub fn rounded(self) -> (i32, i32) {
        (self.x.round() as i32, self.y.round() as i32)
    }
}

/// The normal equations of a cell: `[xx xy; xy yy] vector = [x y]`.
#[derive(Clone, Copy, Default)]
struct Equations {
    xx: f32,
    xy: f32,
    yy: f32,
    x: f32,
    y: f32,
}

impl Equations {
    fn add(&mut self, other: &Equations, factor: f32) {
        self.xx += factor * other.xx;
        self.xy += factor * other.xy;
        self.yy += factor * other.yy;
        self.x += factor * other.x;
        self.y += factor * other.y;
    }
}

/// The vectors of the cells of one resolution, row by row.
#[derive(Default)]
pub struct Field {
    pub columns: usize,
    pub rows: usize,
    pub vectors: Vec<Vector>,
    /// The whole pixels that match best.
    pub matches: Vec<(i32, i32)>,
    /// How much the windows of a cell differ at its match: the sum of absolute differences.
    pub differences: Vec<u32>,
    equations: Vec<Equations>,
    /// The equations of a cell and of those around it.
    joined: Vec<Equations>,
}

impl Field {
    /// Adapts the number of cells to the size of the image.
    pub fn fit(&mut self, level: &Level) {
        let (columns, rows) = (level.width.div_ceil(CELL), level.height.div_ceil(CELL));
        if (columns, rows) != (self.columns, self.rows) {
            (self.columns, self.rows) = (columns, rows);
            self.vectors.clear();
        }
        self.vectors.resize(columns * rows, Vector::default());
        self.matches.resize(columns * rows, (0, 0));
        self.differences.resize(columns * rows, 0);
        self.equations.resize(columns * rows, Equations::default());
        self.joined.resize(columns * rows, Equations::default());
    }

    /// Forgets all vectors.
    pub fn clear(&mut self) {
        self.vectors.fill(Vector::default());
        self.matches.fill((0, 0));
        self.differences.fill(0);
    }

    /// The sum of squared gradients of a cell and of those around it is at least [`TEXTURE`].
    pub fn has_texture(&self, at: usize) -> bool {
        self.joined[at].xx + self.joined[at].yy >= 1.0 + 2.0 * AT_REST
    }

    /// Refines the matches to fractions of a pixel, by the method of Lucas and Kanade ("An Iterative Image Registration
    /// Technique", 1981) over 3×3 cells, and makes the vectors smooth where the equations leave them open: where the image has
    /// no texture, or texture in one direction only.
    pub fn refine(&mut self, now: &Level, before: &Level) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                let at = row * self.columns + column;
                self.equations[at] = equations(now, before, (column, row), self.matches[at]);
            }
        }
        self.join();
        for round in 0..ROUNDS {
            // Alternately from both ends, so that vectors spread in all directions.
            for n in 0..self.vectors.len() {
                let at = if round % 2 == 0 { n } else { self.vectors.len() - 1 - n };
                self.vectors[at] = self.drawn(at);
            }
        }
    }

    fn join(&mut self) {
        let (columns, rows) = (self.columns, self.rows);
        for row in 0..rows {
            for column in 0..columns {
                let at = row * columns + column;
                let own = self.matches[at];
                let mut sum = self.equations[at];
                for row in row.saturating_sub(1)..(row + 2).min(rows) {
                    for column in column.saturating_sub(1)..(column + 2).min(columns) {
                        let other = row * columns + column;
                        let found = self.matches[other];
                        // A cell that moves otherwise belongs to another object.
                        if other != at && (found.0 - own.0).abs().max((found.1 - own.1).abs()) <= 1 {
                            sum.add(&self.equations[other], SHARE);
                        }
                    }
                }
                self.joined[at] = sum;
                self.vectors[at] = Vector { x: own.0 as f32, y: own.1 as f32 };
            }
        }
    }

    /// The solution of the equations of a cell and its four neighbours.
    fn drawn(&self, at: usize) -> Vector {
        let (column, row) = (at % self.columns, at / self.columns);
        let own = self.vectors[at];
        let mut sum = self.joined[at];
        let mut draw = |at: usize| {
            let Vector { x, y } = self.vectors[at];
            let (dx, dy) = (x - own.x, y - own.y);
            let force = SMOOTHNESS / (1.0 + EDGE * (dx * dx + dy * dy));
            sum.add(&Equations { xx: 1.0, xy: 0.0, yy: 1.0, x, y }, force);
        };
        if column > 0 {
            draw(at - 1);
        }
        if column + 1 < self.columns {
            draw(at + 1);
        }
        if row > 0 {
            draw(at - self.columns);
        }
        if row + 1 < self.rows {
            draw(at + self.columns);
        }
        let determinant = sum.xx * sum.yy - sum.xy * sum.xy;
        if determinant < SINGULAR {
            return own;
        }
        let (x, y) = (self.matches[at].0 as f32, self.matches[at].1 as f32);
        let inverse = 1.0 / determinant;
        Vector {
            x: ((sum.x * sum.yy - sum.y * sum.xy) * inverse).clamp(x - REACH, x + REACH),
            y: ((sum.y * sum.xx - sum.x * sum.xy) * inverse).clamp(y - REACH, y + REACH),
        }
    }
}

/// The equations of one cell for vectors near `matched`.
fn equations(now: &Level, before: &Level, (column, row): (usize, usize), matched: (i32, i32)) -> Equations {
    let (width, height) = (now.width, now.height);
    let (mut xx, mut xy, mut yy, mut x, mut y, mut differences) = (0, 0, 0, 0, 0, 0);
    // Without the border of the image, which has no gradient.
    let (left, right) = ((column * CELL).max(1), ((column + 1) * CELL).min(width - 1));
    for line in (row * CELL).max(1)..((row + 1) * CELL).min(height - 1) {
        let source = (line as i32 + matched.1).clamp(0, height as i32 - 1) as usize * width;
        let [above, here, below] = [line - 1, line, line + 1].map(|line| &now.detail[line * width..][..width]);
        let before = &before.detail[source..][..width];
        for at in left..right {
            let from = (at as i32 + matched.0).clamp(0, width as i32 - 1) as usize;
            let gradient_x = i32::from(here[at + 1]) - i32::from(here[at - 1]);
            let gradient_y = i32::from(below[at]) - i32::from(above[at]);
            let difference = i32::from(here[at]) - i32::from(before[from]);
            xx += gradient_x * gradient_x;
            xy += gradient_x * gradient_y;
            yy += gradient_y * gradient_y;
            x += gradient_x * difference;
            y += gradient_y * difference;
            differences += difference.abs();
        }
    }
    let mismatch = differences as f32 / ((CELL * CELL) as f32 * MISMATCH);
    let trust = 1.0 / (TEXTURE * (1.0 + mismatch));
    // The gradients are differences over two pixels.
    let [mut xx, xy, mut yy] = [xx, xy, yy].map(|sum| sum as f32 * 0.25 * trust);
    let [x, y] = [x, y].map(|sum| sum as f32 * 0.5 * trust);
    let (vx, vy) = (matched.0 as f32, matched.1 as f32);
    let (x, y) = (xx * vx + xy * vy + x, xy * vx + yy * vy + y);
    if matched == (0, 0) {
        (xx, yy) = (xx + AT_REST, yy + AT_REST);
    }
    Equations { xx, xy, yy, x, y }
}
