//! Labels that are outlines or masks in a text file (COCO, labelme, YOLO), drawn into label pictures when they are read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::raw::{self, Pixels, Raw};
use super::{Pair, picture};

pub mod polygon;
pub mod rle;

use rle::Runs;

/// What covers an area.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Points x and y, in pixels or in shares of the picture's sides; see [`Drawing::shares`].
    Polygon(Vec<[f32; 2]>),
    Runs(Runs),
    /// Pixels `[height, width]` with the upper left one at `left`, `top`.
    Mask {
        left: usize,
        top: usize,
        width: usize,
        height: usize,
        inside: Vec<bool>,
    },
}

/// An area of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Area {
    /// Its number in the drawn picture.
    pub value: u8,
    pub shape: Shape,
}

/// The label of one picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawing {
    /// Width and height that the file says; else those of the picture as it is seen.
    pub size: Option<(usize, usize)>,
    /// Whether polygons are in shares of the sides.
    pub shares: bool,
    /// In the order in which they are drawn: later ones cover earlier ones. What none covers is 0.
    pub areas: Vec<Area>,
}

impl Drawing {
    fn draw(&self, width: usize, height: usize) -> Result<Raw, String> {
        let mut values = vec![0u8; width * height];
        let scale = if self.shares { [width as f32, height as f32] } else { [1.0, 1.0] };
        for Area { value, shape } in &self.areas {
            match shape {
                Shape::Polygon(points) => {
                    let points: Vec<[f32; 2]> = points.iter().map(|[x, y]| [x * scale[0], y * scale[1]]).collect();
                    polygon::fill(&points, width, height, |row, run| values[row * width..][run].fill(*value));
                }
                Shape::Runs(runs) if (runs.width, runs.height) != (width, height) => {
                    return Err(format!(
                        "run lengths are of {}x{} pixels, but the picture has {width}x{height}",
                        runs.width, runs.height
                    ));
                }
                Shape::Runs(runs) => runs.pixels().for_each(|at| values[at] = *value),
                Shape::Mask { left, top, width: w, height: h, inside } => {
                    for y in 0..(*h).min(height.saturating_sub(*top)) {
                        for x in 0..(*w).min(width.saturating_sub(*left)) {
                            if inside[y * w + x] {
                                values[(top + y) * width + left + x] = *value;
                            }
                        }
                    }
                }
            }
        }
        Ok(Raw { width, height, pixels: Pixels::Gray(values) })
    }
}

/// How the label of a picture is had.
#[derive(Clone, Debug, Default)]
pub enum Labels {
    /// It is a picture itself.
    #[default]
    Pictures,
    /// It is drawn; by the picture's path.
    Drawn(HashMap<PathBuf, Drawing>),
}

impl Labels {
    pub fn are_drawn(&self) -> bool {
        matches!(self, Labels::Drawn(_))
    }

    /// The label of a pair, as its file has it.
    ///
    /// # Errors
    /// When the file cannot be read, or the size of the picture is needed and cannot be had.
    pub fn read(&self, pair: &Pair) -> Result<Raw, DataError> {
        match self.drawing(&pair.image) {
            None => raw::read(&pair.label),
            Some(drawing) => {
                let (width, height) = drawing.size.map_or_else(|| picture::size(&pair.image), Ok)?;
                drawing.draw(width, height).map_err(|problem| DataError::label(&pair.label, problem))
            }
        }
    }

    /// Width and height of a pair's label; no more of the file is read than need be.
    ///
    /// # Errors
    /// As [`Labels::read`].
    pub fn size(&self, pair: &Pair) -> Result<(usize, usize), DataError> {
        match self.drawing(&pair.image) {
            None => picture::stored_size(&pair.label),
            Some(drawing) => drawing.size.map_or_else(|| picture::size(&pair.image), Ok),
        }
    }

    fn drawing(&self, image: &Path) -> Option<&Drawing> {
        match self {
            Labels::Pictures => None,
            Labels::Drawn(drawings) => drawings.get(image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(drawing: &Drawing, width: usize, height: usize) -> Vec<u8> {
        let Pixels::Gray(values) = drawing.draw(width, height).unwrap().pixels else { panic!("numbers") };
        values
    }

    #[test]
    fn later_areas_cover_earlier_ones() {
        let square = |value, [x0, y0]: [f32; 2], [x1, y1]: [f32; 2]| Area {
            value,
            shape: Shape::Polygon(vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),
        };
        let areas = vec![square(1, [0.0, 0.0], [3.0, 1.0]), square(2, [2.0, 0.0], [4.0, 2.0])];
        assert_eq!(values(&Drawing { areas, ..Drawing::default() }, 4, 2), [1, 1, 2, 2, 0, 0, 2, 2]);
        let areas = vec![square(1, [0.5, 0.0], [1.0, 0.5])];
        assert_eq!(values(&Drawing { areas, shares: true, size: None }, 4, 2), [0, 0, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn masks_are_laid_where_they_belong_and_cut_off_at_the_border() {
        let inside = vec![true, false, true, true];
        let shape = Shape::Mask { left: 2, top: 1, width: 2, height: 2, inside };
        assert_eq!(
            values(&Drawing { areas: vec![Area { value: 3, shape }], ..Drawing::default() }, 3, 2),
            [0, 0, 0, 0, 0, 3]
        );
        let runs = Area { value: 1, shape: Shape::Runs(Runs::new([2, 2], vec![1, 3]).unwrap()) };
        let drawing = Drawing { areas: vec![runs], ..Drawing::default() };
        assert_eq!(values(&drawing, 2, 2), [0, 1, 1, 1]);
        assert!(drawing.draw(3, 2).unwrap_err().contains("2x2 pixels, but the picture has 3x2"));
    }
}
