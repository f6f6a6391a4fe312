//! The output of a model: its tensor, its axes, and the meaning of its values.
//!
//! A declared shape may have free dimensions, so an output is read twice: as the file declares it, and as the first run
//! returns it. That run also shows whether one value a pixel is a probability or a logit.

use ort::value::TensorElementType;

use super::{OutputError, OutputProblem, TensorSpec};
use crate::frame::Label;
use crate::segment::manifest::{Activation, Layout, ManifestOutput};

/// The output of a model that the mask is read from.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    pub name: String,
    pub element: TensorElementType,
    pub axes: Axes,
    pub meaning: OutputMeaning,
    /// Why this output was chosen, when a mask could be read from several.
    pub choice_reason: Option<String>,
}

/// The axes of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    /// Whether the first axis is the batch.
    pub batch: bool,
    pub channel: Channel,
}

/// The position of the class axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// No class axis: one value a pixel, `[h, w]`.
    None,
    /// `[C, h, w]`
    First,
    /// `[h, w, C]`
    Last,
}

/// The meaning of the values of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputMeaning {
    /// The class index of a pixel.
    Index,
    /// A logit or probability for each class; a pixel has the class with the largest.
    Scores,
    /// One value a pixel, the logit or probability of the second of two classes.
    Binary(Binary),
}

/// Pixels whose value is above the threshold have the second class.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// On the scale of the output.
    pub threshold: f32,
    /// How the values are interpreted, and why: `probabilities (the network ends in Sigmoid)`.
    pub interpretation: String,
}

/// Statistics of the values of an output in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub low: f32,
    pub high: f32,
    /// Whether all values are whole numbers.
    pub whole: bool,
    /// Share of values that are nan, 0 to 1.
    pub nan: f64,
}

/// How far rounding may put a probability outside of 0 to 1.
const ROUNDING: f32 = 1e-3;

/// The largest value of an output that is 0 or 255.
const BYTES: std::ops::RangeInclusive<f32> = 200.0..=255.5;

impl Range {
    /// Statistics of `values` without nan; `None` when all are nan.
    pub fn of(values: &[f32]) -> Option<Range> {
        let mut numbers = values.iter().copied().filter(|value| !value.is_nan());
        let first = numbers.next()?;
        let mut range = Range { low: first, high: first, whole: first.fract() == 0.0, nan: 0.0 };
        let mut count = 1;
        for value in numbers {
            range.low = range.low.min(value);
            range.high = range.high.max(value);
            range.whole &= value.fract() == 0.0;
            count += 1;
        }
        range.nan = (values.len() - count) as f64 / values.len() as f64;
        Some(range)
    }

    fn is_probability(&self) -> bool {
        self.low >= -ROUNDING && self.high <= 1.0 + ROUNDING
    }
}

/// What is known of an output in addition to its tensor.
#[derive(Clone, Copy)]
pub struct OutputHints<'a> {
    /// Number of labels.
    pub labels: usize,
    pub manifest: &'a ManifestOutput,
    /// The layout of the input. The output probably has the same.
    pub input: Layout,
}

impl OutputHints<'_> {
    fn layout(&self) -> Layout {
        self.manifest.layout.unwrap_or(self.input)
    }
}

fn is_float(element: TensorElementType) -> bool {
    use TensorElementType::{Float16, Float32, Float64};
    matches!(element, Float16 | Float32 | Float64)
}

fn is_integer(element: TensorElementType) -> bool {
    use TensorElementType::{Bool, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    matches!(element, Bool | Int8 | Int16 | Int32 | Int64 | Uint8 | Uint16 | Uint32 | Uint64)
}

/// Reads an output by its shape, in which -1 is free. The meaning of one float value a pixel is not known before a run; it
/// is taken as a logit until [`interpret`] is called.
///
/// # Errors
/// Why no mask can be read from the output.
pub(in crate::segment) fn read(tensor: &TensorSpec, hints: OutputHints<'_>) -> Result<OutputSpec, OutputError> {
    read_output(tensor, hints).map_err(|problem| OutputError { output: tensor.to_string(), problem })
}

fn read_output(tensor: &TensorSpec, hints: OutputHints<'_>) -> Result<OutputSpec, OutputProblem> {
    if !is_float(tensor.element) && !is_integer(tensor.element) {
        return Err(OutputProblem::Element);
    }
    let axes = read_axes(tensor, hints)?;
    let meaning = if is_single(tensor, axes) { single(tensor.element, hints)? } else { OutputMeaning::Scores };
    if meaning == OutputMeaning::Scores && hints.manifest.threshold.is_some() {
        return Err(OutputProblem::ThresholdOfScores(hints.labels));
    }
    Ok(OutputSpec { name: tensor.name.clone(), element: tensor.element, axes, meaning, choice_reason: None })
}

/// Whether the class axis has the size 1.
fn is_single(tensor: &TensorSpec, axes: Axes) -> bool {
    let first = usize::from(axes.batch);
    match axes.channel {
        Channel::None => true,
        Channel::First => tensor.shape.get(first) == Some(&1),
        Channel::Last => tensor.shape.last() == Some(&1),
    }
}

fn read_axes(tensor: &TensorSpec, hints: OutputHints<'_>) -> Result<Axes, OutputProblem> {
    let labels = hints.labels as i64;
    let float = is_float(tensor.element);
    let by_layout = |layout| if layout == Layout::Nchw { Channel::First } else { Channel::Last };
    // The class axis, when the three axes after the batch are `a`, `b` and `c`.
    let class_axis = |a: i64, c: i64| match (a, c) {
        (1, 1) => Some(by_layout(hints.layout())),
        (1, _) => Some(Channel::First),
        (_, 1) => Some(Channel::Last),
        (a, c) if a == labels && c == labels => Some(by_layout(hints.layout())),
        (a, _) if a == labels => Some(Channel::First),
        (_, c) if c == labels => Some(Channel::Last),
        (a, c) if a < 0 && c < 0 => Some(by_layout(hints.layout())),
        (a, _) if a < 0 => Some(Channel::First),
        (_, c) if c < 0 => Some(Channel::Last),
        _ => None,
    };
    match *tensor.shape.as_slice() {
        [_, a, _, c] => match class_axis(a, c) {
            Some(channel) => Ok(Axes { batch: true, channel }),
            None => Err(OutputProblem::LabelCount(hints.labels)),
        },
        // Scores of one image without a batch axis, or one value a pixel.
        [a, _, c] if float && a == labels && a > 1 => {
            Ok(Axes { batch: false, channel: class_axis(a, c).unwrap_or(Channel::First) })
        }
        [a, _, c] if float && c == labels && a > 1 => Ok(Axes { batch: false, channel: Channel::Last }),
        [_, _, 1] => Ok(Axes { batch: false, channel: Channel::Last }),
        [_, _, _] => Ok(Axes { batch: true, channel: Channel::None }),
        [_, _] => Ok(Axes { batch: false, channel: Channel::None }),
        _ => Err(OutputProblem::Dimensions),
    }
}

/// The meaning of one value a pixel.
fn single(element: TensorElementType, hints: OutputHints<'_>) -> Result<OutputMeaning, OutputProblem> {
    let OutputHints { labels, manifest, .. } = hints;
    if manifest.activation == Some(Activation::Softmax) {
        return Err(OutputProblem::SoftmaxOfOneValue);
    }
    if element == TensorElementType::Bool && labels != 2 {
        return Err(OutputProblem::NotBinary(labels));
    }
    let thresholded = manifest.threshold.is_some() || manifest.activation == Some(Activation::Sigmoid);
    if element == TensorElementType::Bool || (is_integer(element) && !thresholded) {
        return Ok(OutputMeaning::Index);
    }
    if labels == 2 {
        let interpretation = "logits".into();
        return Ok(OutputMeaning::Binary(Binary { threshold: manifest.threshold.unwrap_or(0.0), interpretation }));
    }
    if thresholded {
        return Err(OutputProblem::ThresholdLabels(labels));
    }
    // Class indices in floats; the first run shows whether they are.
    Ok(OutputMeaning::Index)
}

/// Determines the meaning of the values from those of a run (`range`; `None` when all are nan) and from the sigmoid that the
/// graph ends in. Returns a warning about unexpected values.
///
/// # Errors
/// Values that contradict the labels or the manifest.
pub(in crate::segment) fn interpret(
    output: &mut OutputSpec,
    hints: OutputHints<'_>,
    sigmoid: Option<&str>,
    range: Option<Range>,
) -> Result<Option<String>, OutputError> {
    let OutputHints { labels, manifest, .. } = hints;
    let name = &output.name;
    let error = |problem| OutputError { output: name.clone(), problem };
    let Some(range) = range else { return Err(error(OutputProblem::OnlyNan)) };
    if output.meaning == OutputMeaning::Index && is_float(output.element) && !range.whole {
        return Err(error(OutputProblem::NotBinary(labels)));
    }
    let mut warning = (range.nan > 0.0).then(|| {
        let share = range.nan * 100.0;
        format!("on a test image, {share:.1} % of the values of its output {name} are not numbers (nan); export the model again")
    });
    let OutputMeaning::Binary(binary) = &mut output.meaning else { return Ok(warning) };
    let observed = format!("values from {} to {} on a test image", range.low, range.high);
    let probability = match sigmoid {
        Some(op) => Some(format!("the network ends in {op}")),
        None => range.is_probability().then(|| observed.clone()),
    };
    if let (Some(why), Some(threshold)) = (&probability, manifest.threshold)
        && (threshold <= 0.0 || threshold >= 1.0)
    {
        return Err(error(OutputProblem::ThresholdNotAProbability { threshold, reason: why.clone() }));
    }
    *binary = match (probability, manifest.activation) {
        (Some(why), _) => {
            Binary { threshold: manifest.threshold.unwrap_or(0.5), interpretation: format!("probabilities ({why})") }
        }
        (None, Some(Activation::Sigmoid)) => {
            let share = manifest.threshold.unwrap_or(0.5);
            Binary {
                threshold: (share / (1.0 - share)).ln(),
                interpretation: format!("logits, {observed}; sigmoid is applied by the manifest"),
            }
        }
        // Only a mask that is meant to be viewed has such values.
        (None, _) if manifest.threshold.is_none() && range.low >= 0.0 && BYTES.contains(&range.high) => {
            Binary { threshold: 127.5, interpretation: format!("probabilities times 255 ({observed})") }
        }
        (None, _) => {
            if manifest.threshold.is_none() && range.low >= 0.0 {
                warning = Some(format!(
                    "its output {name} has {observed}: none is below 0, the threshold of logits, so all pixels become one class; write threshold into [output] of its manifest"
                ));
            }
            Binary { threshold: manifest.threshold.unwrap_or(0.0), interpretation: format!("logits ({observed})") }
        }
    };
    Ok(warning)
}

impl OutputSpec {
    /// Type, axes and meaning, in one line.
    pub fn describe(&self, labels: &[Label]) -> String {
        let element = self.element;
        match &self.meaning {
            OutputMeaning::Index => format!("{element} class indices"),
            OutputMeaning::Scores => {
                let layout = if self.axes.channel == Channel::Last { Layout::Nhwc } else { Layout::Nchw };
                format!(
                    "{element} scores of {} classes, {}: the class with the largest score is used",
                    labels.len(),
                    layout.name()
                )
            }
            OutputMeaning::Binary(binary) => {
                let name = labels.get(1).map_or("", |label| &label.name);
                let Binary { threshold, interpretation } = binary;
                format!("{element} one value a pixel, {interpretation}: {name:?} where it is above {threshold}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
