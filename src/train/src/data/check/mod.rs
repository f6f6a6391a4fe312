//! Reads each file of a data set on several threads and reports what would make training fail or its result wrong.

use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::time::Instant;

use crossbeam_channel::bounded;

use super::coding::LabelCoding;
use super::error::{DataError, PixelValue};
use super::hash::{self, ImageHash};
use super::raw::{RawLabel, RawPixels};
use super::{Dataset, Pair, Part, VOID, image};

mod leaks;
mod report;
#[cfg(test)]
mod tests;

pub use report::{CheckReport, ClassShare, Finding, FindingKind, PartCounts, Severity, SimilarPair, SizeCount};

/// Largest number of different unknown values that are reported per label image; a photo that was saved as a label has
/// thousands.
const MAX_UNKNOWN: usize = 20;

/// A pair and its part; `None` if it is in no part.
#[derive(Clone, Copy)]
struct CheckItem<'a> {
    pair: &'a Pair,
    part: Option<Part>,
}

/// A value that belongs to no class, and its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UnknownPixels {
    value: PixelValue,
    pixels: u64,
    /// Position x, y of the first such pixel.
    at: (usize, usize),
}

/// What was found in one pair.
#[derive(Default)]
struct PairFacts {
    image_size: Option<(usize, usize)>,
    label_size: Option<(usize, usize)>,
    errors: Vec<DataError>,
    /// Number of pixels by class.
    classes: Vec<u64>,
    void: u64,
    unknown: Vec<UnknownPixels>,
    /// Whether there are more unknown values than [`MAX_UNKNOWN`].
    more_unknown: bool,
    /// Number of pixels of a black and white mask that are neither 0 nor 255.
    between: u64,
    /// A hash of the pixels, equal for equal images.
    content: Option<u64>,
    hash: Option<ImageHash>,
}

/// Checks a data set on `threads` threads (0: one per core). Calls `progress` after each pair with the number of
/// checked pairs and the total.
pub fn check(dataset: &Dataset, threads: usize, progress: &mut dyn FnMut(usize, usize)) -> CheckReport {
    let begun = Instant::now();
    let parts = Part::ALL.into_iter().map(|part| (Some(part), dataset.part(part)));
    let items: Vec<CheckItem<'_>> = parts
        .chain([(None, &dataset.left_out[..])])
        .flat_map(|(part, pairs)| pairs.iter().map(move |pair| CheckItem { pair, part }))
        .collect();
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = if threads == 0 { cores() } else { threads.min(items.len().max(1)) };
    let facts = read_all(dataset, &items, threads, progress);
    let mut report = CheckReport::new(dataset, &items, &facts);
    report.findings.extend(leaks::find(&items, &facts, dataset.split_here));
    report.finish(begun.elapsed());
    report
}

/// Inspects all items and returns the results in their order. There are two bounded queues: of indices to read and of
/// results.
fn read_all(
    dataset: &Dataset,
    items: &[CheckItem<'_>],
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Vec<PairFacts> {
    let (jobs, inbox) = bounded::<usize>(2 * threads);
    let (outbox, results) = bounded::<(usize, PairFacts)>(2 * threads);
    let mut all: Vec<PairFacts> = items.iter().map(|_| PairFacts::default()).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || (0..items.len()).all(|place| jobs.send(place).is_ok()));
        for _ in 0..threads {
            let (inbox, outbox) = (inbox.clone(), outbox.clone());
            scope.spawn(move || {
                for place in inbox {
                    // The receiver is closed only when this scope unwinds.
                    if outbox.send((place, inspect(dataset, items[place].pair))).is_err() {
                        break;
                    }
                }
            });
        }
        drop((inbox, outbox));
        for (done, (place, facts)) in results.iter().enumerate() {
            all[place] = facts;
            progress(done + 1, items.len());
        }
    });
    all
}

fn inspect(dataset: &Dataset, pair: &Pair) -> PairFacts {
    let mut facts = PairFacts { classes: vec![0; dataset.classes.len()], ..PairFacts::default() };
    match image::read(&pair.image) {
        Ok(image) => {
            facts.image_size = Some((image.width, image.height));
            let mut hasher = DefaultHasher::new();
            (image.width, &image.rgb).hash(&mut hasher);
            facts.content = Some(hasher.finish());
            match hash::of(&image) {
                Ok(hash) => facts.hash = Some(hash),
                Err(error) => facts.errors.push(DataError::noise_image(&pair.image, error.message)),
            }
        }
        Err(error) => facts.errors.push(error),
    }
    match dataset.raw(pair) {
        Ok(raw) => {
            facts.label_size = Some((raw.width, raw.height));
            count(&dataset.coding, &raw, &mut facts);
        }
        Err(error) => facts.errors.push(error),
    }
    if let (Some(image_size), Some(label_size)) = (facts.image_size, facts.label_size)
        && image_size != label_size
    {
        let (image, label) = (pair.image.clone(), pair.label.clone());
        facts.errors.push(DataError::SizeMismatch { image, label, image_size, label_size });
    }
    facts
}

fn count(coding: &LabelCoding, raw: &RawLabel, facts: &mut PairFacts) {
    coding.for_each_pixel(raw, |at, class| match class {
        Some(VOID) => facts.void += 1,
        Some(class) => facts.classes[usize::from(class)] += 1,
        None => {
            let value = coding.value(raw, at);
            if let Some(unknown) = facts.unknown.iter_mut().find(|unknown| unknown.value == value) {
                unknown.pixels += 1;
            } else if facts.unknown.len() < MAX_UNKNOWN {
                facts.unknown.push(UnknownPixels { value, pixels: 1, at: (at % raw.width, at / raw.width) });
            } else {
                facts.more_unknown = true;
            }
        }
    });
    if coding.binary_mask
        && let RawPixels::Gray(values) | RawPixels::Indexed(values, _) = &raw.pixels
    {
        facts.between = values.iter().filter(|value| !matches!(value, 0 | 255)).count() as u64;
    }
}
