//! All metrics of a data set, for reports and JSON.

use serde::{Deserialize, Serialize};

use super::{BoundaryF1, ConfusionMatrix};

/// The metrics of a model on a data set, 0 to 1. `None` if there are no pixels to compute them from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean IoU over the classes that occur in the labels: [`ConfusionMatrix::miou`].
    pub miou: Option<f64>,
    pub pixel_accuracy: Option<f64>,
    /// Mean recall of the classes.
    pub class_accuracy: Option<f64>,
    /// Mean over images: [`BoundaryF1`].
    pub boundary_f1: Option<f64>,
    pub classes: Vec<ClassScores>,
}

/// The metrics of a model for one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    pub name: String,
    pub iou: Option<f64>,
    pub precision: Option<f64>,
    /// Also called the class's accuracy.
    pub recall: Option<f64>,
    pub boundary_f1: Option<f64>,
    /// Share of the labelled pixels, 0 to 1.
    pub share: f64,
}

impl Scores {
    /// Computes the metrics. `names` are those of the classes, by index.
    ///
    /// # Panics
    /// The number of names is not the number of classes.
    pub fn new(confusion: &ConfusionMatrix, boundary: Option<&BoundaryF1>, names: &[String]) -> Self {
        assert_eq!(names.len(), confusion.classes, "a name for each class");
        let boundary_f1 = boundary.map_or_else(|| vec![None; confusion.classes], BoundaryF1::classes);
        let (iou, precision, recall) = (confusion.iou(), confusion.precision(), confusion.recall());
        let (labelled, pixels) = (confusion.labelled(), confusion.pixels());
        let classes = names.iter().enumerate().map(|(class, name)| ClassScores {
            name: name.clone(),
            iou: iou[class],
            precision: precision[class],
            recall: recall[class],
            boundary_f1: boundary_f1[class],
            share: if pixels == 0 { 0.0 } else { labelled[class] as f64 / pixels as f64 },
        });
        Scores {
            miou: confusion.miou(),
            pixel_accuracy: confusion.pixel_accuracy(),
            class_accuracy: confusion.class_accuracy(),
            boundary_f1: boundary.and_then(BoundaryF1::mean),
            classes: classes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_same_after_json() {
        let mut confusion = ConfusionMatrix::new(3);
        confusion.add(&[0, 0, 1, 1], &[0, 1, 1, 1]).unwrap();
        let scores = Scores::new(&confusion, None, &["a", "b", "c"].map(String::from));
        assert_eq!(scores.classes[1].recall, Some(1.0));
        assert_eq!(scores.classes[0].share, 0.5);
        assert_eq!(scores.classes[2].iou, None);
        let text = serde_json::to_string(&scores).unwrap();
        assert!(text.contains(r#""boundary_f1":null"#));
        assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
    }
}
