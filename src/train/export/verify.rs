//! Runs an exported file on ONNX Runtime, the service's own, and compares it with the network it was made of. The
//! service's segmenter knows masks alone; a check wants logits too, so this module has a session of its own.

use ort::session::Session;
use ort::value::TensorRef;
use tch::{Device, Tensor};

use super::{ExportError, ops};
use crate::segment::runtime;
use crate::train::net::{Net, Params, exec};

/// What a file may differ from libtorch by.
const LOGITS_TOLERANCE: f64 = 1e-3;
/// Beyond logits of 100, 32-bit floats themselves are the limit.
const RELATIVE_TOLERANCE: f64 = 1e-5;
/// Share of pixels that have to get the same class.
pub const MASK_AGREEMENT: f64 = 0.999;

/// A file on ONNX Runtime's CPU provider.
pub struct Runner {
    session: Session,
}

/// What a run gave; all row by row.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// `[N, H, W]`
    pub mask: Vec<u8>,
    /// `[N, H/2, W/2]`, where the file has it.
    pub confidence: Option<Vec<u8>>,
    /// `[N, classes, H, W]`, where the file has it.
    pub logits: Option<Vec<f32>>,
}

impl Runner {
    /// Opens a file's bytes with as many threads as there are cores.
    ///
    /// # Errors
    /// When ONNX Runtime is not there or does not take the file.
    pub fn open(bytes: &[u8]) -> Result<Self, ExportError> {
        let runtime = runtime::load(None).map_err(|error| ExportError::Runtime(error.0))?;
        let refused = |error: ort::Error| ExportError::Runtime(format!("it refuses the exported network: {error}"));
        let builder = Session::builder(&runtime.environment).map_err(refused)?;
        let mut builder = builder.with_intra_op_spinning(false).map_err(|error| refused(error.into()))?;
        let session = builder.commit_from_memory(bytes).map_err(refused)?;
        Ok(Runner { session })
    }

    /// Runs RGB pictures, bytes `[N, H, W, 3]`.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn run(&mut self, pictures: &Tensor) -> Result<Outputs, ExportError> {
        let failed = |error: ort::Error| ExportError::Runtime(format!("the exported network cannot be run: {error}"));
        let shape = pictures.size();
        let bytes = picture_bytes(pictures);
        let input = TensorRef::from_array_view((shape, bytes.as_slice())).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![ops::IMAGE => input]).map_err(failed)?;
        let mut found = Outputs::default();
        for (name, value) in outputs.iter() {
            match name {
                ops::MASK => found.mask = value.try_extract_tensor::<u8>().map_err(failed)?.1.to_vec(),
                ops::CONFIDENCE => {
                    found.confidence = Some(value.try_extract_tensor::<u8>().map_err(failed)?.1.to_vec());
                }
                ops::LOGITS => found.logits = Some(value.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec()),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// A tensor's bytes, row by row.
pub fn picture_bytes(pictures: &Tensor) -> Vec<u8> {
    let flat = pictures.to_device(Device::Cpu).contiguous().view([-1]);
    Vec::try_from(&flat).expect("pictures are bytes")
}

/// What the network itself gives for pictures `[N, H, W, 3]`, in libtorch on the CPU: its logits.
pub fn logits(net: &Net, params: &Params, pictures: &Tensor) -> Tensor {
    let input = exec::input(pictures, &net.normalise, Device::Cpu);
    tch::no_grad(|| exec::forward(net, params, &input, &exec::Run::EVAL)).contiguous()
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
/// When they are not the same within rounding, with by how much they differ.
pub fn same(bytes: &[u8], net: &Net, params: &Params, pictures: &Tensor) -> Result<Agreement, ExportError> {
    let expected = logits(net, params, pictures);
    let found = Runner::open(bytes)?.run(pictures)?;
    let Some(found_logits) = found.logits else {
        return Err(ExportError::Runtime("the exported network has no logits to compare".into()));
    };
    let found_logits = Tensor::from_slice(&found_logits).reshape(expected.size());
    let difference = (&found_logits - &expected).abs().max().double_value(&[]);
    let largest = expected.abs().max().double_value(&[]);
    let classes = expected.argmax(1, false).to_kind(tch::Kind::Uint8);
    let agreement = Agreement { logits: difference, masks: share_equal(&found.mask, &picture_bytes(&classes)) };
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
