//! Intersection over union of two models on the same images, and the interval of their difference.

/// The label of pixels that count nowhere.
pub const VOID: u8 = 255;

/// Resamples of the images.
const RESAMPLES: usize = 2000;

/// The share of the interval, in [0, 1].
pub const CONFIDENCE: f64 = 0.95;

/// Fewer images never make a verdict: even if all of them improved, chance does that to five images in one of 16 comparisons (a
/// sign test on both sides).
pub const FEWEST_IMAGES: usize = 6;

/// Pixels of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// With the label.
    pub labelled: u64,
    /// Predicted as the class.
    pub predicted: u64,
    /// Both.
    pub correct: u64,
}

impl ClassCounts {
    /// Intersection over union, 0 to 1; `None` for a class that is neither in the labels nor in the predictions.
    pub fn iou(self) -> Option<f64> {
        let union = self.labelled + self.predicted - self.correct;
        (union > 0).then(|| self.correct as f64 / union as f64)
    }
}

/// Pixels by class, of an image or of several. Pixels labelled [`VOID`] are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<ClassCounts>);

impl Counts {
    /// No pixels.
    pub fn new(classes: usize) -> Counts {
        Counts(vec![ClassCounts::default(); classes])
    }

    /// Counts the pixels of an image. Labels and predictions that are not below `classes` are not counted for a class; a prediction
    /// like that is wrong all the same.
    pub fn of(labels: &[u8], predictions: &[u8], classes: usize) -> Counts {
        let mut counts = Counts::new(classes);
        for (&label, &predicted) in labels.iter().zip(predictions).filter(|(label, _)| **label != VOID) {
            if let Some(class) = counts.0.get_mut(usize::from(label)) {
                class.labelled += 1;
                class.correct += u64::from(label == predicted);
            }
            if let Some(class) = counts.0.get_mut(usize::from(predicted)) {
                class.predicted += 1;
            }
        }
        counts
    }

    /// Adds the pixels of another image.
    pub fn add(&mut self, other: &Counts) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            sum.labelled += more.labelled;
            sum.predicted += more.predicted;
            sum.correct += more.correct;
        }
    }

    /// Mean IoU (0 to 1) over the classes in the labels for which `counts` is true; `None` without any.
    pub fn miou(&self, counts: &[bool]) -> Option<f64> {
        let labelled = self.0.iter().zip(counts).filter(|(class, counts)| **counts && class.labelled > 0);
        let ious: Vec<f64> = labelled.filter_map(|(class, _)| class.iou()).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }
}

/// The pixels of one image by two models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairedCounts {
    pub old: Counts,
    pub new: Counts,
}

impl PairedCounts {
    /// The sum over images.
    pub fn sum(images: &[PairedCounts], classes: usize) -> PairedCounts {
        let mut sum = PairedCounts { old: Counts::new(classes), new: Counts::new(classes) };
        images.iter().for_each(|image| sum.add(image));
        sum
    }

    fn add(&mut self, image: &PairedCounts) {
        self.old.add(&image.old);
        self.new.add(&image.new);
    }

    /// mIoU of the new model less that of the old one.
    pub fn difference(&self, counts: &[bool]) -> Option<f64> {
        Some(self.new.miou(counts)? - self.old.miou(counts)?)
    }
}

/// The interval in which the difference of the mIoUs lies, with the probability [`CONFIDENCE`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The interval of [`PairedCounts::difference`] over all images, by the bootstrap of pairs: the images are drawn with replacement, and
/// both models are measured on the same draw (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
/// The bootstrap makes intervals of few images too narrow. They are widened by the factor by which the t interval of a mean is wider
/// than the normal one with the variance over n (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4).
/// `None` without images or labels. The same images give the same interval.
pub fn interval(images: &[PairedCounts], classes: usize, counts: &[bool]) -> Option<Interval> {
    let estimate = PairedCounts::sum(images, classes).difference(counts)?;
    let mut random = fastrand::Rng::with_seed(0);
    let mut differences: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let mut sum = PairedCounts { old: Counts::new(classes), new: Counts::new(classes) };
            (0..images.len()).for_each(|_| sum.add(&images[random.usize(..images.len())]));
            sum.difference(counts)
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    let at = |share: f64| differences.get(((differences.len() as f64 - 1.0) * share).round() as usize).copied();
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let wider = widening(images.len());
    let bound = |value: f64| estimate + (value - estimate) * wider;
    Some(Interval { low: bound(at(tail)?), high: bound(at(1.0 - tail)?) })
}

/// The quantile of the normal distribution that [`CONFIDENCE`] needs on each side.
const NORMAL_QUANTILE: f64 = 1.959_964;

/// How much wider the t interval of the mean of `n` values is than the normal one with the variance over `n`.
fn widening(n: usize) -> f64 {
    let Some(freedom) = n.checked_sub(1).filter(|&freedom| freedom > 0) else { return f64::INFINITY };
    let (z, v) = (NORMAL_QUANTILE, freedom as f64);
    // Cornish and Fisher's expansion of the quantile of Student's distribution (Abramowitz and Stegun, 26.7.5).
    let t = z
        + (z.powi(3) + z) / (4.0 * v)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v.powi(2))
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * v.powi(3));
    t / z * (n as f64 / v).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [bool; 2] = [true, true];

    #[test]
    fn iou_counts_void_nowhere_and_a_class_of_no_name_as_wrong() {
        let counts = Counts::of(&[0, 0, 0, 1, 1, VOID], &[0, 0, 1, 1, 200, 0], 2);
        assert_eq!(counts.0[0], ClassCounts { labelled: 3, predicted: 2, correct: 2 });
        assert_eq!(counts.0[1], ClassCounts { labelled: 2, predicted: 2, correct: 1 });
        assert_eq!(counts.0[0].iou(), Some(2.0 / 3.0));
        assert_eq!(counts.0[1].iou(), Some(1.0 / 3.0));
        assert!((counts.miou(&BOTH).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(counts.miou(&[true, false]), Some(2.0 / 3.0));
        assert_eq!(Counts::new(2).miou(&BOTH), None);
    }

    /// An image of 100 pixels of each class, of which both models get as many right as is said.
    fn image(old: u64, new: u64) -> PairedCounts {
        let counts = |correct: u64| Counts(vec![ClassCounts { labelled: 100, predicted: 100, correct }; 2]);
        PairedCounts { old: counts(old), new: counts(new) }
    }

    #[test]
    fn a_clear_gain_on_many_images_excludes_zero_and_noise_does_not() {
        let better: Vec<PairedCounts> = (0..40).map(|n| image(60 + n % 7, 70 + n % 5)).collect();
        let found = interval(&better, 2, &BOTH).unwrap();
        assert!(found.low > 0.05 && found.high < 0.2, "{found:?}");
        let noise: Vec<PairedCounts> = (0..40).map(|n| image(60 + n * 7 % 13, 60 + n * 5 % 13)).collect();
        let found = interval(&noise, 2, &BOTH).unwrap();
        assert!(found.low < 0.0 && found.high > 0.0, "{found:?}");
        assert_eq!(interval(&noise, 2, &BOTH), Some(found), "the same images give the same interval");
        assert_eq!(interval(&[], 2, &BOTH), None);
    }

    #[test]
    fn intervals_of_few_images_are_as_much_wider_as_with_students_distribution() {
        // scipy.stats.t.ppf(0.975, n - 1) / scipy.stats.norm.ppf(0.975) * sqrt(n / (n - 1))
        for (n, expected) in [(6, 1.4367), (11, 1.1923), (41, 1.0440)] {
            assert!((widening(n) - expected).abs() < 2e-3, "{n}: {}", widening(n));
        }
        assert_eq!(widening(1), f64::INFINITY);
    }
}
