//! Which classes are in the frame: from the number of their pixels in each mask, with hysteresis, so that a class at the
//! limit does not appear and disappear.

use std::time::Duration;

use crate::frame::{ClassId, Mask};

/// A class appears with this share of the pixels that the model saw: one in 500.
const APPEARS: f64 = 0.002;
/// It stays while it has this share.
const STAYS: f64 = 0.001;
/// It disappears when it has had less for this time of the video.
const KEEP: Duration = Duration::from_secs(2);

/// The classes in the frame of one stream.
pub(super) struct Presence {
    /// Sequence number and address of the mask that was counted last.
    counted: Option<(u64, usize)>,
    /// Its presentation time.
    at: Duration,
    /// For each class in the frame, when it was last seen.
    seen: [Option<Duration>; 256],
    /// Pixels of each class in the last mask.
    pixels: [u32; 256],
}

impl Default for Presence {
    fn default() -> Self {
        Presence { counted: None, at: Duration::ZERO, seen: [None; 256], pixels: [0; 256] }
    }
}

impl Presence {
    /// Counts the pixels of `mask`, unless it is the mask of the last call. Returns whether a class has appeared or disappeared.
    pub fn update(&mut self, mask: &Mask) -> bool {
        let identity = Some((mask.seq, mask.classes.as_ptr().addr()));
        if self.counted == identity {
            return false;
        }
        self.counted = identity;
        self.pixels = histogram(&mask.classes);
        // Presentation times of some sources start again.
        if mask.pts < self.at {
            self.seen.iter_mut().flatten().for_each(|seen| *seen = mask.pts);
        }
        self.at = mask.pts;
        let mut is_changed = false;
        for (seen, &pixels) in self.seen.iter_mut().zip(&self.pixels) {
            let share = f64::from(pixels) / mask.seen_pixels().max(1) as f64;
            let before = *seen;
            if share >= if before.is_some() { STAYS } else { APPEARS } {
                *seen = Some(mask.pts);
            } else if before.is_some_and(|last| mask.pts - last >= KEEP) {
                *seen = None;
            }
            is_changed |= before.is_some() != seen.is_some();
        }
        is_changed
    }

    pub fn contains(&self, class: ClassId) -> bool {
        self.seen[usize::from(class)].is_some()
    }

    /// Pixels of the class in the last mask.
    pub fn pixels(&self, class: ClassId) -> u32 {
        self.pixels[usize::from(class)]
    }
}

/// Number of pixels of each class.
fn histogram(classes: &[ClassId]) -> [u32; 256] {
    const RUN: usize = 16;
    let mut pixels = [0; 256];
    let (runs, rest) = classes.as_chunks::<RUN>();
    for run in runs {
        // Most runs of a mask have one class.
        if *run == [run[0]; RUN] {
            pixels[usize::from(run[0])] += RUN as u32;
        } else {
            run.iter().for_each(|&class| pixels[usize::from(class)] += 1);
        }
    }
    rest.iter().for_each(|&class| pixels[usize::from(class)] += 1);
    pixels
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A mask of 10 000 pixels, `pixels` of them of class 1, the others of class 0.
    fn mask(millis: u64, pixels: usize) -> Mask {
        let classes = (0..10_000).map(|n| u8::from(n < pixels)).collect();
        let pts = Duration::from_millis(millis);
        let (captured_at, labels) = (Instant::now(), [].into());
        Mask {
            seq: millis,
            pts,
            captured_at,
            width: 100,
            height: 100,
            classes,
            labels,
            model: "".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        }
    }

    #[test]
    fn a_class_appears_at_once_and_disappears_after_two_seconds() {
        let mut presence = Presence::default();
        for (millis, pixels, is_changed, is_present) in [
            (0, 19, true, false),
            (100, 20, true, true),
            (200, 10, false, true),
            (300, 9, false, true),
            (2100, 0, false, true),
            (2199, 0, false, true),
            (2200, 0, true, false),
            (2300, 19, false, false),
            (2400, 20, true, true),
        ] {
            let mask = mask(millis, pixels);
            assert_eq!((presence.update(&mask), presence.contains(1)), (is_changed, is_present), "at {millis} ms");
            assert!(presence.contains(0) && !presence.contains(2));
            assert!(!presence.update(&mask), "the same mask is counted once");
            assert_eq!(presence.pixels(1), pixels as u32);
        }
    }

    #[test]
    fn a_class_that_is_seen_again_in_time_stays() {
        let mut presence = Presence::default();
        presence.update(&mask(0, 5000));
        for step in 1..20 {
            let seen = step % 4 == 0;
            assert!(!presence.update(&mask(500 * step, if seen { 30 } else { 0 })) && presence.contains(1), "{step}");
        }
    }

    #[test]
    fn times_that_start_again_keep_the_classes() {
        let mut presence = Presence::default();
        presence.update(&mask(60_000, 5000));
        assert!(!presence.update(&mask(0, 0)) && presence.contains(1));
        assert!(!presence.update(&mask(1900, 0)) && presence.contains(1));
        assert!(presence.update(&mask(2000, 0)) && !presence.contains(1));
    }

    #[test]
    fn every_pixel_is_counted() {
        let classes: Vec<u8> = (0..1000u32).map(|n| (n * n / 7 % 5) as u8).chain([9; 37]).collect();
        let counted = histogram(&classes);
        for class in 0..=255 {
            assert_eq!(counted[usize::from(class)], classes.iter().filter(|&&other| other == class).count() as u32);
        }
        assert_eq!(histogram(&[]), [0; 256]);
    }

    #[test]
    fn a_class_has_a_share_of_the_pixels_that_the_model_saw() {
        let mut presence = Presence::default();
        let mut cropped = mask(0, 2);
        assert!(presence.update(&cropped) && !presence.contains(1), "2 of 10 000 pixels");
        cropped.seq = 1;
        cropped.seen = Some(crate::frame::PixelArea { left: 0, top: 0, width: 100, height: 10 });
        assert!(presence.update(&cropped) && presence.contains(1), "2 of 1000 pixels");
    }

    #[test]
    fn an_empty_mask_has_no_class() {
        let mut presence = Presence::default();
        presence.update(&Mask { classes: Vec::new(), width: 0, height: 0, ..mask(0, 0) });
        assert!((0..=255).all(|class| !presence.contains(class)));
    }
}
