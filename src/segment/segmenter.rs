//! Runs a model with ONNX Runtime: frames or RGB images in, class indices out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;
use ort::session::{Session, SessionOutputs};

use super::classes::{classes, numbers};
use super::contract::{
    Contract, ContractError, InputPixels, OutputSpec, Range, TensorSpec, interpret_output, read_output,
};
use super::file::structure::Structure;
use super::head::Head;
use super::inspect::{Inspection, test_image};
use super::manifest::{ChannelOrder, Layout, ManifestInput};
use super::placement::{Placement, ProfileError};
use super::preprocess::Preprocessor;
use super::stem::Stem;
use super::unlabelled::Unlabelled;
use super::{ModelProblem, RunOutputError, SegmentError};
use crate::config::Provider;
use crate::frame::ClassId;

mod batch;
mod bound;
mod options;
mod pixels;

use bound::{BoundRuns, TensorMemory, TensorRun};
pub(super) use options::{Options, run_options};
use pixels::{arrange, normalise};

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
    /// Runs with memory that is bound to the session; `None`: ONNX Runtime copies the tensors of each run.
    bound: Option<BoundRuns>,
    pub(super) unlabelled: Arc<Unlabelled>,
    /// The name of the model, for the masks.
    pub(super) model: Arc<str>,
}

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
            bound: None,
            unlabelled: Arc::default(),
            model: "".into(),
        }
    }

    /// Binds memory for the input and the outputs to a session on a GPU, so that a run copies them by DMA from and to page-locked memory.
    /// If that fails, runs continue without it.
    pub(super) fn bind_memory(&mut self, provider: Provider, device: i32) {
        let Some(memory) = TensorMemory::of(provider, device) else { return };
        self.bound = Some(BoundRuns::new(memory));
        if let Err(error) = self.run_grey() {
            tracing::warn!(
                provider = provider.name(),
                device,
                "page-locked memory cannot be bound to the session of the model, so each run copies its tensors: {error}"
            );
            self.bound = None;
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
        let folder = tempfile::tempdir().map_err(ProfileError::from)?;
        let options = Options::profiled(&self.reader().outputs(), &folder.path().join("run"))?;
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
        let run = TensorRun { session: &mut self.session, bound: self.bound.as_mut(), name, shape, options };
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
                run.with(bytes)
            }
            InputPixels::Single(table) => {
                normalise(order, table, rgb, pixels, &mut self.single);
                run.with(&self.single)
            }
            InputPixels::Half(table) => {
                normalise(order, table, rgb, pixels, &mut self.half);
                run.with(&self.half)
            }
        };
        Ok(read(&outputs.map_err(failed)?))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelConfig, Provider};
    use crate::segment::file;
    use crate::segment::session::open_session;

    /// A segmenter of the bundled model on the CPU.
    pub(super) fn segmenter(batch: usize) -> OnnxSegmenter {
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
}
