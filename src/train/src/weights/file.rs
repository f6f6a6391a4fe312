//! The tensors of a file of weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tch::Tensor;

use crate::encoders::{Encoder, Flavour, Variant};

/// The content of a file of weights.
#[derive(Debug)]
pub struct WeightsFile {
    pub path: PathBuf,
    /// 32-bit floats on the CPU, by name. The prefixes of checkpoints and wrappers are removed from the names.
    pub tensors: BTreeMap<String, Tensor>,
    /// The metadata of a safetensors file.
    pub metadata: BTreeMap<String, String>,
    /// The flavour, if the file determines it: Keras files by their layers, safetensors by the metadata `flavour`.
    pub flavour: Option<Flavour>,
    /// The names of other content, such as the state of an optimizer.
    pub other_names: Vec<String>,
}

impl WeightsFile {
    /// `encoder` for these weights: of the flavour `wanted`, or else that of the file, or else the usual one of the encoder.
    pub fn variant(&self, encoder: Encoder, wanted: Option<Flavour>) -> Variant {
        encoder.flavoured(wanted.or(self.flavour).unwrap_or(encoder.usual_flavour()))
    }
}
