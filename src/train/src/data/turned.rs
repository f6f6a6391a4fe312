//! Whether labels are oriented as their pictures are seen, or as they are stored: a picture with an orientation in its
//! EXIF data is turned when it is read, and programs differ in whether they turned it before it was labelled.
//!
//! Sizes tell where a side picture (turned by 90°) is not square. Else the pictures tell: at the borders between labels a
//! picture changes more than elsewhere, if the labels fit. Where neither does, nothing is assumed.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Pair;
use super::drawn::Labels;
use super::orientation::Orientation;
use super::picture::{self, Rgb8};
use super::raw::{Pixels, Raw};

/// How labels are oriented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelOrientation {
    /// As sizes and pictures show; else an error
    #[default]
    Auto,
    /// As the pictures are seen, turned
    Upright,
    /// As the pictures are stored, not turned
    Stored,
}

/// Pictures whose content is compared with their labels.
const LOOKS: usize = 32;
/// Pixels between the two places that are compared across a border: pictures are blurred a little.
const ACROSS: usize = 2;
/// Of so few pictures, chance may make one orientation look better: they must differ more.
const FEW: usize = 4;

/// What a picture's size or content says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Upright,
    Stored,
}

impl Says {
    fn words(self) -> &'static str {
        match self {
            Says::Upright => "as the pictures are seen",
            Says::Stored => "as the pictures are stored, and are turned with them",
        }
    }
}

/// Pictures whose labels are to be turned, and how; and what is worth telling.
type Turned = (HashMap<PathBuf, Orientation>, Vec<String>);

/// Finds the pairs whose labels are to be turned as their pictures are.
///
/// # Errors
/// What cannot be known, and what to do.
pub fn find(pairs: &[&Pair], labels: &Labels, wanted: LabelOrientation) -> Result<Turned, (String, String)> {
    let oriented = oriented(pairs);
    if oriented.is_empty() {
        return Ok((HashMap::new(), Vec::new()));
    }
    let count = oriented.len();
    let all = |says: Says| match says {
        Says::Upright => HashMap::new(),
        Says::Stored => oriented.iter().map(|(pair, orientation)| (pair.image.clone(), *orientation)).collect(),
    };
    let note = |says: Says, why: &str| {
        format!(
            "{count} pictures are turned or mirrored by their EXIF data; their labels are taken to be oriented {}: {why}",
            says.words()
        )
    };
    match wanted {
        LabelOrientation::Upright => {
            return Ok((all(Says::Upright), vec![note(Says::Upright, "--label-orientation upright")]));
        }
        LabelOrientation::Stored => {
            return Ok((all(Says::Stored), vec![note(Says::Stored, "--label-orientation stored")]));
        }
        LabelOrientation::Auto => {}
    }
    let sizes: Vec<Size> = oriented.iter().map(|(pair, orientation)| by_size(pair, *orientation, labels)).collect();
    let [upright, stored] =
        [Says::Upright, Says::Stored].map(|says| sizes.iter().filter(|size| **size == Size::Says(says)).count());
    let open: Vec<(&Pair, Orientation)> =
        oriented.iter().zip(&sizes).filter(|(_, size)| **size == Size::Open).map(|(item, _)| *item).collect();
    let by_content = by_content(&open, labels);
    let rest = match (open.is_empty(), by_content, upright, stored) {
        // Sizes are all there is to know.
        (true, ..) => None,
        (_, Some(says), ..) => Some(says),
        (_, None, 1.., 0) => Some(Says::Upright),
        (_, None, 0, 1..) => Some(Says::Stored),
        (_, None, ..) => return Err(unknown(&open)),
    };
    let says = |size: &Size| match size {
        Size::Says(says) => Some(*says),
        Size::Open => rest,
        Size::Misfit => None,
    };
    let found: Vec<Option<Says>> = sizes.iter().map(says).collect();
    let turned: HashMap<PathBuf, Orientation> = oriented
        .iter()
        .zip(&found)
        .filter(|(_, says)| **says == Some(Says::Stored))
        .map(|((pair, orientation), _)| (pair.image.clone(), *orientation))
        .collect();
    let why = match (by_content, upright + stored) {
        (Some(_), 0) => "the borders in the pictures fit the labels so".to_string(),
        (Some(_), n) => format!("the sizes of {n} say so, and the borders in the others fit the labels so"),
        (None, n) => format!("the sizes of {n} say so"),
    };
    let all_are = |says: Says| found.iter().flatten().all(|other| *other == says);
    let text = match (found.iter().flatten().next(), all_are(Says::Upright), all_are(Says::Stored)) {
        // Labels of other sizes than their pictures: reading them says so.
        (None, ..) => return Ok((turned, Vec::new())),
        (_, true, _) => note(Says::Upright, &why),
        (_, _, true) => note(Says::Stored, &why),
        _ => format!(
            "{count} pictures are turned or mirrored by their EXIF data; {} of their labels are oriented as the pictures are \
             stored, and are turned with them, the others as the pictures are seen: sizes and borders say so",
            turned.len()
        ),
    };
    Ok((turned, vec![text]))
}

/// Pairs whose pictures have an orientation.
fn oriented<'a>(pairs: &[&'a Pair]) -> Vec<(&'a Pair, Orientation)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let read = |pairs: &[&'a Pair]| -> Vec<(&'a Pair, Orientation)> {
        let oriented = pairs.iter().map(|pair| (*pair, Orientation::of_file(&pair.image)));
        oriented.filter(|(_, orientation)| *orientation != Orientation::Upright).collect()
    };
    std::thread::scope(|scope| {
        let parts = pairs.chunks(pairs.len().div_ceil(threads).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// What the sizes of a picture and its label say.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    Says(Says),
    /// The label fits both ways.
    Open,
    /// It fits neither way, or cannot be read: for the reader of the pair to tell.
    Misfit,
}

fn by_size(pair: &Pair, orientation: Orientation, labels: &Labels) -> Size {
    let (Ok(stored), Ok(label)) = (picture::stored_size(&pair.image), labels.size(pair)) else { return Size::Misfit };
    let seen = orientation.size(stored.0, stored.1);
    match (label == stored, label == seen) {
        (true, true) => Size::Open,
        (true, false) => Size::Says(Says::Stored),
        (false, true) => Size::Says(Says::Upright),
        (false, false) => Size::Misfit,
    }
}

/// What the content of the pictures says; `None` where it says nothing clear.
fn by_content(open: &[(&Pair, Orientation)], labels: &Labels) -> Option<Says> {
    let count = open.len().min(LOOKS);
    let (mut leanings, mut same) = (Vec::new(), 0);
    for (pair, orientation) in (0..count).map(|n| open[n * open.len() / count]) {
        let (Ok(picture), Ok(raw)) = (picture::read(&pair.image), labels.read(pair)) else { continue };
        let as_it_is = values(&raw);
        let turned_raw = raw.turned(orientation);
        let turned = values(&turned_raw);
        // The same either way, as one without any object is.
        if as_it_is.0 == turned.0 {
            same += 1;
            continue;
        }
        if let (Some(upright), Some(stored)) = (change(&picture, &as_it_is), change(&picture, &turned)) {
            leanings.push((stored - upright) / (stored + upright).max(1e-9));
        }
    }
    // Where all are, it does not matter.
    if same > 0 && same == open.len() { Some(Says::Upright) } else { verdict(&leanings) }
}

/// From how much more a picture changes at the borders of turned labels, -1 to 1 each, what holds for all.
fn verdict(leanings: &[f64]) -> Option<Says> {
    let n = leanings.len() as f64;
    if leanings.is_empty() {
        return None;
    }
    let mean = leanings.iter().sum::<f64>() / n;
    let clear = if leanings.len() < FEW {
        mean.abs() > 0.3 && leanings.iter().all(|leaning| leaning.signum() == mean.signum())
    } else {
        let variance = leanings.iter().map(|leaning| (leaning - mean).powi(2)).sum::<f64>() / (n - 1.0);
        mean.abs() > 0.05 && mean.abs() > 3.0 * (variance / n).sqrt()
    };
    clear.then_some(if mean > 0.0 { Says::Stored } else { Says::Upright })
}

/// Labels as numbers that are equal where they are: `[height, width]`, width, height.
fn values(raw: &Raw) -> (Vec<u32>, usize, usize) {
    let values = match &raw.pixels {
        Pixels::Gray(values) | Pixels::Indexed(values, _) => values.iter().map(|value| u32::from(*value)).collect(),
        Pixels::Colors(colors) => colors.iter().map(|c| u32::from_be_bytes([0, c.0, c.1, c.2])).collect(),
    };
    (values, raw.width, raw.height)
}

/// How much the picture changes across the borders of labels, on average over their pixels and over red, green and blue;
/// `None` where sizes differ or there is no border.
fn change(picture: &Rgb8, (values, width, height): &(Vec<u32>, usize, usize)) -> Option<f64> {
    let (width, height) = (*width, *height);
    if (picture.width, picture.height) != (width, height) || width <= 2 * ACROSS || height <= 2 * ACROSS {
        return None;
    }
    let color = |at: usize| &picture.rgb[3 * at..3 * at + 3];
    let difference =
        |a: usize, b: usize| -> u64 { color(a).iter().zip(color(b)).map(|(a, b)| u64::from(a.abs_diff(*b))).sum() };
    let (mut sum, mut count) = (0u64, 0u64);
    for y in ACROSS..height - ACROSS {
        for x in ACROSS..width - ACROSS {
            let at = y * width + x;
            for step in [1, width] {
                if values[at] != values[at + step] {
                    sum += difference(at + ACROSS * step, at - (ACROSS - 1) * step);
                    count += 1;
                }
            }
        }
    }
    // One is added so that pictures without any change lean to neither side.
    (count > 0).then(|| 1.0 + sum as f64 / count as f64)
}

fn unknown(open: &[(&Pair, Orientation)]) -> (String, String) {
    let (first, orientation) = open[0];
    let problem = format!(
        "{} pictures are turned or mirrored by their EXIF data in a way that sizes do not show (first {}: {orientation}), and \
         neither orientation of the labels fits them better: it cannot be known whether labels are oriented as the pictures \
         are seen or as they are stored",
        open.len(),
        first.image.display()
    );
    let help = "look at one beside its label, then give --label-orientation upright (as seen) or stored";
    (problem, help.into())
}

#[cfg(test)]
mod tests;
