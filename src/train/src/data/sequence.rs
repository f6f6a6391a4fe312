//! Which pictures are frames of one recording: told by folder and name.

use std::collections::BTreeMap;

use super::Pair;
use super::format::Role;

/// Folder and name without the frame number, and the number. A name without a number is a sequence of its own. Folders that
/// say what a part is for (`train`, `val`) are left out: a recording may be in both.
pub fn key(name: &str) -> (String, u64) {
    let folders: Vec<&str> = name.split('/').filter(|folder| Role::of(folder) == Role::Open).collect();
    let name = folders.join("/");
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let file = &name[start..];
    let Some(end) = file.rfind(|c: char| c.is_ascii_digit()).map(|at| at + 1) else {
        return (name, 0);
    };
    let begin = file[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + file[at..].chars().next().map_or(1, char::len_utf8));
    match file[begin..end].parse() {
        // `*` stands for the number; no file name has both a `*` and a need to be told apart from this.
        Ok(number) => (format!("{}{}*{}", &name[..start], &file[..begin], &file[end..]), number),
        Err(_) => (name, 0),
    }
}

/// Pairs by sequence, each in the order of its frames.
pub fn group(pairs: Vec<Pair>) -> BTreeMap<String, Vec<Pair>> {
    let mut numbered = BTreeMap::<String, Vec<(u64, Pair)>>::new();
    for pair in pairs {
        let (key, number) = key(&pair.name);
        numbered.entry(key).or_default().push((number, pair));
    }
    let ordered = |mut pairs: Vec<(u64, Pair)>| {
        pairs.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.name.cmp(&right.name)));
        pairs.into_iter().map(|(_, pair)| pair).collect()
    };
    numbered.into_iter().map(|(key, pairs)| (key, ordered(pairs))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_a_name_counts_frames() {
        assert_eq!(key("train/0001TP_006690"), ("0001TP_*".into(), 6690));
        assert_eq!(key("day/0001TP_006690"), ("day/0001TP_*".into(), 6690));
        assert_eq!(key("Seq05VD_f02220"), ("Seq05VD_f*".into(), 2220));
        assert_eq!(key("a/aachen_000003_000019_leftImg8bit"), ("a/aachen_000003_000019_leftImg*bit".into(), 8));
        assert_eq!(key("a1/frame"), ("a1/frame".into(), 0));
        assert_eq!(key("größe7"), ("größe*".into(), 7));
        assert_eq!(key("0042"), ("*".into(), 42));
        assert_eq!(key("x99999999999999999999999999").1, 0);
    }
}
