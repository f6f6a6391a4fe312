//! COCO's JSON: outlines and run lengths of objects, with or without `train` and `val` in the names of files or folders
//! (<https://cocodataset.org/#format-data>). Roboflow, CVAT, Label Studio and others export it.
//!
//! A pixel has the class of the last object that covers it, in the order of the file; crowds (`iscrowd`) are of their
//! class too, and lie below all others. What no object covers is background.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::drawn::rle::{Runs, decompressed};
use super::super::drawn::{Area, Drawing, Labels, Shape};
use super::super::error::DataError;
use super::super::scan::{self, Unpaired};
use super::Found;
use super::annotated::{Numbers, Pictures, subset_of};

/// Beginnings of the names of files that COCO keeps beside those of objects, about the same pictures.
const OTHERS: [&str; 4] = ["captions_", "person_keypoints_", "panoptic_", "image_info_"];
/// How deep annotation files lie.
const DEPTH: usize = 2;
/// JSON files of other kinds that are looked into.
const LOOKS: usize = 8;

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Id,
    file_name: String,
    width: Option<usize>,
    height: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum Id {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Id,
    category_id: i64,
    #[serde(default)]
    segmentation: Option<Segmentation>,
    #[serde(default)]
    iscrowd: Option<u8>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f32>>),
    Runs {
        size: [usize; 2],
        counts: Counts,
    },
    /// One outline without the list around it.
    Polygon(Vec<f32>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Plain(Vec<u32>),
    Compressed(String),
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
    #[serde(default)]
    supercategory: Option<String>,
}

/// What tells the format, however large the file is.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "images")]
    _images: Vec<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Vec<IgnoredAny>,
    #[serde(rename = "categories")]
    _categories: Vec<IgnoredAny>,
}

/// The annotation files of a data set.
fn files(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let (mut found, mut misses) = (Vec::new(), 0);
    let mut candidates = scan::shallow(root, &["json"], DEPTH)?;
    candidates.sort_by_key(|path| !is_like(path));
    for path in candidates {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        if OTHERS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(DataError::io(&path))?;
        if serde_json::from_slice::<Head>(&bytes).is_ok() {
            found.push(path);
        } else {
            misses += 1;
        }
        // One file for each picture is another format, and there may be thousands.
        if misses > LOOKS {
            break;
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file is called as annotation files of COCO are.
fn is_like(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    ["coco", "instances", "annotation", "labels"].iter().any(|word| name.contains(word))
}

/// Reads the data set; `None` where it is of another format.
pub fn read(root: &Path) -> Result<Option<Found>, DataError> {
    let files = files(root)?;
    if files.is_empty() {
        return Ok(None);
    }
    let mut parsed = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).map_err(DataError::io(&path))?;
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|error| DataError::line(&path, error.line(), format!("this is not COCO's JSON: {error}")))?;
        parsed.push((path, file));
    }
    let names = names(&parsed)?;
    let numbers = Numbers::of(&names).map_err(|problem| DataError::set(root, problem, "merge or remove some"))?;
    let pictures = Pictures::under(root)?;
    let mut found = Found { classes: Some(numbers.classes.clone()), ..Found::default() };
    let (mut drawings, mut used) = (HashMap::new(), HashSet::new());
    let mut without = Without::default();
    for (path, file) in parsed {
        let mut gathered = gather(&path, file, &numbers, &mut without)?;
        let subset = subset_of(root, &path);
        let mut pairs = Vec::new();
        for (name, drawing) in gathered.drain(..) {
            let image = pictures.find(&name, &path, &subset);
            match image.map_err(|problem| DataError::set(&path, problem, "write the folder into `file_name`"))? {
                Some(image) => {
                    used.insert(image.clone());
                    pairs.push(scan::pair(root, image, &path));
                    if drawings.insert(image.clone(), drawing).is_some() {
                        let problem = format!("{name} is annotated twice, in this file or in another");
                        return Err(DataError::set(&path, problem, "keep one file about each picture"));
                    }
                }
                None => found.unpaired.labels.push(path.with_file_name(name)),
            }
        }
        found.add(&subset, pairs, Unpaired::default());
    }
    found.unpaired.images = pictures.all.into_iter().filter(|image| !used.contains(image)).collect();
    without.tell(root, &mut found)?;
    found.labels = Labels::Drawn(drawings);
    Ok(Some(found))
}

/// The categories in the order of their numbers. Files of one data set must agree.
fn names(parsed: &[(PathBuf, File)]) -> Result<Vec<String>, DataError> {
    let mut names: BTreeMap<i64, (&str, &Path)> = BTreeMap::new();
    let used: HashSet<i64> =
        parsed.iter().flat_map(|(_, file)| &file.annotations).map(|annotation| annotation.category_id).collect();
    for (path, file) in parsed {
        // Roboflow puts a category before all others that is only their heading.
        let heading = |category: &Category| {
            !used.contains(&category.id)
                && file.categories.len() > 1
                && file.categories.iter().any(|other| other.supercategory.as_ref() == Some(&category.name))
        };
        for category in file.categories.iter().filter(|category| !heading(category)) {
            let (known, first) = *names.entry(category.id).or_insert((&category.name, path));
            if known != category.name {
                let problem =
                    format!("category {} is {}, but {known} in {}", category.id, category.name, first.display());
                return Err(DataError::set(path, problem, "the files are not of one data set: give one of them"));
            }
        }
    }
    Ok(names.into_values().map(|(name, _)| name.to_string()).collect())
}

/// Annotations of which nothing can be drawn.
#[derive(Default)]
struct Without {
    outlines: usize,
    boxes: usize,
}

impl Without {
    fn tell(&self, root: &Path, found: &mut Found) -> Result<(), DataError> {
        if self.outlines == 0 && self.boxes > 0 {
            let problem = format!("the {} annotations have boxes only, no outlines", self.boxes);
            let help = "this is a data set for detection; export it for segmentation (polygons or masks)";
            return Err(DataError::set(root, problem, help));
        }
        if self.boxes > 0 {
            let all = self.boxes + self.outlines;
            found.notes.push(format!("{} of {all} annotations have no outline and are left out", self.boxes));
        }
        Ok(())
    }
}

/// The drawings of a file's pictures, by name.
fn gather(
    path: &Path,
    file: File,
    numbers: &Numbers,
    without: &mut Without,
) -> Result<Vec<(String, Drawing)>, DataError> {
    let wrong = |problem: String| DataError::set(path, problem, "export the annotations again");
    let names: HashMap<i64, String> =
        file.categories.into_iter().map(|category| (category.id, category.name)).collect();
    let mut places: HashMap<Id, usize> = HashMap::new();
    let mut drawings: Vec<(String, Drawing)> = Vec::new();
    for image in file.images {
        if places.insert(image.id.clone(), drawings.len()).is_some() {
            return Err(wrong(format!("two images have the id {:?}", image.id)));
        }
        let size = image.width.zip(image.height).filter(|&(width, height)| width > 0 && height > 0);
        drawings.push((image.file_name, Drawing { size, ..Drawing::default() }));
    }
    // Crowds first: what is drawn later covers them.
    let (crowds, single): (Vec<_>, Vec<_>) =
        file.annotations.into_iter().partition(|annotation| annotation.iscrowd.unwrap_or(0) != 0);
    for annotation in crowds.into_iter().chain(single) {
        let Some(&place) = places.get(&annotation.image_id) else {
            return Err(wrong(format!("an annotation is of image {:?}, which there is not", annotation.image_id)));
        };
        let value = names.get(&annotation.category_id).and_then(|name| numbers.value(name));
        let Some(value) = value else {
            return Err(wrong(format!("an annotation has category {}, which there is not", annotation.category_id)));
        };
        let (name, drawing) = &mut drawings[place];
        let shapes = match annotation.segmentation {
            Some(segmentation) => shapes(segmentation).map_err(|problem| wrong(format!("{name}: {problem}")))?,
            None => Vec::new(),
        };
        if shapes.is_empty() {
            without.boxes += 1;
        } else {
            without.outlines += 1;
        }
        drawing.areas.extend(shapes.into_iter().map(|shape| Area { value, shape }));
    }
    Ok(drawings)
}

fn shapes(segmentation: Segmentation) -> Result<Vec<Shape>, String> {
    let polygon = |numbers: Vec<f32>| match numbers.as_chunks::<2>() {
        (points, []) if points.len() >= 3 => Ok(Shape::Polygon(points.to_vec())),
        _ => Err(format!("an outline has {} numbers; wanted are x and y of at least three points", numbers.len())),
    };
    match segmentation {
        Segmentation::Polygon(numbers) if numbers.is_empty() => Ok(Vec::new()),
        Segmentation::Polygon(numbers) => Ok(vec![polygon(numbers)?]),
        // Programs leave specks of two points.
        Segmentation::Polygons(lists) => {
            lists.into_iter().filter(|list| !matches!(list.len(), 0 | 2 | 4)).map(polygon).collect()
        }
        Segmentation::Runs { size, counts } => {
            let counts = match counts {
                Counts::Plain(counts) => counts,
                Counts::Compressed(text) => decompressed(&text)?,
            };
            Ok(vec![Shape::Runs(Runs::new(size, counts)?)])
        }
    }
}
