//! The memory of an output, which only the overlay draws into, and only from cleared frames.

use super::Overlay;
use crate::frame::{ImageMut, Mask, VideoInfo};
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
        overlay.draw(frame.image(), mask, self.0);
    }

    /// Copies a frame.
    ///
    /// # Panics
    /// The frame and the image differ in size or format.
    pub fn copy(&mut self, frame: &ClearedFrame<'_>) {
        frame.image().copy_to(self.0);
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
        overlay.slate(last.map(ClearedFrame::image), lines, self.0);
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
