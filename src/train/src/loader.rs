//! Training batches, which threads read and augment in advance.
//!
//! A batch depends only on the seed and its step, not on the number of threads. A run that is resumed at a step gets the
//! same batches as a run that was not interrupted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use tch::{Kind, Tensor};

use super::augment::{self, Augment};
use super::data::{DataError, Dataset, LabelledImage, Pair};
use super::distil::{SoftLabels, Teachers};
use super::label::TeacherError;
use super::ordered::OrderedResults;
use super::paste::paste;
use super::random::{self, Rng};
use super::replay::Replay;
use super::size::Size;

/// Streams of random numbers: the order of an epoch, the augmentation of an image, whether its void areas get a class, and the
/// augmentation of replayed images.
const ORDER: u64 = 1;
const SAMPLE: u64 = 2;
const VOID_AREAS: u64 = 3;
const REPLAYED: u64 = 5;

/// Sizes, augmentation and order of batches.
#[derive(Clone, Debug)]
pub struct BatchSpec {
    pub input: Size,
    pub crop: Size,
    /// Images of the data set in a batch.
    pub batch: usize,
    /// Replayed images in a batch, in addition.
    pub replayed: usize,
    /// How many times an epoch has each image.
    pub repeat: usize,
    pub augment: Augment,
    pub seed: u64,
    /// Number of threads that read and augment images.
    pub threads: usize,
}

impl BatchSpec {
    /// Number of batches in an epoch over `images` images, at least 1. Images that do not fill a batch are left out of
    /// the epoch; each epoch has another order. A data set smaller than a batch is one small batch.
    pub fn per_epoch(&self, images: usize) -> usize {
        (images * self.repeat / self.batch).max(1)
    }
}

/// A batch in libtorch's memory.
#[derive(Debug)]
pub struct Batch {
    /// `[N, H, W, 3]`, bytes, RGB.
    pub rgb: Tensor,
    /// `[N, H, W]`, 64-bit class indices or [`super::data::VOID`].
    pub labels: Tensor,
    /// The probabilities of the teachers, if any pixel learns from them.
    pub soft: Option<SoftBatch>,
}

/// The soft labels of a batch.
#[derive(Debug)]
pub struct SoftBatch {
    /// `[N, classes, h, w]`
    pub probabilities: Tensor,
    /// `[N, h, w]`
    pub weights: Tensor,
}

/// Where the images of a run come from.
#[derive(Clone)]
pub struct Images {
    pub dataset: Arc<Dataset>,
    pub replay: Option<Arc<Replay>>,
    pub teachers: Option<Arc<Teachers>>,
}

/// An augmented image of a batch.
struct Sample {
    piece: LabelledImage,
    soft: Option<SoftLabels>,
}

/// Loads the batches of consecutive steps.
pub struct Loader {
    batches: OrderedResults<u64, Result<Vec<Sample>, LoadError>>,
    crop: Size,
    waited: Duration,
}

/// Why a batch cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("image {name}: {error}")]
    OpenCv { name: String, error: opencv::Error },
    #[error(transparent)]
    Teacher(Box<TeacherError>),
}

impl Loader {
    /// Loads the steps `from..to`.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(images: &Images, batches: &BatchSpec, from: u64, to: u64) -> std::io::Result<Self> {
        // Otherwise each loader thread would start threads of OpenCV in addition to the trainer's.
        if let Err(error) = opencv::core::set_num_threads(1) {
            tracing::warn!("OpenCV does not accept a number of threads; loading may be slower: {error}");
        }
        let (images, spec, crop) = (images.clone(), batches.clone(), batches.crop);
        let ahead = 2 * batches.threads + 2;
        let work = move |step| samples(&images, &spec, step);
        let batches = OrderedResults::start("loader", batches.threads, ahead, from..to, work)?;
        Ok(Loader { batches, crop, waited: Duration::ZERO })
    }

    /// Total time that [`Loader::next_batch`] has waited for data.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns the next batch; `None` after the last step.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, LoadError> {
        let started = Instant::now();
        let samples = self.batches.next().transpose()?;
        self.waited += started.elapsed();
        Ok(samples.map(|samples| pack_samples(samples, self.crop)))
    }
}

/// Loads the images of a step: those of the data set, then replayed ones.
fn samples(images: &Images, spec: &BatchSpec, step: u64) -> Result<Vec<Sample>, LoadError> {
    let mut pieces = load(&images.dataset, spec, step)?;
    let own = pieces.len();
    if let Some(replay) = &images.replay {
        let mut chosen = replay.choose(spec.seed, step, spec.replayed);
        for (place, index) in chosen.drain(..).enumerate() {
            let image = replay.read(index)?;
            let mut rng = random::generator(spec.seed, &[REPLAYED, step, place as u64]);
            let piece = augment::apply(&image, spec.input, spec.crop, &spec.augment, &mut rng)
                .map_err(|error| LoadError::OpenCv { name: replay.name(index), error })?;
            pieces.push(piece);
        }
    }
    let mut samples = Vec::with_capacity(pieces.len());
    for (place, piece) in pieces.into_iter().enumerate() {
        let soft = match &images.teachers {
            Some(teachers) => {
                teachers.soft_labels(&piece, place >= own).map_err(|error| LoadError::Teacher(error.into()))?
            }
            None => None,
        };
        samples.push(Sample { piece, soft });
    }
    Ok(samples)
}

/// Loads the images of the data set in a step.
fn load(dataset: &Dataset, spec: &BatchSpec, step: u64) -> Result<Vec<LabelledImage>, LoadError> {
    let count = dataset.train.len();
    let per_epoch = spec.per_epoch(count);
    let (epoch, index) = (step / per_epoch as u64, (step % per_epoch as u64) as usize);
    // An epoch is one or several passes over the images, each with its own order and augmentation.
    let repeat = spec.repeat as u64;
    let passes = (epoch * repeat..(epoch + 1) * repeat).map(|pass| (pass, shuffled(count, spec.seed, pass)));
    let order: Vec<(u64, usize)> =
        passes.flat_map(|(pass, order)| order.into_iter().map(move |image| (pass, image))).collect();
    let chosen = &order[(index * spec.batch).min(order.len())..((index + 1) * spec.batch).min(order.len())];
    let void_as = spec.augment.void_class(&dataset.classes);
    let mut samples = Vec::with_capacity(chosen.len());
    for &(pass, image) in chosen {
        let pair: &Pair = &dataset.train[image];
        let sample = dataset.read(pair)?;
        let mut rng = random::generator(spec.seed, &[SAMPLE, pass, image as u64]);
        let piece = augmented(&sample, spec, void_as, [pass, image as u64], &mut rng)
            .map_err(|error| LoadError::OpenCv { name: pair.name.clone(), error })?;
        samples.push((piece, rng));
    }
    let pasted = spec.augment.pasted_classes(&dataset.classes);
    if !pasted.is_empty() {
        let originals: Vec<LabelledImage> = samples.iter().map(|(piece, _)| piece.clone()).collect();
        for (index, (piece, rng)) in samples.iter_mut().enumerate() {
            if rng.random::<f64>() < spec.augment.paste_probability {
                let other = &originals[(index + 1) % originals.len()];
                let name = || dataset.train[chosen[index].1].name.clone();
                paste(piece, other, &pasted, rng).map_err(|error| LoadError::OpenCv { name: name(), error })?;
            }
        }
    }
    if spec.augment.cut_mix > 0.0 {
        let originals: Vec<LabelledImage> = samples.iter().map(|(piece, _)| piece.clone()).collect();
        for (index, (piece, rng)) in samples.iter_mut().enumerate() {
            if rng.random::<f64>() < spec.augment.cut_mix {
                augment::cut_mix(piece, &originals[(index + 1) % originals.len()], rng);
            }
        }
    }
    Ok(samples.into_iter().map(|(piece, _)| piece).collect())
}

/// Returns the augmented crop of an image in an epoch.
fn augmented(
    sample: &LabelledImage,
    spec: &BatchSpec,
    void_as: Option<u8>,
    [epoch, image]: [u64; 2],
    rng: &mut Rng,
) -> opencv::Result<LabelledImage> {
    if let Some(class) = void_as
        && random::generator(spec.seed, &[VOID_AREAS, epoch, image]).random::<f64>() < spec.augment.void_probability
    {
        let mut filled = sample.clone();
        augment::label_void(&mut filled, class)?;
        return augment::apply(&filled, spec.input, spec.crop, &spec.augment, rng);
    }
    augment::apply(sample, spec.input, spec.crop, &spec.augment, rng)
}

/// An image of the data set, resized to the input size of the model.
///
/// # Errors
/// If it cannot be read.
pub fn whole(dataset: &Dataset, pair: &Pair, input: Size) -> Result<LabelledImage, LoadError> {
    let image = dataset.read(pair)?;
    augment::whole(&image, input).map_err(|error| LoadError::OpenCv { name: pair.name.clone(), error })
}

/// Image indices in the order of an epoch (Fisher-Yates shuffle).
fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = random::generator(seed, &[ORDER, epoch]);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    order
}

/// Packs images of one size into tensors.
pub fn pack(samples: &[LabelledImage], size: Size) -> Batch {
    let shape = [samples.len() as i64, size.height as i64, size.width as i64];
    let rgb: Vec<u8> = samples.iter().flat_map(|sample| sample.rgb.iter().copied()).collect();
    let labels: Vec<u8> = samples.iter().flat_map(|sample| sample.labels.iter().copied()).collect();
    Batch {
        rgb: Tensor::from_data_size(&rgb, &[shape[0], shape[1], shape[2], 3], Kind::Uint8),
        labels: Tensor::from_data_size(&labels, &shape, Kind::Uint8).to_kind(Kind::Int64),
        soft: None,
    }
}

/// Packs augmented images and their soft labels.
fn pack_samples(samples: Vec<Sample>, size: Size) -> Batch {
    let (pieces, softs): (Vec<_>, Vec<_>) = samples.into_iter().map(|sample| (sample.piece, sample.soft)).unzip();
    let soft = softs.iter().flatten().next().map(|first| {
        let (pixels, count) = (first.size.area(), first.probabilities.len());
        let classes = (count / pixels) as i64;
        let shape = [softs.len() as i64, first.size.height as i64, first.size.width as i64];
        let mut probabilities = Vec::with_capacity(count * softs.len());
        let mut weights = Vec::with_capacity(pixels * softs.len());
        for soft in &softs {
            match soft {
                Some(soft) => {
                    probabilities.extend_from_slice(&soft.probabilities);
                    weights.extend_from_slice(&soft.weights);
                }
                None => {
                    probabilities.resize(probabilities.len() + count, 0.0);
                    weights.resize(weights.len() + pixels, 0.0);
                }
            }
        }
        SoftBatch {
            probabilities: Tensor::from_slice(&probabilities).reshape([shape[0], classes, shape[1], shape[2]]),
            weights: Tensor::from_slice(&weights).reshape(shape),
        }
    });
    Batch { soft, ..pack(&pieces, size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_has_every_image_once_and_its_own_order() {
        let first = shuffled(50, 7, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(first, shuffled(50, 7, 0));
        assert_ne!(first, shuffled(50, 7, 1));
        assert_ne!(first, shuffled(50, 8, 0));
    }
}
