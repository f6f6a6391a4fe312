//! Renders text as coverage with the stroke fonts of OpenCV. It is drawn larger and scaled down, which gives strokes of any
//! width and smooth edges at every size.

use opencv::core::{CV_8UC1, Mat, MatTraitConst, MatTraitConstManual, Point, Scalar};
use opencv::imgproc;

/// Factor by which the text is drawn larger.
const OVERSIZE: usize = 4;
/// Height of a capital letter of the font at scale 1, in pixels.
const CAPITAL: f64 = 21.0;
const FONT: i32 = imgproc::FONT_HERSHEY_DUPLEX;

/// A line of text: 0 = background, 255 = inside a stroke.
#[derive(Default)]
pub(super) struct Text {
    pub width: usize,
    /// Number of rows above the upper edge of capitals, for brackets.
    pub above: usize,
    /// `[rows × width]`
    pub coverage: Vec<u8>,
}

impl Text {
    /// Renders one line with capitals of `size` pixels. The fonts have ASCII only; other characters become `?`.
    pub fn new(text: &str, size: usize) -> Text {
        let ascii: String = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
        draw(&ascii, size.max(1)).unwrap_or_else(|error| {
            crate::base::log_dedup::warn(
                "",
                "overlay",
                &format!("cannot render a text of the overlay: {error} ({text:?})"),
            );
            Text::default()
        })
    }
}

fn draw(text: &str, size: usize) -> opencv::Result<Text> {
    let large = (size * OVERSIZE) as f64;
    let thickness = (large / 11.0).round().max(1.0);
    // Heights of the font are measured to the middle of the strokes.
    let scale = (large - thickness) / CAPITAL;
    let thickness = thickness as i32;
    let mut below = 0;
    let extent = imgproc::get_text_size(text, FONT, scale, thickness, &mut below)?;
    // Strokes extend beyond the box by half of their thickness.
    let margin = thickness / 2 + 1;
    let width = ((extent.width + 2 * margin) as usize).div_ceil(OVERSIZE);
    let above = (size / 3).max(2);
    let base = (above + size) * OVERSIZE - thickness as usize / 2;
    let height = above + size + (size / 2).max(2);

    let zero = Scalar::all(0.0);
    let mut mat =
        Mat::new_rows_cols_with_default((height * OVERSIZE) as i32, (width * OVERSIZE) as i32, CV_8UC1, zero)?;
    let origin = Point::new(margin, base as i32);
    imgproc::put_text(&mut mat, text, origin, FONT, scale, Scalar::all(255.0), thickness, imgproc::LINE_AA, false)?;
    debug_assert!(mat.is_continuous());
    let large = mat.data_bytes()?;

    let mut coverage = Vec::with_capacity(width * height);
    for y in 0..height {
        for x in 0..width {
            let rows = (0..OVERSIZE).map(|row| &large[((y * OVERSIZE + row) * width + x) * OVERSIZE..][..OVERSIZE]);
            let sum: usize = rows.flatten().map(|&value| usize::from(value)).sum();
            coverage.push((sum / (OVERSIZE * OVERSIZE)) as u8);
        }
    }
    Ok(Text { width, above, coverage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_have_the_requested_height() {
        for size in [8, 12, 24, 60] {
            let text = Text::new("H", size);
            let has_ink = |y: &usize| text.coverage[y * text.width..][..text.width].iter().any(|&c| c > 100);
            let rows: Vec<usize> = (0..text.coverage.len() / text.width).filter(has_ink).collect();
            let height = rows.last().unwrap() - rows[0] + 1;
            assert!(height.abs_diff(size) <= 1 + size / 12, "{size}: {height}");
        }
    }

    #[test]
    fn other_characters_become_question_marks() {
        assert_eq!(Text::new("ä", 12).coverage, Text::new("?", 12).coverage);
        assert_ne!(Text::new("a", 12).coverage, Text::new("?", 12).coverage);
    }

    #[test]
    fn strokes_are_not_cut_off() {
        for size in [8, 13, 40] {
            let text = Text::new("Wgjp|_Q", size);
            assert!(text.coverage.iter().any(|&c| c > 128));
            for (n, &coverage) in text.coverage.iter().enumerate() {
                let (x, y) = (n % text.width, n / text.width);
                let outermost = x == 0 || x == text.width - 1 || y == 0 || n + text.width >= text.coverage.len();
                assert!(!outermost || coverage < 128, "size {size}: stroke at {x},{y}");
            }
        }
    }

    #[test]
    fn empty_text_is_empty() {
        assert!(Text::new("", 12).coverage.iter().all(|&c| c == 0));
    }
}
