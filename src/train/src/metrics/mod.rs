//! How good masks are, measured against labels.
//!
//! | measure | where | from |
//! | --- | --- | --- |
//! | IoU, accuracy, precision, recall | [`ConfusionMatrix`] | one matrix over the whole set |
//! | boundary F1 | [`BoundaryF1`] | each image, then averaged |
//! | calibration | [`Calibration`] | each pixel's confidence |
//!
//! All of them are streams: a set of any size is added image by image, at the labels' own resolution. Pixels whose
//! label is [`VOID`](crate::data::VOID) count nowhere.

mod boundary;
mod calibration;
mod confusion;
mod scores;

pub use boundary::BoundaryF1;
pub use calibration::{Calibration, CalibrationBin, CalibrationScores};
pub use confusion::ConfusionMatrix;
pub use scores::{ClassScores, Scores};

/// What does not fit together; the place is a pixel's index in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum MetricsError {
    #[error(
        "{labels} label pixels against {predictions} predicted ones: bring the prediction to the labels' size before \
         it \
         is measured"
    )]
    Size { labels: usize, predictions: usize },
    #[error("{pixels} pixels are not rows of {width}")]
    Width { pixels: usize, width: usize },
    #[error(
        "pixel {pixel} is labelled {value}, but there are {classes} classes (0 to {}): map the label to a class or to \
         void (255)", classes - 1
    )]
    Label { value: u8, pixel: usize, classes: usize },
    #[error(
        "pixel {pixel} is predicted as class {value}, but the data set has {classes} classes (0 to {}): the model was \
         made for other classes", classes - 1
    )]
    Prediction { value: u8, pixel: usize, classes: usize },
    #[error("a matrix of {other} classes does not add to one of {classes}: measure both with one data set's classes")]
    Classes { classes: usize, other: usize },
    #[error("pixel {pixel} has the confidence {value}, which is not a probability: the model's softmax is broken")]
    Confidence { value: f32, pixel: usize },
}

/// The first pixel, if any, that is neither a class nor void, or that is predicted as no class.
fn check(classes: usize, labels: &[u8], prediction: &[u8]) -> Result<(), MetricsError> {
    if labels.len() != prediction.len() {
        return Err(MetricsError::Size { labels: labels.len(), predictions: prediction.len() });
    }
    let void = crate::data::VOID;
    // Sums instead of a search: without a branch a pixel the loop runs at the memory's speed.
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
