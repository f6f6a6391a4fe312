//! Measures the shares of classes in the masks of one stream.

use std::sync::Arc;

use super::counts::{ClassCounts, MaskCounts};
use super::pixels::ZonePixels;
use super::runs::MaskRuns;
use super::{Zone, Zones};
use crate::frame::Mask;

/// Counts the pixels of each class in the frame and the zones of a stream, mask by mask.
#[derive(Debug)]
pub struct ZoneMeter {
    zones: Zones,
    /// The size of the masks that `pixels` is for.
    size: (usize, usize),
    /// The pixels of each zone.
    pixels: Vec<ZonePixels>,
    runs: MaskRuns,
}

impl ZoneMeter {
    /// A meter for `zones`.
    pub fn new(zones: Zones) -> Self {
        ZoneMeter { zones, size: (0, 0), pixels: Vec::new(), runs: MaskRuns::default() }
    }

    /// Measures in these zones from the next mask on.
    pub fn set_zones(&mut self, zones: &Zones) {
        if !Arc::ptr_eq(&self.zones, zones) {
            self.zones = Arc::clone(zones);
            self.size = (0, 0);
        }
    }

    /// The counts of one mask.
    pub fn measure(&mut self, mask: &Mask) -> MaskCounts {
        if self.size != (mask.width, mask.height) {
            self.size = (mask.width, mask.height);
            let pixels = |zone: &Arc<Zone>| ZonePixels::of(&zone.polygon, mask.width, mask.height);
            self.pixels = self.zones.iter().map(pixels).collect();
        }
        self.runs.set(&mask.classes, mask.width);
        let count = |pixels: &ZonePixels| {
            let mut counts = [0; 256];
            pixels.runs().iter().for_each(|run| self.runs.count(run.start, run.end, &mut counts));
            ClassCounts::new(&counts)
        };
        let mut frame = [0; 256];
        self.runs.count(0, mask.classes.len(), &mut frame);
        MaskCounts {
            frame: ClassCounts::new(&frame),
            zones: self.zones.iter().cloned().zip(self.pixels.iter().map(count)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn zone(name: &str, polygon: &[[f64; 2]]) -> Arc<Zone> {
        Arc::new(Zone { name: Some(name.into()), polygon: polygon.to_vec() })
    }

    fn mask(width: usize, height: usize, class: impl Fn(usize, usize) -> u8) -> Mask {
        let classes = (0..width * height).map(|at| class(at % width, at / width)).collect();
        let (seq, pts, captured_at, labels, model) = (0, Duration::ZERO, Instant::now(), [].into(), "m".into());
        Mask {
            seq,
            pts,
            captured_at,
            width,
            height,
            classes,
            labels,
            model,
            guide: None,
            probable: None,
            confirmed: false,
        }
    }

    #[test]
    fn zones_are_counted_exactly_in_masks_of_any_size() {
        let zones: Zones = [
            zone("left", &[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]),
            zone("corner", &[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        ]
        .into();
        let mut meter = ZoneMeter::new(Arc::clone(&zones));
        for (width, height) in [(8, 4), (512, 288), (7, 3)] {
            let mask = mask(width, height, |x, y| u8::from(x > y) * 3);
            let counts = meter.measure(&mask);
            for (zone, found) in &counts.zones {
                let mut expected = [0; 256];
                for at in 0..width * height {
                    let (x, y) = ((at % width) as f64 + 0.5, (at / width) as f64 + 0.5);
                    let (x, y) = (x / width as f64, y / height as f64);
                    let is_inside = if zone.name.as_deref() == Some("left") { x < 0.5 } else { x + y < 1.0 };
                    expected[usize::from(mask.classes[at])] += u32::from(is_inside);
                }
                assert_eq!(*found, ClassCounts::new(&expected), "{zone:?} {width}x{height}");
            }
            assert_eq!(counts.frame.pixels() as usize, width * height);
        }
        let other: Zones = [zone("all", &[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])].into();
        meter.set_zones(&other);
        let counts = meter.measure(&mask(7, 3, |_, _| 1));
        assert_eq!(counts.named().map(|(name, counts)| (&**name, counts.of(1))).collect::<Vec<_>>(), [("all", 21)]);
    }
}
