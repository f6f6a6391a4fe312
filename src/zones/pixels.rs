//! The pixels of a mask that belong to a zone.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::frame::PixelArea;

/// The pixels of a polygon in masks of one size, as runs: each is a part of a row, or several whole rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZonePixels {
    runs: Vec<Range<usize>>,
    count: usize,
}

impl ZonePixels {
    /// The pixels whose centres lie in `polygon`, by the even-odd rule; its corners are fractions of `width` and
    /// `height`. No corners: all pixels. A polygon that contains no centre, because it is too small or thin, has the pixels that its
    /// outline crosses.
    pub fn of(polygon: &[[f64; 2]], width: usize, height: usize) -> Self {
        let mut pixels = ZonePixels::default();
        if polygon.is_empty() {
            pixels.add(0..width * height);
            return pixels;
        }
        let mut crossings = Vec::new();
        for row in 0..height {
            let y = (row as f64 + 0.5) / height as f64;
            find_crossings(polygon, y, &mut crossings);
            for pair in crossings.chunks_exact(2) {
                // The first column whose centre is not left of a crossing.
                let column = |x: f64| ((x * width as f64 - 0.5).ceil().max(0.0) as usize).min(width);
                pixels.add(row * width + column(pair[0])..row * width + column(pair[1]));
            }
        }
        if pixels.count == 0 && width > 0 && height > 0 {
            // The polygon is thinner than a pixel of the mask: the pixels that its outline crosses.
            outline(polygon, width, height).into_iter().for_each(|at| pixels.add(at..at + 1));
        }
        pixels
    }

    /// The pixels that are in `area` too, of masks that are `width` pixels wide.
    pub fn inside(&self, area: &PixelArea, width: usize) -> Self {
        let mut pixels = ZonePixels::default();
        let mut runs = self.runs.iter().peekable();
        for row in area.rows(width) {
            while runs.next_if(|run| run.end <= row.start).is_some() {}
            // A run may continue in the next row.
            for run in runs.clone().take_while(|run| run.start < row.end) {
                pixels.add(run.start.max(row.start)..run.end.min(row.end));
            }
        }
        pixels
    }

    fn add(&mut self, run: Range<usize>) {
        self.count += run.len();
        match self.runs.last_mut() {
            _ if run.is_empty() => {}
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
    }

    /// The pixels as ranges of indices of a mask, in order.
    pub fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }
}

/// Fills `crossings` with the positions at which the horizontal line at `y` crosses a polygon, from left to right. By the even-odd
/// rule, the line is inside between the first and the second, the third and the fourth, and so on.
pub fn find_crossings(polygon: &[[f64; 2]], y: f64, crossings: &mut Vec<f64>) {
    crossings.clear();
    for ([x1, y1], [x2, y2]) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
        // A corner belongs to the side below it, so that it is crossed once.
        if (*y1 <= y) != (*y2 <= y) {
            crossings.push(x1 + (y - y1) / (y2 - y1) * (x2 - x1));
        }
    }
    crossings.sort_unstable_by(f64::total_cmp);
}

/// The pixels that the sides of a polygon cross, as indices of the mask, in order.
fn outline(polygon: &[[f64; 2]], width: usize, height: usize) -> BTreeSet<usize> {
    let index = |at: f64, size: usize| ((at * size as f64) as usize).min(size - 1);
    let mut crossed = BTreeSet::new();
    for ([x1, y1], [x2, y2]) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
        // Four points for each pixel of the side.
        let length = ((x2 - x1).abs() * width as f64).max((y2 - y1).abs() * height as f64);
        let points = (4.0 * length).ceil().max(1.0);
        for point in 0..=points as usize {
            let part = point as f64 / points;
            let (x, y) = (x1 + part * (x2 - x1), y1 + part * (y2 - y1));
            crossed.insert(index(y, height) * width + index(x, width));
        }
    }
    crossed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pixels as text, a line for each row.
    fn drawn(polygon: &[[f64; 2]], width: usize, height: usize) -> Vec<String> {
        let pixels = ZonePixels::of(polygon, width, height);
        let inside = |at: usize| pixels.runs.iter().any(|run| run.contains(&at));
        let row = |y: usize| (0..width).map(|x| if inside(y * width + x) { '#' } else { '.' }).collect();
        (0..height).map(row).collect()
    }

    #[test]
    fn a_polygon_has_the_pixels_whose_centres_are_inside() {
        let lower_half = [[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]];
        assert_eq!(drawn(&lower_half, 4, 4), ["....", "....", "####", "####"]);
        assert_eq!(ZonePixels::of(&lower_half, 4, 4).runs, std::slice::from_ref(&(8..16)), "whole rows are one run");
        let triangle = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
        assert_eq!(drawn(&triangle, 4, 4), ["###.", "##..", "#...", "...."]);
        // A U: the notch is outside.
        let notched =
            [[0.0, 0.0], [0.25, 0.0], [0.25, 0.5], [0.75, 0.5], [0.75, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        assert_eq!(drawn(&notched, 4, 4), ["#..#", "#..#", "####", "####"]);
        let turned: Vec<[f64; 2]> = notched.iter().rev().copied().collect();
        assert_eq!(drawn(&turned, 4, 4), drawn(&notched, 4, 4), "in the opposite order");
    }

    #[test]
    fn adjoining_zones_have_each_pixel_once() {
        for size in [(7, 5), (64, 36), (513, 289)] {
            let at = 0.37;
            let left = ZonePixels::of(&[[0.0, 0.0], [at, 0.0], [at, 1.0], [0.0, 1.0]], size.0, size.1);
            let right = ZonePixels::of(&[[at, 0.0], [1.0, 0.0], [1.0, 1.0], [at, 1.0]], size.0, size.1);
            assert_eq!(left.count + right.count, size.0 * size.1, "{size:?}");
        }
    }

    #[test]
    fn pixels_in_an_area_are_in_both() {
        let polygon = [[0.1, 0.2], [0.9, 0.0], [0.6, 0.5], [1.0, 1.0], [0.0, 0.9]];
        for (width, height) in [(4, 4), (16, 9), (61, 37)] {
            for (left, top) in [(0, 0), (1, 2), (3, 1)] {
                for (right, bottom) in [(0, 0), (1, 0), (0, 1)] {
                    let area = PixelArea { left, top, width: width - left - right, height: height - top - bottom };
                    for zone in [ZonePixels::of(&polygon, width, height), ZonePixels::of(&[], width, height)] {
                        let found: Vec<usize> = zone.inside(&area, width).runs.into_iter().flatten().collect();
                        let is_inside = |at: &usize| area.rows(width).any(|row| row.contains(at));
                        let expected: Vec<usize> = zone.runs.into_iter().flatten().filter(is_inside).collect();
                        assert_eq!(found, expected, "{area:?} of {width}x{height}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_zone_smaller_than_a_pixel_is_the_pixel_that_contains_it() {
        let dot = [[0.3, 0.7], [0.31, 0.7], [0.31, 0.71]];
        assert_eq!(drawn(&dot, 4, 4), ["....", "....", ".#..", "...."]);
    }

    #[test]
    fn a_zone_between_two_rows_of_centres_has_the_pixels_that_its_outline_crosses() {
        let strip = [[0.1, 0.49], [0.9, 0.49], [0.9, 0.51], [0.1, 0.51]];
        assert_eq!(drawn(&strip, 8, 4), ["........", "########", "########", "........"]);
        let left = [[0.1, 0.45], [0.3, 0.45], [0.3, 0.49], [0.1, 0.49]];
        assert_eq!(drawn(&left, 8, 4), ["........", "###.....", "........", "........"]);
    }
}
