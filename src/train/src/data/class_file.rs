//! Class files: names, colours and numbers of classes, in the forms that data sets use.
//!
//! | file | a line |
//! | --- | --- |
//! | `label_colors.txt` (CamVid, CVAT) | `64 128 64 Animal`, or the name alone |
//! | `labelmap.txt` (CVAT) | `name:r,g,b:parts:actions` |
//! | `class_dict.csv`, `labels.csv` | `name,r,g,b` or `index,name`, with or without a heading |
//! | `_classes.csv` (Roboflow) | `Pixel Value, Class` as the heading, then `index, name` |
//! | `classes.txt`, `labels.txt`, `class_names.txt` (labelme) | a name; the index of the line is the number |
//! | `classes.json` | names in a list, or an object of numbers and names; see [`super::class_json`] |
//! | a file for `--classes` | any of these, `255,person`, and `truck=car`: class truck is merged into car |
//!
//! Files are UTF-8; names are normalised to NFC, so that names that look the same are equal.

use std::path::{Path, PathBuf};

use maskcast::frame::Rgb;

use super::error::{ClassFileError, DataError};
use super::source_class::{ClassEntry, ClassFile, numbered};
use super::{class_json, scan};

/// File names of class files, in search order, compared without case.
const NAMES: [&str; 20] = [
    "label_colors.txt",
    "labelmap.txt",
    "class_dict.csv",
    "_classes.csv",
    "classes.csv",
    "labels.csv",
    "label_colors.csv",
    "class_palette.csv",
    "class_names.txt",
    "classes.txt",
    "labels.txt",
    "label_names.txt",
    "codes.txt",
    "names.txt",
    "categories.txt",
    "obj.names",
    "classes.names",
    "class_names.csv",
    "classes.json",
    "class_names.json",
];
/// Parts of the names, and extensions, of files that may be lists of classes in an unknown format.
const LIKE: [&str; 7] = ["class", "label", "categor", "names", "palette", "colormap", "legend"];
const LIKE_ENDINGS: [&str; 8] = ["txt", "csv", "json", "names", "yaml", "yml", "xml", "pbtxt"];

/// Returns the files directly in a folder, sorted by name in lower case.
fn files(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let named =
        |path: PathBuf| path.file_name().and_then(|name| name.to_str()).map(|name| (name.to_lowercase(), path.clone()));
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).filter_map(named).collect();
    files.sort();
    files
}

/// Returns the class file in a folder, if there is one.
pub fn find(dir: &Path) -> Option<PathBuf> {
    let files = files(dir);
    NAMES.iter().find_map(|wanted| files.iter().find(|(name, _)| name == wanted).map(|(_, path)| path.clone()))
}

/// Returns the class file in a folder or in one of its direct subfolders.
pub fn find_below(dir: &Path) -> Option<PathBuf> {
    find(dir).or_else(|| scan::folders(dir).unwrap_or_default().values().find_map(|folder| find(folder)))
}

/// Returns a file that may be a list of classes by its name, but is not one that [`find`] returns.
pub fn find_unrecognized(dir: &Path) -> Option<PathBuf> {
    let like = |name: &String, path: &PathBuf| {
        !name.starts_with('.')
            && scan::has_extension(path, &LIKE_ENDINGS)
            && LIKE.iter().any(|part| name.contains(part))
            && !NAMES.contains(&name.as_str())
    };
    files(dir).into_iter().find(|(name, path)| like(name, path)).map(|(_, path)| path)
}

/// Reads a class file.
///
/// # Errors
/// The first line that is invalid or contradicts an earlier line; or the file is not UTF-8 text.
pub fn read(path: &Path) -> Result<ClassFile, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let located = |(line, error): (usize, ClassFileError)| DataError::line(path, line, error);
    let text = utf8(&bytes).map_err(located)?;
    if scan::has_extension(path, &["json"]) {
        return class_json::read(text).map_err(located);
    }
    parse(&scan::to_nfc(text.trim_start_matches('\u{FEFF}'))).map_err(located)
}

/// Decodes UTF-8. Other encodings are not guessed, as a wrong guess would change names without an error.
fn utf8(bytes: &[u8]) -> Result<&str, (usize, ClassFileError)> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err((1, ClassFileError::Utf16));
    }
    let line = |at: usize| 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err((line(at), ClassFileError::ZeroByte));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        (line(at), ClassFileError::NotUtf8(bytes[at]))
    })
}

/// Parses the text of a class file.
///
/// # Errors
/// The number of the first line that is invalid, and the problem.
pub fn parse(text: &str) -> Result<ClassFile, (usize, ClassFileError)> {
    let mut heading: Option<CsvHeading> = None;
    let mut entries: Vec<(usize, ClassEntry)> = Vec::new();
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((from, to)) = line.split_once('=') {
            let (from, to) = (from.trim(), to.trim());
            if from.is_empty() || to.is_empty() {
                return Err((number, ClassFileError::Merge(line.to_string())));
            }
            merges.push((from.to_string(), to.to_string()));
            continue;
        }
        let fields = fields(line);
        if entries.is_empty() && heading.is_none() {
            heading = CsvHeading::of(&fields);
            if heading.is_some() {
                continue;
            }
        }
        let entry = match &heading {
            Some(heading) => heading.entry(&fields),
            None => label_map(line).unwrap_or_else(|| plain(line, &fields)),
        };
        entries.push((number, entry.map_err(|problem| (number, problem))?));
    }
    Ok(ClassFile { classes: numbered(entries)?, merges })
}

fn fields(line: &str) -> Vec<&str> {
    let trimmed = |field: &'_ str| -> usize { field.trim().trim_matches('"').len() };
    let separator = [',', ';'].into_iter().find(|separator| line.contains(*separator));
    match separator {
        Some(separator) => line
            .split(separator)
            .map(|field| field.trim().trim_matches('"').trim())
            .filter(|field| trimmed(field) > 0)
            .collect(),
        None => line.split_whitespace().collect(),
    }
}

/// `name:r,g,b:parts:actions`; the colour is optional.
fn label_map(line: &str) -> Option<Result<ClassEntry, ClassFileError>> {
    let mut parts = line.splitn(3, ':');
    let (name, color) = (parts.next()?.trim(), parts.next()?.trim());
    parts.next()?;
    let color = match color {
        "" => None,
        text => match color_of(&text.split(',').map(str::trim).collect::<Vec<_>>()) {
            Some(color) => Some(color),
            None => return Some(Err(ClassFileError::LabelMapColor(text.to_string()))),
        },
    };
    if name.is_empty() {
        return Some(Err(ClassFileError::EmptyName));
    }
    Some(Ok(ClassEntry { index: None, name: name.to_string(), color }))
}

/// Parses a line of a file without a heading; the meaning of numbers follows from their number and position.
fn plain(line: &str, fields: &[&str]) -> Result<ClassEntry, ClassFileError> {
    let is_number = |field: &&str| field.parse::<i64>().is_ok();
    let leading = fields.iter().take_while(|field| is_number(field)).count();
    let trailing = fields.iter().rev().take_while(|field| is_number(field)).count();
    let count = fields.len();
    let (index, name, color) = match (leading, trailing) {
        (leading, _) if leading == count => return Err(ClassFileError::NoName(line.to_string())),
        (0, 3) => (None, &fields[..count - 3], Some(&fields[count - 3..])),
        (1, 3) => (Some(fields[0]), &fields[1..count - 3], Some(&fields[count - 3..])),
        (3, _) => (None, &fields[3..], Some(&fields[..3])),
        (4, _) => (Some(fields[0]), &fields[4..], Some(&fields[1..4])),
        (1, _) => (Some(fields[0]), &fields[1..], None),
        (0, 1) if line.contains([',', ';']) => (Some(fields[count - 1]), &fields[..count - 1], None),
        (0, _) => match fields[0].strip_suffix(':').filter(|number| number.parse::<u8>().is_ok()) {
            Some(number) if count > 1 => (Some(number), &fields[1..], None),
            _ => (None, fields, None),
        },
        _ => return Err(ClassFileError::Form(line.to_string())),
    };
    if name.len() > 1 && line.contains([',', ';']) {
        return Err(ClassFileError::SeveralNames { line: line.to_string(), names: name.len() });
    }
    let number = |text: &str| text.parse().map_err(|_| ClassFileError::Number(text.to_string()));
    let index = index.map(number).transpose()?;
    let color = match color {
        None => None,
        Some(fields) => Some(color_of(fields).ok_or_else(|| ClassFileError::Color(fields.join(" ")))?),
    };
    Ok(ClassEntry { index, name: name.join(" "), color })
}

fn color_of(fields: &[&str]) -> Option<Rgb> {
    match fields {
        [r, g, b] => Some(Rgb(r.parse().ok()?, g.parse().ok()?, b.parse().ok()?)),
        _ => None,
    }
}

/// The columns of a CSV file, from its heading.
struct CsvHeading {
    name: usize,
    index: Option<usize>,
    color: Option<[usize; 3]>,
}

impl CsvHeading {
    fn of(fields: &[&str]) -> Option<CsvHeading> {
        let column =
            |names: &[&str]| fields.iter().position(|field| names.iter().any(|name| field.eq_ignore_ascii_case(name)));
        if fields.len() < 2 {
            return None;
        }
        let index = column(&[
            "index",
            "id",
            "value",
            "number",
            "class_id",
            "label_id",
            "class_index",
            "trainid",
            "pixel value",
            "pixel_value",
            "pixelvalue",
        ]);
        let color = match (column(&["r", "red"]), column(&["g", "green"]), column(&["b", "blue"])) {
            (Some(r), Some(g), Some(b)) => Some([r, g, b]),
            _ => None,
        };
        let name = column(&["name", "class", "label", "class_name", "label_name", "classname"])?;
        (index.is_some() || color.is_some()).then_some(CsvHeading { name, index, color })
    }

    fn entry(&self, fields: &[&str]) -> Result<ClassEntry, ClassFileError> {
        let field = |column: usize| fields.get(column).copied().ok_or(ClassFileError::MissingColumn(column + 1));
        let number = |column: usize| {
            let text = field(column)?;
            text.parse::<u8>().map_err(|_| ClassFileError::Number(format!("{text:?}")))
        };
        let color = match self.color {
            Some([r, g, b]) => Some(Rgb(number(r)?, number(g)?, number(b)?)),
            None => None,
        };
        Ok(ClassEntry { index: self.index.map(number).transpose()?, name: field(self.name)?.to_string(), color })
    }
}

#[cfg(test)]
mod tests {
    use super::super::source_class::SourceClass;
    use super::*;

    fn class(name: &str, color: Option<Rgb>, value: u8) -> SourceClass {
        SourceClass { name: name.into(), color, values: vec![value] }
    }

    #[test]
    fn all_line_forms_are_read() {
        let colored = vec![class("Void", Some(Rgb(0, 0, 0)), 0), class("traffic light", Some(Rgb(1, 2, 3)), 1)];
        for text in [
            "# color (RGB) label\n0 0 0\tVoid\n1 2 3 traffic light\n",
            "Void:0,0,0::\ntraffic light:1,2,3:a,b:run\n",
            "name,r,g,b\nVoid,0,0,0\ntraffic light, 1, 2, 3\n",
            "Void;0;0;0\r\ntraffic light;1;2;3\r\n",
            "0,Void,0,0,0\n1,traffic light,1,2,3\n",
            "0 0 0 0 Void\n1 1 2 3 traffic light\n",
        ] {
            assert_eq!(parse(text).unwrap().classes, colored, "{text}");
        }
        let named = vec![class("road", None, 0), class("traffic light", None, 1)];
        for text in [
            "road\ntraffic light\n",
            "road::: \ntraffic light:::",
            "0 road\n1 traffic light",
            "0: road\n1: traffic light",
        ] {
            assert_eq!(parse(text).unwrap().classes, named, "{text}");
        }
        assert_eq!(parse("id,name\n7,road\n255,void\n").unwrap().classes[1], class("void", None, 255));
        assert_eq!(parse("road,7").unwrap().classes, [class("road", None, 7)]);
    }

    #[test]
    fn classes_of_labelme_and_roboflow_keep_their_numbers() {
        let classes = parse("__ignore__\n_background_\ndisc\n").unwrap().classes;
        let wanted = [class("_background_", None, 0), class("disc", None, 1), class("__ignore__", None, 255)];
        assert_eq!(classes, wanted);
        let classes = parse("Pixel Value, Class\n0, background\n1, disc\n").unwrap().classes;
        assert_eq!(classes, [class("background", None, 0), class("disc", None, 1)]);
    }

    #[test]
    fn class_files_are_found_without_case() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my_label_list.txt"), "").unwrap();
        assert_eq!(
            (find(dir.path()), find_unrecognized(dir.path())),
            (None, Some(dir.path().join("my_label_list.txt")))
        );
        std::fs::write(dir.path().join("Class_Names.TXT"), "").unwrap();
        assert_eq!(find(dir.path()), Some(dir.path().join("Class_Names.TXT")));
    }

    #[test]
    fn merges_and_classes_can_be_mixed() {
        let file = parse("car\ntruck\ntruck = car\n").unwrap();
        assert_eq!(file.classes.len(), 2);
        assert_eq!(file.merges, [("truck".to_string(), "car".to_string())]);
    }

    #[test]
    fn errors_contain_the_line_number() {
        for (text, line) in [
            ("0 0 0 a\n0 0 0 b", 2),
            ("a\nb\na", 3),
            ("0 a\nb", 2),
            ("1 2 3", 1),
            ("300 0 0 a", 1),
            ("a:1,2:x:", 1),
            ("name,r,g,b\na,1,2,3\nb,1,2", 3),
            ("a=", 1),
            ("0 a\n0 b", 2),
            ("sky\na,b,c", 2),
            ("0;a;b", 1),
            ("a,1,2,3,b", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
        let (_, error) = parse("a,b,c").unwrap_err();
        assert!(matches!(error, ClassFileError::SeveralNames { names: 3, .. }), "{error}");
    }

    #[test]
    fn other_encodings_than_utf8_are_errors() {
        assert_eq!(utf8("größe\n".as_bytes()).unwrap(), "größe\n");
        assert!(matches!(utf8(b"\xff\xfe\x00b"), Err((1, ClassFileError::Utf16))));
        assert!(matches!(utf8(b"\xfe\xff\x00b"), Err((1, ClassFileError::Utf16))));
        assert!(matches!(utf8(b"a\nb\0\n"), Err((2, ClassFileError::ZeroByte))));
        assert!(matches!(utf8(b"a\ngr\xf6\xdfe"), Err((2, ClassFileError::NotUtf8(0xf6)))));
    }

    #[test]
    fn names_are_normalised_to_nfc() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        std::fs::write(&path, "\u{FEFF}Stra\u{df}e\nGera\u{308}t\n").unwrap();
        assert_eq!(read(&path).unwrap().classes[1].name, "Ger\u{e4}t");
    }
}
