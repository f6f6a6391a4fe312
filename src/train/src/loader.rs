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
use super::ordered::OrderedResults;
use super::paste::paste;
use super::random::{self, Rng};
use super::size::Size;

/// Streams of random numbers: the order of an epoch, the augmentation of an image, and whether its void areas get a class.
const ORDER: u64 = 1;
const SAMPLE: u64 = 2;
const VOID_AREAS: u64 = 3;

/// Sizes, augmentation and order of batches.
#[derive(Clone, Debug)]
pub struct BatchSpec {
    pub input: Size,
    pub crop: Size,
    pub batch: usize,
    pub augment: Augment,
    pub seed: u64,
    /// Number of threads that read and augment images.
    pub threads: usize,
}

impl BatchSpec {
    /// Number of batches in an epoch over `images` images, at least 1. Images that do not fill a batch are left out of
    /// the epoch; each epoch has another order. A data set smaller than a batch is one small batch.
    pub fn per_epoch(&self, images: usize) -> usize {
        (images / self.batch).max(1)
    }
}

/// A batch in libtorch's memory.
#[derive(Debug)]
pub struct Batch {
    /// `[N, H, W, 3]`, bytes, RGB.
    pub rgb: Tensor,
    /// `[N, H, W]`, 64-bit class indices or [`super::data::VOID`].
    pub labels: Tensor,
}

/// Loads the batches of consecutive steps.
pub struct Loader {
    batches: OrderedResults<u64, Result<Vec<LabelledImage>, LoadError>>,
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
}

impl Loader {
    /// Loads the steps `from..to`.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(dataset: &Arc<Dataset>, batches: &BatchSpec, from: u64, to: u64) -> std::io::Result<Self> {
        // Otherwise each loader thread would start threads of OpenCV in addition to the trainer's.
        if let Err(error) = opencv::core::set_num_threads(1) {
            tracing::warn!("OpenCV does not accept a number of threads; loading may be slower: {error}");
        }
        let (dataset, spec, crop) = (dataset.clone(), batches.clone(), batches.crop);
        let ahead = 2 * batches.threads + 2;
        let work = move |step| load(&dataset, &spec, step);
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
        Ok(samples.map(|samples| pack(&samples, self.crop)))
    }
}

/// Loads the samples of a step.
fn load(dataset: &Dataset, spec: &BatchSpec, step: u64) -> Result<Vec<LabelledImage>, LoadError> {
    let count = dataset.train.len();
    let per_epoch = spec.per_epoch(count);
    let (epoch, index) = (step / per_epoch as u64, (step % per_epoch as u64) as usize);
    let order = shuffled(count, spec.seed, epoch);
    let chosen = &order[(index * spec.batch).min(count)..((index + 1) * spec.batch).min(count)];
    let void_as = spec.augment.void_class(&dataset.classes);
    let mut samples = Vec::with_capacity(chosen.len());
    for &image in chosen {
        let pair: &Pair = &dataset.train[image];
        let sample = dataset.read(pair)?;
        let mut rng = random::generator(spec.seed, &[SAMPLE, epoch, image as u64]);
        let piece = augmented(&sample, spec, void_as, [epoch, image as u64], &mut rng)
            .map_err(|error| LoadError::OpenCv { name: pair.name.clone(), error })?;
        samples.push((piece, rng));
    }
    let pasted = spec.augment.pasted_classes(&dataset.classes);
    if !pasted.is_empty() {
        let originals: Vec<LabelledImage> = samples.iter().map(|(piece, _)| piece.clone()).collect();
        for (index, (piece, rng)) in samples.iter_mut().enumerate() {
            if rng.random::<f64>() < spec.augment.paste_probability {
                let other = &originals[(index + 1) % originals.len()];
                let name = || dataset.train[chosen[index]].name.clone();
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
    }
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
