//! The classes of a teacher as classes of the data set: by name, and by a file.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use maskcast::frame::Label;
use serde::{Deserialize, Serialize};

use super::votes::Slots;

/// In a map file, instead of a class: the teacher votes for void.
const VOID: &str = "void";
/// In a map file, instead of a class: the teacher does not vote.
const ABSTAIN: &str = "abstain";

/// A map file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MapFile {
    /// Classes of the data set that only this teacher can assign.
    #[serde(default)]
    decides: Vec<String>,
    /// Class of the teacher → class of the data set, `void` or `abstain`. Classes that are not listed are matched by name.
    #[serde(default)]
    classes: BTreeMap<String, String>,
    /// Class of the data set → number of votes, instead of 1.
    #[serde(default)]
    votes: BTreeMap<String, f64>,
}

/// How the classes of a teacher vote.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMap {
    /// For each class of the teacher, a slot.
    pub slots: Vec<u8>,
    /// For each slot, the weight of a vote.
    pub weights: Vec<f32>,
    /// For each class of the data set, whether this teacher decides it alone.
    pub decides: Vec<bool>,
}

/// A class map in words, for the record of the settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapFacts {
    /// Class of the teacher → class of the data set, `void` or `abstain`, in the order of the teacher.
    pub classes: Vec<(String, String)>,
    /// The votes for classes for which they are not 1, with the weight of the teacher.
    pub votes: BTreeMap<String, f64>,
    pub decides: Vec<String>,
}

/// A class map that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClassMapError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The message of the TOML parser for line `line`, counted from 1.
    #[error("{}:{line}: {message}", path.display())]
    Toml { path: PathBuf, line: usize, message: String },
    #[error("{}: {problems}", path.display())]
    Map { path: PathBuf, problems: MapProblems },
    /// Without a map file.
    #[error("{}: {problems}; pass a map file: --teacher {},map=FILE", model.display(), model.display())]
    NoMap { model: PathBuf, problems: MapProblems },
}

/// All that is wrong in a class map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapProblems(pub Vec<MapProblem>);

impl fmt::Display for MapProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

/// One of the problems of a class map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapProblem {
    /// Classes of the teacher, each with a similar class of the data set.
    #[error("these classes of the model are not mapped to a class of the data set: {}", unmapped(.0))]
    Unmapped(Vec<(String, Option<String>)>),
    #[error("[classes] {name:?}: the model has no such class{}", did_you_mean(.similar))]
    UnknownTeacherClass { name: String, similar: Option<String> },
    /// `key` is where the name is written.
    #[error("{key}: {name:?} is not a class of the data set{}", did_you_mean(.similar))]
    UnknownClass { key: String, name: String, similar: Option<String> },
    #[error("[votes] {0:?}: write a number above 0, at most 1000")]
    Votes(String),
    #[error("[classes] {0:?} and {1:?} are the same class of the model")]
    Twice(String, String),
    #[error("decides: no class of the model is mapped to {0:?}")]
    DecidesUnseen(String),
    #[error("the model votes for no class of the data set")]
    NoVotes,
}

/// TOML lines to complete.
fn unmapped(classes: &[(String, Option<String>)]) -> String {
    let mut text = String::new();
    for (name, similar) in classes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{name:?}", if text.is_empty() { "" } else { ", " });
        if let Some(similar) = similar {
            let _ = write!(text, " (like {similar:?}?)");
        }
    }
    text + "; write each into [classes] of the map file: \"CLASS OF THE MODEL\" = \"CLASS\", or \"void\" or \"abstain\""
}

fn did_you_mean(similar: &Option<String>) -> String {
    similar.as_ref().map(|similar| format!("; did you mean {similar:?}?")).unwrap_or_default()
}

/// The most similar of the names, if one is similar enough.
fn similar<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = name.to_lowercase();
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(&lower, &other.to_lowercase());
    let best = names.into_iter().map(|other| (likeness(other), other)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= 0.6).map(|(_, other)| other.to_owned())
}

impl ClassMap {
    /// Maps the classes `teacher` of `model` to `classes`, by the map file at `file` and by name. `weight` multiplies all votes.
    ///
    /// # Errors
    /// The file cannot be read, or all problems of the map.
    pub fn new(
        model: &Path,
        teacher: &[Label],
        file: Option<&Path>,
        classes: &[Label],
        weight: f64,
    ) -> Result<Self, ClassMapError> {
        let map = file.map(read).transpose()?.unwrap_or_default();
        resolve(&map, teacher, classes, weight).map_err(|problems| {
            let problems = MapProblems(problems);
            match file {
                Some(path) => ClassMapError::Map { path: path.into(), problems },
                None => ClassMapError::NoMap { model: model.into(), problems },
            }
        })
    }

    /// Maps classes of the same name (ignoring case); others vote for void.
    pub fn by_name(teacher: &[Label], classes: &[Label], weight: f64) -> Self {
        let slots = Slots { classes: classes.len() };
        let class_of = |label: &Label| classes.iter().position(|class| class.name.eq_ignore_ascii_case(&label.name));
        let slot_of = |label| class_of(label).unwrap_or(slots.void()) as u8;
        let weights = vec![weight as f32; slots.count()];
        ClassMap { slots: teacher.iter().map(slot_of).collect(), weights, decides: vec![false; classes.len()] }
    }

    /// The map in words.
    pub fn facts(&self, teacher: &[Label], classes: &[Label]) -> MapFacts {
        let slots = Slots { classes: classes.len() };
        let name = |slot: usize| match classes.get(slot) {
            Some(label) => label.name.clone(),
            None => (if slot == slots.void() { VOID } else { ABSTAIN }).to_owned(),
        };
        let mapped = teacher.iter().zip(&self.slots).map(|(label, &slot)| (label.name.clone(), name(slot.into())));
        let votes = classes.iter().zip(&self.weights).map(|(label, &weight)| (label.name.clone(), f64::from(weight)));
        let decides = classes.iter().zip(&self.decides).filter(|(_, decides)| **decides);
        MapFacts {
            classes: mapped.collect(),
            votes: votes.filter(|(_, weight)| *weight != 1.0).collect(),
            decides: decides.map(|(label, _)| label.name.clone()).collect(),
        }
    }
}

fn read(path: &Path) -> Result<MapFile, ClassMapError> {
    let text = std::fs::read_to_string(path).map_err(|source| ClassMapError::Read { path: path.into(), source })?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
        ClassMapError::Toml { path: path.into(), line: line + 1, message: error.message().replace('\n', ", ") }
    })
}

/// Resolves the names of a map file.
fn resolve(map: &MapFile, teacher: &[Label], classes: &[Label], weight: f64) -> Result<ClassMap, Vec<MapProblem>> {
    let slots = Slots { classes: classes.len() };
    let class_of = |name: &str| classes.iter().position(|label| label.name.eq_ignore_ascii_case(name));
    let names = || classes.iter().map(|label| label.name.as_str());
    let mut problems = Vec::new();
    let class_named = |key: String, name: &str, problems: &mut Vec<MapProblem>| {
        let class = class_of(name);
        if class.is_none() {
            problems.push(MapProblem::UnknownClass { key, name: name.to_owned(), similar: similar(name, names()) });
        }
        class
    };

    let mut listed: Vec<Option<&str>> = vec![None; teacher.len()];
    let mut found: Vec<Option<usize>> = vec![None; teacher.len()];
    for (name, goal) in &map.classes {
        let same = teacher.iter().position(|label| label.name == *name);
        let Some(at) = same.or_else(|| teacher.iter().position(|label| label.name.eq_ignore_ascii_case(name))) else {
            let similar = similar(name, teacher.iter().map(|label| label.name.as_str()));
            problems.push(MapProblem::UnknownTeacherClass { name: name.clone(), similar });
            continue;
        };
        if let Some(other) = listed[at] {
            problems.push(MapProblem::Twice(other.to_owned(), name.clone()));
        }
        listed[at] = Some(name);
        found[at] = match goal.as_str() {
            VOID => Some(slots.void()),
            ABSTAIN => Some(slots.abstain()),
            goal => class_named(format!("[classes] {name:?}"), goal, &mut problems),
        };
    }
    for ((found, listed), label) in found.iter_mut().zip(&listed).zip(teacher) {
        if listed.is_none() {
            *found = class_of(&label.name);
        }
    }
    let missing =
        found.iter().zip(&listed).zip(teacher).filter(|((found, listed), _)| found.is_none() && listed.is_none());
    let missing: Vec<_> = missing.map(|(_, label)| (label.name.clone(), similar(&label.name, names()))).collect();
    if !missing.is_empty() {
        problems.insert(0, MapProblem::Unmapped(missing));
    }

    let mut weights = vec![weight as f32; slots.count()];
    for (name, &votes) in &map.votes {
        if !(votes > 0.0 && votes <= 1000.0) {
            problems.push(MapProblem::Votes(name.clone()));
        }
        if let Some(class) = class_named("[votes]".into(), name, &mut problems) {
            weights[class] = (weight * votes) as f32;
        }
    }
    let mut decides = vec![false; classes.len()];
    for name in &map.decides {
        let Some(class) = class_named("decides".into(), name, &mut problems) else { continue };
        decides[class] = true;
        if !found.contains(&Some(class)) {
            problems.push(MapProblem::DecidesUnseen(name.clone()));
        }
    }
    if problems.is_empty() && !found.iter().flatten().any(|&slot| slot < slots.void()) {
        problems.push(MapProblem::NoVotes);
    }
    // A class without a slot is a problem.
    let slots: Option<Vec<u8>> = found.into_iter().map(|slot| slot.map(|slot| slot as u8)).collect();
    match slots {
        Some(slots) if problems.is_empty() => Ok(ClassMap { slots, weights, decides }),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;

    use super::*;

    fn labels(names: &str) -> Vec<Label> {
        names.split(',').map(|name| Label::new(name, Rgb(0, 0, 0))).collect()
    }

    fn map(text: &str, teacher: &str, classes: &str) -> Result<ClassMap, ClassMapError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.toml");
        std::fs::write(&path, text).unwrap();
        ClassMap::new(Path::new("net.onnx"), &labels(teacher), Some(&path), &labels(classes), 1.0)
    }

    fn problems(text: &str, teacher: &str, classes: &str) -> Vec<MapProblem> {
        match map(text, teacher, classes).unwrap_err() {
            ClassMapError::Map { path, problems } if path.ends_with("map.toml") => problems.0,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn classes_are_mapped_by_the_file_and_by_name() {
        let text = "decides = [\"vehicle\"]\n[classes]\nbackground = \"abstain\"\ncar = \"vehicle\"\nbus = \"vehicle\"\n\
                    \"potted plant\" = \"void\"\n[votes]\nPerson = 2.5";
        let map = map(text, "background,car,Person,bus,potted plant,wall", "person,vehicle,wall").unwrap();
        assert_eq!(map.slots, [4, 1, 0, 1, 3, 2]);
        assert_eq!(map.weights, [2.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(map.decides, [false, true, false]);
        let facts = map.facts(&labels("background,car,Person,bus,potted plant,wall"), &labels("person,vehicle,wall"));
        assert_eq!(facts.classes[0], ("background".into(), "abstain".into()));
        assert_eq!((facts.votes["person"], facts.decides), (2.5, vec!["vehicle".to_owned()]));
    }

    #[test]
    fn equal_names_need_no_file() {
        let (teacher, classes) = (labels("Sky,road"), labels("road,sky,car"));
        let map = ClassMap::new(Path::new("net.onnx"), &teacher, None, &classes, 2.0).unwrap();
        assert_eq!((map.slots, map.weights), (vec![1, 0], vec![2.0; 5]));
        let error = ClassMap::new(Path::new("net.onnx"), &labels("Sky,rad,tree"), None, &classes, 1.0).unwrap_err();
        let text = error.to_string();
        for part in ["net.onnx", "\"rad\" (like \"road\"?)", "\"tree\"", "abstain", "map=FILE"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("\"tree\" (like"), "{text}");
    }

    #[test]
    fn all_problems_are_listed() {
        use MapProblem as Problem;
        let text = "decides = [\"sky\"]\n[classes]\ncra = \"vehicle\"\nbus = \"vehicel\"\n[votes]\nroad = 0";
        let found = problems(text, "car,bus,tree", "road,vehicle,sky");
        let expected = [
            Problem::Unmapped(vec![("car".into(), None), ("tree".into(), None)]),
            Problem::UnknownClass {
                key: "[classes] \"bus\"".into(),
                name: "vehicel".into(),
                similar: Some("vehicle".into()),
            },
            Problem::UnknownTeacherClass { name: "cra".into(), similar: Some("car".into()) },
            Problem::Votes("road".into()),
            Problem::DecidesUnseen("sky".into()),
        ];
        assert_eq!(found, expected);
        assert_eq!(problems("[classes]\na = \"void\"\nb = \"abstain\"", "a,b", "x,y"), [Problem::NoVotes]);
        let twice = problems("[classes]\na = \"x\"\nA = \"y\"", "a", "x,y");
        assert_eq!(twice, [Problem::Twice("A".into(), "a".into())]);
    }

    /// The first 31 classes of ADE20K, the most frequent ones.
    const ADE: &str = "wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,earth,door,\
                       table,mountain,plant,curtain,chair,car,water,painting,sofa,shelf,house,sea,mirror,rug,field,armchair";
    const VOC: &str = "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,\
                       person,pottedplant,sheep,sofa,train,tvmonitor";

    #[test]
    fn the_maps_of_the_documentation_are_complete() {
        let text = include_str!("../../../../docs/training.md").split_once("## Proposing labels").unwrap().1;
        let block = |kind: &str, after: &str| {
            let rest = text.split_once(after).unwrap().1.split_once(&format!("```{kind}\n")).unwrap().1;
            rest.split_once("```").unwrap().0.to_owned()
        };
        let classes = block("text", "Class maps").trim().replace('\n', ",");
        assert_eq!(labels(&classes).len(), 16);
        let things = map(&block("toml", "`things.toml`"), VOC, &classes).unwrap();
        let rooms = map(&block("toml", "`rooms.toml`"), ADE, &classes).unwrap();
        assert_eq!(things.slots[0], 17, "background abstains");
        let seen = |class: u8| things.slots.contains(&class) || rooms.slots.contains(&class);
        assert_eq!((0..16).filter(|&class| !seen(class)).collect::<Vec<_>>(), [0], "only other is not voted for");
    }

    #[test]
    fn other_keys_are_errors_with_their_line() {
        let error = map("[classes]\na = \"x\"\n[vote]\n", "a", "x,y").unwrap_err();
        assert!(matches!(&error, ClassMapError::Toml { line: 3, .. }), "{error}");
        let error = map("[classes]\na = 1\n", "a", "x,y").unwrap_err();
        assert!(matches!(&error, ClassMapError::Toml { line: 2, .. }), "{error}");
    }
}
