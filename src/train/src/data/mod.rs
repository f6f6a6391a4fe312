//! Labelled pictures on disk.
//!
//! [`Dataset::open`] finds out how a folder is laid out ([`Format`]), which classes it has and how its label pictures name
//! them, and which pictures are for training and which for validation. It looks into a few label pictures only, so that
//! thousands are no matter; [`check::check`] looks into all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maskcast::frame::Label;

pub mod check;
mod class_file;
mod class_json;
pub mod cli;
mod coding;
mod colors;
mod drawn;
mod error;
mod fingerprint;
mod format;
mod hash;
mod kept;
mod known;
mod lists;
mod orientation;
mod picture;
mod raw;
mod sample;
mod scan;
mod sequence;
mod split;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turned;

pub use cli::DataArgs;
pub use error::{DataError, Value};
pub use format::Format;
pub use hash::Likeness;
pub use scan::Unpaired;
pub use split::{BySequence, SplitOptions};
pub use turned::LabelOrientation;

use class_file::SourceClass;
use coding::{Coding, Hints};
use drawn::Labels;
use format::Role;
use kept::Kept;
use orientation::Orientation;
use raw::Raw;
use sample::Sample;

/// The label of a pixel that counts neither in the loss nor in the metrics, whatever the data set calls it.
pub const VOID: u8 = 255;

/// Label pictures that are looked into when there is a class file, and when there is none.
const LOOKS: (usize, usize) = (16, 64);
/// Label pictures that are looked into where few of them leave a doubt.
const CLOSER: usize = 512;

/// A picture and its label picture, not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The picture's path under the data set's folder, without its extension: what messages and reports call it.
    pub name: String,
    pub image: PathBuf,
    pub label: PathBuf,
}

/// A picture with a class for every pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]`
    pub rgb: Vec<u8>,
    /// `[height, width]`: the class, or [`VOID`].
    pub labels: Vec<u8>,
}

/// A data set: what its pixels mean, and which pictures are for training and which for validation.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub root: PathBuf,
    pub classes: Vec<Label>,
    pub train: Vec<Pair>,
    pub val: Vec<Pair>,
    /// The data set's own test pictures, where it keeps some apart.
    pub test: Vec<Pair>,
    /// On neither side of a split that was made here: between blocks of one recording, or not in the lists.
    pub left_out: Vec<Pair>,
    pub format: Format,
    /// Pictures and labels without partner.
    pub unpaired: Unpaired,
    /// What was assumed, a sentence each, for people.
    pub notes: Vec<String>,
    /// Whether the split was made here; else the data set has one, or lists do.
    pub split_here: bool,
    coding: Coding,
    labels: Arc<Labels>,
    /// Pictures whose labels lie as these are stored, not as they are seen, and how they are turned to be seen.
    turned: Arc<HashMap<PathBuf, Orientation>>,
    kept: Arc<Kept>,
}

/// What [`Dataset::open`] shall not find out by itself.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub format: Option<Format>,
    /// A class file instead of the data set's own; may hold only merges (`truck=car`).
    pub classes: Option<PathBuf>,
    /// Names or numbers of classes that are void, instead of those called void, ignore, unlabeled and so on.
    pub void: Option<Vec<String>>,
    pub split: SplitOptions,
    /// A folder with `train.txt` and `val.txt` (and `test.txt`) that [`Dataset::write_lists`] or somebody else wrote.
    pub lists: Option<PathBuf>,
    /// The orientation of labels whose pictures have one in their EXIF data.
    pub label_orientation: LabelOrientation,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Train,
    Val,
    Test,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::Train, Part::Val, Part::Test];

    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Val => "val",
            Part::Test => "test",
        }
    }
}

/// The data set's own classes, and the file that names them. Where there are several files, they must agree.
fn own_classes(paths: &[PathBuf]) -> Result<(Option<class_file::ClassFile>, Option<PathBuf>), DataError> {
    let mut own: Option<(class_file::ClassFile, &PathBuf)> = None;
    for path in paths {
        let file = class_file::read(path)?;
        match &own {
            Some((first, other)) if !agree(&first.classes, &file.classes) => {
                let problem = format!("the classes are not those of {}", other.display());
                return Err(DataError::set(
                    path,
                    problem,
                    "remove one of the files, or give the right one by --classes",
                ));
            }
            Some(_) => {}
            None => own = Some((file, path)),
        }
    }
    Ok(own.map_or((None, None), |(file, path)| (Some(file), Some(path.clone()))))
}

/// Whether two lists of classes give the same names to the same numbers.
fn agree(a: &[SourceClass], b: &[SourceClass]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (&a.name, &a.values) == (&b.name, &b.values))
}

impl Dataset {
    /// Finds the data set in a folder. A part may be empty: [`Dataset::part`] shows.
    ///
    /// # Errors
    /// When there is no data set, its class file or lists are wrong, or its labels do not say what they mean.
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
        Self::open_with(root, options, false)
    }

    /// [`Dataset::open`] for [`check::check`]: a data set of which no label can be read has no classes, and is checked all
    /// the same.
    ///
    /// # Errors
    /// As [`Dataset::open`] otherwise.
    pub fn open_to_check(root: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
        Self::open_with(root, options, true)
    }

    fn open_with(root: &Path, options: &OpenOptions, blindly: bool) -> Result<Dataset, DataError> {
        let (root, format, mut found) = format::find(root, options.format)?;
        if found.count() == 0 {
            let (images, labels) = (found.unpaired.images.len(), found.unpaired.labels.len());
            let problem =
                format!("no picture has a label: {images} pictures and {labels} labels were found ({format})");
            return Err(DataError::set(&root, problem, "give a picture and its label the same name"));
        }
        // Where the user says which, the data set's files need not agree.
        let files = if options.classes.is_some() { 1 } else { found.class_files.len() };
        let (own, mut source) = own_classes(&found.class_files[..files.min(found.class_files.len())])?;
        let class_file::ClassFile { classes, mut merges } = own.unwrap_or_default();
        let mut classes = Some(classes).filter(|classes| !classes.is_empty());
        if let Some(path) = &options.classes {
            let file = class_file::read(path)?;
            merges.extend(file.merges);
            if !file.classes.is_empty() {
                if found.labels.are_drawn() {
                    let problem = "classes are named by the annotations; a file for --classes may only merge them here";
                    return Err(DataError::set(path, problem, "write lines like truck=car"));
                }
                (classes, source) = (Some(file.classes), Some(path.clone()));
            }
        }
        let labels = Arc::new(std::mem::take(&mut found.labels));
        let pairs: Vec<&Pair> = found.subsets.iter().flat_map(|subset| &subset.pairs).collect();
        let classes = classes.or(found.classes);
        let few = if classes.is_some() { LOOKS.0 } else { LOOKS.1 };
        // Damaged ones may have been met by chance: only when all are is there nothing to go by.
        let sample = Sample::read(&pairs, &labels, few).or_else(|_| Sample::read(&pairs, &labels, usize::MAX));
        let sample = match sample {
            // Whether 255 is void or a thing: see `coding`.
            Ok(sample) if sample.only_white() && classes.as_ref().is_some_and(|classes| classes.len() > 2) => {
                Ok(Sample::read(&pairs, &labels, CLOSER)?)
            }
            sample => sample,
        };
        let unread = class_file::lookalike(&root);
        let hints = Hints {
            classes,
            merges: &merges,
            void: options.void.as_deref(),
            camvid: format == Format::Camvid,
            voc: format == Format::Voc,
            unread: unread.as_deref(),
            void_color: found.void_color,
        };
        let (coding, mut notes) = match sample {
            Ok(sample) => Coding::decide(hints, &sample)
                .map_err(|(problem, help)| DataError::set(source.as_ref().unwrap_or(&root), problem, help))?,
            Err(_) if blindly => (Coding::blind(), vec!["no label picture can be read: classes are not known".into()]),
            Err(first) if pairs.len() == 1 => return Err(first),
            Err(first) => {
                return Err(DataError::NoLabels { path: root, count: pairs.len(), first: Box::new(first) });
            }
        };
        let (turned, turned_notes) = turned::find(&pairs, &labels, options.label_orientation)
            .map_err(|(problem, help)| DataError::set(&root, problem, help))?;
        notes.extend(turned_notes);
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
            turned: Arc::new(turned),
            kept: Arc::default(),
            root,
        };
        dataset.assign(found.subsets, options, &mut notes)?;
        let (images, labels) = (dataset.unpaired.images.len(), dataset.unpaired.labels.len());
        if images + labels > 0 {
            notes.push(format!(
                "left out for want of a partner: {images} pictures without a label, {labels} labels without a picture \
                 (`data check` names them)"
            ));
        }
        dataset.notes = notes;
        Ok(dataset)
    }

    /// Gives each subset its part, or makes a split.
    fn assign(
        &mut self,
        subsets: Vec<format::Subset>,
        options: &OpenOptions,
        notes: &mut Vec<String>,
    ) -> Result<(), DataError> {
        if let Some(lists) = &options.lists {
            let pairs: Vec<Pair> = subsets.into_iter().flat_map(|subset| subset.pairs).collect();
            return self.assign_lists(lists, pairs, notes);
        }
        let share = options.split.val_share;
        if !(share > 0.0 && share < 1.0) {
            return Err(DataError::set(&self.root, format!("a share of {share} cannot validate"), "0.2 is usual"));
        }
        let mut open = Vec::new();
        for subset in subsets {
            match Role::of(&subset.name) {
                Role::Train => self.train.extend(subset.pairs),
                Role::Val => self.val.extend(subset.pairs),
                Role::Test => self.test.extend(subset.pairs),
                Role::Open => open.extend(subset.pairs),
            }
        }
        if options.split.resplit {
            self.train.append(&mut self.val);
        }
        self.train.append(&mut open);
        if self.val.is_empty() && self.train.len() > 1 {
            let split = split::make(std::mem::take(&mut self.train), &options.split);
            notes.push(split.how);
            self.split_here = true;
            (self.train, self.val, self.left_out) = (split.train, split.val, split.left_out);
        }
        Ok(())
    }

    fn assign_lists(&mut self, dir: &Path, pairs: Vec<Pair>, notes: &mut Vec<String>) -> Result<(), DataError> {
        for (part, name) in [("train", "train.txt"), ("val", "val.txt"), ("test", "test.txt")] {
            let path = dir.join(name);
            if !path.is_file() {
                if part == "test" {
                    continue;
                }
                return Err(DataError::set(dir, format!("there is no {name}"), "wanted are train.txt and val.txt"));
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
            notes.push(format!("{} pictures are in none of the lists in {}", self.left_out.len(), dir.display()));
        }
        Ok(())
    }

    /// The pictures of a part.
    pub fn part(&self, part: Part) -> &[Pair] {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
            Part::Test => &self.test,
        }
    }

    /// Writes the split as `train.txt`, `val.txt` and, where there is one, `test.txt`, a name a line, for
    /// [`OpenOptions::lists`].
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_lists(&self, dir: &Path) -> Result<(), DataError> {
        let parts = Part::ALL.into_iter().filter(|part| *part != Part::Test || !self.test.is_empty());
        lists::write(dir, &parts.map(|part| (part.name(), self.part(part))).collect::<BTreeMap<_, _>>())
    }

    /// From now on keeps up to so many bytes of decoded pictures in memory.
    pub fn keep(&mut self, bytes: usize) {
        self.kept = Arc::new(Kept::new(bytes));
    }

    /// Reads a pair, or has it still.
    ///
    /// # Errors
    /// When a file is damaged, the sizes differ, or a label has a value that belongs to no class.
    pub fn read(&self, pair: &Pair) -> Result<Arc<Labelled>, DataError> {
        if let Some(kept) = self.kept.get(&pair.image) {
            return Ok(kept);
        }
        let picture = picture::read(&pair.image)?;
        let (width, height, labels) = self.read_labels(pair)?;
        if (picture.width, picture.height) != (width, height) {
            return Err(DataError::SizeMismatch {
                image: pair.image.clone(),
                label: pair.label.clone(),
                image_size: (picture.width, picture.height),
                label_size: (width, height),
            });
        }
        let read = Arc::new(Labelled { width, height, rgb: picture.rgb, labels });
        self.kept.add(&pair.image, &read);
        Ok(read)
    }

    /// The label of a pair as its file has it, turned as its picture is seen.
    fn raw(&self, pair: &Pair) -> Result<Raw, DataError> {
        let raw = self.labels.read(pair)?;
        Ok(match self.turned.get(&pair.image) {
            Some(orientation) => raw.turned(*orientation),
            None => raw,
        })
    }

    /// Reads the label picture alone: width, height and `[height, width]` classes or [`VOID`].
    ///
    /// # Errors
    /// When the file is damaged or has a value that belongs to no class.
    pub fn read_labels(&self, pair: &Pair) -> Result<(usize, usize, Vec<u8>), DataError> {
        let raw = self.raw(pair)?;
        let mut labels = Vec::with_capacity(raw.width * raw.height);
        let mut strange = None;
        self.coding.each(&raw, |at, class| {
            if class.is_none() {
                strange.get_or_insert(at);
            }
            labels.push(class.unwrap_or(VOID));
        });
        if let Some(at) = strange {
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
