//! A teacher: a model that votes, with its class map.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use maskcast::config::{ModelConfig, Provider};
use maskcast::frame::Label;
use maskcast::segment::onnx::Model;
use maskcast::segment::scores::{PixelScores, Scored};
use maskcast::segment::segmenter::OnnxSegmenter;
use maskcast::segment::{ModelError, SegmentError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::class_map::{ClassMap, ClassMapError, MapFacts};
use super::views::{View, ViewOptions};
use super::votes::{Ballot, Slots, Votes};
use crate::data::Rgb8;
use crate::size::Size;

/// A model with its options, written `MODEL.onnx,map=FILE,weight=2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherSpec {
    pub model: PathBuf,
    /// The class map; `None` if the classes have the same names.
    pub map: Option<PathBuf>,
    /// Multiplies all votes.
    pub weight: f64,
}

/// Why a text is not a teacher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TeacherSpecError {
    #[error("write MODEL.onnx, MODEL.onnx,map=FILE or MODEL.onnx,map=FILE,weight=2")]
    NoModel,
    #[error("{0:?}: the options of a teacher are map=FILE and weight=NUMBER")]
    Option(String),
    #[error("weight={0}: write a number above 0, at most 1000")]
    Weight(String),
}

impl FromStr for TeacherSpec {
    type Err = TeacherSpecError;

    fn from_str(text: &str) -> Result<Self, TeacherSpecError> {
        let mut parts = text.split(',');
        let mut model = parts.next().unwrap_or_default().to_owned();
        let (mut map, mut weight) = (None, 1.0);
        for part in parts {
            match part.split_once('=') {
                Some(("map", file)) if !file.is_empty() => map = Some(PathBuf::from(file)),
                Some(("weight", number)) => {
                    let number = number.parse().ok().filter(|weight| (0.0..=1000.0).contains(weight) && *weight > 0.0);
                    weight = number.ok_or_else(|| TeacherSpecError::Weight(part["weight=".len()..].into()))?;
                }
                // A comma in the name of the model.
                None if !model.ends_with(".onnx") => model = format!("{model},{part}"),
                _ => return Err(TeacherSpecError::Option(part.into())),
            }
        }
        if model.is_empty() {
            return Err(TeacherSpecError::NoModel);
        }
        Ok(TeacherSpec { model: PathBuf::from(model), map, weight })
    }
}

/// Why a teacher cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    ClassMap(#[from] ClassMapError),
    #[error("{}: the model cannot be run: {source}", path.display())]
    Run { path: PathBuf, source: SegmentError },
    #[error("{}: OpenCV cannot scale an image or a mask: {source}", path.display())]
    Scale { path: PathBuf, source: opencv::Error },
}

/// A loaded model whose classes are not mapped yet.
pub struct LoadedModel {
    spec: TeacherSpec,
    model: Model,
    sha256: String,
}

/// A teacher.
pub struct Teacher {
    path: PathBuf,
    model: Model,
    input: Size,
    slots: Slots,
    pub map: ClassMap,
    pub facts: TeacherFacts,
}

/// A teacher in words, for the record of the settings and the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TeacherFacts {
    /// The file name.
    pub model: String,
    pub sha256: String,
    pub input: Size,
    #[serde(flatten)]
    pub map: MapFacts,
}

impl LoadedModel {
    /// Loads a model on the CPU.
    ///
    /// # Errors
    /// The model cannot be read or used.
    pub fn load(spec: TeacherSpec) -> Result<Self, TeacherError> {
        let config = ModelConfig { providers: vec![Provider::Cpu], ..ModelConfig::with_path(spec.model.clone()) };
        let model = Model::load(&config, 1)?;
        let bytes =
            std::fs::read(&spec.model).map_err(|source| TeacherError::Read { path: spec.model.clone(), source })?;
        let sha256 = hex(&Sha256::digest(bytes));
        Ok(LoadedModel { spec, model, sha256 })
    }

    /// The classes of the model.
    pub fn labels(&self) -> &[Label] {
        &self.model.contract.labels
    }

    /// The teacher for a data set with these classes.
    ///
    /// # Errors
    /// The class map cannot be used.
    pub fn teacher(self, classes: &[Label]) -> Result<Teacher, TeacherError> {
        let TeacherSpec { model: path, map, weight } = self.spec.clone();
        let map = ClassMap::new(&path, &self.model.contract.labels, map.as_deref(), classes, weight)?;
        Ok(self.mapped(path, map, classes))
    }
}

impl LoadedModel {
    /// The teacher for a data set with these classes, which may be others: classes are matched by name, and a class that the data
    /// set does not have is void.
    ///
    /// # Errors
    /// The class map cannot be used.
    pub fn teacher_by_name(mut self, classes: &[Label]) -> Result<Teacher, TeacherError> {
        if self.spec.map.is_some() {
            return self.teacher(classes);
        }
        let map = ClassMap::by_name(&self.model.contract.labels, classes, self.spec.weight);
        let model = std::mem::take(&mut self.spec.model);
        Ok(self.mapped(model, map, classes))
    }

    fn mapped(self, path: PathBuf, map: ClassMap, classes: &[Label]) -> Teacher {
        let LoadedModel { model, sha256, .. } = self;
        let input = Size::new(model.contract.input.width, model.contract.input.height);
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let facts = TeacherFacts { model: name, sha256, input, map: map.facts(&model.contract.labels, classes) };
        Teacher { path, model, input, slots: Slots { classes: classes.len() }, map, facts }
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Teacher {
    /// A session with one thread: images are labelled side by side.
    ///
    /// # Errors
    /// ONNX Runtime cannot open the model.
    pub fn segmenter(&self) -> Result<OnnxSegmenter, TeacherError> {
        self.model.segmenter(1).map_err(|source| TeacherError::Run { path: self.path.clone(), source })
    }

    /// Whether the teacher decides a class alone.
    pub fn is_decider(&self) -> bool {
        self.map.decides.contains(&true)
    }

    /// Adds the votes of all views of an image.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn vote(
        &self,
        segmenter: &mut OnnxSegmenter,
        image: &Rgb8,
        options: &ViewOptions,
        votes: &mut Votes,
    ) -> Result<(), TeacherError> {
        let size = Size::new(image.width, image.height);
        for view in options.views(size, self.input) {
            let input = view.cut(&image.rgb, size, self.input).map_err(self.scale_error())?;
            let run = segmenter.run_scored(&input);
            let scored = run.map_err(|source| TeacherError::Run { path: self.path.clone(), source })?;
            self.add(&view, scored, votes).map_err(self.scale_error())?;
        }
        Ok(())
    }

    /// For `map_err` on errors of OpenCV.
    pub fn scale_error(&self) -> impl Fn(opencv::Error) -> TeacherError {
        |source| TeacherError::Scale { path: self.path.clone(), source }
    }

    /// Adds the vote of one view.
    fn add(&self, view: &View, scored: Scored, votes: &mut Votes) -> opencv::Result<()> {
        let of = Size::new(scored.width, scored.height);
        match scored.scores {
            PixelScores::Classes { classes, confidence } => {
                let slots: Vec<u8> = classes.iter().map(|&class| self.slot_of(class)).collect();
                let slots = view.place_nearest(&slots, of)?;
                let confidence = confidence.map(|values| view.place_nearest(&values, of)).transpose()?;
                votes.add(view, Ballot::Mask { slots: &slots, confidence: confidence.as_deref() }, &self.map.weights);
            }
            PixelScores::Probabilities(planes) => {
                let pixels = of.area();
                // The probabilities are added up before they are scaled: a data set often has fewer classes than a teacher.
                let mut by_slot = vec![0.0f32; self.slots.count() * pixels];
                for (plane, &slot) in planes.chunks_exact(pixels).zip(&self.map.slots) {
                    let sums = &mut by_slot[usize::from(slot) * pixels..][..pixels];
                    sums.iter_mut().zip(plane).for_each(|(sum, probability)| *sum += probability);
                }
                let mut placed = Vec::with_capacity(self.slots.count() * view.width * view.height);
                for plane in by_slot.chunks_exact(pixels) {
                    placed.extend(view.place_linear(plane, of)?);
                }
                votes.add(view, Ballot::Probabilities(&placed), &self.map.weights);
            }
        }
        Ok(())
    }

    /// The probabilities of the classes of the data set for the pixels of a whole image, `[classes, height, width]`, and their size,
    /// which is that of the scores of the model. A model without scores gives its class the probability 1, or that of its output
    /// `confidence`. Pixels whose probabilities add up to less than 1 have a class that is not in the data set.
    ///
    /// # Errors
    /// The model cannot be run.
    pub fn probabilities(
        &self,
        segmenter: &mut OnnxSegmenter,
        rgb: &[u8],
        size: Size,
    ) -> Result<(Vec<f32>, Size), TeacherError> {
        let mut scaled = Vec::new();
        for view in ViewOptions::whole().views(size, self.input) {
            scaled = view.cut(rgb, size, self.input).map_err(self.scale_error())?;
        }
        let run = segmenter.run_probabilities(&scaled);
        let scored = run.map_err(|source| TeacherError::Run { path: self.path.clone(), source })?;
        let of = Size::new(scored.width, scored.height);
        let pixels = of.area();
        let mut planes = vec![0.0f32; self.slots.classes * pixels];
        match scored.scores {
            PixelScores::Classes { classes, confidence } => {
                for (pixel, &class) in classes.iter().enumerate() {
                    let slot = usize::from(self.slot_of(class));
                    if slot < self.slots.classes {
                        planes[slot * pixels + pixel] = confidence.as_ref().map_or(1.0, |confidence| confidence[pixel]);
                    }
                }
            }
            PixelScores::Probabilities(all) => {
                for (plane, &slot) in all.chunks_exact(pixels).zip(&self.map.slots) {
                    if let Some(sums) = planes.chunks_exact_mut(pixels).nth(usize::from(slot)) {
                        sums.iter_mut().zip(plane).for_each(|(sum, probability)| *sum += probability);
                    }
                }
            }
        }
        Ok((planes, of))
    }

    /// How strongly the teacher counts beside others.
    pub fn weight(&self) -> f32 {
        self.map.weights.first().copied().unwrap_or(1.0)
    }

    /// The slot of a class of the model. Indices without a label are votes for no class.
    fn slot_of(&self, class: u8) -> u8 {
        self.map.slots.get(usize::from(class)).copied().unwrap_or(self.slots.void() as u8)
    }

    /// The model's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_are_written_with_their_options() {
        let spec = |model: &str, map: Option<&str>, weight| TeacherSpec {
            model: model.into(),
            map: map.map(PathBuf::from),
            weight,
        };
        assert_eq!("a.onnx".parse(), Ok(spec("a.onnx", None, 1.0)));
        assert_eq!("a,b.onnx,map=m.toml,weight=0.5".parse(), Ok(spec("a,b.onnx", Some("m.toml"), 0.5)));
        assert_eq!("".parse::<TeacherSpec>(), Err(TeacherSpecError::NoModel));
        for text in ["a.onnx,maps=b", "a.onnx,b", "a.onnx,map="] {
            assert!(matches!(text.parse::<TeacherSpec>(), Err(TeacherSpecError::Option(_))), "{text}");
        }
        for number in ["0", "-1", "x", "nan", "1001"] {
            let text = format!("a.onnx,weight={number}");
            assert_eq!(text.parse::<TeacherSpec>(), Err(TeacherSpecError::Weight(number.into())));
        }
    }
}
