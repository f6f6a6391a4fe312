//! Compares an exported file, run by the ONNX Runtime of the service, with the network in libtorch.

use maskcast::segment::probe::{Outputs, Probe, ProbeError};
use tch::{Device, TchError, Tensor};

use crate::net::{Net, Params, exec};

/// Largest allowed difference between a logit of the file and one of libtorch.
const LOGITS_TOLERANCE: f64 = 1e-3;
/// The same as a share of the largest logit. It applies above 100, where the precision of 32-bit floats is the limit.
const RELATIVE_TOLERANCE: f64 = 1e-5;
/// Smallest allowed share of pixels (0 to 1) that get the same class from the file and from libtorch.
pub const MASK_AGREEMENT: f64 = 0.999;

/// Why an exported file cannot be compared with its network, or differs from it.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("ONNX Runtime: {0}")]
    Runtime(#[from] ProbeError),
    #[error("the images are not a batch [N, H, W, 3]: {0}")]
    Images(#[source] TchError),
    #[error("the exported file has no output `logits` to compare")]
    NoLogits,
    #[error(
        "the file does not compute the same as the trained network: logits differ by up to {:.2e} (allowed \
         {tolerance:.2e}, largest logit {largest:.3}), {:.3} % of the mask agree; nothing was written",
        agreement.logits, agreement.masks * 100.0
    )]
    Different { agreement: Agreement, tolerance: f64, largest: f64 },
}

/// Runs an ONNX file, given as bytes, on RGB images, bytes `[N, H, W, 3]`.
///
/// # Errors
/// ONNX Runtime is not installed, or cannot load or run the file.
pub fn run(bytes: &[u8], images: &Tensor) -> Result<Outputs, VerifyError> {
    let (n, h, w, c) = images.size4().map_err(VerifyError::Images)?;
    let shape = [n, h, w, c].map(|side| side as usize);
    Ok(Probe::open(bytes)?.run(&image_bytes(images), shape)?)
}

/// The bytes of a tensor, in row-major order.
pub fn image_bytes(images: &Tensor) -> Vec<u8> {
    let flat = images.to_device(Device::Cpu).contiguous().view([-1]);
    Vec::try_from(&flat).expect("images are bytes")
}

/// The logits `[N, classes, H, W]` of the network for RGB images `[N, H, W, 3]`, in libtorch on the CPU.
pub fn logits(net: &Net, params: &Params, images: &Tensor) -> Tensor {
    let input = exec::input(images, &net.normalise, Device::Cpu);
    tch::no_grad(|| exec::forward(net, params, &input, &exec::RunOptions::EVAL)).contiguous()
}

/// How far the outputs of a file are from those of its network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Largest difference between two logits.
    pub logits: f64,
    /// Share of pixels with the same class, 0 to 1.
    pub masks: f64,
}

/// Compares a float file that has the output `logits` with the trained network, whose batch norms are not folded.
///
/// # Errors
/// The file cannot be run, or its outputs differ by more than rounding explains.
pub fn same(bytes: &[u8], net: &Net, params: &Params, images: &Tensor) -> Result<Agreement, VerifyError> {
    let expected = logits(net, params, images);
    let found = run(bytes, images)?;
    let found_logits = Tensor::from_slice(&found.logits.ok_or(VerifyError::NoLogits)?).reshape(expected.size());
    let difference = (&found_logits - &expected).abs().max().double_value(&[]);
    let largest = expected.abs().max().double_value(&[]);
    let classes = expected.argmax(1, false).to_kind(tch::Kind::Uint8);
    let agreement = Agreement { logits: difference, masks: share_equal(&found.mask, &image_bytes(&classes)) };
    let tolerance = LOGITS_TOLERANCE.max(RELATIVE_TOLERANCE * largest);
    if difference.is_nan() || difference > tolerance || agreement.masks < MASK_AGREEMENT {
        return Err(VerifyError::Different { agreement, tolerance, largest });
    }
    Ok(agreement)
}

/// Share of equal bytes, 0 to 1; 0 for different lengths.
pub fn share_equal(a: &[u8], b: &[u8]) -> f64 {
    if a.len() != b.len() || a.is_empty() {
        return 0.0;
    }
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}
