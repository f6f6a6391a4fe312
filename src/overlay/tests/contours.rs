//! Contours have the same width at every size and in every direction.

use super::*;

/// Less than two pixels for each cell of the masks below.
const SMALL: [(usize, usize); 6] = [(240, 150), (200, 177), (101, 77), (100, 20), (2, 2), (1, 1)];

#[test]
fn contours_in_small_images_are_drawn_near_other_classes() {
    let blobs = mask(151, 99, |x, y| if (x / 9 + y / 8) % 2 == 0 { CAR } else { ((x / 4 + y) / 6 % 2) as u8 });
    let fine = mask(180, 164, |x, y| ((x / 3) ^ (y / 2)) as u8 % 3);
    for (mask, (width, height)) in [&blobs, &fine].into_iter().flat_map(|m| SMALL.map(|size| (m, size))) {
        let reach = contour::line_width(height);
        let source = source(VideoInfo::new(PixelFormat::I420, width, height), 0);
        let result = drawn(&mut overlay(Style::Contour, 1.0, false), &source, Some(mask), 0);
        let classes = mask.resized(width, height);
        let (before, after) = (samples(&source), samples(&result));
        for (n, &class) in classes.iter().enumerate() {
            let (x, y) = (n % width, n / width);
            let mut near = (y.saturating_sub(reach)..(y + reach + 1).min(height)).flat_map(|row| {
                classes[row * width + x.saturating_sub(reach)..row * width + (x + reach + 1).min(width)].iter()
            });
            let expected = match class {
                SKY => before[0][n],
                _ if near.all(|&other| other == class) => before[0][n],
                CAR => 81,
                _ => 94,
            };
            assert_eq!(after[0][n], expected, "{width}x{height} at {x},{y}");
        }
    }
}

#[test]
fn contours_are_equally_wide_in_every_direction() {
    // A pixel row in the middle of a half-plane: the line's width along it, times the sine of its angle.
    for (width, height, line) in [(1920, 1080, 3.0), (1280, 720, 2.0), (960, 540, 1.375)] {
        for degrees in [20.0, 45.0, 63.4, 90.0, 120.0, 160.0_f64] {
            let (sine, cosine) = degrees.to_radians().sin_cos();
            let mask =
                mask(
                    512,
                    288,
                    |x, y| {
                        if (x as f64 - 256.0) * sine - (y as f64 - 144.0) * cosine > 0.0 { CAR } else { SKY }
                    },
                );
            let info = VideoInfo::new(PixelFormat::I420, width, height);
            let mut source = OwnedImage::new(info, 0);
            source.image_mut().planes[0].data.fill(181);
            let result = drawn(&mut overlay(Style::Contour, 1.0, false), &source, Some(&mask), 0);
            // The mean of many rows, because the mask has steps. 181 is the source, 81 the line.
            let rows = height / 2 - height / 10..height / 2 + height / 10;
            let drawn: f64 = rows
                .clone()
                .map(|y| {
                    let row = &result.image().planes[0].data[y * width..][..width];
                    row.iter().map(|&sample| f64::from(181 - sample) / 100.0).sum::<f64>()
                })
                .sum();
            let got = drawn / rows.len() as f64 * sine;
            assert!((got - line).abs() < 0.25 * line, "{width}x{height}, {degrees} degrees: {got:.2} px, not {line}");
        }
    }
}

#[test]
fn contours_are_thin_at_every_size() {
    // One border in the middle of coarse cells: 120 pixels wide in the largest image.
    let mask = mask(16, 9, |x, _| if x < 8 { SKY } else { CAR });
    for (height, line) in [(240, 2), (540, 2), (1080, 3), (2160, 6)] {
        let source = source(VideoInfo::new(PixelFormat::I420, height / 9 * 16, height), 0);
        let width = source.image().info.width;
        let result = drawn(&mut overlay(Style::Contour, 1.0, false), &source, Some(&mask), 0);
        let (before, after) = (samples(&source), samples(&result));
        for y in [0, height / 2, height - 1] {
            let row = y * width..(y + 1) * width;
            let on_line: Vec<usize> =
                (0..width).filter(|x| after[0][row.start + x] != before[0][row.start + x]).collect();
            // A sample of the random source may already have the value of the line.
            assert!(on_line.iter().all(|x| (width / 2..width / 2 + line).contains(x)), "{height}: {on_line:?}");
            assert!(
                after[0][row.clone()][width / 2..width / 2 + line].iter().all(|&y| (78..=84).contains(&y)),
                "{height}: {:?}",
                &after[0][row][width / 2 - 2..width / 2 + line + 2]
            );
        }
    }
}
