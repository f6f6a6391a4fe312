//! Generates a split for data sets without one: by whole recordings, so that no validation frame is a neighbour of a
//! training frame.

use std::collections::BTreeMap;

use clap::ValueEnum;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::hash::SIMILAR_DISTANCE;
use super::{Pair, hash, sequence};
use crate::random;

/// Whether all frames of one recording are in the same part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BySequence {
    /// If names have consecutive numbers and neighbouring images are similar
    #[default]
    Auto,
    /// Recordings are detected from names only
    Always,
    /// Each image is assigned independently
    Never,
}

/// Options of a generated split.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitOptions {
    /// Share of the validation images, between 0 and 1 (exclusive).
    pub val_share: f64,
    pub seed: u64,
    pub by_sequence: BySequence,
    /// Generate a split even if the data set has one.
    pub resplit: bool,
}

impl Default for SplitOptions {
    fn default() -> Self {
        SplitOptions { val_share: 0.2, seed: 1, by_sequence: BySequence::Auto, resplit: false }
    }
}

/// A split into training and validation images.
#[derive(Clone, Debug, Default)]
pub struct Split {
    pub train: Vec<Pair>,
    pub val: Vec<Pair>,
    /// Images between blocks of one recording, in neither part.
    pub left_out: Vec<Pair>,
    /// How the split was generated, for display.
    pub description: String,
}

/// Splits `pool`. The result depends on the names, the images (with [`BySequence::Auto`]) and the options, not on the
/// order.
pub fn make(mut pool: Vec<Pair>, options: &SplitOptions) -> Split {
    pool.sort_by(|a, b| a.name.cmp(&b.name));
    // Lists of a data set may name an image twice.
    pool.dedup_by(|a, b| a.name == b.name);
    let sequences = sequence::group(pool.clone());
    let by_sequence = match options.by_sequence {
        BySequence::Always => true,
        BySequence::Never => false,
        BySequence::Auto => sequences.len() < pool.len() && neighbours_are_similar(&sequences),
    };
    let count = pool.len();
    let mut split = if !by_sequence {
        split_by_image(pool, options)
    } else if let Some(split) = split_by_recording(&sequences, options) {
        split
    } else {
        split_into_blocks(sequences, options)
    };
    for side in [&mut split.train, &mut split.val, &mut split.left_out] {
        side.sort_by(|a, b| a.name.cmp(&b.name));
    }
    split.description = format!(
        "{count} images split {}: {} for training, {} for validation{}",
        split.description,
        split.train.len(),
        split.val.len(),
        if split.left_out.is_empty() { String::new() } else { format!(", {} excluded", split.left_out.len()) }
    );
    split
}

/// The number of validation images out of `count`; at least one in each part if there are two images.
fn val_count(count: usize, share: f64) -> usize {
    ((count as f64 * share).round() as usize).clamp(1, count.saturating_sub(1).max(1))
}

/// Shuffles items into an order that depends only on the seed and their names.
fn shuffled<T>(things: Vec<T>, seed: u64, name: impl Fn(&T) -> &str) -> Vec<T> {
    let mut keyed: Vec<(u64, T)> =
        things.into_iter().map(|thing| (random::named_generator(seed, name(&thing)).random(), thing)).collect();
    keyed.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| name(left).cmp(name(right))));
    keyed.into_iter().map(|(_, thing)| thing).collect()
}

fn split_by_image(pool: Vec<Pair>, options: &SplitOptions) -> Split {
    let val_count = val_count(pool.len(), options.val_share);
    let mut val = shuffled(pool, options.seed, |pair| &pair.name);
    let train = val.split_off(val_count);
    Split { train, val, left_out: Vec::new(), description: format!("image by image (seed {})", options.seed) }
}

/// Assigns whole recordings to parts; `None` if the recordings are too few or too long to come near the share.
fn split_by_recording(sequences: &BTreeMap<String, Vec<Pair>>, options: &SplitOptions) -> Option<Split> {
    let count: usize = sequences.values().map(Vec::len).sum();
    let val_count = val_count(count, options.val_share);
    let order = shuffled(sequences.iter().collect(), options.seed, |(key, _)| key);
    let mut split = Split::default();
    for (_, pairs) in order {
        let with = split.val.len() + pairs.len();
        let side = if with.abs_diff(val_count) < split.val.len().abs_diff(val_count) {
            &mut split.val
        } else {
            &mut split.train
        };
        side.extend(pairs.iter().cloned());
    }
    let val = split.val.len();
    let near = 2 * val >= val_count && val <= 2 * val_count && !split.train.is_empty();
    split.description = format!("by whole recordings ({} by name, seed {})", sequences.len(), options.seed);
    near.then_some(split)
}

/// Assigns contiguous blocks of each recording to validation, with a gap on both sides that is excluded.
fn split_into_blocks(sequences: BTreeMap<String, Vec<Pair>>, options: &SplitOptions) -> Split {
    let mut split = Split::default();
    let recordings = sequences.len();
    for (key, pairs) in sequences {
        let count = pairs.len();
        if count < 2 {
            split.train.extend(pairs);
            continue;
        }
        let val_count = val_count(count, options.val_share);
        // Several blocks cover more of the recording; each has at least ten frames, so that few frames are lost in
        // gaps.
        let blocks = (val_count / 10).clamp(1, 5);
        let gap = if count < 6 { 0 } else { (count / 100).clamp(1, 10) };
        let mut rng = random::named_generator(options.seed, &key);
        let mut sides = vec![SplitSide::Train; count];
        for block in 0..blocks {
            let (from, to) = (block * count / blocks, (block + 1) * count / blocks);
            let length = ((block + 1) * val_count / blocks - block * val_count / blocks).min(to - from);
            let start = from + rng.random_range(0..=(to - from - length));
            for side in &mut sides[start.saturating_sub(gap)..(start + length + gap).min(count)] {
                // The gap of a block may overlap the previous block.
                if *side == SplitSide::Train {
                    *side = SplitSide::Neither;
                }
            }
            sides[start..start + length].fill(SplitSide::Val);
        }
        for (pair, side) in pairs.into_iter().zip(sides) {
            match side {
                SplitSide::Train => split.train.push(pair),
                SplitSide::Val => split.val.push(pair),
                SplitSide::Neither => split.left_out.push(pair),
            }
        }
    }
    let what = if recordings == 1 { "the one recording" } else { "each recording" };
    split.description = format!("by blocks of {what} with gaps between them (seed {})", options.seed);
    split
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SplitSide {
    Train,
    Val,
    Neither,
}

/// Whether images with consecutive numbers are more similar than other images: frames of a video are, photos of one
/// camera are not. Compares a few images.
fn neighbours_are_similar(sequences: &BTreeMap<String, Vec<Pair>>) -> bool {
    const MAX_COMPARED: usize = 15;
    let long: Vec<&Vec<Pair>> = sequences.values().filter(|pairs| pairs.len() >= 2).collect();
    let all: Vec<&Pair> = long.iter().flat_map(|pairs| pairs.iter()).collect();
    let places: Vec<(usize, usize)> = long
        .iter()
        .enumerate()
        .flat_map(|(sequence, pairs)| (0..pairs.len() - 1).map(move |at| (sequence, at)))
        .collect();
    let (mut near, mut far) = (Vec::new(), Vec::new());
    let compared = MAX_COMPARED.min(places.len());
    for n in 0..compared {
        let (sequence, at) = places[n * places.len() / compared];
        let pairs = long[sequence];
        let Some(hash) = hash::of_file(&pairs[at].image) else { continue };
        near.extend(hash::of_file(&pairs[at + 1].image).map(|next| hash.distance(next)));
        let other = all[random::generator(0, &[n as u64]).random_range(0..all.len())];
        far.extend(hash::of_file(&other.image).map(|other| hash.distance(other)));
    }
    near.sort_unstable();
    far.sort_unstable();
    match (near.get(near.len() / 2), far.get(far.len() / 2)) {
        // All images of a fixed camera are similar; then names decide.
        (Some(&near), Some(&far)) => near <= SIMILAR_DISTANCE || 4 * near < 3 * far,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn pairs(names: impl IntoIterator<Item = String>) -> Vec<Pair> {
        names.into_iter().map(|name| Pair { image: "none".into(), label: "none".into(), name }).collect()
    }

    fn names(pairs: &[Pair]) -> HashSet<String> {
        pairs.iter().map(|pair| pair.name.clone()).collect()
    }

    fn options(by_sequence: BySequence) -> SplitOptions {
        SplitOptions { by_sequence, ..SplitOptions::default() }
    }

    #[test]
    fn recordings_are_not_split() {
        let pool = pairs((0..20).flat_map(|seq| (0..30).map(move |n| format!("s{seq}_{n:04}"))));
        let split = make(pool.clone(), &options(BySequence::Always));
        assert_eq!((split.train.len(), split.val.len()), (480, 120));
        let keys = |pairs: &[Pair]| pairs.iter().map(|pair| sequence::key(&pair.name).0).collect::<HashSet<_>>();
        assert!(keys(&split.train).is_disjoint(&keys(&split.val)));
        let reversed = make(pool.iter().rev().cloned().collect(), &options(BySequence::Always));
        assert_eq!(reversed.val, split.val);
        let other = make(pool, &SplitOptions { seed: 2, ..options(BySequence::Always) });
        assert_ne!(other.val, split.val);
        assert!(split.description.contains("20 by name"), "{}", split.description);
    }

    #[test]
    fn one_recording_is_split_into_blocks_with_gaps() {
        let split = make(pairs((0..500).map(|n| format!("f{n:05}"))), &options(BySequence::Always));
        assert_eq!(split.val.len(), 100);
        assert!(!split.left_out.is_empty() && split.description.contains("blocks"), "{}", split.description);
        let number = |pair: &Pair| sequence::key(&pair.name).1;
        let val: Vec<u64> = split.val.iter().map(number).collect();
        for train in split.train.iter().map(number) {
            assert!(val.iter().all(|val| val.abs_diff(train) > 5), "{train}");
        }
        assert!(val.windows(2).filter(|pair| pair[1] - pair[0] > 1).count() < 5, "blocks, not single images");
    }

    #[test]
    fn two_long_recordings_are_split_into_blocks() {
        let pool = pairs((0..2).flat_map(|seq| (0..100).map(move |n| format!("s{seq}_{n:04}"))));
        let split = make(pool, &SplitOptions { val_share: 0.1, ..options(BySequence::Always) });
        assert_eq!(split.val.len(), 20);
        assert!(split.description.contains("each recording"));
    }

    #[test]
    fn each_image_is_assigned_and_both_parts_have_images() {
        for by_sequence in [BySequence::Auto, BySequence::Always, BySequence::Never] {
            for count in 2..40 {
                let pool = pairs((0..count).map(|n| format!("a{}/f{n}", n % 3)));
                let split = make(pool.clone(), &options(by_sequence));
                let all = [&split.train, &split.val, &split.left_out].map(|side| names(side)).concat_sets();
                assert_eq!(all, names(&pool));
                assert!(
                    !split.train.is_empty() && !split.val.is_empty(),
                    "{by_sequence:?} {count}: {}",
                    split.description
                );
                assert_eq!(split.train.len() + split.val.len() + split.left_out.len(), pool.len());
            }
        }
    }

    trait Concat {
        fn concat_sets(self) -> HashSet<String>;
    }

    impl<const N: usize> Concat for [HashSet<String>; N] {
        fn concat_sets(self) -> HashSet<String> {
            self.into_iter().flatten().collect()
        }
    }

    #[test]
    fn names_without_numbers_are_split_image_by_image() {
        let split = make(pairs(["dog", "cat", "cow", "owl", "elk"].map(String::from)), &options(BySequence::Auto));
        assert_eq!((split.train.len(), split.val.len()), (4, 1));
        assert!(split.description.contains("image by image"));
    }
}
