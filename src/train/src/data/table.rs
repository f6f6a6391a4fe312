//! From a data set's own classes to those that are trained: void taken out, classes merged, the rest numbered anew.

use std::collections::HashMap;

use maskcast::frame::{Label, Rgb};

use super::VOID;
use super::class_file::SourceClass;
use super::colors;
use super::sample::Palettes;

/// Names that mean "not labelled" when nobody says otherwise.
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

/// What a label's numbers and colours mean.
#[derive(Clone, Debug)]
pub struct Table {
    pub classes: Vec<Label>,
    /// Number → class or [`VOID`]; `None`: no class has it.
    pub values: [Option<u8>; 256],
    /// Colour → class or [`VOID`].
    pub colors: HashMap<Rgb, u8>,
}

impl Table {
    /// Of no classes.
    pub fn empty() -> Self {
        Table { classes: Vec::new(), values: [None; 256], colors: HashMap::new() }
    }

    /// `void`: names or numbers that are void instead of the usual names; 255 is void unless a class has it. `palettes`: the
    /// label pictures' own, by whose colours classes are drawn that `source` gives none.
    ///
    /// # Errors
    /// A name that there is not, or nothing left to learn.
    pub fn new(
        source: &[SourceClass],
        void: Option<&[String]>,
        merges: &[(String, String)],
        palettes: &Palettes,
    ) -> Result<Self, String> {
        let known = |name: &str| source.iter().any(|class| class.name.eq_ignore_ascii_case(name));
        let unknown = |name: &str| {
            let names: Vec<&str> = source.iter().map(|class| class.name.as_str()).collect();
            format!("there is no class {name:?}; there are {}", names.join(", "))
        };
        let mut void_values = Vec::new();
        for entry in void.unwrap_or_default() {
            match entry.parse::<u8>() {
                _ if known(entry) => {}
                Ok(value) => void_values.push(value),
                Err(_) if entry.eq_ignore_ascii_case("none") => {}
                Err(_) => return Err(unknown(entry)),
            }
        }
        let is_void = |class: &SourceClass| {
            let named = |name: &str| class.name.eq_ignore_ascii_case(name);
            match void {
                None => VOID_NAMES.iter().any(|name| named(name)),
                Some(entries) => {
                    entries.iter().any(|entry| named(entry))
                        || class.values.iter().any(|value| void_values.contains(value))
                }
            }
        };
        for (from, to) in merges {
            if !known(from) {
                return Err(format!("{from}={to}: {}; {from} needs a line of its own to count as {to}", unknown(from)));
            }
            if merges.iter().any(|(other, _)| other.eq_ignore_ascii_case(to)) {
                return Err(format!("{from}={to}: {to} itself counts as another class"));
            }
        }
        let merged = |name: &str| merges.iter().find(|(from, _)| from.eq_ignore_ascii_case(name)).map(|(_, to)| to);

        let mut labels: Vec<(String, Option<Rgb>)> = Vec::new();
        // Beside `labels`: what the palettes say.
        let mut painted: Vec<Option<Rgb>> = Vec::new();
        let mut table = Table::empty();
        table.values[255] = Some(VOID);
        for class in source {
            let goal = merged(&class.name);
            let to_void = goal.is_some_and(|goal| !known(goal) && goal.eq_ignore_ascii_case("void"));
            let id = if to_void || is_void(class) {
                VOID
            } else {
                let name = goal.unwrap_or(&class.name);
                // The class that gave its name gives its colour too, wherever it stands.
                let namesake = source.iter().find(|other| other.name.eq_ignore_ascii_case(name)).unwrap_or(class);
                if is_void(namesake) {
                    VOID
                } else {
                    let known = labels.iter().position(|(label, _)| label.eq_ignore_ascii_case(name));
                    let at = known.unwrap_or_else(|| {
                        labels.push((name.to_string(), namesake.color));
                        painted.push(namesake.color.or_else(|| paint(palettes, namesake)));
                        labels.len() - 1
                    });
                    u8::try_from(at).ok().filter(|&id| id != VOID).ok_or("more than 255 classes")?
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
            let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!(
                "at least two classes are needed beside void; there is {}",
                if names.is_empty() { "none".into() } else { format!("only {}", names.join(", ")) }
            ));
        }
        // All or none: a palette of which one colour is taken elsewhere was not made for these classes.
        let all: Vec<Rgb> = painted.iter().flatten().copied().collect();
        if colors::distinct(&all) {
            labels.iter_mut().zip(painted).for_each(|(label, color)| label.1 = color);
        }
        let colors = colors::complete(&labels);
        table.classes = labels.into_iter().zip(colors).map(|((name, _), color)| Label { name, color }).collect();
        Ok(table)
    }
}

/// A class's colour in the palettes.
fn paint(palettes: &Palettes, class: &SourceClass) -> Option<Rgb> {
    // A black and white mask has 0 to 127 and 128 to 255, and means the ends.
    let number = match class.values[..] {
        [first, .., 255] if first > 0 => Some(255),
        _ => class.values.first().copied(),
    };
    number.and_then(|number| palettes.color(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(source: &[SourceClass], void: Option<&[String]>, merges: &[(String, String)]) -> Result<Table, String> {
        Table::new(source, void, merges, &Palettes::None)
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

    fn names(table: &Table) -> Vec<&str> {
        table.classes.iter().map(|label| label.name.as_str()).collect()
    }

    fn text(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn void_is_what_is_called_so_and_the_rest_moves_up() {
        let table = made(&source(), None, &[]).unwrap();
        assert_eq!(names(&table), ["car", "truck", "road", "background"]);
        assert_eq!(table.values[..6], [Some(VOID), Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(table.values[255], Some(VOID));
        assert_eq!(table.colors[&Rgb(10, 0, 0)], 0);
        assert_eq!(table.colors[&Rgb(0, 0, 0)], VOID);
    }

    #[test]
    fn void_can_be_chosen_by_name_or_number() {
        let table = made(&source(), Some(&text(&["background", "1", "77"])), &[]).unwrap();
        assert_eq!(names(&table), ["Void", "truck", "road"]);
        assert_eq!((table.values[1], table.values[4], table.values[77]), (Some(VOID), Some(VOID), Some(VOID)));
        assert_eq!(names(&made(&source(), Some(&text(&["none"])), &[]).unwrap()).len(), 5);
        assert!(made(&source(), Some(&text(&["lorry"])), &[]).unwrap_err().contains("there are Void, car"));
    }

    #[test]
    fn classes_can_be_merged() {
        let merge = |from: &str, to: &str| (from.to_string(), to.to_string());
        let table = made(&source(), None, &[merge("car", "truck"), merge("background", "void")]).unwrap();
        assert_eq!(names(&table), ["truck", "road"]);
        assert_eq!(table.classes[0].color, Rgb(20, 0, 0));
        assert_eq!((table.values[1], table.values[2], table.values[4]), (Some(0), Some(0), Some(VOID)));
        let table = made(&source(), None, &[merge("car", "vehicle"), merge("truck", "vehicle")]).unwrap();
        assert_eq!(names(&table), ["vehicle", "road", "background"]);
        assert!(made(&source(), None, &[merge("lorry", "car")]).is_err());
        assert!(made(&source(), None, &[merge("car", "truck"), merge("truck", "road")]).is_err());
    }

    #[test]
    fn palettes_colour_what_has_no_colour() {
        let plain: Vec<SourceClass> =
            source()[1..4].iter().map(|class| SourceClass { color: None, ..class.clone() }).collect();
        let colors = |table: Table| table.classes.iter().map(|label| label.color).collect::<Vec<_>>();
        let (black, red, green, blue) = (Rgb(0, 0, 0), Rgb(200, 0, 0), Rgb(0, 200, 0), Rgb(0, 0, 200));
        let palettes = |colors: &[Rgb]| Palettes::Same(colors.to_vec());
        let good = palettes(&[black, red, green, blue]);
        assert_eq!(colors(Table::new(&plain, None, &[], &good).unwrap()), [red, green, blue]);
        // The file's colour stays; where it clashes with the palette's, the palette is of something else.
        let mut given = plain.clone();
        given[1].color = Some(Rgb(9, 90, 9));
        assert_eq!(colors(Table::new(&given, None, &[], &good).unwrap()), [red, Rgb(9, 90, 9), blue]);
        given[1].color = Some(red);
        assert!(!colors(Table::new(&given, None, &[], &good).unwrap()).contains(&blue));
        // As programs make them that have no colours to give.
        let counting = palettes(&[0, 1, 2, 3].map(|n| Rgb(n, n, n)));
        assert_eq!(colors(Table::new(&plain, None, &[], &counting).unwrap()), colors(made(&plain, None, &[]).unwrap()));
    }

    #[test]
    fn one_class_is_nothing_to_learn() {
        let problem = made(&source()[..2], None, &[]).unwrap_err();
        assert!(problem.contains("only car"), "{problem}");
    }
}
