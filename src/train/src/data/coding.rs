//! Detects how label images encode classes, from a sample of them.

use std::path::Path;

use maskcast::frame::Rgb;

use super::VOID;
use super::colors;
use super::error::{CodingError, PixelValue};
use super::known;
use super::raw::{RawLabel, RawPixels};
use super::sample::{LabelSample, Palettes};
use super::source_class::SourceClass;
use super::table::ClassTable;

/// Whether the class of a pixel is looked up by its number or by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookupBy {
    Number,
    Color,
}

/// The encoding of classes in label images, for grey, palette and colour images.
#[derive(Clone, Debug)]
pub struct LabelCoding {
    pub table: ClassTable,
    gray: LookupBy,
    indexed: LookupBy,
    colors: LookupBy,
    /// Whether labels are black and white masks: values from 128 to 255 are foreground.
    pub binary_mask: bool,
}

/// What is known before label images are read.
pub struct CodingHints<'a> {
    /// The classes of the data set's or the user's class file, if there is one.
    pub classes: Option<Vec<SourceClass>>,
    pub merges: &'a [(String, String)],
    pub void: Option<&'a [String]>,
    /// Whether the layout is CamVid's: without a class file, its usual classes are assumed if the labels match them.
    pub camvid: bool,
    /// Whether the layout is Pascal VOC's; as for CamVid.
    pub voc: bool,
    /// A file that may be a list of classes in an unknown format: if there is one, no classes are assumed.
    pub unread: Option<&'a Path>,
    /// A colour that is void in addition to the void classes.
    pub void_color: Option<Rgb>,
}

impl LabelCoding {
    /// Determines the encoding; returns it with notes for display.
    ///
    /// # Errors
    /// If the labels do not match the classes, or there is no class file and the classes cannot be guessed.
    pub fn decide(mut hints: CodingHints<'_>, sample: &LabelSample) -> Result<(LabelCoding, Vec<String>), CodingError> {
        let mut notes = Vec::new();
        let mut binary_mask = false;
        let numbers = sample.numbers();
        let source = match hints.classes.take() {
            Some(classes) if classes.len() <= 2 && black_and_white(&numbers, &classes) => {
                binary_mask = true;
                binary_classes(classes, sample, &mut notes)
            }
            Some(classes) => classes,
            None => {
                let (classes, binary_classes) = guess_classes(&hints, sample, &numbers, &mut notes)?;
                binary_mask = binary_classes;
                classes
            }
        };
        let has_colors = source.iter().any(|class| class.color.is_some());
        let given =
            |color: &Rgb| hints.void_color == Some(*color) || source.iter().any(|class| class.color == Some(*color));
        let palette_given = !binary_mask && has_colors && sample.palette.iter().all(given);
        let palettes = if palette_given { &Palettes::None } else { &sample.palettes };
        let mut table = ClassTable::new(&source, hints.void, hints.merges, palettes)?;
        if let Some(color) = hints.void_color {
            table.colors.entry(color).or_insert(VOID);
        }
        if !sample.colors.is_empty() && !has_colors && !sample.colors_are_gray() {
            return Err(CodingError::ColorsWithoutClassFile { colors: list_colors(sample) });
        }
        let fits = |counts: &[u64; 256], known: &dyn Fn(usize) -> bool| {
            counts.iter().enumerate().all(|(value, count)| *count == 0 || known(value))
        };
        // 255 is void by convention, unless white is a class and labels may be grey.
        let white = Rgb(255, 255, 255);
        let white_class = table.colors.contains_key(&white) && !source.iter().any(|class| class.values.contains(&255));
        let number = |value: usize| table.values[value].is_some() && !(value == 255 && white_class);
        let grey = |value: usize| table.colors.contains_key(&Rgb(value as u8, value as u8, value as u8));
        let by_color = |color: bool| if color { LookupBy::Color } else { LookupBy::Number };
        let gray_by = by_color(!binary_mask && has_colors && !fits(&sample.gray, &number) && fits(&sample.gray, &grey));
        let indexed_by = by_color(palette_given);
        let known_colors =
            sample.colors.is_empty() || sample.colors.keys().any(|color| table.colors.contains_key(color));
        let colors_by = by_color(has_colors && !binary_mask && (known_colors || !sample.colors_are_gray()));
        let coding = LabelCoding { table, gray: gray_by, indexed: indexed_by, colors: colors_by, binary_mask };
        if sample.only_white() && coding.white_is_void(sample) && !is_255_assigned(&source, hints.void) {
            return Err(all_void_error(&source, sample));
        }
        Ok((coding, notes))
    }

    /// Whether the value 255 in the sample is void.
    fn white_is_void(&self, sample: &LabelSample) -> bool {
        let white =
            if sample.colors.is_empty() { self.class_of_number(255) } else { self.class_of_color(Rgb(255, 255, 255)) };
        let indexed = self.indexed == LookupBy::Number && self.table.values[255] == Some(VOID);
        (sample.indexed[255] == 0 && white == Some(VOID)) || (sample.indexed[255] > 0 && indexed)
    }

    /// The encoding of a data set without readable labels: no classes, and all values are unknown.
    pub fn without_labels() -> LabelCoding {
        LabelCoding {
            table: ClassTable::empty(),
            gray: LookupBy::Number,
            indexed: LookupBy::Number,
            colors: LookupBy::Number,
            binary_mask: false,
        }
    }

    /// Returns the class of a value, [`VOID`], or `None` if no class has the value.
    fn class_of_number(&self, value: u8) -> Option<u8> {
        match self.gray {
            LookupBy::Number => self.table.values[usize::from(value)],
            LookupBy::Color => self.table.colors.get(&Rgb(value, value, value)).copied(),
        }
    }

    fn class_of_color(&self, color: Rgb) -> Option<u8> {
        match self.colors {
            LookupBy::Number if color.0 == color.1 && color.1 == color.2 => self.table.values[usize::from(color.0)],
            _ => self.table.colors.get(&color).copied(),
        }
    }

    /// Calls `seen` for each pixel with its position `y * width + x` and its class, [`VOID`], or `None` if no class has
    /// the value.
    pub fn for_each_pixel(&self, raw: &RawLabel, mut seen: impl FnMut(usize, Option<u8>)) {
        match &raw.pixels {
            RawPixels::Gray(values) => {
                let table: [Option<u8>; 256] = std::array::from_fn(|value| self.class_of_number(value as u8));
                values.iter().enumerate().for_each(|(at, &value)| seen(at, table[usize::from(value)]));
            }
            RawPixels::Indexed(values, palette) => {
                let table: [Option<u8>; 256] = std::array::from_fn(|value| match self.indexed {
                    LookupBy::Number => self.table.values[value],
                    LookupBy::Color => palette.get(value).and_then(|color| self.table.colors.get(color).copied()),
                });
                values.iter().enumerate().for_each(|(at, &value)| seen(at, table[usize::from(value)]));
            }
            RawPixels::Colors(colors) => {
                let mut last = (Rgb(0, 0, 0), self.class_of_color(Rgb(0, 0, 0)));
                for (at, &color) in colors.iter().enumerate() {
                    if color != last.0 {
                        last = (color, self.class_of_color(color));
                    }
                    seen(at, last.1);
                }
            }
        }
    }

    /// Returns the number or the colour by which the class of a pixel is looked up.
    pub fn value(&self, raw: &RawLabel, at: usize) -> PixelValue {
        match (&raw.pixels, self.indexed) {
            (RawPixels::Indexed(values, palette), LookupBy::Color) => {
                palette.get(usize::from(values[at])).map_or(raw.value(at), |color| PixelValue::Color(*color))
            }
            _ => raw.value(at),
        }
    }

    /// The help text for a value that no class has.
    pub fn help(&self, value: PixelValue) -> String {
        match value {
            PixelValue::Index(index) => {
                let known: Vec<usize> = (0..256).filter(|&value| self.table.values[value].is_some()).collect();
                let known: Vec<String> = known
                    .chunk_by(|a, b| a + 1 == *b)
                    .map(|run| match run {
                        [one] => one.to_string(),
                        _ => format!("{} to {}", run[0], run[run.len() - 1]),
                    })
                    .collect();
                format!(
                    "the classes have the values {}; name all classes in a file for --classes, or exclude these pixels \
                     with --void {index}",
                    known.join(", ")
                )
            }
            PixelValue::Color(Rgb(r, g, b)) => {
                format!(
                    "add the class to the class file, or pass a file with --classes; to exclude these pixels, add the \
                     line `{r} {g} {b} void`"
                )
            }
        }
    }
}

/// Whether labels are masks of 0 and 255, possibly with smoothed edges, and not class numbers.
fn black_and_white(numbers: &[u64; 256], classes: &[SourceClass]) -> bool {
    let named = |value: u8| classes.iter().any(|class| class.values.contains(&value));
    let white = Rgb(255, 255, 255);
    let colored = classes.iter().any(|class| class.color == Some(white));
    let all: u64 = numbers.iter().sum();
    let ends = numbers[0] + numbers[255];
    // Smoothed edges contain most values between 0 and 255, each in few pixels.
    let between = numbers[1..255].iter().filter(|count| **count > 0).count();
    let mask = between == 0 || (between > 8 && ends as f64 >= 0.9 * all as f64);
    numbers[255] > 0 && mask && !named(255) && !(colored && between == 0)
}

/// Whether the meaning of 255 is given: by a class with that number, or by `--void`.
fn is_255_assigned(source: &[SourceClass], void: Option<&[String]>) -> bool {
    source.iter().any(|class| class.values.contains(&255))
        || void.is_some_and(|entries| entries.iter().any(|entry| entry == "255"))
}

/// The error for labels of only 0 and 255 with three or more classes: 255 is void by convention, and no class would
/// remain to be learned.
fn all_void_error(source: &[SourceClass], sample: &LabelSample) -> CodingError {
    let name = |at: usize, default: &str| source.get(at).map_or(default.into(), |class| class.name.clone());
    let (first, second) = (name(0, "background"), name(1, "foreground"));
    CodingError::OnlyZeroAndVoid { files: sample.files, classes: source.len(), first, second }
}

/// The two classes of a black and white mask, with the names of the class file.
fn binary_classes(classes: Vec<SourceClass>, sample: &LabelSample, notes: &mut Vec<String>) -> Vec<SourceClass> {
    let mut names: Vec<(String, Option<Rgb>)> = classes.into_iter().map(|class| (class.name, class.color)).collect();
    if names.len() < 2 {
        // A single named class is the foreground, unless its name means background.
        match names.first() {
            Some((name, _)) if colors::is_background(name) => names.push(("foreground".into(), None)),
            Some(_) => names.insert(0, ("background".into(), None)),
            None => names.extend([("background".into(), None), ("foreground".into(), None)]),
        }
    }
    // The brighter of the two colours is white (255).
    let brightness = |color: Option<Rgb>| color.map(|Rgb(r, g, b)| u32::from(r) + u32::from(g) + u32::from(b));
    if brightness(names[0].1) > brightness(names[1].1) && names[1].1.is_some() {
        names.swap(0, 1);
    }
    let numbers = sample.numbers();
    let soft = if numbers[1..255].iter().any(|count| *count > 0) {
        "; values from 1 to 127 count as 0, values from 128 to 254 as 255"
    } else {
        ""
    };
    notes.push(format!("labels are black and white: 0 is {}, 255 is {}{soft}", names[0].0, names[1].0));
    let values = [(0..128).collect(), (128..=255).collect()];
    names.into_iter().zip(values).map(|((name, color), values)| SourceClass { name, color, values }).collect()
}

/// Guesses the classes if there is no class file. Returns them, and whether labels are black and white masks.
fn guess_classes(
    hints: &CodingHints<'_>,
    sample: &LabelSample,
    numbers: &[u64; 256],
    notes: &mut Vec<String>,
) -> Result<(Vec<SourceClass>, bool), CodingError> {
    if black_and_white(numbers, &[]) && sample.colors_are_gray() {
        return Ok((binary_classes(Vec::new(), sample, notes), true));
    }
    let assume = |assumed: &'static str| match hints.unread {
        None => Ok(()),
        Some(path) => Err(CodingError::UnrecognizedClassFile { path: path.to_path_buf(), assumed }),
    };
    if hints.voc && looks_like_voc(sample, numbers) {
        assume("Pascal VOC's 21 classes")?;
        notes.push(
            "there is no class file: assumed Pascal VOC's 21 classes from the numbers in the labels (otherwise pass \
             --classes FILE)"
                .into(),
        );
        return Ok((known::voc21(), false));
    }
    if !sample.colors.is_empty() && !sample.colors_are_gray() {
        let camvid32 = known::camvid32();
        // A few matching colours prove nothing: many palettes begin with red and green.
        let camvid_likely = hints.camvid || sample.colors.len() >= 8;
        if camvid_likely && sample.colors.keys().all(|color| camvid32.iter().any(|class| class.color == Some(*color))) {
            assume("CamVid's 32 classes")?;
            notes.push("there is no class file: assumed CamVid's 32 classes from the colours".into());
            return Ok((camvid32, false));
        }
        return Err(CodingError::ColorsWithoutClassFile { colors: list_colors(sample) });
    }
    let used: Vec<usize> = (0..255).filter(|&value| numbers[value] > 0).collect();
    let max = used.last().copied().unwrap_or(0);
    // A few values prove nothing: in CamVid, a few images contain nearly all classes.
    if hints.camvid && max <= 11 && (numbers[11] > 0 || used.len() >= 8) {
        assume("CamVid's 11 classes")?;
        notes.push(
            "there is no class file, and the largest value is 11: assumed the 11 classes of CamVid in SegNet's \
             numbering, with 11 as void (otherwise pass --classes FILE)"
                .into(),
        );
        return Ok((known::segnet11(), false));
    }
    if max == 0 {
        return Err(CodingError::OnlyZero(sample.files));
    }
    if used.len() <= 8 && max >= 32 {
        return Err(CodingError::ValuesWithoutClassFile(used));
    }
    let unread = hints.unread.map_or(String::new(), |path| format!(" ({} is not read)", path.display()));
    notes.push(format!(
        "there is no class file{unread}: the classes are named class0 to class{max}; to name them, {}",
        CodingError::write_class_file()
    ));
    let class = |value: usize| SourceClass { name: format!("class{value}"), color: None, values: vec![value as u8] };
    Ok(((0..=max).map(class).collect(), false))
}

/// Whether numbers or colours are probably those of Pascal VOC. Consecutive numbers from 0 prove nothing: labelme
/// exports other classes into the same folders. In VOC, a few images contain most of the 21 classes, and a part of them
/// has gaps in the numbers.
fn looks_like_voc(sample: &LabelSample, numbers: &[u64; 256]) -> bool {
    let mut used: Vec<usize> = (0..255).filter(|&value| numbers[value] > 0).collect();
    if !sample.colors.is_empty() {
        let map: Vec<Rgb> = (0..=255).map(colors::voc).collect();
        let place = |color: &Rgb| map.iter().position(|known| known == color);
        let Some(places) = sample.colors.keys().map(place).collect::<Option<Vec<_>>>() else { return false };
        used = places.into_iter().filter(|&place| place != 255).collect();
        used.sort_unstable();
    }
    let max = used.last().copied().unwrap_or(0);
    max <= 20 && (used.len() >= 8 || (max >= 8 && max >= 2 * used.len()))
}

/// Lists the most frequent colours for a message.
fn list_colors(sample: &LabelSample) -> String {
    let mut colors: Vec<_> = sample.colors.iter().map(|(color, count)| (*count, (color.0, color.1, color.2))).collect();
    colors.sort_unstable_by(|a, b| b.cmp(a));
    let mut texts: Vec<String> = colors.iter().take(6).map(|(_, (r, g, b))| format!("{r},{g},{b}")).collect();
    if colors.len() > 6 {
        texts.push(format!("and {} more", colors.len() - 6));
    }
    texts.join("; ")
}

#[cfg(test)]
mod tests;
