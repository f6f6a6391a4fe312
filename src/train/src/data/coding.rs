//! How label pictures say which class a pixel has, found out from a sample of them.

use std::path::Path;

use maskcast::frame::Rgb;

use super::VOID;
use super::class_file::SourceClass;
use super::colors;
use super::error::Value;
use super::known;
use super::raw::{Pixels, Raw};
use super::sample::{Palettes, Sample};
use super::table::Table;

/// What a pixel's number or colour is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Number,
    Color,
}

/// Translates label pictures into classes.
#[derive(Clone, Debug)]
pub struct Coding {
    pub table: Table,
    gray: By,
    indexed: By,
    colors: By,
    /// Black and white masks: from 128 on a pixel is foreground.
    pub halves: bool,
}

/// What is known before label pictures are looked at.
pub struct Hints<'a> {
    /// The classes of the data set's or the user's file; `None`: there is no such file.
    pub classes: Option<Vec<SourceClass>>,
    pub merges: &'a [(String, String)],
    pub void: Option<&'a [String]>,
    /// CamVid's folders without a class file: the customary classes are assumed where they fit.
    pub camvid: bool,
    /// The same for Pascal VOC's folders.
    pub voc: bool,
    /// A file that may be a list of classes, and is not read: nothing is assumed beside it.
    pub unread: Option<&'a Path>,
    /// A colour that is void beside the classes.
    pub void_color: Option<Rgb>,
}

impl Coding {
    /// Finds the coding, and what is worth telling about it.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn decide(mut hints: Hints<'_>, sample: &Sample) -> Result<(Coding, Vec<String>), (String, String)> {
        let mut notes = Vec::new();
        let mut halves = false;
        let numbers = sample.numbers();
        let source = match hints.classes.take() {
            Some(classes) if classes.len() <= 2 && black_and_white(&numbers, &classes) => {
                halves = true;
                two(classes, sample, &mut notes)
            }
            Some(classes) => classes,
            None => {
                let (classes, two) = guess(&hints, sample, &numbers, &mut notes)?;
                halves = two;
                classes
            }
        };
        let has_colors = source.iter().any(|class| class.color.is_some());
        let given =
            |color: &Rgb| hints.void_color == Some(*color) || source.iter().any(|class| class.color == Some(*color));
        let palette_given = !halves && has_colors && sample.palette.iter().all(given);
        let palettes = if palette_given { &Palettes::None } else { &sample.palettes };
        let mut table = Table::new(&source, hints.void, hints.merges, palettes)
            .map_err(|problem| (problem, "check the class file, --classes and --void".to_string()))?;
        if let Some(color) = hints.void_color {
            table.colors.entry(color).or_insert(VOID);
        }
        if !sample.colors.is_empty() && !has_colors && !sample.colors_are_gray() {
            return Err((
                format!("labels are in colours ({}), but no class file says what they mean", listed(sample)),
                "write label_colors.txt into the folder, or give --classes: a line a class, as in `128 64 128 road`"
                    .into(),
            ));
        }
        let fits = |counts: &[u64; 256], known: &dyn Fn(usize) -> bool| {
            counts.iter().enumerate().all(|(value, count)| *count == 0 || known(value))
        };
        // 255 is void by custom, but not where white is a class and labels may be grey.
        let white = Rgb(255, 255, 255);
        let white_class = table.colors.contains_key(&white) && !source.iter().any(|class| class.values.contains(&255));
        let number = |value: usize| table.values[value].is_some() && !(value == 255 && white_class);
        let grey = |value: usize| table.colors.contains_key(&Rgb(value as u8, value as u8, value as u8));
        let by_color = |color: bool| if color { By::Color } else { By::Number };
        let gray_by = by_color(!halves && has_colors && !fits(&sample.gray, &number) && fits(&sample.gray, &grey));
        let indexed_by = by_color(palette_given);
        let known_colors =
            sample.colors.is_empty() || sample.colors.keys().any(|color| table.colors.contains_key(color));
        let colors_by = by_color(has_colors && !halves && (known_colors || !sample.colors_are_gray()));
        let coding = Coding { table, gray: gray_by, indexed: indexed_by, colors: colors_by, halves };
        if sample.only_white() && coding.white_is_void(sample) && !chosen(&source, hints.void) {
            return Err(all_void(&source, sample));
        }
        Ok((coding, notes))
    }

    /// Whether the sample's 255s are void.
    fn white_is_void(&self, sample: &Sample) -> bool {
        let white = if sample.colors.is_empty() { self.number(255) } else { self.color(Rgb(255, 255, 255)) };
        let indexed = self.indexed == By::Number && self.table.values[255] == Some(VOID);
        (sample.indexed[255] == 0 && white == Some(VOID)) || (sample.indexed[255] > 0 && indexed)
    }

    /// Where no label can be read: there are no classes, and no value is known.
    pub fn blind() -> Coding {
        Coding { table: Table::empty(), gray: By::Number, indexed: By::Number, colors: By::Number, halves: false }
    }

    /// The class of a value, [`VOID`], or `None` for a value that no class has.
    fn number(&self, value: u8) -> Option<u8> {
        match self.gray {
            By::Number => self.table.values[usize::from(value)],
            By::Color => self.table.colors.get(&Rgb(value, value, value)).copied(),
        }
    }

    fn color(&self, color: Rgb) -> Option<u8> {
        match self.colors {
            By::Number if color.0 == color.1 && color.1 == color.2 => self.table.values[usize::from(color.0)],
            _ => self.table.colors.get(&color).copied(),
        }
    }

    /// For each pixel its class, [`VOID`], or `None` where the value belongs to no class.
    pub fn each(&self, raw: &Raw, mut seen: impl FnMut(usize, Option<u8>)) {
        match &raw.pixels {
            Pixels::Gray(values) => {
                let table: [Option<u8>; 256] = std::array::from_fn(|value| self.number(value as u8));
                values.iter().enumerate().for_each(|(at, &value)| seen(at, table[usize::from(value)]));
            }
            Pixels::Indexed(values, palette) => {
                let table: [Option<u8>; 256] = std::array::from_fn(|value| match self.indexed {
                    By::Number => self.table.values[value],
                    By::Color => palette.get(value).and_then(|color| self.table.colors.get(color).copied()),
                });
                values.iter().enumerate().for_each(|(at, &value)| seen(at, table[usize::from(value)]));
            }
            Pixels::Colors(colors) => {
                let mut last = (Rgb(0, 0, 0), self.color(Rgb(0, 0, 0)));
                for (at, &color) in colors.iter().enumerate() {
                    if color != last.0 {
                        last = (color, self.color(color));
                    }
                    seen(at, last.1);
                }
            }
        }
    }

    /// The value of a pixel in the form in which a class is looked for.
    pub fn value(&self, raw: &Raw, at: usize) -> Value {
        match (&raw.pixels, self.indexed) {
            (Pixels::Indexed(values, palette), By::Color) => {
                palette.get(usize::from(values[at])).map_or(raw.value(at), |color| Value::Color(*color))
            }
            _ => raw.value(at),
        }
    }

    /// What to do about a value that no class has.
    pub fn help(&self, value: Value) -> String {
        match value {
            Value::Index(index) => {
                let known: Vec<usize> = (0..256).filter(|&value| self.table.values[value].is_some()).collect();
                let known: Vec<String> = known
                    .chunk_by(|a, b| a + 1 == *b)
                    .map(|run| match run {
                        [one] => one.to_string(),
                        _ => format!("{} to {}", run[0], run[run.len() - 1]),
                    })
                    .collect();
                format!(
                    "known are {}; name all classes in a file for --classes, or leave such pixels out by --void {index}",
                    known.join(", ")
                )
            }
            Value::Color(Rgb(r, g, b)) => {
                format!(
                    "add the class to the class file, or give --classes a file with it; void would be `{r} {g} {b} void`"
                )
            }
        }
    }
}

/// Whether labels are masks of 0 and 255 (or smoothed ones) and not class numbers.
fn black_and_white(numbers: &[u64; 256], classes: &[SourceClass]) -> bool {
    let named = |value: u8| classes.iter().any(|class| class.values.contains(&value));
    let white = Rgb(255, 255, 255);
    let colored = classes.iter().any(|class| class.color == Some(white));
    let all: u64 = numbers.iter().sum();
    let ends = numbers[0] + numbers[255];
    // Smooth edges give all the values between, none of them much.
    let between = numbers[1..255].iter().filter(|count| **count > 0).count();
    let mask = between == 0 || (between > 8 && ends as f64 >= 0.9 * all as f64);
    numbers[255] > 0 && mask && !named(255) && !(colored && between == 0)
}

/// Whether somebody said what 255 is: a class with that number, or `--void`.
fn chosen(source: &[SourceClass], void: Option<&[String]>) -> bool {
    source.iter().any(|class| class.values.contains(&255))
        || void.is_some_and(|entries| entries.iter().any(|entry| entry == "255"))
}

/// 255 is void by custom; where it is all that there is beside 0, that custom would leave nothing to learn.
fn all_void(source: &[SourceClass], sample: &Sample) -> (String, String) {
    let first = source.first().map_or("background", |class| class.name.as_str());
    let second = source.get(1).map_or("foreground", |class| class.name.as_str());
    let problem = format!(
        "255 is the only value beside 0 in {} label pictures, and is taken as void because none of the {} classes has that \
         number: no pixel would be {second}",
        sample.files,
        source.len()
    );
    let help = format!(
        "name two classes only if these are masks of one thing, or give each its number, a line each: `0,{first}` and \
         `255,{second}`; if 255 really is void: --void 255"
    );
    (problem, help)
}

/// The two classes of a black and white mask, by the names of the class file.
fn two(classes: Vec<SourceClass>, sample: &Sample, notes: &mut Vec<String>) -> Vec<SourceClass> {
    let mut names: Vec<(String, Option<Rgb>)> = classes.into_iter().map(|class| (class.name, class.color)).collect();
    if names.len() < 2 {
        // The one that is named is the thing, unless its name says that it is the rest.
        match names.first() {
            Some((name, _)) if colors::is_background(name) => names.push(("foreground".into(), None)),
            Some(_) => names.insert(0, ("background".into(), None)),
            None => names.extend([("background".into(), None), ("foreground".into(), None)]),
        }
    }
    // Colours say which of the two is the white one.
    let brightness = |color: Option<Rgb>| color.map(|Rgb(r, g, b)| u32::from(r) + u32::from(g) + u32::from(b));
    if brightness(names[0].1) > brightness(names[1].1) && names[1].1.is_some() {
        names.swap(0, 1);
    }
    let numbers = sample.numbers();
    let soft = if numbers[1..255].iter().any(|count| *count > 0) {
        "; values between count by the half they are in"
    } else {
        ""
    };
    notes.push(format!("labels are black and white: 0 is {}, 255 is {}{soft}", names[0].0, names[1].0));
    let values = [(0..128).collect(), (128..=255).collect()];
    names.into_iter().zip(values).map(|((name, color), values)| SourceClass { name, color, values }).collect()
}

/// Classes without a class file, and whether labels are black and white masks.
fn guess(
    hints: &Hints<'_>,
    sample: &Sample,
    numbers: &[u64; 256],
    notes: &mut Vec<String>,
) -> Result<(Vec<SourceClass>, bool), (String, String)> {
    if black_and_white(numbers, &[]) && sample.colors_are_gray() {
        return Ok((two(Vec::new(), sample, notes), true));
    }
    let assume = |customary: &str| match hints.unread {
        None => Ok(()),
        Some(path) => Err((
            format!("{} may say what the classes are, but is not a class file that is known here", path.display()),
            format!("give --classes {} if it is one (else this would be read as {customary})", path.display()),
        )),
    };
    if hints.voc && looks_like_voc(sample, numbers) {
        assume("Pascal VOC's 21 classes")?;
        notes.push(
            "there is no class file: taken for Pascal VOC's 21 classes, by the numbers that occur (--classes FILE if they \
             are others)"
                .into(),
        );
        return Ok((known::voc21(), false));
    }
    if !sample.colors.is_empty() && !sample.colors_are_gray() {
        let camvid32 = known::camvid32();
        // Few colours may be anybody's own: red and green are the first of many palettes.
        let told = hints.camvid || sample.colors.len() >= 8;
        if told && sample.colors.keys().all(|color| camvid32.iter().any(|class| class.color == Some(*color))) {
            assume("CamVid's 32 classes")?;
            notes.push("there is no class file: the colours are those of CamVid's 32 classes".into());
            return Ok((camvid32, false));
        }
        return Err((
            format!("labels are in colours ({}), but no class file says what they mean", listed(sample)),
            "write label_colors.txt into the folder, or give --classes: a line a class, as in `128 64 128 road`".into(),
        ));
    }
    let used: Vec<usize> = (0..255).filter(|&value| numbers[value] > 0).collect();
    let max = used.last().copied().unwrap_or(0);
    // Few different values in a folder named so may be anybody's own classes; CamVid has nearly all in every few pictures.
    if hints.camvid && max <= 11 && (numbers[11] > 0 || used.len() >= 8) {
        assume("CamVid's 11 classes")?;
        notes.push(
            "there is no class file, and values end at 11: taken for the 11 classes of CamVid as SegNet numbers them, \
             with 11 as void (--classes FILE if they are others)"
                .into(),
        );
        return Ok((known::segnet11(), false));
    }
    let write = "write classes.txt into the folder, or give --classes: a line a class, in the order of the numbers, or \
                 `number,name`";
    if max == 0 {
        let problem =
            format!("{} label pictures were looked into, and all are 0: there is nothing to learn", sample.files);
        return Err((problem, "check that these are the label pictures, not previews of them".into()));
    }
    if used.len() <= 8 && max >= 32 {
        let values: Vec<String> = used.iter().map(ToString::to_string).collect();
        return Err((
            format!("labels have the values {}, and there is no class file", values.join(", ")),
            write.into(),
        ));
    }
    let unread = hints.unread.map_or(String::new(), |path| format!(" ({} is not read)", path.display()));
    notes.push(format!(
        "there is no class file{unread}: classes are called class0 to class{max}; to name them, {write}"
    ));
    let class = |value: usize| SourceClass { name: format!("class{value}"), color: None, values: vec![value as u8] };
    Ok(((0..=max).map(class).collect(), false))
}

/// Whether numbers or colours are likely to be Pascal VOC's. Numbers that count up from 0 may be anybody's own classes, as
/// labelme exports them into the same folders; VOC has most of its 21 in every few pictures, and gaps in a part of them.
fn looks_like_voc(sample: &Sample, numbers: &[u64; 256]) -> bool {
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

/// The most frequent colours.
fn listed(sample: &Sample) -> String {
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
