//! What a mask and the image below it look like, in a few numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::{Guide, Mask};

/// Columns and rows of the coarse picture.
pub const CELLS: (usize, usize) = (8, 6);

/// Differences that are one step, the limit of a change.
mod step {
    /// Of mean luma.
    pub const LUMA: f32 = 0.15;
    /// Of mean saturation.
    pub const SATURATION: f32 = 0.1;
    /// Ratio of contrasts.
    pub const CONTRAST: f32 = 1.8;
    /// Ratio of sharpnesses.
    pub const SHARPNESS: f32 = 1.7;
    /// Of 1 less the correlation of the coarse pictures.
    pub const VIEW: f32 = 0.5;
    /// Share of the pixels whose class is another.
    pub const CLASSES: f32 = 0.4;
}

/// Below this, contrast is noise.
const LEAST_CONTRAST: f32 = 0.02;

/// From this correlation on, a picture that is turned is the other one.
const SAME_VIEW: f32 = 0.5;

/// What a mask and its image look like. All values are 0 to 1, unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// Mean luma.
    pub luma: f32,
    /// Standard deviation of luma.
    pub contrast: f32,
    /// Mean absolute Laplacian of luma divided by the contrast: how fine the detail is, whatever the light.
    pub sharpness: f32,
    /// Mean distance of the chroma samples from grey.
    pub saturation: f32,
    /// Mean luma of each of the [`CELLS`], row by row.
    pub cells: Vec<f32>,
    /// Share of each class, by name.
    pub classes: BTreeMap<String, f32>,
    /// Mean row of each class that is there, 0 (top) to 1 (bottom).
    pub heights: BTreeMap<String, f32>,
}

/// A feature with the size of its difference: 1 is the limit of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub feature: &'static str,
    pub value: f32,
}

/// Names of the features, in the order of [`Features::scores`].
pub const FEATURES: [&str; 6] = ["luma", "contrast", "sharpness", "saturation", "view", "classes"];

impl Features {
    /// Measures a mask; `None` without the image below it.
    pub fn of(mask: &Mask) -> Option<Features> {
        let guide = mask.guide.as_deref().filter(|guide| guide.is_complete())?;
        let luma = Luma::of(guide);
        let saturation: u32 = guide
            .plane(1)
            .iter()
            .zip(guide.plane(2))
            .map(|(&u, &v)| u32::from(u.abs_diff(128)) + u32::from(v.abs_diff(128)))
            .sum();
        let (classes, heights) = classes(mask);
        Some(Features {
            luma: luma.mean,
            contrast: luma.deviation,
            sharpness: laplacian(guide) / luma.deviation.max(LEAST_CONTRAST),
            saturation: saturation as f32 / (256.0 * guide.plane(1).len() as f32),
            cells: luma.cells,
            classes,
            heights,
        })
    }

    /// The mean of several.
    pub fn mean<'a>(all: impl ExactSizeIterator<Item = &'a Features>) -> Option<Features> {
        let n = all.len() as f32;
        let mut sum: Option<Features> = None;
        for features in all {
            match &mut sum {
                None => sum = Some(features.weighted()),
                Some(sum) => sum.add(features),
            }
        }
        let mut mean = sum?;
        for value in [&mut mean.luma, &mut mean.contrast, &mut mean.sharpness, &mut mean.saturation] {
            *value /= n;
        }
        mean.cells.iter_mut().chain(mean.classes.values_mut()).for_each(|value| *value /= n);
        // They were weighted by the shares.
        let shares = &mean.classes;
        mean.heights.iter_mut().for_each(|(name, row)| *row /= n * shares.get(name).copied().unwrap_or(1.0).max(1e-9));
        Some(mean)
    }

    /// With rows that are weighted by the shares of their classes.
    fn weighted(&self) -> Features {
        let mut weighted = self.clone();
        weighted.heights.iter_mut().for_each(|(name, row)| *row *= self.classes.get(name).copied().unwrap_or_default());
        weighted
    }

    fn add(&mut self, other: &Features) {
        let other = &other.weighted();
        for (name, row) in &other.heights {
            *self.heights.entry(name.clone()).or_default() += row;
        }
        self.luma += other.luma;
        self.contrast += other.contrast;
        self.sharpness += other.sharpness;
        self.saturation += other.saturation;
        self.cells.iter_mut().zip(&other.cells).for_each(|(sum, more)| *sum += more);
        for (name, share) in &other.classes {
            *self.classes.entry(name.clone()).or_default() += share;
        }
    }

    /// How much each of the [`FEATURES`] differs from another description.
    pub fn scores(&self, other: &Features) -> [Score; 6] {
        let ratio = |a: f32, b: f32, step: f32| (a.max(1e-3) / b.max(1e-3)).ln().abs() / step.ln();
        let view = correlation(&self.cells, &other.cells).map_or(0.0, |correlation| (1.0 - correlation) / step::VIEW);
        let values = [
            (self.luma - other.luma).abs() / step::LUMA,
            ratio(self.contrast.max(LEAST_CONTRAST), other.contrast.max(LEAST_CONTRAST), step::CONTRAST),
            ratio(self.sharpness, other.sharpness, step::SHARPNESS),
            (self.saturation - other.saturation).abs() / step::SATURATION,
            view,
            self.class_difference(other) / step::CLASSES,
        ];
        let mut scores = FEATURES.map(|feature| Score { feature, value: 0.0 });
        scores.iter_mut().zip(values).for_each(|(score, value)| score.value = value);
        scores
    }

    /// The largest of [`Features::scores`].
    pub fn distance(&self, other: &Features) -> f32 {
        self.scores(other).iter().map(|score| score.value).fold(0.0, f32::max)
    }

    /// Share of the pixels whose class is another. 0 if the models have different classes: then the model changed, not the camera.
    fn class_difference(&self, other: &Features) -> f32 {
        if !self.classes.keys().eq(other.classes.keys()) {
            return 0.0;
        }
        self.classes.iter().map(|(name, share)| (share - other.classes[name]).abs()).sum::<f32>() / 2.0
    }

    /// What has changed from `before` to this, in words, the most first.
    pub fn changes_from(&self, before: &Features) -> Vec<&'static str> {
        let mut scores = self.scores(before).to_vec();
        scores.retain(|score| score.value >= 1.0);
        scores.sort_by(|a, b| b.value.total_cmp(&a.value));
        let word = |score: &Score| match score.feature {
            "luma" if self.luma < before.luma => "darker",
            "luma" => "brighter",
            "contrast" if self.contrast < before.contrast => "less contrast",
            "contrast" => "more contrast",
            "sharpness" if self.sharpness < before.sharpness => "blurred",
            "sharpness" => "sharper",
            "saturation" if self.saturation < before.saturation => "less colour",
            "saturation" => "more colour",
            "view" => self.turn_from(before),
            _ => "other content",
        };
        scores.iter().map(word).collect()
    }

    fn turn_from(&self, before: &Features) -> &'static str {
        let (columns, rows) = CELLS;
        let turned = |at: &dyn Fn(usize, usize) -> usize| -> Vec<f32> {
            let place = |n: usize| before.cells.get(at(n % columns, n / columns)).copied().unwrap_or_default();
            (0..columns * rows).map(place).collect()
        };
        let upside_down = turned(&|x, y| (rows - 1 - y) * columns + columns - 1 - x);
        let mirrored = turned(&|x, y| y * columns + columns - 1 - x);
        let is_same = |other: &[f32]| correlation(&self.cells, other).is_some_and(|found| found > SAME_VIEW);
        match (is_same(&upside_down), is_same(&mirrored)) {
            (true, _) => "upside down",
            (false, true) => "mirrored",
            (false, false) => "another view",
        }
    }
}

struct Luma {
    mean: f32,
    deviation: f32,
    cells: Vec<f32>,
}

impl Luma {
    fn of(guide: &Guide) -> Luma {
        let (columns, rows) = CELLS;
        let plane = guide.plane(0);
        let mut sums = vec![(0_u64, 0_u64); columns * rows];
        let mut squares = 0_u64;
        for (y, row) in plane.chunks_exact(guide.width).enumerate() {
            for column in 0..columns {
                let (start, end) = (column * guide.width / columns, (column + 1) * guide.width / columns);
                let part = &row[start..end];
                let (sum, more) = &mut sums[y * rows / guide.height * columns + column];
                *sum += part.iter().map(|&value| u64::from(value)).sum::<u64>();
                squares += part.iter().map(|&value| u64::from(value) * u64::from(value)).sum::<u64>();
                *more += part.len() as u64;
            }
        }
        let (sum, count) = sums.iter().fold((0, 0), |(sum, count), (more, pixels)| (sum + more, count + pixels));
        let mean = sum as f64 / count.max(1) as f64;
        let variance = squares as f64 / count.max(1) as f64 - mean * mean;
        let cells = sums.iter().map(|(sum, count)| (*sum as f64 / (*count).max(1) as f64 / 255.0) as f32);
        Luma {
            mean: (mean / 255.0) as f32,
            deviation: (variance.max(0.0).sqrt() / 255.0) as f32,
            cells: cells.collect(),
        }
    }
}

/// Mean absolute Laplacian of the luma, 0 to 4.
fn laplacian(guide: &Guide) -> f32 {
    let (width, height) = (guide.width, guide.height);
    if width < 3 || height < 3 {
        return 0.0;
    }
    let plane = guide.plane(0);
    let mut sum = 0_u64;
    for y in 1..height - 1 {
        let row = |y: usize| &plane[y * width..][..width];
        let (above, own, below) = (row(y - 1), row(y), row(y + 1));
        let differences = (1..width - 1).map(|x| {
            let around = i32::from(own[x - 1]) + i32::from(own[x + 1]) + i32::from(above[x]) + i32::from(below[x]);
            (4 * i32::from(own[x]) - around).unsigned_abs()
        });
        sum += u64::from(differences.sum::<u32>());
    }
    sum as f32 / (255 * (width - 2) * (height - 2)) as f32
}

/// Shares and mean rows of the classes, in every second row and column.
fn classes(mask: &Mask) -> (BTreeMap<String, f32>, BTreeMap<String, f32>) {
    let mut counts = [(0_u32, 0_u64); 256];
    for (y, row) in mask.classes.chunks_exact(mask.width).enumerate().step_by(2) {
        let mut in_row = [0_u32; 256];
        row.iter().step_by(2).for_each(|&class| in_row[usize::from(class)] += 1);
        for ((count, rows), more) in counts.iter_mut().zip(in_row) {
            *count += more;
            *rows += u64::from(more) * y as u64;
        }
    }
    let labels = mask.labels.iter().zip(counts);
    let all: u32 = labels.clone().map(|(_, (count, _))| count).sum();
    let (mut shares, mut heights) = (BTreeMap::new(), BTreeMap::new());
    for (label, (count, rows)) in labels {
        *shares.entry(label.name.clone()).or_default() += count as f32 / all.max(1) as f32;
        if count > 0 {
            heights.insert(label.name.clone(), (rows as f64 / f64::from(count) / mask.height as f64) as f32);
        }
    }
    (shares, heights)
}

/// Pearson's correlation; `None` where one of the pictures has no structure.
fn correlation(a: &[f32], b: &[f32]) -> Option<f32> {
    let n = a.len().min(b.len()).max(1) as f32;
    let mean = |values: &[f32]| values.iter().sum::<f32>() / n;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |of: &dyn Fn(f32, f32) -> f32| a.iter().zip(b).map(|(a, b)| of(a - mean_a, b - mean_b)).sum::<f32>() / n;
    let (covariance, of_a, of_b) = (sum(&|a, b| a * b), sum(&|a, _| a * a), sum(&|_, b| b * b));
    let has_structure = of_a.min(of_b).sqrt() > LEAST_CONTRAST;
    has_structure.then(|| covariance / (of_a * of_b).sqrt())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::{Label, Rgb};

    /// A mask of two classes over an image of this luma.
    fn mask(luma: impl Fn(usize, usize) -> u8, class: impl Fn(usize, usize) -> u8) -> Mask {
        let (width, height) = (160, 96);
        let mut guide = Guide::new(width, height);
        let at = |n: usize| (n % width, n / width);
        guide.plane_mut(0).iter_mut().enumerate().for_each(|(n, value)| *value = luma(at(n).0, at(n).1));
        guide.plane_mut(1).fill(128);
        guide.plane_mut(2).fill(192);
        Mask {
            seq: 0,
            pts: Duration::ZERO,
            captured_at: Instant::now(),
            width,
            height,
            classes: (0..width * height).map(|n| class(at(n).0, at(n).1)).collect(),
            labels: ["road", "sky"].map(|name| Label::new(name, Rgb(0, 0, 0))).into(),
            model: "m".into(),
            guide: Some(Box::new(guide)),
            probable: None,
            confirmed: false,
            seen: None,
        }
    }

    /// A bright sky above a road with a fine pattern.
    fn scene(x: usize, y: usize) -> u8 {
        if y < 32 { 200 } else { 60 + (x * 7 % 40) as u8 + (x / 40 * 10) as u8 }
    }

    fn of(luma: impl Fn(usize, usize) -> u8) -> Features {
        Features::of(&mask(luma, |_, y| u8::from(y < 32))).unwrap()
    }

    #[test]
    fn a_scene_is_described() {
        let features = of(scene);
        assert!((features.classes["sky"] - 1.0 / 3.0).abs() < 0.02, "{features:?}");
        assert!((features.saturation - 0.25).abs() < 1e-3 && features.cells.len() == 48);
        assert!(features.cells[0] > 0.75 && features.cells[47] < 0.5);
        assert_eq!(features.distance(&features), 0.0);
        assert!(features.changes_from(&features).is_empty());
    }

    #[test]
    fn changes_have_their_words() {
        let before = of(scene);
        let words = |luma: &dyn Fn(usize, usize) -> u8| of(luma).changes_from(&before);
        assert!(words(&|x, y| scene(x, y) / 4).contains(&"darker"));
        assert!(words(&|x, y| scene(159 - x, 95 - y)).contains(&"upside down"));
        let blurred = |x: usize, y: usize| {
            let around = (x.saturating_sub(12)..(x + 13).min(160)).map(|x| u32::from(scene(x, y)));
            (around.clone().sum::<u32>() / around.count() as u32) as u8
        };
        assert!(words(&blurred).contains(&"blurred"), "{:?}", of(blurred).scores(&before));
        let other = Features::of(&mask(scene, |_, _| 0)).unwrap();
        assert!(other.scores(&before)[5].value < 1.0, "a third of the pixels");
        // Another model, not another scene.
        let renamed = Features { classes: [("water".to_owned(), 1.0)].into(), ..before.clone() };
        assert_eq!(renamed.distance(&before), 0.0);
    }
}
