//! Masks of crops: a mask of the crop of a frame becomes a part of the mask of the frame.

use crate::frame::{ClassId, PixelArea, UNSEEN};

/// One direction of a mask of a frame: the pixels of it before the crop, those of the crop, and those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    before: usize,
    inside: usize,
    after: usize,
}

impl Span {
    /// For a mask of `mask` pixels of the part `start..start + length` of an image side of `size` pixels.
    ///
    /// The pixels of the mask keep their size, unless they are smaller than those of the image: the mask of the frame never has more
    /// pixels than the frame.
    fn new(mask: usize, (start, length): (usize, usize), size: usize) -> Self {
        let rest = size - start - length;
        if mask >= length {
            return Span { before: start, inside: length, after: rest };
        }
        let scaled = |pixels: usize| (2 * pixels * mask + length) / (2 * length);
        Span { before: scaled(start), inside: mask, after: scaled(rest) }
    }

    fn length(self) -> usize {
        self.before + self.inside + self.after
    }

    /// The pixels of the crop's own mask that are in the mask of the frame.
    fn sources(self, mask: usize) -> impl Iterator<Item = usize> {
        // Pixel centres are at half integers.
        (0..self.inside).map(move |at| (2 * at + 1) * mask / (2 * self.inside))
    }
}

/// A mask of a whole frame, whose pixels outside of the crop are [`UNSEEN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FramedMask {
    pub classes: Vec<ClassId>,
    /// Width and height.
    pub size: (usize, usize),
    /// The pixels of the crop.
    pub seen: PixelArea,
}

/// Makes the mask of a frame of `frame` (width and height in pixels) from the mask of its pixels `crop`, `[height × width]` classes.
pub(super) fn in_frame(
    classes: &[ClassId],
    (width, height): (usize, usize),
    crop: PixelArea,
    frame: (usize, usize),
) -> FramedMask {
    let across = Span::new(width, (crop.left, crop.width), frame.0);
    let down = Span::new(height, (crop.top, crop.height), frame.1);
    let size = (across.length(), down.length());
    let seen = PixelArea { left: across.before, top: down.before, width: across.inside, height: down.inside };
    let mut framed = vec![UNSEEN; size.0 * size.1];
    for (row, from) in seen.rows(size.0).zip(down.sources(height)) {
        let from = &classes[from * width..][..width];
        if across.inside == width {
            framed[row].copy_from_slice(from);
        } else {
            framed[row].iter_mut().zip(across.sources(width)).for_each(|(class, at)| *class = from[at]);
        }
    }
    FramedMask { classes: framed, size, seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Crop;

    /// A mask whose pixels differ from their neighbours.
    fn mask(width: usize, height: usize) -> Vec<ClassId> {
        (0..width * height).map(|at| (at % width % 7 + at / width % 5 * 10) as ClassId).collect()
    }

    #[test]
    fn a_mask_is_where_its_crop_is_in_the_frame() {
        let crops = [(0.0, 0.0, 0.25, 0.25), (0.75, 0.75, 0.25, 0.25), (0.3, 0.1, 0.5, 0.9), (0.125, 0.6, 0.333, 0.4)];
        for frame in [(1920, 1080), (641, 361), (3840, 2161)] {
            for (x, y, width, height) in crops {
                let crop = Crop { x, y, width, height }.pixels(frame.0, frame.1);
                for own in [(512, 288), (64, 36), (33, 77)] {
                    let found = in_frame(&mask(own.0, own.1), own, crop, frame);
                    let context = format!("{crop:?} of {frame:?}, {own:?}: {:?} {:?}", found.size, found.seen);
                    assert_eq!(found.classes.len(), found.size.0 * found.size.1, "{context}");
                    assert!(found.size.0 <= frame.0 && found.size.1 <= frame.1, "{context}");
                    // In fractions of the frame, the edges are those of the crop, to a pixel of the mask.
                    let seen = found.seen;
                    for (at, size, pixel, side) in [
                        (seen.left, found.size.0, crop.left, frame.0),
                        (seen.left + seen.width, found.size.0, crop.left + crop.width, frame.0),
                        (seen.top, found.size.1, crop.top, frame.1),
                        (seen.top + seen.height, found.size.1, crop.top + crop.height, frame.1),
                    ] {
                        let distance = at as f64 - pixel as f64 / side as f64 * size as f64;
                        assert!(distance.abs() <= 1.0, "{context}: {distance}");
                    }
                    let inside: usize = found.classes.iter().filter(|&&class| class != UNSEEN).count();
                    assert_eq!(inside, seen.pixels(), "{context}");
                }
            }
        }
    }

    #[test]
    fn a_mask_with_larger_pixels_than_the_frame_is_not_resampled() {
        let crop = PixelArea { left: 640, top: 0, width: 640, height: 540 };
        let own = mask(64, 36);
        let framed = in_frame(&own, (64, 36), crop, (1920, 1080));
        assert_eq!((framed.size, framed.seen), ((192, 72), PixelArea { left: 64, top: 0, width: 64, height: 36 }));
        let inside: Vec<ClassId> = framed.seen.rows(192).flat_map(|row| framed.classes[row].to_vec()).collect();
        assert_eq!(inside, own);
    }

    #[test]
    fn a_mask_with_smaller_pixels_than_the_frame_has_those_of_the_frame() {
        let crop = PixelArea { left: 30, top: 2, width: 10, height: 6 };
        let framed = in_frame(&mask(20, 12), (20, 12), crop, (40, 20));
        assert_eq!((framed.size, framed.seen), ((40, 20), crop));
        let own = mask(20, 12);
        for y in 0..6 {
            for x in 0..10 {
                assert_eq!(framed.classes[(2 + y) * 40 + 30 + x], own[(2 * y + 1) * 20 + 2 * x + 1]);
            }
        }
    }
}
