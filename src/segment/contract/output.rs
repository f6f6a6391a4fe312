//! The model's output: which tensor it is, where its axes are, and what its values mean.
//!
//! A shape in the file may leave sides free, so it is read twice: as the file declares it, and as it comes out of the first
//! run, which also shows whether one value a pixel is a probability or a logit.

use ort::value::TensorElementType;

use super::tensor::TensorSpec;
use crate::frame::Label;
use crate::segment::manifest::{Activation, Layout, ManifestOutput};

/// The model's output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    pub name: String,
    pub element: TensorElementType,
    pub axes: Axes,
    pub meaning: OutputMeaning,
    /// Why this one, where there are several that a mask could be read from.
    pub chosen: Option<String>,
}

/// Where the axes of an output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    /// Whether the first axis counts pictures.
    pub batch: bool,
    pub channel: Channel,
}

/// Where the axis of the classes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// There is none: one value a pixel, `[h, w]`.
    None,
    /// `[C, h, w]`
    First,
    /// `[h, w, C]`
    Last,
}

/// What the values of an output mean.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputMeaning {
    /// The index of a pixel's class.
    Index,
    /// A logit or probability for each class: the largest wins.
    Scores,
    /// One value a pixel, for the second of two classes.
    Binary(Binary),
}

/// The second class is where the value is above the threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// In the output's own scale.
    pub threshold: f32,
    /// What the values were taken for, and why; for people.
    pub taken_for: String,
}

/// What values of an output were seen in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub low: f32,
    pub high: f32,
    /// Whether all values are whole numbers.
    pub whole: bool,
    /// Share of values that are not numbers (nan), 0 to 1.
    pub nan: f64,
}

/// Rounding that a probability may be beyond 0 and 1 by.
const ROUNDING: f32 = 1e-3;

/// Largest values of a mask whose white is 255.
const BYTES: std::ops::RangeInclusive<f32> = 200.0..=255.5;

impl Range {
    /// Of all values that are numbers; `None` when there is none.
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

/// What is known of an output beside its tensor.
#[derive(Clone, Copy)]
pub struct OutputHints<'a> {
    /// Number of labels.
    pub labels: usize,
    pub manifest: &'a ManifestOutput,
    /// The layout of the input, which the output probably shares.
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

fn is_whole(element: TensorElementType) -> bool {
    use TensorElementType::{Bool, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    matches!(element, Bool | Int8 | Int16 | Int32 | Int64 | Uint8 | Uint16 | Uint32 | Uint64)
}

/// Reads an output by its shape, in which -1 is free. What one float value a pixel means is not known before a run; it is
/// taken as a logit until [`settle`] is called.
///
/// # Errors
/// Why no mask can be read from it.
pub(in crate::segment) fn read(tensor: &TensorSpec, hints: OutputHints<'_>) -> Result<OutputSpec, String> {
    let described = || format!("its output {} is {} {:?}", tensor.name, tensor.element, tensor.shape);
    if !is_float(tensor.element) && !is_whole(tensor.element) {
        return Err(format!("{}: only whole numbers, bool, float16, float32 and float64 can be read", described()));
    }
    let labels = hints.labels;
    let axes = read_axes(tensor, hints).map_err(|problem| format!("{}{problem}", described()))?;
    let meaning = match axes.channel {
        Channel::First | Channel::Last if is_single(tensor, axes) => single(tensor.element, hints),
        Channel::First | Channel::Last => Ok(OutputMeaning::Scores),
        Channel::None => single(tensor.element, hints),
    };
    let meaning = meaning.map_err(|problem| format!("{}: {problem}", described()))?;
    if meaning == OutputMeaning::Scores && hints.manifest.threshold.is_some() {
        return Err(format!(
            "output.threshold: {} with a value for each of {labels} labels: the largest wins; leave the threshold out",
            described()
        ));
    }
    Ok(OutputSpec { name: tensor.name.clone(), element: tensor.element, axes, meaning, chosen: None })
}

/// Whether the axis of the classes has one entry.
fn is_single(tensor: &TensorSpec, axes: Axes) -> bool {
    let first = usize::from(axes.batch);
    match axes.channel {
        Channel::None => true,
        Channel::First => tensor.shape.get(first) == Some(&1),
        Channel::Last => tensor.shape.last() == Some(&1),
    }
}

fn read_axes(tensor: &TensorSpec, hints: OutputHints<'_>) -> Result<Axes, String> {
    let labels = hints.labels as i64;
    let float = is_float(tensor.element);
    let by_layout = |layout| if layout == Layout::Nchw { Channel::First } else { Channel::Last };
    // The axis of the classes, when the three axes behind the batch are `a`, `b` and `c`.
    let of_three = |a: i64, c: i64| match (a, c) {
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
        [_, a, _, c] => match of_three(a, c) {
            Some(channel) => Ok(Axes { batch: true, channel }),
            None => Err(format!(", but {labels} labels are given")),
        },
        // Scores of one picture without a batch, or one value a pixel.
        [a, _, c] if float && a == labels && a > 1 => {
            Ok(Axes { batch: false, channel: of_three(a, c).unwrap_or(Channel::First) })
        }
        [a, _, c] if float && c == labels && a > 1 => Ok(Axes { batch: false, channel: Channel::Last }),
        [_, _, 1] => Ok(Axes { batch: false, channel: Channel::Last }),
        [_, _, _] => Ok(Axes { batch: true, channel: Channel::None }),
        [_, _] => Ok(Axes { batch: false, channel: Channel::None }),
        _ => Err(": neither class indices [N, h, w] nor scores [N, C, h, w] nor one value a pixel [N, 1, h, w]".into()),
    }
}

/// The meaning of one value a pixel.
fn single(element: TensorElementType, hints: OutputHints<'_>) -> Result<OutputMeaning, String> {
    let OutputHints { labels, manifest, .. } = hints;
    if manifest.activation == Some(Activation::Softmax) {
        return Err("it has one value a pixel, where activation = \"softmax\" needs one for each class; write \"sigmoid\" or \"none\"".into());
    }
    if element == TensorElementType::Bool && labels != 2 {
        return Err(format!(
            "bool tells two classes apart, but {labels} labels are given; give the background and the class"
        ));
    }
    let thresholded = manifest.threshold.is_some() || manifest.activation == Some(Activation::Sigmoid);
    if element == TensorElementType::Bool || (is_whole(element) && !thresholded) {
        return Ok(OutputMeaning::Index);
    }
    if labels == 2 {
        let taken_for = "logits".into();
        return Ok(OutputMeaning::Binary(Binary { threshold: manifest.threshold.unwrap_or(0.0), taken_for }));
    }
    if thresholded {
        return Err(format!(
            "output.threshold and activation = \"sigmoid\" are for two labels, but {labels} are given"
        ));
    }
    // Class indices in floats; the first run shows whether they are.
    Ok(OutputMeaning::Index)
}

/// Settles what the values mean, by those of a run (`range`) and the sigmoid that the graph ends in. Gives a warning where
/// something is strange.
///
/// # Errors
/// Values that contradict the labels or the manifest.
pub(in crate::segment) fn settle(
    output: &mut OutputSpec,
    hints: OutputHints<'_>,
    sigmoid: Option<&str>,
    range: Option<Range>,
) -> Result<Option<String>, String> {
    let OutputHints { labels, manifest, .. } = hints;
    let name = &output.name;
    let Some(range) = range else {
        return Err(format!("no value of its output {name} is a number (nan); export the model again"));
    };
    if output.meaning == OutputMeaning::Index && is_float(output.element) && !range.whole {
        return Err(format!(
            "its output {name} has one value a pixel, which tells two classes apart, but {labels} labels are given; give the background and the class"
        ));
    }
    let mut concern = (range.nan > 0.0).then(|| {
        let share = range.nan * 100.0;
        format!("on a test picture {share:.1} % of the values of its output {name} are not numbers (nan); export the model again")
    });
    let OutputMeaning::Binary(binary) = &mut output.meaning else { return Ok(concern) };
    let seen = format!("values from {} to {} on a test picture", range.low, range.high);
    let probability = match sigmoid {
        Some(op) => Some(format!("the network ends in {op}")),
        None => range.is_probability().then(|| seen.clone()),
    };
    if let (Some(why), Some(threshold)) = (&probability, manifest.threshold)
        && (threshold <= 0.0 || threshold >= 1.0)
    {
        return Err(format!(
            "output.threshold: {threshold} is beyond its output {name}, which has probabilities ({why}); write one between 0 and 1"
        ));
    }
    *binary = match (probability, manifest.activation) {
        (Some(why), _) => {
            Binary { threshold: manifest.threshold.unwrap_or(0.5), taken_for: format!("probabilities ({why})") }
        }
        (None, Some(Activation::Sigmoid)) => {
            let share = manifest.threshold.unwrap_or(0.5);
            Binary {
                threshold: (share / (1.0 - share)).ln(),
                taken_for: format!("logits, {seen}; sigmoid is applied by the manifest"),
            }
        }
        // A mask for the eye: nothing else has such values.
        (None, _) if manifest.threshold.is_none() && range.low >= 0.0 && BYTES.contains(&range.high) => {
            Binary { threshold: 127.5, taken_for: format!("probabilities times 255 ({seen})") }
        }
        (None, _) => {
            if manifest.threshold.is_none() && range.low >= 0.0 {
                concern = Some(format!(
                    "its output {name} has {seen}: none is below 0, the threshold of logits, so all pixels become one class; write threshold into [output] of its manifest"
                ));
            }
            Binary { threshold: manifest.threshold.unwrap_or(0.0), taken_for: format!("logits ({seen})") }
        }
    };
    Ok(concern)
}

impl OutputSpec {
    /// In one line, for people.
    pub fn describe(&self, labels: &[Label]) -> String {
        let element = self.element;
        match &self.meaning {
            OutputMeaning::Index => format!("{element} class indices"),
            OutputMeaning::Scores => {
                let layout = if self.axes.channel == Channel::Last { Layout::Nhwc } else { Layout::Nchw };
                format!("{element} scores of {} classes, {}: the largest wins", labels.len(), layout.name())
            }
            OutputMeaning::Binary(binary) => {
                let name = labels.get(1).map_or("", |label| &label.name);
                let Binary { threshold, taken_for } = binary;
                format!("{element} one value a pixel, {taken_for}: {name:?} where it is above {threshold}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
