//! The real segmenter: a model on ONNX Runtime, on the first execution provider that works.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;

use super::card::{ChannelOrder, Layout};
use super::contract::{Contract, FloatPixels, InputPixels, OutputKind};
use super::golden::TOLERANCE;
use super::preprocess::Preprocessor;
use super::{SegmentError, Segmented, Segmenter, runtime};
use crate::config::{ModelConfig, Provider, Require};
use crate::frame::{ClassId, Frame, Mask};
use crate::stream::timing::Stopwatch;

/// A model that was loaded, checked and timed. Makes [`OnnxSegmenter`]s.
pub struct Model {
    pub path: PathBuf,
    pub contract: Arc<Contract>,
    /// Where it really runs.
    pub provider: Provider,
    /// What was asked for and could not be had, with the reasons.
    pub refused: Vec<(Provider, String)>,
    /// Share of the golden frame's pixels that differ; `None` without a golden frame.
    pub golden_difference: Option<f64>,
    config: ModelConfig,
    /// The session that was checked, until a worker takes it: opening one may take seconds (a TensorRT engine: minutes).
    checked: Mutex<Option<(usize, OnnxSegmenter)>>,
}

impl Model {
    /// Loads the configured model on the first provider that works and runs its golden frame. `threads` is how many the
    /// first segmenter is going to want (CPU; 0 = one a core).
    ///
    /// # Errors
    /// An unreadable or unusable model, a provider that computes something else, or a CPU where a GPU is required.
    pub fn load(config: &ModelConfig, threads: usize) -> Result<Model, ModelError> {
        runtime::load(config.runtime.as_deref()).map_err(|error| ModelError::Machine(error.0))?;
        check_readable(&config.path).map_err(|error| ModelError::Model(error.0))?;
        let mut refused = Vec::new();
        for &provider in &config.providers {
            if provider == Provider::Cpu && config.require == Require::Gpu {
                break;
            }
            match open_session(config, provider, threads) {
                Ok(session) => {
                    return Model::check(config, provider, refused, session, threads)
                        .map_err(|error| ModelError::Model(error.0));
                }
                Err(SessionError::Provider(reason)) => {
                    tracing::warn!("{} was asked for and is not available: {reason}", provider.name());
                    refused.push((provider, reason));
                }
                Err(SessionError::Model(reason)) => {
                    let problem = format!("{}: ONNX Runtime cannot use it as a model: {reason}", config.path.display());
                    return Err(ModelError::Model(problem));
                }
            }
        }
        let reasons: Vec<String> =
            refused.iter().map(|(provider, reason)| format!("{}: {reason}", provider.name())).collect();
        let why = if reasons.is_empty() { "no provider is configured".into() } else { reasons.join("; ") };
        let help = match config.require {
            Require::Gpu => "model.require = \"gpu\" forbids the CPU",
            Require::Any => "add \"cpu\" to model.providers to run without a GPU",
        };
        Err(ModelError::Machine(format!("{}: none of the providers can run it ({why}); {help}", config.path.display())))
    }

    fn check(
        config: &ModelConfig,
        provider: Provider,
        refused: Vec<(Provider, String)>,
        session: Session,
        threads: usize,
    ) -> Result<Model, SegmentError> {
        let contract = Arc::new(Contract::read(&session, &config.path)?);
        let mut segmenter = OnnxSegmenter::new(session, Arc::clone(&contract));
        let golden_difference = match &contract.golden {
            Some(golden) => {
                let input = &contract.input;
                if (golden.width, golden.height) != (input.width, input.height) {
                    return Err(SegmentError(format!(
                        "{}: its golden frame is {}x{}, its input {}x{}",
                        config.path.display(),
                        golden.width,
                        golden.height,
                        input.width,
                        input.height
                    )));
                }
                let difference = golden.difference(&segmenter.run_rgb(&golden.rgb, 1)?.0);
                if difference > TOLERANCE {
                    return Err(SegmentError(format!(
                        "{}: on {} its golden frame differs in {:.1} % of pixels from what its trainer got (at most {:.0} % is rounding); use another provider or export it again",
                        config.path.display(),
                        provider.name(),
                        difference * 100.0,
                        TOLERANCE * 100.0
                    )));
                }
                Some(difference)
            }
            None => {
                tracing::warn!(model = %config.path.display(), "the model has no golden frame, so its results cannot be checked on this machine");
                None
            }
        };
        Ok(Model {
            path: config.path.clone(),
            contract,
            provider,
            refused,
            golden_difference,
            config: config.clone(),
            checked: Mutex::new(Some((threads, segmenter))),
        })
    }

    /// A segmenter with `threads` threads of its own (CPU; 0 = a thread a core).
    ///
    /// # Errors
    /// When ONNX Runtime refuses now what it accepted at [`Model::load`].
    pub fn segmenter(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).take();
        match checked {
            Some((with, segmenter)) if with == threads => return Ok(segmenter),
            // Another plan won: that session is not needed.
            _ => {}
        }
        self.open(threads)
    }

    fn open(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        match open_session(&self.config, self.provider, threads) {
            Ok(session) => Ok(OnnxSegmenter::new(session, Arc::clone(&self.contract))),
            Err(SessionError::Provider(reason) | SessionError::Model(reason)) => {
                Err(SegmentError(format!("{}: {reason}", self.path.display())))
            }
        }
    }

    /// Median time of a run with one frame, on the session that was checked.
    ///
    /// # Errors
    /// When the model cannot be run.
    pub fn time(&self) -> Result<Duration, SegmentError> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let (threads, mut segmenter) = match checked.take() {
            Some(checked) => checked,
            None => (self.config.threads, self.open(self.config.threads)?),
        };
        let time = segmenter.time(3)?;
        *checked = Some((threads, segmenter));
        Ok(time)
    }

    /// Model names are file names without the extension.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    /// The provider that was asked for first.
    pub fn requested(&self) -> Provider {
        self.config.providers.first().copied().unwrap_or(Provider::Cpu)
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

/// Why a model cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// The file, its card or its results are at fault: it will not work the next time either.
    #[error("{0}")]
    Model(String),
    /// The machine lacks something: ONNX Runtime, a GPU.
    #[error("{0}")]
    Machine(String),
}

/// Whose fault it is that a session cannot be opened.
enum SessionError {
    /// The provider is not there or does not take the model: the next one may.
    Provider(String),
    /// No provider would take it.
    Model(String),
}

fn check_readable(path: &Path) -> Result<(), SegmentError> {
    let located = |problem: &dyn std::fmt::Display| SegmentError(format!("{}: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| located(&error))?;
    let length = file.metadata().map_err(|error| located(&error))?.len();
    if length == 0 {
        return Err(located(&"the file is empty"));
    }
    Ok(())
}

fn open_session(config: &ModelConfig, provider: Provider, threads: usize) -> Result<Session, SessionError> {
    let environment = match runtime::load(config.runtime.as_deref()) {
        Ok(runtime) => &runtime.environment,
        Err(error) => return Err(SessionError::Model(error.0)),
    };
    let model_error = |error: &dyn std::fmt::Display| SessionError::Model(one_line(&error.to_string()));
    let mut builder = Session::builder(environment).map_err(|error| model_error(&error))?;
    builder = builder.with_intra_threads(threads).map_err(|error| model_error(&error))?;
    // Spinning threads win a little on an idle machine and lose a lot where decoders and encoders want the cores.
    builder = builder.with_intra_op_spinning(false).map_err(|error| model_error(&error))?;
    let dispatches = dispatches(config, provider);
    if !dispatches.is_empty() {
        builder = builder
            .with_execution_providers(dispatches)
            .map_err(|error| SessionError::Provider(one_line(&error.to_string())))?;
    }
    builder.commit_from_file(&config.path).map_err(|error| {
        let reason = one_line(&error.to_string());
        if provider == Provider::Cpu { SessionError::Model(reason) } else { SessionError::Provider(reason) }
    })
}

/// The options of a GPU provider; none for the CPU, which ONNX Runtime always has.
fn dispatches(config: &ModelConfig, provider: Provider) -> Vec<ExecutionProviderDispatch> {
    let cuda = || ep::CUDA::default().with_device_id(config.device).build();
    // Without `error_on_failure`, ONNX Runtime falls back to the CPU and says so nowhere that a service could read it.
    match provider {
        Provider::Cpu => Vec::new(),
        Provider::Cuda => vec![cuda().error_on_failure()],
        Provider::TensorRt => {
            let mut options = ep::TensorRT::default().with_device_id(config.device).with_fp16(true);
            if let Some(folder) = &config.cache_dir {
                let folder = folder.display();
                options = options
                    .with_engine_cache(true)
                    .with_engine_cache_path(folder.to_string())
                    .with_timing_cache(true)
                    .with_timing_cache_path(folder.to_string());
            }
            // What TensorRT does not take goes to CUDA before it goes to the CPU.
            vec![options.build().error_on_failure(), cuda().fail_silently()]
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One session with the buffers it needs.
pub struct OnnxSegmenter {
    session: Session,
    contract: Arc<Contract>,
    preprocessor: Preprocessor,
    /// `[N, H, W, 3]`
    rgb: Vec<u8>,
    float: Vec<f32>,
}

impl OnnxSegmenter {
    fn new(session: Session, contract: Arc<Contract>) -> Self {
        let preprocessor = Preprocessor::new(contract.input.width, contract.input.height);
        OnnxSegmenter { session, contract, preprocessor, rgb: Vec::new(), float: Vec::new() }
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
        let input = &self.contract.input;
        let shape = |layout| match layout {
            Layout::Nhwc => [n, input.height, input.width, 3],
            Layout::Nchw => [n, 3, input.height, input.width],
        };
        let failed =
            |error: ort::Error| SegmentError(format!("the model cannot be run: {}", one_line(&error.to_string())));
        let name = input.name.as_str();
        let outputs = match &input.pixels {
            InputPixels::Bytes => {
                let tensor = TensorRef::from_array_view((shape(Layout::Nhwc), rgb)).map_err(failed)?;
                self.session.run(ort::inputs![name => tensor]).map_err(failed)?
            }
            InputPixels::Float(pixels) => {
                normalise(pixels, rgb, input.width * input.height, &mut self.float);
                let tensor =
                    TensorRef::from_array_view((shape(pixels.layout), self.float.as_slice())).map_err(failed)?;
                self.session.run(ort::inputs![name => tensor]).map_err(failed)?
            }
        };
        classes(&self.contract, &outputs, n)
    }
}

impl Segmenter for OnnxSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        let watch = Stopwatch::start();
        let picture_bytes = self.picture_bytes();
        let mut rgb = std::mem::take(&mut self.rgb);
        rgb.resize(picture_bytes * frames.len(), 0);
        for (frame, out) in frames.iter().zip(rgb.chunks_exact_mut(picture_bytes)) {
            self.preprocessor.run(&frame.pixels.picture(), out)?;
        }
        let preprocess = watch.spent();
        let watch = Stopwatch::start();
        let result = self.run_rgb(&rgb, frames.len());
        self.rgb = rgb;
        let (classes, (width, height)) = result?;
        let masks = frames
            .iter()
            .zip(classes.chunks_exact(width * height))
            .map(|(frame, classes)| Mask {
                seq: frame.seq,
                captured_at: frame.captured_at,
                width,
                height,
                classes: classes.to_vec(),
            })
            .collect();
        Ok(Segmented { masks, preprocess, run: watch.spent() })
    }
}

/// Fills `out` with the normalised values of whole RGB pictures of `pixels` pixels.
fn normalise(float: &FloatPixels, rgb: &[u8], pixels: usize, out: &mut Vec<f32>) {
    out.clear();
    out.reserve(rgb.len());
    // Where the model's channel c lies in an RGB pixel.
    let source = match float.order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    for picture in rgb.chunks_exact(pixels * 3) {
        match float.layout {
            Layout::Nchw => {
                for (table, &offset) in float.table.iter().zip(&source) {
                    out.extend(picture[offset..].iter().step_by(3).map(|&byte| table[usize::from(byte)]));
                }
            }
            Layout::Nhwc => {
                for pixel in picture.chunks_exact(3) {
                    out.extend(
                        float.table.iter().zip(&source).map(|(table, &offset)| table[usize::from(pixel[offset])]),
                    );
                }
            }
        }
    }
}

/// The class indices in a run's outputs, and the `(width, height)` of one mask.
fn classes(
    contract: &Contract,
    outputs: &SessionOutputs<'_>,
    n: usize,
) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
    let name = &contract.output.name;
    let value = outputs.get(name).ok_or_else(|| SegmentError(format!("the model gave no output {name}")))?;
    let wrong = |error: ort::Error| SegmentError(format!("the model's output {name} cannot be read: {error}"));
    let dimensions: Vec<usize> = value.shape().iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    let labels = contract.labels.len();
    let (height, width) = match (contract.output.kind, dimensions.as_slice()) {
        (OutputKind::Classes, &[batch, h, w]) if batch == n => (h, w),
        (OutputKind::Classes | OutputKind::Binary, &[batch, 1, h, w]) if batch == n => (h, w),
        (OutputKind::LogitsNchw, &[batch, c, h, w]) if batch == n && c == labels => (h, w),
        (OutputKind::LogitsNhwc, &[batch, h, w, c]) if batch == n && c == labels => (h, w),
        _ => {
            return Err(SegmentError(format!(
                "the model's output {name} has the shape {dimensions:?}, which does not fit {n} frames and {labels} labels"
            )));
        }
    };
    if height == 0 || width == 0 {
        return Err(SegmentError(format!("the model's output {name} is empty")));
    }
    let indices = match contract.output.kind {
        OutputKind::Classes => {
            if let Ok((_, bytes)) = value.try_extract_tensor::<u8>() {
                bytes.to_vec()
            } else if let Ok((_, values)) = value.try_extract_tensor::<i64>() {
                values.iter().map(|&class| ClassId::try_from(class).unwrap_or(ClassId::MAX)).collect()
            } else {
                let (_, values) = value.try_extract_tensor::<i32>().map_err(wrong)?;
                values.iter().map(|&class| ClassId::try_from(class).unwrap_or(ClassId::MAX)).collect()
            }
        }
        OutputKind::Binary => {
            let (_, values) = value.try_extract_tensor::<f32>().map_err(wrong)?;
            values.iter().map(|&logit| ClassId::from(logit > 0.0)).collect()
        }
        OutputKind::LogitsNchw => {
            let (_, values) = value.try_extract_tensor::<f32>().map_err(wrong)?;
            values
                .chunks_exact(labels * height * width)
                .flat_map(|picture| argmax_planes(picture, height * width))
                .collect()
        }
        OutputKind::LogitsNhwc => {
            let (_, values) = value.try_extract_tensor::<f32>().map_err(wrong)?;
            values.chunks_exact(labels).map(argmax).collect()
        }
    };
    Ok((indices, (width, height)))
}

/// Winner a pixel of `[C, pixels]`, plane by plane: each pass reads memory in order.
fn argmax_planes(logits: &[f32], pixels: usize) -> Vec<ClassId> {
    let mut best = logits[..pixels].to_vec();
    let mut winner = vec![0; pixels];
    for (class, plane) in logits.chunks_exact(pixels).enumerate().skip(1) {
        for ((best, winner), &logit) in best.iter_mut().zip(&mut winner).zip(plane) {
            if logit > *best {
                *best = logit;
                *winner = class as ClassId;
            }
        }
    }
    winner
}

fn argmax(logits: &[f32]) -> ClassId {
    let mut winner = 0;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > logits[winner] {
            winner = class;
        }
    }
    winner as ClassId
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::card::CardInput;

    #[test]
    fn argmax_agrees_in_both_layouts() {
        // Two classes over three pixels; ties go to the lower class.
        let planes = [1.0, 5.0, 2.0, 3.0, 4.0, 2.0];
        assert_eq!(argmax_planes(&planes, 3), [1, 0, 0]);
        let pixels = [1.0, 3.0, 5.0, 4.0, 2.0, 2.0];
        assert_eq!(pixels.chunks_exact(2).map(argmax).collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[test]
    fn normalise_orders_channels_and_axes() {
        let identity = || Box::new(std::array::from_fn(|_| std::array::from_fn(|byte| byte as f32)));
        let rgb = [1, 2, 3, 4, 5, 6];
        let mut out = Vec::new();
        for (layout, order, expected) in [
            (Layout::Nchw, ChannelOrder::Rgb, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
            (Layout::Nchw, ChannelOrder::Bgr, [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]),
            (Layout::Nhwc, ChannelOrder::Rgb, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (Layout::Nhwc, ChannelOrder::Bgr, [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]),
        ] {
            normalise(&FloatPixels { layout, order, table: identity() }, &rgb, 2, &mut out);
            assert_eq!(out, expected, "{layout:?} {order:?}");
        }
        assert_eq!(CardInput::default().white, 1.0);
    }
}
