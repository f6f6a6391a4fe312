//! Counts class indices without a label, which a model with more classes than labels returns.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::base::log_dedup;
use crate::frame::ClassId;

/// Counter of the mask pixels whose class has no label. Shared by all workers of a model.
#[derive(Debug, Default)]
pub struct Unlabelled {
    pixels: AtomicU64,
    highest: AtomicU8,
}

impl Unlabelled {
    /// Counts the pixels of a mask without a label, and logs a warning with the name of the stream.
    pub(super) fn count(&self, stream: &str, classes: &[ClassId], labels: usize) {
        let Some((pixels, highest)) = count_unlabelled(classes, labels) else { return };
        self.pixels.fetch_add(pixels, Ordering::Relaxed);
        self.highest.fetch_max(highest, Ordering::Relaxed);
        log_dedup::warn(stream, "segment", &unlabelled_warning(pixels as f64 / classes.len() as f64, highest, labels));
    }

    /// Number of pixels without a label.
    pub fn pixels(&self) -> u64 {
        self.pixels.load(Ordering::Relaxed)
    }

    /// The highest class index without a label. 255 means 255 or more, or a negative index.
    pub fn highest(&self) -> Option<ClassId> {
        (self.pixels() > 0).then(|| self.highest.load(Ordering::Relaxed))
    }
}

/// The number of pixels whose class has no label, and the highest of these classes; `None` when all have labels.
pub(super) fn count_unlabelled(classes: &[ClassId], labels: usize) -> Option<(u64, ClassId)> {
    // For most masks the maximum already shows that all classes have labels.
    let highest = classes.iter().copied().max().filter(|&highest| usize::from(highest) >= labels)?;
    let pixels = classes.iter().filter(|&&class| usize::from(class) >= labels).count();
    Some((pixels as u64, highest))
}

/// The warning about a `share` of pixels (0 to 1) without a label.
pub(super) fn unlabelled_warning(share: f64, highest: ClassId, labels: usize) -> String {
    let which = if highest == ClassId::MAX { "of 255 and more, or below 0".into() } else { format!("up to {highest}") };
    let help = if highest == ClassId::MAX && labels == 2 {
        "write threshold = 127 into [output] of the model's manifest if it returns 0 and 255 for two classes"
    } else {
        "give all classes a label, in the order of the model"
    };
    format!(
        "the mask has class indices without a label: {:.1} % of its pixels have indices {which}, but the {labels} labels of the model end at {}; these pixels are not drawn; {help}",
        share * 100.0,
        labels - 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_without_a_label_are_summed_over_masks() {
        let unlabelled = Unlabelled::default();
        unlabelled.count("test", &[0, 1, 1, 0], 2);
        assert_eq!((unlabelled.pixels(), unlabelled.highest()), (0, None));
        unlabelled.count("test", &[0, 1, 2, 3], 2);
        unlabelled.count("test", &[0, 1, 1, 2], 2);
        assert_eq!((unlabelled.pixels(), unlabelled.highest()), (3, Some(3)));
    }

    #[test]
    fn the_warning_has_the_share_and_the_highest_class() {
        assert_eq!(count_unlabelled(&[0, 1, 2, 3], 2), Some((2, 3)));
        let text = unlabelled_warning(0.5, 3, 2);
        assert!(
            text.contains("50.0 %") && text.contains("up to 3") && text.contains("2 labels of the model end at 1"),
            "{text}"
        );
        let text = unlabelled_warning(0.5, 255, 2);
        assert!(text.contains("below 0") && text.contains("threshold = 127"), "{text}");
        assert!(unlabelled_warning(0.5, 255, 3).contains("give all classes a label"));
    }
}
