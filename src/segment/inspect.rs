//! The result of a model for a test image, computed when the model is loaded. It shows values, shapes and classes that the
//! file does not declare.

use super::unlabelled::{count_unlabelled, unlabelled_warning};
use crate::frame::{ClassId, Label};

/// The mask that a model returned for the test image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    classes: Vec<ClassId>,
    /// A warning about unexpected values of the output.
    pub(super) warning: Option<String>,
}

/// Columns of the test image, RGB.
const BARS: [[u8; 3]; 7] =
    [[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0], [0, 255, 0], [0, 0, 255], [160, 120, 90]];

/// Share of pixels (0 to 1) from which on a second class counts.
const MIN_SECOND_SHARE: f64 = 0.01;

/// The test image, `[height, width, 3]` RGB: bars of full colours, dark in the lower third, then a gradient and noise.
pub(super) fn test_image(width: usize, height: usize) -> Vec<u8> {
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
    pub(super) fn new(classes: Vec<ClassId>, warning: Option<String>) -> Self {
        Inspection { classes, warning }
    }

    /// Classes and their shares of the image (0 to 1), the largest first.
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

    /// Classes and shares in one line: `road 61.2 %, sky 38.8 %`.
    pub fn describe(&self, labels: &[Label]) -> String {
        let share = |(class, share): (ClassId, f64)| {
            let name = labels
                .get(usize::from(class))
                .map_or_else(|| format!("class {class} (no label)"), |label| label.name.clone());
            format!("{name} {:.1} %", share * 100.0)
        };
        self.shares().into_iter().map(share).collect::<Vec<_>>().join(", ")
    }

    /// Whether nearly all pixels are of one class.
    pub(super) fn is_single(&self) -> bool {
        self.shares().get(1).is_none_or(|&(_, share)| share < MIN_SECOND_SHARE)
    }

    /// A warning about classes without a label.
    pub fn unlabelled(&self, labels: usize) -> Option<String> {
        let (pixels, highest) = count_unlabelled(&self.classes, labels)?;
        let share = pixels as f64 / self.classes.len() as f64;
        Some(format!("on a test image, {}", unlabelled_warning(share, highest, labels)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_image_has_all_colours_at_every_size() {
        let image = test_image(90, 30);
        assert_eq!(image.len(), 90 * 30 * 3);
        let pixel = |x: usize, y: usize| &image[(y * 90 + x) * 3..][..3];
        assert_eq!((pixel(5, 3), pixel(15, 3), pixel(35, 3)), (&[0, 0, 0][..], &[255; 3][..], &[255, 0, 0][..]));
        assert_eq!(pixel(35, 29), [85, 0, 0]);
        for (width, height) in [(1, 1), (3, 2), (8, 1)] {
            assert_eq!(test_image(width, height).len(), width * height * 3);
        }
    }

    #[test]
    fn describe_names_the_classes_and_shares() {
        let labels = ["else", "red"].map(|name| Label::new(name, crate::frame::Rgb(0, 0, 0)));
        let inspection = Inspection::new(vec![0, 0, 1, 4], None);
        assert_eq!(inspection.describe(&labels), "else 50.0 %, red 25.0 %, class 4 (no label) 25.0 %");
        assert!(inspection.unlabelled(2).unwrap().contains("25.0 %"));
        assert_eq!(inspection.unlabelled(5), None);
        assert!(!inspection.is_single() && Inspection::new(vec![1; 9], None).is_single());
    }
}
