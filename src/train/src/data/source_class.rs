//! The classes of a class file, before void classes and merges are applied.

use maskcast::frame::Rgb;

use super::error::ClassFileError;

/// The first class of labelme's list of labels. Its number is -1, stored as 255; the next class has the number 0.
const IGNORED: &str = "__ignore__";

/// A class of the data set, before void classes and merges are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceClass {
    pub name: String,
    pub color: Option<Rgb>,
    /// Its numbers in label images that contain numbers.
    pub values: Vec<u8>,
}

/// The content of a class file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassFile {
    pub classes: Vec<SourceClass>,
    /// `(a, b)`: class `a` is merged into `b`.
    pub merges: Vec<(String, String)>,
}

/// The class of one line, before classes without a number get one.
pub struct ClassEntry {
    pub index: Option<u8>,
    pub name: String,
    pub color: Option<Rgb>,
}

/// Assigns numbers to classes without one. `entries` are the classes with their line numbers.
///
/// # Errors
/// The line of a class that contradicts an earlier one, and the problem.
pub fn numbered(mut entries: Vec<(usize, ClassEntry)>) -> Result<Vec<SourceClass>, (usize, ClassFileError)> {
    let with_index = entries.iter().filter(|(_, entry)| entry.index.is_some()).count();
    if with_index > 0 && with_index < entries.len() {
        let line = entries.iter().find(|(_, entry)| entry.index.is_none()).map_or(1, |(line, _)| *line);
        return Err((line, ClassFileError::MissingNumber));
    }
    // `__ignore__` is not counted; otherwise all numbers would be shifted by one.
    let ignored = match &entries[..] {
        [(_, first), ..] if first.index.is_none() && first.name == IGNORED => Some(entries.remove(0).1),
        _ => None,
    };
    let mut classes: Vec<SourceClass> = Vec::new();
    for (place, (line, entry)) in entries.into_iter().enumerate() {
        let value = match entry.index {
            Some(index) => index,
            None => u8::try_from(place).map_err(|_| (line, ClassFileError::TooManyClasses))?,
        };
        if let Some(other) = classes.iter().find(|class| class.values.contains(&value)) {
            let other = other.name.clone();
            return Err((line, ClassFileError::SameNumber { name: entry.name, value, other }));
        }
        if let Some(color) = entry.color
            && let Some(other) = classes.iter().find(|class| class.color == Some(color))
        {
            let other = other.name.clone();
            return Err((line, ClassFileError::SameColor { name: entry.name, color, other }));
        }
        if classes.iter().any(|class| class.name == entry.name) {
            return Err((line, ClassFileError::SameName(entry.name)));
        }
        classes.push(SourceClass { name: entry.name, color: entry.color, values: vec![value] });
    }
    classes.extend(ignored.map(|entry| SourceClass { name: entry.name, color: entry.color, values: vec![255] }));
    Ok(classes)
}
