//! Measures the shares of classes in the masks of one stream.

use std::sync::Arc;

use super::Zones;
use super::counts::{ClassCounts, MaskCounts};
use super::pixels::ZonePixels;
use super::runs::MaskRuns;
use crate::frame::{Mask, PixelArea};

/// Counts the pixels of each class in the frame and the zones of a stream, mask by mask.
#[derive(Debug)]
pub struct ZoneMeter {
    zones: Zones,
    /// The shape of the masks that `frame` and `pixels` are for.
    shape: Option<MaskShape>,
    /// The pixels of the frame that the model saw.
    frame: ZonePixels,
    /// The pixels of each zone that the model saw.
    pixels: Vec<ZonePixels>,
    runs: MaskRuns,
}

/// Width, height, and the pixels that the model saw.
type MaskShape = (usize, usize, Option<PixelArea>);

impl ZoneMeter {
    /// A meter for `zones`.
    pub fn new(zones: Zones) -> Self {
        ZoneMeter { zones, shape: None, frame: ZonePixels::default(), pixels: Vec::new(), runs: MaskRuns::default() }
    }

    /// Measures in these zones from the next mask on.
    pub fn set_zones(&mut self, zones: &Zones) {
        if !Arc::ptr_eq(&self.zones, zones) {
            self.zones = Arc::clone(zones);
            self.shape = None;
        }
    }

    /// The counts of one mask: of the pixels that the model saw.
    pub fn measure(&mut self, mask: &Mask) -> MaskCounts {
        let shape = (mask.width, mask.height, mask.seen);
        if self.shape != Some(shape) {
            self.shape = Some(shape);
            let seen = |pixels: ZonePixels| match mask.seen {
                Some(area) => pixels.inside(&area, mask.width),
                None => pixels,
            };
            let pixels = |polygon: &[[f64; 2]]| seen(ZonePixels::of(polygon, mask.width, mask.height));
            self.frame = pixels(&[]);
            self.pixels = self.zones.iter().map(|zone| pixels(&zone.polygon)).collect();
        }
        self.runs.set(&mask.classes, mask.width);
        let count = |pixels: &ZonePixels| {
            let mut counts = [0; 256];
            pixels.runs().iter().for_each(|run| self.runs.count(run.start, run.end, &mut counts));
            ClassCounts::new(&counts)
        };
        MaskCounts {
            frame: count(&self.frame),
            zones: self.zones.iter().cloned().zip(self.pixels.iter().map(count)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::UNSEEN;
    use crate::zones::Zone;

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
            seen: None,
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

    #[test]
    fn only_pixels_that_the_model_saw_are_counted() {
        let zones: Zones = [
            zone("half inside", &[[0.25, 0.0], [0.75, 0.0], [0.75, 1.0], [0.25, 1.0]]),
            zone("inside", &[[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]]),
        ]
        .into();
        let mut meter = ZoneMeter::new(zones);
        // The right half is seen: its upper half is class 1, its lower half is class 2.
        let area = PixelArea { left: 8, top: 0, width: 8, height: 12 };
        let mut cropped = mask(16, 12, |x, y| match (x, y) {
            (0..8, _) => UNSEEN,
            (_, 0..6) => 1,
            _ => 2,
        });
        cropped.seen = Some(area);
        let counts = meter.measure(&cropped);
        assert_eq!((counts.frame.pixels(), counts.frame.of(1), counts.frame.of(UNSEEN)), (96, 48, 0));
        let (half, inside) = (&counts.zones[0].1, &counts.zones[1].1);
        assert_eq!((half.pixels(), half.of(1), half.of(2), half.of(UNSEEN)), (48, 24, 24, 0));
        assert!(inside.pixels() > 20 && inside.of(2) == inside.pixels(), "{inside:?}");
        // The same stream without a crop, with masks of the same size.
        cropped.seen = None;
        let counts = meter.measure(&cropped);
        assert_eq!((counts.frame.pixels(), counts.frame.of(UNSEEN), counts.zones[0].1.pixels()), (192, 96, 96));
    }
}
