//! Detects frames of one recording from folder and file name.

use std::collections::BTreeMap;

use super::Pair;
use super::format::SubsetRole;

/// Returns the recording (folder and name without the frame number) and the frame number. A name without a number is
/// its own recording. Folders that name a part (`train`, `val`) are ignored, as a recording may be in several parts.
pub fn key(name: &str) -> (String, u64) {
    let folders: Vec<&str> =
        name.split('/').filter(|folder| SubsetRole::of(folder) == SubsetRole::Unspecified).collect();
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
        // `*` replaces the number; file names rarely contain it.
        Ok(number) => (format!("{}{}*{}", &name[..start], &file[..begin], &file[end..]), number),
        Err(_) => (name, 0),
    }
}

/// Groups pairs by recording, each sorted by frame number.
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
    fn the_last_number_of_a_name_is_the_frame_number() {
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
