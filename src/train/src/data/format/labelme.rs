//! labelme's JSON files, one for each picture, beside it or in a folder of their own.
//!
//! Points are in pixels of the picture as it is seen. Shapes are drawn in the order of the file; polygons, rectangles,
//! circles and masks are areas, points and lines are not.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::drawn::{Area, Drawing, Labels, Shape};
use super::super::error::DataError;
use super::super::raw::{self, Pixels};
use super::super::scan::{self, Unpaired};
use super::super::{class_file, colors};
use super::Found;
use super::annotated::{Numbers, Pictures, subset_of};

/// Corners of the polygon that stands for a circle.
const CORNERS: usize = 180;
/// JSON files that are looked into to tell the format.
const LOOKS: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    shapes: Vec<Drawn>,
    #[serde(default)]
    image_path: Option<String>,
    #[serde(default)]
    image_width: Option<usize>,
    #[serde(default)]
    image_height: Option<usize>,
}

#[derive(Deserialize)]
struct Drawn {
    label: String,
    points: Vec<[f32; 2]>,
    #[serde(default)]
    shape_type: Option<String>,
    #[serde(default)]
    mask: Option<String>,
}

/// Reads the data set; `None` where it is of another format.
pub fn read(root: &Path) -> Result<Option<Found>, DataError> {
    let files = scan::shallow(root, &["json"], usize::MAX)?;
    let is_one = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| serde_json::from_slice::<File>(&bytes).is_ok());
    if !files.iter().take(LOOKS).any(is_one) {
        return Ok(None);
    }
    let parsed = parse(&files)?;
    let labels: BTreeSet<&str> =
        parsed.iter().flat_map(|(_, file)| &file.shapes).map(|shape| shape.label.as_str()).collect();
    let mut found = Found::default();
    let names = names(root, &labels)?;
    let numbers = Numbers::of(&names).map_err(|problem| DataError::set(root, problem, "merge or remove some"))?;
    if labels.iter().all(|label| colors::is_background(label)) {
        let problem =
            format!("the {} labelme files have no shape with a label: there is nothing to learn", parsed.len());
        return Err(DataError::set(root, problem, "draw polygons, or give the folder in which the drawn ones are"));
    }
    let pictures = Pictures::under(root)?;
    let (mut drawings, mut used, mut pairs) = (HashMap::new(), HashSet::new(), Subsets::new());
    let (mut flat, mut all) = (0, 0);
    for (path, file) in parsed {
        let subset = subset_of(root, &path);
        // The file's own name first: `imagePath` keeps the old one when files are renamed.
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let by_path = file.image_path.as_deref().filter(|text| !text.is_empty());
        let image = beside(&path, &pictures, &stem)
            .map(Ok)
            .or_else(|| by_path.and_then(|text| pictures.find(text, &path, &subset).transpose()));
        let image = image.transpose().map_err(|problem| DataError::label(&path, problem))?;
        let Some(image) = image.filter(|image| !used.contains(*image)) else {
            found.unpaired.labels.push(path);
            continue;
        };
        let size = file.image_width.zip(file.image_height).filter(|&(width, height)| width > 0 && height > 0);
        let mut drawing = Drawing { size, ..Drawing::default() };
        for drawn in file.shapes {
            all += 1;
            let value = numbers.value(&drawn.label).unwrap_or(0);
            match shape(drawn).map_err(|problem| DataError::label(&path, problem))? {
                Some(shape) => drawing.areas.push(Area { value, shape }),
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
        found.notes.push(format!("{flat} of {all} shapes are points or lines, which cover no area, and are left out"));
    }
    found.unpaired.images = pictures.all.into_iter().filter(|image| !used.contains(image)).collect();
    found.classes = Some(numbers.classes);
    found.labels = Labels::Drawn(drawings);
    Ok(Some(found))
}

type Subsets = std::collections::BTreeMap<String, Vec<super::Pair>>;

/// The picture beside a file that has the same name.
fn beside<'a>(path: &Path, pictures: &'a Pictures, stem: &str) -> Option<&'a PathBuf> {
    let stem = scan::composed(stem);
    let same = |image: &&PathBuf| {
        image.parent() == path.parent()
            && image.file_stem().is_some_and(|name| scan::composed(&name.to_string_lossy()) == stem)
    };
    // In order, so the files of a folder are near one another.
    let start = pictures.all.partition_point(|image| image.parent() < path.parent());
    pictures.all[start..].iter().take_while(|image| image.parent() == path.parent()).find(same)
}

/// All files, on several threads: pictures are often embedded in them, which makes them large.
fn parse(files: &[PathBuf]) -> Result<Vec<(PathBuf, File)>, DataError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for chunk in files.chunks(files.len().div_ceil(threads).max(1)) {
            let results = &results;
            scope.spawn(move || {
                for path in chunk {
                    let read = std::fs::read(path).map_err(DataError::io(path)).and_then(|bytes| {
                        serde_json::from_slice::<File>(&bytes).map_err(|error| {
                            DataError::line(path, error.line(), format!("this is not labelme's JSON: {error}"))
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

/// The classes: those of a class file in its order (labelme's own `labels.txt`), else all labels by name.
fn names(root: &Path, labels: &BTreeSet<&str>) -> Result<Vec<String>, DataError> {
    let Some(path) = class_file::find_below(root) else {
        return Ok(labels.iter().map(|label| label.to_string()).collect());
    };
    let names: Vec<String> = class_file::read(&path)?.classes.into_iter().map(|class| class.name).collect();
    if let Some(label) = labels.iter().find(|label| !names.iter().any(|name| name == *label)) {
        let problem = format!("shapes have the label {label:?}, which is not in this file");
        return Err(DataError::set(&path, problem, "add a line, or correct the shapes"));
    }
    Ok(names)
}

/// The area of a shape; `None` for one that covers none.
fn shape(drawn: Drawn) -> Result<Option<Shape>, String> {
    let Drawn { points, label, mask, shape_type } = drawn;
    let kind = shape_type.as_deref().unwrap_or("polygon");
    let shape = match (kind, &points[..]) {
        ("polygon" | "oriented_rectangle" | "rotation", [_, _, _, ..]) => Shape::Polygon(points),
        ("polygon", _) | ("point" | "points" | "line" | "linestrip", _) => return Ok(None),
        ("rectangle", &[[x0, y0], [x1, y1]]) => Shape::Polygon(vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),
        ("rectangle", [_, _, _, _]) => Shape::Polygon(points),
        ("circle", &[[x, y], [edge_x, edge_y]]) => {
            let radius = (edge_x - x).hypot(edge_y - y);
            let corner = |n: usize| {
                let angle = n as f32 / CORNERS as f32 * std::f32::consts::TAU;
                [x + radius * angle.cos(), y + radius * angle.sin()]
            };
            Shape::Polygon((0..CORNERS).map(corner).collect())
        }
        ("mask", &[[x, y], ..]) => {
            let text = mask.ok_or_else(|| format!("a mask of {label} has no data"))?;
            let bytes = STANDARD.decode(text.trim()).map_err(|error| format!("the mask of {label}: {error}"))?;
            let raw = raw::decode(&bytes).map_err(|problem| format!("the mask of {label}: {problem}"))?;
            let inside = match raw.pixels {
                Pixels::Gray(values) | Pixels::Indexed(values, _) => values.iter().map(|value| *value > 0).collect(),
                Pixels::Colors(colors) => colors.iter().map(|color| color.0 > 0).collect(),
            };
            let at = |value: f32| value.round().max(0.0) as usize;
            Shape::Mask { left: at(x), top: at(y), width: raw.width, height: raw.height, inside }
        }
        (kind, points) => {
            return Err(format!("a shape of {label} is a {kind} of {} points, which is not known here", points.len()));
        }
    };
    Ok(Some(shape))
}
