//! Time to hide about 30 % of a frame on one core, beside the time to tint it: medians for each style and format. `area` is the time
//! to compute what is hidden, `draw` the time to draw it, `sum` both; `tint` is a frame that is tinted but not redacted, `both` a frame
//! that is redacted and tinted, as a stream does it. They draw a frame in turn, so that all find the same machine.
//!
//! `cargo bench --bench redact`

use std::sync::Arc;
use std::time::{Duration, Instant};

use maskcast::config::{OverlayConfig, RedactConfig, RedactStyle};
use maskcast::frame::{Crop, Frame, Label, Labels, Mask, OwnedImage, PixelFormat, Pixels, Rgb, Tiles, VideoInfo};
use maskcast::overlay::{OutputImage, Overlay};
use maskcast::redact::Clearance;

const SIZE: (usize, usize) = (512, 288);
const FRAMES: u64 = 121;

fn main() {
    println!(
        "{:<9} {:<6} {:<10} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "style", "format", "size", "hidden", "area ms", "draw ms", "sum ms", "tint ms", "both ms"
    );
    for (width, height) in [(1920, 1080), (960, 540)] {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            for style in [RedactStyle::Pixelate, RedactStyle::Blur, RedactStyle::Fill] {
                let info = VideoInfo::new(format, width, height);
                let Times { hidden, area, draw, tint, both } = measure(style, info);
                let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
                let (sum, style, format) = (area + draw, format!("{style:?}"), format!("{format:?}"));
                println!(
                    "{style:<9} {format:<6} {:<10} {:>5.0}% {:>8} {:>8} {:>8} {:>8} {:>8}",
                    info.to_string(),
                    100.0 * hidden,
                    ms(area),
                    ms(draw),
                    ms(sum),
                    ms(tint),
                    ms(both)
                );
            }
        }
    }
}

struct Times {
    /// Share of the luma samples that are hidden.
    hidden: f64,
    area: Duration,
    draw: Duration,
    tint: Duration,
    both: Duration,
}

fn measure(style: RedactStyle, info: VideoInfo) -> Times {
    let labels: Labels = ["other", "person"].map(|name| Label::new(name, Rgb(200, 30, 40))).into();
    let mut overlay = Overlay::new(&OverlayConfig::default(), &labels).expect("it names no classes");
    let config =
        RedactConfig { classes: vec!["person".into()], style, hold: Duration::ZERO, ..RedactConfig::default() };
    let mut clearance = Clearance::of(Some(&config));
    let mut source = OwnedImage::new(info, 0);
    for (at, sample) in source.image_mut().planes[0].data.iter_mut().enumerate() {
        // No grey of `fill`, and not equal in any cell.
        *sample = 150 + (at % 61) as u8;
    }
    let luma = source.image().planes[0].data.to_vec();
    let pixels: Arc<dyn Pixels> = Arc::new(source);
    let mut target = OwnedImage::new(info, 0);
    let (mut areas, mut draws, mut tints, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut hidden = 0.0;
    for seq in 0..FRAMES {
        let captured_at = Instant::now();
        let frame = Frame {
            stream: "bench".into(),
            seq,
            pts: Duration::ZERO,
            captured_at,
            pixels: Arc::clone(&pixels),
            bias: None,
            gate: None,
            crop: Crop::default(),
            tiles: Tiles::default(),
        };
        let mask = people(seq, captured_at, &labels);
        let start = Instant::now();
        let decision = clearance.decide(&frame, Ok(&mask));
        let decided = start.elapsed();
        areas.push(decided);
        let start = Instant::now();
        let cleared = clearance.clear(&frame, &decision);
        cleared.draw_to(&mut target.image_mut());
        draws.push(start.elapsed());
        let changed = target.image().planes[0].data.iter().zip(&luma).filter(|(a, b)| a != b).count();
        hidden = changed as f64 / luma.len() as f64;
        let start = Instant::now();
        overlay.draw(&pixels.image(), Some(&mask), &mut target.image_mut());
        tints.push(start.elapsed());
        let start = Instant::now();
        OutputImage::new(&mut target.image_mut()).draw(&mut overlay, &cleared, Some(&mask));
        all.push(decided + start.elapsed());
    }
    Times { hidden, area: median(areas), draw: median(draws), tint: median(tints), both: median(all) }
}

/// Six people side by side, who walk.
fn people(time: u64, captured_at: Instant, labels: &Labels) -> Mask {
    let (width, height) = SIZE;
    let is_person = |x: usize, y: usize| {
        let place = ((x + time as usize) % 85) as f64 - 42.0;
        let (across, down) = (place / 16.0, (y as f64 - 150.0) / 105.0);
        across * across + down * down < 1.0
    };
    let classes = (0..width * height).map(|n| u8::from(is_person(n % width, n / width))).collect();
    Mask {
        seq: time,
        pts: Duration::ZERO,
        captured_at,
        width,
        height,
        classes,
        labels: Arc::clone(labels),
        model: "".into(),
        guide: None,
        probable: None,
        confirmed: false,
        seen: None,
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
