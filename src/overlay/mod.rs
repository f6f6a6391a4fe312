//! Draws class masks, a legend and status texts on full-size images, in their planes.
//!
//! ```text
//! mask ─▶ grid (visible mask cells) ────────┬─▶ edges: areas or lines with smooth edges ─┬─▶ blend while copying
//! labels ─▶ palette (coefficients a class) ─┴─▶ tint, contour: when pixels are few ──────┘         │
//! legend, badge, slate ─▶ canvas (RGB, once) ─▶ bitmap (planes) ─────────────────────────────────▶ target
//! ```
//!
//! `edges` needs an image that is at least as large as the mask, and for lines about two pixels a mask cell.
//!
//! Frames are never converted to RGB: colours are converted to YUV once, in the palette, and blending is one multiplication
//! and one addition for each sample. [`Mask::index`] determines which mask pixel covers an image pixel; a chroma sample uses
//! the top left pixel of its 2×2 block.

mod bitmap;
mod contour;
mod edges;
mod grid;
mod labels;
mod legend;
mod mix;
mod output_image;
mod palette;
mod presence;
mod row_blend;
mod status;
#[cfg(test)]
mod tests;
mod text;

use self::bitmap::{CachedBitmap, same_format};
use self::edges::{Edges, Paint, Scene};
use self::grid::{Cells, Grid, for_each_run};
pub use self::labels::{UnknownLabel, UnknownLabels};
use self::legend::Legend;
pub use self::output_image::OutputImage;
use self::palette::{BlendCoefficients, Palette, to_yuv};
use self::row_blend::{RowBlend, copy_rows};
use crate::config::{OverlayConfig, Style};
use crate::frame::{Colorimetry, Image, ImageMut, Label, Mask, Rgb, VideoInfo, Weight};

/// Draws the masks of one stream: its colours, and buffers that are reused for every frame.
pub struct Overlay {
    style: Style,
    alpha: f32,
    /// Colour and weight of each class; `None` for a hidden class.
    classes: Vec<Option<(Rgb, Weight)>>,
    palette: Option<(Colorimetry, Palette)>,
    grid: Grid,
    row_blend: RowBlend,
    edges: Edges,
    /// Marks the cells of a row that differ from those above or below; a buffer of the contour style.
    differs: Vec<u8>,
    legend: Legend,
    badge: CachedBitmap<(String, VideoInfo)>,
    slate: CachedBitmap<(Vec<String>, VideoInfo)>,
}

impl Overlay {
    /// Creates the overlay for a model with these labels.
    ///
    /// # Errors
    /// All names in `hide`, `colors` and `weights` that the model does not have.
    pub fn new(config: &OverlayConfig, labels: &[Label]) -> Result<Overlay, UnknownLabels> {
        let classes = labels::visible(config, labels)?;
        Ok(Overlay {
            style: config.style,
            alpha: config.alpha,
            classes: classes.iter().map(|class| class.as_ref().map(|class| (class.color, class.weight))).collect(),
            palette: None,
            grid: Grid::default(),
            row_blend: RowBlend::default(),
            edges: Edges::default(),
            differs: Vec::new(),
            legend: Legend::new(config.legend, &classes),
            badge: CachedBitmap::default(),
            slate: CachedBitmap::default(),
        })
    }

    /// As [`Overlay::new`], but ignores names that the model does not have.
    pub fn ignoring_unknown_labels(config: &OverlayConfig, labels: &[Label]) -> Overlay {
        let is_known = |name: &String| labels.iter().any(|label| label.name == *name);
        let mut config = config.clone();
        if let Some(hidden) = &mut config.hide {
            hidden.retain(is_known);
        }
        config.colors.retain(|(name, _)| is_known(name));
        config.weights.retain(|(name, _)| is_known(name));
        Overlay::new(&config, labels).expect("unknown names were removed")
    }

    /// Copies `source` to `target` and blends `mask` into it in one pass over the pixels, then draws the legend.
    ///
    /// Without a mask (or with one that has too few pixels), `target` is a copy of `source`, or black in style `mask-only`.
    /// Hidden classes and classes without a label keep the samples of `source`, or are black in style `mask-only`.
    ///
    /// # Panics
    /// `source` and `target` differ in size or format.
    pub fn draw(&mut self, source: &Image<'_>, mask: Option<&Mask>, target: &mut ImageMut<'_>) {
        let info = source.info;
        assert_eq!(
            (info.width, info.height, info.format),
            (target.info.width, target.info.height, target.info.format),
            "source and target have the same size and format"
        );
        self.draw_mask(Some(source), mask, info.color, target);
        self.legend.draw(mask, target);
    }

    /// The same, of an image with these colours that is already in `target`.
    pub fn draw_over(&mut self, color: Colorimetry, mask: Option<&Mask>, target: &mut ImageMut<'_>) {
        self.draw_mask(None, mask, color, target);
        self.legend.draw(mask, target);
    }

    /// Without a source, the samples of `target` are blended.
    fn draw_mask(
        &mut self,
        source: Option<&Image<'_>>,
        mask: Option<&Mask>,
        color: Colorimetry,
        target: &mut ImageMut<'_>,
    ) {
        let info = VideoInfo { color, ..target.info };
        self.row_blend.fit(&info);
        let palette = match self.palette.take() {
            Some(made) if made.0 == info.color => made,
            _ => (info.color, self.new_palette(info.color)),
        };
        let palette = &self.palette.insert(palette).1;
        let cells = mask.and_then(|mask| self.grid.cells(mask, info.width, info.height));
        let paint = cells.as_ref().and_then(|cells| match self.style {
            _ if !cells.are_complete() => None,
            Style::Tint | Style::MaskOnly => Some(Paint::areas(cells)),
            Style::Contour => Paint::lines(cells, info.height),
        });
        match (cells, self.style) {
            (Some(cells), style) => match (paint, style) {
                (Some(paint), _) => {
                    let scene = Scene { cells: &cells, palette, paint };
                    self.edges.draw(&scene, &mut self.row_blend, source, target);
                }
                (None, Style::Contour) => {
                    contour::draw(&cells, palette, &mut self.differs, &mut self.row_blend, source, target);
                }
                (None, Style::Tint | Style::MaskOnly) => tint(&cells, palette, &mut self.row_blend, source, target),
            },
            (None, Style::Tint | Style::Contour) => copy_rows(0..info.height, source, target),
            (None, Style::MaskOnly) => {
                self.row_blend.set(0, info.width, &black(info.color));
                self.row_blend.blend(0..info.height, source, target);
            }
        }
    }

    fn new_palette(&self, color: Colorimetry) -> Palette {
        let hidden = if self.style == Style::MaskOnly { black(color) } else { BlendCoefficients::CLEAR };
        let opacity = |weight: Weight| match self.style {
            Style::Tint => self.alpha * weight.get() as f32,
            // Thin lines need about twice the opacity of areas to be as visible: that of two layers, which is also opaque
            // only at 1.
            Style::Contour => {
                let transparency = 1.0 - self.alpha * weight.get() as f32;
                1.0 - transparency * transparency
            }
            Style::MaskOnly => 1.0,
        };
        let drawn: Vec<Option<(Rgb, f32)>> =
            self.classes.iter().map(|class| class.map(|(color, weight)| (color, opacity(weight)))).collect();
        Palette::new(&drawn, hidden, color)
    }

    /// Draws a short status text (`STALE 2.1 s`) in the top right corner on an opaque dark box.
    pub fn badge(&mut self, text: &str, target: &mut ImageMut<'_>) {
        let info = target.info;
        self.badge.blend(
            |(made, image)| made == text && same_format(image, &info),
            || ((text.to_owned(), info), Some(status::badge(text, &info))),
            target,
        );
    }

    /// Draws lines of text in the middle.
    pub fn notice(&mut self, lines: &[String], target: &mut ImageMut<'_>) {
        let info = target.info;
        self.slate.blend(
            |(made, image)| made == lines && same_format(image, &info),
            || ((lines.to_vec(), info), status::lines(lines, &info)),
            target,
        );
    }

    /// Draws the slate that viewers see while the source has no frames: the last frame in dark grey, or plain dark grey when
    /// there is no last frame (or it differs in size from `target`), with the lines of text in the middle.
    pub fn slate(&mut self, last: Option<&Image<'_>>, lines: &[String], target: &mut ImageMut<'_>) {
        let info = target.info;
        let last = last.filter(|last| (last.info.width, last.info.height) == (info.width, info.height));
        status::backdrop(last, target);
        self.notice(lines, target);
    }
}

fn black(color: Colorimetry) -> BlendCoefficients {
    BlendCoefficients::new(to_yuv(Rgb(0, 0, 0), color).map(f32::from), 1.0)
}

/// Blends whole areas with the samples of `source`, or with those in `target` if `source` is `None`. Sets the coefficients once for
/// each cell row, and blends all pixel rows of the cell row.
fn tint(
    cells: &Cells<'_>,
    palette: &Palette,
    row_blend: &mut RowBlend,
    source: Option<&Image<'_>>,
    target: &mut ImageMut<'_>,
) {
    for row in 0..cells.height() {
        // Consecutive rows of real masks are often equal (sky, road): the coefficients are unchanged then.
        if row == 0 || cells.row(row) != cells.row(row - 1) {
            for_each_run(cells.row(row), |run, class| {
                row_blend.set(cells.columns[run.start], cells.columns[run.end], palette.coefficients(class));
            });
        }
        row_blend.blend(cells.span(row), source, target);
    }
}
