//! Redaction of random masks, in both formats and with odd sizes.

use std::time::{Duration, Instant};

use super::area::HIDDEN;
use crate::frame::{Label, Labels, Mask, OwnedImage, PixelFormat, Pixels, Rgb, VideoInfo};

mod area;
mod cells;
mod clearance;

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

fn labels() -> Labels {
    ["other", "person"].map(|name| Label::new(name, Rgb(0, 0, 0))).into()
}

fn mask(noise: &mut Noise, (width, height): (usize, usize), start: Instant, at: Duration) -> Mask {
    let mut classes = vec![0; width * height];
    for _ in 0..noise.below(4) {
        // A rectangle of any size, also of one pixel or at the border.
        let (left, top) = (noise.below(width), noise.below(height));
        let (right, bottom) = (left + 1 + noise.below(width - left), top + 1 + noise.below(height - top));
        for row in top..bottom {
            classes[row * width..][left..right].fill(1);
        }
    }
    let captured_at = start + at;
    Mask {
        seq: 0,
        pts: at,
        captured_at,
        width,
        height,
        classes,
        labels: labels(),
        model: "".into(),
        guide: None,
        probable: None,
        confirmed: false,
        seen: None,
    }
}

fn hidden() -> [bool; 256] {
    let mut hidden = [false; 256];
    hidden[1] = true;
    hidden
}

fn video(noise: &mut Noise) -> VideoInfo {
    let format = [PixelFormat::I420, PixelFormat::Nv12][noise.below(2)];
    let par = [(1, 1), (64, 45), (12, 11)][noise.below(3)];
    VideoInfo { par, ..VideoInfo::new(format, 1 + noise.below(300), 1 + noise.below(300)) }
}

/// Samples of the plane, one row after the other, without padding.
fn rows(image: &OwnedImage, plane: usize) -> Vec<Vec<u8>> {
    let image = image.image();
    let (width, height) = image.info.plane_size(plane);
    (0..height).map(|row| image.planes[plane].data[row * image.planes[plane].stride..][..width].to_vec()).collect()
}

fn marked(is_hidden: bool) -> u8 {
    if is_hidden { HIDDEN } else { 0 }
}
