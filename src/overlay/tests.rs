//! Tests of the drawn result: shapes have the right position, in all planes and at every size.

use std::time::{Duration, Instant};

use super::*;
use crate::config;
use crate::frame::{OwnedImage, PixelFormat, Pixels, Plane};

mod contours;
mod legend;

const SKY: u8 = 0;
const ROAD: u8 = 1;
const CAR: u8 = 2;

/// Even, odd, portrait, smaller than the mask, tiny.
const SIZES: [(usize, usize); 9] =
    [(960, 540), (961, 541), (1920, 1080), (270, 480), (101, 77), (100, 20), (3, 50), (2, 2), (1, 1)];
const FORMATS: [PixelFormat; 2] = [PixelFormat::I420, PixelFormat::Nv12];

fn overlay(style: Style, alpha: f32, legend: bool) -> Overlay {
    let legend = if legend { config::Legend::All } else { config::Legend::Off };
    let hide = Some(vec!["sky".into()]);
    Overlay::new(&OverlayConfig { style, alpha, hide, legend, ..OverlayConfig::default() }, &labels()).unwrap()
}

fn labels() -> [Label; 3] {
    [("sky", Rgb(70, 130, 180)), ("road", Rgb(128, 64, 128)), ("car", Rgb(255, 0, 0))]
        .map(|(name, color)| Label::new(name, color))
}

fn mask(width: usize, height: usize, class: impl Fn(usize, usize) -> u8) -> Mask {
    let classes = (0..width * height).map(|n| class(n % width, n / width)).collect();
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

/// An image without uniform areas, so that a misplaced sample is detected.
fn source(info: VideoInfo, padding: usize) -> OwnedImage {
    let mut image = OwnedImage::new(info, padding);
    let mut state = 1u32;
    for plane in image.image_mut().planes {
        for sample in plane.data.iter_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = (state >> 24) as u8;
        }
    }
    image
}

/// The samples of Y, U and V without padding, for every format and stride.
fn samples(image: &OwnedImage) -> [Vec<u8>; 3] {
    let image = image.image();
    let rows = |plane: usize| -> Vec<u8> {
        let (width, height) = image.info.plane_size(plane);
        let Plane { data, stride } = image.planes[plane];
        (0..height).flat_map(|row| &data[row * stride..][..width]).copied().collect()
    };
    match image.info.format {
        PixelFormat::I420 => [rows(0), rows(1), rows(2)],
        PixelFormat::Nv12 => {
            let both = rows(1);
            let every_second = |from: usize| both[from..].iter().step_by(2).copied().collect();
            [rows(0), every_second(0), every_second(1)]
        }
    }
}

fn drawn(overlay: &mut Overlay, source: &OwnedImage, mask: Option<&Mask>, padding: usize) -> OwnedImage {
    let mut target = OwnedImage::new(source.image().info, padding);
    for plane in target.image_mut().planes {
        plane.data.fill(99);
    }
    overlay.draw(&source.image(), mask, &mut target.image_mut());
    target
}

/// Checks that an opaque shape has the right position in the image, within one pixel. `shape` is defined on the unit square and
/// rasterised into the mask at the pixel centres.
fn assert_shape_is_drawn(shape: impl Fn(f64, f64) -> bool, name: &str) {
    let model = (512, 288);
    let centre = |at: usize, size: usize| (at as f64 + 0.5) / size as f64;
    let mask = mask(model.0, model.1, |x, y| if shape(centre(x, model.0), centre(y, model.1)) { CAR } else { SKY });
    for (format, (width, height)) in FORMATS.into_iter().flat_map(|f| SIZES.map(|size| (f, size))) {
        let info = VideoInfo::new(format, width, height);
        let source = source(info, 5);
        let result = drawn(&mut overlay(Style::Tint, 1.0, false), &source, Some(&mask), 3);
        let (before, after) = (samples(&source), samples(&result));
        let red = [81, 90, 240];
        for plane in 0..3 {
            let (columns, step) = if plane == 0 { (width, 1) } else { (info.chroma_width(), 2) };
            for (n, (&before, &after)) in before[plane].iter().zip(&after[plane]).enumerate() {
                let (x, y) = (n % columns * step, n / columns * step);
                // One image pixel, plus half a mask pixel of error from the rasterisation.
                let (dx, dy) = (1.0 / width as f64 + 0.5 / 512.0, 1.0 / height as f64 + 0.5 / 288.0);
                let around = [-1.0, -0.5, 0.0, 0.5, 1.0].map(|a| [-1.0, -0.5, 0.0, 0.5, 1.0].map(|b| (a, b)));
                let inside = |(a, b): (f64, f64)| shape(centre(x, width) + a * dx, centre(y, height) + b * dy);
                let (red, all) = (red[plane], around.iter().flatten().all(|&at| inside(at)));
                let expected = if all {
                    red..=red
                } else if !around.iter().flatten().any(|&at| inside(at)) {
                    before..=before
                } else {
                    // Mixing rounds down.
                    before.min(red).saturating_sub(1)..=before.max(red)
                };
                assert!(
                    expected.contains(&after),
                    "{name}, {format:?} {info}: plane {plane} at {x},{y}: {after}, not {expected:?}"
                );
            }
        }
    }
}

#[test]
fn rows_kept_from_the_mask_before_are_drawn_like_new_ones() {
    let box_at = |x: usize, y: usize, class: u8| {
        mask(64, 36, move |column, row| {
            let is_box = (x..x + 9).contains(&column) && (y..y + 7).contains(&row);
            if is_box { class } else { u8::from(row > 20) }
        })
    };
    // Moved, recoloured, the same again, at the edges, and another class next to it.
    let masks = [(5, 4, CAR), (6, 4, CAR), (6, 5, SKY), (6, 5, SKY), (0, 0, CAR), (55, 29, CAR), (20, 18, CAR)];
    for (style, format) in Style::ALL.into_iter().flat_map(|style| FORMATS.map(|format| (style, format))) {
        let source = source(VideoInfo::new(format, 241, 135), 0);
        let mut kept = overlay(style, 0.6, false);
        for (x, y, class) in masks {
            let mask = box_at(x, y, class);
            let expected = drawn(&mut overlay(style, 0.6, false), &source, Some(&mask), 0);
            let result = drawn(&mut kept, &source, Some(&mask), 0);
            assert!(samples(&result) == samples(&expected), "{style:?}, {format:?}: class {class} at {x},{y}");
        }
    }
}

#[test]
fn rectangles_are_drawn_in_every_plane() {
    assert_shape_is_drawn(|x, y| (0.25..0.6).contains(&x) && (0.3..0.8).contains(&y), "rectangle");
    assert_shape_is_drawn(|x, y| x < 0.1 || y > 0.95, "at the edges");
}

#[test]
fn diagonals_are_drawn_in_every_plane() {
    assert_shape_is_drawn(|x, y| x > y, "diagonal");
    assert_shape_is_drawn(|x, y| (x + 2.0 * y - 1.2).abs() < 0.2, "band");
}

/// The classes in the 3×3 mask cells around a pixel, and their values: quadratic B-splines of the indicators of the classes.
fn values_at(mask: &Mask, x: usize, y: usize, info: &VideoInfo) -> Vec<(u8, f64)> {
    let weights = |at: usize, size: usize, mask_size: usize| {
        let position = (at as f64 + 0.5) * mask_size as f64 / size as f64;
        let t = position - position.floor() - 0.5;
        [(-1, 0.5 * (0.5 - t).powi(2)), (0, 0.75 - t * t), (1, 0.5 * (0.5 + t).powi(2))].map(|(step, weight)| {
            let cell = (position.floor() as isize + step).clamp(0, mask_size as isize - 1);
            (cell as usize, weight)
        })
    };
    let mut values = Vec::<(u8, f64)>::new();
    for (row, vertical) in weights(y, info.height, mask.height) {
        for (column, horizontal) in weights(x, info.width, mask.width) {
            let class = mask.classes[row * mask.width + column];
            match values.iter_mut().find(|value| value.0 == class) {
                Some(value) => value.1 += vertical * horizontal,
                None => values.push((class, vertical * horizontal)),
            }
        }
    }
    values.sort_by(|a, b| b.1.total_cmp(&a.1));
    values
}

#[test]
fn pixels_mix_the_two_classes_that_lead() {
    let areas = mask(51, 29, |x, y| if (x / 4 + y / 5) % 3 == 0 { CAR } else { ((x / 9 + y / 7) % 2) as u8 });
    let color = |class: u8, before: u8| f64::from([before, 94, 81][usize::from(class)]);
    for (width, height) in [(130, 75), (101, 77), (90, 60), (260, 300)] {
        let info = VideoInfo::new(PixelFormat::I420, width, height);
        let source = source(info, 0);
        let result = drawn(&mut overlay(Style::Tint, 1.0, false), &source, Some(&areas), 0);
        let (before, after) = (samples(&source), samples(&result));
        let pixels_per_cell = ((width * height) as f64 / (51.0 * 29.0)).sqrt();
        // Positions are rounded to an eighth of a pixel; in large cells, two rows are drawn alike.
        let rounding = if pixels_per_cell < 3.0 { 0.14 } else { 0.64 };
        let mut mixed = 0;
        for (n, (&before, &after)) in before[0].iter().zip(&after[0]).enumerate() {
            let values = values_at(&areas, n % width, n / width, &info);
            let [first, second] = [0, 1].map(|n| values.get(n).copied().unwrap_or((values[0].0, 0.0)));
            // Of a straight border at this distance.
            let distance = (1.0 - (1.0 - (first.1 - second.1)).max(0.0).sqrt()) * pixels_per_cell;
            let share = |distance: f64| (0.5 + distance).clamp(0.0, 1.0);
            let expected = [share(distance - rounding), share(distance + rounding)]
                .map(|share| share * color(first.0, before) + (1.0 - share) * color(second.0, before));
            mixed += usize::from(distance < 0.3);
            // With three classes, rounding may change which is the second.
            let range = if values.len() > 2 {
                let colors = values.iter().map(|value| color(value.0, before));
                colors.clone().fold(f64::MAX, f64::min)..=colors.fold(0.0, f64::max)
            } else {
                expected[0].min(expected[1])..=expected[0].max(expected[1])
            };
            let after = f64::from(after);
            assert!(
                (range.start() - 1.5..=range.end() + 1.5).contains(&after),
                "{width}x{height} at {},{}: {after}, not {range:?}; {values:?}",
                n % width,
                n / width
            );
        }
        assert!(mixed > width, "{width}x{height}: {mixed}");
    }
}

#[test]
fn images_smaller_than_the_mask_have_the_classes_of_the_resized_mask() {
    let mask = mask(151, 99, |x, y| if (x * 7 + y * 13) % 5 < 2 { CAR } else { SKY });
    for (width, height) in [(101, 77), (100, 20), (3, 50), (2, 2), (1, 1), (300, 90)] {
        let source = source(VideoInfo::new(PixelFormat::I420, width, height), 0);
        let result = drawn(&mut overlay(Style::Tint, 1.0, false), &source, Some(&mask), 0);
        let classes = mask.resized(width, height);
        let (before, after) = (samples(&source), samples(&result));
        for (n, &class) in classes.iter().enumerate() {
            assert_eq!(after[0][n], if class == CAR { 81 } else { before[0][n] }, "{width}x{height} at {n}");
        }
        let chroma_width = width.div_ceil(2);
        for n in 0..after[1].len() {
            let class = classes[n / chroma_width * 2 * width + n % chroma_width * 2];
            let expected = if class == CAR { (90, 240) } else { (before[1][n], before[2][n]) };
            assert_eq!((after[1][n], after[2][n]), expected, "{width}x{height} chroma at {n}");
        }
    }
}

#[test]
fn nv12_equals_i420() {
    let mask = mask(64, 36, |x, y| ((x / 5 + y / 3) % 4) as u8);
    for (style, (width, height)) in
        [Style::Tint, Style::Contour, Style::MaskOnly].into_iter().flat_map(|s| SIZES.map(|size| (s, size)))
    {
        let planar = source(VideoInfo::new(PixelFormat::I420, width, height), 0);
        let mut interleaved = OwnedImage::new(VideoInfo::new(PixelFormat::Nv12, width, height), 8);
        let [y, u, v] = samples(&planar);
        let chroma: Vec<u8> = u.iter().zip(&v).flat_map(|(&u, &v)| [u, v]).collect();
        for (plane, rows) in interleaved.image_mut().planes.into_iter().zip([y, chroma]) {
            let width = plane.stride - 8;
            for (to, from) in plane.data.chunks_mut(plane.stride).zip(rows.chunks(width)) {
                to[..width].copy_from_slice(from);
            }
        }
        let mut overlay = overlay(style, 0.45, true);
        let a = drawn(&mut overlay, &planar, Some(&mask), 0);
        let b = drawn(&mut overlay, &interleaved, Some(&mask), 6);
        assert_eq!(samples(&a), samples(&b), "{style:?} {width}x{height}");
        // The smallest images may show hidden classes only.
        assert!(width < 10 || samples(&a) != samples(&planar), "{style:?} {width}x{height}");
    }
}

#[test]
fn hidden_and_unknown_classes_keep_the_samples_of_the_source() {
    let hidden = mask(40, 30, |x, _| if x % 3 == 0 { SKY } else { 3 + (x % 250) as u8 });
    for style in [Style::Tint, Style::Contour] {
        let source = source(VideoInfo::new(PixelFormat::Nv12, 333, 255), 0);
        let result = drawn(&mut overlay(style, 0.45, false), &source, Some(&hidden), 0);
        assert_eq!(samples(&result), samples(&source), "{style:?}");
    }
}

#[test]
fn alpha_goes_from_invisible_to_opaque() {
    let mask = mask(8, 8, |_, _| CAR);
    let source = source(VideoInfo::new(PixelFormat::I420, 64, 50), 0);
    let at = |alpha: f32| samples(&drawn(&mut overlay(Style::Tint, alpha, false), &source, Some(&mask), 0));
    assert_eq!(at(0.0), samples(&source));
    assert!(at(1.0)[0].iter().all(|&y| y == 81) && at(1.0)[2].iter().all(|&v| v == 240));
    for (after, before) in at(0.25)[0].iter().zip(&samples(&source)[0]) {
        assert!((f32::from(*after) - (0.75 * f32::from(*before) + 0.25 * 81.0)).abs() <= 1.0);
    }
}

#[test]
fn a_higher_opacity_is_visible_in_both_styles_over_the_whole_range() {
    let halves = mask(40, 25, |x, _| if x < 20 { CAR } else { ROAD });
    let weights = vec![("car".to_owned(), Weight::try_from(0.5).unwrap())];
    // Less than two pixels a cell: contours are drawn by the cells.
    for (style, (width, height)) in
        [Style::Tint, Style::Contour].into_iter().flat_map(|style| [(320, 200), (60, 40)].map(|size| (style, size)))
    {
        let source = source(VideoInfo::new(PixelFormat::I420, width, height), 0);
        let before = samples(&source);
        let change = |alpha: f32, weights: &[(String, Weight)]| {
            let config = OverlayConfig {
                style,
                alpha,
                weights: weights.to_vec(),
                legend: config::Legend::Off,
                ..OverlayConfig::default()
            };
            let after = samples(&drawn(&mut Overlay::new(&config, &labels()).unwrap(), &source, Some(&halves), 0));
            let difference = |plane: usize| {
                after[plane].iter().zip(&before[plane]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
            };
            (0..3).map(difference).sum::<u64>()
        };
        for weights in [&[][..], &weights] {
            let changes: Vec<u64> = (0..=10).map(|tenth| change(tenth as f32 / 10.0, weights)).collect();
            assert_eq!(changes[0], 0, "{style:?} {width}x{height}");
            assert!(changes.is_sorted_by(|a, b| a < b), "{style:?} {width}x{height}: {changes:?}");
        }
    }
}

#[test]
fn colours_follow_the_colorimetry_of_the_frame() {
    let mask = mask(8, 8, |_, _| CAR);
    let mut overlay = overlay(Style::MaskOnly, 0.45, false);
    let mut info = VideoInfo::new(PixelFormat::I420, 16, 16);
    let mut first = |info| samples(&drawn(&mut overlay, &source(info, 0), Some(&mask), 0)).map(|plane| plane[5]);
    assert_eq!(first(info), [81, 90, 240]);
    info.color = Colorimetry::new(crate::frame::Matrix::Bt709, false);
    assert_eq!(first(info), [63, 102, 240]);
    info.color = Colorimetry::default();
    assert_eq!(first(info), [81, 90, 240]);
}

#[test]
fn mask_only_is_black_outside_of_visible_classes() {
    let mask = mask(4, 1, |x, _| [CAR, SKY, 200, ROAD][x]);
    let source = source(VideoInfo::new(PixelFormat::I420, 64, 64), 0);
    let mut overlay = overlay(Style::MaskOnly, 0.1, false);
    let [y, u, v] = samples(&drawn(&mut overlay, &source, Some(&mask), 0));
    assert_eq!((y[0], u[0], v[0]), (81, 90, 240));
    for x in [16, 31, 32, 47] {
        assert_eq!((y[x], u[x / 2], v[x / 2]), (16, 128, 128), "at {x}");
    }
    assert!(y[48] > 16 && v[24] != 128);
    let [y, u, v] = samples(&drawn(&mut overlay, &source, None, 0));
    assert!(y.iter().all(|&y| y == 16) && u.iter().chain(&v).all(|&c| c == 128));
}

#[test]
fn without_a_mask_the_frame_is_copied() {
    let short = Mask { classes: vec![CAR; 3], ..mask(2, 2, |_, _| CAR) };
    for (style, (width, height)) in [Style::Tint, Style::Contour].into_iter().flat_map(|s| SIZES.map(|size| (s, size)))
    {
        let source = source(VideoInfo::new(PixelFormat::Nv12, width, height), 4);
        let mut overlay = overlay(style, 0.45, false);
        assert_eq!(samples(&drawn(&mut overlay, &source, None, 2)), samples(&source));
        assert_eq!(samples(&drawn(&mut overlay, &source, Some(&short), 2)), samples(&source));
    }
}

#[test]
fn planes_may_end_with_the_last_pixel() {
    let info = VideoInfo::new(PixelFormat::I420, 35, 21);
    let source = source(info, 9);
    let mask = mask(10, 10, |x, y| ((x + y) % 3) as u8);
    for style in [Style::Tint, Style::Contour, Style::MaskOnly] {
        let whole = drawn(&mut overlay(style, 0.5, false), &source, Some(&mask), 9);
        let mut from = source.image();
        let mut copy = OwnedImage::new(info, 9);
        let mut to = copy.image_mut();
        for plane in 0..3 {
            let length = from.planes[plane].data.len() - 9;
            from.planes[plane].data = &from.planes[plane].data[..length];
            let data = std::mem::take(&mut to.planes[plane].data);
            to.planes[plane].data = &mut data[..length];
        }
        overlay(style, 0.5, false).draw(&from, Some(&mask), &mut to);
        assert_eq!(samples(&copy), samples(&whole), "{style:?}");
    }
}

/// Cells of 20 pixels have no tables; those of the size before must not be used.
#[test]
fn a_change_to_frames_with_large_cells_and_back_is_drawn_as_by_a_new_overlay() {
    let mask = mask(16, 9, |x, y| if x + y < 12 { SKY } else { CAR });
    for style in [Style::Tint, Style::Contour] {
        let mut kept = overlay(style, 0.5, false);
        for (width, height) in [(64, 36), (320, 180), (64, 36), (16, 18), (320, 180)] {
            let source = source(VideoInfo::new(PixelFormat::I420, width, height), 0);
            let again = samples(&drawn(&mut kept, &source, Some(&mask), 0));
            let new = samples(&drawn(&mut overlay(style, 0.5, false), &source, Some(&mask), 0));
            assert!(again == new, "{style:?}, {width}x{height}");
        }
    }
}

#[test]
fn a_weight_is_a_factor_of_the_opacity_except_in_mask_only() {
    let source = source(VideoInfo::new(PixelFormat::I420, 64, 36), 0);
    let mask = mask(16, 9, |x, _| if x < 8 { ROAD } else { CAR });
    let result = |style: Style, alpha: f32, weight: f64| {
        let mut labels = labels();
        labels[usize::from(CAR)].weight = Weight::try_from(weight).unwrap();
        let legend = config::Legend::Off;
        let config = OverlayConfig { style, alpha, legend, ..OverlayConfig::default() };
        samples(&drawn(&mut Overlay::new(&config, &labels).unwrap(), &source, Some(&mask), 0))
    };
    let half = |n: usize| n % 64 >= 32;
    for style in [Style::Tint, Style::Contour] {
        let (weighted, faint, full) = (result(style, 0.4, 0.5), result(style, 0.2, 1.0), result(style, 0.4, 1.0));
        assert_ne!(weighted, full, "{style:?}");
        for (n, &sample) in weighted[0].iter().enumerate() {
            let expected = if half(n) { faint[0][n] } else { full[0][n] };
            assert_eq!(sample, expected, "{style:?} at {n}");
        }
    }
    assert_eq!(result(Style::MaskOnly, 0.4, 0.5), result(Style::MaskOnly, 0.4, 1.0));
    let hidden = result(Style::MaskOnly, 0.4, 0.0);
    assert!((0..64 * 36).filter(|&n| half(n)).all(|n| hidden[0][n] == 16), "a weight of 0 hides the class");
    assert_eq!(result(Style::Tint, 0.4, 0.0)[0][40], samples(&source)[0][40]);
}
