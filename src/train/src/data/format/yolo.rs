//! YOLO's text files, one for each image: a line is a class and the corners of a polygon, relative to width and height.
//! `data.yaml` names the classes (<https://docs.ultralytics.com/datasets/segment/>).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::drawing::{AreaShape, LabelArea, LabelDrawing, LabelSource};
use super::super::error::{DataError, DatasetProblem, LineError};
use super::super::scan::{self, Unpaired};
use super::super::{class_file, colors};
use super::annotated::{ClassNumbers, subset_of};
use super::found::FoundDataset;

#[derive(Deserialize)]
struct DataYaml {
    names: ClassNames,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClassNames {
    List(Vec<YamlName>),
    Numbered(BTreeMap<u32, YamlName>),
}

/// A class name that YAML may parse as another type.
#[derive(Deserialize)]
#[serde(untagged)]
enum YamlName {
    Text(String),
    Whole(i64),
    Flag(bool),
    Fraction(f64),
}

impl YamlName {
    fn text(self) -> String {
        match self {
            YamlName::Text(text) => text,
            YamlName::Whole(number) => number.to_string(),
            YamlName::Flag(flag) => flag.to_string(),
            YamlName::Fraction(number) => number.to_string(),
        }
    }
}

/// The paths of an image and of its text file.
struct FilePair {
    image: PathBuf,
    label: PathBuf,
}

/// Pairs images with text files: `images/` is replaced by `labels/` in the path, or the text file is beside the image.
fn file_pairs(root: &Path) -> Result<(Vec<FilePair>, Unpaired), DataError> {
    let mut texts: BTreeMap<PathBuf, PathBuf> = scan::files_to_depth(root, &["txt"], usize::MAX)?
        .into_iter()
        .map(|path| (path.with_extension(""), path))
        .collect();
    let (mut file_pairs, mut unpaired) = (Vec::new(), Unpaired::default());
    for image in scan::all_images(root)? {
        let stem = image.with_extension("");
        let under = stem.strip_prefix(root).unwrap_or(&stem).to_path_buf();
        let parts: Vec<_> = under.iter().collect();
        // The last folder of this name is replaced, as in YOLO's programs.
        let folder = parts.iter().rposition(|part| part.eq_ignore_ascii_case("images"));
        let other = folder.map(|at| {
            let renamed = parts.iter().enumerate().map(|(n, part)| if n == at { "labels".as_ref() } else { *part });
            root.join(renamed.collect::<PathBuf>())
        });
        let label = other.and_then(|other| texts.remove(&other)).or_else(|| texts.remove(&stem));
        match label {
            Some(label) => file_pairs.push(FilePair { image, label }),
            None => unpaired.images.push(image),
        }
    }
    unpaired
        .labels
        .extend(texts.into_values().filter(|path| path.iter().any(|part| part.eq_ignore_ascii_case("labels"))));
    Ok((file_pairs, unpaired))
}

/// Parses a line: a class and numbers; `None` if it is empty.
fn line(text: &str) -> Option<Result<(u32, Vec<f32>), LineError>> {
    let mut fields = text.split_whitespace();
    let first = fields.next()?;
    // Some programs write `0.0`.
    let class = first.parse::<u32>().ok().or_else(|| first.strip_suffix(".0").and_then(|text| text.parse().ok()));
    let Some(class) = class else { return Some(Err(LineError::ClassNumber(first.to_string()))) };
    let numbers: Result<Vec<f32>, _> =
        fields.map(|field| field.parse().map_err(|_| LineError::Number(field.to_string()))).collect();
    Some(numbers.map(|numbers| (class, numbers)))
}

/// Whether a text file has this format: each line is a class and at least four numbers. `None` if it is empty.
fn is_one(path: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(line).peekable();
    lines.peek()?;
    Some(lines.all(|line| line.is_ok_and(|(_, numbers)| numbers.len() >= 4)))
}

/// Reads the data set; `None` if the folder has another format.
pub fn read(root: &Path) -> Result<Option<FoundDataset>, DataError> {
    let (file_pairs, unpaired) = file_pairs(root)?;
    // Empty files are images without objects and do not identify the format.
    if file_pairs.iter().find_map(|file_pair| is_one(&file_pair.label)) != Some(true) {
        return Ok(None);
    }
    let mut drawings = HashMap::new();
    let mut subsets = BTreeMap::<String, Vec<_>>::new();
    let (mut polygons, mut boxes, mut first_box, mut highest) = (0usize, 0usize, None, 0u32);
    let mut outlines = Vec::new();
    for FilePair { image, label } in file_pairs {
        let text = std::fs::read_to_string(&label).map_err(DataError::io(&label))?;
        let mut lines = Vec::new();
        for (number, text) in text.lines().enumerate() {
            let Some(parsed) = line(text) else { continue };
            let wrong = |error: LineError| DataError::line(&label, number + 1, error);
            let (class, numbers) = parsed.map_err(wrong)?;
            if let Some(far) = numbers.iter().find(|number| !(-0.01..=1.01).contains(*number)) {
                return Err(wrong(LineError::Coordinate(*far)));
            }
            highest = highest.max(class);
            match numbers.as_chunks::<2>() {
                (points, []) if points.len() >= 3 => {
                    polygons += 1;
                    lines.push((class, points.to_vec()));
                }
                (points, []) if points.len() == 2 => {
                    boxes += 1;
                    first_box.get_or_insert_with(|| (label.clone(), number + 1));
                }
                _ => {
                    return Err(wrong(LineError::Corners(numbers.len())));
                }
            }
        }
        subsets.entry(subset_of(root, &image)).or_default().push(scan::pair(root, &image, &label));
        outlines.push((image, lines));
    }
    if let Some((path, number)) = first_box {
        return Err(DataError::line(&path, number, LineError::Box { boxes, lines: boxes + polygons }));
    }
    let mut found = FoundDataset { unpaired, ..FoundDataset::default() };
    let names = names(root, highest, &mut found.notes)?;
    let numbers = ClassNumbers::of(&names).map_err(|problem| DataError::dataset(root, problem))?;
    for (image, lines) in outlines {
        let area = |(class, points): (u32, Vec<[f32; 2]>)| LabelArea {
            value: names.get(class as usize).and_then(|name| numbers.value(name)).unwrap_or(0),
            shape: AreaShape::Polygon(points),
        };
        drawings
            .insert(image, LabelDrawing { size: None, relative: true, areas: lines.into_iter().map(area).collect() });
    }
    for (subset, pairs) in subsets {
        found.add(&subset, pairs, Unpaired::default());
    }
    found.classes = Some(numbers.classes);
    found.labels = LabelSource::Annotations(drawings);
    Ok(Some(found))
}

/// Returns the class names by number: from a YAML file with `names`, from a class file, or generated.
fn names(root: &Path, highest: u32, notes: &mut Vec<String>) -> Result<Vec<String>, DataError> {
    let mut given: Option<(PathBuf, Vec<String>)> = None;
    for path in scan::files_to_depth(root, &["yaml", "yml"], 2)? {
        let text = std::fs::read_to_string(&path).map_err(DataError::io(&path))?;
        if !text.lines().any(|line| line.trim_start().starts_with("names")) {
            continue;
        }
        let yaml: DataYaml = serde_saphyr::from_str(&text)
            .map_err(|error| DataError::dataset(&path, DatasetProblem::YamlNames(error.to_string())))?;
        let names = match yaml.names {
            ClassNames::List(names) => names.into_iter().map(YamlName::text).collect(),
            ClassNames::Numbered(names) => {
                let count = names.keys().last().map_or(0, |last| *last as usize + 1).min(256);
                let mut list: Vec<String> = (0..count).map(|number| format!("class{number}")).collect();
                for (number, name) in names {
                    if let Some(place) = list.get_mut(number as usize) {
                        *place = name.text();
                    }
                }
                list
            }
        };
        given = Some((path, names));
        break;
    }
    if given.is_none() {
        let file = class_file::find_below(root);
        if let Some(path) = file {
            let names = class_file::read(&path)?.classes.into_iter().map(|class| class.name).collect();
            given = Some((path, names));
        }
    }
    let Some((path, names)) = given else {
        notes.push("there is no data.yaml: the classes are named class0, class1 and so on".into());
        return Ok((0..=highest.min(255)).map(|number| format!("class{number}")).collect());
    };
    if highest as usize >= names.len() {
        return Err(DataError::dataset(&path, DatasetProblem::TooFewNames { names: names.len(), highest }));
    }
    // Two classes of the same name would be merged.
    if let Some(name) = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name)).map(|(_, name)| name) {
        return Err(DataError::dataset(&path, DatasetProblem::SameClassName(name.clone())));
    }
    if let Some(at) = names.iter().skip(1).position(|name| colors::is_background(name)) {
        notes.push(format!("class {} is the background: pixels in no polygon have this class", at + 1));
    }
    Ok(names)
}
