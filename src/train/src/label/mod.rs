//! Makes label masks of images by the votes of models: proposals for training, and for people to correct.
//!
//! Each teacher ([`Teacher`]) sees several views of an image (`views`) and votes for the class of each pixel (`votes`). Pixels
//! without enough agreement are void. Averaging over views and models, and leaving out pixels that they do not agree on, makes
//! pseudo-labels better than the prediction of one model (Xie et al., Self-training with Noisy Student, 2020; Radosavovic
//! et al., Data Distillation, 2018).

mod class_map;
mod output;
mod teacher;
mod views;
mod votes;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use maskcast::frame::Label;
use maskcast::segment::segmenter::OnnxSegmenter;
use serde_json::{Value, json};

pub use output::{ImageFiles, MaskState, OutputError};
pub use teacher::{LoadedModel, Teacher, TeacherError, TeacherSpec};
pub use views::{Tiles, ViewOptions};

use crate::data::{BareImage, DataError, Rgb8, VOID};
use crate::ordered::OrderedResults;
use crate::size::Size;
use output::OutputFolder;
use votes::{Decisions, Slots, Votes, decide, remove_specks};

/// How votes become masks.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelOptions {
    pub views: ViewOptions,
    /// The share of the votes that a class needs, above 0, at most 1.
    pub agree: f64,
    /// The number of pixels that a connected area needs.
    pub min_area: usize,
    /// A folder with a mask for each image: its labelled pixels are kept, and the models label the void ones.
    pub fill: Option<PathBuf>,
}

impl LabelOptions {
    /// Returns a message for each invalid option.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.views.problems();
        if !(self.agree > 0.0 && self.agree <= 1.0) {
            problems.push(format!("--agree {}: must be above 0, at most 1", self.agree));
        }
        problems
    }
}

/// Why labelling ends early.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    #[error("cannot start a thread that labels images: {0}; check the limit of processes (`ulimit -u`)")]
    Thread(std::io::Error),
}

/// Why an image gets no mask.
#[derive(Debug, thiserror::Error)]
pub enum SkippedImage {
    #[error(transparent)]
    Unreadable(#[from] DataError),
    #[error("{name}: another image of this name has been labelled into the folder; rename one of them")]
    NameTaken { name: String },
    #[error("{}: there is no 8-bit PNG with one value per pixel for {name}; --fill needs a mask for each image", path.display())]
    NoMask { name: String, path: PathBuf },
    #[error("{}: the mask has {}x{} pixels, the image {name} has {}x{}", path.display(), mask.0, mask.1, image.0, image.1)]
    MaskSize { name: String, path: PathBuf, mask: (usize, usize), image: (usize, usize) },
}

/// What was done for an image.
#[derive(Debug)]
pub enum ImageResult {
    /// The mask was made, `[height, width]`.
    Labelled(Vec<u8>),
    /// A mask existed and was kept; `true` if it was edited.
    Kept(bool),
    Skipped(SkippedImage),
}

/// Makes masks of images.
pub struct Labeller {
    teachers: Vec<Teacher>,
    classes: Vec<Label>,
    options: LabelOptions,
}

/// The sessions of a thread, one for each teacher.
type Sessions = Vec<OnnxSegmenter>;

impl Labeller {
    /// Labels with `teachers`, whose class maps are for `classes`.
    pub fn new(teachers: Vec<Teacher>, classes: Vec<Label>, options: LabelOptions) -> Self {
        Labeller { teachers, classes, options }
    }

    /// The settings that the masks depend on, for the record in the folder.
    pub fn settings(&self) -> Value {
        let teachers: Vec<_> = self.teachers.iter().map(|teacher| &teacher.facts).collect();
        let mut settings = json!({
            "classes": self.classes.iter().map(|label| &label.name).collect::<Vec<_>>(),
            "teachers": teachers,
            "views": self.options.views,
            "agree": self.options.agree,
            "min_area": self.options.min_area,
        });
        if let Some(fill) = &self.options.fill {
            settings["fill"] = fill.display().to_string().into();
        }
        settings
    }

    /// The teachers.
    pub fn teachers(&self) -> &[Teacher] {
        &self.teachers
    }

    /// The classes that no teacher votes for.
    pub fn unseen(&self) -> Vec<&str> {
        let seen = |class: usize| self.teachers.iter().any(|teacher| teacher.map.slots.contains(&(class as u8)));
        let classes = self.classes.iter().enumerate().filter(|(class, _)| !seen(*class));
        classes.map(|(_, label)| label.name.as_str()).collect()
    }

    /// The mask of an image, `[height, width]`.
    ///
    /// # Errors
    /// A model cannot be run.
    fn mask(&self, image: &Rgb8, sessions: &mut Sessions) -> Result<Vec<u8>, TeacherError> {
        let (slots, size) = (Slots { classes: self.classes.len() }, Size::new(image.width, image.height));
        let mut all = Votes::new(slots, size);
        let mut deciders = Vec::new();
        for (teacher, session) in self.teachers.iter().zip(sessions) {
            if teacher.is_decider() {
                let mut own = Votes::new(slots, size);
                teacher.vote(session, image, &self.options.views, &mut own)?;
                all.merge(&own);
                deciders.push((own, teacher));
            } else {
                teacher.vote(session, image, &self.options.views, &mut all)?;
            }
        }
        let decisions: Vec<_> =
            deciders.iter().map(|(votes, teacher)| Decisions { votes, decides: &teacher.map.decides }).collect();
        let mut mask = decide(&all, &decisions, self.options.agree as f32);
        remove_specks(&mut mask, image.width, self.options.min_area);
        Ok(mask)
    }

    /// The mask of an image in the folder of [`LabelOptions::fill`], `[height, width]`.
    fn known_labels(&self, image: &BareImage, pixels: &Rgb8) -> Result<Option<Vec<u8>>, SkippedImage> {
        let Some(folder) = &self.options.fill else { return Ok(None) };
        let (name, path) = (image.name.clone(), folder.join(format!("{}.png", image.stem())));
        let Some((width, height, labels)) = read_mask(&path) else {
            return Err(SkippedImage::NoMask { name, path });
        };
        if (width, height) != (pixels.width, pixels.height) {
            let image = (pixels.width, pixels.height);
            return Err(SkippedImage::MaskSize { name, path, mask: (width, height), image });
        }
        Ok(Some(labels))
    }

    fn sessions(&self) -> Result<Sessions, TeacherError> {
        self.teachers.iter().map(Teacher::segmenter).collect()
    }

    /// Labels an image, unless it has a mask.
    fn label(&self, image: &BareImage, output: &OutputFolder, idle: &Idle) -> Result<ImageResult, LabelError> {
        let state = output.state(image)?;
        if state != MaskState::Missing {
            if output.holds_another(image) {
                return Ok(ImageResult::Skipped(SkippedImage::NameTaken { name: image.name.clone() }));
            }
            return Ok(ImageResult::Kept(state == MaskState::Changed));
        }
        let pixels = match image.read() {
            Ok(pixels) => pixels,
            Err(error) => return Ok(ImageResult::Skipped(error.into())),
        };
        let known = match self.known_labels(image, &pixels) {
            Ok(known) => known,
            Err(skipped) => return Ok(ImageResult::Skipped(skipped)),
        };
        let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut sessions = waiting.map_or_else(|| self.sessions(), Ok)?;
        let mut mask = self.mask(&pixels, &mut sessions)?;
        if let Some(known) = known {
            let is_known = |(_, label): &(&mut u8, u8)| *label != VOID;
            mask.iter_mut().zip(known).filter(is_known).for_each(|(proposed, label)| *proposed = label);
        }
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(sessions);
        output.write(image, &pixels, &mask)?;
        Ok(ImageResult::Labelled(mask))
    }
}

/// Sessions that no thread uses.
type Idle = Mutex<Vec<Sessions>>;

/// Where the proposals are written.
#[derive(Clone, Debug)]
pub struct Destination {
    pub folder: PathBuf,
    pub files: ImageFiles,
    /// Make all masks again that people have not changed.
    pub redo: bool,
}

/// Labels `images`, which are in the folder `source`, on `threads` threads. Calls `show` with each image in their order, and
/// with the path of its mask and of its copy.
///
/// # Errors
/// The folder cannot be used or written, or a model cannot be run. Images that cannot be read are not errors.
pub fn label_images(
    labeller: Arc<Labeller>,
    source: &Path,
    images: Vec<BareImage>,
    destination: &Destination,
    threads: usize,
    mut show: impl FnMut(LabelledFile),
) -> Result<(), LabelError> {
    let Destination { folder, files, redo } = destination;
    let output = OutputFolder::open(folder, source, &labeller.classes, &labeller.settings(), *files, *redo)?;
    let output = Arc::new(output);
    let threads = threads.clamp(1, images.len().max(1));
    let idle: Idle = Mutex::default();
    let shared = Arc::clone(&output);
    let work = move |image: BareImage| {
        let result = labeller.label(&image, &shared, &idle);
        (image, result)
    };
    let results =
        OrderedResults::start("label", threads, threads + 1, images.into_iter(), work).map_err(LabelError::Thread)?;
    for (image, result) in results {
        let (mask_path, image_path) = (output.mask_path(&image), output.image_path(&image));
        show(LabelledFile { name: image.name, image_path, mask_path, result: result? });
    }
    Ok(())
}

/// An image and its mask in the folder of proposals.
#[derive(Debug)]
pub struct LabelledFile {
    pub name: String,
    pub image_path: PathBuf,
    pub mask_path: PathBuf,
    pub result: ImageResult,
}

/// Reads a mask as it is stored: class indices and [`VOID`], `[height, width]`. `None` if it is not an 8-bit PNG with one value a
/// pixel, as some editors write masks.
pub fn read_mask(path: &Path) -> Option<(usize, usize, Vec<u8>)> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).ok()?));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().ok()?;
    let one_byte = matches!(reader.info().color_type, png::ColorType::Grayscale | png::ColorType::Indexed)
        && reader.info().bit_depth == png::BitDepth::Eight;
    if !one_byte {
        return None;
    }
    let mut data = vec![VOID; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut data).ok()?;
    data.truncate(info.buffer_size());
    Some((info.width as usize, info.height as usize, data))
}
