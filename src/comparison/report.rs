//! The result of a comparison, as it is written to `report.json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of [`Comparison`].
pub const VERSION: u32 = 1;

/// Two models, measured on the same labelled images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Version of this document: 1.
    pub version: u32,
    /// When the comparison ended (RFC 3339).
    pub at: String,
    /// Whether the new model is better, and whether the images are enough to say so.
    pub verdict: Verdict,
    /// The verdict as a sentence, with its figures.
    pub summary: String,
    /// The labelled images.
    pub data: DataFacts,
    /// The model that is replaced.
    pub old: ModelFacts,
    /// The model that replaces it.
    pub new: ModelFacts,
    /// The new model's mIoU less that of the old one.
    pub difference: Difference,
    /// The classes of the data set and of both models, matched by name.
    pub classes: Vec<ClassComparison>,
    /// The flicker of the masks of a clip; null without a clip.
    pub flicker: Option<FlickerComparison>,
    /// The time of the models, which ran alternately on the same images.
    pub speed: SpeedComparison,
    /// The images with the mIoU of both models, the largest loss first.
    pub images: Vec<ImageComparison>,
}

/// The result in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval of the difference is above 0.
    Better,
    /// The interval of the difference is below 0.
    Worse,
    /// The interval has 0 in it, or there are fewer than 6 images.
    NotDistinguishable,
}

impl Verdict {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NotDistinguishable => "not distinguishable",
        }
    }
}

/// The labelled images of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataFacts {
    /// Path of the folder.
    pub folder: String,
    /// The file with the names of the images that were used; null: all images of the folder.
    pub list: Option<String>,
    /// Number of images.
    pub images: usize,
}

/// One of the two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFacts {
    /// Name of the file.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The execution provider that ran it.
    pub provider: String,
    /// Width and height of its input in pixels.
    pub input: (usize, usize),
    /// Mean IoU, 0 to 1, over the classes in the labels that at least one of the models has; null if there is none.
    pub miou: Option<f64>,
    /// Mean IoU, 0 to 1, over the classes in the labels that both models have; null if there is none.
    pub miou_common: Option<f64>,
}

/// The difference of the mIoUs with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The new model's mIoU less the old one's, -1 to 1; null without labels of a class that a model has.
    pub miou: Option<f64>,
    /// Lower bound of the interval; null where it cannot be estimated.
    pub low: Option<f64>,
    /// Upper bound of the interval; null where it cannot be estimated.
    pub high: Option<f64>,
    /// The probability of the interval: 0.95.
    pub confidence: f64,
}

/// A class of the data set or of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassComparison {
    /// Name of the class.
    pub name: String,
    /// Its colour, `#rrggbb`.
    pub color: String,
    /// Whether the data set has the class.
    pub in_data: bool,
    /// Whether the old model has the class.
    pub in_old: bool,
    /// Whether the new model has the class.
    pub in_new: bool,
    /// Share of the labelled pixels, 0 to 1.
    pub share: f64,
    /// IoU of the old model, 0 to 1; null for a class that is neither in the labels nor in its masks.
    pub old_iou: Option<f64>,
    /// IoU of the new model, 0 to 1; null for a class that is neither in the labels nor in its masks.
    pub new_iou: Option<f64>,
}

/// How much the masks of a clip flicker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlickerComparison {
    /// Path of the clip.
    pub clip: String,
    /// Number of masks.
    pub masks: u32,
    /// The values of `smooth`.
    pub smooth: Vec<FlickerRow>,
}

/// The flicker with one value of `smooth`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlickerRow {
    /// The value of `smooth`; `off`: the masks as the model makes them.
    pub smooth: String,
    /// Pixels of the old model's masks that flip from one mask to the next, in percent.
    pub old_percent: f64,
    /// The same of the new model.
    pub new_percent: f64,
}

/// The time of a frame, alternately with both models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpeedComparison {
    /// Number of runs of each model.
    pub runs: usize,
    /// Median time of a run of the old model in milliseconds.
    pub old_ms: f64,
    /// Median time of a run of the new model in milliseconds.
    pub new_ms: f64,
    /// Median of the ratios of neighbouring runs: above 1, the new model takes longer.
    pub ratio: f64,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageComparison {
    /// Name of the image without extension.
    pub name: String,
    /// mIoU of the old model in the image, 0 to 1; null if no class that a model has is in its label.
    pub old_miou: Option<f64>,
    /// mIoU of the new model in the image.
    pub new_miou: Option<f64>,
}

impl ImageComparison {
    /// The new model's mIoU less that of the old one.
    pub fn difference(&self) -> Option<f64> {
        Some(self.new_miou? - self.old_miou?)
    }
}
