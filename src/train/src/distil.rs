//! Distillation: teachers, which are models in ONNX Runtime, give the probabilities of the classes for each training image after
//! its augmentation, and the loss compares the trained network with them (Hinton et al., *Distilling the Knowledge in a Neural
//! Network*, 2015). With the model that a run starts from as the teacher, it limits what the run forgets (Li and Hoiem, *Learning
//! without Forgetting*, ECCV 2016).
//!
//! Teachers run in the threads that load images, each with one thread, so that runs stay reproducible.

use std::sync::{Mutex, PoisonError};

use clap::{Args, ValueEnum};
use maskcast::frame::Label;
use maskcast::segment::segmenter::OnnxSegmenter;
use serde::{Deserialize, Serialize};

use crate::augment::resize_plane;
use crate::data::{LabelledImage, VOID};
use crate::label::{LoadedModel, Teacher, TeacherError, TeacherSpec};
use crate::size::Size;

/// Options of the distillation.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Distillation")]
#[serde(default)]
pub struct DistilOptions {
    /// Also learn the probabilities that this model gives the classes of the training images. Classes are matched by name, or by
    /// a map file as for `label --teacher`. Of several teachers, the weighted mean is learned
    #[arg(long = "teacher", value_name = "MODEL.onnx[,map=FILE][,weight=N]")]
    pub teachers: Vec<TeacherSpec>,
    /// Weight of the distillation in the loss
    #[arg(long, default_value_t = WEIGHT, value_name = "WEIGHT")]
    pub distil: f64,
    /// Temperature of the probabilities: above 1, the less probable classes count more
    #[arg(long, default_value_t = TEMPERATURE, value_name = "T")]
    pub temperature: f64,
    /// Pixels of the training images that learn from the teachers; images of --replay learn from them everywhere
    #[arg(long, value_enum, default_value_t)]
    pub distil_on: DistilOn,
    /// Whether classes of a teacher that the data set does not have are ignored instead of an error.
    #[arg(skip)]
    pub by_name: bool,
}

const WEIGHT: f64 = 1.0;
const TEMPERATURE: f64 = 2.0;

impl Default for DistilOptions {
    fn default() -> Self {
        DistilOptions {
            teachers: Vec::new(),
            distil: WEIGHT,
            temperature: TEMPERATURE,
            distil_on: DistilOn::All,
            by_name: false,
        }
    }
}

/// Which pixels learn from the teachers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DistilOn {
    /// All pixels
    #[default]
    All,
    /// Pixels without a label
    Void,
    /// Pixels without a label, and those whose label is the most probable class of the teachers
    Agreed,
}

impl DistilOptions {
    /// Returns a message for each invalid option.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(self.distil.is_finite() && self.distil >= 0.0) {
            problems.push(format!("--distil {}: must be 0 or more", self.distil));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.1 && self.temperature <= 100.0) {
            problems.push(format!("--temperature {}: must be from 0.1 to 100", self.temperature));
        }
        problems
    }
}

/// The probabilities that the teachers give to the pixels of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftLabels {
    pub size: Size,
    /// `[classes, height, width]`; they add up to 1 in each pixel with a weight above 0.
    pub probabilities: Vec<f32>,
    /// How much each pixel counts, `[height, width]`, 0 to 1: the share of the probability that the classes of the data set got; 0
    /// where the pixel does not learn from the teachers.
    pub weights: Vec<f32>,
}

/// The teachers of a run.
pub struct Teachers {
    teachers: Vec<Teacher>,
    classes: usize,
    on: DistilOn,
    /// Sessions that no thread uses, one for each teacher.
    idle: Mutex<Vec<Vec<OnnxSegmenter>>>,
}

impl Teachers {
    /// Loads the teachers for these classes; `None` if there are none.
    ///
    /// # Errors
    /// A model or a class map cannot be used.
    pub fn load(options: &DistilOptions, classes: &[Label]) -> Result<Option<Self>, TeacherError> {
        let mut teachers = Vec::new();
        for spec in &options.teachers {
            let model = LoadedModel::load(spec.clone())?;
            teachers.push(if options.by_name { model.teacher_by_name(classes)? } else { model.teacher(classes)? });
        }
        let (classes, on) = (classes.len(), options.distil_on);
        Ok((!teachers.is_empty()).then(|| Teachers { teachers, classes, on, idle: Mutex::default() }))
    }

    /// The soft labels of a training image; `None` if no pixel learns from the teachers. With `everywhere`, all pixels do.
    ///
    /// # Errors
    /// A model cannot be run.
    pub fn soft_labels(&self, piece: &LabelledImage, everywhere: bool) -> Result<Option<SoftLabels>, TeacherError> {
        let only_void = self.on == DistilOn::Void && !everywhere;
        if only_void && !piece.labels.contains(&VOID) {
            return Ok(None);
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut sessions = match idle {
            Some(sessions) => sessions,
            None => self.teachers.iter().map(Teacher::segmenter).collect::<Result<_, _>>()?,
        };
        let of = Size::new(piece.width, piece.height);
        // The scores of models of the trainer have half the size of the input.
        let size = Size::new((piece.width / 2).max(1), (piece.height / 2).max(1));
        let mut sums = vec![0.0f32; self.classes * size.area()];
        let total: f32 = self.teachers.iter().map(Teacher::weight).sum();
        for (teacher, session) in self.teachers.iter().zip(&mut sessions) {
            let (planes, from) = teacher.probabilities(session, &piece.rgb, of)?;
            for (sums, plane) in sums.chunks_exact_mut(size.area()).zip(planes.chunks_exact(from.area())) {
                let plane = resize_plane(plane, from, size).map_err(teacher.scale_error())?;
                sums.iter_mut().zip(plane).for_each(|(sum, value)| *sum += value * teacher.weight() / total);
            }
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sessions);
        let mut soft = SoftLabels { size, weights: vec![0.0; size.area()], probabilities: sums };
        soft.normalise(self.classes);
        if self.on != DistilOn::All && !everywhere {
            for pixel in 0..size.area() {
                let (x, y) = (pixel % size.width, pixel / size.width);
                let at = (y * piece.height / size.height) * piece.width + x * piece.width / size.width;
                let label = piece.labels[at];
                let learns = label == VOID || self.on == DistilOn::Agreed && soft.best(pixel, self.classes) == label;
                if !learns {
                    soft.weights[pixel] = 0.0;
                }
            }
        }
        Ok(Some(soft))
    }
}

impl SoftLabels {
    /// The most probable class of a pixel.
    fn best(&self, pixel: usize, classes: usize) -> u8 {
        let of = |class: usize| self.probabilities[class * self.size.area() + pixel];
        (1..classes).fold(0, |best, class| if of(class) > of(best) { class } else { best }) as u8
    }

    /// Divides the probabilities of each pixel by their sum, which becomes its weight.
    fn normalise(&mut self, classes: usize) {
        let pixels = self.size.area();
        for pixel in 0..pixels {
            let sum: f32 = (0..classes).map(|class| self.probabilities[class * pixels + pixel]).sum();
            if sum > 1e-3 {
                self.weights[pixel] = sum.min(1.0);
                (0..classes).for_each(|class| self.probabilities[class * pixels + pixel] /= sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_of_a_pixel_is_the_probability_of_known_classes() {
        let mut soft = SoftLabels {
            size: Size::new(3, 1),
            probabilities: vec![0.25, 0.5, 0.0, 0.25, 0.5, 0.0],
            weights: vec![0.0; 3],
        };
        soft.normalise(2);
        assert_eq!(soft.weights, [0.5, 1.0, 0.0]);
        assert_eq!(soft.probabilities, [0.5, 0.5, 0.0, 0.5, 0.5, 0.0]);
    }
}
