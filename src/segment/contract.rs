//! The contract of a model: input, output and labels. Read from the shapes and metadata of the ONNX file, and from the
//! manifest beside it for foreign models.

use std::path::Path;

use ort::session::Session;
use ort::value::{Outlet, ValueType};
use serde::Deserialize;

use super::UnusableModel;
use super::golden::Golden;
use super::manifest::{ManifestOutput, ModelManifest};
use crate::frame::{Label, Labels, Rgb, Weight};

mod error;
mod input;
mod output;
mod tensor;

pub use error::{ContractError, InputError, InputProblem, MetadataProblem, OutputError, OutputProblem};
pub use input::{InputPixels, InputSpec};
pub use output::{Axes, Binary, Channel, OutputHints, OutputMeaning, OutputSpec, Range};
pub(super) use output::{interpret as interpret_output, read as read_output};
pub use tensor::TensorSpec;

/// The output with the logits of all classes, floats `[N, h, w, classes]` or `[N, classes, h, w]`, as the trainer exports it. Its
/// size may be smaller than that of the mask.
pub const SCORES: &str = "scores";

/// Input, output and labels of a model, which fit each other.
#[derive(Clone, Debug)]
pub struct Contract {
    pub input: InputSpec,
    pub output: OutputSpec,
    /// Names of the other outputs, which are not computed.
    pub others: Vec<String>,
    /// Outputs that a mask could be read from, when their declared shapes do not decide and a run has to.
    pub(super) candidates: Vec<TensorSpec>,
    /// `maskcast.output` of the metadata, else `[output]` of the manifest.
    pub(super) output_settings: ManifestOutput,
    /// In class order; at least two.
    pub labels: Labels,
    /// `maskcast.version` of a model that describes itself.
    pub version: Option<String>,
    /// `maskcast.train`: how the model was trained, as JSON.
    pub train: Option<serde_json::Value>,
    /// `maskcast.reference`: what the training images look like, as JSON.
    pub reference: Option<String>,
    pub golden: Option<Golden>,
    pub manifest: Option<ModelManifest>,
}

/// The outputs of a model whose session does not have them, because its last steps are computed elsewhere.
pub(super) struct ModelOutputs {
    pub mask: TensorSpec,
    /// The names of the other outputs.
    pub others: Vec<String>,
}

/// Inputs and outputs of the model file that the graph of the session does not have, because some steps of the model are computed
/// elsewhere.
#[derive(Default)]
pub(super) struct FileTensors {
    pub input: Option<TensorSpec>,
    pub outputs: Option<ModelOutputs>,
}

/// An entry of `maskcast.labels`.
#[derive(Clone, Debug, Deserialize)]
struct MetadataLabel {
    name: String,
    color: [u8; 3],
    /// Files of earlier versions have none.
    weight: Option<f64>,
}

impl Contract {
    /// Whether the model has the output [`SCORES`], from which the probability of a class can be computed.
    pub fn has_scores(&self) -> bool {
        self.others.iter().any(|name| name == SCORES)
    }

    /// Reads the contract of the model that `session` has loaded from `path`. The meaning of the output is final only after a
    /// run ([`super::segmenter::OnnxSegmenter`]).
    ///
    /// # Errors
    /// A declaration of the model or of its manifest that cannot be used, with what to write into the manifest.
    pub fn read(session: &Session, path: &Path) -> Result<Self, UnusableModel> {
        Contract::read_with(session, path, FileTensors::default())
    }

    /// The same with an input or outputs that are not those of the session.
    ///
    /// # Errors
    /// As [`Contract::read`].
    pub(super) fn read_with(session: &Session, path: &Path, tensors: FileTensors) -> Result<Self, UnusableModel> {
        let manifest = ModelManifest::beside(path)?;
        Contract::with_manifest(session, path, manifest, tensors).map_err(|error| UnusableModel::new(path, error))
    }

    fn with_manifest(
        session: &Session,
        path: &Path,
        manifest: Option<ModelManifest>,
        FileTensors { input, outputs }: FileTensors,
    ) -> Result<Self, ContractError> {
        let metadata = session.metadata().map_err(|error| ContractError::MetadataUnreadable(error.into()))?;
        let version = metadata.custom("maskcast.version");
        let labels = match metadata.custom("maskcast.labels") {
            Some(text) => parse_labels(&text).map_err(invalid("maskcast.labels"))?,
            None => {
                // The colours were checked when the manifest was read.
                let labels = manifest.as_ref().and_then(|manifest| manifest.labels().ok()).unwrap_or_default();
                if labels.is_empty() {
                    return Err(ContractError::NoLabels { manifest: ModelManifest::path_for(path) });
                }
                labels
            }
        };
        if let [label] = labels.as_slice() {
            return Err(ContractError::SingleLabel(label.name.clone()));
        }
        let output_settings = match metadata.custom("maskcast.output") {
            Some(text) => parse_output(&text).map_err(invalid("maskcast.output"))?,
            None => manifest.as_ref().and_then(|manifest| manifest.output.clone()).unwrap_or_default(),
        };
        let input = match input {
            Some(input) => input,
            None => image_input(session.inputs())?,
        };
        let input = input::read(&input, manifest.as_ref().and_then(|manifest| manifest.input.as_ref()))?;
        let hints = OutputHints { labels: labels.len(), manifest: &output_settings, input: input.layout };
        let (output, candidates) = match &outputs {
            Some(outputs) => (output::read(&outputs.mask, hints)?, Vec::new()),
            None => choose_output(session.outputs(), hints)?,
        };
        let train = metadata
            .custom("maskcast.train")
            .map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)));
        let golden = metadata
            .custom("maskcast.golden")
            .map(|text| Golden::parse(&text).map_err(|error| invalid("maskcast.golden")(error.into())))
            .transpose()?;
        let others = match outputs {
            Some(outputs) => outputs.others,
            None => names(session.outputs()).into_iter().filter(|name| *name != output.name).collect(),
        };
        Ok(Contract {
            input,
            output,
            others,
            candidates,
            output_settings,
            labels: labels.into(),
            version,
            train,
            reference: metadata.custom("maskcast.reference"),
            golden,
            manifest,
        })
    }

    /// Whether the model describes itself, so that it needs no manifest.
    pub fn describes_itself(&self) -> bool {
        self.version.is_some() || self.train.is_some()
    }

    /// What is known of the output in addition to its tensor.
    pub(super) fn hints(&self) -> OutputHints<'_> {
        OutputHints { labels: self.labels.len(), manifest: &self.output_settings, input: self.input.layout }
    }
}

fn invalid(key: &'static str) -> impl Fn(MetadataProblem) -> ContractError {
    move |problem| ContractError::Metadata { key, problem }
}

fn parse_output(text: &str) -> Result<ManifestOutput, MetadataProblem> {
    let output: ManifestOutput =
        serde_json::from_str(text).map_err(|error| MetadataProblem::Json(error.to_string()))?;
    output.check()?;
    Ok(output)
}

fn parse_labels(text: &str) -> Result<Vec<Label>, MetadataProblem> {
    let labels: Vec<MetadataLabel> =
        serde_json::from_str(text).map_err(|error| MetadataProblem::Json(error.to_string()))?;
    if labels.is_empty() || labels.len() > 255 {
        return Err(MetadataProblem::LabelCount(labels.len()));
    }
    let label = |MetadataLabel { name, color: [r, g, b], weight }: MetadataLabel| {
        let weight = weight.map_or(Ok(Weight::FULL), Weight::try_from);
        match weight {
            Ok(weight) => Ok(Label { name, color: Rgb(r, g, b), weight }),
            Err(error) => Err(MetadataProblem::Weight { label: name, error }),
        }
    };
    labels.into_iter().map(label).collect()
}

/// The input called `image`, or the only input.
fn image_input(outlets: &[Outlet]) -> Result<TensorSpec, ContractError> {
    let outlet = outlets.iter().find(|outlet| outlet.name() == "image").or(match outlets {
        [single] => Some(single),
        _ => None,
    });
    match outlet {
        Some(outlet) => tensor(outlet, "input"),
        None => Err(ContractError::NoImageInput(names(outlets))),
    }
}

fn names(outlets: &[Outlet]) -> Vec<String> {
    outlets.iter().map(|outlet| outlet.name().to_owned()).collect()
}

fn tensor(outlet: &Outlet, direction: &'static str) -> Result<TensorSpec, ContractError> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            Ok(TensorSpec { name: outlet.name().into(), element: *ty, shape: shape.to_vec() })
        }
        other => Err(ContractError::NotATensor { direction, name: outlet.name().into(), kind: other.to_string() }),
    }
}

/// The output that the manifest names, the one called `mask`, the only one, or else the first that a mask can be read from,
/// with all that a mask can be read from.
fn choose_output(outlets: &[Outlet], hints: OutputHints<'_>) -> Result<(OutputSpec, Vec<TensorSpec>), ContractError> {
    let find = |name: &str| outlets.iter().find(|outlet| outlet.name() == name);
    let chosen = match (&hints.manifest.name, outlets) {
        (Some(name), _) => Some(
            find(name).ok_or_else(|| ContractError::NoSuchOutput { name: name.clone(), outputs: names(outlets) })?,
        ),
        (None, [single]) => Some(single),
        (None, _) => find("mask"),
    };
    if let Some(outlet) = chosen {
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
        return Err(ContractError::NoMaskOutput { labels: hints.labels, problems });
    };
    Ok((first.clone(), candidates.into_iter().map(|(_, tensor)| tensor).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_a_weight_has_the_weight_1() {
        let text = r#"[{"name": "sky", "color": [1, 2, 3]}, {"name": "car", "color": [4, 5, 6], "weight": 0.25}]"#;
        let car = Label { weight: Weight::try_from(0.25).unwrap(), ..Label::new("car", Rgb(4, 5, 6)) };
        assert_eq!(parse_labels(text).unwrap(), [Label::new("sky", Rgb(1, 2, 3)), car]);
    }

    #[test]
    fn a_weight_that_is_not_between_0_and_1_is_an_error() {
        let labels = |weight: &str| format!(r#"[{{"name": "sky", "color": [1, 2, 3], "weight": {weight}}}]"#);
        let error = parse_labels(&labels("20")).unwrap_err();
        assert!(matches!(&error, MetadataProblem::Weight { label, .. } if label == "sky"));
        assert_eq!(error.to_string(), "the weight of sky: 20 is not between 0 and 1");
        assert!(matches!(parse_labels(&labels("\"faint\"")), Err(MetadataProblem::Json(_))));
    }
}
