//! From options to a network with its first weights.

use std::path::{Path, PathBuf};

use maskcast::frame::Label;

use super::config::{NetOptions, Strategy};
use crate::encoders::{Flavour, Variant};
use crate::net::{Net, Params};
use crate::weights::{self, Mapping, ModelFile, WeightsError};

/// Why there is no network to train.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("{0}")]
    Options(String),
}

/// A network and where its first weights come from.
pub struct Start {
    pub variant: Variant,
    pub net: Net,
    pub params: Params,
    /// For people: what was taken from where.
    pub origin: String,
}

/// Which file the encoder's weights come from, fetched if need be; and its flavour.
fn encoder_weights(options: &NetOptions) -> Result<(PathBuf, Option<Flavour>), StartError> {
    match &options.weights {
        Some(path) => Ok((path.clone(), None)),
        None => {
            let source = weights::source_for(options.encoder)?;
            Ok((weights::get(&options.encoder.to_string(), None)?, Some(source.flavour)))
        }
    }
}

/// Builds the network and gives it its first weights: those of a model trained before, of the pretrained encoder, or at
/// random where the strategy is `scratch`.
///
/// # Errors
/// If the decoder does not fit, or the weights cannot be had or are of another network.
pub fn start(options: &NetOptions, strategy: Strategy, labels: &[Label], seed: u64) -> Result<Start, StartError> {
    let classes = labels.len() as i64;
    if let Some(path) = &options.init {
        return from_model(options, path, labels, seed);
    }
    let (file, flavour) = if strategy == Strategy::Scratch {
        if let Some(path) = &options.weights {
            let path = path.display();
            return Err(StartError::Options(format!(
                "--strategy scratch starts at random: leave --weights {path} out"
            )));
        }
        (None, options.flavour)
    } else {
        let (path, flavour) = encoder_weights(options)?;
        let file = weights::read(&path)?;
        let flavour = options.flavour.or(file.flavour).or(flavour);
        (Some(file), flavour)
    };
    let variant = options.encoder.flavoured(flavour.unwrap_or(options.encoder.usual_flavour()));
    let net = variant.unet(&options.decoder(), classes).map_err(StartError::Options)?;
    let mut params = Params::fresh(&net, seed);
    let origin = match &file {
        Some(file) => {
            if ModelFile::is_one(file) {
                let path = file.path.display();
                return Err(StartError::Options(format!(
                    "{path} is a whole U-Net of this trainer, not an encoder's weights: give it by --init {path}"
                )));
            }
            let mapping = Mapping::detect(options.encoder, file);
            let report = weights::load_encoder(&net, &mut params, file, &mapping)?;
            let flavour = variant.flavour;
            format!("{}: {report}; input and padding as {flavour} has them", file.path.display())
        }
        None => "every layer at random".into(),
    };
    Ok(Start { variant, net, params, origin })
}

fn from_model(options: &NetOptions, path: &Path, labels: &[Label], seed: u64) -> Result<Start, StartError> {
    let about = ModelFile::read(path)?.about;
    let variant = options.encoder.flavoured(options.flavour.unwrap_or(about.flavour));
    let net = variant.unet(&options.decoder(), labels.len() as i64).map_err(StartError::Options)?;
    let net = Net { normalise: about.normalise, ..net };
    let mut params = Params::fresh(&net, seed);
    let report = weights::init_from_model(&net, &mut params, labels, path)?;
    Ok(Start { variant, net, params, origin: format!("{}: {report}", path.display()) })
}
