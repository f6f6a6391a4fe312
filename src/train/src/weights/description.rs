//! The description of a trained model: everything that is needed to build its network, and how it was trained.

use maskcast::frame::{Label, Rgb, Weight};
use serde::{Deserialize, Serialize};

use crate::encoders::{Encoder, Flavour};
use crate::net::decoder::{Decoder, NetError};
use crate::net::{Net, Normalise};
use crate::size::Size;

/// The version of the JSON format. Files with a higher version are refused.
const VERSION: u32 = 1;

/// Describes a trained model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDescription {
    pub encoder: Encoder,
    pub flavour: Flavour,
    pub decoder: Decoder,
    /// That of the flavour, unless the model was trained with another one.
    pub normalise: Normalise,
    /// In the order of the classes.
    pub labels: Vec<Label>,
    pub input: Size,
    /// How the model was trained and its scores, in any structure.
    pub train: serde_json::Value,
}

/// Why the description of a model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    #[error("metadata maskcast: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has version {found} of the format, and this program reads versions up to {VERSION}")]
    Version { found: u64 },
}

/// The JSON format of [`ModelDescription`].
#[derive(Serialize, Deserialize)]
struct DescriptionJson {
    version: u32,
    encoder: Encoder,
    flavour: Flavour,
    decoder: Decoder,
    normalise: Normalise,
    labels: Vec<LabelJson>,
    input: Size,
    train: serde_json::Value,
}

/// The JSON format of [`Label`].
#[derive(Serialize, Deserialize)]
struct LabelJson {
    name: String,
    color: [u8; 3],
    /// Files of earlier versions have none.
    #[serde(default)]
    weight: Weight,
}

impl ModelDescription {
    /// The network.
    ///
    /// # Errors
    /// The decoder does not fit the encoder, or there are fewer than two labels.
    pub fn net(&self) -> Result<Net, NetError> {
        let net = self.encoder.flavoured(self.flavour).unet(&self.decoder, self.labels.len() as i64)?;
        Ok(Net { normalise: self.normalise, ..net })
    }

    /// The description as JSON, as model files and checkpoints store it.
    pub fn to_json(&self) -> String {
        let label = |label: &Label| {
            let Rgb(red, green, blue) = label.color;
            LabelJson { name: label.name.clone(), color: [red, green, blue], weight: label.weight }
        };
        let json = DescriptionJson {
            version: VERSION,
            encoder: self.encoder,
            flavour: self.flavour,
            decoder: self.decoder.clone(),
            normalise: self.normalise,
            labels: self.labels.iter().map(label).collect(),
            input: self.input,
            train: self.train.clone(),
        };
        serde_json::to_string(&json).expect("the description has only types that JSON can represent")
    }

    /// Reads the JSON of [`ModelDescription::to_json`].
    ///
    /// # Errors
    /// The JSON is invalid, a field is missing, or a later version wrote it.
    pub fn from_json(json: &str) -> Result<Self, DescriptionError> {
        // The version is checked first, because other versions may have other fields.
        let value: serde_json::Value = serde_json::from_str(json)?;
        if let Some(found) = value["version"].as_u64().filter(|&version| version > u64::from(VERSION)) {
            return Err(DescriptionError::Version { found });
        }
        let json: DescriptionJson = serde_json::from_value(value)?;
        let label = |LabelJson { name, color: [red, green, blue], weight }| Label {
            name,
            color: Rgb(red, green, blue),
            weight,
        };
        Ok(ModelDescription {
            encoder: json.encoder,
            flavour: json.flavour,
            decoder: json.decoder,
            normalise: json.normalise,
            labels: json.labels.into_iter().map(label).collect(),
            input: json.input,
            train: json.train,
        })
    }
}
