//! The views of an image that a teacher votes on: the whole image, parts of it, and their mirror images.
//!
//! A view is a rectangle of the image that is scaled to the input of the model. The result of the model is scaled back to the
//! rectangle, so that each view votes on the pixels that it contains.

use std::fmt;
use std::str::FromStr;

use opencv::core::{DataType, Mat, Size as CvSize, Vec3b};
use opencv::imgproc::{INTER_AREA, INTER_LINEAR, INTER_NEAREST_EXACT, resize};
use opencv::prelude::*;
use serde::{Deserialize, Serialize};

use crate::size::Size;

/// Overlap of neighbouring tiles, as a share of their side. Models have less context at the border of a tile.
const OVERLAP: f64 = 0.125;
/// The largest number of tiles along one side, and the largest scale.
const MOST: usize = 16;
/// The grey of the pixels of a view that are outside of the image.
const OUTSIDE: u8 = 127;

/// A rectangle of an image in pixels, of which parts may be outside of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub left: i64,
    pub top: i64,
    pub width: usize,
    pub height: usize,
    /// Whether the model sees the mirror image, left and right exchanged.
    pub mirrored: bool,
}

/// A number of columns and rows of tiles, written `2x2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tiles {
    pub columns: usize,
    pub rows: usize,
}

/// Why a text is not a grid of tiles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not COLUMNSxROWS with numbers from 1 to {MOST}, 2x2 for example")]
pub struct TilesError(String);

impl FromStr for Tiles {
    type Err = TilesError;

    fn from_str(text: &str) -> Result<Self, TilesError> {
        let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=MOST).contains(number));
        let sides = text.split_once(['x', 'X', '×']);
        let tiles = sides.and_then(|(columns, rows)| Some(Tiles { columns: number(columns)?, rows: number(rows)? }));
        tiles.ok_or_else(|| TilesError(text.to_owned()))
    }
}

impl TryFrom<String> for Tiles {
    type Error = TilesError;

    fn try_from(text: String) -> Result<Self, TilesError> {
        text.parse()
    }
}

impl From<Tiles> for String {
    fn from(tiles: Tiles) -> Self {
        tiles.to_string()
    }
}

impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.columns, self.rows)
    }
}

/// Which views of an image vote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewOptions {
    /// Also the mirror image of each view.
    pub flip: bool,
    /// At the scale 1, the whole image is the input of the model. At 1.5, parts of two thirds of its sides are, at 0.5 the
    /// image fills half of the sides of the input.
    pub scales: Vec<f64>,
    /// Grids of tiles, in addition to the scales.
    pub tiles: Vec<Tiles>,
    /// Whether views have the aspect ratio of the model's input. Otherwise they have that of the image, as in the service.
    pub keep_aspect: bool,
}

impl ViewOptions {
    /// One view: the whole image, stretched to the input as in the service.
    pub fn whole() -> Self {
        ViewOptions { flip: false, scales: vec![1.0], tiles: Vec::new(), keep_aspect: false }
    }

    /// Returns a message for each invalid option.
    pub fn problems(&self) -> Vec<String> {
        let wrong = |scale: &&f64| !(0.25..=MOST as f64).contains(*scale);
        let mut problems: Vec<String> = self
            .scales
            .iter()
            .filter(wrong)
            .map(|scale| format!("--scales {scale}: must be from 0.25 to {MOST}"))
            .collect();
        if self.scales.is_empty() && self.tiles.is_empty() {
            problems.push("--scales: pass at least one scale or --tiles".into());
        }
        problems
    }

    /// The views of an image of the size `image` for a model with the input size `input`. Equal views are listed once.
    pub fn views(&self, image: Size, input: Size) -> Vec<View> {
        let mut parts = Vec::new();
        for &scale in &self.scales {
            // A scale of 1.5 needs two parts of two thirds.
            let count = (scale - 1e-6).ceil().max(1.0) as usize;
            let across = Span::even(image.width, image.width as f64 / scale, count);
            parts.extend(grid(&across, &Span::even(image.height, image.height as f64 / scale, count)));
        }
        for tiles in &self.tiles {
            let side = |whole: usize, count: usize| {
                let tile = whole as f64 / (count as f64 - (count - 1) as f64 * OVERLAP);
                Span::even(whole, tile.ceil(), count)
            };
            parts.extend(grid(&side(image.width, tiles.columns), &side(image.height, tiles.rows)));
        }
        let mut views: Vec<View> = Vec::new();
        for (mut across, mut down) in parts {
            if self.keep_aspect {
                let aspect = input.width as f64 / input.height as f64;
                across = across.grown(image.width, down.length as f64 * aspect);
                down = down.grown(image.height, across.length as f64 / aspect);
            }
            let view = View {
                left: across.start,
                top: down.start,
                width: across.length,
                height: down.length,
                mirrored: false,
            };
            for mirrored in [false, true].into_iter().take(1 + usize::from(self.flip)) {
                let view = View { mirrored, ..view };
                if !views.contains(&view) {
                    views.push(view);
                }
            }
        }
        views
    }
}

/// The pixels of a view along one axis.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: i64,
    length: usize,
}

impl Span {
    /// `count` spans of the same length, the first at the start and the last at the end of `whole` pixels; one span is in the
    /// middle.
    fn even(whole: usize, length: f64, count: usize) -> Vec<Span> {
        let length = (length.round() as usize).max(1);
        let rest = whole as i64 - length as i64;
        let start = |n: usize| match count {
            1 => rest.div_euclid(2),
            count => (rest as f64 * n as f64 / (count - 1) as f64).round() as i64,
        };
        (0..count).map(|n| Span { start: start(n), length }).collect()
    }

    /// The span enlarged to `length` if it is shorter, within `whole` pixels if they are enough, else around them.
    fn grown(self, whole: usize, length: f64) -> Span {
        let length = length.round() as usize;
        if length <= self.length {
            return self;
        }
        let rest = whole as i64 - length as i64;
        let start = self.start - (length - self.length) as i64 / 2;
        Span { start: if rest >= 0 { start.clamp(0, rest) } else { rest.div_euclid(2) }, length }
    }
}

fn grid(across: &[Span], down: &[Span]) -> Vec<(Span, Span)> {
    down.iter().flat_map(|&row| across.iter().map(move |&column| (column, row))).collect()
}

/// The pixels of a view in one row of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewRow {
    /// The first pixel, as an index into the pixels of the image and into those of the view.
    pub image: usize,
    pub view: usize,
    pub length: usize,
}

impl View {
    /// The rows of the view that are in the image.
    pub fn rows(&self, image: Size) -> impl Iterator<Item = ViewRow> + use<> {
        let View { left, top, width, height, .. } = *self;
        let (first, last) = (left.max(0), (left + width as i64).min(image.width as i64));
        let rows = top.max(0)..(top + height as i64).min(image.height as i64);
        let length = (last - first).max(0) as usize;
        rows.map(move |row| ViewRow {
            image: row as usize * image.width + first as usize,
            view: (row - top) as usize * width + (first - left) as usize,
            length,
        })
    }

    /// Scales the view of an RGB image to the input of a model.
    ///
    /// # Errors
    /// Errors of OpenCV.
    pub fn cut(&self, rgb: &[u8], image: Size, input: Size) -> opencv::Result<Vec<u8>> {
        let mut part = vec![OUTSIDE; 3 * self.width * self.height];
        for row in self.rows(image) {
            part[3 * row.view..][..3 * row.length].copy_from_slice(&rgb[3 * row.image..][..3 * row.length]);
        }
        let mut pixels = part.as_chunks::<3>().0.to_vec();
        self.mirror(&mut pixels);
        let own = Size::new(self.width, self.height);
        if own == input {
            return Ok(pixels.into_flattened());
        }
        let shrink = (self.width as f64 / input.width as f64).max(self.height as f64 / input.height as f64);
        let how = if shrink > 1.5 { INTER_AREA } else { INTER_LINEAR };
        let view = Mat::new_rows_cols_with_bytes::<Vec3b>(own.height as i32, own.width as i32, pixels.as_flattened())?;
        let mut scaled = Mat::default();
        resize(&view, &mut scaled, CvSize::new(input.width as i32, input.height as i32), 0.0, 0.0, how)?;
        Ok(scaled.data_bytes()?.to_vec())
    }

    /// Scales values that the model returned for the view, one a pixel, to the pixels of the view: to the nearest pixel.
    ///
    /// # Errors
    /// Errors of OpenCV.
    pub fn place_nearest<T: DataType + Copy>(&self, values: &[T], of: Size) -> opencv::Result<Vec<T>> {
        self.place(values, of, INTER_NEAREST_EXACT)
    }

    /// Scales values that the model returned for the view, one a pixel, to the pixels of the view: by interpolation.
    ///
    /// # Errors
    /// Errors of OpenCV.
    pub fn place_linear(&self, values: &[f32], of: Size) -> opencv::Result<Vec<f32>> {
        self.place(values, of, INTER_LINEAR)
    }

    fn place<T: DataType + Copy>(&self, values: &[T], of: Size, how: i32) -> opencv::Result<Vec<T>> {
        let own = Size::new(self.width, self.height);
        let mut placed = if of == own {
            values.to_vec()
        } else {
            let source = Mat::new_rows_cols_with_data(of.height as i32, of.width as i32, values)?;
            let mut scaled = Mat::default();
            resize(&source, &mut scaled, CvSize::new(own.width as i32, own.height as i32), 0.0, 0.0, how)?;
            scaled.data_typed::<T>()?.to_vec()
        };
        self.mirror(&mut placed);
        Ok(placed)
    }

    /// Exchanges left and right if the view is mirrored.
    fn mirror<T>(&self, pixels: &mut [T]) {
        if self.mirrored {
            pixels.chunks_exact_mut(self.width).for_each(<[T]>::reverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(scales: &[f64], tiles: &[&str]) -> ViewOptions {
        let tiles = tiles.iter().map(|text| text.parse().unwrap()).collect();
        ViewOptions { flip: false, scales: scales.to_vec(), tiles, keep_aspect: false }
    }

    fn rectangles(views: &[View]) -> Vec<(i64, i64, usize, usize)> {
        views.iter().map(|view| (view.left, view.top, view.width, view.height)).collect()
    }

    #[test]
    fn scales_and_tiles_cover_the_image() {
        let (image, input) = (Size::new(300, 120), Size::new(64, 32));
        let views = |scales: &[f64], tiles: &[&str]| rectangles(&options(scales, tiles).views(image, input));
        assert_eq!(views(&[1.0], &[]), [(0, 0, 300, 120)]);
        assert_eq!(views(&[1.5], &[]), [(0, 0, 200, 80), (100, 0, 200, 80), (0, 40, 200, 80), (100, 40, 200, 80)]);
        assert_eq!(views(&[0.5], &[]), [(-150, -60, 600, 240)]);
        assert_eq!(views(&[], &["2x1"]), [(0, 0, 160, 120), (140, 0, 160, 120)], "an overlap of 20 pixels, an eighth");
        assert_eq!(views(&[1.0, 1.0], &["1x1"]), [(0, 0, 300, 120)], "equal views");
        for (scales, tiles) in [(&[1.7, 3.0][..], &[][..]), (&[], &["3x2"]), (&[1.0], &["4x4"])] {
            let all = options(scales, tiles).views(image, input);
            let mut seen = vec![0; image.area()];
            all.iter().flat_map(|view| view.rows(image)).for_each(|row| {
                seen[row.image..][..row.length].iter_mut().for_each(|count| *count += 1);
            });
            assert!(seen.iter().all(|&count| count > 0), "{scales:?} {tiles:?}");
        }
    }

    #[test]
    fn flips_double_the_views() {
        let flipped = ViewOptions { flip: true, ..options(&[1.0, 1.5], &["2x2"]) };
        let views = flipped.views(Size::new(300, 120), Size::new(64, 32));
        assert_eq!((views.len(), views.iter().filter(|view| view.mirrored).count()), (18, 9));
    }

    #[test]
    fn views_can_have_the_aspect_ratio_of_the_input() {
        let kept = ViewOptions { keep_aspect: true, ..options(&[1.0, 2.0], &[]) };
        // The whole image with a border at its sides; parts of half of the height within the image.
        let views = kept.views(Size::new(100, 200), Size::new(64, 32));
        assert_eq!(rectangles(&views), [(-150, 0, 400, 200), (-50, 0, 200, 100), (-50, 100, 200, 100)]);
        let views = kept.views(Size::new(200, 100), Size::new(64, 32));
        assert_eq!(rectangles(&views)[0], (0, 0, 200, 100));
        let square = rectangles(&kept.views(Size::new(400, 300), Size::new(32, 32)));
        assert_eq!(square[..2], [(0, -50, 400, 400), (0, 0, 200, 200)], "moved into the image");
        assert_eq!(square[3], (0, 100, 200, 200));
    }

    #[test]
    fn a_view_is_placed_where_it_was_cut() {
        let image = Size::new(5, 4);
        let reds: Vec<u8> = (0..20).collect();
        let rgb: Vec<u8> = reds.iter().flat_map(|&red| [red, 100, 200]).collect();
        for (left, top) in [(1, 2), (-2, -1), (3, 3)] {
            for mirrored in [false, true] {
                let view = View { left, top, width: 4, height: 3, mirrored };
                let size = Size::new(4, 3);
                let cut = view.cut(&rgb, image, size).unwrap();
                let seen: Vec<u8> = cut.chunks_exact(3).map(|pixel| pixel[0]).collect();
                if (left, top) == (1, 2) {
                    let first = if mirrored { [14, 13, 12, 11] } else { [11, 12, 13, 14] };
                    assert_eq!(seen[..4], first);
                }
                let placed = view.place_nearest(&seen, size).unwrap();
                for row in view.rows(image) {
                    assert_eq!(placed[row.view..][..row.length], reds[row.image..][..row.length], "{view:?}");
                }
                let outside = seen.iter().filter(|&&red| red == OUTSIDE).count();
                let inside: usize = view.rows(image).map(|row| row.length).sum();
                assert_eq!(outside + inside, 12, "{view:?}");
            }
        }
    }

    #[test]
    fn results_of_another_size_are_scaled() {
        let view = View { left: 0, top: 0, width: 4, height: 2, mirrored: true };
        assert_eq!(view.place_nearest(&[1u8, 2], Size::new(2, 1)).unwrap(), [2, 2, 1, 1, 2, 2, 1, 1]);
        assert_eq!(view.place_linear(&[0.0, 1.0], Size::new(2, 1)).unwrap()[..4], [1.0, 0.75, 0.25, 0.0]);
    }

    #[test]
    fn wrong_options_are_reported() {
        assert_eq!("3x2".parse(), Ok(Tiles { columns: 3, rows: 2 }));
        for text in ["2", "0x2", "2x17", "2x-1", "x"] {
            assert_eq!(text.parse::<Tiles>(), Err(TilesError(text.into())));
        }
        assert!(options(&[1.0], &[]).problems().is_empty());
        assert_eq!(options(&[0.1, f64::NAN, 17.0], &[]).problems().len(), 3);
        assert_eq!(options(&[], &[]).problems().len(), 1);
    }
}
