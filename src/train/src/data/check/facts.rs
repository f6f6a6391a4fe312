//! What is found in one pair of image and label.

use std::hash::{DefaultHasher, Hash as _, Hasher};

use super::super::coding::LabelCoding;
use super::super::error::{DataError, PixelValue};
use super::super::hash::{self, ImageHash};
use super::super::raw::{RawLabel, RawPixels};
use super::super::{Dataset, Pair, Part, VOID, image};

/// Largest number of different unknown values that are reported per label image; a photo that was saved as a label has
/// thousands.
const MAX_UNKNOWN: usize = 20;

/// A pair and its part; `None` if it is in no part.
#[derive(Clone, Copy)]
pub struct CheckItem<'a> {
    pub pair: &'a Pair,
    pub part: Option<Part>,
}

/// A value that belongs to no class, and its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPixels {
    pub value: PixelValue,
    pub pixels: u64,
    /// Position x, y of the first such pixel.
    pub at: (usize, usize),
}

/// What was found in one pair.
#[derive(Default)]
pub struct PairFacts {
    pub image_size: Option<(usize, usize)>,
    pub label_size: Option<(usize, usize)>,
    pub errors: Vec<DataError>,
    /// Number of pixels by class.
    pub classes: Vec<u64>,
    pub void: u64,
    pub unknown: Vec<UnknownPixels>,
    /// Whether there are more unknown values than [`MAX_UNKNOWN`].
    pub more_unknown: bool,
    /// Number of pixels of a black and white mask that are neither 0 nor 255.
    pub between: u64,
    /// A hash of the pixels, equal for equal images.
    pub content: Option<u64>,
    pub hash: Option<ImageHash>,
}

/// Reads a pair and collects its facts.
pub fn inspect(dataset: &Dataset, pair: &Pair) -> PairFacts {
    let mut facts = PairFacts { classes: vec![0; dataset.classes.len()], ..PairFacts::default() };
    match image::read(&pair.image) {
        Ok(image) => {
            facts.image_size = Some((image.width, image.height));
            let mut hasher = DefaultHasher::new();
            (image.width, &image.rgb).hash(&mut hasher);
            facts.content = Some(hasher.finish());
            match hash::of(&image) {
                Ok(hash) => facts.hash = Some(hash),
                Err(error) => facts.errors.push(DataError::image(&pair.image, error.into())),
            }
        }
        Err(error) => facts.errors.push(error),
    }
    match dataset.raw(pair) {
        Ok(raw) => {
            facts.label_size = Some((raw.width, raw.height));
            count(&dataset.coding, &raw, &mut facts);
        }
        Err(error) => facts.errors.push(error),
    }
    if let (Some(image_size), Some(label_size)) = (facts.image_size, facts.label_size)
        && image_size != label_size
    {
        let (image, label) = (pair.image.clone(), pair.label.clone());
        facts.errors.push(DataError::SizeMismatch { image, label, image_size, label_size });
    }
    facts
}

fn count(coding: &LabelCoding, raw: &RawLabel, facts: &mut PairFacts) {
    coding.for_each_pixel(raw, |at, class| match class {
        Some(VOID) => facts.void += 1,
        Some(class) => facts.classes[usize::from(class)] += 1,
        None => {
            let value = coding.value(raw, at);
            if let Some(unknown) = facts.unknown.iter_mut().find(|unknown| unknown.value == value) {
                unknown.pixels += 1;
            } else if facts.unknown.len() < MAX_UNKNOWN {
                facts.unknown.push(UnknownPixels { value, pixels: 1, at: (at % raw.width, at / raw.width) });
            } else {
                facts.more_unknown = true;
            }
        }
    });
    if coding.binary_mask
        && let RawPixels::Gray(values) | RawPixels::Indexed(values, _) = &raw.pixels
    {
        facts.between = values.iter().filter(|value| !matches!(value, 0 | 255)).count() as u64;
    }
}
