//! ExportedModel models as the trainer's predictor: run by ONNX Runtime through the service's own code.

use std::path::Path;
use std::time::{Duration, Instant};

use maskcast::config::{ModelConfig, Provider};
use maskcast::frame::Label;
use maskcast::segment::onnx::Model;
use maskcast::segment::segmenter::OnnxSegmenter;

use super::data::LabelledImage;
use super::evaluate::{EvaluateError, Prediction, Predictor};
use super::report::Speed;
use super::size::Size;

/// An ONNX model.
pub struct ExportedModel {
    pub model: Model,
    segmenter: OnnxSegmenter,
    size: Size,
    /// The data set's class for each of the model's.
    classes: Vec<u8>,
    threads: usize,
}

impl ExportedModel {
    /// Loads a model on the CPU for a data set with these classes. Classes are recognised by their names; where the
    /// model and the data set share none, by their numbers.
    ///
    /// # Errors
    /// If the model cannot be loaded, or has other classes.
    pub fn load(path: &Path, classes: &[Label], threads: usize) -> Result<Self, EvaluateError> {
        let config = ModelConfig { providers: vec![Provider::Cpu], ..ModelConfig::with_path(path.to_owned()) };
        let model = Model::load(&config, threads).map_err(|error| EvaluateError::Model(error.to_string()))?;
        let segmenter = model.segmenter(threads).map_err(|error| EvaluateError::Model(error.to_string()))?;
        let classes = class_map(&model.contract.labels, classes)
            .map_err(|problem| EvaluateError::Model(format!("{}: {problem}", path.display())))?;
        let size = Size::new(model.contract.input.width, model.contract.input.height);
        Ok(ExportedModel { model, segmenter, size, classes, threads })
    }

    /// Times the model on a grey image.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn time(&mut self, runs: usize) -> Result<(Duration, Duration), EvaluateError> {
        let mut times = Vec::with_capacity(runs);
        // The first runs allocate.
        for run in 0..runs + 2 {
            let begun = Instant::now();
            self.segmenter.run_grey().map_err(|error| EvaluateError::Model(error.to_string()))?;
            if run >= 2 {
                times.push(begun.elapsed());
            }
        }
        times.sort_unstable();
        Ok((times[runs / 2], times[(runs * 95 / 100).min(runs - 1)]))
    }

    /// [`ExportedModel::time`] as reports have it.
    ///
    /// # Errors
    /// If it cannot be run.
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
            self.segmenter.run_rgb(&image.rgb, 1).map_err(|error| EvaluateError::Model(error.to_string()))?;
        for class in &mut mask {
            // The contract's check at load has seen that the model has no more classes than labels.
            *class = self.classes.get(usize::from(*class)).copied().unwrap_or(*class);
        }
        let mask = super::augment::resize_mask(&mask, Size::new(width, height), self.size)
            .map_err(|error| EvaluateError::Model(error.to_string()))?;
        Ok(Prediction { mask, confidence: None, loss: None })
    }
}

/// The data set's class for each of the model's.
fn class_map(model: &[Label], data: &[Label]) -> Result<Vec<u8>, String> {
    let place = |name: &str| data.iter().position(|label| label.name.eq_ignore_ascii_case(name));
    let found: Vec<Option<usize>> = model.iter().map(|label| place(&label.name)).collect();
    let names = |labels: &[Label]| labels.iter().map(|label| label.name.clone()).collect::<Vec<_>>().join(", ");
    if found.iter().all(Option::is_none) && model.len() == data.len() {
        tracing::warn!(
            "the model and the data set have different class names; classes are matched by their order: the model has \
             {}",
            names(model)
        );
        return Ok((0..data.len()).map(|class| class as u8).collect());
    }
    let known: Option<Vec<u8>> = found.iter().map(|class| class.map(|class| class as u8)).collect();
    known.filter(|classes| classes.len() == data.len()).ok_or_else(|| {
        format!(
            "the model has the classes {}, the data set has {}. Pass a file with the model's class names (--classes \
             FILE), or evaluate on another data set",
            names(model),
            names(data)
        )
    })
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;

    use super::*;

    fn labels(names: &str) -> Vec<Label> {
        names.split_whitespace().map(|name| Label { name: name.into(), color: Rgb(0, 0, 0) }).collect()
    }

    #[test]
    fn classes_are_matched_by_name() {
        assert_eq!(class_map(&labels("road Sky car"), &labels("sky car road")), Ok(vec![2, 0, 1]));
        assert_eq!(class_map(&labels("a b"), &labels("x y")), Ok(vec![0, 1]));
        assert!(class_map(&labels("road sky"), &labels("road car")).unwrap_err().contains("road, car"));
        assert!(class_map(&labels("road sky"), &labels("road")).is_err());
    }
}
