//! Runs a model on labelled images like the service: the image is resized to the input size of the model, and the mask to the
//! size of the image.

use std::path::PathBuf;
use std::sync::Arc;

use tch::{Device, Kind, Reduction, Tensor};

use crate::augment;
use crate::data::{DataError, Dataset, LabelledImage, Pair, VOID};
use crate::loader::{LoadError, pack};
use crate::metrics::{ConfusionMatrix, MetricsError};
use crate::net::exec::{self, RunOptions};
use crate::net::{Net, Params};
use crate::ordered::OrderedResults;
use crate::size::Size;

/// The prediction of a model for one image, in the input size of the model.
#[derive(Debug)]
pub struct Prediction {
    /// Class indices, `[H, W]`.
    pub mask: Vec<u8>,
    /// The probability of the predicted class, `[H, W]`, if the model returns it.
    pub confidence: Option<Vec<f32>>,
    /// Mean cross-entropy of the labelled pixels, if the model returns logits.
    pub loss: Option<f64>,
}

/// A model in libtorch or ONNX Runtime.
pub trait Predictor {
    /// The size of the images for [`Predictor::predict`].
    fn input(&self) -> Size;

    /// Runs the model on one image.
    ///
    /// # Errors
    /// The model cannot be run.
    fn predict(&mut self, image: &LabelledImage) -> Result<Prediction, EvaluateError>;
}

/// Why a model cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("image {name}: {error}")]
    Metrics { name: String, error: MetricsError },
    #[error("the model failed: {0}")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{}: {error}", path.display())]
    Classes { path: PathBuf, error: ClassMismatch },
    #[error("cannot start a thread that reads images: {0}; check the limit of processes (`ulimit -u`)")]
    Thread(std::io::Error),
    #[error("there are no images to evaluate on: choose another part or data set")]
    NoImages,
}

/// The classes of a model are not those of the data set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model has the classes {}, the data set has {}. Pass a file with the class names of the model (--classes FILE), or \
     evaluate on another data set",
    model.join(", "), data.join(", ")
)]
pub struct ClassMismatch {
    pub model: Vec<String>,
    pub data: Vec<String>,
}

/// An image with its labels and the prediction of a model.
pub struct EvaluatedImage<'a> {
    pub pair: &'a Pair,
    pub image: &'a LabelledImage,
    /// The predicted mask in the size of the image.
    pub mask: Vec<u8>,
    pub prediction: &'a Prediction,
    /// The image and its labels in the input size of the model.
    pub small: &'a LabelledImage,
}

/// Runs a model on `pairs` and calls `show` with each result, in the order of `pairs`.
///
/// # Errors
/// An image cannot be read, the model cannot be run, or `show` returned an error.
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

/// A network in libtorch.
pub struct LibtorchPredictor<'a> {
    pub net: &'a Net,
    pub params: &'a Params,
    pub input: Size,
    pub device: Device,
    pub precision: Kind,
    /// Whether predictions have confidences, which need a softmax.
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

/// The values of a tensor, 0 to 255, in row-major order.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

/// The values of a tensor in row-major order.
fn floats(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(Device::Cpu).contiguous();
    let mut floats = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut floats, tensor.numel());
    floats
}

/// The confusion matrix and the mean cross-entropy of a model on `pairs`.
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

/// The confusion matrix of a model on labelled images in memory, at the input size of the model.
///
/// # Errors
/// The model cannot be run.
pub fn confusion_of_images(
    predictor: &mut dyn Predictor,
    images: &[LabelledImage],
    classes: usize,
) -> Result<ConfusionMatrix, EvaluateError> {
    let mut confusion = ConfusionMatrix::new(classes);
    let input = predictor.input();
    for (index, image) in images.iter().enumerate() {
        let name = format!("{} of the replayed images", index + 1);
        let small = augment::whole(image, input).map_err(|error| LoadError::OpenCv { name: name.clone(), error })?;
        let prediction = predictor.predict(&small)?;
        confusion.add(&small.labels, &prediction.mask).map_err(|error| EvaluateError::Metrics { name, error })?;
    }
    Ok(confusion)
}

/// The share of each class in the labelled pixels of `pairs`, 0 to 1.
///
/// # Errors
/// A label cannot be read.
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
