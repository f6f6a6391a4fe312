//! Maps a data set's classes to those that are trained: void is excluded, classes are merged, the others are
//! renumbered.

use std::collections::HashMap;

use maskcast::frame::{Label, Rgb};

use super::VOID;
use super::appearance;
use super::colors;
use super::error::CodingError;
use super::sample::Palettes;
use super::source_class::SourceClass;

/// Names of void classes, unless void classes are given.
const VOID_NAMES: [&str; 10] = [
    "void",
    "ignore",
    "ignored",
    "unlabeled",
    "unlabelled",
    "unknown",
    "undefined",
    "don't care",
    "dontcare",
    "__ignore__",
];

/// Whether a class of this name is void, unless void classes are given.
pub fn is_void(name: &str) -> bool {
    VOID_NAMES.iter().any(|void| name.eq_ignore_ascii_case(void))
}

/// Maps the numbers and colours of labels to classes.
#[derive(Clone, Debug)]
pub struct ClassTable {
    pub classes: Vec<Label>,
    /// Class or [`VOID`] by number; `None` if no class has the number.
    pub values: [Option<u8>; 256],
    /// Class or [`VOID`] by colour.
    pub colors: HashMap<Rgb, u8>,
}

impl ClassTable {
    /// A table without classes.
    pub fn empty() -> Self {
        ClassTable { classes: Vec::new(), values: [None; 256], colors: HashMap::new() }
    }

    /// Builds the table. `void` are names or numbers of void classes instead of the default names; 255 is void unless a
    /// class has this number. `palettes` of the label images give the colours of classes that have none in `source`.
    ///
    /// # Errors
    /// If a class name is unknown, or fewer than two classes remain.
    pub fn new(
        source: &[SourceClass],
        void: Option<&[String]>,
        merges: &[(String, String)],
        palettes: &Palettes,
    ) -> Result<Self, CodingError> {
        let known = |name: &str| source.iter().any(|class| class.name.eq_ignore_ascii_case(name));
        let names = || source.iter().map(|class| class.name.clone()).collect();
        let mut void_values = Vec::new();
        for entry in void.unwrap_or_default() {
            match entry.parse::<u8>() {
                _ if known(entry) => {}
                Ok(value) => void_values.push(value),
                Err(_) if entry.eq_ignore_ascii_case("none") => {}
                Err(_) => return Err(CodingError::UnknownClass { name: entry.clone(), known: names() }),
            }
        }
        let is_void = |class: &SourceClass| {
            let named = |name: &str| class.name.eq_ignore_ascii_case(name);
            match void {
                None => is_void(&class.name),
                Some(entries) => {
                    entries.iter().any(|entry| named(entry))
                        || class.values.iter().any(|value| void_values.contains(value))
                }
            }
        };
        for (from, to) in merges {
            if !known(from) {
                return Err(CodingError::UnknownMerge { from: from.clone(), to: to.clone(), known: names() });
            }
            if merges.iter().any(|(other, _)| other.eq_ignore_ascii_case(to)) {
                return Err(CodingError::ChainedMerge { from: from.clone(), to: to.clone() });
            }
        }
        let merged = |name: &str| merges.iter().find(|(from, _)| from.eq_ignore_ascii_case(name)).map(|(_, to)| to);

        let mut labels: Vec<(String, Option<Rgb>)> = Vec::new();
        // Parallel to `labels`: the colours with those of the palettes.
        let mut palette_colors: Vec<Option<Rgb>> = Vec::new();
        let mut table = ClassTable::empty();
        table.values[255] = Some(VOID);
        for class in source {
            let goal = merged(&class.name);
            let to_void = goal.is_some_and(|goal| !known(goal) && goal.eq_ignore_ascii_case("void"));
            let id = if to_void || is_void(class) {
                VOID
            } else {
                let name = goal.unwrap_or(&class.name);
                // The class with this name also gives the colour, in any position.
                let namesake = source.iter().find(|other| other.name.eq_ignore_ascii_case(name)).unwrap_or(class);
                if is_void(namesake) {
                    VOID
                } else {
                    let known = labels.iter().position(|(label, _)| label.eq_ignore_ascii_case(name));
                    let at = known.unwrap_or_else(|| {
                        labels.push((name.to_string(), namesake.color));
                        palette_colors.push(namesake.color.or_else(|| palette_color(palettes, namesake)));
                        labels.len() - 1
                    });
                    u8::try_from(at).ok().filter(|&id| id != VOID).ok_or(CodingError::TooManyClasses)?
                }
            };
            for &value in &class.values {
                table.values[usize::from(value)] = Some(id);
            }
            table.colors.extend(class.color.map(|color| (color, id)));
        }
        for value in void_values {
            table.values[usize::from(value)] = Some(VOID);
        }
        if labels.len() < 2 {
            return Err(CodingError::TooFewClasses(labels.pop().map(|(name, _)| name)));
        }
        // All palette colours are used, or none: if one is similar to another class's colour, the palette was not made
        // for these classes.
        let all: Vec<Rgb> = palette_colors.iter().flatten().copied().collect();
        if colors::distinct(&all) {
            labels.iter_mut().zip(palette_colors).for_each(|(label, color)| label.1 = color);
        }
        let colors = colors::complete(&labels);
        table.classes = labels
            .into_iter()
            .zip(colors)
            .map(|((name, _), color)| Label { weight: appearance::weight(&name), name, color })
            .collect();
        Ok(table)
    }
}

/// Returns a class's colour in the palettes.
fn palette_color(palettes: &Palettes, class: &SourceClass) -> Option<Rgb> {
    // In a black and white mask, the classes have 0 to 127 and 128 to 255; the colours are those of 0 and 255.
    let number = match class.values[..] {
        [first, .., 255] if first > 0 => Some(255),
        _ => class.values.first().copied(),
    };
    number.and_then(|number| palettes.color(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(
        source: &[SourceClass],
        void: Option<&[String]>,
        merges: &[(String, String)],
    ) -> Result<ClassTable, CodingError> {
        ClassTable::new(source, void, merges, &Palettes::None)
    }

    fn source() -> Vec<SourceClass> {
        [("Void", 0u8), ("car", 1), ("truck", 2), ("road", 3), ("background", 4)]
            .map(|(name, value)| SourceClass {
                name: name.into(),
                color: Some(Rgb(value * 10, 0, 0)),
                values: vec![value],
            })
            .to_vec()
    }

    fn names(table: &ClassTable) -> Vec<&str> {
        table.classes.iter().map(|label| label.name.as_str()).collect()
    }

    fn text(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn void_classes_are_excluded_and_the_others_renumbered() {
        let table = table_of(&source(), None, &[]).unwrap();
        assert_eq!(names(&table), ["car", "truck", "road", "background"]);
        assert_eq!(table.values[..6], [Some(VOID), Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(table.values[255], Some(VOID));
        assert_eq!(table.colors[&Rgb(10, 0, 0)], 0);
        assert_eq!(table.colors[&Rgb(0, 0, 0)], VOID);
    }

    #[test]
    fn void_can_be_chosen_by_name_or_number() {
        let table = table_of(&source(), Some(&text(&["background", "1", "77"])), &[]).unwrap();
        assert_eq!(names(&table), ["Void", "truck", "road"]);
        assert_eq!((table.values[1], table.values[4], table.values[77]), (Some(VOID), Some(VOID), Some(VOID)));
        assert_eq!(names(&table_of(&source(), Some(&text(&["none"])), &[]).unwrap()).len(), 5);
        let error = table_of(&source(), Some(&text(&["lorry"])), &[]).unwrap_err();
        assert!(matches!(&error, CodingError::UnknownClass { name, .. } if name == "lorry"), "{error}");
    }

    #[test]
    fn classes_can_be_merged() {
        let merge = |from: &str, to: &str| (from.to_string(), to.to_string());
        let table = table_of(&source(), None, &[merge("car", "truck"), merge("background", "void")]).unwrap();
        assert_eq!(names(&table), ["truck", "road"]);
        assert_eq!(table.classes[0].color, Rgb(20, 0, 0));
        assert_eq!((table.values[1], table.values[2], table.values[4]), (Some(0), Some(0), Some(VOID)));
        let table = table_of(&source(), None, &[merge("car", "vehicle"), merge("truck", "vehicle")]).unwrap();
        assert_eq!(names(&table), ["vehicle", "road", "background"]);
        let error = table_of(&source(), None, &[merge("lorry", "car")]).unwrap_err();
        assert!(matches!(error, CodingError::UnknownMerge { .. }), "{error}");
        let error = table_of(&source(), None, &[merge("car", "truck"), merge("truck", "road")]).unwrap_err();
        assert!(matches!(error, CodingError::ChainedMerge { .. }), "{error}");
    }

    #[test]
    fn classes_without_a_colour_get_that_of_the_palette() {
        let plain: Vec<SourceClass> =
            source()[1..4].iter().map(|class| SourceClass { color: None, ..class.clone() }).collect();
        let colors = |table: ClassTable| table.classes.iter().map(|label| label.color).collect::<Vec<_>>();
        let (black, red, green, blue) = (Rgb(0, 0, 0), Rgb(200, 0, 0), Rgb(0, 200, 0), Rgb(0, 0, 200));
        let palettes = |colors: &[Rgb]| Palettes::Same(colors.to_vec());
        let good = palettes(&[black, red, green, blue]);
        assert_eq!(colors(ClassTable::new(&plain, None, &[], &good).unwrap()), [red, green, blue]);
        // The class file's colour is kept; if it equals another colour of the palette, the palette is not used.
        let mut given = plain.clone();
        given[1].color = Some(Rgb(9, 90, 9));
        assert_eq!(colors(ClassTable::new(&given, None, &[], &good).unwrap()), [red, Rgb(9, 90, 9), blue]);
        given[1].color = Some(red);
        assert!(!colors(ClassTable::new(&given, None, &[], &good).unwrap()).contains(&blue));
        // A grey palette, as programs without class colours write it.
        let counting = palettes(&[0, 1, 2, 3].map(|n| Rgb(n, n, n)));
        assert_eq!(
            colors(ClassTable::new(&plain, None, &[], &counting).unwrap()),
            colors(table_of(&plain, None, &[]).unwrap())
        );
    }

    #[test]
    fn fewer_than_two_classes_are_an_error() {
        let error = table_of(&source()[..2], None, &[]).unwrap_err();
        assert_eq!(error, CodingError::TooFewClasses(Some("car".into())));
    }
}
