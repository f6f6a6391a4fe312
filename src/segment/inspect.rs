//! What a model makes of a test picture, at load: shows values, shapes and classes that its file does not state, and
//! normalisation that cannot be meant.

use super::SegmentError;
use super::card::{CardInput, ChannelOrder};
use super::contract::{Contract, InputPixels};
use super::golden::{Golden, TOLERANCE};
use super::normalisation;
use super::segmenter::OnnxSegmenter;
use super::unlabelled::{beyond, warning};
use crate::frame::{ClassId, Label};

/// What a model gave for the test picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    classes: Vec<ClassId>,
    /// What is strange about the values of its output.
    pub(super) concern: Option<String>,
}

/// Columns of the test picture, RGB.
const BARS: [[u8; 3]; 7] =
    [[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0], [0, 255, 0], [0, 0, 255], [160, 120, 90]];

/// Share of pixels that a second class has where a picture is not taken for one of a single class.
const SECOND: f64 = 0.01;

/// `[height, width, 3]`: bars of full colours, dark in the lower third, then a gradient and noise.
pub(super) fn test_picture(width: usize, height: usize) -> Vec<u8> {
    let columns = BARS.len() + 2;
    let mut noise = 1_u32;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let column = x * columns / width;
            match BARS.get(column) {
                Some(bar) if y < height * 2 / 3 => rgb.extend(bar),
                Some(bar) => rgb.extend(bar.map(|value| value / 3)),
                None if column == BARS.len() => rgb.extend([(y * 255 / height) as u8; 3]),
                None => {
                    for _ in 0..3 {
                        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        rgb.push((noise >> 24) as u8);
                    }
                }
            }
        }
    }
    rgb
}

impl Inspection {
    pub(super) fn new(classes: Vec<ClassId>, concern: Option<String>) -> Self {
        Inspection { classes, concern }
    }

    /// Classes and their shares of the picture (0 to 1), the largest first.
    pub fn shares(&self) -> Vec<(ClassId, f64)> {
        let mut counts = [0_u64; 256];
        self.classes.iter().for_each(|&class| counts[usize::from(class)] += 1);
        let total = self.classes.len().max(1) as f64;
        let mut shares: Vec<_> = (0..=ClassId::MAX)
            .zip(counts)
            .filter(|&(_, count)| count > 0)
            .map(|(class, count)| (class, count as f64 / total))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    }

    /// In one line, for people.
    pub fn describe(&self, labels: &[Label]) -> String {
        let share = |(class, share): (ClassId, f64)| {
            let name = labels
                .get(usize::from(class))
                .map_or_else(|| format!("class {class}, no label"), |label| label.name.clone());
            format!("{name} {:.1} %", share * 100.0)
        };
        self.shares().into_iter().map(share).collect::<Vec<_>>().join(", ")
    }

    /// Whether all but single pixels are of one class.
    fn is_single(&self) -> bool {
        self.shares().get(1).is_none_or(|&(_, share)| share < SECOND)
    }

    /// A warning of classes that have no label.
    pub fn unlabelled(&self, labels: usize) -> Option<String> {
        let (pixels, highest) = beyond(&self.classes, labels)?;
        Some(format!("on a test picture {}", warning(pixels as f64 / self.classes.len() as f64, highest, labels)))
    }
}

/// `[input]` of the card that normalises; `None` where bytes go in as they are.
fn normalising(contract: &Contract) -> Option<&CardInput> {
    match contract.input.pixels {
        InputPixels::Bytes => None,
        InputPixels::Single(_) | InputPixels::Half(_) => contract.card.as_ref()?.input.as_ref(),
    }
}

/// A warning where a test picture of all colours is of one class, and of several with the other scale of pixel values.
///
/// # Errors
/// When the model cannot be run.
pub(super) fn scale_concern(segmenter: &mut OnnxSegmenter, seen: &Inspection) -> Result<Option<String>, SegmentError> {
    let contract = segmenter.contract();
    let Some(input) = normalising(&contract).filter(|_| seen.is_single()) else { return Ok(None) };
    let white = if input.white < 100.0 { 255.0 } else { 1.0 };
    let other = CardInput { white, ..input.clone() };
    if normalisation::check(&other).is_err() {
        return Ok(None);
    }
    let picture = test_picture(contract.input.width, contract.input.height);
    let with_other = Inspection::new(segmenter.run_normalised(&picture, &other)?, None);
    if with_other.is_single() {
        return Ok(None);
    }
    Ok(Some(format!(
        "a test picture of all colours is of one class ({}) with white = {} in [input] of its card, and of several with white = {white} ({}); write the one that the model was trained with",
        seen.describe(&contract.labels),
        input.white,
        with_other.describe(&contract.labels)
    )))
}

/// The change of `[input]` with which the golden frame comes out as its trainer got it.
pub(super) fn fitting_input(segmenter: &mut OnnxSegmenter, golden: &Golden) -> Option<String> {
    let contract = segmenter.contract();
    let input = normalising(&contract)?;
    let plain = CardInput::default();
    let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let scaled = |white: f32, (mean, std): ([f32; 3], [f32; 3])| CardInput {
        white,
        mean: mean.map(|mean| mean * white),
        std: std.map(|std| std * white),
        ..input.clone()
    };
    let mut candidates = vec![input.clone()];
    candidates.extend([1.0, 255.0].map(|white| CardInput { white, ..input.clone() }));
    candidates.extend([1.0, 255.0].map(|white| CardInput { white, mean: plain.mean, std: plain.std, ..input.clone() }));
    candidates.extend([scaled(1.0, imagenet), scaled(2.0, ([0.5; 3], [0.5; 3]))]);
    let orders = [ChannelOrder::Rgb, ChannelOrder::Bgr];
    let candidates = candidates.into_iter().flat_map(|card| orders.map(|order| CardInput { order, ..card.clone() }));
    let fitting = candidates.filter(|card| card != input && normalisation::check(card).is_ok()).find(|card| {
        segmenter.run_normalised(&golden.rgb, card).is_ok_and(|mask| golden.difference(&mask) <= TOLERANCE)
    })?;
    let mut keys = Vec::new();
    if fitting.white != input.white {
        keys.push(format!("white = {}", fitting.white));
    }
    if fitting.mean != input.mean {
        keys.push(format!("mean = {:?}", fitting.mean));
    }
    if fitting.std != input.std {
        keys.push(format!("std = {:?}", fitting.std));
    }
    if fitting.order != input.order {
        keys.push(format!("order = {:?}", if fitting.order == ChannelOrder::Rgb { "rgb" } else { "bgr" }));
    }
    Some(keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_picture_has_all_colours_at_every_size() {
        let picture = test_picture(90, 30);
        assert_eq!(picture.len(), 90 * 30 * 3);
        let pixel = |x: usize, y: usize| &picture[(y * 90 + x) * 3..][..3];
        assert_eq!((pixel(5, 3), pixel(15, 3), pixel(35, 3)), (&[0, 0, 0][..], &[255; 3][..], &[255, 0, 0][..]));
        assert_eq!(pixel(35, 29), [85, 0, 0]);
        for (width, height) in [(1, 1), (3, 2), (8, 1)] {
            assert_eq!(test_picture(width, height).len(), width * height * 3);
        }
    }

    #[test]
    fn shares_are_told_by_name() {
        let labels = ["else", "red"].map(|name| Label { name: name.into(), color: crate::frame::Rgb(0, 0, 0) });
        let seen = Inspection::new(vec![0, 0, 1, 4], None);
        assert_eq!(seen.describe(&labels), "else 50.0 %, red 25.0 %, class 4, no label 25.0 %");
        assert!(seen.unlabelled(2).unwrap().contains("25.0 %"));
        assert_eq!(seen.unlabelled(5), None);
        assert!(!seen.is_single() && Inspection::new(vec![1; 9], None).is_single());
    }
}
