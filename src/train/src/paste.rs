//! Pastes small objects from other images (Ghiasi et al., *Simple Copy-Paste is a Strong Data Augmentation Method for Instance
//! Segmentation*, CVPR 2021), so that a model sees more objects that are far away, in front of every kind of background.

use opencv::core::{Mat, Rect, Size as CvSize, Vec3b};
use opencv::imgproc::{INTER_AREA, resize};
use opencv::prelude::*;
use rand::RngExt;

use super::components::{Component, Components};
use super::data::LabelledImage;
use super::random::Rng;

/// The heights of pasted objects in pixels of the crop.
const HEIGHTS: std::ops::Range<f64> = 12.0..72.0;

/// Maximum number of objects that are pasted into an image.
const MOST: usize = 4;

/// Pixels that an object needs in its image.
const LEAST_AREA: usize = 150;

/// An object: its pixels, and where they are opaque.
struct Object {
    class: u8,
    width: usize,
    height: usize,
    /// `[height, width, 3]`
    rgb: Vec<u8>,
    /// `[height, width]`, 0 or 1.
    opaque: Vec<f32>,
}

/// Pastes one to four objects of `classes` from `other` into `piece`, smaller than they are there. Nothing is pasted if the
/// other image has none.
///
/// # Errors
/// Errors of OpenCV.
pub fn paste(piece: &mut LabelledImage, other: &LabelledImage, classes: &[u8], rng: &mut Rng) -> opencv::Result<()> {
    let objects = objects_of(other, classes);
    if objects.is_empty() {
        return Ok(());
    }
    for _ in 0..rng.random_range(1..=MOST) {
        let object = &objects[rng.random_range(0..objects.len())];
        // The logarithm of the height is uniform: there are more small objects than large ones in a picture.
        let height = (HEIGHTS.start.ln() + (HEIGHTS.end / HEIGHTS.start).ln() * rng.random::<f64>()).exp();
        let scale = height / object.height as f64;
        let (width, height) = ((object.width as f64 * scale).round() as usize, height.round() as usize);
        let (left, top) = (rng.random::<f64>(), rng.random::<f64>());
        if scale < 1.0 && width > 1 && width < piece.width && height < piece.height {
            let left = ((piece.width - width) as f64 * left) as usize;
            let top = ((piece.height - height) as f64 * top) as usize;
            draw(object, piece, Rect::new(left as i32, top as i32, width as i32, height as i32))?;
        }
    }
    Ok(())
}

/// The connected areas of these classes that are large enough and are not cut off by the border of the image.
fn objects_of(image: &LabelledImage, classes: &[u8]) -> Vec<Object> {
    if !image.labels.iter().any(|label| classes.contains(label)) {
        return Vec::new();
    }
    let components = Components::of(&image.labels, image.width);
    let mut columns = vec![(usize::MAX, 0); components.list.len()];
    for (at, &number) in components.of_pixel.iter().enumerate() {
        let (left, right) = &mut columns[number as usize];
        (*left, *right) = ((*left).min(at % image.width), (*right).max(at % image.width));
    }
    let object = |(number, (component, &(left, right))): (usize, (&Component, &(usize, usize)))| {
        let is_cut =
            left == 0 || component.top == 0 || right + 1 == image.width || component.bottom + 1 == image.height;
        if !classes.contains(&component.label) || component.area < LEAST_AREA || is_cut {
            return None;
        }
        let rows =
            || (component.top..=component.bottom).map(|row| row * image.width + left..row * image.width + right + 1);
        let is_own = |&of: &u32| f32::from(u8::from(of as usize == number));
        Some(Object {
            class: component.label,
            width: right + 1 - left,
            height: component.height(),
            rgb: rows().flat_map(|row| &image.rgb[3 * row.start..3 * row.end]).copied().collect(),
            opaque: rows().flat_map(|row| &components.of_pixel[row]).map(is_own).collect(),
        })
    };
    components.list.iter().zip(&columns).enumerate().filter_map(object).collect()
}

/// Draws an object, scaled to `place`, with smooth edges. Pixels that it covers by half or more get its class.
fn draw(object: &Object, piece: &mut LabelledImage, place: Rect) -> opencv::Result<()> {
    let size = CvSize::new(place.width, place.height);
    let (mut rgb, mut opaque) = (Mat::default(), Mat::default());
    let (rows, cols) = (object.height as i32, object.width as i32);
    resize(&Mat::new_rows_cols_with_bytes::<Vec3b>(rows, cols, &object.rgb)?, &mut rgb, size, 0.0, 0.0, INTER_AREA)?;
    let mask = Mat::new_rows_cols_with_data::<f32>(rows, cols, &object.opaque)?;
    resize(&mask, &mut opaque, size, 0.0, 0.0, INTER_AREA)?;
    for row in 0..place.height {
        let (colours, shares) = (rgb.at_row::<Vec3b>(row)?, opaque.at_row::<f32>(row)?);
        let start = (place.y + row) as usize * piece.width + place.x as usize;
        for (column, (colour, &share)) in colours.iter().zip(shares).enumerate() {
            let at = start + column;
            for (value, &new) in piece.rgb[3 * at..3 * at + 3].iter_mut().zip(&colour.0) {
                *value = (f32::from(*value) * (1.0 - share) + f32::from(new) * share).round() as u8;
            }
            if share >= 0.5 {
                piece.labels[at] = object.class;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// An image of one colour and one class, with a rectangle of another.
    fn image(class: u8, rectangle: Option<(u8, [usize; 4])>) -> LabelledImage {
        let (width, height) = (128, 96);
        let inside = |at: usize, [left, top, right, bottom]: [usize; 4]| {
            (left..right).contains(&(at % width)) && (top..bottom).contains(&(at / width))
        };
        let label = |at: usize| rectangle.filter(|(_, place)| inside(at, *place)).map_or(class, |(class, _)| class);
        let labels: Vec<u8> = (0..width * height).map(label).collect();
        let rgb = labels.iter().flat_map(|&label| [label * 20; 3]).collect();
        LabelledImage { width, height, rgb, labels }
    }

    #[test]
    fn objects_are_pasted_smaller_with_their_class_and_colour() {
        let other = image(0, Some((7, [30, 10, 60, 90])));
        let mut seen = 0;
        for seed in 0..20 {
            let mut piece = image(1, None);
            paste(&mut piece, &other, &[7], &mut random::generator(seed, &[1])).unwrap();
            let pasted: Vec<usize> = (0..piece.labels.len()).filter(|&at| piece.labels[at] == 7).collect();
            seen += usize::from(!pasted.is_empty());
            assert!(piece.labels.iter().all(|label| [1, 7].contains(label)), "the background is not pasted");
            assert!(pasted.len() < MOST * 72 * 30, "{}", pasted.len());
            assert!(pasted.iter().all(|&at| piece.rgb[3 * at] >= 80), "half of the colour at least");
        }
        assert_eq!(seen, 20);
    }

    #[test]
    fn objects_that_are_cut_off_or_of_other_classes_are_not_pasted() {
        for other in [image(0, Some((7, [0, 10, 40, 90]))), image(0, Some((6, [30, 10, 60, 90]))), image(0, None)] {
            let mut piece = image(1, None);
            paste(&mut piece, &other, &[7], &mut random::generator(3, &[1])).unwrap();
            assert!(piece.labels.iter().all(|&label| label == 1));
        }
    }
}
