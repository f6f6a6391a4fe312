//! Assigns the classes of annotation files to those of the data set.

use maskcast::frame::{Label, Rgb};

use super::super::pair::VOID;
use super::super::{appearance, colors, table};
use super::error::ExchangeError;
use super::found::{FoundClass, MAX_CLASSES};

/// What the pixels of a class become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// A class index, or [`VOID`].
    Label(u8),
    /// As pixels without an annotation.
    Unlabelled,
    Unknown,
}

/// The classes of the imported data set, and how masks are mapped to them.
pub struct ClassMap {
    pub classes: Vec<Label>,
    found: Vec<String>,
    goals: Vec<Goal>,
    /// The label of pixels without an annotation.
    pub unlabelled: u8,
}

/// A class in a mask that the data set does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPixels {
    pub name: String,
    pub pixels: usize,
    /// Position `y * width + x` of the first.
    pub at: usize,
}

impl ClassMap {
    /// Assigns `found`, in the order of the file, to `known` by name. Without `known`, the classes are those of the file.
    ///
    /// Pixels of the classes in `void`, and of classes that are named void, ignore or unlabeled, are void. A class that is named
    /// background and is not known is what programs add for pixels without an annotation. `unlabelled` names the class of such
    /// pixels; otherwise they are void.
    ///
    /// # Errors
    /// `void` or `unlabelled` name no class, or there are too many classes.
    pub fn new(
        found: &[FoundClass],
        known: Option<&[Label]>,
        void: &[String],
        unlabelled: Option<&str>,
    ) -> Result<Self, ExchangeError> {
        let names = |list: &[FoundClass]| list.iter().map(|class| class.name.clone()).collect();
        if let Some(name) = void.iter().find(|name| !found.iter().any(|class| class.name.eq_ignore_ascii_case(name))) {
            return Err(ExchangeError::NoClass { option: "--void", name: name.clone(), known: names(found) });
        }
        let is_void = |name: &str| void.iter().any(|void| name.eq_ignore_ascii_case(void));
        let mut classes: Vec<(String, Option<Rgb>)> = Vec::new();
        match known {
            Some(known) => classes.extend(known.iter().map(|label| (label.name.clone(), Some(label.color)))),
            None => {
                if let Some(name) = unlabelled
                    && !found.iter().any(|class| class.name == name)
                {
                    classes.push((name.to_owned(), None));
                }
                for FoundClass { name, color } in found {
                    let new =
                        !is_void(name) && !table::is_void(name) && !classes.iter().any(|(other, _)| other == name);
                    if new {
                        classes.push((name.clone(), *color));
                    }
                }
            }
        }
        if classes.len() > MAX_CLASSES {
            return Err(ExchangeError::TooManyClasses(classes.len()));
        }
        // Without case only if no class of the file has this very name: `background`, which CVAT adds, is not `Background`.
        let place = |name: &str| {
            let exact = classes.iter().position(|(other, _)| other == name);
            let named = |other: &str| found.iter().any(|class| class.name == other);
            let similar = || classes.iter().position(|(other, _)| other.eq_ignore_ascii_case(name) && !named(other));
            exact.or_else(similar)
        };
        let goals = found.iter().map(|FoundClass { name, .. }| match place(name) {
            _ if is_void(name) => Goal::Label(VOID),
            Some(place) => Goal::Label(place as u8),
            None if table::is_void(name) => Goal::Label(VOID),
            None if colors::is_background(name) => Goal::Unlabelled,
            None => Goal::Unknown,
        });
        let goals = goals.collect();
        let unlabelled = match unlabelled {
            None => VOID,
            Some(name) => match place(name) {
                Some(place) => place as u8,
                None => {
                    let known = classes.into_iter().map(|(name, _)| name).collect();
                    return Err(ExchangeError::NoClass { option: "--unlabelled", name: name.to_owned(), known });
                }
            },
        };
        let colors = match known {
            Some(known) => known.iter().map(|label| label.color).collect(),
            None => colors::complete(&classes),
        };
        let label = |((name, _), color): ((String, _), Rgb)| Label { weight: appearance::weight(&name), name, color };
        let classes = classes.into_iter().zip(colors).map(label).collect();
        Ok(ClassMap { classes, found: found.iter().map(|class| class.name.clone()).collect(), goals, unlabelled })
    }

    /// Maps a mask to class indices and [`VOID`]. In `mask`, 0 is a pixel without an annotation, and n the class n - 1 of those that
    /// were found.
    ///
    /// # Errors
    /// The first class in the mask that the data set does not have.
    pub fn map(&self, mask: &mut [u8]) -> Result<(), UnknownPixels> {
        let goal = |value: u8| match usize::from(value).checked_sub(1).map(|index| self.goals[index]) {
            Some(Goal::Label(label)) => Ok(label),
            None | Some(Goal::Unlabelled) => Ok(self.unlabelled),
            Some(Goal::Unknown) => Err(usize::from(value) - 1),
        };
        let table: Vec<Result<u8, usize>> = (0..=self.goals.len()).map(|value| goal(value as u8)).collect();
        for at in 0..mask.len() {
            match table[usize::from(mask[at])] {
                Ok(label) => mask[at] = label,
                Err(index) => {
                    let value = mask[at];
                    let pixels = mask[at..].iter().filter(|&&other| other == value).count();
                    return Err(UnknownPixels { name: self.found[index].clone(), pixels, at });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<FoundClass> {
        names.iter().map(|name| FoundClass { name: (*name).into(), color: None }).collect()
    }

    fn known(names: &[&str]) -> Vec<Label> {
        names.iter().map(|name| Label::new(*name, Rgb(1, 2, 3))).collect()
    }

    fn mapped(map: &ClassMap, mask: &[u8]) -> Result<Vec<u8>, UnknownPixels> {
        let mut mask = mask.to_vec();
        map.map(&mut mask).map(|()| mask)
    }

    #[test]
    fn indices_are_those_of_the_data_set() {
        let found = found(&["background", "car", "Road", "void"]);
        let map = ClassMap::new(&found, Some(&known(&["road", "car"])), &[], None).unwrap();
        assert_eq!(mapped(&map, &[0, 1, 2, 3, 4]).unwrap(), [VOID, VOID, 1, 0, VOID]);
        let upper = self::found(&["background", "Background", "car"]);
        let map = ClassMap::new(&upper, Some(&known(&["Background", "car"])), &[], None).unwrap();
        assert_eq!(mapped(&map, &[1, 2, 3]).unwrap(), [VOID, 0, 1], "CVAT's background is not the class Background");
        let map = ClassMap::new(&found, Some(&known(&["road", "background", "car"])), &[], Some("road")).unwrap();
        assert_eq!(mapped(&map, &[0, 1, 2, 3, 4]).unwrap(), [0, 1, 2, 0, VOID]);
    }

    #[test]
    fn without_a_data_set_classes_have_the_order_of_the_file() {
        let found = found(&["void", "car", "road", "junk"]);
        let map = ClassMap::new(&found, None, &["JUNK".into()], None).unwrap();
        let names: Vec<&str> = map.classes.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(
            (names, mapped(&map, &[0, 1, 2, 3, 4]).unwrap()),
            (vec!["car", "road"], vec![VOID, VOID, 0, 1, VOID])
        );
        let map = ClassMap::new(&found, None, &[], Some("rest")).unwrap();
        assert_eq!(map.classes[0].name, "rest");
        assert_eq!(mapped(&map, &[0, 1, 2, 3, 4]).unwrap(), [0, VOID, 1, 2, 3]);
    }

    #[test]
    fn classes_that_the_data_set_does_not_have_are_errors_where_they_are_used() {
        let found = found(&["car", "lorry"]);
        let map = ClassMap::new(&found, Some(&known(&["car", "road"])), &[], None).unwrap();
        assert_eq!(mapped(&map, &[1, 0]).unwrap(), [0, VOID], "a class without pixels does not matter");
        let unknown = mapped(&map, &[1, 2, 0, 2]).unwrap_err();
        assert_eq!(unknown, UnknownPixels { name: "lorry".into(), pixels: 2, at: 1 });
        let map = ClassMap::new(&found, Some(&known(&["car", "road"])), &["lorry".into()], None).unwrap();
        assert_eq!(mapped(&map, &[1, 2]).unwrap(), [0, VOID]);
        for (void, unlabelled) in [(vec!["bus".into()], None), (vec![], Some("bus"))] {
            let map = ClassMap::new(&found, Some(&known(&["car", "road"])), &void, unlabelled);
            assert!(matches!(map, Err(ExchangeError::NoClass { name, .. }) if name == "bus"));
        }
    }
}
