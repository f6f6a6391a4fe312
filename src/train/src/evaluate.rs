//! Runs a model on labelled images as the service does: each image is resized to the model's input size, and the mask
//! to the image's size.

use std::sync::Arc;

use tch::{Device, Kind, Reduction, Tensor};

use super::augment;
use super::data::{DataError, Dataset, LabelledImage, Pair, VOID};
use super::loader::{LoadError, pack};
use super::metrics::{ConfusionMatrix, MetricsError};
use super::net::exec::{self, RunOptions};
use super::net::{Net, Params};
use super::ordered::OrderedResults;
use super::size::Size;

/// The prediction of a model for one image, at the model's input size.
#[derive(Debug)]
pub struct Prediction {
    /// `[H, W]`, class indices.
    pub mask: Vec<u8>,
    /// `[H, W]`, the winning class's probability; where the model gives one.
    pub confidence: Option<Vec<f32>>,
    /// Mean cross-entropy over the labelled pixels; where the model gives logits.
    pub loss: Option<f64>,
}

/// A model: the trainer's network in libtorch, or an exported model in ONNX Runtime.
pub trait Predictor {
    /// The size that [`Predictor::predict`] wants.
    fn input(&self) -> Size;

    /// # Errors
    /// The backend's.
    fn predict(&mut self, image: &LabelledImage) -> Result<Prediction, EvaluateError>;
}

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("image {name}: {error}")]
    Metrics { name: String, error: MetricsError },
    #[error("the model failed: {0}")]
    Model(String),
    #[error("cannot start a thread that reads images: {0}; check the limit of processes (`ulimit -u`)")]
    Thread(std::io::Error),
    #[error("there is no image to evaluate on: choose another part or data set")]
    NoImages,
}

/// An image with its label and the predicted mask, at the image's size.
pub struct EvaluatedImage<'a> {
    pub pair: &'a Pair,
    pub image: &'a LabelledImage,
    pub mask: Vec<u8>,
    /// At the model's input size, as is `small`.
    pub prediction: &'a Prediction,
    pub small: &'a LabelledImage,
}

/// Runs the model on `pairs` and calls `show` with each result.
///
/// # Errors
/// If an image cannot be read, or the model fails.
pub fn evaluate_pairs(
    predictor: &mut dyn Predictor,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
    mut show: impl FnMut(EvaluatedImage) -> Result<(), EvaluateError>,
) -> Result<(), EvaluateError> {
    if pairs.is_empty() {
        return Err(EvaluateError::NoImages);
    }
    let input = predictor.input();
    let source = dataset.clone();
    let work = move |pair: Pair| -> Result<_, LoadError> {
        let image = source.read(&pair)?;
        let small = augment::whole(&image, input).map_err(|error| opencv(&pair, error))?;
        Ok((pair, image, small))
    };
    let tasks: Vec<Pair> = pairs.into();
    let read = OrderedResults::start("reader", threads, 2 * threads + 1, tasks.into_iter(), work)
        .map_err(EvaluateError::Thread)?;
    for item in read {
        let (pair, image, small) = item?;
        let prediction = predictor.predict(&small)?;
        let size = Size::new(image.width, image.height);
        let mask = augment::resize_mask(&prediction.mask, input, size).map_err(|error| opencv(&pair, error))?;
        show(EvaluatedImage { pair: &pair, image: &image, mask, prediction: &prediction, small: &small })?;
    }
    Ok(())
}

fn opencv(pair: &Pair, error: ::opencv::Error) -> LoadError {
    LoadError::OpenCv { name: pair.name.clone(), error }
}

/// The trainer's network in libtorch.
pub struct LibtorchPredictor<'a> {
    pub net: &'a Net,
    pub params: &'a Params,
    pub input: Size,
    pub device: Device,
    pub precision: Kind,
    /// Whether confidences are wanted; they cost a softmax.
    pub confidence: bool,
}

impl Predictor for LibtorchPredictor<'_> {
    fn input(&self) -> Size {
        self.input
    }

    fn predict(&mut self, image: &LabelledImage) -> Result<Prediction, EvaluateError> {
        let _guard = tch::no_grad_guard();
        let batch = pack(std::slice::from_ref(image), self.input);
        let input = exec::input(&batch.rgb, &self.net.normalise, self.device);
        let run = RunOptions { precision: self.precision, ..RunOptions::EVAL };
        let logits = exec::forward(self.net, self.params, &input, &run);
        let labels = batch.labels.to_device(self.device);
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, i64::from(VOID), 0.0);
        let loss = Some(loss.double_value(&[])).filter(|loss| loss.is_finite());
        let mask = bytes(&logits.argmax(1, false));
        let confidence = self.confidence.then(|| floats(&logits.softmax(1, Kind::Float).amax([1i64], false)));
        Ok(Prediction { mask, confidence, loss })
    }
}

/// A tensor of small numbers as bytes.
pub fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(Device::Cpu).contiguous();
    let mut floats = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut floats, tensor.numel());
    floats
}

/// The confusion matrix and the mean cross-entropy over `pairs`.
///
/// # Errors
/// See [`evaluate_pairs`].
pub fn confusion(
    predictor: &mut dyn Predictor,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
) -> Result<(ConfusionMatrix, Option<f64>), EvaluateError> {
    let mut confusion = ConfusionMatrix::new(dataset.classes.len());
    let mut losses = (0.0, 0u32);
    evaluate_pairs(predictor, dataset, pairs, threads, |evaluated| {
        confusion
            .add(&evaluated.image.labels, &evaluated.mask)
            .map_err(|error| EvaluateError::Metrics { name: evaluated.pair.name.clone(), error })?;
        if let Some(loss) = evaluated.prediction.loss {
            losses = (losses.0 + loss, losses.1 + 1);
        }
        Ok(())
    })?;
    Ok((confusion, (losses.1 > 0).then(|| losses.0 / f64::from(losses.1))))
}

/// Each class's share of the labelled pixels of `pairs`, 0 to 1.
///
/// # Errors
/// If a label cannot be read.
pub fn class_shares(dataset: &Arc<Dataset>, pairs: &[Pair], threads: usize) -> Result<Vec<f64>, EvaluateError> {
    let source = dataset.clone();
    let classes = dataset.classes.len();
    let work = move |pair: Pair| -> Result<Vec<u64>, DataError> {
        let mut counts = vec![0u64; 256];
        for &label in &source.read(&pair)?.labels {
            counts[usize::from(label)] += 1;
        }
        Ok(counts)
    };
    let tasks: Vec<Pair> = pairs.into();
    let counted = OrderedResults::start("reader", threads, 2 * threads + 1, tasks.into_iter(), work)
        .map_err(EvaluateError::Thread)?;
    let mut total = vec![0u64; classes];
    for counts in counted {
        let counts = counts.map_err(LoadError::Data)?;
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    let all = total.iter().sum::<u64>().max(1) as f64;
    Ok(total.iter().map(|&count| count as f64 / all).collect())
}
