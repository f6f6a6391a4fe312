//! Recall of objects by their height. The mean over all pixels of a class says little about small objects, which have few of
//! its pixels.

use serde::{Deserialize, Serialize};

use super::{MetricsError, check};
use crate::components::Components;

/// The heights in pixels at which the ranges begin. The first range begins at 1.
pub const HEIGHTS: [usize; 3] = [24, 48, 96];

/// An object is found if at least this share of its pixels has its class.
const FOUND: f64 = 0.5;

/// The results for objects of one class in a range of heights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    objects: u64,
    found: u64,
    pixels: u64,
    hits: u64,
    recalls: f64,
}

/// Counts the objects of some classes by height, and how many of their pixels are predicted.
///
/// An object is a connected component of its class in the labels. Objects that touch in the image are counted as one.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectRecall {
    classes: usize,
    /// The measured classes, with the sums of each range.
    measured: Vec<(u8, [Sums; HEIGHTS.len() + 1])>,
}

/// The recall of the objects of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizeScores {
    pub class: String,
    pub ranges: Vec<RangeScores>,
}

/// The recall of the objects in a range of heights. Shares are from 0 to 1; `None` if there are no objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeScores {
    /// Smallest height, in pixels of the model's input.
    pub from: usize,
    /// The heights of the range are below this one; `None` for the last range.
    pub to: Option<usize>,
    pub objects: u64,
    /// Share of the objects of which at least half of the pixels have the class.
    pub found: Option<f64>,
    /// Share of the pixels of all objects.
    pub recall: Option<f64>,
    /// Mean over objects of the share of their pixels.
    pub object_recall: Option<f64>,
}

impl RangeScores {
    /// The range in words: `below 24`, `24 to 47`, `96 and more`.
    pub fn heights(&self) -> String {
        match self.to {
            Some(to) if self.from <= 1 => format!("below {to}"),
            Some(to) => format!("{} to {}", self.from, to - 1),
            None => format!("{} and more", self.from),
        }
    }
}

impl ObjectRecall {
    /// No objects. `measured` are classes of a data set with `classes` classes.
    pub fn new(classes: usize, measured: &[u8]) -> Self {
        ObjectRecall { classes, measured: measured.iter().map(|&class| (class, Default::default())).collect() }
    }

    /// Adds an image. `labels` and `prediction` are `[height, width]`.
    ///
    /// # Errors
    /// The lengths differ, or a value is not a class. No object is added then.
    pub fn add(&mut self, labels: &[u8], prediction: &[u8], width: usize) -> Result<(), MetricsError> {
        check(self.classes, labels, prediction)?;
        if width == 0 || !labels.len().is_multiple_of(width) {
            return Err(MetricsError::Width { pixels: labels.len(), width });
        }
        if self.measured.is_empty() {
            return Ok(());
        }
        let components = Components::of(labels, width);
        let mut hits = vec![0usize; components.list.len()];
        for ((&component, label), class) in components.of_pixel.iter().zip(labels).zip(prediction) {
            hits[component as usize] += usize::from(label == class);
        }
        for (component, hits) in components.list.iter().zip(hits) {
            let Some((_, ranges)) = self.measured.iter_mut().find(|(class, _)| *class == component.label) else {
                continue;
            };
            let recall = hits as f64 / component.area as f64;
            let sums = &mut ranges[HEIGHTS.iter().filter(|&&height| height <= component.height()).count()];
            sums.objects += 1;
            sums.found += u64::from(recall >= FOUND);
            sums.pixels += component.area as u64;
            sums.hits += hits as u64;
            sums.recalls += recall;
        }
        Ok(())
    }

    /// The recall of each measured class. `names` are those of all classes, by index.
    pub fn scores(&self, names: &[String]) -> Vec<SizeScores> {
        let share = |part: f64, of: u64| (of > 0).then(|| part / of as f64);
        let range = |(index, sums): (usize, &Sums)| RangeScores {
            from: if index == 0 { 1 } else { HEIGHTS[index - 1] },
            to: HEIGHTS.get(index).copied(),
            objects: sums.objects,
            found: share(sums.found as f64, sums.objects),
            recall: share(sums.hits as f64, sums.pixels),
            object_recall: share(sums.recalls, sums.objects),
        };
        let scores = |(class, ranges): &(u8, [Sums; HEIGHTS.len() + 1])| SizeScores {
            class: names.get(usize::from(*class)).cloned().unwrap_or_default(),
            ranges: ranges.iter().enumerate().map(range).collect(),
        };
        self.measured.iter().map(scores).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::VOID;

    /// A label image, 10 pixels wide and 130 high, with objects of class 1: columns of these heights at every other column.
    fn columns(heights: &[usize]) -> Vec<u8> {
        (0..1300).map(|at| u8::from(at % 2 == 0 && heights.get(at % 10 / 2).is_some_and(|&h| at / 10 < h))).collect()
    }

    #[test]
    fn objects_are_counted_by_height() {
        let labels = columns(&[23, 24, 47, 96, 130]);
        // The upper 20 rows of each object are found.
        let prediction: Vec<u8> = labels.iter().enumerate().map(|(at, &l)| l * u8::from(at / 10 < 20)).collect();
        let mut recall = ObjectRecall::new(2, &[1]);
        recall.add(&labels, &prediction, 10).unwrap();
        let scores = recall.scores(&["ground", "person"].map(String::from)).remove(0);
        assert_eq!(scores.class, "person");
        let facts: Vec<_> = scores.ranges.iter().map(|r| (r.heights(), r.objects, r.found)).collect();
        let expected = [
            ("below 24", 1, Some(1.0)),
            ("24 to 47", 2, Some(0.5)),
            ("48 to 95", 0, None),
            ("96 and more", 2, Some(0.0)),
        ];
        assert_eq!(facts, expected.map(|(heights, objects, found)| (heights.to_owned(), objects, found)));
        let second = &scores.ranges[1];
        assert_eq!(second.recall, Some(40.0 / 71.0));
        assert!((second.object_recall.unwrap() - (20.0 / 24.0 + 20.0 / 47.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn void_and_other_classes_are_not_objects() {
        let mut recall = ObjectRecall::new(3, &[1]);
        recall.add(&[VOID, VOID, 2, 2, 0, 0], &[1, 1, 2, 2, 0, 0], 2).unwrap();
        assert!(recall.scores(&[]).iter().all(|scores| scores.ranges.iter().all(|range| range.objects == 0)));
        assert!(recall.add(&[1; 6], &[3; 6], 2).is_err());
        assert!(recall.add(&[1; 6], &[1; 6], 4).is_err());
    }
}
