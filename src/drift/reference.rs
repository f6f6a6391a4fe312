//! What the images look like that a model was trained on, as its metadata `maskcast.reference` says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::features::{Features, Score};

/// The share of the images on each side that counts as unusual.
const TAIL: f32 = 0.01;

/// Bars of a distribution.
const BARS: usize = 16;

/// Classes that cover less are not looked for in a place.
const LEAST_SHARE: f32 = 0.03;

/// How far a class may be from its place in the training set, in standard deviations.
const MOST_DEVIATIONS: f32 = 2.0;

/// The smallest standard deviation of a place, 0 to 1.
const LEAST_DEVIATION: f32 = 0.05;

/// The distribution of a value over images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub mean: f32,
    /// Standard deviation.
    pub deviation: f32,
    /// The values below and above which 1 % of the images are.
    pub low: f32,
    pub high: f32,
    /// The shares of the images in intervals of equal width from `low` to `high`; those beyond are in the first and the last.
    pub bars: Vec<f32>,
}

/// The images of a training set, by the masks of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Number of images.
    pub images: usize,
    pub luma: Distribution,
    pub contrast: Distribution,
    pub sharpness: Distribution,
    pub saturation: Distribution,
    /// Share of each class.
    pub classes: BTreeMap<String, Distribution>,
    /// Mean row of each class, 0 (top) to 1 (bottom), in the images with at least 3 % of it.
    pub heights: BTreeMap<String, Distribution>,
}

/// Names of the features that are compared with the training set, in the order of [`Reference::scores`].
pub const FEATURES: [&str; 5] = ["luma", "contrast", "sharpness", "saturation", "placement"];

impl Distribution {
    /// Of values; `None` without any.
    pub fn of(mut values: Vec<f32>) -> Option<Distribution> {
        values.sort_by(f32::total_cmp);
        let n = values.len();
        let at = |share: f32| values.get(((n as f32 - 1.0) * share).round() as usize).copied();
        let (low, high) = (at(TAIL)?, at(1.0 - TAIL)?);
        let mean = values.iter().sum::<f32>() / n as f32;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / n as f32;
        let mut bars = vec![0.0; BARS];
        for value in &values {
            let place = (value - low) / (high - low).max(1e-6) * BARS as f32;
            bars[(place.max(0.0) as usize).min(BARS - 1)] += 1.0 / n as f32;
        }
        // Three digits are enough, and keep the model file small.
        let rounded = |value: f32| (value * 1e4).round() / 1e4;
        bars.iter_mut().for_each(|bar| *bar = rounded(*bar));
        Some(Distribution {
            mean: rounded(mean),
            deviation: rounded(variance.sqrt()),
            low: rounded(low),
            high: rounded(high),
            bars,
        })
    }

    /// How unusual a value is: 0 at the mean, 1 at the value beyond which 1 % of the images are.
    fn score(&self, value: f32) -> f32 {
        let bound = if value < self.mean { self.mean - self.low } else { self.high - self.mean };
        (value - self.mean).abs() / bound.max(1e-3)
    }
}

impl Reference {
    /// The distributions of the features of images; `None` without images.
    pub fn of(images: &[Features]) -> Option<Reference> {
        let of = |value: fn(&Features) -> f32| Distribution::of(images.iter().map(value).collect());
        let mut classes = BTreeMap::new();
        let mut heights = BTreeMap::new();
        for name in images.first()?.classes.keys() {
            let shares = images.iter().map(|image| image.classes.get(name).copied().unwrap_or_default()).collect();
            classes.insert(name.clone(), Distribution::of(shares)?);
            let has_it =
                images.iter().filter(|image| image.classes.get(name).is_some_and(|share| *share >= LEAST_SHARE));
            let rows = has_it.filter_map(|image| image.heights.get(name).copied()).collect();
            if let Some(distribution) = Distribution::of(rows) {
                heights.insert(name.clone(), distribution);
            }
        }
        Some(Reference {
            images: images.len(),
            luma: of(|image| image.luma)?,
            contrast: of(|image| image.contrast)?,
            sharpness: of(|image| image.sharpness)?,
            saturation: of(|image| image.saturation)?,
            classes,
            heights,
        })
    }

    /// How unusual the images of a camera are for the model: 1 is the limit, beyond which 1 % of the training images are. `placement`:
    /// how far the classes are from their usual rows, as in a picture that is upside down.
    pub fn scores(&self, features: &Features) -> [Score; 5] {
        let score = |feature, value| Score { feature, value };
        [
            score("luma", self.luma.score(features.luma)),
            score("contrast", self.contrast.score(features.contrast)),
            score("sharpness", self.sharpness.score(features.sharpness)),
            score("saturation", self.saturation.score(features.saturation)),
            score("placement", self.placement(features)),
        ]
    }

    fn placement(&self, features: &Features) -> f32 {
        let (mut sum, mut all) = (0.0, 0.0);
        for (name, share) in features.classes.iter().filter(|(_, share)| **share >= LEAST_SHARE) {
            if let (Some(row), Some(usual)) = (features.heights.get(name), self.heights.get(name)) {
                let deviations = (row - usual.mean).abs() / usual.deviation.max(LEAST_DEVIATION);
                sum += share * deviations / MOST_DEVIATIONS;
                all += share;
            }
        }
        if all > 0.0 { sum / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_beyond_those_of_the_training_set_has_a_score_above_1() {
        let image = |n: usize| {
            let part = n as f32 / 100.0;
            Features {
                luma: 0.3 + 0.4 * part,
                contrast: 0.2,
                sharpness: 0.5,
                saturation: 0.1,
                classes: [("sky".to_owned(), 0.4), ("road".to_owned(), 0.6)].into(),
                heights: [("sky".to_owned(), 0.2 + 0.1 * part), ("road".to_owned(), 0.75 - 0.1 * part)].into(),
                ..Features::default()
            }
        };
        let images: Vec<Features> = (0..=100).map(image).collect();
        let reference = Reference::of(&images).unwrap();
        assert_eq!((reference.images, reference.luma.bars.len()), (101, BARS));
        assert!((reference.luma.bars.iter().sum::<f32>() - 1.0).abs() < 0.01);
        let scores = |features: &Features| reference.scores(features).map(|score| score.value);
        assert!(scores(&image(50)).iter().all(|score| *score < 0.1), "{:?}", scores(&image(50)));
        let dark = Features { luma: 0.05, ..image(50) };
        assert!(scores(&dark)[0] > 2.0);
        let heights = image(50).heights.into_iter().map(|(name, row)| (name, 1.0 - row)).collect();
        let upside_down = Features { heights, ..image(50) };
        assert!(scores(&upside_down)[4] > 2.0, "{:?}", scores(&upside_down));
        let text = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
        assert_eq!(Reference::of(&[]), None);
    }
}
