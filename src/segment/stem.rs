//! The first convolution of a quantised model on the CPU, as a product of matrices.
//!
//! ONNX Runtime's kernels for convolutions of bytes need a number of input channels that is a multiple of four; for the three of an
//! image, it takes another path, which is about five times as slow. Here each window of 3×3 pixels is written as the channels of one
//! pixel (im2col), and the graph gets a convolution of 1×1 ([`shorten`]):
//!
//! ```text
//! file:  image [N, H, W, 3] ─▶ convolution 3×3 ─▶ …
//! here:  image [N, H, W, 3] ─▶ windows [N, rows, columns, 28] ─▶ convolution 1×1 ─▶ …
//! ```
//!
//! The sums are those of integers, and have the same terms: no bit of the results differs.

use super::file::ModelFile;

mod rewrite;
mod windows;

pub use rewrite::StemProblem;
pub use windows::Stem;

/// The stem of a file, and the file with a convolution of 1×1. `None` if the graph does not begin with a quantised convolution
/// of 3×3 pixels of an image of bytes.
///
/// # Errors
/// The file is not a complete model.
pub fn shorten(file: &ModelFile) -> Result<Option<(Stem, ModelFile)>, StemProblem> {
    let rewritten = rewrite::rewrite(&file.bytes)?;
    Ok(rewritten.map(|(stem, bytes)| (stem, ModelFile { bytes: bytes.into(), ..file.clone() })))
}
