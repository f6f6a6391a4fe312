//! The confusion matrix, and the metrics that are computed from it.

use serde::{Deserialize, Serialize};

use super::{MetricsError, check};
use crate::data::VOID;

/// The number of pixels for each label and prediction, of any number of images.
///
/// The IoU is that of PASCAL VOC, CamVid and Cityscapes: true positives / (true positives + false positives + false
/// negatives), from one matrix of the whole data set (Everingham et al., 2015, section 4.4; cityscapesScripts,
/// `evalPixelLevelSemanticLabeling.py`). It is not the mean of the IoUs of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// The number of classes.
    pub classes: usize,
    /// `[classes, classes]`: the pixels with the label of the row that were predicted as the class of the column.
    pub counts: Vec<u64>,
}

/// Columns of the tables in which pixels are counted: one for each value of a byte, so that no prediction is out of bounds.
const WIDTH: usize = 256;
/// The number of pixels that are counted in one pair of tables, so that 32-bit counts do not overflow.
const BLOCK: usize = 1 << 30;

impl ConfusionMatrix {
    /// A matrix without pixels.
    ///
    /// # Panics
    /// `classes` is 0 or more than 255: the last value of a byte is [`VOID`].
    pub fn new(classes: usize) -> Self {
        assert!((1..=usize::from(VOID)).contains(&classes), "1 to 255 classes");
        ConfusionMatrix { classes, counts: vec![0; classes * classes] }
    }

    /// Adds the pixels of an image.
    ///
    /// # Errors
    /// The lengths differ, or a value is not a class. No pixel is added then.
    pub fn add(&mut self, labels: &[u8], prediction: &[u8]) -> Result<(), MetricsError> {
        check(self.classes, labels, prediction)?;
        for (labels, prediction) in labels.chunks(BLOCK).zip(prediction.chunks(BLOCK)) {
            self.count(labels, prediction);
        }
        Ok(())
    }

    fn count(&mut self, labels: &[u8], prediction: &[u8]) {
        // Adjacent pixels are mostly counted in the same cell, and an increment waits for the previous one. Two tables in
        // turn are therefore faster than one. Void has a row, which is not read.
        let size = (self.classes + 1) * WIDTH;
        let mut tables = [vec![0u32; size], vec![0u32; size]];
        let [even, odd] = &mut tables;
        let row = |label: u8| usize::from(label).min(self.classes) * WIDTH;
        let (label_pairs, label_rest) = labels.as_chunks::<2>();
        let (pairs, rest) = prediction.as_chunks::<2>();
        for (labels, classes) in label_pairs.iter().zip(pairs) {
            even[row(labels[0]) + usize::from(classes[0])] += 1;
            odd[row(labels[1]) + usize::from(classes[1])] += 1;
        }
        for (&label, &class) in label_rest.iter().zip(rest) {
            even[row(label) + usize::from(class)] += 1;
        }
        for (label, counts) in self.counts.chunks_exact_mut(self.classes).enumerate() {
            for (class, count) in counts.iter_mut().enumerate() {
                let at = label * WIDTH + class;
                *count += u64::from(tables[0][at]) + u64::from(tables[1][at]);
            }
        }
    }

    /// Adds the pixels of another matrix.
    ///
    /// # Errors
    /// The numbers of classes differ.
    pub fn merge(&mut self, other: &ConfusionMatrix) -> Result<(), MetricsError> {
        if other.classes != self.classes {
            return Err(MetricsError::Classes { classes: self.classes, other: other.classes });
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        Ok(())
    }

    /// The number of pixels with this label that were predicted as this class.
    pub fn count_of(&self, label: usize, class: usize) -> u64 {
        self.counts[label * self.classes + class]
    }

    /// The number of pixels that are not void.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The number of pixels with each label.
    pub fn labelled(&self) -> Vec<u64> {
        self.counts.chunks_exact(self.classes).map(|row| row.iter().sum()).collect()
    }

    /// The number of pixels predicted as each class.
    pub fn predicted(&self) -> Vec<u64> {
        (0..self.classes).map(|class| self.counts.iter().skip(class).step_by(self.classes).sum()).collect()
    }

    /// The number of correct pixels of each class: the diagonal.
    pub fn correct(&self) -> Vec<u64> {
        (0..self.classes).map(|class| self.count_of(class, class)).collect()
    }

    /// Intersection over union (0 to 1) of each class; `None` for a class that is neither in the labels nor in the predictions.
    pub fn iou(&self) -> Vec<Option<f64>> {
        let (labelled, predicted, correct) = (self.labelled(), self.predicted(), self.correct());
        (0..self.classes).map(|c| share(correct[c], labelled[c] + predicted[c] - correct[c])).collect()
    }

    /// Mean IoU (0 to 1) of the classes in the labels; `None` without labelled pixels.
    ///
    /// The IoU of a class that is not in the labels is 0 or undefined, depending on a single predicted pixel, and is left out.
    /// If all classes are in the labels, as in the usual test sets, the result is that of the benchmarks.
    pub fn miou(&self) -> Option<f64> {
        self.mean_over_labels(&self.iou())
    }

    /// Correct pixels / all pixels; `None` without pixels.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        share(self.correct().iter().sum(), self.pixels())
    }

    /// Recall of each class, also called class accuracy: correct pixels / pixels with the label; `None` for a class that is not
    /// in the labels.
    pub fn recall(&self) -> Vec<Option<f64>> {
        self.correct().into_iter().zip(self.labelled()).map(|(correct, labelled)| share(correct, labelled)).collect()
    }

    /// Precision of each class: correct pixels / pixels predicted as the class; `None` for a class that is not predicted.
    pub fn precision(&self) -> Vec<Option<f64>> {
        self.correct().into_iter().zip(self.predicted()).map(|(correct, all)| share(correct, all)).collect()
    }

    /// Mean recall of the classes in the labels; `None` without labelled pixels.
    pub fn class_accuracy(&self) -> Option<f64> {
        self.mean_over_labels(&self.recall())
    }

    /// The matrix with each row divided by its sum, `[classes, classes]`; zeros for a label without pixels.
    pub fn row_shares(&self) -> Vec<f64> {
        let labelled = self.labelled();
        let rows = self.counts.chunks_exact(self.classes).zip(labelled);
        rows.flat_map(|(row, all)| row.iter().map(move |&count| share(count, all).unwrap_or(0.0))).collect()
    }

    fn mean_over_labels(&self, values: &[Option<f64>]) -> Option<f64> {
        let labelled = self.labelled();
        let seen = values.iter().zip(labelled).filter(|(_, pixels)| *pixels > 0);
        let values: Vec<f64> = seen.filter_map(|(value, _)| *value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::random;

    fn near(a: Option<f64>, b: f64) {
        assert!(a.is_some_and(|a| (a - b).abs() < 1e-12), "{a:?} is not {b}");
    }

    #[test]
    fn metrics_agree_with_values_computed_by_hand() {
        // Rows (labels) 0: 3 0 1, 1: 1 2 0, 2: 0 1 1 and one void.
        let labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, VOID];
        let prediction = [0, 0, 0, 2, 0, 1, 1, 1, 2, 0];
        let mut confusion = ConfusionMatrix::new(3);
        confusion.add(&labels, &prediction).unwrap();
        assert_eq!(confusion.counts, [3, 0, 1, 1, 2, 0, 0, 1, 1]);
        let iou = confusion.iou();
        near(iou[0], 3.0 / 5.0);
        near(iou[1], 2.0 / 4.0);
        near(iou[2], 1.0 / 3.0);
        near(confusion.miou(), (0.6 + 0.5 + 1.0 / 3.0) / 3.0);
        near(confusion.pixel_accuracy(), 6.0 / 9.0);
        near(confusion.recall()[0], 3.0 / 4.0);
        near(confusion.precision()[0], 3.0 / 4.0);
        near(confusion.recall()[1], 2.0 / 3.0);
        near(confusion.precision()[2], 1.0 / 2.0);
        near(confusion.class_accuracy(), (3.0 / 4.0 + 2.0 / 3.0 + 1.0 / 2.0) / 3.0);
        assert_eq!(confusion.row_shares()[..3], [0.75, 0.0, 0.25]);
    }

    /// The example of scikit-learn's `confusion_matrix` and what its `jaccard_score`, `precision_score` and
    /// `recall_score` (`average=None`) and `balanced_accuracy_score` give for it.
    #[test]
    fn metrics_agree_with_scikit_learn() {
        let labels = [2, 0, 2, 2, 0, 1];
        let prediction = [0, 0, 2, 2, 0, 2];
        let mut confusion = ConfusionMatrix::new(3);
        confusion.add(&labels, &prediction).unwrap();
        assert_eq!(confusion.counts, [2, 0, 0, 0, 0, 1, 1, 0, 2]);
        near(confusion.iou()[0], 2.0 / 3.0);
        near(confusion.iou()[1], 0.0);
        near(confusion.iou()[2], 0.5);
        near(confusion.precision()[0], 2.0 / 3.0);
        assert_eq!(confusion.precision()[1], None, "scikit-learn warns and gives 0");
        near(confusion.recall()[2], 2.0 / 3.0);
        near(confusion.class_accuracy(), (1.0 + 0.0 + 2.0 / 3.0) / 3.0);
    }

    #[test]
    fn the_mean_iou_is_that_of_classes_in_the_labels() {
        let mut confusion = ConfusionMatrix::new(4);
        // Class 2 is only predicted; class 3 does not occur.
        confusion.add(&[0, 0, 1, 1], &[0, 2, 1, 1]).unwrap();
        assert_eq!(confusion.iou(), [Some(0.5), Some(1.0), Some(0.0), None]);
        assert_eq!(confusion.miou(), Some(0.75));
        assert_eq!(ConfusionMatrix::new(4).miou(), None);
        assert_eq!(ConfusionMatrix::new(4).pixel_accuracy(), None);
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let mut rng = random::generator(1, &[]);
        let labels: Vec<u8> =
            (0..4097).map(|_| if rng.random_bool(0.1) { VOID } else { rng.random_range(0..19) }).collect();
        let prediction: Vec<u8> = (0..4097).map(|_| rng.random_range(0..19)).collect();
        let mut whole = ConfusionMatrix::new(19);
        whole.add(&labels, &prediction).unwrap();
        let mut slow = vec![0; 19 * 19];
        for (&label, &class) in labels.iter().zip(&prediction).filter(|(label, _)| **label != VOID) {
            slow[usize::from(label) * 19 + usize::from(class)] += 1;
        }
        assert_eq!(whole.counts, slow);

        let mut parts = [ConfusionMatrix::new(19), ConfusionMatrix::new(19)];
        parts[0].add(&labels[..1001], &prediction[..1001]).unwrap();
        parts[1].add(&labels[1001..], &prediction[1001..]).unwrap();
        let [mut first, second] = parts;
        first.merge(&second).unwrap();
        assert_eq!(first, whole);
        assert_eq!(first.merge(&ConfusionMatrix::new(2)), Err(MetricsError::Classes { classes: 19, other: 2 }));
    }

    #[test]
    fn values_that_are_not_classes_are_refused_with_their_pixel() {
        let mut confusion = ConfusionMatrix::new(3);
        assert_eq!(confusion.add(&[0], &[0, 1]), Err(MetricsError::Size { labels: 1, predictions: 2 }));
        let label = MetricsError::Label { value: 3, pixel: 1, classes: 3 };
        assert_eq!(confusion.add(&[0, 3], &[0, 1]), Err(label));
        let prediction = MetricsError::Prediction { value: 7, pixel: 2, classes: 3 };
        assert_eq!(confusion.add(&[VOID, 0, 1], &[9, 1, 7]), Err(prediction));
        assert_eq!(confusion.pixels(), 0);
        confusion.add(&[VOID, 0], &[9, 1]).unwrap();
        assert_eq!(confusion.pixels(), 1);
    }
}
