//! Draws the regions of Label Studio.

use std::path::Path;

use super::super::DataError;
use super::super::drawing::{AreaShape, LabelArea, LabelDrawing};
use super::brush;
use super::error::ExchangeError;

/// The regions of an image in drawing order, with the size that they were drawn in.
pub struct BrushMask {
    pub size: (usize, usize),
    pub regions: Vec<Region>,
}

pub struct Region {
    /// The class's place in the file, plus 1.
    pub value: u8,
    pub shape: RegionShape,
}

pub enum RegionShape {
    Brush(Vec<u8>),
    /// In percent of the image's width and height.
    Polygon(Vec<[f32; 2]>),
}

impl BrushMask {
    /// Draws the mask: width, height, and n for the class n - 1.
    ///
    /// # Errors
    /// A brush mask is damaged.
    pub fn draw(self, path: &Path, image: &str) -> Result<(usize, usize, Vec<u8>), ExchangeError> {
        let (width, height) = self.size;
        let mut areas = Vec::new();
        for Region { value, shape } in self.regions {
            let shape = match shape {
                RegionShape::Brush(bytes) => {
                    let inside = brush::decode(&bytes, width, height)
                        .map_err(|error| ExchangeError::format(path, format!("{image}: {error}")))?;
                    AreaShape::Mask { left: 0, top: 0, width, height, inside }
                }
                RegionShape::Polygon(points) => {
                    AreaShape::Polygon(points.into_iter().map(|[x, y]| [x / 100.0, y / 100.0]).collect())
                }
            };
            areas.push(LabelArea { value, shape });
        }
        let drawing = LabelDrawing { size: None, relative: true, areas };
        let raw = drawing.draw(width, height).map_err(|problem| DataError::label(path, problem))?;
        Ok((width, height, raw.into_numbers()))
    }
}
