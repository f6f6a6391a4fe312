//! Looks into every file of a data set, on several threads, and tells what would spoil a training.

use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::time::Instant;

use crossbeam_channel::bounded;

use super::coding::Coding;
use super::error::{DataError, Value};
use super::hash::{self, Hash};
use super::raw::{Pixels, Raw};
use super::{Dataset, Pair, Part, VOID, picture};

mod leaks;
mod report;
#[cfg(test)]
mod tests;

pub use report::{Another, CheckReport, ClassShare, Finding, Kind, PartCounts, Severity, SizeCount};

/// Different strange values of one label picture that are told; a photo saved as a label has thousands.
const MAX_STRANGE: usize = 20;

/// A picture of the data set and what it is for; `None` for one on no side of the split.
#[derive(Clone, Copy)]
struct Item<'a> {
    pair: &'a Pair,
    part: Option<Part>,
}

/// A value that belongs to no class.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Strange {
    value: Value,
    pixels: u64,
    /// The first such pixel.
    at: (usize, usize),
}

/// What one pair holds.
#[derive(Default)]
struct Facts {
    image_size: Option<(usize, usize)>,
    label_size: Option<(usize, usize)>,
    errors: Vec<DataError>,
    /// Pixels a class.
    classes: Vec<u64>,
    void: u64,
    strange: Vec<Strange>,
    /// Strange values beyond [`MAX_STRANGE`].
    more_strange: bool,
    /// Pixels of a black and white mask that are neither.
    between: u64,
    /// Equal for equal pictures.
    content: Option<u64>,
    hash: Option<Hash>,
}

/// Checks a data set on so many threads; 0: one a core. `progress` is told how many of how many pictures are done.
pub fn check(dataset: &Dataset, threads: usize, progress: &mut dyn FnMut(usize, usize)) -> CheckReport {
    let begun = Instant::now();
    let parts = Part::ALL.into_iter().map(|part| (Some(part), dataset.part(part)));
    let items: Vec<Item<'_>> = parts
        .chain([(None, &dataset.left_out[..])])
        .flat_map(|(part, pairs)| pairs.iter().map(move |pair| Item { pair, part }))
        .collect();
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = if threads == 0 { cores() } else { threads.min(items.len().max(1)) };
    let facts = gather(dataset, &items, threads, progress);
    let mut report = CheckReport::new(dataset, &items, &facts);
    report.findings.extend(leaks::find(&items, &facts, dataset.split_here));
    report.finish(begun.elapsed());
    report
}

/// The facts of all items, in their order. Two queues: one of places to be read, one of facts; when either is full, its
/// senders wait.
fn gather(dataset: &Dataset, items: &[Item<'_>], threads: usize, progress: &mut dyn FnMut(usize, usize)) -> Vec<Facts> {
    let (jobs, inbox) = bounded::<usize>(2 * threads);
    let (outbox, results) = bounded::<(usize, Facts)>(2 * threads);
    let mut all: Vec<Facts> = items.iter().map(|_| Facts::default()).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || (0..items.len()).all(|place| jobs.send(place).is_ok()));
        for _ in 0..threads {
            let (inbox, outbox) = (inbox.clone(), outbox.clone());
            scope.spawn(move || {
                for place in inbox {
                    // The receiver is gone only when this scope unwinds.
                    if outbox.send((place, look(dataset, items[place].pair))).is_err() {
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

fn look(dataset: &Dataset, pair: &Pair) -> Facts {
    let mut facts = Facts { classes: vec![0; dataset.classes.len()], ..Facts::default() };
    match picture::read(&pair.image) {
        Ok(picture) => {
            facts.image_size = Some((picture.width, picture.height));
            let mut hasher = DefaultHasher::new();
            (picture.width, &picture.rgb).hash(&mut hasher);
            facts.content = Some(hasher.finish());
            match hash::of(&picture) {
                Ok(hash) => facts.hash = Some(hash),
                Err(error) => facts.errors.push(DataError::picture(&pair.image, error.message)),
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

fn count(coding: &Coding, raw: &Raw, facts: &mut Facts) {
    coding.each(raw, |at, class| match class {
        Some(VOID) => facts.void += 1,
        Some(class) => facts.classes[usize::from(class)] += 1,
        None => {
            let value = coding.value(raw, at);
            if let Some(strange) = facts.strange.iter_mut().find(|strange| strange.value == value) {
                strange.pixels += 1;
            } else if facts.strange.len() < MAX_STRANGE {
                facts.strange.push(Strange { value, pixels: 1, at: (at % raw.width, at / raw.width) });
            } else {
                facts.more_strange = true;
            }
        }
    });
    if coding.halves
        && let Pixels::Gray(values) | Pixels::Indexed(values, _) = &raw.pixels
    {
        facts.between = values.iter().filter(|value| !matches!(value, 0 | 255)).count() as u64;
    }
}
