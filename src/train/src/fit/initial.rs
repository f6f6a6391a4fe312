//! The network of a run and its first weights.

use std::path::{Path, PathBuf};

use maskcast::frame::Label;

use super::config::{NetOptions, Strategy};
use crate::encoders::{Flavour, Variant};
use crate::export::{StoredError, StoredModel, stored};
use crate::net::decoder::NetError;
use crate::net::{Net, Params};
use crate::weights::{self, Mapping, ModelFile, WeightsError};

/// Why a network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitialNetError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("--strategy scratch uses no pretrained weights: remove --weights {}", .0.display())]
    ScratchWithWeights(PathBuf),
    #[error("{} is a whole U-Net of this trainer, not the weights of an encoder: pass it with --init {}", .0.display(), .0.display())]
    WeightsAreUnet(PathBuf),
}

/// A network with its first weights.
pub struct InitialNet {
    pub variant: Variant,
    pub net: Net,
    pub params: Params,
    /// Where the weights come from, for display.
    pub origin: String,
    /// Whether the batch norms have no statistics of images yet: the weights come from an exported file, in which they are folded.
    pub lacks_statistics: bool,
}

/// A trained model: `best.safetensors` of a run, or the network of a file that the trainer exported. The batch norms of the
/// latter have no statistics of images ([`crate::net::statistics::estimate`]).
///
/// # Errors
/// The file cannot be read, or is neither.
pub fn trained_model(path: &Path) -> Result<ModelFile, InitialNetError> {
    if stored::is_onnx(path) { Ok(StoredModel::read(path)?.file) } else { Ok(ModelFile::read(path)?) }
}

/// Returns the file of the encoder's weights, which is fetched if necessary, and its flavour.
fn encoder_weights(options: &NetOptions) -> Result<(PathBuf, Option<Flavour>), InitialNetError> {
    match &options.weights {
        Some(path) => Ok((path.clone(), None)),
        None => {
            let source = weights::source_for(options.encoder)?;
            Ok((weights::get(&options.encoder.to_string(), None)?, Some(source.flavour)))
        }
    }
}

/// Builds the network with its first weights: those of a trained model (`--init`), those of the pretrained encoder, or
/// random ones (`--strategy scratch`).
///
/// # Errors
/// If the decoder does not fit the encoder, or the weights cannot be read or are of another network.
pub fn initial_net(
    options: &NetOptions,
    strategy: Strategy,
    labels: &[Label],
    seed: u64,
) -> Result<InitialNet, InitialNetError> {
    let classes = labels.len() as i64;
    if let Some(path) = &options.init {
        return from_model(options, path, labels, seed);
    }
    let (file, flavour) = if strategy == Strategy::Scratch {
        if let Some(path) = &options.weights {
            return Err(InitialNetError::ScratchWithWeights(path.clone()));
        }
        (None, options.flavour)
    } else {
        let (path, flavour) = encoder_weights(options)?;
        let file = weights::read(&path)?;
        let flavour = options.flavour.or(file.flavour).or(flavour);
        (Some(file), flavour)
    };
    let variant = options.encoder.flavoured(flavour.unwrap_or(options.encoder.usual_flavour()));
    let net = variant.unet(&options.decoder(), classes)?;
    let mut params = Params::fresh(&net, seed);
    let origin = match &file {
        Some(file) => {
            if ModelFile::contained_in(file) {
                return Err(InitialNetError::WeightsAreUnet(file.path.clone()));
            }
            let mapping = Mapping::detect(options.encoder, file);
            let report = weights::load_encoder(&net, &mut params, file, &mapping)?;
            let flavour = variant.flavour;
            format!("{}: {report}; normalisation and padding of {flavour}", file.path.display())
        }
        None => "random".into(),
    };
    Ok(InitialNet { variant, net, params, origin, lacks_statistics: false })
}

fn from_model(options: &NetOptions, path: &Path, labels: &[Label], seed: u64) -> Result<InitialNet, InitialNetError> {
    let model = trained_model(path)?;
    let about = &model.description;
    let variant = options.encoder.flavoured(options.flavour.unwrap_or(about.flavour));
    let net = variant.unet(&options.decoder(), labels.len() as i64)?;
    let net = Net { normalise: about.normalise, ..net };
    let mut params = Params::fresh(&net, seed);
    // New classes have no weights at first, so that pixels keep the classes that they have.
    for suffix in ["weight", "bias"] {
        params.0.entry(format!("head.{suffix}")).and_modify(|tensor| *tensor = tensor.zeros_like());
    }
    let report = weights::init_from_model(&net, &mut params, labels, model, path)?;
    let origin = format!("{}: {report}", path.display());
    Ok(InitialNet { variant, net, params, origin, lacks_statistics: stored::is_onnx(path) })
}
