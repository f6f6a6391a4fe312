//! Draws class masks, a legend and status texts on full-size images, in their planes.
//!
//! ```text
//! mask ─▶ grid (cells that the image shows) ─┬─▶ tint: one painted row per cell row ─┬─▶ blend while copying
//! labels ─▶ palette (an ink for each class) ───┴─▶ contour: lines along borders ───────┘         │
//! legend, badge, slate ─▶ canvas (RGB, once) ─▶ patch (planes) ──────────────────────────────▶ target
//! ```
//!
//! Pictures are never converted: a colour becomes YUV once, in the palette, and blending is one multiplication and one
//! addition a sample. [`Mask::index`] decides which mask pixel covers a image pixel; a chroma sample goes with the
//! top left pixel of its 2×2 block.

mod bitmap;
mod contour;
mod grid;
mod labels;
mod legend;
mod palette;
mod row_blend;
mod status;
#[cfg(test)]
mod tests;
mod text;

use self::bitmap::{CachedBitmap, same_picture};
use self::grid::{Cells, Grid, for_each_run};
pub use self::labels::{UnknownLabel, UnknownLabels};
use self::palette::{BlendCoefficients, Palette, to_yuv};
use self::row_blend::{RowBlend, copy_rows};
use crate::config::{OverlayConfig, Style};
use crate::frame::{Colorimetry, Image, ImageMut, Label, Mask, Rgb, VideoInfo};

/// The drawing of one stream: its colours, and buffers that are used again for every frame.
pub struct Overlay {
    style: Style,
    alpha: f32,
    /// By class index; `None` = hidden.
    colors: Vec<Option<Rgb>>,
    /// Visible classes; empty when no legend is wanted.
    legend_classes: Vec<(String, Rgb)>,
    palette: Option<(Colorimetry, Palette)>,
    grid: Grid,
    coat: RowBlend,
    /// Which cells of a row differ from those above or below: the contour's scratch.
    differs: Vec<u8>,
    legend: CachedBitmap<VideoInfo>,
    badge: CachedBitmap<(String, VideoInfo)>,
    slate: CachedBitmap<(Vec<String>, VideoInfo)>,
}

impl Overlay {
    /// Prepares the drawing of masks whose classes are `labels`, the model's.
    ///
    /// # Errors
    /// Lists every label in `hide` and `colors` that the model does not have.
    pub fn new(config: &OverlayConfig, labels: &[Label]) -> Result<Overlay, UnknownLabels> {
        let classes = labels::visible(config, labels)?;
        Ok(Overlay {
            style: config.style,
            alpha: config.alpha,
            colors: classes.iter().map(|class| class.as_ref().map(|(_, color)| *color)).collect(),
            legend_classes: if config.legend { classes.into_iter().flatten().collect() } else { Vec::new() },
            palette: None,
            grid: Grid::default(),
            coat: RowBlend::default(),
            differs: Vec::new(),
            legend: CachedBitmap::default(),
            badge: CachedBitmap::default(),
            slate: CachedBitmap::default(),
        })
    }

    /// As [`Overlay::new`], for labels that the settings were not written for: names that the model does not have do
    /// nothing.
    pub fn lenient(config: &OverlayConfig, labels: &[Label]) -> Overlay {
        let known = |name: &String| labels.iter().any(|label| label.name == *name);
        let mut config = config.clone();
        if let Some(hidden) = &mut config.hide {
            hidden.retain(known);
        }
        config.colors.retain(|(name, _)| known(name));
        Overlay::new(&config, labels).expect("names that the model does not have are taken out")
    }

    /// Copies `source` to `target` and draws `mask` on the way, in one pass over the pixels; then the legend.
    ///
    /// Without a mask (or with one that has too few pixels) the image is a plain copy, or black in style
    /// `mask-only`. Hidden classes and classes that are not in the label list keep the very samples of the source, or
    /// are black in style `mask-only`.
    ///
    /// # Panics
    /// When the images differ in size or format.
    pub fn draw(&mut self, source: &Image<'_>, mask: Option<&Mask>, target: &mut ImageMut<'_>) {
        let info = source.info;
        assert_eq!(
            (info.width, info.height, info.format),
            (target.info.width, target.info.height, target.info.format),
            "images of one shape"
        );
        self.draw_mask(source, mask, target);
        if !self.legend_classes.is_empty() {
            let classes = &self.legend_classes;
            self.legend.blend(|made| same_picture(made, &info), || (info, legend::draw(classes, &info)), target);
        }
    }

    fn draw_mask(&mut self, source: &Image<'_>, mask: Option<&Mask>, target: &mut ImageMut<'_>) {
        let info = source.info;
        self.coat.fit(&info);
        let palette = match self.palette.take() {
            Some(made) if made.0 == info.color => made,
            _ => (info.color, self.new_palette(info.color)),
        };
        let palette = &self.palette.insert(palette).1;
        let cells = mask.and_then(|mask| self.grid.cells(mask, info.width, info.height));
        match (cells, self.style) {
            (Some(cells), Style::Contour) => {
                contour::draw(&cells, palette, &mut self.differs, &mut self.coat, source, target);
            }
            (Some(cells), Style::Tint | Style::MaskOnly) => tint(&cells, palette, &mut self.coat, source, target),
            (None, Style::Tint | Style::Contour) => copy_rows(0..info.height, source, target),
            (None, Style::MaskOnly) => {
                self.coat.paint(0, info.width, &black(info.color));
                self.coat.blend(0..info.height, source, target);
            }
        }
    }

    fn new_palette(&self, color: Colorimetry) -> Palette {
        let (opacity, hidden) = match self.style {
            Style::Tint => (self.alpha, BlendCoefficients::CLEAR),
            // Thin lines need to be about twice as strong as areas to be seen as well.
            Style::Contour => (2.0 * self.alpha, BlendCoefficients::CLEAR),
            Style::MaskOnly => (1.0, black(color)),
        };
        Palette::new(&self.colors, opacity, hidden, color)
    }

    /// Draws a short status text (`STALE 2.1 s`) in the top right corner on an opaque dark box.
    pub fn badge(&mut self, text: &str, target: &mut ImageMut<'_>) {
        let info = target.info;
        self.badge.blend(
            |(made, image)| made == text && same_picture(image, &info),
            || ((text.to_owned(), info), Some(status::badge(text, &info))),
            target,
        );
    }

    /// Draws what viewers see while the camera is away: the last image grey and dark, or plain dark grey when there
    /// is none (or it has another size than `target`), and the lines of text in the middle.
    pub fn slate(&mut self, last: Option<&Image<'_>>, lines: &[String], target: &mut ImageMut<'_>) {
        let info = target.info;
        let last = last.filter(|last| (last.info.width, last.info.height) == (info.width, info.height));
        status::backdrop(last, target);
        self.slate.blend(
            |(made, image)| made == lines && same_picture(image, &info),
            || ((lines.to_vec(), info), status::lines(lines, &info)),
            target,
        );
    }
}

fn black(color: Colorimetry) -> BlendCoefficients {
    BlendCoefficients::new(to_yuv(Rgb(0, 0, 0), color).map(f32::from), 1.0)
}

/// Draws whole areas while copying: paints one row for each cell row, and lays it over all rows that it covers.
fn tint(cells: &Cells<'_>, palette: &Palette, coat: &mut RowBlend, source: &Image<'_>, target: &mut ImageMut<'_>) {
    for row in 0..cells.height() {
        // Equal rows are common in real masks (sky, road): the coat is still right.
        if row == 0 || cells.row(row) != cells.row(row - 1) {
            for_each_run(cells.row(row), |run, class| {
                coat.paint(cells.columns[run.start], cells.columns[run.end], palette.ink(class));
            });
        }
        coat.blend(cells.span(row), source, target);
    }
}
