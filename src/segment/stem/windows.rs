//! Writes the windows of a convolution of 3×3 pixels.

use crate::segment::contract::TensorSpec;

/// Side of the window.
pub(super) const SIDE: usize = 3;

/// Bytes of a row of the window: three pixels of three bytes.
pub(super) const ROW: usize = SIDE * 3;

/// Bytes of a window, rounded up to a multiple of four. The weights of the last byte are 0.
pub(super) const WINDOW: usize = (SIDE * ROW).next_multiple_of(4);

/// The windows of a convolution of 3×3 pixels in images of a fixed size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stem {
    /// The input of the model, `[N, height, width, 3]`.
    pub(super) input: TensorSpec,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Pixels from one window to the next, across and down.
    pub(super) strides: [usize; 2],
    /// Pixels left of the image and above it in the first windows.
    pub(super) before: [usize; 2],
    /// Windows in a row, and rows of windows.
    pub(super) windows: [usize; 2],
    /// The byte of pixels outside of the image: that of the value 0.
    pub(super) outside: u8,
}

impl Stem {
    /// The input of the model in the file.
    pub fn input(&self) -> &TensorSpec {
        &self.input
    }

    /// The shape of the input of the rewritten graph for `n` images.
    pub fn shape(&self, n: usize) -> [usize; 4] {
        let [columns, rows] = self.windows;
        [n, rows, columns, WINDOW]
    }

    /// Writes the windows of `n` images, `[n, height, width, 3]`, to `out`, in the shape of [`Stem::shape`].
    ///
    /// # Panics
    /// `rgb` does not have `n` images.
    pub fn write_windows(&self, rgb: &[u8], n: usize, out: &mut Vec<u8>) {
        let [columns, rows] = self.windows;
        let (image_bytes, row_bytes) = (self.width * self.height * 3, columns * WINDOW);
        assert_eq!(rgb.len(), n * image_bytes, "{n} images");
        out.resize(n * rows * row_bytes, 0);
        for (image, out) in rgb.chunks_exact(image_bytes).zip(out.chunks_exact_mut(rows * row_bytes)) {
            for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                for line in 0..SIDE {
                    let y = (row * self.strides[1] + line).checked_sub(self.before[1]).filter(|y| *y < self.height);
                    let source = y.map(|y| &image[y * self.width * 3..][..self.width * 3]);
                    self.write_line(source, line, out);
                }
            }
        }
    }

    /// Writes line number `line` of the windows of a row; `source` is that row of the image, `None` outside of it.
    fn write_line(&self, source: Option<&[u8]>, line: usize, out: &mut [u8]) {
        let (outside, at) = ([self.outside; ROW], line * ROW);
        let Some(source) = source else {
            out.chunks_exact_mut(WINDOW).for_each(|window| window[at..][..ROW].copy_from_slice(&outside));
            return;
        };
        let (stride, before) = (self.strides[0] * 3, self.before[0] * 3);
        // The windows that are inside of the image.
        let first = before.div_ceil(stride);
        let inside = (source.len() + before - ROW) / stride + 1;
        for (column, window) in out.chunks_exact_mut(WINDOW).enumerate() {
            let window = &mut window[at..][..ROW];
            if (first..inside).contains(&column) {
                window.copy_from_slice(&source[column * stride - before..][..ROW]);
            } else {
                for (n, byte) in window.iter_mut().enumerate() {
                    let place = (column * stride + n).checked_sub(before);
                    *byte = place.and_then(|place| source.get(place)).copied().unwrap_or(self.outside);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ort::value::TensorElementType;

    use super::*;

    /// Every byte of every window, compared with the definition of a convolution.
    #[test]
    fn windows_have_the_pixels_of_the_image() {
        for (width, height, strides, before, windows) in [
            (8, 6, [2, 2], [0, 0], [4, 3]),
            (8, 6, [2, 2], [1, 1], [4, 3]),
            (7, 5, [1, 1], [1, 1], [7, 5]),
            (5, 4, [2, 1], [1, 0], [3, 2]),
        ] {
            let input = TensorSpec {
                name: "image".into(),
                element: TensorElementType::Uint8,
                shape: vec![-1, height as i64, width as i64, 3],
            };
            let stem = Stem { input, width, height, strides, before, windows, outside: 114 };
            let rgb: Vec<u8> = (0..2 * width * height * 3).map(|n| (n * 37 % 113) as u8).collect();
            let mut out = Vec::new();
            stem.write_windows(&rgb, 2, &mut out);
            assert_eq!(out.len(), stem.shape(2).iter().product::<usize>());
            let pixel = |n: usize, y: usize, x: usize, channel: usize| {
                let (y, x) = (y.checked_sub(before[1])?, x.checked_sub(before[0])?);
                (y < height && x < width).then(|| rgb[((n * height + y) * width + x) * 3 + channel])
            };
            for (at, byte) in out.iter().enumerate() {
                let (window, byte_of_window) = (at / WINDOW, at % WINDOW);
                let (n, row, column) =
                    (window / (windows[0] * windows[1]), window / windows[0] % windows[1], window % windows[0]);
                let (line, x, channel) = (byte_of_window / ROW, byte_of_window % ROW / 3, byte_of_window % 3);
                let expected = match line < SIDE {
                    true => pixel(n, row * strides[1] + line, column * strides[0] + x, channel).unwrap_or(114),
                    false => 0,
                };
                assert_eq!(*byte, expected, "{width}x{height} {strides:?} {before:?}: byte {at}");
            }
        }
    }
}
