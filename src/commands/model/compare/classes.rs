//! The classes of a data set and of two models, matched by name.

use crate::comparison::dataset::DataClass;
use crate::comparison::score::VOID;
use crate::frame::{Label, Rgb};

/// The class of pixels for which a model has no label. No class of a comparison has this index.
pub const NONE: u8 = 254;

/// A class of the data set or of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    pub name: String,
    pub color: Rgb,
    pub in_data: bool,
    pub in_old: bool,
    pub in_new: bool,
}

/// All classes, those of the data set first, and the index of each in the data set and in the models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassTable {
    pub classes: Vec<Class>,
    data: Vec<u8>,
    pub old: Vec<u8>,
    pub new: Vec<u8>,
}

/// The classes cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassesError {
    #[error("the data set and the models have more than 254 classes together")]
    TooMany,
    #[error("no class of the data set has the name of a class of one of the models, so nothing can be compared")]
    NoneShared,
}

impl ClassTable {
    /// Matches the classes by name, without regard to upper and lower case.
    ///
    /// # Errors
    /// There are too many, or none has the name of another.
    pub fn new(data: &[DataClass], old: &[Label], new: &[Label]) -> Result<ClassTable, ClassesError> {
        let mut table = ClassTable::default();
        for class in data {
            let index = match class.is_void {
                true => VOID,
                false => table.index(&class.name, class.color, |class| class.in_data = true)?,
            };
            table.data.push(index);
        }
        for label in old {
            let index = table.index(&label.name, Some(label.color), |class| class.in_old = true)?;
            table.old.push(index);
        }
        for label in new {
            let index = table.index(&label.name, Some(label.color), |class| class.in_new = true)?;
            table.new.push(index);
        }
        // Data sets without colours have those of the models, which people know from the page.
        for label in new.iter().chain(old) {
            let same = table.classes.iter_mut().find(|class| class.name.eq_ignore_ascii_case(&label.name));
            same.into_iter().for_each(|class| class.color = label.color);
        }
        if table.classes.iter().any(|class| class.in_data && (class.in_old || class.in_new)) {
            Ok(table)
        } else {
            Err(ClassesError::NoneShared)
        }
    }

    fn index(&mut self, name: &str, color: Option<Rgb>, mark: impl FnOnce(&mut Class)) -> Result<u8, ClassesError> {
        let found = self.classes.iter().position(|class| class.name.eq_ignore_ascii_case(name));
        let index = found.unwrap_or_else(|| {
            let color = color.unwrap_or(Rgb(160, 160, 160));
            self.classes.push(Class { name: name.to_owned(), color, in_data: false, in_old: false, in_new: false });
            self.classes.len() - 1
        });
        mark(&mut self.classes[index]);
        u8::try_from(index).ok().filter(|&index| index < NONE).ok_or(ClassesError::TooMany)
    }

    /// The values of a label as classes of the comparison.
    pub fn labels(&self, values: &[u8]) -> Vec<u8> {
        values.iter().map(|&value| self.data.get(usize::from(value)).copied().unwrap_or(VOID)).collect()
    }

    /// Whether the mIoU counts each class: if a model has it.
    pub fn counted(&self) -> Vec<bool> {
        self.classes.iter().map(|class| class.in_old || class.in_new).collect()
    }

    /// Whether both models have each class.
    pub fn common(&self) -> Vec<bool> {
        self.classes.iter().map(|class| class.in_old && class.in_new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_matched_by_name_and_added_and_dropped_ones_are_known() {
        let data = |name: &str, is_void| DataClass { name: name.into(), color: None, is_void };
        let data = [data("void", true), data("Person", false), data("forklift", false), data("tent", false)];
        let label = |name: &str, red| Label::new(name, Rgb(red, 0, 0));
        let old = [label("other", 1), label("person", 2)];
        let new = [label("person", 3), label("forklift", 4)];
        let table = ClassTable::new(&data, &old, &new).unwrap();
        let names: Vec<&str> = table.classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["Person", "forklift", "tent", "other"]);
        assert_eq!((&table.old[..], &table.new[..]), (&[3, 0][..], &[0, 1][..]));
        assert_eq!(table.labels(&[0, 1, 2, 3, VOID]), [VOID, 0, 1, 2, VOID]);
        assert_eq!(table.counted(), [true, true, false, true]);
        assert_eq!(table.common(), [true, false, false, false]);
        assert_eq!(table.classes[0].color, Rgb(2, 0, 0));
        assert_eq!(ClassTable::new(&data[..1], &old, &new), Err(ClassesError::NoneShared));
    }
}
