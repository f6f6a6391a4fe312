//! Draws labels from annotation files (COCO, labelme, YOLO) when they are read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::{DataError, LabelError};
use super::raw::{self, RawLabel, RawPixels};
use super::{Pair, image};

pub mod polygon;
pub mod rle;

use rle::RunLengths;

/// The shape of an area.
#[derive(Clone, Debug, PartialEq)]
pub enum AreaShape {
    /// Points x, y, in pixels or relative to the image's width and height; see [`LabelDrawing::relative`].
    Polygon(Vec<[f32; 2]>),
    RunLengths(RunLengths),
    /// A mask `[height, width]` whose upper left pixel is at `left`, `top`.
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
pub struct LabelArea {
    /// The class's number in the drawn label.
    pub value: u8,
    pub shape: AreaShape,
}

/// The annotated areas of one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelDrawing {
    /// Width and height as given in the annotation file. If `None`, those of the image after EXIF rotation.
    pub size: Option<(usize, usize)>,
    /// Whether the points of polygons are relative to width and height, 0 to 1.
    pub relative: bool,
    /// In drawing order: later areas cover earlier ones. Pixels in no area are 0.
    pub areas: Vec<LabelArea>,
}

impl LabelDrawing {
    /// Draws the label.
    ///
    /// # Errors
    /// If run lengths describe another size.
    pub fn draw(&self, width: usize, height: usize) -> Result<RawLabel, LabelError> {
        let mut values = vec![0u8; width * height];
        let scale = if self.relative { [width as f32, height as f32] } else { [1.0, 1.0] };
        for LabelArea { value, shape } in &self.areas {
            match shape {
                AreaShape::Polygon(points) => {
                    let points: Vec<[f32; 2]> = points.iter().map(|[x, y]| [x * scale[0], y * scale[1]]).collect();
                    polygon::fill(&points, width, height, |row, run| values[row * width..][run].fill(*value));
                }
                AreaShape::RunLengths(runs) if (runs.width, runs.height) != (width, height) => {
                    let run_lengths = (runs.width, runs.height);
                    return Err(LabelError::RunLengthsSize { run_lengths, image: (width, height) });
                }
                AreaShape::RunLengths(runs) => runs.pixels().for_each(|at| values[at] = *value),
                AreaShape::Mask { left, top, width: w, height: h, inside } => {
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
        Ok(RawLabel { width, height, pixels: RawPixels::Gray(values) })
    }
}

/// Where the labels of a data set come from.
#[derive(Clone, Debug, Default)]
pub enum LabelSource {
    /// Label images.
    #[default]
    Files,
    /// Annotations, by the image's path.
    Annotations(HashMap<PathBuf, LabelDrawing>),
}

impl LabelSource {
    pub fn are_drawn(&self) -> bool {
        matches!(self, LabelSource::Annotations(_))
    }

    /// Reads the label of a pair, with the values of its file.
    ///
    /// # Errors
    /// If the file cannot be read, or the size of the image is needed and cannot be read.
    pub fn read(&self, pair: &Pair) -> Result<RawLabel, DataError> {
        match self.drawing(&pair.image) {
            None => raw::read(&pair.label),
            Some(drawing) => {
                let (width, height) = drawing.size.map_or_else(|| image::size(&pair.image), Ok)?;
                drawing.draw(width, height).map_err(|problem| DataError::label(&pair.label, problem))
            }
        }
    }

    /// Returns width and height of a pair's label. Reads only the header where the format allows it.
    ///
    /// # Errors
    /// As [`LabelSource::read`].
    pub fn size(&self, pair: &Pair) -> Result<(usize, usize), DataError> {
        match self.drawing(&pair.image) {
            None => image::stored_size(&pair.label),
            Some(drawing) => drawing.size.map_or_else(|| image::size(&pair.image), Ok),
        }
    }

    fn drawing(&self, image: &Path) -> Option<&LabelDrawing> {
        match self {
            LabelSource::Files => None,
            LabelSource::Annotations(drawings) => drawings.get(image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(drawing: &LabelDrawing, width: usize, height: usize) -> Vec<u8> {
        let RawPixels::Gray(values) = drawing.draw(width, height).unwrap().pixels else { panic!("numbers") };
        values
    }

    #[test]
    fn later_areas_cover_earlier_ones() {
        let square = |value, [x0, y0]: [f32; 2], [x1, y1]: [f32; 2]| LabelArea {
            value,
            shape: AreaShape::Polygon(vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),
        };
        let areas = vec![square(1, [0.0, 0.0], [3.0, 1.0]), square(2, [2.0, 0.0], [4.0, 2.0])];
        assert_eq!(values(&LabelDrawing { areas, ..LabelDrawing::default() }, 4, 2), [1, 1, 2, 2, 0, 0, 2, 2]);
        let areas = vec![square(1, [0.5, 0.0], [1.0, 0.5])];
        assert_eq!(values(&LabelDrawing { areas, relative: true, size: None }, 4, 2), [0, 0, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn masks_are_placed_and_clipped_at_the_border() {
        let inside = vec![true, false, true, true];
        let shape = AreaShape::Mask { left: 2, top: 1, width: 2, height: 2, inside };
        assert_eq!(
            values(&LabelDrawing { areas: vec![LabelArea { value: 3, shape }], ..LabelDrawing::default() }, 3, 2),
            [0, 0, 0, 0, 0, 3]
        );
        let runs = LabelArea { value: 1, shape: AreaShape::RunLengths(RunLengths::new([2, 2], vec![1, 3]).unwrap()) };
        let drawing = LabelDrawing { areas: vec![runs], ..LabelDrawing::default() };
        assert_eq!(values(&drawing, 2, 2), [0, 1, 1, 1]);
        let error = drawing.draw(3, 2).unwrap_err();
        assert!(matches!(error, LabelError::RunLengthsSize { run_lengths: (2, 2), image: (3, 2) }), "{error}");
    }
}
