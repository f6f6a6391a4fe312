//! Runs a model with ONNX Runtime: frames or RGB images in, class indices out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionOutputs};
use ort::value::TensorRef;

use super::classes::{classes, numbers};
use super::contract::{
    Contract, ContractError, InputPixels, OutputSpec, Range, TensorSpec, interpret_output, read_output,
};
use super::file::structure::Structure;
use super::head::Head;
use super::inspect::{Inspection, test_image};
use super::manifest::{ChannelOrder, Layout, ManifestInput};
use super::normalisation::NormalisationTable;
use super::placement::{Placement, ProfileError};
use super::preprocess::Preprocessor;
use super::stem::Stem;
use super::unlabelled::Unlabelled;
use super::{ModelProblem, RunOutputError, SegmentError};
use crate::frame::ClassId;

mod batch;

/// A session of ONNX Runtime with its buffers.
pub struct OnnxSegmenter {
    session: Session,
    contract: Arc<Contract>,
    /// Computes the masks, for a session without the last steps of the model.
    head: Option<Arc<Head>>,
    /// Writes the input, for a session without the first convolution of the model.
    stem: Option<Arc<Stem>>,
    /// Options of the runs that compute what the mask needs.
    options: Option<Options>,
    pub(super) preprocessor: Preprocessor,
    /// Smallest number of images in a run. Grey images fill up smaller batches.
    batch: usize,
    /// `[N, H, W, 3]`
    rgb: Vec<u8>,
    /// The input in the order and type of the model; one of the three is used.
    bytes: Vec<u8>,
    single: Vec<f32>,
    half: Vec<f16>,
    pub(super) unlabelled: Arc<Unlabelled>,
    /// The name of the model, for the masks.
    pub(super) model: Arc<str>,
}

pub(super) type Options = RunOptions<HasSelectedOutputs>;

impl OnnxSegmenter {
    /// Creates a segmenter whose runs have at least `batch` images; grey images fill up smaller batches. The batch of a GPU
    /// should not vary: when the shape changes, cuDNN selects its algorithms again for one to two seconds, and TensorRT builds
    /// another engine. For a CPU, `batch` is 1.
    pub(super) fn new(session: Session, contract: Arc<Contract>, batch: usize) -> Self {
        let preprocessor = Preprocessor::new(contract.input.width, contract.input.height);
        OnnxSegmenter {
            session,
            contract,
            head: None,
            stem: None,
            options: None,
            preprocessor,
            batch,
            rgb: Vec::new(),
            bytes: Vec::new(),
            single: Vec::new(),
            half: Vec::new(),
            unlabelled: Arc::default(),
            model: "".into(),
        }
    }

    /// Uses the counter of pixels without a label that all segmenters of the model share.
    pub(super) fn with_counter(self, unlabelled: &Arc<Unlabelled>) -> Self {
        OnnxSegmenter { unlabelled: Arc::clone(unlabelled), ..self }
    }

    /// The same segmenter for a session without the last steps of the model, which `head` computes.
    pub(super) fn with_head(self, head: Option<Arc<Head>>) -> Self {
        OnnxSegmenter { head, options: None, ..self }
    }

    /// The same segmenter for a session whose input are the windows of `stem`.
    pub(super) fn with_stem(self, stem: Option<Arc<Stem>>) -> Self {
        OnnxSegmenter { stem, ..self }
    }

    /// The same segmenter, whose masks have the name of the model.
    pub(super) fn named(self, model: &str) -> Self {
        OnnxSegmenter { model: model.into(), ..self }
    }

    /// Runs the model on a test image and determines from the result which output is the mask, and the meaning of its values.
    ///
    /// # Errors
    /// The run fails (outer result), or no mask can be read from the outputs (inner result).
    pub(super) fn interpret_output(
        &mut self,
        structure: &Structure,
    ) -> Result<Result<Inspection, ModelProblem>, SegmentError> {
        let n = self.batch;
        if self.head.is_some() {
            let rgb = test_image(self.contract.input.width, self.contract.input.height).repeat(n);
            let (mut indices, (width, height)) = self.run_rgb(&rgb, n)?;
            indices.truncate(width * height);
            return Ok(Ok(Inspection::new(indices, None)));
        }
        let mut contract = (*self.contract).clone();
        let names: Vec<String> = match contract.candidates.as_slice() {
            [] => vec![contract.output.name.clone()],
            candidates => candidates.iter().map(|candidate| candidate.name.clone()).collect(),
        };
        let options = run_options(&names)?;
        let rgb = test_image(contract.input.width, contract.input.height).repeat(n);
        let read = |outputs: &SessionOutputs<'_>| {
            let warning;
            (contract.output, warning) = choose_output(&contract, outputs, &names, structure)?;
            if !contract.output.axes.batch {
                contract.input.dynamic_batch = false;
            }
            let (mut indices, (width, height)) = classes(&contract, outputs, n)?;
            indices.truncate(width * height);
            Ok(Inspection::new(indices, warning))
        };
        let inspection = match self.run_raw(&rgb, n, &options, read)? {
            Ok(inspection) => inspection,
            Err(problem) => return Ok(Err(problem)),
        };
        let named = &contract.output.name;
        let outputs = self.session.outputs().iter().map(|outlet| outlet.name());
        contract.others = outputs.filter(|name| name != named).map(str::to_owned).collect();
        self.contract = Arc::new(contract);
        self.options = None;
        Ok(Ok(inspection))
    }

    /// The classes of one RGB image, `[H, W, 3]`, with the normalisation of another manifest.
    ///
    /// # Errors
    /// As [`OnnxSegmenter::run_rgb`].
    pub(super) fn run_normalised(
        &mut self,
        rgb: &[u8],
        manifest: &ManifestInput,
    ) -> Result<Vec<ClassId>, SegmentError> {
        let own = Arc::clone(&self.contract);
        let input = &mut Arc::make_mut(&mut self.contract).input;
        (input.pixels, input.order) = (input.pixels.normalised_by(manifest), manifest.order);
        let result = self.run_rgb(rgb, 1);
        self.contract = own;
        result.map(|(classes, _)| classes)
    }

    /// Reads masks from the outputs of a run.
    pub(super) fn reader(&self) -> MaskReader {
        MaskReader { contract: Arc::clone(&self.contract), head: self.head.clone() }
    }

    pub(super) fn contract(&self) -> Arc<Contract> {
        Arc::clone(&self.contract)
    }

    /// Profiles a run on a grey image and returns which provider ran which nodes. A run before it, which may build an engine, is
    /// not profiled.
    ///
    /// # Errors
    /// The model cannot be run, or the profile cannot be written or read.
    pub(super) fn placement(&mut self) -> Result<Placement, SegmentError> {
        self.run_grey()?;
        let options_error = |error: ort::Error| ProfileError::Options(error.into());
        let folder = tempfile::tempdir().map_err(ProfileError::from)?;
        let mut options = RunOptions::new().map_err(options_error)?;
        options.enable_profiling(folder.path().join("run")).map_err(options_error)?;
        let options = options.with_outputs(selector(&self.reader().outputs()));
        let rgb = vec![128; self.image_bytes()];
        self.run_filled(&rgb, 1, &options)?;
        // ONNX Runtime appends a time to the name.
        let file = std::fs::read_dir(folder.path()).map_err(ProfileError::from)?.next();
        let file = file.ok_or(ProfileError::NotWritten)?.map_err(ProfileError::from)?;
        let text = std::fs::read_to_string(file.path()).map_err(ProfileError::from)?;
        Ok(Placement::parse(&text)?)
    }

    /// Smallest number of images in a run.
    pub(super) fn least_images(&self) -> usize {
        self.batch
    }

    /// Bytes of one RGB image of the size of the input.
    pub(super) fn image_bytes(&self) -> usize {
        self.contract.input.width * self.contract.input.height * 3
    }

    /// Median time of `runs` runs with one grey image, after a run to warm up.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn time(&mut self, runs: usize) -> Result<Duration, SegmentError> {
        self.run_grey()?;
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            self.run_grey()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }

    /// Runs the model once on a grey image, to warm up or to measure the time.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn run_grey(&mut self) -> Result<(), SegmentError> {
        let mut rgb = std::mem::take(&mut self.rgb);
        rgb.clear();
        rgb.resize(self.image_bytes(), 128);
        let result = self.run_rgb(&rgb, 1);
        self.rgb = rgb;
        result.map(|_| ())
    }

    /// Runs the model on `n` RGB images of its input size, `[n, H, W, 3]`. Returns the classes of `n` masks, `[n, height, width]`,
    /// and the `(width, height)` of a mask.
    ///
    /// # Errors
    /// ONNX Runtime fails, or the output does not have the expected shape.
    pub fn run_rgb(&mut self, rgb: &[u8], n: usize) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        // Kept from run to run.
        let options = match self.options.take() {
            Some(options) => options,
            None => run_options(&self.reader().outputs())?,
        };
        let result = self.run_filled(rgb, n, &options);
        self.options = Some(options);
        result
    }

    /// Fills the batch up with grey images.
    fn run_filled(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &Options,
    ) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        if n >= self.batch {
            return self.run_with(rgb, n, options);
        }
        let mut filled = rgb.to_vec();
        filled.resize(self.image_bytes() * self.batch, 128);
        let (mut classes, (width, height)) = self.run_with(&filled, self.batch, options)?;
        classes.truncate(n * width * height);
        Ok((classes, (width, height)))
    }

    /// Runs the model on one RGB image, filled up to `n` images with grey ones, and passes its outputs to `read`.
    pub(super) fn run_filled_raw<T>(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &Options,
        read: impl FnOnce(&SessionOutputs<'_>) -> T,
    ) -> Result<T, SegmentError> {
        if n == 1 {
            return self.run_raw(rgb, n, options, read);
        }
        let mut filled = rgb.to_vec();
        filled.resize(self.image_bytes() * n, 128);
        self.run_raw(&filled, n, options, read)
    }

    fn run_with(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &Options,
    ) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        let reader = self.reader();
        Ok(self.run_raw(rgb, n, options, |outputs| reader.classes(outputs, n))??)
    }

    /// Runs the model and passes its outputs to `read`.
    pub(super) fn run_raw<T>(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &Options,
        read: impl FnOnce(&SessionOutputs<'_>) -> T,
    ) -> Result<T, SegmentError> {
        let input = &self.contract.input;
        let order = (input.layout, input.order);
        let pixels = input.width * input.height;
        let shape = match (&self.stem, input.layout) {
            (Some(stem), _) => stem.shape(n),
            (None, Layout::Nhwc) => [n, input.height, input.width, 3],
            (None, Layout::Nchw) => [n, 3, input.height, input.width],
        };
        let failed = |error: ort::Error| SegmentError::Run(error.into());
        let name = input.name.as_str();
        let outputs = match &input.pixels {
            InputPixels::Bytes => {
                let bytes = if let Some(stem) = &self.stem {
                    stem.write_windows(rgb, n, &mut self.bytes);
                    &self.bytes
                } else if order == (Layout::Nhwc, ChannelOrder::Rgb) {
                    rgb
                } else {
                    arrange(order, |_, byte| byte, rgb, pixels, &mut self.bytes);
                    &self.bytes
                };
                let tensor = TensorRef::from_array_view((shape, bytes)).map_err(failed)?;
                self.session.run_with_options(ort::inputs![name => tensor], options)
            }
            InputPixels::Single(table) => {
                normalise(order, table, rgb, pixels, &mut self.single);
                let tensor = TensorRef::from_array_view((shape, self.single.as_slice())).map_err(failed)?;
                self.session.run_with_options(ort::inputs![name => tensor], options)
            }
            InputPixels::Half(table) => {
                normalise(order, table, rgb, pixels, &mut self.half);
                let tensor = TensorRef::from_array_view((shape, self.half.as_slice())).map_err(failed)?;
                self.session.run_with_options(ort::inputs![name => tensor], options)
            }
        };
        Ok(read(&outputs.map_err(failed)?))
    }
}

/// Options of a run that computes the outputs called `names` only.
pub(super) fn run_options(names: &[String]) -> Result<Options, SegmentError> {
    let options = RunOptions::new().map_err(|error| SegmentError::Run(error.into()))?;
    Ok(options.with_outputs(selector(names)))
}

fn selector(names: &[String]) -> OutputSelector {
    names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(name))
}

/// Reads masks from the outputs of a run: as they are, or with the head of the model.
pub(super) struct MaskReader {
    pub contract: Arc<Contract>,
    pub head: Option<Arc<Head>>,
}

impl MaskReader {
    /// The names of the outputs that the mask needs.
    pub fn outputs(&self) -> Vec<String> {
        match &self.head {
            Some(head) => head.outputs(),
            None => vec![self.contract.output.name.clone()],
        }
    }

    /// The class indices of `n` images, `[n, height, width]`, and the `(width, height)` of one mask.
    ///
    /// # Errors
    /// An output is missing, or has another shape or type.
    pub fn classes(
        &self,
        outputs: &SessionOutputs<'_>,
        n: usize,
    ) -> Result<(Vec<ClassId>, (usize, usize)), RunOutputError> {
        match &self.head {
            Some(head) => head.classes(outputs, n),
            None => classes(&self.contract, outputs, n),
        }
    }
}

/// The largest output of a run, among those called `names`, that a mask can be read from, and a warning about unexpected
/// values.
fn choose_output(
    contract: &Contract,
    outputs: &SessionOutputs<'_>,
    names: &[String],
    structure: &Structure,
) -> Result<(OutputSpec, Option<String>), ModelProblem> {
    let hints = contract.hints();
    let mut problems = Vec::new();
    let mut largest: Option<(i64, OutputSpec)> = None;
    for name in names {
        let value = outputs.get(name).ok_or_else(|| RunOutputError::Missing(name.clone()))?;
        let shape = value.shape().to_vec();
        let size = shape.iter().product();
        let Some(element) = value.dtype().tensor_type() else { continue };
        match read_output(&TensorSpec { name: name.clone(), element, shape }, hints) {
            Ok(output) if largest.as_ref().is_none_or(|(most, _)| size > *most) => largest = Some((size, output)),
            Ok(_) => {}
            Err(error) => problems.push(ContractError::from(error)),
        }
    }
    let Some((_, mut output)) = largest else {
        return Err(match problems.pop() {
            Some(problem) if problems.is_empty() => problem,
            last => {
                problems.extend(last);
                ContractError::NoMaskOutput { labels: hints.labels, problems }
            }
        }
        .into());
    };
    if names.len() > 1 {
        let help = "write name into [output] of its manifest to use another one";
        output.choice_reason = Some(format!("the largest of {}; {help}", names.join(", ")));
    }
    let values = outputs.get(&output.name).ok_or_else(|| RunOutputError::Missing(output.name.clone()))?;
    let range = Range::of(&numbers(&output.name, values)?);
    let sigmoid = structure.final_sigmoid(&output.name);
    let warning = interpret_output(&mut output, hints, sigmoid, range).map_err(ContractError::from)?;
    Ok((output, warning))
}

/// Fills `out` with the normalised values of RGB images of `pixels` pixels each, in the layout and channel order `order`.
fn normalise<T: Copy>(
    order: (Layout, ChannelOrder),
    table: &NormalisationTable<T>,
    rgb: &[u8],
    pixels: usize,
    out: &mut Vec<T>,
) {
    arrange(order, |channel, byte| table[channel][usize::from(byte)], rgb, pixels, out);
}

/// Fills `out` with `value(channel, byte)` of RGB images of `pixels` pixels each. `channel` is the channel of the model.
fn arrange<T>(
    (layout, order): (Layout, ChannelOrder),
    value: impl Fn(usize, u8) -> T,
    rgb: &[u8],
    pixels: usize,
    out: &mut Vec<T>,
) {
    out.clear();
    out.reserve(rgb.len());
    // The offset of each channel of the model in an RGB pixel.
    let source = match order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    for image in rgb.chunks_exact(pixels * 3) {
        match layout {
            Layout::Nchw => {
                for (channel, &offset) in source.iter().enumerate() {
                    out.extend(image[offset..].iter().step_by(3).map(|&byte| value(channel, byte)));
                }
            }
            Layout::Nhwc => {
                for pixel in image.chunks_exact(3) {
                    out.extend(source.iter().enumerate().map(|(channel, &offset)| value(channel, pixel[offset])));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelConfig, Provider};
    use crate::segment::file;
    use crate::segment::session::open_session;

    /// A segmenter of the bundled model on the CPU.
    fn segmenter(batch: usize) -> OnnxSegmenter {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
        let config = ModelConfig::with_path(&path);
        let Ok(session) = open_session(&config, &file::read(&path).unwrap(), Provider::Cpu, 0, 1) else {
            panic!("the bundled model does not load: is ONNX Runtime installed (`make setup`)?");
        };
        let contract = Contract::read(&session, &path).unwrap();
        OnnxSegmenter::new(session, Arc::new(contract), batch)
    }

    #[test]
    fn filling_up_a_batch_does_not_change_its_masks() {
        let (mut single, mut filled) = (segmenter(1), segmenter(3));
        let golden = single.contract().golden.clone().unwrap();
        let (expected, size) = single.run_rgb(&golden.rgb, 1).unwrap();
        assert_eq!(filled.run_rgb(&golden.rgb, 1).unwrap(), (expected.clone(), size));
        let twice = [&golden.rgb[..], &golden.rgb[..]].concat();
        assert_eq!(filled.run_rgb(&twice, 2).unwrap(), ([&expected[..], &expected[..]].concat(), size));
    }

    #[test]
    fn normalise_writes_channels_and_axes_in_the_order_of_the_model() {
        let identity: NormalisationTable<f32> =
            Box::new(std::array::from_fn(|_| std::array::from_fn(|byte| byte as f32)));
        let rgb = [1, 2, 3, 4, 5, 6];
        let (mut out, mut bytes) = (Vec::new(), Vec::new());
        for (layout, order, expected) in [
            (Layout::Nchw, ChannelOrder::Rgb, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
            (Layout::Nchw, ChannelOrder::Bgr, [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]),
            (Layout::Nhwc, ChannelOrder::Rgb, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (Layout::Nhwc, ChannelOrder::Bgr, [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]),
        ] {
            normalise((layout, order), &identity, &rgb, 2, &mut out);
            assert_eq!(out, expected, "{layout:?} {order:?}");
            arrange((layout, order), |_, byte| byte, &rgb, 2, &mut bytes);
            assert_eq!(bytes, expected.map(|value| value as u8), "{layout:?} {order:?}");
        }
        assert_eq!(ManifestInput::default().white, 1.0);
    }
}
