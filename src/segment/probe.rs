//! Runs a model and returns all of its outputs. A check of an export needs logits; a [`Segmenter`](super::Segmenter) returns
//! masks only.

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorRef;

use super::{OnnxRuntimeError, runtime};

/// Why a model cannot be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    #[error("ONNX Runtime cannot load the model: {0}")]
    Load(#[source] OnnxRuntimeError),
    #[error("the model cannot be run: {0}")]
    Run(#[source] OnnxRuntimeError),
    #[error("the optimised model cannot be written or read: {0}")]
    Io(#[from] std::io::Error),
}

/// A model that Maskcast exported, on the CPU provider of ONNX Runtime.
pub struct Probe {
    session: Session,
}

/// The outputs of a run, in row-major order.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Class indices `[N, H, W]`.
    pub mask: Vec<u8>,
    /// The largest probability × 255, `[N, H/2, W/2]`, when the model has this output.
    pub confidence: Option<Vec<u8>>,
    /// The logits before their last enlargement.
    pub scores: Option<Vec<f32>>,
    /// `[N, classes, H, W]`, when the model has this output.
    pub logits: Option<Vec<f32>>,
}

impl Probe {
    /// Opens the bytes of an ONNX file, with as many threads as there are cores.
    ///
    /// # Errors
    /// ONNX Runtime is not installed, or cannot load the model.
    pub fn open(bytes: &[u8]) -> Result<Self, ProbeError> {
        let session = builder()?.commit_from_memory(bytes).map_err(load_error)?;
        Ok(Probe { session })
    }

    /// Runs RGB images of the shape `[N, H, W, 3]`.
    ///
    /// # Errors
    /// ONNX Runtime fails, or the number of bytes does not fit the shape.
    pub fn run(&mut self, images: &[u8], shape: [usize; 4]) -> Result<Outputs, ProbeError> {
        let failed = |error: ort::Error| ProbeError::Run(error.into());
        let input = TensorRef::from_array_view((shape, images)).map_err(failed)?;
        let outputs = self.session.run(ort::inputs!["image" => input]).map_err(failed)?;
        let mut found = Outputs::default();
        for (name, value) in outputs.iter() {
            match name {
                "mask" => found.mask = value.try_extract_tensor::<u8>().map_err(failed)?.1.to_vec(),
                "confidence" => found.confidence = Some(value.try_extract_tensor::<u8>().map_err(failed)?.1.to_vec()),
                "scores" => found.scores = Some(value.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec()),
                "logits" => found.logits = Some(value.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec()),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The optimised model that ONNX Runtime makes of the bytes of an ONNX file, as an ONNX file.
///
/// # Errors
/// As [`Probe::open`], or the temporary file cannot be written or read.
pub fn optimised(bytes: &[u8]) -> Result<Vec<u8>, ProbeError> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("optimised.onnx");
    let builder = builder()?;
    builder
        .with_optimized_model_path(&path)
        .map_err(|error| load_error(error.into()))?
        .commit_from_memory(bytes)
        .map_err(load_error)?;
    Ok(std::fs::read(&path)?)
}

fn builder() -> Result<SessionBuilder, ProbeError> {
    let runtime = runtime::load(None)?;
    let builder = Session::builder(&runtime.environment).map_err(load_error)?;
    builder.with_intra_op_spinning(false).map_err(|error| load_error(error.into()))
}

fn load_error(error: ort::Error) -> ProbeError {
    ProbeError::Load(error.into())
}
