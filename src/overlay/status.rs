//! Draws what shows viewers that a stream is not live: the badge on a frame, and the slate when there are no frames.

use super::bitmap::{Canvas, DARK, OverlayBitmap, WHITE, short_side};
use super::text::Text;
use crate::frame::{Image, ImageMut, Rgb, VideoInfo};

/// Brightness of the last frame behind a slate, in 256ths of its own.
const DIMMED: usize = 90;
/// Grey of a slate without a frame, from black (0) to white (256).
const PLAIN: usize = 30;
/// Colour of the left edge of the badge, which is visible on dark frames.
const EDGE: Rgb = Rgb(255, 176, 0);
/// Smallest legible height of capitals in pixels.
const LEGIBLE: usize = 7;

/// The badge with this text, in the top right corner. In small images the text is smaller and may be cut off; the box is always
/// drawn.
pub(super) fn badge(text: &str, info: &VideoInfo) -> OverlayBitmap {
    let size = (short_side(info) / 36).max(10);
    let margin = if info.height < 120 { 0 } else { size.next_multiple_of(2) };
    let room = info.width.saturating_sub(2 * margin);
    let (size, text) = fitting(text, size, room.saturating_sub(2 * size));
    let padding = size * 2 / 3;
    let mut canvas = Canvas::new(text.width + 2 * padding, size + 2 * padding);
    let area = (canvas.width(), canvas.height());
    canvas.fill((0, 0), area, DARK, 1.0);
    let edge = (size / 6).max(1).next_multiple_of(2);
    canvas.fill((0, 0), (edge, area.1), EDGE, 1.0);
    canvas.text((padding + edge / 2, (area.1 - size) / 2), &text, WHITE);
    OverlayBitmap::new(&canvas, (info.width.saturating_sub(margin + area.0), margin), info)
}

/// Lines of text in the middle of the image, the first one larger; `None` when there are none.
pub(super) fn lines(lines: &[String], info: &VideoInfo) -> Option<OverlayBitmap> {
    let room = info.width * 9 / 10;
    let texts: Vec<(usize, Text)> = lines
        .iter()
        .enumerate()
        .map(|(n, line)| fitting(line, (short_side(info) / if n == 0 { 10 } else { 20 }).max(LEGIBLE), room))
        .collect();
    let width = texts.iter().map(|(_, text)| text.width).max()?;
    let heights = texts.iter().map(|(size, _)| size * 2);
    let mut canvas = Canvas::new(width.min(info.width), heights.sum::<usize>().min(info.height));
    let mut y = 0;
    for (size, text) in &texts {
        canvas.text((canvas.width().saturating_sub(text.width) / 2, y + size / 2), text, WHITE);
        y += size * 2;
    }
    let x = info.width.saturating_sub(canvas.width()) / 2;
    let y = info.height.saturating_sub(canvas.height()) / 2;
    Some(OverlayBitmap::new(&canvas, (x, y), info))
}

/// The height of capitals, reduced so that the text fits into `room` pixels (but not below [`LEGIBLE`]), and the rendered text.
fn fitting(text: &str, size: usize, room: usize) -> (usize, Text) {
    let rendered = Text::new(text, size);
    if rendered.width <= room || size <= LEGIBLE {
        return (size, rendered);
    }
    let size = (size * room / rendered.width).max(LEGIBLE);
    (size, Text::new(text, size))
}

/// Fills `target` with the last frame in dark grey, or with plain dark grey.
pub(super) fn backdrop(last: Option<&Image<'_>>, target: &mut ImageMut<'_>) {
    let info = target.info;
    let (black, white) = if info.color.full_range { (0, 255) } else { (16, 235) };
    let mut levels = [0; 256];
    for (value, level) in levels.iter_mut().enumerate() {
        *level = (black + value.clamp(black, white).saturating_sub(black) * DIMMED / 256) as u8;
    }
    let plain = (black + (white - black) * PLAIN / 256) as u8;
    for plane in 0..info.planes() {
        let (width, height) = info.plane_size(plane);
        let to = &mut target.planes[plane];
        for row in 0..height {
            let out = &mut to.data[row * to.stride..][..width];
            match last {
                _ if plane > 0 => out.fill(128),
                None => out.fill(plain),
                Some(last) => {
                    let from = &last.planes[0].data[row * last.planes[0].stride..][..width];
                    for (out, &value) in out.iter_mut().zip(from) {
                        *out = levels[usize::from(value)];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{OwnedImage, PixelFormat, Pixels};

    fn bright(info: VideoInfo) -> OwnedImage {
        let mut image = OwnedImage::new(info, 2);
        image.image_mut().planes[0].data.fill(200);
        image.image_mut().planes[1].data.fill(60);
        image
    }

    fn changed(before: &OwnedImage, after: &OwnedImage) -> Vec<(usize, usize)> {
        let (before, after) = (before.image().planes[0], after.image().planes[0]);
        let differs = (0..before.data.len()).filter(|&n| before.data[n] != after.data[n]);
        differs.map(|n| (n % before.stride, n / before.stride)).collect()
    }

    #[test]
    fn badge_is_an_opaque_box_in_the_top_right_corner() {
        for (width, height) in [(1920, 1080), (961, 541), (360, 640)] {
            let info = VideoInfo::new(PixelFormat::Nv12, width, height);
            let before = bright(info);
            let mut after = before.clone();
            badge("STALE 2.1 s", &info).blend(&mut after.image_mut());
            let changed = changed(&before, &after);
            let (left, right) = (changed.iter().map(|at| at.0).min().unwrap(), changed.iter().map(|at| at.0).max());
            let bottom = changed.iter().map(|at| at.1).max().unwrap();
            assert!(
                left > width / 2 && right > Some(width * 9 / 10) && bottom < height / 6,
                "{info}: {left}, {bottom}"
            );
            let y = after.image().planes[0];
            let at = |(x, row): &(usize, usize)| y.data[row * y.stride + x];
            let dark = changed.iter().filter(|at_| at(at_) < 40).count();
            assert!(dark * 2 > changed.len(), "mostly box: {dark} of {}", changed.len());
            assert!(changed.iter().filter(|at_| at(at_) > 220).count() > 50, "text");
        }
    }

    #[test]
    fn badge_is_clipped_to_tiny_images() {
        for (width, height) in [(1, 1), (2, 1), (7, 5), (64, 36), (100, 20)] {
            for format in [PixelFormat::I420, PixelFormat::Nv12] {
                let info = VideoInfo::new(format, width, height);
                let before = bright(info);
                let mut after = before.clone();
                badge("STALE 2.1 s", &info).blend(&mut after.image_mut());
                let changed = changed(&before, &after);
                assert!(!changed.is_empty(), "{info}");
                assert!(changed.iter().all(|at| at.0 < width), "{info}: the padding is unchanged");
            }
        }
    }

    #[test]
    fn slate_is_grey_and_dark_with_bright_text() {
        let texts = ["OFFLINE".to_owned(), "gate, 21 s".to_owned()];
        for (width, height) in [(1920, 1080), (333, 255), (20, 10), (1, 1)] {
            let info = VideoInfo::new(PixelFormat::Nv12, width, height);
            let last = bright(info);
            for last in [None, Some(last.image())] {
                let mut target = OwnedImage::new(info, 0);
                backdrop(last.as_ref(), &mut target.image_mut());
                let expected = if last.is_some() { 16 + 184 * DIMMED / 256 } else { 16 + 219 * PLAIN / 256 };
                assert!(target.image().planes[0].data.iter().all(|&y| usize::from(y) == expected));
                assert!(target.image().planes[1].data.iter().all(|&c| c == 128));
                let before = target.clone();
                lines(&texts, &info).unwrap().blend(&mut target.image_mut());
                let changed = changed(&before, &target);
                assert!(target.image().planes[1].data.iter().all(|&c| c.abs_diff(128) <= 1));
                if height > 100 {
                    let (sum, count) = (changed.iter().map(|at| at.0).sum::<usize>(), changed.len());
                    assert!((sum / count).abs_diff(width / 2) < width / 20, "{info}: centred");
                    assert!(target.image().planes[0].data.iter().filter(|&&y| y > 220).count() > height);
                }
            }
        }
        assert!(lines(&[], &VideoInfo::new(PixelFormat::I420, 64, 64)).is_none());
    }

    #[test]
    fn slate_shows_the_last_frame() {
        let info = VideoInfo::new(PixelFormat::I420, 64, 2);
        let mut last = OwnedImage::new(info, 0);
        for (x, y) in last.image_mut().planes[0].data.iter_mut().enumerate() {
            *y = (x % 64 * 4) as u8;
        }
        let mut target = OwnedImage::new(info, 3);
        backdrop(Some(&last.image()), &mut target.image_mut());
        let row = &target.image().planes[0].data[..64];
        assert!(row.is_sorted() && row[0] == 16 && row[63] > row[20] && row[63] < 120, "{row:?}");
    }
}
