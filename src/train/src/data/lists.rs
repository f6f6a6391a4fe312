//! List files, which name the images of a part of the data set, one per line.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::error::{DataError, LineError};
use super::{Pair, scan};

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListLine {
    /// The line number, from 1.
    pub number: usize,
    /// Name or path of an image.
    pub image: String,
    /// Path of the label, in lists with two columns.
    pub label: Option<String>,
}

/// Reads a list without empty lines and comments (`#`). A name with spaces is quoted, or is alone on its line.
///
/// # Errors
/// If the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<ListLine>, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.trim_start_matches('\u{FEFF}').lines().enumerate();
    Ok(lines
        .filter_map(|(index, line)| {
            parse(line.trim()).map(|(image, label)| ListLine { number: index + 1, image, label })
        })
        .collect())
}

fn parse(line: &str) -> Option<(String, Option<String>)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    if line.starts_with('"') {
        let mut quoted = line.split('"').map(str::trim).filter(|part| !part.is_empty());
        return Some((quoted.next()?.to_string(), quoted.next().map(str::to_string)));
    }
    let fields: Vec<&str> = line.split([' ', '\t', ',']).filter(|field| !field.is_empty()).collect();
    match fields[..] {
        // Pascal VOC's lists may have 1, 0 or -1 after the name.
        [image, label] if label.contains(['.', '/']) => Some((image.to_string(), Some(label.to_string()))),
        [image, "1" | "-1" | "0"] => Some((image.to_string(), None)),
        _ => Some((line.to_string(), None)),
    }
}

/// Finds the file of a path in a list. Lists often contain paths of another machine: leading folders that do not exist
/// are skipped. Their names may also be in another Unicode normalisation ([`scan::to_nfc`]).
pub fn resolve(root: &Path, text: &str) -> Option<PathBuf> {
    let found = |text: &str| {
        let parts: Vec<&str> =
            text.split(['/', '\\']).filter(|part| !part.is_empty() && *part != "." && *part != "..").collect();
        (0..parts.len()).map(|skipped| root.join(parts[skipped..].join("/"))).find(|path| path.is_file())
    };
    found(text).or_else(|| found(&scan::to_nfc(text))).or_else(|| found(&scan::to_nfd(text)))
}

/// Returns the pairs that a list names.
///
/// # Errors
/// The first line whose image is not in the data set, or is ambiguous.
pub fn select(path: &Path, root: &Path, pairs: &[Pair]) -> Result<Vec<Pair>, DataError> {
    let mut by_name: HashMap<&str, Vec<&Pair>> = HashMap::new();
    for pair in pairs {
        let base = pair.name.rsplit('/').next().unwrap_or(&pair.name);
        by_name.entry(&pair.name).or_default().push(pair);
        if base != pair.name {
            by_name.entry(base).or_default().push(pair);
        }
    }
    let mut chosen = Vec::new();
    for line in read(path)? {
        let text = scan::to_nfc(line.image.trim_start_matches(['.', '/']));
        let bare = Path::new(&text).with_extension("").to_string_lossy().into_owned();
        let last = |text: &str| text.rsplit('/').next().unwrap_or(text).to_string();
        let found = [&text, &bare, &last(&text), &last(&bare)].into_iter().find_map(|name| by_name.get(name.as_str()));
        match found.map(Vec::as_slice) {
            Some([pair]) => chosen.push((*pair).clone()),
            Some(several) => {
                let names = several.iter().map(|pair| pair.name.clone()).collect();
                return Err(DataError::line(path, line.number, LineError::AmbiguousImage { name: text, names }));
            }
            None => {
                let error = LineError::NoLabelledImage { image: text, folder: root.to_path_buf() };
                return Err(DataError::line(path, line.number, error));
            }
        }
    }
    Ok(chosen)
}

/// A line that names an image. A name that would be read as two columns or as a comment is quoted.
pub fn line(name: &str) -> String {
    if parse(name) == Some((name.to_string(), None)) { name.to_string() } else { format!("\"{name}\"") }
}

/// Writes one list for each part, `PART.txt`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(dir: &Path, parts: &BTreeMap<&str, &[Pair]>) -> Result<(), DataError> {
    std::fs::create_dir_all(dir).map_err(DataError::io(dir))?;
    for (part, pairs) in parts {
        let path = dir.join(format!("{part}.txt"));
        let text: String = pairs.iter().map(|pair| line(&pair.name) + "\n").collect();
        std::fs::write(&path, text).map_err(DataError::io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn lines_have_one_name_or_two_paths() {
        let two = |a: &str, b: &str| Some((a.to_string(), Some(b.to_string())));
        let one = |a: &str| Some((a.to_string(), None));
        assert_eq!(parse("/train/a.png /trainannot/a.png"), two("/train/a.png", "/trainannot/a.png"));
        assert_eq!(parse("\"/d/a b.jpg\" \"/dannot/a b.png\""), two("/d/a b.jpg", "/dannot/a b.png"));
        assert_eq!(parse("2007_000032"), one("2007_000032"));
        assert_eq!(parse("2007_000032 1"), one("2007_000032"));
        assert_eq!(parse("my own image"), one("my own image"));
        assert_eq!(parse("# a"), None);
        for name in ["a", "my own image", "street 1/frame", "a 0", "#1", "a,b.v1"] {
            assert_eq!(parse(&line(name)), one(name));
        }
    }

    #[test]
    fn paths_of_other_machines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        testing::write(&dir.path().join("train/a.png"), "");
        let found = Some(dir.path().join("train/a.png"));
        assert_eq!(resolve(dir.path(), "/SegNet/CamVid/train/a.png"), found);
        assert_eq!(resolve(dir.path(), "train/a.png"), found);
        assert_eq!(resolve(dir.path(), "../../train/a.png"), found);
        assert_eq!(resolve(dir.path(), "/SegNet/CamVid/train/b.png"), None);
        testing::write(&dir.path().join("train/\u{e4}.png"), "");
        assert_eq!(resolve(dir.path(), "train/a\u{308}.png"), Some(dir.path().join("train/\u{e4}.png")));
    }

    #[test]
    fn errors_contain_the_line_number() {
        let dir = tempfile::tempdir().unwrap();
        let pair = |name: &str| Pair { name: name.into(), image: "i".into(), label: "l".into() };
        let pairs = [pair("x/a"), pair("x/b.v1"), pair("y/b.v1"), pair("y/c")];
        let list = dir.path().join("train.txt");
        testing::write(&list, "x/a.png\nc\nx/b.v1\n");
        let names: Vec<String> = select(&list, dir.path(), &pairs).unwrap().into_iter().map(|pair| pair.name).collect();
        assert_eq!(names, ["x/a", "y/c", "x/b.v1"]);
        let error = |text: &str| {
            testing::write(&list, text);
            select(&list, dir.path(), &pairs).unwrap_err()
        };
        let missing = error("x/a\nz\n");
        assert!(
            matches!(missing, DataError::Line { line: 2, source: LineError::NoLabelledImage { .. }, .. }),
            "{missing}"
        );
        let ambiguous = error("x/a\nb.v1\n");
        assert!(
            matches!(ambiguous, DataError::Line { line: 2, source: LineError::AmbiguousImage { .. }, .. }),
            "{ambiguous}"
        );
    }
}
