//! YOLO's text files, one for each picture: a line is a class and the corners of a polygon, in shares of the picture's
//! sides. `data.yaml` names the classes (<https://docs.ultralytics.com/datasets/segment/>).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::drawn::{Area, Drawing, Labels, Shape};
use super::super::error::DataError;
use super::super::scan::{self, Unpaired};
use super::super::{class_file, colors};
use super::Found;
use super::annotated::{Numbers, subset_of};

#[derive(Deserialize)]
struct Yaml {
    names: Names,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<Name>),
    Numbered(BTreeMap<u32, Name>),
}

/// A name that YAML may take for something else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Whole(i64),
    Flag(bool),
    Fraction(f64),
}

impl Name {
    fn text(self) -> String {
        match self {
            Name::Text(text) => text,
            Name::Whole(number) => number.to_string(),
            Name::Flag(flag) => flag.to_string(),
            Name::Fraction(number) => number.to_string(),
        }
    }
}

/// A picture and its text file.
struct Couple {
    image: PathBuf,
    label: PathBuf,
}

/// Pictures with a text file in `labels/` where theirs is in `images/`, or beside them.
fn couples(root: &Path) -> Result<(Vec<Couple>, Unpaired), DataError> {
    let mut texts: BTreeMap<PathBuf, PathBuf> =
        scan::shallow(root, &["txt"], usize::MAX)?.into_iter().map(|path| (path.with_extension(""), path)).collect();
    let (mut couples, mut unpaired) = (Vec::new(), Unpaired::default());
    for image in scan::all_images(root)? {
        let stem = image.with_extension("");
        let under = stem.strip_prefix(root).unwrap_or(&stem).to_path_buf();
        let parts: Vec<_> = under.iter().collect();
        // The last folder called so, as YOLO's own programs replace it.
        let folder = parts.iter().rposition(|part| part.eq_ignore_ascii_case("images"));
        let other = folder.map(|at| {
            let renamed = parts.iter().enumerate().map(|(n, part)| if n == at { "labels".as_ref() } else { *part });
            root.join(renamed.collect::<PathBuf>())
        });
        let label = other.and_then(|other| texts.remove(&other)).or_else(|| texts.remove(&stem));
        match label {
            Some(label) => couples.push(Couple { image, label }),
            None => unpaired.images.push(image),
        }
    }
    unpaired
        .labels
        .extend(texts.into_values().filter(|path| path.iter().any(|part| part.eq_ignore_ascii_case("labels"))));
    Ok((couples, unpaired))
}

/// A line: a class and numbers; `None` for an empty one.
fn line(text: &str) -> Option<Result<(u32, Vec<f32>), String>> {
    let mut fields = text.split_whitespace();
    let first = fields.next()?;
    // Some programs write `0.0`.
    let class = first.parse::<u32>().ok().or_else(|| first.strip_suffix(".0").and_then(|text| text.parse().ok()));
    let Some(class) = class else { return Some(Err(format!("{first:?} is no number of a class"))) };
    let numbers: Result<Vec<f32>, _> =
        fields.map(|field| field.parse().map_err(|_| format!("{field:?} is no number"))).collect();
    Some(numbers.map(|numbers| (class, numbers)))
}

/// Whether a text is of this format: each line a class, and four numbers or more.
fn is_one(path: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(line).peekable();
    lines.peek()?;
    Some(lines.all(|line| line.is_ok_and(|(_, numbers)| numbers.len() >= 4)))
}

/// Reads the data set; `None` where it is of another format.
pub fn read(root: &Path) -> Result<Option<Found>, DataError> {
    let (couples, unpaired) = couples(root)?;
    // Empty files are pictures with nothing on them, and tell nothing.
    if couples.iter().find_map(|couple| is_one(&couple.label)) != Some(true) {
        return Ok(None);
    }
    let mut drawings = HashMap::new();
    let mut subsets = BTreeMap::<String, Vec<_>>::new();
    let (mut polygons, mut boxes, mut first_box, mut highest) = (0usize, 0usize, None, 0u32);
    let mut outlines = Vec::new();
    for Couple { image, label } in couples {
        let text = std::fs::read_to_string(&label).map_err(DataError::io(&label))?;
        let mut lines = Vec::new();
        for (number, text) in text.lines().enumerate() {
            let Some(parsed) = line(text) else { continue };
            let wrong = |problem: String| DataError::line(&label, number + 1, problem);
            let (class, numbers) = parsed.map_err(wrong)?;
            if let Some(far) = numbers.iter().find(|number| !(-0.01..=1.01).contains(*number)) {
                return Err(wrong(format!("{far} is no share of the picture's side; wanted are numbers from 0 to 1")));
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
                    return Err(wrong(format!(
                        "{} numbers behind the class; wanted are x and y of corners",
                        numbers.len()
                    )));
                }
            }
        }
        subsets.entry(subset_of(root, &image)).or_default().push(scan::pair(root, &image, &label));
        outlines.push((image, lines));
    }
    if let Some((path, number)) = first_box {
        let problem = format!(
            "this line is a box, not an outline, as {boxes} of {} are: a box does not say which pixels are the thing's. \
             Export polygons (YOLO segmentation) or masks",
            boxes + polygons
        );
        return Err(DataError::line(&path, number, problem));
    }
    let mut found = Found { unpaired, ..Found::default() };
    let names = names(root, highest, &mut found.notes)?;
    let numbers = Numbers::of(&names).map_err(|problem| DataError::set(root, problem, "merge or remove some"))?;
    for (image, lines) in outlines {
        let area = |(class, points): (u32, Vec<[f32; 2]>)| Area {
            value: names.get(class as usize).and_then(|name| numbers.value(name)).unwrap_or(0),
            shape: Shape::Polygon(points),
        };
        drawings.insert(image, Drawing { size: None, shares: true, areas: lines.into_iter().map(area).collect() });
    }
    for (subset, pairs) in subsets {
        found.add(&subset, pairs, Unpaired::default());
    }
    found.classes = Some(numbers.classes);
    found.labels = Labels::Drawn(drawings);
    Ok(Some(found))
}

/// The names of the classes by number: of a YAML file with `names`, of a class file, or made up.
fn names(root: &Path, highest: u32, notes: &mut Vec<String>) -> Result<Vec<String>, DataError> {
    let mut given: Option<(PathBuf, Vec<String>)> = None;
    for path in scan::shallow(root, &["yaml", "yml"], 2)? {
        let text = std::fs::read_to_string(&path).map_err(DataError::io(&path))?;
        if !text.lines().any(|line| line.trim_start().starts_with("names")) {
            continue;
        }
        let yaml: Yaml = serde_saphyr::from_str(&text).map_err(|error| {
            DataError::set(&path, format!("`names` cannot be read: {error}"), "write `names: [a, b]`")
        })?;
        let names = match yaml.names {
            Names::List(names) => names.into_iter().map(Name::text).collect(),
            Names::Numbered(names) => {
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
        notes.push("there is no data.yaml: classes are called class0 and so on".into());
        return Ok((0..=highest.min(255)).map(|number| format!("class{number}")).collect());
    };
    if highest as usize >= names.len() {
        let problem = format!("it names {} classes, but labels have the number {highest}", names.len());
        return Err(DataError::set(&path, problem, "name all classes"));
    }
    // Two classes of one name would be one.
    if let Some(name) = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name)).map(|(_, name)| name) {
        return Err(DataError::set(&path, format!("two classes are called {name}"), "give each its own name"));
    }
    if let Some(at) = names.iter().skip(1).position(|name| colors::is_background(name)) {
        notes.push(format!("class {} is the background: what no outline covers counts as it", at + 1));
    }
    Ok(names)
}
