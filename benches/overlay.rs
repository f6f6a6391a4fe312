//! Time to draw a frame, including the copy, on one core: median for each style, format and size. `street` is a mask that is drawn
//! on all frames, `moving` has another mask for each frame.
//!
//! `cargo bench --bench overlay`

use std::time::{Duration, Instant};

use maskcast::config::{OverlayConfig, Style};
use maskcast::frame::{Label, Mask, OwnedImage, PixelFormat, Pixels, Rgb, VideoInfo};
use maskcast::overlay::Overlay;

const CLASSES: usize = 12;

fn main() {
    println!("{:<10} {:<6} {:<11} {:<8} median ms", "style", "format", "size", "mask");
    let street_at = |time: usize| {
        mask(|x, y| {
            // Areas of about twenty pixels with curved borders, similar to a street scene.
            let (x, y) = ((x + time) as f64, (y + time) as f64);
            let (a, b) = ((x + 9.0 * (y / 13.0).sin()) / 37.0, (y + 7.0 * (x / 11.0).cos()) / 29.0);
            (a as usize * 5 + b as usize * 3) % CLASSES
        })
    };
    let street = [street_at(0)];
    let moving = [0, 1].map(street_at);
    let mut state = 1u32;
    let noise = [mask(|_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as usize % CLASSES
    })];
    for (width, height) in [(1920, 1080), (960, 540)] {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            for (style, name) in [(Style::Tint, "tint"), (Style::Contour, "contour"), (Style::MaskOnly, "mask-only")] {
                let kinds: [(&[Mask], &str); 4] =
                    [(&street, "street"), (&moving, "moving"), (&noise, "noise"), (&[], "none")];
                for (masks, kind) in kinds {
                    let time = median(style, VideoInfo::new(format, width, height), masks);
                    let (format, size) = (format!("{format:?}"), format!("{width}x{height}"));
                    println!("{name:<10} {format:<6} {size:<11} {kind:<8} {:.3}", time.as_secs_f64() * 1000.0);
                }
            }
        }
    }
}

/// A mask of the size of the bundled model.
fn mask(mut class: impl FnMut(usize, usize) -> usize) -> Mask {
    let (width, height) = (512, 288);
    let classes = (0..width * height).map(|n| class(n % width, n / width) as u8).collect();
    Mask {
        seq: 0,
        pts: Duration::ZERO,
        captured_at: Instant::now(),
        width,
        height,
        classes,
        labels: [].into(),
        model: "".into(),
        guide: None,
        probable: None,
        confirmed: false,
        seen: None,
    }
}

/// The masks are drawn in turn.
fn median(style: Style, info: VideoInfo, masks: &[Mask]) -> Duration {
    let labels: Vec<Label> =
        (0..CLASSES).map(|n| Label::new(format!("class {n}"), Rgb(20 * n as u8, 255 - 17 * n as u8, 90))).collect();
    let config = OverlayConfig { style, hide: Some(vec!["class 3".into()]), ..OverlayConfig::default() };
    let mut overlay = Overlay::new(&config, &labels).expect("the hidden class is in the list");
    let source = OwnedImage::new(info, 0);
    let mut target = OwnedImage::new(info, 0);
    let mut times: Vec<Duration> = (0..120)
        .map(|n| {
            let mask = masks.get(n % masks.len().max(1));
            let start = Instant::now();
            overlay.draw(&source.image(), mask, &mut target.image_mut());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
