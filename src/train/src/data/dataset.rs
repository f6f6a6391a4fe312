//! Opens and reads a data set.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maskcast::frame::Label;

use super::cache::ImageCache;
use super::coding::{CodingHints, LabelCoding};
use super::drawing::LabelSource;
use super::error::{DataError, DatasetProblem};
use super::format::{self, Format, Subset, SubsetRole};
use super::label_orientation::{self, LabelOrientation};
use super::orientation::Orientation;
use super::pair::{LabelledImage, Pair, Part, VOID};
use super::raw::RawLabel;
use super::sample::LabelSample;
use super::scan::Unpaired;
use super::source_class::{ClassFile, SourceClass};
use super::split::{self, SplitOptions};
use super::{class_file, image, lists};

/// Number of label images that are sampled if there is a class file.
const SAMPLE: usize = 16;
/// Number of label images that are sampled if there is no class file.
const SAMPLE_WITHOUT_CLASSES: usize = 64;
/// Number of label images that are sampled if a small sample is ambiguous.
const LARGE_SAMPLE: usize = 512;

/// A data set: its classes, the encoding of its labels, and its training, validation and test images.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub root: PathBuf,
    pub classes: Vec<Label>,
    pub train: Vec<Pair>,
    pub val: Vec<Pair>,
    /// The test images, if the data set has a test part.
    pub test: Vec<Pair>,
    /// Images in no part: between blocks of one recording in a generated split, not named by the lists, or with proposed labels.
    pub left_out: Vec<Pair>,
    pub format: Format,
    /// Images without a label and labels without an image.
    pub unpaired: Unpaired,
    /// Assumptions that were made, one sentence each, for display.
    pub notes: Vec<String>,
    /// Whether [`Dataset::open`] generated the split. Otherwise it comes from the data set or from lists.
    pub split_here: bool,
    pub(super) coding: LabelCoding,
    labels: Arc<LabelSource>,
    /// By image path: the EXIF orientation of images whose labels have the orientation of the stored image, so that the
    /// label must be rotated with it.
    pub(super) rotations: Arc<HashMap<PathBuf, Orientation>>,
    cache: Arc<ImageCache>,
}

/// Settings that replace what [`Dataset::open`] detects.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub format: Option<Format>,
    /// A class file that replaces the data set's own; it may contain only merges (`truck=car`).
    pub classes: Option<PathBuf>,
    /// Names or numbers of void classes, instead of the default names (void, ignore, unlabeled and others).
    pub void: Option<Vec<String>>,
    pub split: SplitOptions,
    /// A folder with `train.txt` and `val.txt` (and `test.txt`) as [`Dataset::write_lists`] writes them.
    pub lists: Option<PathBuf>,
    /// The orientation of the labels of images that have an EXIF orientation.
    pub label_orientation: LabelOrientation,
}

/// Reads the data set's class files. If there are several, they must define the same classes. Returns the classes and
/// the path of the first file.
fn read_class_files(paths: &[PathBuf]) -> Result<(Option<ClassFile>, Option<PathBuf>), DataError> {
    let mut own: Option<(ClassFile, &PathBuf)> = None;
    for path in paths {
        let file = class_file::read(path)?;
        match &own {
            Some((first, other)) if !same_classes(&first.classes, &file.classes) => {
                return Err(DataError::dataset(path, DatasetProblem::ClassFilesDiffer(other.to_path_buf())));
            }
            Some(_) => {}
            None => own = Some((file, path)),
        }
    }
    Ok(own.map_or((None, None), |(file, path)| (Some(file), Some(path.clone()))))
}

/// Whether two lists of classes assign the same names to the same numbers.
fn same_classes(a: &[SourceClass], b: &[SourceClass]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (&a.name, &a.values) == (&b.name, &b.values))
}

impl Dataset {
    /// Opens the data set in a folder. A part may be empty; see [`Dataset::part`].
    ///
    /// # Errors
    /// If the folder contains no data set, its class file or lists are invalid, or the encoding of its labels cannot be
    /// determined.
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
        Self::open_dataset(root, options, false)
    }

    /// [`Dataset::open`] for [`check`](super::check::check): if no label can be read, the data set is opened without classes instead
    /// of failing.
    ///
    /// # Errors
    /// The other errors of [`Dataset::open`].
    pub fn open_to_check(root: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
        Self::open_dataset(root, options, true)
    }

    fn open_dataset(root: &Path, options: &OpenOptions, allow_unreadable: bool) -> Result<Dataset, DataError> {
        let (root, format, mut found) = format::find(root, options.format)?;
        if found.count() == 0 {
            let (images, labels) = (found.unpaired.images.len(), found.unpaired.labels.len());
            let format = format.to_string();
            return Err(DataError::dataset(&root, DatasetProblem::NoPairs { images, labels, format }));
        }
        // With --classes, the data set's own class files may differ.
        let files = if options.classes.is_some() { 1 } else { found.class_files.len() };
        let (own, mut source) = read_class_files(&found.class_files[..files.min(found.class_files.len())])?;
        let ClassFile { classes, mut merges } = own.unwrap_or_default();
        let mut classes = Some(classes).filter(|classes| !classes.is_empty());
        if let Some(path) = &options.classes {
            let file = class_file::read(path)?;
            merges.extend(file.merges);
            if !file.classes.is_empty() {
                if found.labels.are_drawn() {
                    return Err(DataError::dataset(path, DatasetProblem::ClassesOfAnnotations));
                }
                (classes, source) = (Some(file.classes), Some(path.clone()));
            }
        }
        let labels = Arc::new(std::mem::take(&mut found.labels));
        let pairs: Vec<&Pair> = found.subsets.iter().flat_map(|subset| &subset.pairs).collect();
        let classes = classes.or(found.classes);
        let few = if classes.is_some() { SAMPLE } else { SAMPLE_WITHOUT_CLASSES };
        // All files of the sample may be damaged by chance. Only if no label can be read, opening fails.
        let sample =
            LabelSample::read(&pairs, &labels, few).or_else(|_| LabelSample::read(&pairs, &labels, usize::MAX));
        let sample = match sample {
            // Decides whether 255 is void or a class; see `coding`.
            Ok(sample) if sample.only_white() && classes.as_ref().is_some_and(|classes| classes.len() > 2) => {
                Ok(LabelSample::read(&pairs, &labels, LARGE_SAMPLE)?)
            }
            sample => sample,
        };
        let unread = class_file::find_unrecognized(&root);
        let hints = CodingHints {
            classes,
            merges: &merges,
            void: options.void.as_deref(),
            camvid: format == Format::Camvid,
            voc: format == Format::Voc,
            unread: unread.as_deref(),
            void_color: found.void_color,
        };
        let (coding, mut notes) = match sample {
            Ok(sample) => LabelCoding::decide(hints, &sample)
                .map_err(|error| DataError::dataset(source.as_ref().unwrap_or(&root), error))?,
            Err(_) if allow_unreadable => {
                (LabelCoding::without_labels(), vec!["no label image can be read: the classes are unknown".into()])
            }
            Err(first) if pairs.len() == 1 => return Err(first),
            Err(first) => {
                return Err(DataError::NoLabels { path: root, count: pairs.len(), first: Box::new(first) });
            }
        };
        let (rotations, rotation_notes) = label_orientation::find(&pairs, &labels, options.label_orientation)
            .map_err(|problem| DataError::dataset(&root, problem))?;
        notes.extend(rotation_notes);
        notes.append(&mut found.notes);
        let mut dataset = Dataset {
            classes: coding.table.classes.clone(),
            train: Vec::new(),
            val: Vec::new(),
            test: Vec::new(),
            left_out: Vec::new(),
            format,
            unpaired: found.unpaired,
            notes: Vec::new(),
            split_here: false,
            coding,
            labels,
            rotations: Arc::new(rotations),
            cache: Arc::default(),
            root,
        };
        dataset.assign_parts(found.subsets, options, &mut notes)?;
        let (images, labels) = (dataset.unpaired.images.len(), dataset.unpaired.labels.len());
        if images + labels > 0 {
            notes.push(format!(
                "excluded: {images} images without a label, {labels} labels without an image (`data check` lists them)"
            ));
        }
        dataset.notes = notes;
        Ok(dataset)
    }

    /// Assigns each subset to its part, or generates a split.
    fn assign_parts(
        &mut self,
        subsets: Vec<Subset>,
        options: &OpenOptions,
        notes: &mut Vec<String>,
    ) -> Result<(), DataError> {
        if let Some(lists) = &options.lists {
            let pairs: Vec<Pair> = subsets.into_iter().flat_map(|subset| subset.pairs).collect();
            return self.assign_from_lists(lists, pairs, notes);
        }
        let share = options.split.val_share;
        if !(share > 0.0 && share < 1.0) {
            return Err(DataError::dataset(&self.root, DatasetProblem::ValShare(share)));
        }
        let (mut open, mut proposed) = (Vec::new(), Vec::new());
        for subset in subsets {
            // A collection of the service: these frames await review, and training on a model's own labels would repeat its errors.
            if self.format == Format::Voc && subset.name == "proposed" {
                proposed.extend(subset.pairs);
                continue;
            }
            match SubsetRole::of(&subset.name) {
                SubsetRole::Train => self.train.extend(subset.pairs),
                SubsetRole::Val => self.val.extend(subset.pairs),
                SubsetRole::Test => self.test.extend(subset.pairs),
                SubsetRole::Unspecified => open.extend(subset.pairs),
            }
        }
        if options.split.resplit {
            self.train.append(&mut self.val);
        }
        self.train.append(&mut open);
        if self.val.is_empty() && self.train.len() > 1 {
            let split = split::make(std::mem::take(&mut self.train), &options.split);
            notes.push(split.description);
            self.split_here = true;
            (self.train, self.val, self.left_out) = (split.train, split.val, split.left_out);
        }
        if !proposed.is_empty() {
            notes.push(format!(
                "excluded: {} frames with proposed labels that are not accepted yet (ImageSets/Segmentation/proposed.txt); `data export` exports them",
                proposed.len()
            ));
            self.left_out.extend(proposed);
        }
        Ok(())
    }

    fn assign_from_lists(&mut self, dir: &Path, pairs: Vec<Pair>, notes: &mut Vec<String>) -> Result<(), DataError> {
        for (part, name) in [("train", "train.txt"), ("val", "val.txt"), ("test", "test.txt")] {
            let path = dir.join(name);
            if !path.is_file() {
                if part == "test" {
                    continue;
                }
                return Err(DataError::dataset(dir, DatasetProblem::ListMissing(name)));
            }
            let chosen = lists::select(&path, &self.root, &pairs)?;
            match part {
                "train" => self.train = chosen,
                "val" => self.val = chosen,
                _ => self.test = chosen,
            }
        }
        let named: HashSet<&str> =
            self.train.iter().chain(&self.val).chain(&self.test).map(|pair| pair.name.as_str()).collect();
        self.left_out = pairs.iter().filter(|pair| !named.contains(pair.name.as_str())).cloned().collect();
        if !self.left_out.is_empty() {
            notes.push(format!("{} images are in none of the lists in {}", self.left_out.len(), dir.display()));
        }
        Ok(())
    }

    /// Returns the images of a part.
    pub fn part(&self, part: Part) -> &[Pair] {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
            Part::Test => &self.test,
        }
    }

    /// Writes the split as `train.txt`, `val.txt` and, where there is one, `test.txt`, one name per line, for
    /// [`OpenOptions::lists`].
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_lists(&self, dir: &Path) -> Result<(), DataError> {
        let parts = Part::ALL.into_iter().filter(|part| *part != Part::Test || !self.test.is_empty());
        lists::write(dir, &parts.map(|part| (part.name(), self.part(part))).collect::<BTreeMap<_, _>>())
    }

    /// Replaces the cache of decoded images by an empty one of at most `bytes` bytes.
    pub fn keep(&mut self, bytes: usize) {
        self.cache = Arc::new(ImageCache::new(bytes));
    }

    /// Reads a pair from disk or from the cache.
    ///
    /// # Errors
    /// If a file is damaged, the sizes differ, or the label contains a value that belongs to no class.
    pub fn read(&self, pair: &Pair) -> Result<Arc<LabelledImage>, DataError> {
        if let Some(cache) = self.cache.get(&pair.image) {
            return Ok(cache);
        }
        let image = image::read(&pair.image)?;
        let (width, height, labels) = self.read_labels(pair)?;
        if (image.width, image.height) != (width, height) {
            return Err(DataError::SizeMismatch {
                image: pair.image.clone(),
                label: pair.label.clone(),
                image_size: (image.width, image.height),
                label_size: (width, height),
            });
        }
        let read = Arc::new(LabelledImage { width, height, rgb: image.rgb, labels });
        self.cache.add(&pair.image, &read);
        Ok(read)
    }

    /// Reads the label of a pair with the values of its file, rotated to the displayed orientation of its image.
    pub(super) fn raw(&self, pair: &Pair) -> Result<RawLabel, DataError> {
        let raw = self.labels.read(pair)?;
        Ok(match self.rotations.get(&pair.image) {
            Some(orientation) => raw.rotated(*orientation),
            None => raw,
        })
    }

    /// Reads only the label of a pair: width, height, and class indices or [`VOID`], `[height, width]`.
    ///
    /// # Errors
    /// If the file is damaged or contains a value that belongs to no class.
    pub fn read_labels(&self, pair: &Pair) -> Result<(usize, usize, Vec<u8>), DataError> {
        let raw = self.raw(pair)?;
        let mut labels = Vec::with_capacity(raw.width * raw.height);
        let mut unknown = None;
        self.coding.for_each_pixel(&raw, |at, class| {
            if class.is_none() {
                unknown.get_or_insert(at);
            }
            labels.push(class.unwrap_or(VOID));
        });
        if let Some(at) = unknown {
            let value = self.coding.value(&raw, at);
            return Err(DataError::UnknownValue {
                path: pair.label.clone(),
                value,
                x: at % raw.width,
                y: at / raw.width,
                help: self.coding.help(value),
            });
        }
        Ok((raw.width, raw.height, labels))
    }
}
