//! Errors of class files, and of the mapping of labels to classes.

use std::path::PathBuf;

use maskcast::frame::Rgb;

/// What is wrong in a line of a class file.
#[derive(Debug, thiserror::Error)]
pub enum ClassFileError {
    #[error("this is not UTF-8 text but UTF-16; save it as UTF-8")]
    Utf16,
    #[error("this is not text (it has a zero byte), or UTF-16; save it as UTF-8")]
    ZeroByte,
    #[error("this is not UTF-8 text (byte {0:#04x}); save it as UTF-8")]
    NotUtf8(u8),
    #[error("this is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("write a list of names, or an object of numbers and names")]
    JsonForm,
    #[error("{0} is not a class; write a name, or an object with `id` and `name`")]
    JsonClass(String),
    #[error("{key:?}: {value} is not a class; write a number (0 to 255) and a name")]
    JsonPair { key: String, value: String },
    #[error("{0} has no `name`")]
    JsonWithoutName(String),
    #[error("{0:?}: write two names, as in truck=car")]
    Merge(String),
    #[error("this class has no number, but others have; number all classes or none")]
    MissingNumber,
    #[error("there are more than 256 classes")]
    TooManyClasses,
    #[error("{name} has the same number {value} as {other}")]
    SameNumber { name: String, value: u8, other: String },
    #[error("{name} has the same colour {},{},{} as {other}", color.0, color.1, color.2)]
    SameColor { name: String, color: Rgb, other: String },
    #[error("a second class has the name {0}")]
    SameName(String),
    #[error("{0:?} has no class name")]
    NoName(String),
    #[error("the class has no name")]
    EmptyName,
    #[error("{0:?} is not a colour; write name:r,g,b:parts:actions")]
    LabelMapColor(String),
    #[error("{0} is not a colour; write three numbers from 0 to 255")]
    Color(String),
    #[error("{0} is not a number from 0 to 255")]
    Number(String),
    #[error("{0:?}: write a name, with a number or with red, green and blue")]
    Form(String),
    #[error("{line:?} has {names} names; a line is one class: `name`, `number,name` or `name,red,green,blue`")]
    SeveralNames { line: String, names: usize },
    /// Counts from 1.
    #[error("column {0} is missing")]
    MissingColumn(usize),
}

/// Why the classes of labels cannot be determined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// `colors` are the most frequent colours.
    #[error("labels are in colours ({colors}), but no class file maps colours to classes")]
    ColorsWithoutClassFile { colors: String },
    #[error("labels have the values {}, and there is no class file", .0.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))]
    ValuesWithoutClassFile(Vec<usize>),
    /// `assumed` are the classes that would be assumed without the file.
    #[error("{} may list the classes, but its name is not that of a class file", path.display())]
    UnrecognizedClassFile { path: PathBuf, assumed: &'static str },
    #[error("all pixels of {0} sampled label images are 0: there is nothing to learn")]
    OnlyZero(usize),
    /// 255 is void by convention, so that no class but the first would remain.
    #[error(
        "255 is the only value beside 0 in {files} label images, and is void because none of the {classes} classes has \
         that number: no pixel would be {second}"
    )]
    OnlyZeroAndVoid { files: usize, classes: usize, first: String, second: String },
    #[error("there is no class {name:?}; the classes are {}", known.join(", "))]
    UnknownClass { name: String, known: Vec<String> },
    #[error("{from}={to}: there is no class {from:?}; the classes are {}; add a line {from} to the class file to merge it into {to}", known.join(", "))]
    UnknownMerge { from: String, to: String, known: Vec<String> },
    #[error("{from}={to}: {to} is itself merged into another class")]
    ChainedMerge { from: String, to: String },
    #[error("there are more than 255 classes; merge some")]
    TooManyClasses,
    /// The classes that remain without void.
    #[error(
        "at least two classes besides void are needed; there is {}",
        .0.as_ref().map_or("none".into(), |only| format!("only {only}"))
    )]
    TooFewClasses(Option<String>),
}

impl CodingError {
    /// What to do.
    pub fn help(&self) -> String {
        match self {
            CodingError::ColorsWithoutClassFile { .. } => {
                "write label_colors.txt into the folder, or pass --classes FILE, with one line per class such as `128 64 \
                 128 road`"
                    .into()
            }
            CodingError::ValuesWithoutClassFile(_) => CodingError::write_class_file().into(),
            CodingError::UnrecognizedClassFile { path, assumed } => format!(
                "pass --classes {} if it is a class file, or rename it (labels would then be read as {assumed})",
                path.display()
            ),
            CodingError::OnlyZero(_) => "check that these files are the labels and not previews".into(),
            CodingError::OnlyZeroAndVoid { first, second, .. } => format!(
                "if these are masks of one class, name only two classes; or number the classes, one line each: \
                 `0,{first}` and `255,{second}`; if 255 is void, pass --void 255"
            ),
            CodingError::UnknownClass { .. }
            | CodingError::UnknownMerge { .. }
            | CodingError::ChainedMerge { .. }
            | CodingError::TooManyClasses
            | CodingError::TooFewClasses(_) => "correct the class file, --classes or --void".into(),
        }
    }

    /// How to name classes.
    pub fn write_class_file() -> &'static str {
        "write classes.txt into the folder, or pass --classes FILE, with one line per class in the order of the numbers, \
         or `number,name`"
    }
}
