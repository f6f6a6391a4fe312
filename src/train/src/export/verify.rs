//! Compares an exported file, run on the service's own ONNX Runtime, with the network that it was made of.

use maskcast::segment::probe::{Outputs, Probe};
use tch::{Device, Tensor};

use super::ExportError;
use crate::net::{Net, Params, exec};

/// What a file may differ from libtorch by.
const LOGITS_TOLERANCE: f64 = 1e-3;
/// Beyond logits of 100, 32-bit floats themselves are the limit.
const RELATIVE_TOLERANCE: f64 = 1e-5;
/// Share of pixels that have to get the same class.
pub const MASK_AGREEMENT: f64 = 0.999;

/// What an ONNX file's bytes give for RGB images, bytes `[N, H, W, 3]`.
///
/// # Errors
/// If ONNX Runtime is not there or fails.
pub fn run(bytes: &[u8], images: &Tensor) -> Result<Outputs, ExportError> {
    let (n, h, w, c) = images.size4().map_err(|error| ExportError::Runtime(error.to_string()))?;
    let shape = [n, h, w, c].map(|side| side as usize);
    let found = Probe::open(bytes).and_then(|mut probe| probe.run(&image_bytes(images), shape));
    found.map_err(|error| ExportError::Runtime(error.to_string()))
}

/// A tensor's bytes, row by row.
pub fn image_bytes(images: &Tensor) -> Vec<u8> {
    let flat = images.to_device(Device::Cpu).contiguous().view([-1]);
    Vec::try_from(&flat).expect("images are bytes")
}

/// What the network itself gives for images `[N, H, W, 3]`, in libtorch on the CPU: its logits.
pub fn logits(net: &Net, params: &Params, images: &Tensor) -> Tensor {
    let input = exec::input(images, &net.normalise, Device::Cpu);
    tch::no_grad(|| exec::forward(net, params, &input, &exec::RunOptions::EVAL)).contiguous()
}

/// How far a file is from its network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Largest difference between logits.
    pub logits: f64,
    /// Share of pixels with the same class.
    pub masks: f64,
}

/// Compares a float file that has the output `logits` with the network as it was trained, batch norms and all.
///
/// # Errors
/// If they are not the same within rounding, with by how much they differ.
pub fn same(bytes: &[u8], net: &Net, params: &Params, images: &Tensor) -> Result<Agreement, ExportError> {
    let expected = logits(net, params, images);
    let found = run(bytes, images)?;
    let Some(found_logits) = found.logits else {
        return Err(ExportError::Runtime("the exported network has no logits to compare".into()));
    };
    let found_logits = Tensor::from_slice(&found_logits).reshape(expected.size());
    let difference = (&found_logits - &expected).abs().max().double_value(&[]);
    let largest = expected.abs().max().double_value(&[]);
    let classes = expected.argmax(1, false).to_kind(tch::Kind::Uint8);
    let agreement = Agreement { logits: difference, masks: share_equal(&found.mask, &image_bytes(&classes)) };
    let tolerance = LOGITS_TOLERANCE.max(RELATIVE_TOLERANCE * largest);
    if difference.is_nan() || difference > tolerance || agreement.masks < MASK_AGREEMENT {
        return Err(ExportError::Different { agreement, tolerance, largest });
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
