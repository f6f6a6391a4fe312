//! Draws masks with smooth edges: the border between two classes is interpolated between mask cells, and the pixels on it are
//! mixed from the colours of both classes.
//!
//! The indicator of a class (1 in its cells, 0 elsewhere) is interpolated by the quadratic B-spline over the 3×3 cells around
//! a pixel (Unser: *Splines: a perfect fit for signal and image processing*, IEEE Signal Processing Magazine 16(6), 1999). The
//! values of all classes sum to one at each pixel. The class with the largest value covers the pixel; how far it leads the
//! second is the distance from the border between them. Pixels within half a pixel of the border show both colours.
//!
//! ```text
//! segments ── inside: 3×3 equal cells ───────────▶ one colour for a run of cells, set once a cell row
//!          ├─ border: two classes in 3×3 cells ──▶ field ─▶ leads ─▶ shares (and line cover) ─▶ mix, for each pixel row
//!          └─ junction: three classes ───────────▶ the same, with the two best classes of each pixel
//! ```

mod field;
mod paint;
mod rows;
mod segments;
mod surroundings;
mod table;

use self::field::{column_values, value};
pub(super) use self::paint::Paint;
use self::rows::{BorderCell, CellRow, CellRows, PlaneColumns};
use self::segments::Segment;
use self::table::{Layout, Steps, Table, TableRow};
use super::grid::Cells;
use super::mix::{CHUNK, Mixture};
use super::palette::{BlendCoefficients, Palette};
use super::row_blend::{self, RowBlend, copy_rows};
use crate::frame::{ClassId, Image, ImageMut};

/// Without lines, a diagonal neighbour reaches no pixel of cells that have at least this many pixels.
const MIN_CELL_WITHOUT_DIAGONALS: f32 = 2.0;

/// Draws masks with smooth edges. Has buffers and tables that are reused for every frame.
#[derive(Default)]
pub(super) struct Edges {
    /// What the tables are for.
    made: Option<TableKey>,
    has_tables: bool,
    steps: Steps,
    luma: Table,
    chroma: Table,
    columns: [PlaneColumns; 2],
    rows: CellRows,
}

/// What the tables depend on.
#[derive(Clone, Debug, PartialEq)]
struct TableKey {
    paint: Paint,
    /// Width and height of the image and of the mask.
    image: (usize, usize),
    mask: (usize, usize),
    interleaved: bool,
}

/// In cells of at least this many pixels, two pixel rows are drawn alike, like their chroma samples: this is not visible and takes a
/// third less time.
const MIN_PAIR_CELL: f32 = 3.0;

/// Cells with more pixels in width or height are too large for tables: their borders are computed for each pixel.
const MAX_TABLE_CELL: f32 = CHUNK as f32;

/// What is drawn.
pub(super) struct Scene<'a> {
    /// All cells of the mask.
    pub cells: &'a Cells<'a>,
    pub palette: &'a Palette,
    pub paint: Paint,
}

impl Scene<'_> {
    /// The coefficients of pixels that have no border near.
    fn inside(&self, class: ClassId) -> &BlendCoefficients {
        if self.paint.has_lines() { &BlendCoefficients::CLEAR } else { self.palette.coefficients(class) }
    }
}

impl Edges {
    /// Blends the mask with the samples of `source`, or with those in `target` if `source` is `None`.
    pub fn draw(
        &mut self,
        scene: &Scene<'_>,
        row_blend: &mut RowBlend,
        source: Option<&Image<'_>>,
        target: &mut ImageMut<'_>,
    ) {
        let Scene { cells, palette, paint } = scene;
        self.begin(cells, paint, row_blend.interleaved());
        let diagonals = paint.has_lines() || paint.pixels_per_cell < MIN_CELL_WITHOUT_DIAGONALS;
        self.rows.update(cells, palette, diagonals, &self.columns);
        for (row, cell_row) in self.rows.iter().enumerate() {
            if cell_row.differs {
                cell_row.segments.for_each_inside(|run, class| {
                    row_blend.set(cells.columns[run.start], cells.columns[run.end], scene.inside(class));
                });
            }
            let mut rows = cells.span(row);
            if cell_row.segments.has_borders() {
                while !rows.is_empty() {
                    let (end, position) = self.steps.step(rows.start);
                    // Chroma rows begin in even rows.
                    self.mix_borders(scene, cell_row, position, rows.start.is_multiple_of(2), row_blend);
                    row_blend.blend(rows.start..end, source, target);
                    rows.start = end;
                }
            } else if paint.has_lines() {
                copy_rows(rows, source, target);
            } else {
                row_blend.blend(rows, source, target);
            }
        }
    }

    /// Makes the tables, unless they are made.
    fn begin(&mut self, cells: &Cells<'_>, paint: &Paint, interleaved: bool) {
        let key = TableKey {
            paint: paint.clone(),
            image: (cells.width(), cells.rows[cells.height()]),
            mask: (cells.columns.len() - 1, cells.height()),
            interleaved,
        };
        if self.made.as_ref() == Some(&key) {
            return;
        }
        self.rows.clear();
        self.steps = Steps::new(cells, paint.pixels_per_cell >= MIN_PAIR_CELL);
        let layout = if interleaved { Layout::Interleaved } else { Layout::Chroma };
        self.has_tables =
            paint.pixels_per_cell <= MAX_TABLE_CELL && cells.columns.windows(2).all(|ends| ends[1] - ends[0] <= CHUNK);
        let planes =
            [(&mut self.luma, 1, 1, Layout::Luma), (&mut self.chroma, 2, if interleaved { 1 } else { 2 }, layout)];
        for ((table, step, sample, layout), columns) in planes.into_iter().zip(&mut self.columns) {
            *columns = PlaneColumns::new(cells, step, sample);
            if self.has_tables {
                table.fit(&columns.positions, &self.steps, layout, paint);
            } else {
                // Those of another size have no entries for these positions.
                *table = Table::default();
            }
        }
        self.made = Some(key);
    }

    /// Sets the coefficients of a row position in all segments that have a border. Those of the others are set.
    fn mix_borders(&self, scene: &Scene<'_>, row: &CellRow, position: usize, chroma: bool, row_blend: &mut RowBlend) {
        let Scene { cells, palette, paint } = scene;
        let luma = self.luma.row(position);
        let chroma = chroma.then(|| self.chroma.row(position));
        let luma_columns = &self.columns[0].positions;
        let interleaved = row_blend.interleaved();
        // Whether mixing has overwritten coefficients behind the last segment.
        let mut excess = false;
        for segment in row.segments.iter() {
            match segment {
                Segment::Inside { run, class } => {
                    let (from, to) = (cells.columns[run.start], cells.columns[run.end]);
                    if excess {
                        row_blend.set(from, to.min(from + row_blend::CHUNK), scene.inside(*class));
                        excess = to - from < 3 * row_blend::CHUNK;
                    }
                }
                Segment::Border { run, classes, patterns } if self.has_tables => {
                    let pair = classes.map(|class| palette.coefficients(class));
                    let range = *patterns..patterns + run.len();
                    let mixture = Mixture::new(pair, [0, 0]);
                    mix(&row.cells[0][range.clone()], luma, [(0, mixture)], row_blend);
                    if let Some(chroma) = chroma {
                        let cells = &row.cells[1][range];
                        if interleaved {
                            mix(cells, chroma, [(1, Mixture::new(pair, [1, 2]))], row_blend);
                        } else {
                            let mixtures = [1, 2].map(|plane| (plane, Mixture::new(pair, [plane, plane])));
                            mix(cells, chroma, mixtures, row_blend);
                        }
                    }
                    excess = true;
                }
                Segment::Border { run, classes, patterns } => {
                    let column_values = column_values(self.steps.weights(position));
                    for (cell, &pattern) in run.clone().zip(&row.segments.patterns()[*patterns..]) {
                        for x in cells.columns[cell]..cells.columns[cell + 1] {
                            let lead = 2.0 * value(pattern.into(), &column_values, luma_columns.weights(x)) - 1.0;
                            let pair = classes.map(|class| palette.coefficients(class));
                            mix_pixel(x, pair, lead, paint, chroma.is_some(), row_blend);
                        }
                    }
                    excess = true;
                }
                Segment::Junction { cell, classes, patterns } => {
                    let column_values = column_values(self.steps.weights(position));
                    for x in cells.columns[*cell]..cells.columns[*cell + 1] {
                        let weights = luma_columns.weights(x);
                        let [a, b] = patterns.map(|pattern| value(pattern.into(), &column_values, weights));
                        let (pair, lead) = two_best([(a, classes[0]), (b, classes[1]), (1.0 - a - b, classes[2])]);
                        let pair = pair.map(|class| palette.coefficients(class));
                        mix_pixel(x, pair, lead, paint, chroma.is_some(), row_blend);
                    }
                    excess = true;
                }
            }
        }
    }
}

/// Mixes the samples of cells by a row of a table, in one plane or in two with equal shares.
#[inline(always)]
fn mix<const N: usize>(
    cells: &[BorderCell],
    table: TableRow<'_>,
    mixtures: [(usize, Mixture); N],
    row_blend: &mut RowBlend,
) {
    for cell in cells {
        if !cell.has_samples() {
            continue;
        }
        let (at, entry) = (cell.at as usize, cell.entry as usize);
        let shares = &table.shares[entry];
        // All planes before the first write, so that what is equal is computed once.
        let mixed = match table.covers.get(entry) {
            Some(covers) => mixtures.each_ref().map(|(_, mixture)| mixture.covered(shares, covers)),
            None => mixtures.each_ref().map(|(_, mixture)| mixture.mixed(shares)),
        };
        for ((plane, _), mixed) in mixtures.iter().zip(mixed) {
            row_blend.write(*plane, at, mixed);
        }
    }
}

/// Mixes one pixel, in which the first of two classes leads by `lead`.
fn mix_pixel(
    x: usize,
    mut pair: [&BlendCoefficients; 2],
    lead: f32,
    paint: &Paint,
    chroma: bool,
    row_blend: &mut RowBlend,
) {
    let mut shares = [paint.share(lead); CHUNK];
    if *pair[0] == BlendCoefficients::CLEAR {
        // The second is mixed without rounding, and a hidden class must keep the samples.
        pair.swap(0, 1);
        shares = [paint.share(-lead); CHUNK];
    }
    let covers = [paint.cover(lead.abs()); CHUNK];
    let mixed = |planes: [usize; 2]| {
        let mixture = Mixture::new(pair, planes);
        if paint.has_lines() { mixture.covered(&shares, &covers) } else { mixture.mixed(&shares) }
    };
    row_blend.write(0, x, mixed([0, 0]));
    if chroma && x.is_multiple_of(2) {
        if row_blend.interleaved() {
            row_blend.write(1, x, mixed([1, 2]));
        } else {
            row_blend.write(1, x / 2, mixed([1, 1]));
            row_blend.write(2, x / 2, mixed([2, 2]));
        }
    }
}

/// The classes with the largest and the second largest value, and the difference of these.
fn two_best([a, b, c]: [(f32, u8); 3]) -> ([u8; 2], f32) {
    let (mut best, mut next) = if b.0 > a.0 { (b, a) } else { (a, b) };
    if c.0 > best.0 {
        (best, next) = (c, best);
    } else if c.0 > next.0 {
        next = c;
    }
    ([best.1, next.1], best.0 - next.0)
}
