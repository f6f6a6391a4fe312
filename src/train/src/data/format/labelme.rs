//! labelme's JSON files (<https://github.com/wkentaro/labelme>), one for each image, beside it or in a separate folder.
//!
//! Points are in pixels of the image after EXIF rotation. Shapes are drawn in the order of the file. Polygons,
//! rectangles, circles and masks are areas; points and lines are ignored.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::drawing::{AreaShape, LabelArea, LabelDrawing, LabelSource};
use super::super::error::{DataError, DatasetProblem, LineError, ShapeError};
use super::super::pair::Pair;
use super::super::raw::{self, RawPixels};
use super::super::scan::{self, Unpaired};
use super::super::{class_file, colors};
use super::annotated::{ClassNumbers, ImageIndex, subset_of};
use super::found::FoundDataset;

/// Number of corners of the polygon that approximates a circle.
const CIRCLE_CORNERS: usize = 180;
/// Number of JSON files that are parsed to detect the format.
const MAX_PROBED: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LabelmeFile {
    shapes: Vec<LabelmeShape>,
    #[serde(default)]
    image_path: Option<String>,
    #[serde(default)]
    image_width: Option<usize>,
    #[serde(default)]
    image_height: Option<usize>,
}

#[derive(Deserialize)]
struct LabelmeShape {
    label: String,
    points: Vec<[f32; 2]>,
    #[serde(default)]
    shape_type: Option<String>,
    #[serde(default)]
    mask: Option<String>,
}

/// Reads the data set; `None` if the folder has another format.
pub fn read(root: &Path) -> Result<Option<FoundDataset>, DataError> {
    let files = scan::files_to_depth(root, &["json"], usize::MAX)?;
    let is_one =
        |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| serde_json::from_slice::<LabelmeFile>(&bytes).is_ok());
    if !files.iter().take(MAX_PROBED).any(is_one) {
        return Ok(None);
    }
    let parsed = parse(&files)?;
    let labels: BTreeSet<&str> =
        parsed.iter().flat_map(|(_, file)| &file.shapes).map(|shape| shape.label.as_str()).collect();
    let mut found = FoundDataset::default();
    let names = names(root, &labels)?;
    let numbers = ClassNumbers::of(&names).map_err(|problem| DataError::dataset(root, problem))?;
    if labels.iter().all(|label| colors::is_background(label)) {
        return Err(DataError::dataset(root, DatasetProblem::NoShapes(parsed.len())));
    }
    let images = ImageIndex::under(root)?;
    let (mut drawings, mut used, mut pairs) = (HashMap::new(), HashSet::new(), Subsets::new());
    let (mut flat, mut all) = (0, 0);
    for (path, file) in parsed {
        let subset = subset_of(root, &path);
        // The JSON file's name is used first: `imagePath` is outdated if files were renamed.
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let by_path = file.image_path.as_deref().filter(|text| !text.is_empty());
        let image = beside(&path, &images, &stem)
            .map(Ok)
            .or_else(|| by_path.and_then(|text| images.find(text, &path, &subset).transpose()));
        let image = image.transpose().map_err(|problem| DataError::label(&path, problem))?;
        let Some(image) = image.filter(|image| !used.contains(*image)) else {
            found.unpaired.labels.push(path);
            continue;
        };
        let size = file.image_width.zip(file.image_height).filter(|&(width, height)| width > 0 && height > 0);
        let mut drawing = LabelDrawing { size, ..LabelDrawing::default() };
        for drawn in file.shapes {
            all += 1;
            let value = numbers.value(&drawn.label).unwrap_or(0);
            match shape(drawn).map_err(|problem| DataError::label(&path, problem))? {
                Some(shape) => drawing.areas.push(LabelArea { value, shape }),
                None => flat += 1,
            }
        }
        used.insert(image.clone());
        drawings.insert(image.clone(), drawing);
        pairs.entry(subset).or_default().push(scan::pair(root, image, &path));
    }
    for (subset, pairs) in pairs {
        found.add(&subset, pairs, Unpaired::default());
    }
    if flat > 0 {
        found.notes.push(format!("{flat} of {all} shapes are points or lines without area and are ignored"));
    }
    found.unpaired.images = images.all.into_iter().filter(|image| !used.contains(image)).collect();
    found.classes = Some(numbers.classes);
    found.labels = LabelSource::Annotations(drawings);
    Ok(Some(found))
}

type Subsets = std::collections::BTreeMap<String, Vec<Pair>>;

/// Returns the image with the same name in the same folder.
fn beside<'a>(path: &Path, images: &'a ImageIndex, stem: &str) -> Option<&'a PathBuf> {
    let stem = scan::to_nfc(stem);
    let same = |image: &&PathBuf| {
        image.parent() == path.parent()
            && image.file_stem().is_some_and(|name| scan::to_nfc(&name.to_string_lossy()) == stem)
    };
    // The list is sorted, so the files of a folder are adjacent.
    let start = images.all.partition_point(|image| image.parent() < path.parent());
    images.all[start..].iter().take_while(|image| image.parent() == path.parent()).find(same)
}

/// Parses all files on several threads: they are large if images are embedded.
fn parse(files: &[PathBuf]) -> Result<Vec<(PathBuf, LabelmeFile)>, DataError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for chunk in files.chunks(files.len().div_ceil(threads).max(1)) {
            let results = &results;
            scope.spawn(move || {
                for path in chunk {
                    let read = std::fs::read(path).map_err(DataError::io(path)).and_then(|bytes| {
                        serde_json::from_slice::<LabelmeFile>(&bytes).map_err(|source| {
                            DataError::line(path, source.line(), LineError::Json { format: "labelme", source })
                        })
                    });
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((path.clone(), read));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by(|(a, _), (b, _)| a.cmp(b));
    results.into_iter().map(|(path, read)| Ok((path, read?))).collect()
}

/// Returns the class names: those of a class file in its order (labelme's `labels.txt`), otherwise all labels sorted by
/// name.
fn names(root: &Path, labels: &BTreeSet<&str>) -> Result<Vec<String>, DataError> {
    let Some(path) = class_file::find_below(root) else {
        return Ok(labels.iter().map(|label| label.to_string()).collect());
    };
    let names: Vec<String> = class_file::read(&path)?.classes.into_iter().map(|class| class.name).collect();
    if let Some(label) = labels.iter().find(|label| !names.iter().any(|name| name == *label)) {
        return Err(DataError::dataset(&path, DatasetProblem::UnknownLabel(label.to_string())));
    }
    Ok(names)
}

/// Converts a shape; `None` if it has no area.
fn shape(drawn: LabelmeShape) -> Result<Option<AreaShape>, ShapeError> {
    let LabelmeShape { points, label, mask, shape_type } = drawn;
    let kind = shape_type.as_deref().unwrap_or("polygon");
    let shape = match (kind, &points[..]) {
        ("polygon" | "oriented_rectangle" | "rotation", [_, _, _, ..]) => AreaShape::Polygon(points),
        ("polygon", _) | ("point" | "points" | "line" | "linestrip", _) => return Ok(None),
        ("rectangle", &[[x0, y0], [x1, y1]]) => AreaShape::Polygon(vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),
        ("rectangle", [_, _, _, _]) => AreaShape::Polygon(points),
        ("circle", &[[x, y], [edge_x, edge_y]]) => {
            let radius = (edge_x - x).hypot(edge_y - y);
            let corner = |n: usize| {
                let angle = n as f32 / CIRCLE_CORNERS as f32 * std::f32::consts::TAU;
                [x + radius * angle.cos(), y + radius * angle.sin()]
            };
            AreaShape::Polygon((0..CIRCLE_CORNERS).map(corner).collect())
        }
        ("mask", &[[x, y], ..]) => {
            let text = mask.ok_or_else(|| ShapeError::MaskWithoutData(label.clone()))?;
            let bytes = STANDARD
                .decode(text.trim())
                .map_err(|source| ShapeError::MaskBase64 { label: label.clone(), source })?;
            let raw = raw::decode(&bytes).map_err(|source| ShapeError::Mask { label, source })?;
            let inside = match raw.pixels {
                RawPixels::Gray(values) | RawPixels::Indexed(values, _) => {
                    values.iter().map(|value| *value > 0).collect()
                }
                RawPixels::Colors(colors) => colors.iter().map(|color| color.0 > 0).collect(),
            };
            let at = |value: f32| value.round().max(0.0) as usize;
            AreaShape::Mask { left: at(x), top: at(y), width: raw.width, height: raw.height, inside }
        }
        (kind, points) => {
            let (kind, points) = (kind.to_string(), points.len());
            return Err(ShapeError::Unsupported { label, kind, points });
        }
    };
    Ok(Some(shape))
}
