//! The memory of an output, which only the overlay draws into, and only from cleared frames.

use super::Overlay;
use crate::frame::{ImageMut, Mask, Pixels, VideoInfo};
use crate::redact::ClearedFrame;

/// An image that will be published. Nothing outside of the overlay can write samples into it, and the overlay takes them from a
/// [`ClearedFrame`] only: a frame that redaction has not cleared cannot get here.
pub struct OutputImage<'a, 'b>(&'a mut ImageMut<'b>);

impl<'a, 'b> OutputImage<'a, 'b> {
    pub fn new(memory: &'a mut ImageMut<'b>) -> Self {
        OutputImage(memory)
    }

    /// Size, format and colours of the image.
    pub fn info(&self) -> VideoInfo {
        self.0.info
    }

    /// Draws a frame with its mask and the legend.
    ///
    /// # Panics
    /// The frame and the image differ in size or format.
    pub fn draw(&mut self, overlay: &mut Overlay, frame: &ClearedFrame<'_>, mask: Option<&Mask>) {
        match frame.whole() {
            Some(image) => overlay.draw(image, mask, self.0),
            None => {
                frame.draw_to(self.0);
                overlay.draw_over(frame.info().color, mask, self.0);
            }
        }
    }

    /// Copies a frame.
    ///
    /// # Panics
    /// The frame and the image differ in size or format.
    pub fn copy(&mut self, frame: &ClearedFrame<'_>) {
        frame.draw_to(self.0);
    }

    /// Draws a short text in the top right corner, as [`Overlay::badge`] does.
    pub fn badge(&mut self, overlay: &mut Overlay, text: &str) {
        overlay.badge(text, self.0);
    }

    /// Draws lines of text in the middle.
    pub fn notice(&mut self, overlay: &mut Overlay, lines: &[String]) {
        overlay.notice(lines, self.0);
    }

    /// Draws lines of text on the last frame in dark grey, as [`Overlay::slate`] does.
    pub fn slate(&mut self, overlay: &mut Overlay, last: Option<&ClearedFrame<'_>>, lines: &[String]) {
        let drawn = last.filter(|last| last.whole().is_none()).map(ClearedFrame::to_image);
        let drawn = drawn.as_ref().map(Pixels::image);
        overlay.slate(drawn.as_ref().or(last.and_then(ClearedFrame::whole)), lines, self.0);
    }

    /// Fills the planes Y, U and V with one value each.
    pub fn fill(&mut self, [y, u, v]: [u8; 3]) {
        let info = self.0.info;
        for (plane, image) in self.0.planes.iter_mut().enumerate().take(info.planes()) {
            match (plane, info.planes()) {
                (0, _) => image.data.fill(y),
                (1, 2) => image.data.chunks_mut(2).for_each(|pair| pair.copy_from_slice(&[u, v][..pair.len()])),
                (1, _) => image.data.fill(u),
                _ => image.data.fill(v),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::{OverlayConfig, RedactConfig, RedactStyle, Style};
    use crate::frame::{Crop, Frame, Label, Labels, OwnedImage, PixelFormat, Rgb, Tiles};
    use crate::redact::Clearance;

    #[test]
    fn a_redacted_frame_is_drawn_as_a_copy_of_it_would_be() {
        let labels: Labels = ["other", "person", "sky"].map(|name| Label::new(name, Rgb(200, 30, 40))).into();
        for (format, width, height) in [(PixelFormat::I420, 161, 97), (PixelFormat::Nv12, 240, 135)] {
            for style in [Style::Tint, Style::Contour, Style::MaskOnly] {
                // Larger and smaller than the image.
                for size in [(40, 30), (300, 200)] {
                    let info = VideoInfo::new(format, width, height);
                    let mut source = OwnedImage::new(info, 3);
                    for plane in source.image_mut().planes {
                        plane.data.iter_mut().enumerate().for_each(|(at, sample)| *sample = (at * 7 % 251) as u8);
                    }
                    let captured_at = Instant::now();
                    let classes =
                        (0..size.0 * size.1).map(|n| ((n % size.0 / 9 + n / size.0 / 13) % 3) as u8).collect();
                    let mask = Mask {
                        seq: 0,
                        pts: Duration::ZERO,
                        captured_at,
                        width: size.0,
                        height: size.1,
                        classes,
                        labels: Arc::clone(&labels),
                        model: "".into(),
                        guide: None,
                        probable: None,
                        confirmed: false,
                        seen: None,
                    };
                    let pixels = Arc::new(source);
                    let frame = Frame {
                        stream: "".into(),
                        seq: 0,
                        pts: Duration::ZERO,
                        captured_at,
                        pixels,
                        bias: None,
                        gate: None,
                        crop: Crop::default(),
                        tiles: Tiles::default(),
                    };
                    let redact = RedactConfig {
                        classes: vec!["person".into()],
                        style: RedactStyle::Blur,
                        grow: 0.0,
                        ..RedactConfig::default()
                    };
                    let mut clearance = Clearance::of(Some(&redact));
                    let decision = clearance.decide(&frame, Ok(&mask));
                    let cleared = clearance.clear(&frame, &decision);
                    assert!(cleared.whole().is_none() && cleared.hidden().is_none());
                    let config = OverlayConfig { style, ..OverlayConfig::default() };
                    let mut overlay = Overlay::new(&config, &labels).unwrap();
                    for mask in [Some(&mask), None] {
                        let mut expected = OwnedImage::new(info, 0);
                        overlay.draw(&cleared.to_image().image(), mask, &mut expected.image_mut());
                        let mut target = OwnedImage::new(info, 0);
                        OutputImage::new(&mut target.image_mut()).draw(&mut overlay, &cleared, mask);
                        for plane in 0..info.planes() {
                            let [a, b] = [&target, &expected].map(|image| image.image().planes[plane].data);
                            assert!(a == b, "{style:?} {info:?} {size:?} {plane}");
                        }
                    }
                }
            }
        }
    }
}
