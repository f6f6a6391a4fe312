//! The manifest: `models/NAME.toml` beside `models/NAME.onnx`.
//!
//! For a foreign model (one without Maskcast's metadata) it is what makes the model usable: input size, layout,
//! normalisation, labels and colours. For a model that describes itself it adds what people want to know: origin and
//! licence; its `[input]` and `labels` are not used then.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{SegmentError, normalisation};
use crate::frame::{Label, Rgb};

mod input;

pub use input::{ChannelOrder, Layout, ManifestInput};

/// A manifest, as written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub description: String,
    /// Who made it, from what data.
    #[serde(default)]
    pub origin: String,
    #[serde(default)]
    pub licence: String,
    pub input: Option<ManifestInput>,
    pub output: Option<ManifestOutput>,
    #[serde(default)]
    pub labels: Vec<ManifestLabel>,
}

/// `[output]` of a manifest, and `maskcast.output` of a model's metadata (as JSON): how to read what a model gives. All of it
/// is found out where it is left out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ManifestOutput {
    /// Which of several outputs; the largest that can be read as a mask when left out.
    pub name: Option<String>,
    /// Order of the axes, where the shape fits both.
    pub layout: Option<Layout>,
    /// What makes the values probabilities.
    pub activation: Option<Activation>,
    /// One value a pixel: the second label is where the value is above this. A probability with `activation = "sigmoid"`,
    /// else in the output's own scale.
    pub threshold: Option<f32>,
}

/// The function that makes a model's values probabilities, inside of the model or behind it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The values are compared as they are.
    None,
    /// One value a pixel: it is applied where the model itself does not end in it.
    Sigmoid,
    /// One value for each class: does not change which is the largest.
    Softmax,
}

impl ManifestOutput {
    /// # Errors
    /// The key that cannot be.
    pub fn check(&self) -> Result<(), String> {
        let Some(threshold) = self.threshold else { return Ok(()) };
        if !threshold.is_finite() {
            return Err("output.threshold: a number is needed, not infinity or nan".into());
        }
        match self.activation {
            Some(Activation::Sigmoid) if threshold <= 0.0 || threshold >= 1.0 => Err(format!(
                "output.threshold: {threshold} is not a probability between 0 and 1, as activation = \"sigmoid\" needs"
            )),
            Some(Activation::Softmax) => {
                Err("output.threshold: with activation = \"softmax\" the largest value wins; leave the threshold out"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// One of `labels`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ManifestLabel {
    pub name: String,
    /// `#rrggbb`
    pub color: String,
}

/// Bytes that a manifest may have; a manifest of a hundred labels has some 5000.
const LARGEST: u64 = 1 << 20;

impl ModelManifest {
    /// Where the manifest of `model` lies.
    pub fn path_for(model: &Path) -> PathBuf {
        model.with_extension("toml")
    }

    /// Reads the manifest of `model`; `None` when there is none.
    ///
    /// # Errors
    /// Names the manifest and the line that cannot be used.
    pub fn beside(model: &Path) -> Result<Option<ModelManifest>, SegmentError> {
        let path = ModelManifest::path_for(model);
        let located = |problem: &dyn std::fmt::Display| SegmentError(format!("{}: {problem}", path.display()));
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(located(&error)),
            Ok(facts) if !facts.is_file() || facts.len() > LARGEST => {
                return Err(located(&"is not a manifest of a model"));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|error| located(&error))?;
        let manifest: ModelManifest = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
            let key = key_of(text.lines().nth(line).unwrap_or_default());
            located(&format_args!("line {}{key}: {}", line + 1, error.message().replace('\n', ", ")))
        })?;
        manifest.check().map_err(|problem| SegmentError(format!("{}: {problem}", path.display())))?;
        Ok(Some(manifest))
    }

    /// Labels in class order.
    ///
    /// # Errors
    /// The first colour that is none.
    pub fn labels(&self) -> Result<Vec<Label>, String> {
        let label = |label: &ManifestLabel| {
            let color = parse_color(&label.color)
                .ok_or_else(|| format!("labels: {:?} of {} is not a colour like #ff8800", label.color, label.name))?;
            Ok(Label { name: label.name.clone(), color })
        };
        self.labels.iter().map(label).collect()
    }

    fn check(&self) -> Result<(), String> {
        let labels = self.labels()?;
        if labels.len() > 255 {
            return Err(format!("labels: {} are more than the 255 a mask can hold", labels.len()));
        }
        self.output.as_ref().map_or(Ok(()), ManifestOutput::check)?;
        let Some(input) = &self.input else { return Ok(()) };
        normalisation::check(input)?;
        if input.size.is_some_and(|size| size.iter().any(|side| !(1..=8192).contains(side))) {
            return Err("input.size: each side must be from 1 to 8192 pixels".into());
        }
        Ok(())
    }
}

/// `#rrggbb`
fn parse_color(text: &str) -> Option<Rgb> {
    // The parser would also take a sign.
    let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let value = u32::from_str_radix(digits, 16).ok()?;
    Some(Rgb((value >> 16) as u8, (value >> 8) as u8, value as u8))
}

/// The key of a manifest's line, in brackets. Never the whole line: whoever names a model by the API need not see what is
/// written in whatever file lies beside it.
fn key_of(line: &str) -> String {
    const LONGEST: usize = 16;
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let is_key = !key.is_empty() && key.len() <= LONGEST && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_key { format!(" ({key})") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<ModelManifest>, SegmentError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("net.toml"), text).unwrap();
        ModelManifest::beside(&folder.path().join("net.onnx"))
    }

    #[test]
    fn reads_a_foreign_models_manifest() {
        let text = r##"
            [input]
            size = [320, 240]
            layout = "nchw"
            mean = [0.485, 0.456, 0.406]
            std = [0.229, 0.224, 0.225]
            [[labels]]
            name = "road"
            color = "#804080"
        "##;
        let manifest = read(text).unwrap().unwrap();
        assert_eq!(manifest.labels().unwrap(), [Label { name: "road".into(), color: Rgb(128, 64, 128) }]);
        let input = manifest.input.unwrap();
        assert_eq!((input.size, input.layout, input.white), (Some([320, 240]), Some(Layout::Nchw), 1.0));
    }

    #[test]
    fn a_wrong_manifest_names_the_key() {
        for (text, key) in [
            ("[input]\nsize = [0, 3]", "input.size"),
            ("[input]\nstd = [1, 0, 1]", "input.std"),
            ("[input]\nlayout = \"hwc\"", "layout"),
            ("[input]\nmeans = [1, 0, 1]", "means"),
            ("[input]\nmean = [0.0, nan, 0.0]", "input.mean"),
            ("[input]\nwhite = inf", "input.white"),
            ("[input]\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]", "write white = 255"),
            ("[output]\nthreshold = nan", "output.threshold"),
            ("[output]\nactivation = \"sigmoid\"\nthreshold = 128", "output.threshold: 128"),
            ("[output]\nactivation = \"tanh\"", "activation"),
            ("[[labels]]\nname = \"a\"\ncolor = \"red\"", "red"),
            ("[[labels]]\nname = \"a\"\ncolor = \"#+12345\"", "#+12345"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("net.toml") && error.contains(key), "{error}");
        }
        // It may be any file that somebody names by the API.
        let error = read("[[labels]]\npassword = \"hunter2\"").unwrap_err().to_string();
        assert!(error.contains("line 2 (password): unknown field `password`") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_missing_manifest_is_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ModelManifest::beside(&folder.path().join("net.onnx")).unwrap(), None);
    }
}
