//! Adds steps to a model file that was exported before, without the weights of its run.

use std::path::{Path, PathBuf};

use maskcast::frame::Label;
use maskcast::segment::golden::{Golden, GoldenError};
use prost::Message;
use tch::Tensor;

use super::head::{self, HeadError};
use super::proto::ModelProto;
use super::regions::{self, RegionRejection, RegionsError};
use super::verify::{self, VerifyError};
use super::{ExportError, GOLDEN, TemporaryModel, loaded};

/// The metadata that describes the training images.
const REFERENCE: &str = "maskcast.reference";

/// Why a step cannot be added to a model file. No file was written.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: not a model that maskcast-train exported; give such a file, or export the run again", path.display())]
    Foreign { path: PathBuf },
    #[error("{}: the golden frame: {error}; export the run again", path.display())]
    Golden { path: PathBuf, error: GoldenError },
    #[error("{}: {error}", path.display())]
    Regions { path: PathBuf, error: RegionsError },
    #[error("{}: {error}", path.display())]
    Head { path: PathBuf, error: HeadError },
    #[error("{}: {error}", path.display())]
    Run { path: PathBuf, error: VerifyError },
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// A model file that the trainer exported.
pub struct ExistingModel {
    path: PathBuf,
    model: ModelProto,
    golden: Golden,
    labels: Vec<Label>,
}

impl ExistingModel {
    /// Reads a file, and loads it as the service does.
    ///
    /// # Errors
    /// The file cannot be read or loaded, or has content that the messages in [`super::proto`] would lose.
    pub fn read(path: &Path) -> Result<Self, ExistingError> {
        let path = path.to_owned();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Err(ExistingError::Read { path, error }),
        };
        let model = ModelProto::decode(bytes.as_slice()).ok().filter(|model| model.to_bytes() == bytes);
        let Some(model) = model else { return Err(ExistingError::Foreign { path }) };
        let Some(golden) = model.get(GOLDEN) else { return Err(ExistingError::Foreign { path }) };
        let golden = match Golden::parse(golden) {
            Ok(golden) => golden,
            Err(error) => return Err(ExistingError::Golden { path, error }),
        };
        let labels = loaded(&path)?.contract.labels.to_vec();
        Ok(ExistingModel { path, model, golden, labels })
    }

    /// The classes of the model.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Adds the rejection of regions. Returns the share of the golden frame's pixels (0 to 1) whose class changes.
    ///
    /// # Errors
    /// The model has this step already, or has no output `scores`, or cannot be run.
    pub fn reject_regions(&mut self, rejection: &RegionRejection) -> Result<f64, ExistingError> {
        let failed = |error| ExistingError::Regions { path: self.path.clone(), error };
        regions::renew_pixel_rejection(&mut self.model);
        regions::add(&mut self.model, rejection).map_err(failed)?;
        let Golden { width, height, .. } = self.golden;
        let image = Tensor::from_slice(&self.golden.rgb).reshape([1, height as i64, width as i64, 3]);
        let outputs = verify::run(&self.model.to_bytes(), &image);
        let mask = outputs.map_err(|error| ExistingError::Run { path: self.path.clone(), error })?.mask;
        let changed = self.golden.difference(&mask);
        self.golden.mask = mask;
        let golden = self.golden.to_json();
        let golden = golden.map_err(|error| ExistingError::Golden { path: self.path.clone(), error })?;
        self.model.put(GOLDEN, golden);
        if let Err(reason) = head::describe(&mut self.model) {
            tracing::debug!("ONNX Runtime computes the last steps of the model: {reason}");
        }
        Ok(changed)
    }

    /// Adds the description of the last steps, with which the service computes them itself. The outputs of the model stay the same.
    ///
    /// # Errors
    /// The model is not an int8 model for CPUs, or has other outputs than `mask` and `scores`.
    pub fn describe_head(&mut self) -> Result<(), ExistingError> {
        head::describe(&mut self.model).map_err(|error| ExistingError::Head { path: self.path.clone(), error })
    }

    /// Describes the training images, as [`maskcast::drift::reference::Reference`] in JSON. The outputs of the model stay the same.
    pub fn set_reference(&mut self, reference: String) {
        self.model.put(REFERENCE, reference);
    }

    /// Writes the model to a file, after it was loaded as the service loads it. Returns the size of the file in bytes.
    ///
    /// # Errors
    /// The model cannot be loaded or written. A file at the path is unchanged then.
    pub fn write(&self, path: &Path) -> Result<u64, ExistingError> {
        let file = TemporaryModel::write(path, &self.model.to_bytes())?;
        file.load()?;
        Ok(file.commit()?)
    }
}
