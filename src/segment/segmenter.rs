//! A model's session as a [`Segmenter`]: pictures in, class indices out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionOutputs};
use ort::value::TensorRef;

use super::classes::{classes, numbers};
use super::contract::{Contract, InputPixels, OutputSpec, Range, TensorSpec, read_output, settle_output};
use super::file::structure::Structure;
use super::inspect::{Inspection, test_picture};
use super::manifest::{ChannelOrder, Layout, ManifestInput};
use super::normalisation::NormalisationTable;
use super::placement::Placement;
use super::preprocess::Preprocessor;
use super::session::one_line;
use super::unlabelled::Unlabelled;
use super::{ModelError, SegmentError, Segmented, Segmenter};
use crate::base::timing::Stopwatch;
use crate::frame::{ClassId, Frame, Mask};

/// One session with the buffers it needs.
pub struct OnnxSegmenter {
    session: Session,
    contract: Arc<Contract>,
    preprocessor: Preprocessor,
    /// Pictures of every run, at least; grey ones fill it.
    batch: usize,
    /// `[N, H, W, 3]`
    rgb: Vec<u8>,
    /// The input in the model's order and type; one of them is used.
    bytes: Vec<u8>,
    single: Vec<f32>,
    half: Vec<f16>,
    unlabelled: Arc<Unlabelled>,
}

type Options = RunOptions<HasSelectedOutputs>;

impl OnnxSegmenter {
    /// Every run will have `batch` pictures at least, grey ones where there are fewer. GPUs want as many each time: cuDNN
    /// looks for its algorithms anew whenever the shape changes, for one to two seconds, and TensorRT builds another
    /// engine. A CPU takes what there is: 1.
    pub(super) fn new(session: Session, contract: Arc<Contract>, batch: usize) -> Self {
        let preprocessor = Preprocessor::new(contract.input.width, contract.input.height);
        OnnxSegmenter {
            session,
            contract,
            preprocessor,
            batch,
            rgb: Vec::new(),
            bytes: Vec::new(),
            single: Vec::new(),
            half: Vec::new(),
            unlabelled: Arc::default(),
        }
    }

    /// Counts pixels whose class has no label where other segmenters of the model count them too.
    pub(super) fn counting(self, unlabelled: &Arc<Unlabelled>) -> Self {
        OnnxSegmenter { unlabelled: Arc::clone(unlabelled), ..self }
    }

    /// Runs the model on a test picture and settles by its values which output is meant, and what its values mean.
    ///
    /// # Errors
    /// [`ModelError::Machine`] when the run fails, [`ModelError::Model`] when no mask can be read from what it gives; both
    /// without the file's name.
    pub(super) fn settle(&mut self, structure: &Structure) -> Result<Inspection, ModelError> {
        let n = self.batch;
        let mut contract = (*self.contract).clone();
        let names: Vec<String> = match contract.candidates.as_slice() {
            [] => vec![contract.output.name.clone()],
            candidates => candidates.iter().map(|candidate| candidate.name.clone()).collect(),
        };
        let options = selecting(&names).map_err(|error| ModelError::Machine(error.0))?;
        let rgb = test_picture(contract.input.width, contract.input.height).repeat(n);
        let read = |outputs: &SessionOutputs<'_>| {
            let concern;
            (contract.output, concern) = chosen(&contract, outputs, &names, structure)?;
            if !contract.output.axes.batch {
                contract.input.dynamic_batch = false;
            }
            let (mut indices, (width, height)) = classes(&contract, outputs, n).map_err(|error| error.0)?;
            indices.truncate(width * height);
            Ok(Inspection::new(indices, concern))
        };
        let inspection = self.run_raw(&rgb, n, &options, read).map_err(|error| ModelError::Machine(error.0))?;
        let inspection = inspection.map_err(ModelError::Model)?;
        let named = &contract.output.name;
        let outputs = self.session.outputs().iter().map(|outlet| outlet.name());
        contract.others = outputs.filter(|name| name != named).map(str::to_owned).collect();
        self.contract = Arc::new(contract);
        Ok(inspection)
    }

    /// The classes of one RGB picture of the model's size when its input is normalised by another manifest.
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

    pub(super) fn contract(&self) -> Arc<Contract> {
        Arc::clone(&self.contract)
    }

    /// Runs the model once on a grey picture and sees which provider ran which of its nodes. The run before it, which may
    /// build an engine, is not looked at.
    ///
    /// # Errors
    /// When the model cannot be run, or the profile not be written or read.
    pub(super) fn placement(&mut self) -> Result<Placement, SegmentError> {
        self.run_grey()?;
        let failed = |error: &dyn std::fmt::Display| SegmentError(format!("the run cannot be profiled: {error}"));
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let mut options = RunOptions::new().map_err(|error| failed(&error))?;
        options.enable_profiling(folder.path().join("run")).map_err(|error| failed(&error))?;
        let options = options.with_outputs(OutputSelector::no_default().with(&self.contract.output.name));
        let rgb = vec![128; self.picture_bytes()];
        self.run_filled(&rgb, 1, &options)?;
        // The name has a time behind the prefix.
        let file = std::fs::read_dir(folder.path()).map_err(|error| failed(&error))?.next();
        let file = file.ok_or_else(|| failed(&"no profile was written"))?.map_err(|error| failed(&error))?;
        let text = std::fs::read_to_string(file.path()).map_err(|error| failed(&error))?;
        Placement::parse(&text).map_err(|problem| failed(&problem))
    }

    /// Bytes of one input picture.
    fn picture_bytes(&self) -> usize {
        self.contract.input.width * self.contract.input.height * 3
    }

    /// Median time of a run with one grey frame, after one to warm up.
    ///
    /// # Errors
    /// When the model cannot be run.
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

    /// Runs the model once on a grey picture, to warm up or to be timed.
    ///
    /// # Errors
    /// When the model cannot be run.
    pub fn run_grey(&mut self) -> Result<(), SegmentError> {
        let mut rgb = std::mem::take(&mut self.rgb);
        rgb.clear();
        rgb.resize(self.picture_bytes(), 128);
        let result = self.run_rgb(&rgb, 1);
        self.rgb = rgb;
        result.map(|_| ())
    }

    /// Runs the model on `n` RGB pictures of its input size, `[n, H, W, 3]`. Gives `n` masks behind one another and the
    /// `(width, height)` of one.
    ///
    /// # Errors
    /// ONNX Runtime's words when the run fails, or what is wrong with the shape of its result.
    pub fn run_rgb(&mut self, rgb: &[u8], n: usize) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        let options = selecting(std::slice::from_ref(&self.contract.output.name))?;
        self.run_filled(rgb, n, &options)
    }

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
        filled.resize(self.picture_bytes() * self.batch, 128);
        let (mut classes, (width, height)) = self.run_with(&filled, self.batch, options)?;
        classes.truncate(n * width * height);
        Ok((classes, (width, height)))
    }

    fn run_with(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &Options,
    ) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        let contract = Arc::clone(&self.contract);
        self.run_raw(rgb, n, options, |outputs| classes(&contract, outputs, n))?
    }

    /// Runs the model and gives its outputs to `read`.
    fn run_raw<T>(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &Options,
        read: impl FnOnce(&SessionOutputs<'_>) -> T,
    ) -> Result<T, SegmentError> {
        let input = &self.contract.input;
        let order = (input.layout, input.order);
        let pixels = input.width * input.height;
        let shape = match input.layout {
            Layout::Nhwc => [n, input.height, input.width, 3],
            Layout::Nchw => [n, 3, input.height, input.width],
        };
        let failed =
            |error: ort::Error| SegmentError(format!("the model cannot be run: {}", one_line(&error.to_string())));
        let name = input.name.as_str();
        let outputs = match &input.pixels {
            InputPixels::Bytes => {
                let bytes = if order == (Layout::Nhwc, ChannelOrder::Rgb) {
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

/// Options of a run that computes the outputs called `names` and no others.
fn selecting(names: &[String]) -> Result<Options, SegmentError> {
    let options = RunOptions::new().map_err(|error| SegmentError(error.to_string()))?;
    let selector = names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(name));
    Ok(options.with_outputs(selector))
}

/// The largest output among those called `names` that a mask can be read from, as it came out of a run, and what is strange
/// about its values.
fn chosen(
    contract: &Contract,
    outputs: &SessionOutputs<'_>,
    names: &[String],
    structure: &Structure,
) -> Result<(OutputSpec, Option<String>), String> {
    let hints = contract.hints();
    let mut problems = Vec::new();
    let mut largest: Option<(i64, OutputSpec)> = None;
    for name in names {
        let value = outputs.get(name).ok_or_else(|| format!("the model gave no output {name}"))?;
        let shape = value.shape().to_vec();
        let size = shape.iter().product();
        let Some(element) = value.dtype().tensor_type() else { continue };
        match read_output(&TensorSpec { name: name.clone(), element, shape }, hints) {
            Ok(output) if largest.as_ref().is_none_or(|(most, _)| size > *most) => largest = Some((size, output)),
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    let Some((_, mut output)) = largest else { return Err(problems.join("; ")) };
    if names.len() > 1 {
        let help = "write name into [output] of its manifest to take another one";
        output.chosen = Some(format!("the largest of {}; {help}", names.join(", ")));
    }
    let values = outputs.get(&output.name).ok_or_else(|| format!("the model gave no output {}", output.name))?;
    let range = Range::of(&numbers(&output.name, values).map_err(|error| error.0)?);
    let sigmoid = structure.final_sigmoid(&output.name);
    let concern = settle_output(&mut output, hints, sigmoid, range)?;
    Ok((output, concern))
}

impl Segmenter for OnnxSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        let watch = Stopwatch::start();
        let picture_bytes = self.picture_bytes();
        let mut rgb = std::mem::take(&mut self.rgb);
        // What fills the batch stays as it was: its masks are not looked at.
        let pictures = frames.len().max(self.batch);
        rgb.resize(picture_bytes * pictures, 128);
        for (frame, out) in frames.iter().zip(rgb.chunks_exact_mut(picture_bytes)) {
            self.preprocessor.run(&frame.pixels.image(), out)?;
        }
        let preprocess = watch.spent();
        let watch = Stopwatch::start();
        let result = self.run_rgb(&rgb, pictures);
        self.rgb = rgb;
        let (classes, (width, height)) = result?;
        for (frame, classes) in frames.iter().zip(classes.chunks_exact(width * height)) {
            self.unlabelled.count(&frame.stream, classes, self.contract.labels.len());
        }
        let masks = frames
            .iter()
            .zip(classes.chunks_exact(width * height))
            .map(|(frame, classes)| Mask {
                seq: frame.seq,
                pts: frame.pts,
                captured_at: frame.captured_at,
                width,
                height,
                classes: classes.to_vec(),
                labels: Arc::clone(&self.contract.labels),
            })
            .collect();
        Ok(Segmented { masks, preprocess, run: watch.spent() })
    }
}

/// Fills `out` with the normalised values of whole RGB pictures of `pixels` pixels, in the model's order.
fn normalise<T: Copy>(
    order: (Layout, ChannelOrder),
    table: &NormalisationTable<T>,
    rgb: &[u8],
    pixels: usize,
    out: &mut Vec<T>,
) {
    arrange(order, |channel, byte| table[channel][usize::from(byte)], rgb, pixels, out);
}

/// Fills `out` with `value` of the model's channel and the byte there, for whole RGB pictures of `pixels` pixels.
fn arrange<T>(
    (layout, order): (Layout, ChannelOrder),
    value: impl Fn(usize, u8) -> T,
    rgb: &[u8],
    pixels: usize,
    out: &mut Vec<T>,
) {
    out.clear();
    out.reserve(rgb.len());
    // Where the model's channel c lies in an RGB pixel.
    let source = match order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    for picture in rgb.chunks_exact(pixels * 3) {
        match layout {
            Layout::Nchw => {
                for (channel, &offset) in source.iter().enumerate() {
                    out.extend(picture[offset..].iter().step_by(3).map(|&byte| value(channel, byte)));
                }
            }
            Layout::Nhwc => {
                for pixel in picture.chunks_exact(3) {
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

    /// With the bundled model on the CPU.
    fn segmenter(batch: usize) -> OnnxSegmenter {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/street.onnx");
        let config = ModelConfig::with_path(&path);
        let Ok(session) = open_session(&config, &file::read(&path).unwrap(), Provider::Cpu, 1) else {
            panic!("the bundled model does not load: is ONNX Runtime there (`make setup`)?");
        };
        let contract = Contract::read(&session, &path).unwrap();
        OnnxSegmenter::new(session, Arc::new(contract), batch)
    }

    #[test]
    fn a_batch_that_is_filled_up_gives_the_same_masks() {
        let (mut single, mut filled) = (segmenter(1), segmenter(3));
        let golden = single.contract().golden.clone().unwrap();
        let (expected, size) = single.run_rgb(&golden.rgb, 1).unwrap();
        assert_eq!(filled.run_rgb(&golden.rgb, 1).unwrap(), (expected.clone(), size));
        let twice = [&golden.rgb[..], &golden.rgb[..]].concat();
        assert_eq!(filled.run_rgb(&twice, 2).unwrap(), ([&expected[..], &expected[..]].concat(), size));
    }

    #[test]
    fn normalise_orders_channels_and_axes() {
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
