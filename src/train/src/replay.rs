//! Replay: images of another data set in each training batch, so that a model that learns the images of one camera does not
//! forget the rest (Rolnick et al., *Experience Replay for Continual Learning*, NeurIPS 2019).

use std::path::{Path, PathBuf};

use clap::Args;
use maskcast::frame::Label;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::data::{BareImage, DataError, Dataset, LabelledImage, OpenOptions, Pair, VOID, bare_images};
use crate::random;

/// The stream of random numbers that selects the images.
const CHOICE: u64 = 4;
/// Number of images on which a run measures what it forgets.
const CHECKED: usize = 24;
/// Memory for decoded images, in bytes.
const CACHE: usize = 256 << 20;

/// Options of the replay.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Replay")]
#[serde(default)]
pub struct ReplayOptions {
    /// Mix in images of this data set, so that the model does not forget what it knew: a labelled data set with some of the same
    /// classes, or a folder of images without labels, which the teacher labels
    #[arg(long, value_name = "DIR")]
    pub replay: Option<PathBuf>,
    /// Share of these images in each batch
    #[arg(long, default_value_t = SHARE, value_name = "SHARE")]
    pub replay_share: f64,
}

const SHARE: f64 = 0.25;

impl Default for ReplayOptions {
    fn default() -> Self {
        ReplayOptions { replay: None, replay_share: SHARE }
    }
}

impl ReplayOptions {
    /// Returns a message for each invalid option.
    pub fn problems(&self) -> Vec<String> {
        if self.replay_share > 0.0 && self.replay_share < 1.0 {
            return Vec::new();
        }
        vec![format!("--replay-share {}: must be above 0 and below 1", self.replay_share)]
    }

    /// The number of replayed images in a batch of `batch` images.
    pub fn count(&self, batch: usize) -> usize {
        if self.replay.is_none() {
            return 0;
        }
        ((batch as f64 * self.replay_share).round() as usize).clamp(1, batch.saturating_sub(1).max(1))
    }
}

/// Why a folder cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(
        "--replay {}: its images have no labels; pass a teacher that labels them (--teacher MODEL.onnx), or a labelled data set",
        .0.display()
    )]
    NoLabels(PathBuf),
    #[error(
        "--replay {}: none of its classes ({}) is a class of the data set; merge or rename them in a class file", path.display(),
        classes.join(", ")
    )]
    OtherClasses { path: PathBuf, classes: Vec<String> },
}

/// The images that are replayed.
pub struct Replay {
    source: Source,
}

enum Source {
    Labelled {
        dataset: Box<Dataset>,
        /// For each class of the data set, the class of the run or [`VOID`].
        classes: Vec<u8>,
    },
    Bare(Vec<BareImage>),
}

impl Replay {
    /// Opens the folder for a run with these classes. `has_teacher` is whether images without labels can be used.
    ///
    /// # Errors
    /// The folder has no images, no labels and no teacher, or only other classes.
    pub fn open(path: &Path, classes: &[Label], has_teacher: bool) -> Result<Self, ReplayError> {
        let mut dataset = match Dataset::open(path, &OpenOptions::default()) {
            Ok(dataset) => dataset,
            Err(error) => {
                // A data set with an error is not taken for images without labels.
                let Ok(images) = bare_images(path) else { return Err(error.into()) };
                if !has_teacher {
                    return Err(ReplayError::NoLabels(path.into()));
                }
                return Ok(Replay { source: Source::Bare(images) });
            }
        };
        dataset.keep(CACHE);
        let class_of = |label: &Label| classes.iter().position(|class| class.name.eq_ignore_ascii_case(&label.name));
        let map: Vec<u8> =
            dataset.classes.iter().map(|label| class_of(label).map_or(VOID, |class| class as u8)).collect();
        if map.iter().all(|&class| class == VOID) {
            let classes = dataset.classes.iter().map(|label| label.name.clone()).collect();
            return Err(ReplayError::OtherClasses { path: path.into(), classes });
        }
        Ok(Replay { source: Source::Labelled { dataset: Box::new(dataset), classes: map } })
    }

    /// The number of images for training.
    pub fn count(&self) -> usize {
        match &self.source {
            Source::Labelled { dataset, .. } => dataset.train.len(),
            Source::Bare(images) => images.len(),
        }
    }

    /// Whether the images have labels of their own.
    pub fn is_labelled(&self) -> bool {
        matches!(self.source, Source::Labelled { .. })
    }

    /// The images of a step, each with its number for [`Replay::read`].
    pub fn choose(&self, seed: u64, step: u64, count: usize) -> Vec<usize> {
        let mut rng = random::generator(seed, &[CHOICE, step]);
        (0..count).map(|_| rng.random_range(0..self.count().max(1))).collect()
    }

    /// An image with its labels as classes of the run; without labels, all pixels are void.
    ///
    /// # Errors
    /// The image cannot be read.
    pub fn read(&self, index: usize) -> Result<LabelledImage, DataError> {
        match &self.source {
            Source::Labelled { dataset, .. } => self.labelled(&dataset.train[index]),
            Source::Bare(images) => {
                let image = images[index].read()?;
                let labels = vec![VOID; image.width * image.height];
                Ok(LabelledImage { width: image.width, height: image.height, rgb: image.rgb, labels })
            }
        }
    }

    fn labelled(&self, pair: &Pair) -> Result<LabelledImage, DataError> {
        let Source::Labelled { dataset, classes } = &self.source else {
            unreachable!("only labelled images have pairs")
        };
        let mut image = (*dataset.read(pair)?).clone();
        for label in &mut image.labels {
            *label = classes.get(usize::from(*label)).copied().unwrap_or(VOID);
        }
        Ok(image)
    }

    /// Labelled images that are not used for training, evenly spread over the validation images.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn held_out(&self) -> Result<Vec<LabelledImage>, DataError> {
        let Source::Labelled { dataset, .. } = &self.source else { return Ok(Vec::new()) };
        let count = dataset.val.len().min(CHECKED);
        (0..count).map(|index| self.labelled(&dataset.val[index * dataset.val.len() / count])).collect()
    }

    /// The name of an image, for messages.
    pub fn name(&self, index: usize) -> String {
        match &self.source {
            Source::Labelled { dataset, .. } => dataset.train[index].name.clone(),
            Source::Bare(images) => images[index].name.clone(),
        }
    }
}
