//! Fills polygons (scan line algorithm, even-odd rule).

use std::ops::Range;

/// Calls `run` with each row and run of pixels whose centres are inside the polygon. A pixel at x, y covers x to x + 1
/// and y to y + 1, as in COCO, so that a rectangle of 10 by 5 has 50 pixels.
///
/// `points` are x, y in pixels; the last is connected to the first. The polygon is clipped to `width` by `height`.
pub fn fill(points: &[[f32; 2]], width: usize, height: usize, mut run: impl FnMut(usize, Range<usize>)) {
    if points.len() < 3 || points.iter().flatten().any(|number| !number.is_finite()) {
        return;
    }
    let (top, bottom) = points.iter().fold((f32::MAX, f32::MIN), |(top, bottom), [_, y]| (top.min(*y), bottom.max(*y)));
    let first = (top.floor().max(0.0) as usize).min(height);
    let last = (bottom.ceil().max(0.0) as usize).min(height);
    let edges: Vec<([f32; 2], [f32; 2])> =
        (0..points.len()).map(|n| (points[n], points[(n + 1) % points.len()])).collect();
    let mut crossings: Vec<f32> = Vec::new();
    for row in first..last {
        let y = row as f32 + 0.5;
        crossings.clear();
        let crossed = edges.iter().filter(|([_, from], [_, to])| (*from <= y) != (*to <= y));
        crossings.extend(crossed.map(|([x0, y0], [x1, y1])| x0 + (y - y0) / (y1 - y0) * (x1 - x0)));
        crossings.sort_unstable_by(f32::total_cmp);
        for pair in crossings.chunks_exact(2) {
            // The first column whose pixel centre is at or right of x.
            let column = |x: f32| ((x - 0.5).ceil().max(0.0) as usize).min(width);
            let (from, to) = (column(pair[0]), column(pair[1]));
            if from < to {
                run(row, from..to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(points: &[[f32; 2]], width: usize, height: usize) -> Vec<u8> {
        let mut pixels = vec![0; width * height];
        fill(points, width, height, |row, run| pixels[row * width..][run].fill(1));
        pixels
    }

    #[test]
    fn a_rectangle_has_as_many_pixels_as_its_area() {
        let pixels = filled(&[[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]], 6, 4);
        assert_eq!(pixels, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        // In the other direction, and across the image's borders.
        let pixels = filled(&[[-3.0, -3.0], [-3.0, 2.0], [2.0, 2.0], [2.0, -3.0]], 3, 3);
        assert_eq!(pixels, [1, 1, 0, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_triangle_fills_pixels_with_centres_inside() {
        let pixels = filled(&[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], 4, 4);
        let counts: Vec<u8> = pixels.chunks(4).map(|row| row.iter().sum()).collect();
        assert!(counts == [3, 2, 1, 0] || counts == [4, 3, 2, 1], "{counts:?}");
        assert_eq!(pixels[..2], [1, 1]);
    }

    #[test]
    fn degenerate_polygons_fill_nothing() {
        for points in [&[][..], &[[1.0, 1.0], [3.0, 3.0]], &[[1.0, f32::NAN], [3.0, 1.0], [2.0, 2.0]]] {
            assert_eq!(filled(points, 4, 4), [0; 16]);
        }
    }
}
