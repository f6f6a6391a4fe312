//! Draws the legend: a swatch and a name for each visible class, in the bottom left corner.

use super::bitmap::{Canvas, DARK, OverlayBitmap, WHITE, short_side};
use super::text::Text;
use crate::frame::{Rgb, VideoInfo};

/// Smallest height in pixels of an image with a legend. In smaller images it would be illegible or cover too much.
const MIN_HEIGHT: usize = 120;

/// Lengths in pixels, which all depend on the height of capitals.
struct LegendMetrics {
    /// Height of capitals, and side of a swatch.
    size: usize,
    /// Distance from an entry to the next one below.
    pitch: usize,
    /// Distance between box and entries, and between columns.
    padding: usize,
    /// Distance from the left edge of a swatch to its name.
    indent: usize,
    /// Distance from the edge of the image to the box.
    margin: usize,
}

impl LegendMetrics {
    /// All lengths are even, so that the edges of swatches are as sharp in chroma as in luma.
    fn new(size: usize) -> LegendMetrics {
        let even = |length: usize| length.next_multiple_of(2);
        LegendMetrics {
            size: even(size),
            pitch: even(size * 7 / 4),
            padding: even(size * 3 / 4),
            indent: even(size + size * 2 / 3),
            margin: even(size / 2),
        }
    }

    /// Height of a box with `rows` rows.
    fn height(&self, rows: usize) -> usize {
        2 * self.padding + (rows - 1) * self.pitch + self.size
    }
}

/// Draws the legend for images of this size and format; `None` when there are no classes or it does not fit. Long lists wrap
/// into columns of at most half of the image height, or of the full height when they would be too wide.
pub(super) fn draw(classes: &[(String, Rgb)], info: &VideoInfo) -> Option<OverlayBitmap> {
    if classes.is_empty() || info.height < MIN_HEIGHT {
        return None;
    }
    let metrics = LegendMetrics::new((short_side(info) / 54).max(9));
    let names: Vec<Text> = classes.iter().map(|(name, _)| Text::new(name, metrics.size)).collect();
    let room = info.height.checked_sub(2 * metrics.margin)?;
    let rows_in = |height: usize| (1..=names.len()).rev().find(|&rows| metrics.height(rows) <= height);
    let fitting = [room / 2, room].into_iter().filter_map(rows_in).find_map(|most| {
        // Balances the columns.
        let rows = names.len().div_ceil(names.len().div_ceil(most));
        let width = columns(&names, rows, &metrics).last().copied()?;
        (width + 2 * metrics.margin <= info.width).then_some((rows, width))
    });
    let (rows, width) = fitting?;

    let mut canvas = Canvas::new(width, metrics.height(rows));
    let (width, height) = (canvas.width(), canvas.height());
    canvas.fill((0, 0), (width, height), DARK, 0.66);
    let lefts = columns(&names, rows, &metrics);
    for (n, (name, (_, color))) in names.iter().zip(classes).enumerate() {
        let left = lefts[n / rows];
        let top = metrics.padding + n % rows * metrics.pitch;
        canvas.fill((left, top), (metrics.size, metrics.size), *color, 1.0);
        canvas.text((left + metrics.indent, top), name, WHITE);
    }
    // The distance from the bottom is even, so that the top is even in images of even height. In other images,
    // `OverlayBitmap` moves the box up by a row.
    Some(OverlayBitmap::new(&canvas, (metrics.margin, info.height - metrics.margin - height), info))
}

/// Left edges of the columns of `rows` entries, and at the end the width of the box.
fn columns(names: &[Text], rows: usize, metrics: &LegendMetrics) -> Vec<usize> {
    let mut edges = vec![metrics.padding];
    let mut left = metrics.padding;
    for column in names.chunks(rows) {
        let widest = column.iter().map(|name| name.width).max().unwrap_or(0);
        left += (metrics.indent + widest + metrics.padding).next_multiple_of(2);
        edges.push(left);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{OwnedImage, PixelFormat, Pixels};

    /// The bounding box `(left, top, right, bottom)` of the luma samples that the legend changed; right and bottom are exclusive.
    fn changed(classes: &[(String, Rgb)], info: VideoInfo) -> Option<(usize, usize, usize, usize)> {
        let mut image = OwnedImage::new(info, 0);
        image.image_mut().planes[0].data.fill(200);
        draw(classes, &info)?.blend(&mut image.image_mut());
        let data = image.image().planes[0].data;
        let hits = (0..data.len()).filter(|&n| data[n] != 200).map(|n| (n % info.width, n / info.width));
        let start = (usize::MAX, usize::MAX, 0, 0);
        Some(hits.fold(start, |(l, t, r, b), (x, y)| (l.min(x), t.min(y), r.max(x + 1), b.max(y + 1))))
    }

    fn classes(count: usize) -> Vec<(String, Rgb)> {
        (0..count).map(|n| (format!("class {n}"), Rgb(200, 40, 40))).collect()
    }

    #[test]
    fn is_in_the_bottom_left_corner_at_every_size() {
        for (width, height) in [(480, 360), (641, 361), (1920, 1080), (1080, 1920), (160, 120)] {
            let info = VideoInfo::new(PixelFormat::Nv12, width, height);
            let (left, top, right, bottom) = changed(&classes(4), info).unwrap();
            assert!(left > 0 && left < width / 20, "{info}: left {left}");
            assert!(bottom < height && bottom > height * 9 / 10, "{info}: bottom {bottom}");
            assert!(right < width && top >= height / 3, "{info}: {right}, {top}");
        }
    }

    #[test]
    fn wraps_into_columns_or_is_not_drawn() {
        let info = VideoInfo::new(PixelFormat::I420, 640, 360);
        let (_, one, narrow, _) = changed(&classes(5), info).unwrap();
        let (_, two, wide, _) = changed(&classes(20), info).unwrap();
        assert!(wide > narrow + 50, "columns: {narrow}, {wide}");
        assert!(one >= 180 - 12 && two >= 180 - 12, "at most half of the height: {one}, {two}");
        assert_eq!(changed(&classes(200), info), None, "does not fit");
        let tall = VideoInfo::new(PixelFormat::I420, 120, 640);
        let (_, top, right, _) = changed(&classes(25), tall).unwrap();
        assert!(top < 320 && right < 120, "a narrow image uses the full height: {top}, {right}");
        assert_eq!(changed(&classes(3), VideoInfo::new(PixelFormat::I420, 160, 119)), None);
        assert_eq!(changed(&classes(3), VideoInfo::new(PixelFormat::I420, 20, 400)), None);
        assert_eq!(changed(&[], info), None);
    }

    #[test]
    fn swatches_have_the_class_colour_in_all_planes() {
        let info = VideoInfo::new(PixelFormat::I420, 640, 540);
        let mut image = OwnedImage::new(info, 0);
        draw(&[("red".into(), Rgb(255, 0, 0))], &info).unwrap().blend(&mut image.image_mut());
        let has = |plane: usize, value: u8| image.image().planes[plane].data.contains(&value);
        assert!(has(0, 81) || has(0, 82));
        assert!(has(1, 90) && has(2, 240));
    }
}
