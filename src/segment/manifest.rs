//! The model manifest: `models/NAME.toml` beside `models/NAME.onnx`.
//!
//! A foreign model (one without the metadata of Maskcast) needs a manifest: it gives input size, layout, normalisation,
//! labels and colours. For a model that describes itself, the manifest adds origin and licence; its `[input]` and `labels`
//! are not used then.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::normalisation::{self, NormalisationError};
use crate::frame::{Label, NotAWeight, Rgb, Weight};

mod input;

pub use input::{ChannelOrder, Layout, ManifestInput};

/// The content of a manifest file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub description: String,
    /// Who made the model, from which data.
    #[serde(default)]
    pub origin: String,
    #[serde(default)]
    pub licence: String,
    pub input: Option<ManifestInput>,
    pub output: Option<ManifestOutput>,
    #[serde(default)]
    pub labels: Vec<ManifestLabel>,
}

/// `[output]` of a manifest, and `maskcast.output` of a model's metadata (as JSON): how to read the output of a model. Keys
/// that are not set are detected.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ManifestOutput {
    /// Which of several outputs is read. Default: the largest that can be read as a mask.
    pub name: Option<String>,
    /// Order of the axes, for shapes that fit both orders.
    pub layout: Option<Layout>,
    /// The function that turns the values into probabilities.
    pub activation: Option<Activation>,
    /// For outputs with one value a pixel: pixels above it have the second label. A probability with
    /// `activation = "sigmoid"`, else on the scale of the output.
    pub threshold: Option<f32>,
}

/// The function that turns the values of a model into probabilities, in the model or after it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The values are compared unchanged.
    None,
    /// For one value a pixel. It is applied unless the model itself ends in it.
    Sigmoid,
    /// For one value a class. It does not change which value is the largest.
    Softmax,
}

impl ManifestOutput {
    /// Checks the keys that depend on each other.
    ///
    /// # Errors
    /// A threshold that cannot be used.
    pub fn check(&self) -> Result<(), ManifestProblem> {
        let Some(threshold) = self.threshold else { return Ok(()) };
        if !threshold.is_finite() {
            return Err(ManifestProblem::ThresholdNotFinite);
        }
        match self.activation {
            Some(Activation::Sigmoid) if threshold <= 0.0 || threshold >= 1.0 => {
                Err(ManifestProblem::ThresholdNotAProbability(threshold))
            }
            Some(Activation::Softmax) => Err(ManifestProblem::ThresholdWithSoftmax),
            _ => Ok(()),
        }
    }
}

/// One entry of `labels`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ManifestLabel {
    pub name: String,
    /// `#rrggbb`
    pub color: String,
    /// How strongly the class is drawn, 0 (not drawn) to 1; 1 if it is not set.
    pub weight: Option<f64>,
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct ManifestError {
    /// The manifest.
    pub path: PathBuf,
    #[source]
    pub problem: ManifestProblem,
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ManifestProblem {
    #[error("{0}")]
    Read(#[source] Arc<std::io::Error>),
    /// A folder, a device or a file of more than `MAX_BYTES`.
    #[error("is not the manifest of a model")]
    NotAManifest,
    /// The message of the TOML parser for line `line`, counted from 1. The text of the line is not shown.
    #[error("line {line}{}: {message}", key_in_brackets(.key.as_deref()))]
    Toml { line: usize, key: Option<String>, message: String },
    #[error("output.threshold: a number is needed, not infinity or nan")]
    ThresholdNotFinite,
    #[error("output.threshold: {0} is not a probability between 0 and 1, which activation = \"sigmoid\" needs")]
    ThresholdNotAProbability(f32),
    #[error("output.threshold: activation = \"softmax\" selects the largest value; leave the threshold out")]
    ThresholdWithSoftmax,
    #[error("labels: {color:?} of {label} is not a colour like #ff8800")]
    Color { label: String, color: String },
    #[error("labels: weight of {label}: {error}")]
    Weight {
        label: String,
        #[source]
        error: NotAWeight,
    },
    #[error("labels: {0} labels are more than the 255 of a mask")]
    TooManyLabels(usize),
    #[error("input.size: each side must be from 1 to 8192 pixels")]
    InputSize,
    #[error(transparent)]
    Normalisation(#[from] NormalisationError),
}

/// Largest size of a manifest in bytes. A manifest of a hundred labels has about 5000.
const MAX_BYTES: u64 = 1 << 20;

/// Longest side of an input in pixels.
const MAX_SIDE: usize = 8192;

impl ModelManifest {
    /// The path of the manifest of `model`.
    pub fn path_for(model: &Path) -> PathBuf {
        model.with_extension("toml")
    }

    /// Reads the manifest of `model`; `None` when there is none.
    ///
    /// # Errors
    /// The manifest cannot be read, is not TOML of this form, or has a value that cannot be used.
    pub fn beside(model: &Path) -> Result<Option<ModelManifest>, ManifestError> {
        let path = ModelManifest::path_for(model);
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ManifestError { path, problem: ManifestProblem::Read(error.into()) }),
            Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_BYTES => {
                return Err(ManifestError { path, problem: ManifestProblem::NotAManifest });
            }
            Ok(_) => {}
        }
        ModelManifest::read(&path).map(Some).map_err(|problem| ManifestError { path, problem })
    }

    fn read(path: &Path) -> Result<ModelManifest, ManifestProblem> {
        let text = std::fs::read_to_string(path).map_err(|error| ManifestProblem::Read(error.into()))?;
        let manifest: ModelManifest = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
            let key = key_of(text.lines().nth(line).unwrap_or_default());
            ManifestProblem::Toml { line: line + 1, key, message: error.message().replace('\n', ", ") }
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Labels in class order.
    ///
    /// # Errors
    /// The first colour that is not of the form `#rrggbb`, or weight that is not between 0 and 1.
    pub fn labels(&self) -> Result<Vec<Label>, ManifestProblem> {
        let label = |ManifestLabel { name, color, weight }: &ManifestLabel| {
            let problem = || ManifestProblem::Color { label: name.clone(), color: color.clone() };
            let color = parse_color(color).ok_or_else(problem)?;
            let weight = weight.map_or(Ok(Weight::FULL), Weight::try_from);
            let weight = weight.map_err(|error| ManifestProblem::Weight { label: name.clone(), error })?;
            Ok(Label { name: name.clone(), color, weight })
        };
        self.labels.iter().map(label).collect()
    }

    fn check(&self) -> Result<(), ManifestProblem> {
        let labels = self.labels()?;
        if labels.len() > 255 {
            return Err(ManifestProblem::TooManyLabels(labels.len()));
        }
        self.output.as_ref().map_or(Ok(()), ManifestOutput::check)?;
        let Some(input) = &self.input else { return Ok(()) };
        normalisation::check(input)?;
        if input.size.is_some_and(|size| size.iter().any(|side| !(1..=MAX_SIDE).contains(side))) {
            return Err(ManifestProblem::InputSize);
        }
        Ok(())
    }
}

/// `#rrggbb`
fn parse_color(text: &str) -> Option<Rgb> {
    // `from_str_radix` also accepts a sign.
    let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let value = u32::from_str_radix(digits, 16).ok()?;
    Some(Rgb((value >> 16) as u8, (value >> 8) as u8, value as u8))
}

/// The key of a line of a manifest. Never the whole line: a client of the API can name any path as a model, and must not
/// see the content of the file beside it.
fn key_of(line: &str) -> Option<String> {
    const MAX_LENGTH: usize = 16;
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let is_key =
        !key.is_empty() && key.len() <= MAX_LENGTH && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_key.then(|| key.to_owned())
}

fn key_in_brackets(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!(" ({key})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<ModelManifest>, ManifestError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("net.toml"), text).unwrap();
        ModelManifest::beside(&folder.path().join("net.onnx"))
    }

    #[test]
    fn reads_the_manifest_of_a_foreign_model() {
        let text = r##"
            [input]
            size = [320, 240]
            layout = "nchw"
            mean = [0.485, 0.456, 0.406]
            std = [0.229, 0.224, 0.225]
            [[labels]]
            name = "road"
            color = "#804080"
            [[labels]]
            name = "sky"
            color = "#4682b4"
            weight = 0.25
        "##;
        let manifest = read(text).unwrap().unwrap();
        let sky = Label { weight: Weight::try_from(0.25).unwrap(), ..Label::new("sky", Rgb(70, 130, 180)) };
        assert_eq!(manifest.labels().unwrap(), [Label::new("road", Rgb(128, 64, 128)), sky]);
        let input = manifest.input.unwrap();
        assert_eq!((input.size, input.layout, input.white), (Some([320, 240]), Some(Layout::Nchw), 1.0));
    }

    #[test]
    fn an_error_has_the_path_and_the_kind() {
        use ManifestProblem as Problem;
        type Check = fn(&Problem) -> bool;
        let cases: [(&str, Check); 13] = [
            ("[input]\nsize = [0, 3]", |problem| matches!(problem, Problem::InputSize)),
            ("[input]\nstd = [1, 0, 1]", |problem| {
                matches!(problem, Problem::Normalisation(NormalisationError::ZeroStd))
            }),
            (
                "[input]\nlayout = \"hwc\"",
                |problem| matches!(problem, Problem::Toml { line: 2, key: Some(key), .. } if key == "layout"),
            ),
            (
                "[input]\nmeans = [1, 0, 1]",
                |problem| matches!(problem, Problem::Toml { line: 2, key: Some(key), .. } if key == "means"),
            ),
            ("[input]\nmean = [0.0, nan, 0.0]", |problem| {
                matches!(problem, Problem::Normalisation(NormalisationError::NotFinite("mean")))
            }),
            ("[input]\nwhite = inf", |problem| {
                matches!(problem, Problem::Normalisation(NormalisationError::NotFinite("white")))
            }),
            (
                "[input]\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]",
                |problem| matches!(problem, Problem::Normalisation(error) if error.suggested_white() == Some(255.0)),
            ),
            ("[output]\nthreshold = nan", |problem| matches!(problem, Problem::ThresholdNotFinite)),
            ("[output]\nactivation = \"sigmoid\"\nthreshold = 128", |problem| {
                matches!(problem, Problem::ThresholdNotAProbability(128.0))
            }),
            (
                "[output]\nactivation = \"tanh\"",
                |problem| matches!(problem, Problem::Toml { line: 2, key: Some(key), .. } if key == "activation"),
            ),
            (
                "[[labels]]\nname = \"a\"\ncolor = \"red\"",
                |problem| matches!(problem, Problem::Color { color, .. } if color == "red"),
            ),
            (
                "[[labels]]\nname = \"a\"\ncolor = \"#804080\"\nweight = 20",
                |problem| matches!(problem, Problem::Weight { label, error: NotAWeight(20.0) } if label == "a"),
            ),
            (
                "[[labels]]\nname = \"a\"\ncolor = \"#+12345\"",
                |problem| matches!(problem, Problem::Color { color, .. } if color == "#+12345"),
            ),
        ];
        for (text, is_expected) in cases {
            let error = read(text).unwrap_err();
            assert!(error.path.ends_with("net.toml") && is_expected(&error.problem), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_does_not_show_the_values_of_the_file() {
        let error = read("[[labels]]\npassword = \"hunter2\"").unwrap_err().to_string();
        assert!(error.contains("line 2 (password): unknown field `password`") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_missing_manifest_is_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ModelManifest::beside(&folder.path().join("net.onnx")).unwrap(), None);
    }
}
