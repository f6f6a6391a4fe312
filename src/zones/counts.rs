//! The pixels of each class in a mask and in its zones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Zone;
use crate::frame::{ClassId, Label};

/// The pixels of each class in one area of a mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// The number of pixels of the area.
    pixels: u32,
    /// By class, up to the highest class that occurs.
    by_class: Box<[u32]>,
}

impl ClassCounts {
    /// From the number of pixels of each class.
    pub fn new(counts: &[u32; 256]) -> Self {
        let len = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        ClassCounts { pixels: counts.iter().sum(), by_class: counts[..len].into() }
    }

    /// The number of pixels of the area.
    pub fn pixels(&self) -> u32 {
        self.pixels
    }

    /// The number of pixels of a class.
    pub fn of(&self, class: ClassId) -> u32 {
        self.by_class.get(usize::from(class)).copied().unwrap_or(0)
    }

    /// The share of the pixels whose class is in `classes`, 0 to 1; 0 for an area without pixels.
    pub fn share(&self, classes: &[bool; 256]) -> f64 {
        let found: u32 =
            self.by_class.iter().zip(classes).filter(|(_, is_wanted)| **is_wanted).map(|(count, _)| count).sum();
        f64::from(found) / f64::from(self.pixels.max(1))
    }

    /// The share of each class that occurs, by name. Classes with the same name count together; a class without a label is
    /// named by its index.
    pub fn shares_by_name(&self, labels: &[Label]) -> BTreeMap<String, f64> {
        let mut counts = BTreeMap::<String, u32>::new();
        for (class, &count) in self.by_class.iter().enumerate().filter(|(_, count)| **count > 0) {
            let name = labels.get(class).map_or_else(|| class.to_string(), |label| label.name.clone());
            *counts.entry(name).or_default() += count;
        }
        let pixels = f64::from(self.pixels.max(1));
        counts.into_iter().map(|(name, count)| (name, f64::from(count) / pixels)).collect()
    }
}

/// The pixels of each class in a mask: in the whole frame and in each zone of the stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskCounts {
    /// The whole frame.
    pub frame: ClassCounts,
    /// All zones of the stream, in the order of its [`Zones`](super::Zones), with those that only a rule uses.
    pub zones: Vec<(Arc<Zone>, ClassCounts)>,
}

impl MaskCounts {
    /// The zones that have a name.
    pub fn named(&self) -> impl Iterator<Item = (&Arc<str>, &ClassCounts)> {
        self.zones.iter().filter_map(|(zone, counts)| Some((zone.name.as_ref()?, counts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rgb;

    #[test]
    fn shares_are_of_the_area_and_have_the_names_of_the_classes() {
        let mut counts = [0; 256];
        (counts[0], counts[2], counts[3], counts[9]) = (10, 20, 30, 40);
        let counts = ClassCounts::new(&counts);
        assert_eq!((counts.pixels(), counts.of(2), counts.of(1), counts.of(255)), (100, 20, 0, 0));
        let labels: Vec<Label> = ["sky", "cat", "car", "car"].map(|name| Label::new(name, Rgb(0, 0, 0))).into();
        let shares = counts.shares_by_name(&labels);
        let expected = [("9", 0.4), ("car", 0.5), ("sky", 0.1)].map(|(name, share)| (name.to_owned(), share));
        assert_eq!(shares, BTreeMap::from(expected));
        let mut wanted = [false; 256];
        (wanted[0], wanted[3], wanted[200]) = (true, true, true);
        assert_eq!(counts.share(&wanted), 0.4);
        assert_eq!(ClassCounts::new(&[0; 256]).share(&wanted), 0.0);
    }
}
