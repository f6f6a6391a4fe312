//! Finds images that validation shares with training: copies, near copies, and frames of the same recording.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::hash::{COPY_DISTANCE, SIMILAR_DISTANCE};
use super::super::{Part, sequence};
use super::facts::{CheckItem, PairFacts};
use super::report::{Finding, FindingKind, SimilarPair};

/// Finds images that occur in two parts, or twice in one. `split_here`: the split was generated and does not come from
/// the data set.
pub(super) fn find(items: &[CheckItem<'_>], facts: &[PairFacts], split_here: bool) -> Vec<Finding> {
    let mut findings = copies(items, facts);
    // Frames of a fixed camera are near copies of one another, which is not an error.
    let near = near_copies(items, facts);
    let (mut frames, near): (Vec<SimilarImages>, Vec<SimilarImages>) =
        near.into_iter().partition(|close| close.apart.is_some());
    frames.extend(neighbours(items, facts));
    let cut = if split_here { CUT_HERE } else { CUT_BEFORE };
    findings.extend(combine(FindingKind::NearCopyInTwoParts, items, near, COPIED));
    findings.extend(combine(FindingKind::RecordingInTwoParts, items, frames, cut));
    findings
}

const COPIED: &str = "remove one image of each pair; if all images show one place, validate on images of another place";
const CUT_HERE: &str = "this split was generated, and there may be no better one. For realistic scores, validate on \
    another recording: put it into val/, or name its images in the val.txt of `--lists DIR`. With several recordings, \
    `--by-sequence always` keeps each in one part; with one recording, a larger `--val` makes longer blocks";
const CUT_BEFORE: &str = "validate on a separate recording: `--resplit --by-sequence always` keeps each recording in \
    one part (`--val` is the validation share), or name the images in the train.txt and val.txt of `--lists DIR`";

/// Two similar images of different parts.
struct SimilarImages {
    a: usize,
    b: usize,
    /// The number of different bits of their hashes, 0 to 128.
    bits: u32,
    /// The difference of their frame numbers, if they are of one recording.
    apart: Option<u64>,
}

fn pair_finding(kind: FindingKind, a: &CheckItem<'_>, b: &CheckItem<'_>, detail: String) -> Finding {
    Finding { other: Some(b.pair.name.clone()), ..Finding::new(kind, &a.pair.name, detail) }
}

fn part_names(a: &CheckItem<'_>, b: &CheckItem<'_>) -> String {
    let name = |item: &CheckItem<'_>| item.part.map_or("excluded", Part::name);
    format!("{} and {}", name(a), name(b))
}

/// Finds images with equal pixels.
fn copies(items: &[CheckItem<'_>], facts: &[PairFacts]) -> Vec<Finding> {
    let mut first = HashMap::<(u64, Option<Part>), usize>::new();
    let mut findings = Vec::new();
    for (at, (item, facts)) in items.iter().zip(facts).enumerate() {
        let Some(content) = facts.content.filter(|_| item.part.is_some()) else { continue };
        for part in Part::ALL {
            let Some(&other) = first.get(&(content, Some(part))) else { continue };
            if Some(part) == item.part {
                findings.push(pair_finding(FindingKind::SameImageTwice, &items[other], item, part.name().to_string()));
            } else {
                findings.push(pair_finding(
                    FindingKind::SameImageInTwoParts,
                    &items[other],
                    item,
                    part_names(&items[other], item),
                ));
            }
        }
        first.entry((content, item.part)).or_insert(at);
    }
    findings
}

/// Finds for each image the most similar image of an earlier part, if their hashes differ only as those of copies with
/// another scale or compression.
fn near_copies(items: &[CheckItem<'_>], facts: &[PairFacts]) -> Vec<SimilarImages> {
    let distinctive: Vec<_> = (0..items.len())
        .filter_map(|at| Some((at, items[at].part?, facts[at].hash.filter(|hash| hash.is_distinctive())?)))
        .collect();
    let mut found = Vec::new();
    for &(b, part, hash) in &distinctive {
        let earlier = distinctive.iter().filter(|(_, other, _)| (*other as u8) < part as u8);
        let nearest = earlier.map(|&(a, _, theirs)| (hash.distance(theirs), a));
        if let Some((bits, a)) = nearest.min_by_key(|(bits, _)| *bits)
            && bits <= COPY_DISTANCE
            && facts[a].content != facts[b].content
        {
            let ((key, from), (other, to)) = (sequence::key(&items[a].pair.name), sequence::key(&items[b].pair.name));
            found.push(SimilarImages { a, b, bits, apart: (key == other).then(|| from.abs_diff(to)) });
        }
    }
    found
}

/// Finds consecutive, similar frames of a recording in different parts. Photos with consecutive numbers are not
/// similar.
fn neighbours(items: &[CheckItem<'_>], facts: &[PairFacts]) -> Vec<SimilarImages> {
    let mut sequences = BTreeMap::<String, Vec<(u64, usize)>>::new();
    for (at, item) in items.iter().enumerate().filter(|(_, item)| item.part.is_some()) {
        let (key, number) = sequence::key(&item.pair.name);
        sequences.entry(key).or_default().push((number, at));
    }
    let mut found = Vec::new();
    for mut frames in sequences.into_values() {
        frames.sort_unstable();
        let mut steps: Vec<u64> = frames.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        steps.sort_unstable();
        let Some(&usual) = steps.get(steps.len() / 2) else { continue };
        for pair in frames.windows(2) {
            let ((from, a), (to, b)) = (pair[0], pair[1]);
            let distance = facts[a].hash.zip(facts[b].hash).map(|(a, b)| a.distance(b));
            if items[a].part != items[b].part
                && to - from <= 3 * usual.max(1)
                && facts[a].content != facts[b].content
                && let Some(bits) = distance.filter(|bits| *bits <= SIMILAR_DISTANCE)
            {
                found.push(SimilarImages { a, b, bits, apart: Some(to - from) });
            }
        }
    }
    found
}

/// Combines all pairs into one finding, the most similar pair first, as they have one cause.
fn combine(kind: FindingKind, items: &[CheckItem<'_>], mut close: Vec<SimilarImages>, help: &str) -> Option<Finding> {
    let mut seen = HashSet::new();
    close.retain(|close| seen.insert((close.a.min(close.b), close.a.max(close.b))));
    close.sort_by_key(|close| (close.bits, close.a, close.b));
    let mut pairs = close.iter().map(|close| {
        let (a, b) = (&items[close.a], &items[close.b]);
        let apart = close.apart.map_or(String::new(), |apart| format!(" {apart} frame numbers apart,"));
        let detail = format!("{};{apart} {} of 128 bits of their hashes differ", part_names(a, b), close.bits);
        SimilarPair { name: a.pair.name.clone(), other: b.pair.name.clone(), detail }
    });
    let SimilarPair { name, other, detail } = pairs.next()?;
    let finding = Finding::new(kind, name, detail);
    Some(Finding { other: Some(other), more: pairs.collect(), help: Some(help.into()), ..finding })
}
