//! Splits that a data set does not have of its own: by whole recordings, so that validation never sees a neighbour of a
//! training frame.

use std::collections::BTreeMap;

use clap::ValueEnum;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::hash::ALIKE;
use super::{Pair, hash, sequence};
use crate::random;

/// Whether frames of one recording stay on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BySequence {
    /// Where names count up and neighbours look alike
    #[default]
    Auto,
    /// Names decide alone
    Always,
    /// Each picture for itself
    Never,
}

/// How a split is made.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitOptions {
    /// Share of the pictures that validate, over 0 and under 1.
    pub val_share: f64,
    pub seed: u64,
    pub by_sequence: BySequence,
    /// Make a split even where the data set has one.
    pub resplit: bool,
}

impl Default for SplitOptions {
    fn default() -> Self {
        SplitOptions { val_share: 0.2, seed: 1, by_sequence: BySequence::Auto, resplit: false }
    }
}

/// Two sides.
#[derive(Clone, Debug, Default)]
pub struct Split {
    pub train: Vec<Pair>,
    pub val: Vec<Pair>,
    /// Between blocks of one recording: on neither side.
    pub left_out: Vec<Pair>,
    /// How it was made, for people.
    pub how: String,
}

/// Splits `pool`. Depends on the names, the pictures (with [`BySequence::Auto`]) and the options, not on the order.
pub fn make(mut pool: Vec<Pair>, options: &SplitOptions) -> Split {
    pool.sort_by(|a, b| a.name.cmp(&b.name));
    // Lists of a data set may have named a picture twice.
    pool.dedup_by(|a, b| a.name == b.name);
    let sequences = sequence::group(pool.clone());
    let by_sequence = match options.by_sequence {
        BySequence::Always => true,
        BySequence::Never => false,
        BySequence::Auto => sequences.len() < pool.len() && neighbours_alike(&sequences),
    };
    let count = pool.len();
    let mut split = if !by_sequence {
        each(pool, options)
    } else if let Some(split) = whole(&sequences, options) {
        split
    } else {
        blocks(sequences, options)
    };
    for side in [&mut split.train, &mut split.val, &mut split.left_out] {
        side.sort_by(|a, b| a.name.cmp(&b.name));
    }
    split.how = format!(
        "{count} pictures split {}: {} train, {} validate{}",
        split.how,
        split.train.len(),
        split.val.len(),
        if split.left_out.is_empty() { String::new() } else { format!(", {} left out", split.left_out.len()) }
    );
    split
}

/// Pictures that validate, out of `count`: at least one on each side where there are two.
fn goal(count: usize, share: f64) -> usize {
    ((count as f64 * share).round() as usize).clamp(1, count.saturating_sub(1).max(1))
}

/// Things in an order that depends on the seed and their names alone.
fn shuffled<T>(things: Vec<T>, seed: u64, name: impl Fn(&T) -> &str) -> Vec<T> {
    let mut keyed: Vec<(u64, T)> =
        things.into_iter().map(|thing| (random::named(seed, name(&thing)).random(), thing)).collect();
    keyed.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| name(left).cmp(name(right))));
    keyed.into_iter().map(|(_, thing)| thing).collect()
}

fn each(pool: Vec<Pair>, options: &SplitOptions) -> Split {
    let goal = goal(pool.len(), options.val_share);
    let mut val = shuffled(pool, options.seed, |pair| &pair.name);
    let train = val.split_off(goal);
    Split { train, val, left_out: Vec::new(), how: format!("picture by picture (seed {})", options.seed) }
}

/// Whole recordings; `None` where they are too few or too long to come near the wanted share.
fn whole(sequences: &BTreeMap<String, Vec<Pair>>, options: &SplitOptions) -> Option<Split> {
    let count: usize = sequences.values().map(Vec::len).sum();
    let goal = goal(count, options.val_share);
    let order = shuffled(sequences.iter().collect(), options.seed, |(key, _)| key);
    let mut split = Split::default();
    for (_, pairs) in order {
        let with = split.val.len() + pairs.len();
        let side = if with.abs_diff(goal) < split.val.len().abs_diff(goal) { &mut split.val } else { &mut split.train };
        side.extend(pairs.iter().cloned());
    }
    let val = split.val.len();
    let near = 2 * val >= goal && val <= 2 * goal && !split.train.is_empty();
    split.how = format!("by whole recordings ({} by name, seed {})", sequences.len(), options.seed);
    near.then_some(split)
}

/// Contiguous pieces of each recording, with a gap on both sides.
fn blocks(sequences: BTreeMap<String, Vec<Pair>>, options: &SplitOptions) -> Split {
    let mut split = Split::default();
    let recordings = sequences.len();
    for (key, pairs) in sequences {
        let count = pairs.len();
        if count < 2 {
            split.train.extend(pairs);
            continue;
        }
        let goal = goal(count, options.val_share);
        // Several blocks show more of the recording; each is long enough for the gaps to be cheap.
        let blocks = (goal / 10).clamp(1, 5);
        let gap = if count < 6 { 0 } else { (count / 100).clamp(1, 10) };
        let mut rng = random::named(options.seed, &key);
        let mut sides = vec![Side::Train; count];
        for block in 0..blocks {
            let (from, to) = (block * count / blocks, (block + 1) * count / blocks);
            let length = ((block + 1) * goal / blocks - block * goal / blocks).min(to - from);
            let start = from + rng.random_range(0..=(to - from - length));
            for side in &mut sides[start.saturating_sub(gap)..(start + length + gap).min(count)] {
                // The gap of one block may reach into the block before.
                if *side == Side::Train {
                    *side = Side::Neither;
                }
            }
            sides[start..start + length].fill(Side::Val);
        }
        for (pair, side) in pairs.into_iter().zip(sides) {
            match side {
                Side::Train => split.train.push(pair),
                Side::Val => split.val.push(pair),
                Side::Neither => split.left_out.push(pair),
            }
        }
    }
    let what = if recordings == 1 { "the one recording" } else { "each recording" };
    split.how = format!("by cutting {what} into blocks with gaps between (seed {})", options.seed);
    split
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Train,
    Val,
    Neither,
}

/// Whether pictures with consecutive numbers look more alike than others: frames of a video do, photos by one camera do
/// not. Looks into a few.
fn neighbours_alike(sequences: &BTreeMap<String, Vec<Pair>>) -> bool {
    const LOOKS: usize = 15;
    let long: Vec<&Vec<Pair>> = sequences.values().filter(|pairs| pairs.len() >= 2).collect();
    let all: Vec<&Pair> = long.iter().flat_map(|pairs| pairs.iter()).collect();
    let places: Vec<(usize, usize)> = long
        .iter()
        .enumerate()
        .flat_map(|(sequence, pairs)| (0..pairs.len() - 1).map(move |at| (sequence, at)))
        .collect();
    let (mut near, mut far) = (Vec::new(), Vec::new());
    let looks = LOOKS.min(places.len());
    for look in 0..looks {
        let (sequence, at) = places[look * places.len() / looks];
        let pairs = long[sequence];
        let Some(hash) = hash::of_file(&pairs[at].image) else { continue };
        near.extend(hash::of_file(&pairs[at + 1].image).map(|next| hash.distance(next)));
        let other = all[random::of(0, &[look as u64]).random_range(0..all.len())];
        far.extend(hash::of_file(&other.image).map(|other| hash.distance(other)));
    }
    near.sort_unstable();
    far.sort_unstable();
    match (near.get(near.len() / 2), far.get(far.len() / 2)) {
        // A fixed camera shows nearly the same all day: then all are alike, and names decide.
        (Some(&near), Some(&far)) => near <= ALIKE || 4 * near < 3 * far,
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
    fn recordings_stay_whole() {
        let pool = pairs((0..20).flat_map(|seq| (0..30).map(move |n| format!("s{seq}_{n:04}"))));
        let split = make(pool.clone(), &options(BySequence::Always));
        assert_eq!((split.train.len(), split.val.len()), (480, 120));
        let keys = |pairs: &[Pair]| pairs.iter().map(|pair| sequence::key(&pair.name).0).collect::<HashSet<_>>();
        assert!(keys(&split.train).is_disjoint(&keys(&split.val)));
        let reversed = make(pool.iter().rev().cloned().collect(), &options(BySequence::Always));
        assert_eq!(reversed.val, split.val);
        let other = make(pool, &SplitOptions { seed: 2, ..options(BySequence::Always) });
        assert_ne!(other.val, split.val);
        assert!(split.how.contains("20 by name"), "{}", split.how);
    }

    #[test]
    fn one_recording_is_cut_with_gaps() {
        let split = make(pairs((0..500).map(|n| format!("f{n:05}"))), &options(BySequence::Always));
        assert_eq!(split.val.len(), 100);
        assert!(!split.left_out.is_empty() && split.how.contains("blocks"), "{}", split.how);
        let number = |pair: &Pair| sequence::key(&pair.name).1;
        let val: Vec<u64> = split.val.iter().map(number).collect();
        for train in split.train.iter().map(number) {
            assert!(val.iter().all(|val| val.abs_diff(train) > 5), "{train}");
        }
        assert!(val.windows(2).filter(|pair| pair[1] - pair[0] > 1).count() < 5, "blocks, not single pictures");
    }

    #[test]
    fn two_long_recordings_are_cut_too() {
        let pool = pairs((0..2).flat_map(|seq| (0..100).map(move |n| format!("s{seq}_{n:04}"))));
        let split = make(pool, &SplitOptions { val_share: 0.1, ..options(BySequence::Always) });
        assert_eq!(split.val.len(), 20);
        assert!(split.how.contains("each recording"));
    }

    #[test]
    fn nothing_is_lost_and_both_sides_have_something() {
        for by_sequence in [BySequence::Auto, BySequence::Always, BySequence::Never] {
            for count in 2..40 {
                let pool = pairs((0..count).map(|n| format!("a{}/f{n}", n % 3)));
                let split = make(pool.clone(), &options(by_sequence));
                let all = [&split.train, &split.val, &split.left_out].map(|side| names(side)).concat_sets();
                assert_eq!(all, names(&pool));
                assert!(!split.train.is_empty() && !split.val.is_empty(), "{by_sequence:?} {count}: {}", split.how);
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
    fn names_without_numbers_are_split_picture_by_picture() {
        let split = make(pairs(["dog", "cat", "cow", "owl", "elk"].map(String::from)), &options(BySequence::Auto));
        assert_eq!((split.train.len(), split.val.len()), (4, 1));
        assert!(split.how.contains("picture by picture"));
    }
}
