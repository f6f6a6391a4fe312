//! A model run for everything that it gives: a check of an export wants logits, where a [`Segmenter`](super::Segmenter)
//! gives masks alone.

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorRef;

use super::{SegmentError, runtime};

/// A model of the contract on ONNX Runtime's CPU provider.
pub struct Probe {
    session: Session,
}

/// What a run gave; all row by row.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Class indices `[N, H, W]`.
    pub mask: Vec<u8>,
    /// The winning probability × 255, `[N, H/2, W/2]`, where the file has it.
    pub confidence: Option<Vec<u8>>,
    /// `[N, classes, H, W]`, where the file has them.
    pub logits: Option<Vec<f32>>,
}

impl Probe {
    /// Opens an ONNX file's bytes with as many threads as there are cores.
    ///
    /// # Errors
    /// When ONNX Runtime is not there or does not take the file.
    pub fn open(bytes: &[u8]) -> Result<Self, SegmentError> {
        let session = builder()?.commit_from_memory(bytes).map_err(refused)?;
        Ok(Probe { session })
    }

    /// Runs RGB pictures, `[N, H, W, 3]` as in `shape`.
    ///
    /// # Errors
    /// When ONNX Runtime fails, or there are other bytes than the shape wants.
    pub fn run(&mut self, pictures: &[u8], shape: [usize; 4]) -> Result<Outputs, SegmentError> {
        let failed = |error: ort::Error| SegmentError(format!("the model cannot be run: {error}"));
        let input = TensorRef::from_array_view((shape, pictures)).map_err(failed)?;
        let outputs = self.session.run(ort::inputs!["image" => input]).map_err(failed)?;
        let mut found = Outputs::default();
        for (name, value) in outputs.iter() {
            match name {
                "mask" => found.mask = value.try_extract_tensor::<u8>().map_err(failed)?.1.to_vec(),
                "confidence" => found.confidence = Some(value.try_extract_tensor::<u8>().map_err(failed)?.1.to_vec()),
                "logits" => found.logits = Some(value.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec()),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The model that ONNX Runtime makes of an ONNX file's bytes before it runs it, as an ONNX file.
///
/// # Errors
/// As [`Probe::open`], or when it cannot be written.
pub fn optimised(bytes: &[u8]) -> Result<Vec<u8>, SegmentError> {
    let folder = tempfile::tempdir().map_err(|error| SegmentError(error.to_string()))?;
    let path = folder.path().join("optimised.onnx");
    let builder = builder()?;
    builder
        .with_optimized_model_path(&path)
        .map_err(|error| refused(error.into()))?
        .commit_from_memory(bytes)
        .map_err(refused)?;
    std::fs::read(&path).map_err(|error| SegmentError(error.to_string()))
}

fn builder() -> Result<SessionBuilder, SegmentError> {
    let runtime = runtime::load(None).map_err(|error| SegmentError(error.0))?;
    let builder = Session::builder(&runtime.environment).map_err(refused)?;
    builder.with_intra_op_spinning(false).map_err(|error| refused(error.into()))
}

fn refused(error: ort::Error) -> SegmentError {
    SegmentError(format!("ONNX Runtime refuses the model: {error}"))
}
