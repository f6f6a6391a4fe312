//! Metrics of predicted masks, compared with labels.
//!
//! | metric | type | computed from |
//! | --- | --- | --- |
//! | IoU, accuracy, precision, recall | [`ConfusionMatrix`] | one matrix of all images |
//! | boundary F1 | [`BoundaryF1`] | each image, then averaged |
//! | calibration | [`Calibration`] | the confidence of each pixel |
//! | recall of objects by height | [`ObjectRecall`] | connected components of the labels |
//!
//! Images are added one by one, in the size of their labels. Pixels with the label [`VOID`](crate::data::VOID) are not
//! counted.

mod boundary;
mod calibration;
mod confusion;
mod scores;
mod sizes;

pub use boundary::BoundaryF1;
pub use calibration::{Calibration, CalibrationBin, CalibrationScores};
pub use confusion::ConfusionMatrix;
pub use scores::{ClassScores, Scores};
pub use sizes::{HEIGHTS, ObjectRecall, RangeScores, SizeScores};

/// Why labels and prediction cannot be compared. `pixel` is an index in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum MetricsError {
    #[error(
        "there are {labels} labelled pixels and {predictions} predicted ones: resize the prediction to the size of the \
         labels"
    )]
    Size { labels: usize, predictions: usize },
    #[error("{pixels} pixels are not a whole number of rows of {width}")]
    Width { pixels: usize, width: usize },
    #[error(
        "pixel {pixel} is labelled {value}, but there are {classes} classes (0 to {}): map the label to a class or to \
         void (255)", classes - 1
    )]
    Label { value: u8, pixel: usize, classes: usize },
    #[error(
        "pixel {pixel} is predicted as class {value}, but the data set has {classes} classes (0 to {}): the model has \
         other classes", classes - 1
    )]
    Prediction { value: u8, pixel: usize, classes: usize },
    #[error("results of {other} classes cannot be added to those of {classes}: use the classes of the same data set")]
    Classes { classes: usize, other: usize },
    #[error("pixel {pixel} has the confidence {value}, which is not a probability: the output of the model is wrong")]
    Confidence { value: f32, pixel: usize },
}

/// Checks that labels are classes or void, and that predictions are classes.
fn check(classes: usize, labels: &[u8], prediction: &[u8]) -> Result<(), MetricsError> {
    if labels.len() != prediction.len() {
        return Err(MetricsError::Size { labels: labels.len(), predictions: prediction.len() });
    }
    let void = crate::data::VOID;
    // A sum needs no branch for each pixel and is much faster than a search.
    let wrong_labels: usize =
        labels.iter().map(|&label| usize::from(usize::from(label) >= classes && label != void)).sum();
    if wrong_labels > 0
        && let Some(pixel) = labels.iter().position(|&label| usize::from(label) >= classes && label != void)
    {
        return Err(MetricsError::Label { value: labels[pixel], pixel, classes });
    }
    let wrong = |(&label, &class): (&u8, &u8)| usize::from(class) >= classes && label != void;
    if prediction.iter().max().is_some_and(|&class| usize::from(class) >= classes)
        && let Some(pixel) = labels.iter().zip(prediction).position(wrong)
    {
        return Err(MetricsError::Prediction { value: prediction[pixel], pixel, classes });
    }
    Ok(())
}
