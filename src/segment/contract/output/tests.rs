use super::*;
use TensorElementType::{Bool, Float16, Float32, Int32, Int64, String as Text, Uint8};

const PLAIN: ManifestOutput = ManifestOutput { name: None, layout: None, activation: None, threshold: None };

fn tensor(element: TensorElementType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: "t".into(), element, shape: shape.to_vec() }
}

fn hints(labels: usize, manifest: &ManifestOutput) -> OutputHints<'_> {
    OutputHints { labels, manifest, input: Layout::Nchw }
}

fn axes(batch: bool, channel: Channel) -> Axes {
    Axes { batch, channel }
}

#[test]
fn finds_the_class_axis() {
    for (element, shape, labels, expected, meaning) in [
        (Uint8, &[-1, 288, 512][..], 11, axes(true, Channel::None), OutputMeaning::Index),
        (Int64, &[1, 1, 288, 512], 11, axes(true, Channel::First), OutputMeaning::Index),
        (Int64, &[1, 288, 512, 1], 11, axes(true, Channel::Last), OutputMeaning::Index),
        (Int32, &[288, 512], 11, axes(false, Channel::None), OutputMeaning::Index),
        (Bool, &[1, 1, 288, 512], 2, axes(true, Channel::First), OutputMeaning::Index),
        (Bool, &[1, 288, 512], 2, axes(true, Channel::None), OutputMeaning::Index),
        (Float32, &[1, 21, 80, 80], 21, axes(true, Channel::First), OutputMeaning::Scores),
        (Float16, &[1, 21, 80, 80], 21, axes(true, Channel::First), OutputMeaning::Scores),
        (Float32, &[1, 80, 80, 21], 21, axes(true, Channel::Last), OutputMeaning::Scores),
        (Uint8, &[1, 80, 80, 21], 21, axes(true, Channel::Last), OutputMeaning::Scores),
        (Float32, &[21, 80, 80], 21, axes(false, Channel::First), OutputMeaning::Scores),
        (Float32, &[80, 80, 21], 21, axes(false, Channel::Last), OutputMeaning::Scores),
        (Float32, &[-1, -1, -1, -1], 21, axes(true, Channel::First), OutputMeaning::Scores),
    ] {
        let output = read(&tensor(element, shape), hints(labels, &PLAIN)).unwrap();
        assert_eq!((output.axes, output.meaning), (expected, meaning), "{element} {shape:?}");
    }
}

#[test]
fn a_layout_decides_for_ambiguous_shapes() {
    let nhwc = ManifestOutput { layout: Some(Layout::Nhwc), ..PLAIN };
    for shape in [[-1, -1, -1, -1], [1, 4, 9, 4]] {
        let channel =
            |manifest: &ManifestOutput| read(&tensor(Float32, &shape), hints(4, manifest)).unwrap().axes.channel;
        assert_eq!((channel(&PLAIN), channel(&nhwc)), (Channel::First, Channel::Last), "{shape:?}");
        let input = OutputHints { input: Layout::Nhwc, ..hints(4, &PLAIN) };
        assert_eq!(read(&tensor(Float32, &shape), input).unwrap().axes.channel, Channel::Last, "{shape:?}");
    }
}

#[test]
fn rejects_outputs_that_a_mask_cannot_be_read_from() {
    let softmax = ManifestOutput { activation: Some(Activation::Softmax), ..PLAIN };
    let threshold = ManifestOutput { threshold: Some(0.5), ..PLAIN };
    for (element, shape, labels, manifest, problem) in [
        (Float32, &[1, 19, 80, 80][..], 11, &PLAIN, OutputProblem::LabelCount(11)),
        (Float32, &[1, 1000], 11, &softmax, OutputProblem::SoftmaxOfOneValue),
        (Float32, &[1, 1, 80, 80], 2, &softmax, OutputProblem::SoftmaxOfOneValue),
        (Float32, &[5], 11, &PLAIN, OutputProblem::Dimensions),
        (Bool, &[1, 1, 80, 80], 11, &PLAIN, OutputProblem::NotBinary(11)),
        (Text, &[1, 80, 80], 11, &PLAIN, OutputProblem::Element),
        (Float32, &[1, 11, 80, 80], 11, &threshold, OutputProblem::ThresholdOfScores(11)),
        (Float32, &[1, 1, 80, 80], 11, &threshold, OutputProblem::ThresholdLabels(11)),
    ] {
        let tensor = tensor(element, shape);
        let error = read(&tensor, hints(labels, manifest)).unwrap_err();
        assert_eq!(error, OutputError { output: tensor.to_string(), problem });
    }
}

/// The threshold for one float value a pixel after a run with these values.
fn threshold(manifest: &ManifestOutput, sigmoid: Option<&str>, low: f32, high: f32) -> Result<f32, OutputError> {
    let mut output = read(&tensor(Float32, &[1, 1, 8, 8]), hints(2, manifest)).unwrap();
    interpret(&mut output, hints(2, manifest), sigmoid, Some(Range { low, high, whole: false, nan: 0.0 }))?;
    let OutputMeaning::Binary(binary) = output.meaning else { panic!("one value a pixel is binary") };
    Ok(binary.threshold)
}

#[test]
fn one_value_a_pixel_is_a_probability_or_a_logit() {
    let manifest = |activation, threshold| ManifestOutput { activation, threshold, ..PLAIN };
    let sigmoid = Some(Activation::Sigmoid);
    let none = Some(Activation::None);
    for (manifest, ends_in, low, high, expected) in [
        (PLAIN, Some("Sigmoid"), 0.1, 0.2, 0.5),
        (PLAIN, None, 0.0, 1.0, 0.5),
        (PLAIN, None, -3.0, 4.0, 0.0),
        (PLAIN, None, 0.0, 255.0, 127.5),
        (manifest(None, Some(0.3)), Some("Sigmoid"), 0.0, 1.0, 0.3),
        (manifest(None, Some(0.3)), None, -3.0, 4.0, 0.3),
        (manifest(None, Some(127.0)), None, 0.0, 255.0, 127.0),
        (manifest(sigmoid, None), Some("Sigmoid"), 0.0, 1.0, 0.5),
        (manifest(sigmoid, None), None, -3.0, 4.0, 0.0),
        (manifest(sigmoid, Some(0.75)), None, -3.0, 4.0, 3.0_f32.ln()),
        (manifest(sigmoid, Some(0.75)), None, 0.0, 1.0, 0.75),
        (manifest(none, None), None, 0.0, 1.0, 0.5),
        (manifest(none, Some(0.7)), Some("Sigmoid"), 0.0, 1.0, 0.7),
    ] {
        let found = threshold(&manifest, ends_in, low, high).unwrap();
        assert!((found - expected).abs() < 1e-6, "{manifest:?} {ends_in:?} {low}..{high}: {found}");
    }
    let error = threshold(&manifest(None, Some(128.0)), Some("Sigmoid"), 0.0, 1.0).unwrap_err();
    let reason = "the network ends in Sigmoid".into();
    assert_eq!(error.problem, OutputProblem::ThresholdNotAProbability { threshold: 128.0, reason });
}

#[test]
fn unexpected_values_give_a_warning() {
    let warning = |range| {
        let mut output = read(&tensor(Float32, &[1, 1, 8, 8]), hints(2, &PLAIN)).unwrap();
        interpret(&mut output, hints(2, &PLAIN), None, Some(range)).unwrap()
    };
    let logits = Range { low: -2.0, high: 3.0, whole: false, nan: 0.0 };
    assert_eq!(warning(logits), None);
    assert!(warning(Range { low: 0.0, high: 9.0, ..logits }).unwrap().contains("write threshold"));
    assert!(warning(Range { nan: 0.25, ..logits }).unwrap().contains("25.0 %"));
}

#[test]
fn class_indices_in_floats_must_be_whole() {
    let mut output = read(&tensor(Float32, &[1, 8, 8]), hints(4, &PLAIN)).unwrap();
    assert_eq!(output.meaning, OutputMeaning::Index);
    let range = |whole| Some(Range { low: 0.0, high: 3.0, whole, nan: 0.0 });
    assert_eq!(interpret(&mut output, hints(4, &PLAIN), None, range(true)), Ok(None));
    let error = interpret(&mut output, hints(4, &PLAIN), None, range(false)).unwrap_err();
    assert_eq!(error.problem, OutputProblem::NotBinary(4));
    let error = interpret(&mut output, hints(4, &PLAIN), None, None).unwrap_err();
    assert_eq!(error.problem, OutputProblem::OnlyNan);
}

#[test]
fn a_range_ignores_nan() {
    assert_eq!(Range::of(&[1.0, f32::NAN, -2.0]), Some(Range { low: -2.0, high: 1.0, whole: true, nan: 1.0 / 3.0 }));
    assert_eq!(Range::of(&[0.5]), Some(Range { low: 0.5, high: 0.5, whole: false, nan: 0.0 }));
    assert_eq!(Range::of(&[f32::NAN]), None);
}
