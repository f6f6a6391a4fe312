//! Boundary F1: the accuracy of the boundaries between classes, which has little influence on the IoU of large objects.

use super::{MetricsError, check};
use crate::data::VOID;

/// Boundary F1 (Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013).
///
/// A boundary pixel is right if the other mask has a boundary pixel of the same class at a distance below the tolerance.
/// Precision is the share of right pixels among the predicted boundary pixels, recall that among the labelled ones. F1 is
/// their harmonic mean for a class in an image. The score of an image is the mean of the classes with a boundary in the labels
/// or in the prediction. The score of a data set is the mean of its images.
///
/// A boundary pixel has a pixel of another class above, below, left or right of it. The edges of the image and of void
/// regions are not boundaries, because the class beyond them is unknown. Predictions on void are not counted.
#[derive(Clone, Debug)]
pub struct BoundaryF1 {
    classes: usize,
    tolerance: f64,
    images: usize,
    sum: f64,
    class_sums: Vec<(f64, usize)>,
}

/// A set of classes, with a bit for each. With 64 bits the computation takes twice the time, and few data sets have more than
/// 32 classes.
type ClassBits = u32;
/// The number of classes that are computed together.
const GROUP: usize = ClassBits::BITS as usize;

impl BoundaryF1 {
    /// The tolerance of the paper as a share of the image's diagonal: 4.5 pixels at 480×360.
    pub const TOLERANCE: f64 = 0.0075;

    /// No images, with the tolerance of the paper.
    ///
    /// # Panics
    /// `classes` is 0 or more than 255.
    pub fn new(classes: usize) -> Self {
        Self::with_tolerance(classes, Self::TOLERANCE)
    }

    /// No images. `tolerance` is a share of the image's diagonal.
    ///
    /// # Panics
    /// `classes` is 0 or more than 255.
    pub fn with_tolerance(classes: usize, tolerance: f64) -> Self {
        assert!((1..=usize::from(VOID)).contains(&classes), "1 to 255 classes");
        BoundaryF1 { classes, tolerance, images: 0, sum: 0.0, class_sums: vec![(0.0, 0); classes] }
    }

    /// Adds an image with rows of `width` pixels. Returns its score; `None` if neither labels nor prediction have a boundary.
    ///
    /// # Errors
    /// The lengths differ, a value is not a class, or the length is not a multiple of `width`. No pixel is added then.
    pub fn add(&mut self, labels: &[u8], prediction: &[u8], width: usize) -> Result<Option<f64>, MetricsError> {
        check(self.classes, labels, prediction)?;
        if width == 0 || !labels.len().is_multiple_of(width) {
            return Err(MetricsError::Width { pixels: labels.len(), width });
        }
        let height = labels.len() / width;
        let diagonal = (width as f64).hypot(height as f64);
        let rows = disc_rows(self.tolerance * diagonal);

        let seen: Vec<u8> =
            prediction.iter().zip(labels).map(|(&class, &label)| if label == VOID { VOID } else { class }).collect();
        let [labelled, predicted] = [boundaries(labels, width), boundaries(&seen, width)];
        let mut matches = vec![ClassMatches::default(); self.classes];
        for first in (0..self.classes).step_by(GROUP) {
            let near_labelled = dilated(&labelled, width, first, &rows);
            let near_predicted = dilated(&predicted, width, first, &rows);
            let classes = first..self.classes.min(first + GROUP);
            let mut count = |boundary: &[u8], near: &[ClassBits], counts: fn(&mut ClassMatches) -> &mut MatchCount| {
                for (&class, &near) in boundary.iter().zip(near) {
                    if classes.contains(&usize::from(class)) {
                        let counts = counts(&mut matches[usize::from(class)]);
                        counts.all += 1;
                        counts.right += u64::from(near >> (usize::from(class) - first) & 1);
                    }
                }
            };
            count(&predicted, &near_labelled, |matches| &mut matches.predicted);
            count(&labelled, &near_predicted, |matches| &mut matches.labelled);
        }

        let mut scores = Vec::new();
        for (matches, (sum, images)) in matches.iter().zip(&mut self.class_sums) {
            if let Some(score) = matches.f1() {
                scores.push(score);
                *sum += score;
                *images += 1;
            }
        }
        if scores.is_empty() {
            return Ok(None);
        }
        let score = scores.iter().sum::<f64>() / scores.len() as f64;
        self.images += 1;
        self.sum += score;
        Ok(Some(score))
    }

    /// Adds the images of another score.
    ///
    /// # Errors
    /// The numbers of classes differ.
    pub fn merge(&mut self, other: &BoundaryF1) -> Result<(), MetricsError> {
        if other.classes != self.classes {
            return Err(MetricsError::Classes { classes: self.classes, other: other.classes });
        }
        self.images += other.images;
        self.sum += other.sum;
        for ((sum, images), (more_sum, more_images)) in self.class_sums.iter_mut().zip(&other.class_sums) {
            *sum += more_sum;
            *images += more_images;
        }
        Ok(())
    }

    /// The mean of the images, 0 to 1; `None` without a boundary.
    pub fn mean(&self) -> Option<f64> {
        (self.images > 0).then(|| self.sum / self.images as f64)
    }

    /// For each class, the mean (0 to 1) of the images in which it has a boundary; `None` without a boundary.
    pub fn classes(&self) -> Vec<Option<f64>> {
        self.class_sums.iter().map(|&(sum, images)| (images > 0).then(|| sum / images as f64)).collect()
    }
}

/// The number of boundary pixels, and of the right ones among them.
#[derive(Clone, Default)]
struct MatchCount {
    right: u64,
    all: u64,
}

impl MatchCount {
    fn share(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.right as f64 / self.all as f64 }
    }
}

/// The boundary pixels of a class in an image.
#[derive(Clone, Default)]
struct ClassMatches {
    predicted: MatchCount,
    labelled: MatchCount,
}

impl ClassMatches {
    fn f1(&self) -> Option<f64> {
        if self.predicted.all == 0 && self.labelled.all == 0 {
            return None;
        }
        let (precision, recall) = (self.predicted.share(), self.labelled.share());
        Some(if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) })
    }
}

/// The class of each boundary pixel; void for other pixels.
fn boundaries(classes: &[u8], width: usize) -> Vec<u8> {
    let mut out = vec![VOID; classes.len()];
    let mut mark = |a: usize, b: usize| {
        if classes[a] != classes[b] && classes[a] != VOID && classes[b] != VOID {
            out[a] = classes[a];
            out[b] = classes[b];
        }
    };
    for start in (0..classes.len()).step_by(width) {
        for at in start..start + width - 1 {
            mark(at, at + 1);
        }
        if start + width < classes.len() {
            for at in start..start + width {
                mark(at, at + width);
            }
        }
    }
    out
}

/// The rows of a disc from the middle to the bottom: for each row, the largest distance in pixels from the middle column. A
/// pixel is in the disc if its centre is nearer than `radius`. The disc has at least one pixel.
fn disc_rows(radius: f64) -> Vec<usize> {
    let mut rows = vec![half_width(radius, 0).unwrap_or(0)];
    rows.extend((1..).map_while(|dy| half_width(radius, dy)));
    rows
}

fn half_width(radius: f64, dy: usize) -> Option<usize> {
    let near = |dx: usize| ((dx * dx + dy * dy) as f64) < radius * radius;
    (0..).take_while(|&dx| near(dx)).last()
}

/// For each pixel, the classes from `first` on that have a boundary pixel in the disc around it.
///
/// All classes of a group are dilated together. Each row is widened in steps of one pixel. After each step, it is combined
/// with the rows above and below in which the disc has that width. This needs two ORs for each row of the disc. A distance
/// transform would be needed for each class.
fn dilated(boundary: &[u8], width: usize, first: usize, disc: &[usize]) -> Vec<ClassBits> {
    let height = boundary.len() / width;
    let mut out = vec![0 as ClassBits; boundary.len()];
    let (mut wide, mut wider) = (vec![0 as ClassBits; width], vec![0 as ClassBits; width]);
    for (y, row) in boundary.chunks_exact(width).enumerate() {
        let mut any = 0;
        for (bits, &class) in wide.iter_mut().zip(row) {
            let bit = usize::from(class).wrapping_sub(first);
            *bits = if class != VOID && bit < GROUP { 1 << bit } else { 0 };
            any |= *bits;
        }
        if any == 0 {
            continue;
        }
        for half in 0..=disc[0] {
            if half > 0 {
                widen(&wide, &mut wider);
                std::mem::swap(&mut wide, &mut wider);
            }
            for dy in (0..disc.len()).filter(|&dy| disc[dy] == half) {
                let below = (dy > 0 && y + dy < height).then_some(y + dy);
                for target in y.checked_sub(dy).into_iter().chain(below) {
                    for (out, bits) in out[target * width..][..width].iter_mut().zip(&wide) {
                        *out |= bits;
                    }
                }
            }
        }
    }
    out
}

/// Combines each pixel with its left and right neighbours.
fn widen(row: &[ClassBits], out: &mut [ClassBits]) {
    let last = row.len() - 1;
    if last == 0 {
        out[0] = row[0];
        return;
    }
    out[0] = row[0] | row[1];
    out[last] = row[last] | row[last - 1];
    for (out, three) in out[1..last].iter_mut().zip(row.windows(3)) {
        *out = three[0] | three[1] | three[2];
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::random;

    /// A mask with class 0 left of the column `edge` and class 1 elsewhere.
    fn halves(width: usize, height: usize, edge: usize) -> Vec<u8> {
        (0..width * height).map(|at| u8::from(at % width >= edge)).collect()
    }

    #[test]
    fn a_boundary_within_the_tolerance_is_right() {
        // The diagonal of 60×80 is 100: the tolerance is 2.5 pixels.
        let score = |shift: usize| {
            let mut measure = BoundaryF1::with_tolerance(2, 0.025);
            measure.add(&halves(60, 80, 30), &halves(60, 80, 30 + shift), 60).unwrap().unwrap()
        };
        assert_eq!(score(0), 1.0);
        assert_eq!(score(2), 1.0);
        assert_eq!(score(3), 0.0);
    }

    #[test]
    fn scores_agree_with_values_computed_by_hand() {
        // Diagonal 5, tolerance 1.25: a pixel and its four neighbours. The labels' border runs down all four rows;
        // the prediction has it in the upper two rows only, one class below.
        let labels = halves(3, 4, 1);
        let mut prediction = labels.clone();
        prediction[6..].fill(0);
        // Class 0: labelled (0..4, 0); predicted (0,0), (1,0) as columns, and row 2 below class 1: (2,1), (2,2).
        // Precision: (0,0), (1,0) right; (2,1) is next to (2,0), right; (2,2) is not: 3/4.
        // Recall: (0,0), (1,0) right; (2,0) is next to (2,1), right; (3,0) has nothing near: 3/4.
        // Class 1: labelled (0..4, 1); predicted (0,1), (1,1), (1,2).
        // Precision: 3/3. Recall: (0,1), (1,1), (2,1) right; (3,1) not: 3/4.
        let mut measure = BoundaryF1::with_tolerance(2, 0.25);
        let score = measure.add(&labels, &prediction, 3).unwrap().unwrap();
        let second = 2.0 * 0.75 / 1.75;
        assert!((score - f64::midpoint(0.75, second)).abs() < 1e-12, "{score}");
        assert!((measure.classes()[0].unwrap() - 0.75).abs() < 1e-12);
        assert!((measure.classes()[1].unwrap() - second).abs() < 1e-12);
    }

    #[test]
    fn void_has_no_boundary_and_predictions_on_it_are_not_counted() {
        let mut labels = halves(20, 20, 10);
        labels.iter_mut().skip(200).for_each(|label| *label = VOID);
        let mut prediction = halves(20, 20, 10);
        prediction[300..320].fill(1);
        let mut measure = BoundaryF1::new(2);
        assert_eq!(measure.add(&labels, &prediction, 20), Ok(Some(1.0)));
        assert_eq!(measure.add(&[0; 400], &[0; 400], 20), Ok(None), "no boundary, no score");
        assert_eq!(measure.mean(), Some(1.0));
        assert_eq!(measure.add(&[0; 10], &[0; 10], 3), Err(MetricsError::Width { pixels: 10, width: 3 }));
    }

    /// The classes are in three groups.
    #[test]
    fn scores_agree_with_a_direct_computation() {
        let (width, height, classes) = (37, 23, 70);
        let mut rng = random::generator(5, &[]);
        let mut image = || {
            let mut classes: Vec<u8> = vec![0; width * height];
            for _ in 0..30 {
                let (x, y) = (rng.random_range(0..width), rng.random_range(0..height));
                let class = [0, 1, 31, 32, 69, VOID][rng.random_range(0..6)];
                for (dx, dy) in (0..7).flat_map(|dx| (0..5).map(move |dy| (dx, dy))) {
                    if x + dx < width && y + dy < height {
                        classes[(y + dy) * width + x + dx] = class;
                    }
                }
            }
            classes
        };
        for _ in 0..5 {
            let labels = image();
            let prediction: Vec<u8> = image().iter().map(|&class| if class == VOID { 3 } else { class }).collect();
            let mut measure = BoundaryF1::with_tolerance(classes, 0.08);
            let score = measure.add(&labels, &prediction, width).unwrap().unwrap();

            let masked: Vec<u8> =
                labels.iter().zip(&prediction).map(|(&l, &p)| if l == VOID { VOID } else { p }).collect();
            let (b, p) = (boundaries(&labels, width), boundaries(&masked, width));
            let radius = 0.08 * (width as f64).hypot(height as f64);
            let right = |of: &[u8], other: &[u8], class: u8| {
                let at = |n: usize| ((n % width) as f64, (n / width) as f64);
                let mine: Vec<usize> = (0..of.len()).filter(|&n| of[n] == class).collect();
                let near = |&&n: &&usize| {
                    (0..other.len()).any(|m| other[m] == class && (at(n).0 - at(m).0).hypot(at(n).1 - at(m).1) < radius)
                };
                (mine.iter().filter(near).count() as f64, mine.len() as f64)
            };
            let mut scores = Vec::new();
            for class in 0..classes as u8 {
                let ((tp, predicted), (found, labelled)) = (right(&p, &b, class), right(&b, &p, class));
                if predicted + labelled > 0.0 {
                    let (precision, recall) = (tp / predicted.max(1.0), found / labelled.max(1.0));
                    scores.push(2.0 * precision * recall / (precision + recall).max(1e-300));
                }
            }
            let expected = scores.iter().sum::<f64>() / scores.len() as f64;
            assert!((score - expected).abs() < 1e-12, "{score} is not {expected}");
        }
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let (a, b) = (halves(60, 80, 30), halves(60, 80, 40));
        let mut whole = BoundaryF1::new(2);
        let mut part = BoundaryF1::new(2);
        whole.add(&a, &a, 60).unwrap();
        part.add(&a, &b, 60).unwrap();
        whole.merge(&part).unwrap();
        assert_eq!(whole.mean(), Some(0.5));
        assert_eq!(whole.classes(), [Some(0.5), Some(0.5)]);
    }
}
