//! What a model promises: its input, its output, its labels. Read from the ONNX file's own shapes and metadata, and
//! from the manifest beside it for foreign models.

use std::path::Path;

use ort::session::Session;
use ort::value::{Outlet, ValueType};
use serde::{Deserialize, Serialize};

use super::SegmentError;
use super::golden::Golden;
use super::manifest::{ManifestOutput, ModelManifest};
use crate::frame::{Label, Labels, Rgb};

mod input;
mod output;
mod tensor;

pub use input::{InputPixels, InputSpec};
pub use output::{Axes, Binary, Channel, OutputHints, OutputMeaning, OutputSpec, Range};
pub(super) use output::{read as read_output, settle as settle_output};
pub(super) use tensor::TensorSpec;

/// A model's promises, checked against each other.
#[derive(Clone, Debug)]
pub struct Contract {
    pub input: InputSpec,
    pub output: OutputSpec,
    /// Outputs beside that one, which are not computed.
    pub others: Vec<String>,
    /// Outputs that a mask could be read from, of which only their sizes in a run can decide.
    pub(super) candidates: Vec<TensorSpec>,
    /// `maskcast.output` of the model's metadata, else `[output]` of its manifest.
    pub(super) wish: ManifestOutput,
    /// In class order; two at least.
    pub labels: Labels,
    /// `maskcast.version` of a model that describes itself.
    pub version: Option<String>,
    /// `maskcast.train`: how it was made, as JSON.
    pub train: Option<serde_json::Value>,
    pub golden: Option<Golden>,
    pub manifest: Option<ModelManifest>,
}

/// An entry of `maskcast.labels`.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct MetadataLabel {
    name: String,
    color: [u8; 3],
}

impl Contract {
    /// Reads the promises of the model that `session` has loaded from `path`. What its output means is only known for
    /// certain after a run.
    ///
    /// # Errors
    /// What keeps the model from being used, and what to write into which manifest.
    pub fn read(session: &Session, path: &Path) -> Result<Self, SegmentError> {
        let located = |problem: String| SegmentError(format!("{}: {problem}", path.display()));
        let manifest = ModelManifest::beside(path)?;
        let metadata = session.metadata().map_err(|error| located(format!("its metadata cannot be read: {error}")))?;
        let version = metadata.custom("maskcast.version");
        let labels = match metadata.custom("maskcast.labels") {
            Some(text) => {
                parse_labels(&text).map_err(|problem| located(format!("metadata maskcast.labels: {problem}")))?
            }
            None => {
                let manifest_path = ModelManifest::path_for(path);
                let labels = manifest
                    .as_ref()
                    .map(|manifest| manifest.labels().map_err(&located))
                    .transpose()?
                    .unwrap_or_default();
                if labels.is_empty() {
                    return Err(located(format!(
                        "it does not say which classes it knows, and {} gives no labels; write that manifest ([[labels]] with name and color, and [input] for a float model)",
                        manifest_path.display()
                    )));
                }
                labels
            }
        };
        if let [label] = labels.as_slice() {
            return Err(located(format!(
                "only the label {:?} is given, so every pixel would be {0:?}; give two: first one for what it is not ([[labels]] name = \"background\" color = \"#000000\"), then {0:?}",
                label.name
            )));
        }
        let wish = match metadata.custom("maskcast.output") {
            Some(text) => {
                parse_output(&text).map_err(|problem| located(format!("metadata maskcast.output: {problem}")))?
            }
            None => manifest.as_ref().and_then(|manifest| manifest.output.clone()).unwrap_or_default(),
        };
        let input = image(session.inputs()).map_err(&located)?;
        let input =
            input::read(&input, manifest.as_ref().and_then(|manifest| manifest.input.as_ref())).map_err(&located)?;
        let hints = OutputHints { labels: labels.len(), manifest: &wish, input: input.layout };
        let (output, candidates) = choose_output(session.outputs(), hints).map_err(&located)?;
        let train = metadata
            .custom("maskcast.train")
            .map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)));
        let golden = metadata
            .custom("maskcast.golden")
            .map(|text| Golden::parse(&text).map_err(|problem| located(format!("metadata maskcast.golden: {problem}"))))
            .transpose()?;
        let others = session.outputs().iter().map(Outlet::name).filter(|name| *name != output.name);
        let others = others.map(str::to_owned).collect();
        Ok(Contract {
            input,
            output,
            others,
            candidates,
            wish,
            labels: labels.into(),
            version,
            train,
            golden,
            manifest,
        })
    }

    /// Whether the model describes itself, rather than needing a manifest.
    pub fn describes_itself(&self) -> bool {
        self.version.is_some() || self.train.is_some()
    }

    /// What is known of its output beside the tensor.
    pub(super) fn hints(&self) -> OutputHints<'_> {
        OutputHints { labels: self.labels.len(), manifest: &self.wish, input: self.input.layout }
    }
}

fn parse_output(text: &str) -> Result<ManifestOutput, String> {
    let output: ManifestOutput = serde_json::from_str(text).map_err(|error| error.to_string())?;
    output.check()?;
    Ok(output)
}

fn parse_labels(text: &str) -> Result<Vec<Label>, String> {
    let labels: Vec<MetadataLabel> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if labels.is_empty() || labels.len() > 255 {
        return Err(format!("{} labels where 2 to 255 are possible", labels.len()));
    }
    let label =
        |label: MetadataLabel| Label { name: label.name, color: Rgb(label.color[0], label.color[1], label.color[2]) };
    Ok(labels.into_iter().map(label).collect())
}

/// The input called `image`, or the only one there is.
fn image(outlets: &[Outlet]) -> Result<TensorSpec, String> {
    let outlet = outlets.iter().find(|outlet| outlet.name() == "image").or(match outlets {
        [single] => Some(single),
        _ => None,
    });
    match outlet {
        Some(outlet) => tensor(outlet, "input"),
        None => Err(format!(
            "it has {} inputs ({}) and none is called \"image\"; export it with the picture as its only input",
            outlets.len(),
            names(outlets)
        )),
    }
}

fn names(outlets: &[Outlet]) -> String {
    outlets.iter().map(Outlet::name).collect::<Vec<_>>().join(", ")
}

fn tensor(outlet: &Outlet, what: &str) -> Result<TensorSpec, String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            Ok(TensorSpec { name: outlet.name().into(), element: *ty, shape: shape.to_vec() })
        }
        other => Err(format!("its {what} {} is {other}, not a tensor", outlet.name())),
    }
}

/// The output that the manifest names, the one called `mask`, the only one, or the first that a mask can be read from; and all
/// that one can be read from, where none of these is named.
fn choose_output(outlets: &[Outlet], hints: OutputHints<'_>) -> Result<(OutputSpec, Vec<TensorSpec>), String> {
    let named = |name: &str| outlets.iter().find(|outlet| outlet.name() == name);
    let known = match (&hints.manifest.name, outlets) {
        (Some(name), _) => Some(
            named(name).ok_or_else(|| format!("output.name: it has no output {name:?}, only {}", names(outlets)))?,
        ),
        (None, [single]) => Some(single),
        (None, _) => named("mask"),
    };
    if let Some(outlet) = known {
        return Ok((output::read(&tensor(outlet, "output")?, hints)?, Vec::new()));
    }
    let mut problems = Vec::new();
    let mut candidates = Vec::new();
    for outlet in outlets {
        let read = tensor(outlet, "output").and_then(|tensor| Ok((output::read(&tensor, hints)?, tensor)));
        match read {
            Ok(candidate) => candidates.push(candidate),
            Err(problem) => problems.push(problem),
        }
    }
    let Some((first, _)) = candidates.first() else {
        return Err(format!(
            "none of its {} outputs can be read as a mask of {} classes: {}",
            outlets.len(),
            hints.labels,
            problems.join("; ")
        ));
    };
    Ok((first.clone(), candidates.into_iter().map(|(_, tensor)| tensor).collect()))
}
