//! COCO's JSON: polygons and run lengths of objects, with or without `train` and `val` in the names of files or folders
//! (<https://cocodataset.org/#format-data>). Roboflow, CVAT, Label Studio and others export it.
//!
//! A pixel has the class of the last object in the file that covers it. Crowds (`iscrowd`) have their class too, and
//! are below all other objects. Pixels in no object are background.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::drawing::rle::{RunLengths, decompressed};
use super::super::drawing::{AreaShape, LabelArea, LabelDrawing, LabelSource};
use super::super::error::{DataError, DatasetProblem, LineError, ShapeError};
use super::super::scan::{self, Unpaired};
use super::annotated::{ClassNumbers, ImageIndex, subset_of};
use super::found::FoundDataset;

/// Prefixes of other annotation files of COCO, which are ignored.
const OTHER_PREFIXES: [&str; 4] = ["captions_", "person_keypoints_", "panoptic_", "image_info_"];
/// Depth of folders that are searched for annotation files.
const MAX_DEPTH: usize = 2;
/// Number of other JSON files that are parsed before the search ends.
const MAX_OTHER_FILES: usize = 8;

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: CocoId,
    file_name: String,
    width: Option<usize>,
    height: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum CocoId {
    Number(i64),
    Text(String),
}

impl fmt::Display for CocoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CocoId::Number(number) => write!(f, "{number}"),
            CocoId::Text(text) => write!(f, "{text:?}"),
        }
    }
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: CocoId,
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
    RunLengths {
        size: [usize; 2],
        counts: Counts,
    },
    /// One polygon without a list around it.
    Polygon(Vec<f32>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Plain(Vec<u32>),
    Compressed(String),
}

#[derive(Deserialize)]
struct CocoCategory {
    id: i64,
    name: String,
    #[serde(default)]
    supercategory: Option<String>,
}

/// The fields that identify the format; their content is not parsed.
#[derive(Deserialize)]
struct CocoHeader {
    #[serde(rename = "images")]
    _images: Vec<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Vec<IgnoredAny>,
    #[serde(rename = "categories")]
    _categories: Vec<IgnoredAny>,
}

/// Annotations without their images.
pub struct CocoAnnotations {
    /// The names of the categories by id.
    pub names: Vec<String>,
    pub files: Vec<CocoDrawings>,
}

/// The annotations of one file.
pub struct CocoDrawings {
    pub path: PathBuf,
    /// The name of the subset, from the file's name or its folders.
    pub subset: String,
    /// The drawings by the images' file names; 0 is a pixel in no object, and n the category n - 1 of all.
    pub drawings: Vec<(String, LabelDrawing)>,
}

/// Reads annotations without their images: a file, or all files in a folder. `None` if there is no file of this format.
///
/// # Errors
/// If a file is invalid, or there are more than 254 categories.
pub fn drawings(input: &Path) -> Result<Option<CocoAnnotations>, DataError> {
    let files = if input.is_dir() { files(input)? } else { vec![input.to_path_buf()] };
    if files.is_empty() {
        return Ok(None);
    }
    let parsed = parse(files)?;
    let names = names(&parsed)?;
    let numbers = ClassNumbers::from_one(&names).map_err(|problem| DataError::dataset(input, problem))?;
    let mut undrawable = UndrawableCounts::default();
    let mut read = Vec::new();
    for (path, file) in parsed {
        let drawings = read_drawings(&path, file, &numbers, &mut undrawable)?;
        read.push(CocoDrawings {
            subset: subset_of(input.parent().filter(|_| input.is_file()).unwrap_or(input), &path),
            path,
            drawings,
        });
    }
    undrawable.report(input, &mut FoundDataset::default())?;
    Ok(Some(CocoAnnotations { names, files: read }))
}

fn parse(files: Vec<PathBuf>) -> Result<Vec<(PathBuf, CocoFile)>, DataError> {
    let mut parsed = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).map_err(DataError::io(&path))?;
        let file: CocoFile = serde_json::from_slice(&bytes)
            .map_err(|source| DataError::line(&path, source.line(), LineError::Json { format: "COCO", source }))?;
        parsed.push((path, file));
    }
    Ok(parsed)
}

/// Finds the annotation files of a data set.
fn files(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let (mut found, mut misses) = (Vec::new(), 0);
    let mut candidates = scan::files_to_depth(root, &["json"], MAX_DEPTH)?;
    candidates.sort_by_key(|path| !has_coco_name(path));
    for path in candidates {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        if OTHER_PREFIXES.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(DataError::io(&path))?;
        if serde_json::from_slice::<CocoHeader>(&bytes).is_ok() {
            found.push(path);
        } else {
            misses += 1;
        }
        // One JSON file per image is another format; there may be thousands of files.
        if misses > MAX_OTHER_FILES {
            break;
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file name is typical for COCO's annotation files.
fn has_coco_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    ["coco", "instances", "annotation", "labels"].iter().any(|word| name.contains(word))
}

/// Reads the data set; `None` if the folder has another format.
pub fn read(root: &Path) -> Result<Option<FoundDataset>, DataError> {
    let files = files(root)?;
    if files.is_empty() {
        return Ok(None);
    }
    let parsed = parse(files)?;
    let names = names(&parsed)?;
    let numbers = ClassNumbers::of(&names).map_err(|problem| DataError::dataset(root, problem))?;
    let images = ImageIndex::under(root)?;
    let mut found = FoundDataset { classes: Some(numbers.classes.clone()), ..FoundDataset::default() };
    let (mut drawings, mut used) = (HashMap::new(), HashSet::new());
    let mut undrawable = UndrawableCounts::default();
    for (path, file) in parsed {
        let mut gathered = read_drawings(&path, file, &numbers, &mut undrawable)?;
        let subset = subset_of(root, &path);
        let mut pairs = Vec::new();
        for (name, drawing) in gathered.drain(..) {
            let image = images.find(&name, &path, &subset);
            match image.map_err(|error| DataError::dataset(&path, error))? {
                Some(image) => {
                    used.insert(image.clone());
                    pairs.push(scan::pair(root, image, &path));
                    if drawings.insert(image.clone(), drawing).is_some() {
                        return Err(DataError::dataset(&path, DatasetProblem::AnnotatedTwice(name)));
                    }
                }
                None => found.unpaired.labels.push(path.with_file_name(name)),
            }
        }
        found.add(&subset, pairs, Unpaired::default());
    }
    found.unpaired.images = images.all.into_iter().filter(|image| !used.contains(image)).collect();
    undrawable.report(root, &mut found)?;
    found.labels = LabelSource::Annotations(drawings);
    Ok(Some(found))
}

/// Returns the categories by id. The files of one data set must agree.
fn names(parsed: &[(PathBuf, CocoFile)]) -> Result<Vec<String>, DataError> {
    let mut names: BTreeMap<i64, (&str, &Path)> = BTreeMap::new();
    let used: HashSet<i64> =
        parsed.iter().flat_map(|(_, file)| &file.annotations).map(|annotation| annotation.category_id).collect();
    for (path, file) in parsed {
        // Roboflow's first category is only the supercategory of the others.
        let heading = |category: &CocoCategory| {
            !used.contains(&category.id)
                && file.categories.len() > 1
                && file.categories.iter().any(|other| other.supercategory.as_ref() == Some(&category.name))
        };
        for category in file.categories.iter().filter(|category| !heading(category)) {
            let (known, first) = *names.entry(category.id).or_insert((&category.name, path));
            if known != category.name {
                let (id, name) = (category.id, category.name.clone());
                let (other, file) = (known.to_string(), first.to_path_buf());
                return Err(DataError::dataset(path, DatasetProblem::CategoryNames { id, name, other, file }));
            }
        }
    }
    Ok(names.into_values().map(|(name, _)| name.to_string()).collect())
}

/// Counts of annotations with and without a polygon or mask.
#[derive(Default)]
struct UndrawableCounts {
    outlines: usize,
    boxes: usize,
}

impl UndrawableCounts {
    fn report(&self, root: &Path, found: &mut FoundDataset) -> Result<(), DataError> {
        if self.outlines == 0 && self.boxes > 0 {
            return Err(DataError::dataset(root, DatasetProblem::OnlyBoxes(self.boxes)));
        }
        if self.boxes > 0 {
            let all = self.boxes + self.outlines;
            found.notes.push(format!("{} of {all} annotations have no polygon or mask and are ignored", self.boxes));
        }
        Ok(())
    }
}

/// Returns the drawings of a file's images by file name.
fn read_drawings(
    path: &Path,
    file: CocoFile,
    numbers: &ClassNumbers,
    undrawable: &mut UndrawableCounts,
) -> Result<Vec<(String, LabelDrawing)>, DataError> {
    let wrong = |problem: DatasetProblem| DataError::dataset(path, problem);
    let names: HashMap<i64, String> =
        file.categories.into_iter().map(|category| (category.id, category.name)).collect();
    let mut places: HashMap<CocoId, usize> = HashMap::new();
    let mut drawings: Vec<(String, LabelDrawing)> = Vec::new();
    for image in file.images {
        if places.insert(image.id.clone(), drawings.len()).is_some() {
            return Err(wrong(DatasetProblem::SameImageId(image.id.to_string())));
        }
        let size = image.width.zip(image.height).filter(|&(width, height)| width > 0 && height > 0);
        drawings.push((image.file_name, LabelDrawing { size, ..LabelDrawing::default() }));
    }
    // Crowds first: areas that are drawn later cover them.
    let (crowds, single): (Vec<_>, Vec<_>) =
        file.annotations.into_iter().partition(|annotation| annotation.iscrowd.unwrap_or(0) != 0);
    for annotation in crowds.into_iter().chain(single) {
        let Some(&place) = places.get(&annotation.image_id) else {
            return Err(wrong(DatasetProblem::UnknownImage(annotation.image_id.to_string())));
        };
        let value = names.get(&annotation.category_id).and_then(|name| numbers.value(name));
        let Some(value) = value else {
            return Err(wrong(DatasetProblem::UnknownCategory(annotation.category_id)));
        };
        let (name, drawing) = &mut drawings[place];
        let shapes = match annotation.segmentation {
            Some(segmentation) => {
                shapes(segmentation).map_err(|source| wrong(DatasetProblem::Shape { image: name.clone(), source }))?
            }
            None => Vec::new(),
        };
        if shapes.is_empty() {
            undrawable.boxes += 1;
        } else {
            undrawable.outlines += 1;
        }
        drawing.areas.extend(shapes.into_iter().map(|shape| LabelArea { value, shape }));
    }
    Ok(drawings)
}

fn shapes(segmentation: Segmentation) -> Result<Vec<AreaShape>, ShapeError> {
    let polygon = |numbers: Vec<f32>| match numbers.as_chunks::<2>() {
        (points, []) if points.len() >= 3 => Ok(AreaShape::Polygon(points.to_vec())),
        _ => Err(ShapeError::PolygonNumbers(numbers.len())),
    };
    match segmentation {
        Segmentation::Polygon(numbers) if numbers.is_empty() => Ok(Vec::new()),
        Segmentation::Polygon(numbers) => Ok(vec![polygon(numbers)?]),
        // Some programs export polygons of fewer than three points; they are ignored.
        Segmentation::Polygons(lists) => {
            lists.into_iter().filter(|list| !matches!(list.len(), 0 | 2 | 4)).map(polygon).collect()
        }
        Segmentation::RunLengths { size, counts } => {
            let counts = match counts {
                Counts::Plain(counts) => counts,
                Counts::Compressed(text) => decompressed(&text)?,
            };
            Ok(vec![AreaShape::RunLengths(RunLengths::new(size, counts)?)])
        }
    }
}
