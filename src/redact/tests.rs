//! The geometry of redaction on random masks, in both formats and with odd sizes, and when a whole frame is hidden.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::area::{Area, AreaError, Growth, HIDDEN};
use super::cells::{Cells, coarsest_side, side};
use super::{Clearance, HideReason};
use crate::config::{RedactConfig, RedactStyle};
use crate::frame::{Frame, Label, Labels, Mask, OwnedImage, PixelFormat, Pixels, Probable, Rgb, Tiles, VideoInfo};

const STYLES: [RedactStyle; 3] = [RedactStyle::Pixelate, RedactStyle::Blur, RedactStyle::Fill];

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

#[test]
fn the_area_contains_the_mask_grown_and_what_is_held() {
    let mut noise = Noise(1);
    for _ in 0..200 {
        let size = (1 + noise.below(60), 1 + noise.below(60));
        let video = video(&mut noise);
        let growth = Growth::new(noise.below(20) as f64 / 100.0, size, &video);
        let hold = Duration::from_millis(noise.below(1000) as u64);
        let (mut area, start) = (Area::default(), Instant::now());
        let mut past: Vec<Mask> = Vec::new();
        for n in 0..6 {
            let at = Duration::from_millis(n * 150 + noise.below(100) as u64);
            let now = mask(&mut noise, size, start, at);
            let found = area.update(&now, &hidden(), growth, hold).unwrap().to_vec();
            past.push(now);
            for old in past.iter().filter(|old| at - old.pts <= hold) {
                for (pixel, _) in old.classes.iter().enumerate().filter(|(_, class)| **class == 1) {
                    let (x, y) = (pixel % size.0, pixel / size.0);
                    let columns = x.saturating_sub(growth.columns)..(x + growth.columns + 1).min(size.0);
                    for row in y.saturating_sub(growth.rows)..(y + growth.rows + 1).min(size.1) {
                        let is_hidden = found[row * size.0..][columns.clone()].iter().all(|&pixel| pixel == HIDDEN);
                        assert!(is_hidden, "{size:?} {growth:?} {x} {y}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_area_is_visible_again_when_it_is_not_held_any_longer() {
    let (mut area, start) = (Area::default(), Instant::now());
    let none = Growth { columns: 0, rows: 0 };
    let of = |class: u8, at: u64| Mask {
        classes: vec![class, 0],
        ..mask(&mut Noise(0), (2, 1), start, Duration::from_millis(at))
    };
    let hold = Duration::from_millis(500);
    let mut update = |class, at| area.update(&of(class, at), &hidden(), none, hold).unwrap().to_vec();
    assert_eq!(update(1, 0), [HIDDEN, 0]);
    assert_eq!(update(0, 500), [HIDDEN, 0], "as long as it is held");
    assert_eq!(update(0, 501), [HIDDEN, 0], "the second mask after it");
    assert_eq!(update(0, 502), [0, 0]);
    assert_eq!(update(1, 2000), [HIDDEN, 0]);
    assert_eq!(update(0, 4000), [HIDDEN, 0], "a slow camera: one mask in the time");
    assert_eq!(update(0, 6000), [HIDDEN, 0]);
    assert_eq!(update(0, 8000), [0, 0]);
    // What was seen in masks of another size is not known for that time.
    let other = |at| Mask { width: 1, height: 2, ..of(0, at) };
    let mut update = |at| area.update(&other(at), &hidden(), none, hold).map(<[u8]>::to_vec);
    assert!(matches!(update(9000), Err(AreaError::UnknownPast)));
    assert!(matches!(update(9500), Err(AreaError::UnknownPast)));
    assert_eq!(update(9501).unwrap(), [0; 2]);
}

#[test]
fn a_hole_in_the_area_is_hidden_and_a_bay_is_not() {
    let ring = |open: bool| {
        let mut classes = [1; 9 * 9];
        classes[4 * 9 + 4] = 0;
        if open {
            (5..9).for_each(|row| classes[row * 9 + 4] = 0);
        }
        let mut all = vec![0; 100 * 100];
        for row in 0..9 {
            all[(row + 20) * 100 + 20..][..9].copy_from_slice(&classes[row * 9..][..9]);
        }
        Mask { classes: all, ..mask(&mut Noise(0), (100, 100), Instant::now(), Duration::ZERO) }
    };
    let none = Growth { columns: 0, rows: 0 };
    for (open, expected) in [(false, HIDDEN), (true, 0)] {
        let mut area = Area::default();
        let found = area.update(&ring(open), &hidden(), none, Duration::ZERO).unwrap();
        assert_eq!(found[24 * 100 + 24], expected, "open: {open}");
    }
}

#[test]
fn probable_pixels_are_hidden_too() {
    let mut now = Mask { classes: vec![0; 16], ..mask(&mut Noise(0), (4, 4), Instant::now(), Duration::ZERO) };
    let probable = |pixels: Vec<bool>| Some(Box::new(Probable { width: 2, height: 2, pixels, confidence: 200 }));
    now.probable = probable(vec![false, true, false, false]);
    let none = Growth { columns: 0, rows: 0 };
    let update = |mask: &Mask| Area::default().update(mask, &hidden(), none, Duration::ZERO).map(<[u8]>::to_vec);
    let (h, row) = (HIDDEN, [0; 4]);
    assert_eq!(update(&now).unwrap(), [[0, 0, h, h], [0, 0, h, h], row, row].concat());
    now.probable = probable(vec![true]);
    assert!(update(&now).is_err(), "fewer pixels than its size");
}

/// Samples of the plane, one row after the other, without padding.
fn rows(image: &OwnedImage, plane: usize) -> Vec<Vec<u8>> {
    let image = image.image();
    let (width, height) = image.info.plane_size(plane);
    (0..height).map(|row| image.planes[plane].data[row * image.planes[plane].stride..][..width].to_vec()).collect()
}

#[test]
fn no_sample_of_a_hidden_pixel_is_copied_and_all_others_are() {
    let mut noise = Noise(2);
    for n in 0..150 {
        let info = video(&mut noise);
        let size = (1 + noise.below(80), 1 + noise.below(80));
        let area: Vec<u8> = (0..size.0 * size.1).map(|_| if noise.below(30) == 0 { HIDDEN } else { 0 }).collect();
        let style = STYLES[n % 3];
        let side = side(style, &info);
        let cells = Cells::of(&area, size, &info, side);
        // A checkerboard of values that no mean can be: the mean of more than one sample lies between them.
        let mut source = OwnedImage::new(info, noise.below(5));
        for (plane, image) in source.image_mut().planes.into_iter().enumerate().take(info.planes()) {
            for (at, sample) in image.data.iter_mut().enumerate() {
                let stride = image.stride.max(1);
                *sample = if (at % stride + at / stride) % 2 == plane % 2 { 1 } else { 255 };
            }
        }
        let mut target = OwnedImage::new(info, noise.below(5));
        cells.draw(style, &source.image(), &mut target.image_mut());
        let (from, to) = (rows(&source, 0), rows(&target, 0));
        // Whether a mask pixel, stretched over the frame, overlaps with the cell of a pixel.
        let overlaps = |mask_pixel: usize, masks: usize, at: usize, size: usize| {
            let (start, end) = (at / side * side, ((at / side + 1) * side).min(size));
            mask_pixel * size < end * masks && (mask_pixel + 1) * size > start * masks
        };
        for y in 0..info.height {
            let rows_at: Vec<usize> = (0..size.1).filter(|row| overlaps(*row, size.1, y, info.height)).collect();
            for x in 0..info.width {
                let columns = (0..size.0).filter(|column| overlaps(*column, size.0, x, info.width));
                let is_hidden =
                    columns.into_iter().any(|column| rows_at.iter().any(|row| area[row * size.0 + column] == HIDDEN));
                let drawn = area[Mask::index(y, info.height, size.1) * size.0 + Mask::index(x, info.width, size.0)];
                assert!(drawn != HIDDEN || is_hidden, "the mask pixel that is drawn on a pixel is hidden there");
                let is_single = info.width == 1 || info.height == 1;
                if !is_hidden {
                    assert_eq!(to[y][x], from[y][x], "{style:?} {info:?} {x} {y}");
                } else if !is_single {
                    assert!(!matches!(to[y][x], 1 | 255), "{style:?} {info:?} {x} {y}: {}", to[y][x]);
                }
            }
        }
    }
}

/// What a blur draws is between the samples of the image, which would not hold with a mean that was not computed.
#[test]
fn a_blur_stays_within_the_range_of_the_image() {
    let mut noise = Noise(5);
    for _ in 0..100 {
        let info = video(&mut noise);
        let size = (1 + noise.below(40), 1 + noise.below(40));
        let area: Vec<u8> = (0..size.0 * size.1).map(|_| if noise.below(20) == 0 { HIDDEN } else { 0 }).collect();
        let mut source = OwnedImage::new(info, 0);
        for plane in source.image_mut().planes {
            plane.data.iter_mut().for_each(|sample| *sample = 100 + noise.below(50) as u8);
        }
        let mut target = OwnedImage::new(info, 0);
        Cells::of(&area, size, &info, side(RedactStyle::Blur, &info)).draw(
            RedactStyle::Blur,
            &source.image(),
            &mut target.image_mut(),
        );
        for plane in 0..info.planes() {
            assert!(
                rows(&target, plane).iter().flatten().all(|sample| (100..150).contains(sample)),
                "{info:?} {plane}"
            );
        }
    }
}

/// Draws all styles slowly, with the cells and formulas of the documentation.
#[test]
fn cells_are_drawn_as_by_a_slow_computation() {
    let mut noise = Noise(6);
    for n in 0..120 {
        let info = video(&mut noise);
        let style = STYLES[n % 3];
        // Also cells of more lines than fit into a sum of 16 bits.
        let side = 2 + 2 * noise.below(if n % 5 == 0 { 150 } else { 20 });
        let share = [3, 30][noise.below(2)];
        let size = (info.width.div_ceil(side), info.height.div_ceil(side));
        let area: Vec<u8> = (0..size.0 * size.1).map(|_| marked(noise.below(share) == 0)).collect();
        let hides = |column: usize, row: usize| area[row * size.0 + column] == HIDDEN;
        // A mask that covers the frame with whole cells; the last of a row may not be whole, which would make them differ.
        let whole = VideoInfo { width: size.0 * side, height: size.1 * side, ..info };
        let cells = Cells::of(&area, size, &whole, side);
        let mut source = OwnedImage::new(info, noise.below(5));
        let brightest = [2, 256][noise.below(2)];
        for plane in source.image_mut().planes {
            plane.data.iter_mut().for_each(|sample| *sample = (255 - noise.below(brightest)) as u8);
        }
        let mut target = OwnedImage::new(info, noise.below(5));
        cells.draw(style, &source.image(), &mut target.image_mut());
        for plane in 0..info.planes() {
            let (from, to) = (rows(&source, plane), rows(&target, plane));
            let channels = if plane == 1 && info.format == PixelFormat::Nv12 { 2 } else { 1 };
            let side = if plane == 0 { side } else { side / 2 };
            let mean_of = |column: usize, row: usize, channel: usize| {
                let lines = &from[row * side..from.len().min((row + 1) * side)];
                let samples = lines.iter().flat_map(|line| {
                    line.chunks(channels).map(|sample| sample[channel]).skip(column * side).take(side)
                });
                let (sum, count) = samples.fold((0, 0), |(sum, count), sample| (sum + usize::from(sample), count + 1));
                (sum as f64 / count as f64).round()
            };
            let means: Vec<f64> = (0..size.0 * size.1 * channels)
                .map(|n| mean_of(n / channels % size.0, n / channels / size.0, n % channels))
                .collect();
            let mean = |column: usize, row: usize, channel: usize| means[(row * size.0 + column) * channels + channel];
            let around = |at: usize, cells: usize| {
                let position = (at as f64 + 0.5) / side as f64 - 0.5;
                let cell = |position: f64| (position.max(0.0) as usize).min(cells - 1);
                (cell(position.floor()), cell(position.floor() + 1.0), position - position.floor())
            };
            for (y, line) in to.iter().enumerate() {
                for (byte, &drawn) in line.iter().enumerate() {
                    let (x, channel) = (byte / channels, byte % channels);
                    let expected = match style {
                        _ if !hides(x / side, y / side) => f64::from(from[y][byte]),
                        RedactStyle::Fill => {
                            if plane == 0 {
                                96.0
                            } else {
                                128.0
                            }
                        }
                        RedactStyle::Pixelate => mean(x / side, y / side, channel),
                        RedactStyle::Blur => {
                            let ((left, right, across), (above, below, down)) = (around(x, size.0), around(y, size.1));
                            let mixed = |a: f64, b: f64, weight: f64| a * (1.0 - weight) + b * weight;
                            let [above, below] = [above, below]
                                .map(|row| mixed(mean(left, row, channel), mean(right, row, channel), across));
                            mixed(above, below, down)
                        }
                    };
                    let most = if style == RedactStyle::Blur { 0.52 } else { 0.0 };
                    let difference = (f64::from(drawn) - expected).abs();
                    assert!(difference <= most, "{style:?} {info:?} {side} {plane} {x} {y}: {drawn}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn the_parts_that_are_hidden_as_holes_are_those_of_a_flood_fill() {
    let mut noise = Noise(7);
    let mut holes = 0;
    for _ in 0..100 {
        let (width, height) = (1 + noise.below(90), 1 + noise.below(90));
        let density = 2 + noise.below(4);
        let classes: Vec<u8> = (0..width * height).map(|_| u8::from(noise.below(density) > 0)).collect();
        let mask = Mask { classes, ..mask(&mut Noise(0), (width, height), Instant::now(), Duration::ZERO) };
        let mut expected: Vec<u8> = mask.classes.iter().map(|&class| marked(class == 1)).collect();
        if mask.classes.contains(&1) {
            let mut is_known = vec![false; width * height];
            for start in (0..width * height).filter(|&pixel| mask.classes[pixel] == 0) {
                let (mut part, mut done, mut touches) = (vec![], 0, false);
                if !std::mem::replace(&mut is_known[start], true) {
                    part.push(start);
                }
                while done < part.len() {
                    let (x, y) = (part[done] % width, part[done] / width);
                    touches |= x == 0 || y == 0 || x == width - 1 || y == height - 1;
                    for (dx, dy) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
                        let (x, y) = (x + dx, y + dy);
                        let is_inside = (1..=width).contains(&x) && (1..=height).contains(&y);
                        let near = (y.max(1) - 1) * width + x.max(1) - 1;
                        if is_inside && mask.classes[near] == 0 && !std::mem::replace(&mut is_known[near], true) {
                            part.push(near);
                        }
                    }
                    done += 1;
                }
                if !touches && part.len() <= width * height / 500 {
                    part.iter().for_each(|&pixel| expected[pixel] = HIDDEN);
                    holes += usize::from(part.len() > 1);
                }
            }
        }
        let none = Growth { columns: 0, rows: 0 };
        let mut area = Area::default();
        let found = area.update(&mask, &hidden(), none, Duration::ZERO).unwrap();
        assert!(found == expected, "{width} {height} {density}");
    }
    assert!(holes > 100, "{holes}");
}

fn marked(is_hidden: bool) -> u8 {
    if is_hidden { HIDDEN } else { 0 }
}

#[test]
fn a_face_of_an_eighth_of_the_height_touches_at_most_eight_cells() {
    for height in 64..4400 {
        for par in [(1, 1), (8, 9), (6, 11), (64, 45)] {
            let info = VideoInfo { par, ..VideoInfo::new(PixelFormat::I420, 100, height) };
            let cell = side(RedactStyle::Pixelate, &info);
            let face = height.div_ceil(8);
            for face in [face, (face * par.1 as usize).div_ceil(par.0 as usize)] {
                // At the worst place, it begins with the last pixel of a cell.
                let touched = 1 + (face - 1).div_ceil(cell);
                assert!(touched <= 8, "{height} {par:?}: {touched} cells of {cell}");
            }
            assert!(coarsest_side(height) >= face);
        }
    }
}

fn frame(noise: &mut Noise, info: VideoInfo, seq: u64) -> Frame {
    let mut image = OwnedImage::new(info, 0);
    for plane in image.image_mut().planes {
        plane.data.iter_mut().for_each(|sample| *sample = noise.below(256) as u8);
    }
    let captured_at = Instant::now();
    Frame {
        stream: "gate".into(),
        seq,
        pts: Duration::ZERO,
        captured_at,
        pixels: Arc::new(image),
        bias: None,
        gate: None,
        tiles: Tiles::default(),
    }
}

/// What is published of `frame`, and why all of it is hidden.
fn cleared(
    clearance: &mut Clearance,
    frame: &Frame,
    mask: Result<&Mask, HideReason>,
) -> (OwnedImage, Option<HideReason>) {
    let decision = clearance.decide(frame, mask);
    let cleared = clearance.clear(frame, &decision);
    (cleared.to_image(), cleared.hidden().cloned())
}

#[test]
fn a_frame_without_its_own_mask_is_hidden_as_a_whole() {
    let mut noise = Noise(3);
    let info = VideoInfo::new(PixelFormat::I420, 160, 96);
    let config = RedactConfig { classes: vec!["person".into()], hold: Duration::ZERO, ..RedactConfig::default() };
    let frame = frame(&mut noise, info, 7);
    let raw = OwnedImage::copy_of(&frame.pixels.image());
    let mut own = Mask {
        seq: 7,
        classes: vec![0; 64],
        width: 8,
        height: 8,
        ..mask(&mut noise, (8, 8), frame.captured_at, Duration::ZERO)
    };
    let mut clearance = Clearance::of(Some(&config));
    let (visible, reason) = cleared(&mut clearance, &frame, Ok(&own));
    assert_eq!((rows(&visible, 0), reason), (rows(&raw, 0), None), "there is no person in it");

    let earlier = Mask { seq: 6, ..own.clone() };
    let older = Mask { captured_at: frame.captured_at - Duration::from_millis(1), ..own.clone() };
    let cut = Mask { classes: vec![0; 63], ..own.clone() };
    let other: Labels = [Label::new("human", Rgb(0, 0, 0))].into();
    let other = Mask { labels: other, ..own.clone() };
    let no_mask = || HideReason::NoMask("too late".into());
    type Case<'a> = (Result<&'a Mask, HideReason>, fn(&HideReason) -> bool);
    let cases: [Case<'_>; 6] = [
        (Ok(&earlier), |reason| *reason == HideReason::OtherFrame),
        (Ok(&older), |reason| *reason == HideReason::OtherFrame),
        (Ok(&cut), |reason| matches!(reason, HideReason::NoArea(_))),
        (Ok(&other), |reason| *reason == HideReason::NoClass("person".into())),
        (Err(HideReason::NoModel), |reason| *reason == HideReason::NoModel),
        (Err(no_mask()), |reason| matches!(reason, HideReason::NoMask(_))),
    ];
    for (mask, expected) in cases {
        let (published, reason) = cleared(&mut clearance, &frame, mask);
        let reason = reason.expect("all of it is hidden");
        assert!(expected(&reason), "{reason}");
        let luma = rows(&published, 0);
        let cell = coarsest_side(96);
        let first: Vec<u8> = luma[..cell].iter().flat_map(|row| &row[..cell]).copied().collect();
        assert!(first.iter().all(|sample| *sample == first[0]), "{reason}: one colour in each cell");
    }
    // A pixel of a class that the model gives no name may be a person.
    own.classes[0] = 9;
    let (published, reason) = cleared(&mut clearance, &frame, Ok(&own));
    assert_eq!(reason, None);
    assert_ne!(rows(&published, 0)[0][0..4], rows(&raw, 0)[0][0..4]);

    // A bias that the model cannot apply, and a model that is not sure of anything.
    let biased = RedactConfig { bias: Some(0.1), ..config.clone() };
    own.classes[0] = 0;
    assert_eq!(cleared(&mut Clearance::of(Some(&biased)), &frame, Ok(&own)).1, Some(HideReason::NoScores));
    for (confidence, is_hidden) in [(60, true), (120, false)] {
        let probable = Probable { width: 8, height: 8, pixels: vec![false; 64], confidence };
        let own = Mask { probable: Some(Box::new(probable)), ..own.clone() };
        let reason = cleared(&mut Clearance::of(Some(&biased)), &frame, Ok(&own)).1;
        assert_eq!(matches!(reason, Some(HideReason::LowConfidence(_))), is_hidden, "{confidence}: {reason:?}");
    }

    // A decision about another frame clears nothing.
    let decision = clearance.decide(&frame, Ok(&Mask { classes: vec![0; 64], ..own }));
    let next = Frame { seq: 8, ..frame.clone() };
    assert_eq!(clearance.clear(&next, &decision).hidden(), Some(&HideReason::OtherFrame));
}

#[test]
fn after_a_panic_whole_frames_are_hidden_for_as_long_as_pixels_are_held() {
    let mut noise = Noise(4);
    let info = VideoInfo::new(PixelFormat::Nv12, 64, 64);
    let config = RedactConfig { classes: vec!["person".into()], ..RedactConfig::default() };
    let mut clearance = Clearance::of(Some(&config));
    let at = |frame: &Frame, later: u64| {
        let captured_at = frame.captured_at + Duration::from_millis(later);
        let frame = Frame { seq: later, captured_at, ..frame.clone() };
        let mask =
            Mask { seq: later, classes: vec![0; 64], ..mask(&mut Noise(0), (8, 8), captured_at, Duration::ZERO) };
        (frame, mask)
    };
    let start = frame(&mut noise, info, 0);
    let raw = rows(&OwnedImage::copy_of(&start.pixels.image()), 0);
    let is_visible = |clearance: &mut Clearance, later: u64| {
        let (frame, mask) = at(&start, later);
        rows(&cleared(clearance, &frame, Ok(&mask)).0, 0) == raw
    };
    assert!(is_visible(&mut clearance, 0));
    clearance.recover();
    assert!(!is_visible(&mut clearance, 100));
    assert!(is_visible(&mut clearance, 100_000));
}

#[test]
fn the_slate_has_what_may_be_published_of_the_last_frame() {
    let mut noise = Noise(8);
    let info = VideoInfo::new(PixelFormat::I420, 96, 64);
    let config = RedactConfig { classes: vec!["person".into()], hold: Duration::ZERO, ..RedactConfig::default() };
    let mut clearance = Clearance::of(Some(&config));
    let mut last = frame(&mut noise, info, 3);
    let raw = rows(&OwnedImage::copy_of(&last.pixels.image()), 0);
    let mut mask = mask(&mut noise, (12, 8), last.captured_at, Duration::ZERO);
    (mask.seq, mask.classes) = (3, (0..96).map(|pixel| u8::from(pixel % 12 < 5)).collect());
    let decision = clearance.decide(&last, Ok(&mask));
    let published = rows(&clearance.clear(&last, &decision).to_image(), 0);
    assert_ne!(published, raw);
    // A dropped frame after it changes nothing.
    clearance.decide(&frame(&mut noise, info, 4), Err(HideReason::NoModel));
    let slate = clearance.release(&mut last, Some(&decision)).expect("it was decided");
    assert_eq!(rows(&slate.frame().to_image(), 0), published);
    assert_eq!(rows(&OwnedImage::copy_of(&last.pixels.image()), 0), published, "the frame itself is not kept");

    let mut next = frame(&mut noise, info, 5);
    let slate = clearance.release(&mut next.clone(), Some(&decision)).expect("a frame that is hidden as a whole");
    let luma = rows(&slate.frame().to_image(), 0);
    assert!(luma[..8].iter().all(|row| row[..8].iter().all(|sample| *sample == luma[0][0])));
    assert!(clearance.release(&mut next, None).is_none(), "nothing was decided");
    assert!(rows(&OwnedImage::copy_of(&next.pixels.image()), 0).iter().flatten().all(|sample| *sample == 16));
}
