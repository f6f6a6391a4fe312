//! How hidden pixels are drawn.

use super::{Noise, marked, rows, video};
use crate::config::RedactStyle;
use crate::frame::{Mask, OwnedImage, PixelFormat, Pixels, VideoInfo};
use crate::redact::area::HIDDEN;
use crate::redact::cells::{Cells, coarsest_side, side};

const STYLES: [RedactStyle; 3] = [RedactStyle::Pixelate, RedactStyle::Blur, RedactStyle::Fill];

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
