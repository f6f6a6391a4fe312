//! Pictures that validation shares with training: copies, near copies, and frames of the same recording.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::hash::{ALIKE, COPY};
use super::super::{Part, sequence};
use super::{Another, Facts, Finding, Item, Kind};

/// Everything that is in two parts, or twice in one. `split_here`: the parts were made here, not by people.
pub(super) fn find(items: &[Item<'_>], facts: &[Facts], split_here: bool) -> Vec<Finding> {
    let mut findings = copies(items, facts);
    // Frames of a fixed camera are near copies of one another: that is the recording's nature, and no mistake.
    let near = near_copies(items, facts);
    let (mut frames, near): (Vec<Close>, Vec<Close>) = near.into_iter().partition(|close| close.apart.is_some());
    frames.extend(neighbours(items, facts));
    let cut = if split_here { CUT_HERE } else { CUT_BEFORE };
    findings.extend(together(Kind::NearCopyInTwoParts, items, near, COPIED));
    findings.extend(together(Kind::RecordingInTwoParts, items, frames, cut));
    findings
}

const COPIED: &str = "take one picture of each pair out; where one place makes all pictures alike, validate on another";
const CUT_HERE: &str = "this split was made here, and there may be no better one. Scores of another recording tell what the \
    model is worth: put one into val/, or name its pictures in the val.txt of `--lists DIR`. Where there are several \
    recordings, `--by-sequence always` keeps each on one side; where there is one, a larger `--val` has longer blocks";
const CUT_BEFORE: &str = "validate on a recording of its own: `--resplit --by-sequence always` keeps each recording on one \
    side (`--val` is the share that validates), or name the pictures in the train.txt and val.txt of `--lists DIR`";

/// Two pictures of different parts that look alike.
struct Close {
    a: usize,
    b: usize,
    /// Bits of their fingerprints that differ.
    bits: u32,
    /// How far their frame numbers are apart, in one recording.
    apart: Option<u64>,
}

fn both(kind: Kind, a: &Item<'_>, b: &Item<'_>, detail: String) -> Finding {
    Finding { other: Some(b.pair.name.clone()), ..Finding::new(kind, &a.pair.name, detail) }
}

fn parts(a: &Item<'_>, b: &Item<'_>) -> String {
    let name = |item: &Item<'_>| item.part.map_or("left out", Part::name);
    format!("{} and {}", name(a), name(b))
}

/// Equal pixels.
fn copies(items: &[Item<'_>], facts: &[Facts]) -> Vec<Finding> {
    let mut first = HashMap::<(u64, Option<Part>), usize>::new();
    let mut findings = Vec::new();
    for (at, (item, facts)) in items.iter().zip(facts).enumerate() {
        let Some(content) = facts.content.filter(|_| item.part.is_some()) else { continue };
        for part in Part::ALL {
            let Some(&other) = first.get(&(content, Some(part))) else { continue };
            if Some(part) == item.part {
                findings.push(both(Kind::SamePictureTwice, &items[other], item, part.name().to_string()));
            } else {
                findings.push(both(Kind::SamePictureInTwoParts, &items[other], item, parts(&items[other], item)));
            }
        }
        first.entry((content, item.part)).or_insert(at);
    }
    findings
}

/// For each picture the one of an earlier part that is most like it, if that is a copy but for scale or compression.
fn near_copies(items: &[Item<'_>], facts: &[Facts]) -> Vec<Close> {
    let told: Vec<_> = (0..items.len())
        .filter_map(|at| Some((at, items[at].part?, facts[at].hash.filter(|hash| hash.tells())?)))
        .collect();
    let mut found = Vec::new();
    for &(b, part, hash) in &told {
        let earlier = told.iter().filter(|(_, other, _)| (*other as u8) < part as u8);
        let nearest = earlier.map(|&(a, _, theirs)| (hash.distance(theirs), a));
        if let Some((bits, a)) = nearest.min_by_key(|(bits, _)| *bits)
            && bits <= COPY
            && facts[a].content != facts[b].content
        {
            let ((key, from), (other, to)) = (sequence::key(&items[a].pair.name), sequence::key(&items[b].pair.name));
            found.push(Close { a, b, bits, apart: (key == other).then(|| from.abs_diff(to)) });
        }
    }
    found
}

/// Frames of a recording that follow one another and are in different parts, where they look alike: photos that merely
/// have running numbers do not.
fn neighbours(items: &[Item<'_>], facts: &[Facts]) -> Vec<Close> {
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
            let alike = facts[a].hash.zip(facts[b].hash).map(|(a, b)| a.distance(b));
            if items[a].part != items[b].part
                && to - from <= 3 * usual.max(1)
                && facts[a].content != facts[b].content
                && let Some(bits) = alike.filter(|bits| *bits <= ALIKE)
            {
                found.push(Close { a, b, bits, apart: Some(to - from) });
            }
        }
    }
    found
}

/// All pairs as one finding, the most alike first: one cause, one warning.
fn together(kind: Kind, items: &[Item<'_>], mut close: Vec<Close>, help: &str) -> Option<Finding> {
    let mut seen = HashSet::new();
    close.retain(|close| seen.insert((close.a.min(close.b), close.a.max(close.b))));
    close.sort_by_key(|close| (close.bits, close.a, close.b));
    let mut pairs = close.iter().map(|close| {
        let (a, b) = (&items[close.a], &items[close.b]);
        let apart = close.apart.map_or(String::new(), |apart| format!(" {apart} frame numbers apart,"));
        let detail = format!("{};{apart} {} of 128 bits of their fingerprints differ", parts(a, b), close.bits);
        Another { name: a.pair.name.clone(), other: b.pair.name.clone(), detail }
    });
    let Another { name, other, detail } = pairs.next()?;
    let finding = Finding::new(kind, name, detail);
    Some(Finding { other: Some(other), more: pairs.collect(), help: Some(help.into()), ..finding })
}
