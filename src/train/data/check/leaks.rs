//! Pictures that validation shares with training: copies, near copies, and the next frame of the same recording.

use std::collections::{BTreeMap, HashMap};

use super::super::hash::COPY;
use super::super::split::ALIKE;
use super::super::{Part, sequence};
use super::{Facts, Finding, Item, Kind};

/// Everything that is in two parts, or twice in one.
pub(super) fn find(items: &[Item<'_>], facts: &[Facts]) -> Vec<Finding> {
    let mut findings = copies(items, facts);
    findings.extend(near_copies(items, facts));
    findings.extend(neighbours(items, facts));
    findings
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
fn near_copies(items: &[Item<'_>], facts: &[Facts]) -> Vec<Finding> {
    let told: Vec<_> = items
        .iter()
        .zip(facts)
        .filter_map(|(item, facts)| Some((item, item.part?, facts.hash.filter(|hash| hash.tells())?, facts.content)))
        .collect();
    let mut findings = Vec::new();
    for (item, part, hash, content) in &told {
        let earlier = told.iter().filter(|(_, other, ..)| (*other as u8) < *part as u8);
        let nearest = earlier.map(|(other, _, theirs, content)| (hash.distance(*theirs), other, content));
        if let Some((bits, other, other_content)) = nearest.min_by_key(|(bits, ..)| *bits)
            && bits <= COPY
            && content != other_content
        {
            let detail = format!("{}; {bits} of 128 bits of their fingerprints differ", parts(other, item));
            findings.push(both(Kind::NearCopyInTwoParts, other, item, detail));
        }
    }
    findings
}

/// Consecutive frames in different parts, where they look alike: photos that merely have running numbers do not.
fn neighbours(items: &[Item<'_>], facts: &[Facts]) -> Vec<Finding> {
    let mut sequences = BTreeMap::<String, Vec<(u64, usize)>>::new();
    for (at, item) in items.iter().enumerate().filter(|(_, item)| item.part.is_some()) {
        let (key, number) = sequence::key(&item.pair.name);
        sequences.entry(key).or_default().push((number, at));
    }
    let mut findings = Vec::new();
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
                && let Some(bits) = alike.filter(|bits| (COPY + 1..=ALIKE).contains(bits))
            {
                let detail = format!("{}; {} apart, {bits} of 128 bits differ", parts(&items[a], &items[b]), to - from);
                findings.push(both(Kind::NeighboursInTwoParts, &items[a], &items[b], detail));
            }
        }
    }
    findings
}
