//! What a model promises: its input, its output, its labels. Read from the ONNX file's own shapes and metadata, and
//! from the card beside it for foreign models.

use std::path::Path;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use serde::{Deserialize, Serialize};

use super::SegmentError;
use super::card::{Card, CardInput, ChannelOrder, Layout};
use super::golden::Golden;
use crate::frame::{Label, Labels, Rgb};

/// A model's promises, checked against each other.
#[derive(Clone, Debug)]
pub struct Contract {
    pub input: InputSpec,
    pub output: OutputSpec,
    /// Outputs beside that one, which are not computed.
    pub others: Vec<String>,
    /// In class order; never empty.
    pub labels: Labels,
    /// `maskcast.version` of a model that describes itself.
    pub version: Option<String>,
    /// `maskcast.train`: how it was made, as JSON.
    pub train: Option<serde_json::Value>,
    pub golden: Option<Golden>,
    pub card: Option<Card>,
}

/// The model's input.
#[derive(Clone, Debug)]
pub struct InputSpec {
    pub name: String,
    pub width: usize,
    pub height: usize,
    /// Whether several frames fit in one run.
    pub dynamic_batch: bool,
    pub pixels: InputPixels,
}

/// How pixels go in.
#[derive(Clone, Debug)]
pub enum InputPixels {
    /// uint8 `[N, H, W, 3]`, RGB; normalisation is inside the graph (Maskcast's contract).
    Bytes,
    /// float32, normalised by us.
    Float(FloatPixels),
}

/// Normalisation of a foreign model's input: `(value / 255 * white - mean) / std`.
#[derive(Clone, Debug)]
pub struct FloatPixels {
    pub layout: Layout,
    pub order: ChannelOrder,
    /// The result for each byte, a table for each channel in the model's order.
    pub table: Box<[[f32; 256]; 3]>,
}

/// The model's output.
#[derive(Clone, Debug)]
pub struct OutputSpec {
    pub name: String,
    pub kind: OutputKind,
}

/// How classes come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Class indices `[N, h, w]` or `[N, 1, h, w]` as uint8, int32 or int64.
    Classes,
    /// float32 logits or probabilities, `[N, C, h, w]`: the largest wins.
    LogitsNchw,
    /// The same as `[N, h, w, C]`.
    LogitsNhwc,
    /// One float32 logit a pixel, `[N, 1, h, w]`: class 1 where it is above zero.
    Binary,
}

/// An entry of `maskcast.labels`.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct MetadataLabel {
    name: String,
    color: [u8; 3],
}

/// Element type and shape of an input or output; -1 for a free dimension.
struct TensorSpec {
    name: String,
    element: TensorElementType,
    shape: Vec<i64>,
}

impl Contract {
    /// Reads the promises of the model that `session` has loaded from `path`.
    ///
    /// # Errors
    /// What keeps the model from being used, and what to write into which card.
    pub fn read(session: &Session, path: &Path) -> Result<Self, SegmentError> {
        let located = |problem: String| SegmentError(format!("{}: {problem}", path.display()));
        let card = Card::beside(path)?;
        let metadata = session.metadata().map_err(|error| located(format!("its metadata cannot be read: {error}")))?;
        let version = metadata.custom("maskcast.version");
        let labels = match metadata.custom("maskcast.labels") {
            Some(text) => {
                parse_labels(&text).map_err(|problem| located(format!("metadata maskcast.labels: {problem}")))?
            }
            None => {
                let card_path = Card::path_for(path);
                let labels = card.as_ref().map(|card| card.labels().map_err(&located)).transpose()?.unwrap_or_default();
                if labels.is_empty() {
                    return Err(located(format!(
                        "it does not say which classes it knows, and {} gives no labels; write that card ([[labels]] with name and color, and [input] for a float model)",
                        card_path.display()
                    )));
                }
                labels
            }
        };
        let input = only(session.inputs(), "image", "input").map_err(&located)?;
        let output = only(session.outputs(), "mask", "output").map_err(&located)?;
        let card_input = card.as_ref().and_then(|card| card.input.clone());
        let input = read_input(&input, card_input).map_err(&located)?;
        let output = read_output(&output, labels.len()).map_err(&located)?;
        let train = metadata
            .custom("maskcast.train")
            .map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)));
        let golden = metadata
            .custom("maskcast.golden")
            .map(|text| Golden::parse(&text).map_err(|problem| located(format!("metadata maskcast.golden: {problem}"))))
            .transpose()?;
        let others = session.outputs().iter().map(Outlet::name).filter(|name| *name != output.name);
        let others = others.map(str::to_owned).collect();
        Ok(Contract { input, output, others, labels: labels.into(), version, train, golden, card })
    }

    /// Whether the model describes itself, rather than needing a card.
    pub fn describes_itself(&self) -> bool {
        self.version.is_some() || self.train.is_some()
    }
}

fn parse_labels(text: &str) -> Result<Vec<Label>, String> {
    let labels: Vec<MetadataLabel> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if labels.is_empty() || labels.len() > 255 {
        return Err(format!("{} labels where 1 to 255 are possible", labels.len()));
    }
    let label =
        |label: MetadataLabel| Label { name: label.name, color: Rgb(label.color[0], label.color[1], label.color[2]) };
    Ok(labels.into_iter().map(label).collect())
}

/// The tensor called `preferred`, or the only one there is.
fn only(outlets: &[Outlet], preferred: &str, what: &str) -> Result<TensorSpec, String> {
    let outlet = outlets.iter().find(|outlet| outlet.name() == preferred).or(match outlets {
        [single] => Some(single),
        _ => None,
    });
    let Some(outlet) = outlet else {
        let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        return Err(format!(
            "it has {} {what}s ({}) and none is called {preferred:?}",
            outlets.len(),
            names.join(", ")
        ));
    };
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            Ok(TensorSpec { name: outlet.name().into(), element: *ty, shape: shape.to_vec() })
        }
        other => Err(format!("its {what} {} is {other}, not a tensor", outlet.name())),
    }
}

fn read_input(tensor: &TensorSpec, card: Option<CardInput>) -> Result<InputSpec, String> {
    let shape = &tensor.shape;
    let described = || format!("its input {} is {} {shape:?}", tensor.name, tensor.element);
    let &[batch, a, b, c] = shape.as_slice() else {
        return Err(format!("{}: a picture batch has four dimensions", described()));
    };
    let dynamic_batch = batch < 0;
    if batch > 1 {
        return Err(format!(
            "{}: a fixed batch of {batch} cannot be fed by live video; export it with a free or single batch",
            described()
        ));
    }
    let layout = match (tensor.element, card.as_ref().and_then(|card| card.layout)) {
        (TensorElementType::Uint8, _) => Layout::Nhwc,
        (_, Some(layout)) => layout,
        (_, None) if c == 3 => Layout::Nhwc,
        (_, None) => Layout::Nchw,
    };
    let (channels, height, width) = if layout == Layout::Nchw { (a, b, c) } else { (c, a, b) };
    if channels != 3 && channels >= 0 {
        return Err(format!("{}: three colour channels were expected ({layout:?})", described()));
    }
    let card_size = card.as_ref().and_then(|card| card.size);
    let side = |fixed: i64, given: Option<usize>, which: &str| match (usize::try_from(fixed), given) {
        (Ok(fixed), Some(given)) if fixed != given => {
            Err(format!("{}: the card's input.size says {which} {given}", described()))
        }
        (Ok(0), _) => Err(format!("{}: an empty picture", described())),
        (Ok(fixed), _) => Ok(fixed),
        (Err(_), Some(given)) => Ok(given),
        (Err(_), None) => Err(format!("{}: its {which} is free, so a card must give input.size", described())),
    };
    let width = side(width, card_size.map(|size| size[0]), "width")?;
    let height = side(height, card_size.map(|size| size[1]), "height")?;
    let pixels = match tensor.element {
        TensorElementType::Uint8 => InputPixels::Bytes,
        TensorElementType::Float32 => {
            let card = card.ok_or_else(|| {
                format!("{}: a float model needs a card with [input] that gives mean and std", described())
            })?;
            let table = |channel: usize| {
                std::array::from_fn(|byte| (byte as f32 / 255.0 * card.white - card.mean[channel]) / card.std[channel])
            };
            InputPixels::Float(FloatPixels {
                layout,
                order: card.order,
                table: Box::new([table(0), table(1), table(2)]),
            })
        }
        other => return Err(format!("{}: {other} input is not supported, only uint8 and float32", described())),
    };
    Ok(InputSpec { name: tensor.name.clone(), width, height, dynamic_batch, pixels })
}

fn read_output(tensor: &TensorSpec, classes: usize) -> Result<OutputSpec, String> {
    use TensorElementType::{Float32, Int32, Int64, Uint8};
    let described = || format!("its output {} is {} {:?}", tensor.name, tensor.element, tensor.shape);
    let is = |dimension: i64, value: usize| dimension < 0 || dimension == value as i64;
    let kind = match (tensor.element, tensor.shape.as_slice()) {
        (Uint8 | Int32 | Int64, [_, _, _] | [_, 1, _, _]) => OutputKind::Classes,
        (Float32, [_, 1, _, _]) if classes <= 2 => OutputKind::Binary,
        // A fixed channel count decides; with both free, the usual order of exporters.
        (Float32, &[_, c, _, _]) if c == classes as i64 => OutputKind::LogitsNchw,
        (Float32, &[_, _, _, c]) if c == classes as i64 => OutputKind::LogitsNhwc,
        (Float32, &[_, c, _, _]) if is(c, classes) => OutputKind::LogitsNchw,
        (Float32, [_, _, _, _]) => {
            return Err(format!("{}, but {classes} labels are given", described()));
        }
        _ => return Err(format!("{}: neither class indices [N, h, w] nor float32 logits [N, C, h, w]", described())),
    };
    Ok(OutputSpec { name: tensor.name.clone(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(element: TensorElementType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "t".into(), element, shape: shape.to_vec() }
    }

    #[test]
    fn reads_contract_and_foreign_inputs() {
        let bytes = read_input(&tensor(TensorElementType::Uint8, &[-1, 288, 512, 3]), None).unwrap();
        assert_eq!((bytes.width, bytes.height, bytes.dynamic_batch), (512, 288, true));
        let card = CardInput { size: Some([320, 240]), mean: [0.5; 3], std: [0.25; 3], ..CardInput::default() };
        let float = read_input(&tensor(TensorElementType::Float32, &[1, 3, -1, -1]), Some(card)).unwrap();
        assert_eq!((float.width, float.height, float.dynamic_batch), (320, 240, false));
        let InputPixels::Float(pixels) = float.pixels else { panic!("float input") };
        assert_eq!(pixels.layout, Layout::Nchw);
        assert_eq!((pixels.table[0][0], pixels.table[2][255]), (-2.0, 2.0));
    }

    #[test]
    fn refuses_inputs_with_a_reason() {
        let card = || Some(CardInput { size: Some([320, 240]), ..CardInput::default() });
        for (element, shape, card, reason) in [
            (TensorElementType::Float32, vec![1, 3, 4, 4], None, "card"),
            (TensorElementType::Float32, vec![1, 3, -1, 4], Some(CardInput::default()), "input.size"),
            (TensorElementType::Float32, vec![1, 3, 240, 300], card(), "300"),
            (TensorElementType::Float32, vec![1, 1, 240, 320], card(), "three colour channels"),
            (TensorElementType::Float32, vec![4, 3, 240, 320], card(), "batch of 4"),
            (TensorElementType::Int64, vec![1, 3, 240, 320], card(), "not supported"),
            (TensorElementType::Uint8, vec![3, 240, 320], None, "four dimensions"),
        ] {
            let error = read_input(&tensor(element, &shape), card).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn reads_outputs() {
        let kind =
            |element, shape: &[i64], classes| read_output(&tensor(element, shape), classes).map(|spec| spec.kind);
        assert_eq!(kind(TensorElementType::Uint8, &[-1, 288, 512], 11), Ok(OutputKind::Classes));
        assert_eq!(kind(TensorElementType::Float32, &[1, 21, 80, 80], 21), Ok(OutputKind::LogitsNchw));
        assert_eq!(kind(TensorElementType::Float32, &[1, 80, 80, 21], 21), Ok(OutputKind::LogitsNhwc));
        assert_eq!(kind(TensorElementType::Float32, &[1, 1, 80, 80], 2), Ok(OutputKind::Binary));
        assert!(kind(TensorElementType::Float32, &[1, 19, 80, 80], 11).unwrap_err().contains("11 labels"));
        assert!(kind(TensorElementType::Float32, &[1, 1000], 11).is_err());
    }
}
