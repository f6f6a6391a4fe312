//! Runs exported models with ONNX Runtime and the code of the service.

use std::path::Path;
use std::time::{Duration, Instant};

use maskcast::config::{ModelConfig, Provider};
use maskcast::frame::{Frame, Label, Mask};
use maskcast::segment::onnx::Model;
use maskcast::segment::segmenter::OnnxSegmenter;
use maskcast::segment::{SegmentError, Segmenter};

use crate::augment::resize_mask;
use crate::data::LabelledImage;
use crate::evaluate::{ClassMismatch, EvaluateError, Prediction, Predictor};
use crate::report::Speed;
use crate::size::Size;

/// An exported model in ONNX Runtime.
pub struct ExportedModel {
    pub model: Model,
    segmenter: OnnxSegmenter,
    size: Size,
    /// For each class of the model, the class of the data set.
    classes: Vec<u8>,
    threads: usize,
}

impl ExportedModel {
    /// Loads a model on the CPU for a data set with these classes. Classes are matched by name. If no name is in both, they
    /// are matched by index.
    ///
    /// # Errors
    /// The model cannot be loaded, or has other classes.
    pub fn load(path: &Path, classes: &[Label], threads: usize) -> Result<Self, EvaluateError> {
        let config = ModelConfig { providers: vec![Provider::Cpu], ..ModelConfig::with_path(path.to_owned()) };
        let model = Model::load(&config, threads).map_err(|error| EvaluateError::Model(error.into()))?;
        let segmenter = model.segmenter(threads).map_err(|error| EvaluateError::Model(error.into()))?;
        let classes = class_map(&model.contract.labels, classes)
            .map_err(|error| EvaluateError::Classes { path: path.to_owned(), error })?;
        let size = Size::new(model.contract.input.width, model.contract.input.height);
        Ok(ExportedModel { model, segmenter, size, classes, threads })
    }

    /// The median and the 95th percentile of the time for a grey image.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn time(&mut self, runs: usize) -> Result<(Duration, Duration), EvaluateError> {
        let mut times = Vec::with_capacity(runs);
        // The first two runs allocate memory.
        for run in 0..runs + 2 {
            let start = Instant::now();
            self.segmenter.run_grey().map_err(|error| EvaluateError::Model(error.into()))?;
            if run >= 2 {
                times.push(start.elapsed());
            }
        }
        times.sort_unstable();
        Ok((times[runs / 2], times[(runs * 95 / 100).min(runs - 1)]))
    }

    /// The mask of one frame, with the classes of the model, as the service makes it.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn mask(&mut self, frame: &Frame) -> Result<Mask, EvaluateError> {
        let failed = |error| EvaluateError::Model(Box::new(error));
        let segmented = self.segmenter.segment(std::slice::from_ref(frame)).map_err(failed)?;
        segmented.masks.into_iter().next().ok_or_else(|| failed(SegmentError::MaskCount { masks: 0, frames: 1 }))
    }

    /// Measures the speed for a report. `precision` and `miou` are stored as given.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn speed(&mut self, precision: &str, miou: Option<f64>) -> Result<Speed, EvaluateError> {
        let (median, p95) = self.time(20)?;
        let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
        Ok(Speed {
            model: self.model.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            precision: precision.to_owned(),
            provider: self.model.provider.name().to_owned(),
            threads: self.threads,
            size: (self.size.width as u32, self.size.height as u32),
            median_ms: milliseconds(median),
            p95_ms: milliseconds(p95),
            miou,
        })
    }
}

impl Predictor for ExportedModel {
    fn input(&self) -> Size {
        self.size
    }

    fn predict(&mut self, image: &LabelledImage) -> Result<Prediction, EvaluateError> {
        let (mut mask, (width, height)) =
            self.segmenter.run_rgb(&image.rgb, 1).map_err(|error| EvaluateError::Model(error.into()))?;
        for class in &mut mask {
            // A loaded model has no more classes than labels.
            *class = self.classes.get(usize::from(*class)).copied().unwrap_or(*class);
        }
        let mask = resize_mask(&mask, Size::new(width, height), self.size)
            .map_err(|error| EvaluateError::Model(error.into()))?;
        Ok(Prediction { mask, confidence: None, loss: None })
    }
}

/// For each class of the model, the class of the data set.
fn class_map(model: &[Label], data: &[Label]) -> Result<Vec<u8>, ClassMismatch> {
    let class_of = |name: &str| data.iter().position(|label| label.name.eq_ignore_ascii_case(name));
    let found: Vec<Option<usize>> = model.iter().map(|label| class_of(&label.name)).collect();
    let names = |labels: &[Label]| labels.iter().map(|label| label.name.clone()).collect::<Vec<_>>();
    if found.iter().all(Option::is_none) && model.len() == data.len() {
        tracing::warn!(
            "the model and the data set have no class name in common; classes are matched by index. Classes of the model: {}",
            names(model).join(", ")
        );
        return Ok((0..data.len()).map(|class| class as u8).collect());
    }
    let known: Option<Vec<u8>> = found.iter().map(|class| class.map(|class| class as u8)).collect();
    let complete = known.filter(|classes| classes.len() == data.len());
    complete.ok_or_else(|| ClassMismatch { model: names(model), data: names(data) })
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;

    use super::*;

    fn labels(names: &str) -> Vec<Label> {
        names.split_whitespace().map(|name| Label::new(name, Rgb(0, 0, 0))).collect()
    }

    #[test]
    fn classes_are_matched_by_name() {
        assert_eq!(class_map(&labels("road Sky car"), &labels("sky car road")), Ok(vec![2, 0, 1]));
        assert_eq!(class_map(&labels("a b"), &labels("x y")), Ok(vec![0, 1]));
        for data in ["road car", "road"] {
            let error = class_map(&labels("road sky"), &labels(data)).unwrap_err();
            assert_eq!((error.model.join(" "), error.data.join(" ")), ("road sky".into(), data.into()));
        }
    }
}
