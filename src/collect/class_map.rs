//! The classes of a collection, in CVAT's class file `labelmap.txt`.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::frame::{ClassId, Label, Labels, Rgb, UNSEEN};

/// The value of void pixels in labels.
pub const VOID: u8 = 255;
/// Pascal VOC's colour of index 255, which is void.
pub const VOID_COLOR: Rgb = Rgb(224, 224, 192);
/// The first line of CVAT's file.
const HEADING: &str = "# label:color_rgb:parts:actions";
/// Classes of 8-bit labels with void.
const MOST: usize = 255;

/// Names and colours by index in labels. Indices never change; classes of other models are appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassMap {
    classes: Vec<Label>,
}

impl ClassMap {
    /// Reads a class file.
    ///
    /// # Errors
    /// The line that is wrong, and how.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut classes: Vec<Label> = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.split(':');
            let (name, color) = (fields.next().unwrap_or(""), fields.next().and_then(parse_color));
            let (true, Some(color)) = (!name.is_empty(), color) else {
                return Err(format!("line {number} is not NAME:RED,GREEN,BLUE:: ({line:?})"));
            };
            if let Some(other) = classes.iter().find(|class| class.name == name || class.color == color) {
                return Err(format!("line {number}: name and colour must differ from those of {:?}", other.name));
            }
            classes.push(Label::new(name, color));
        }
        if classes.len() > MOST { Err(format!("more than {MOST} classes")) } else { Ok(ClassMap { classes }) }
    }

    /// The text of the class file.
    pub fn text(&self) -> String {
        let mut text = format!("{HEADING}\n");
        for Label { name, color: Rgb(r, g, b), .. } in &self.classes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}:{r},{g},{b}::");
        }
        text
    }

    pub fn labels(&self) -> Labels {
        self.classes.as_slice().into()
    }

    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// The palette of labels: 256 colours, red, green and blue of each.
    pub fn palette(&self) -> Vec<u8> {
        let mut palette = vec![0; 3 * 256];
        let colors = self.classes.iter().map(|class| class.color);
        for (entry, Rgb(r, g, b)) in palette.chunks_exact_mut(3).zip(colors) {
            entry.copy_from_slice(&[r, g, b]);
        }
        let Rgb(r, g, b) = VOID_COLOR;
        palette[3 * usize::from(VOID)..].copy_from_slice(&[r, g, b]);
        palette
    }

    /// Adds the classes of a model that are new, and returns the index here of each index of the model. Pixels that the model did not
    /// see, and indices without a label, are void. `None`: there would be more classes than a label can have.
    pub fn add(&mut self, labels: &[Label]) -> Option<[ClassId; 256]> {
        let mut indices = [VOID; 256];
        let mut used: HashSet<Rgb> = self.classes.iter().map(|class| class.color).collect();
        used.insert(VOID_COLOR);
        for (index, label) in labels.iter().enumerate().take(usize::from(UNSEEN)) {
            let name = line_name(&label.name);
            let known = self.classes.iter().position(|class| class.name == name);
            let at = match known {
                Some(at) => at,
                None => {
                    // Programs that read colours need a different one for each class.
                    let color = std::iter::once(label.color).chain(spare_colors()).find(|color| used.insert(*color))?;
                    self.classes.push(Label::new(name, color));
                    self.classes.len() - 1
                }
            };
            indices[index] = u8::try_from(at).ok().filter(|at| *at < VOID)?;
        }
        Some(indices)
    }
}

fn parse_color(text: &str) -> Option<Rgb> {
    let mut numbers = text.split(',').map(|number| number.trim().parse::<u8>().ok());
    let color = Rgb(numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(color)
}

/// A name without the characters that have a meaning in the file.
fn line_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c == ':' || c.is_control() { '_' } else { c }).collect();
    let name = name.trim();
    match name.strip_prefix('#') {
        Some(rest) => format!("_{rest}"),
        None if name.is_empty() => "_".into(),
        None => name.to_owned(),
    }
}

/// Colours that differ much from one another, for classes whose colour another class has.
fn spare_colors() -> impl Iterator<Item = Rgb> {
    let levels = |bits: usize| [0, 255, 128, 64, 192, 32, 160, 96, 224][bits];
    (1..9usize.pow(3)).map(move |n| Rgb(levels(n % 9), levels(n / 9 % 9), levels(n / 81)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_another_model_are_mapped_by_name_and_appended() {
        let label = |name: &str, color| Label::new(name, color);
        let mut map = ClassMap::default();
        let first = [label("background", Rgb(0, 0, 0)), label("person", Rgb(220, 20, 60))];
        let indices = map.add(&first).unwrap();
        assert_eq!((indices[0], indices[1], indices[2], indices[255]), (0, 1, VOID, VOID));
        let second = [label("car: big", Rgb(220, 20, 60)), label("person", Rgb(1, 2, 3))];
        let indices = map.add(&second).unwrap();
        assert_eq!((indices[0], indices[1]), (2, 1));
        let read = ClassMap::parse(&map.text()).unwrap();
        assert_eq!(read, map);
        assert_eq!(read.labels()[2].name, "car_ big");
        assert_ne!(read.labels()[2].color, read.labels()[1].color);
        let palette = read.palette();
        assert_eq!((&palette[3..6], &palette[765..]), (&[220, 20, 60][..], &[224, 224, 192][..]));
    }

    #[test]
    fn a_damaged_class_file_is_refused_with_its_line() {
        for (text, expected) in [
            ("# x\nperson:1,2\n", "line 2"),
            ("person:1,2,3::\nperson:1,2,4::\n", "line 2"),
            ("a:1,2,3::\nb:1,2,3::\n", "line 2"),
            (":1,2,3::\n", "line 1"),
        ] {
            let error = ClassMap::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn more_classes_than_a_label_can_have_are_refused() {
        let labels: Vec<Label> = (0..200).map(|n| Label::new(format!("a{n}"), Rgb(n, 0, 0))).collect();
        let others: Vec<Label> = (0..100).map(|n| Label::new(format!("b{n}"), Rgb(0, n, 0))).collect();
        let mut map = ClassMap::default();
        assert!(map.add(&labels).is_some());
        assert!(map.add(&others).is_none());
    }
}
