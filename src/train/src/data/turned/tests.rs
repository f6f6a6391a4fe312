use std::path::Path;

use super::super::testing::{block, jpeg, numbers, write};
use super::super::{Dataset, OpenOptions};
use super::*;

const SIDES: (usize, usize) = (48, 32);

/// A data set of `count` pictures that are stored with this orientation; labels as stored or as seen.
fn data(root: &Path, first: usize, count: usize, number: u8, labels: Says, sides: (usize, usize)) {
    let orientation = Orientation::of(&{
        let path = root.join("probe.jpg");
        jpeg(&path, &[0; 3 * 64], 8, 8, number);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        bytes
    });
    for seed in first..first + count {
        let (rgb, mask) = block(sides.0, sides.1, seed);
        jpeg(&root.join(format!("images/{seed:02}.jpg")), &rgb, sides.0, sides.1, number);
        let path = root.join(format!("masks/{seed:02}.png"));
        match labels {
            Says::Stored => numbers(&path, &mask, sides.0, sides.1),
            Says::Upright => {
                let (width, height) = orientation.size(sides.0, sides.1);
                numbers(&path, &orientation.turn(&mask, sides.0, sides.1), width, height);
            }
        }
    }
    write(&root.join("classes.txt"), "ground\nblock\n");
}

fn open(root: &Path) -> Dataset {
    Dataset::open(root, &OpenOptions::default()).unwrap()
}

/// The share of pixels whose label fits what the picture shows there.
fn fit(dataset: &Dataset) -> f64 {
    let (mut right, mut all) = (0, 0);
    for pair in dataset.train.iter().chain(&dataset.val).chain(&dataset.left_out) {
        let read = dataset.read(pair).unwrap();
        right += read.rgb.chunks_exact(3).zip(&read.labels).filter(|(c, label)| (c[0] > 130) == (**label == 1)).count();
        all += read.labels.len();
    }
    right as f64 / all as f64
}

#[test]
fn labels_fit_their_pictures_in_every_orientation() {
    for number in 2..=8 {
        for labels in [Says::Upright, Says::Stored] {
            // A square picture has no size that tells.
            for sides in [SIDES, (40, 40)] {
                let dir = tempfile::tempdir().unwrap();
                data(dir.path(), 0, 6, number, labels, sides);
                let dataset = open(dir.path());
                let fit = fit(&dataset);
                assert!(fit > 0.97, "orientation {number}, {labels:?}, {sides:?}: {fit}; {:?}", dataset.notes);
                let word =
                    if labels == Says::Stored { "as the pictures are stored" } else { "as the pictures are seen" };
                assert!(dataset.notes.iter().any(|note| note.contains(word)), "{:?}", dataset.notes);
            }
        }
    }
}

#[test]
fn sizes_of_some_tell_about_others_that_show_nothing() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), 0, 3, 6, Says::Stored, SIDES);
    for seed in 10..13 {
        // Nothing to be seen: the label's border is nowhere in the picture.
        jpeg(&dir.path().join(format!("images/{seed}.jpg")), &[90; 3 * 48 * 32], 48, 32, 3);
        numbers(&dir.path().join(format!("masks/{seed}.png")), &block(48, 32, seed).1, 48, 32);
    }
    let dataset = open(dir.path());
    assert_eq!(dataset.turned.len(), 6, "{:?}", dataset.notes);
    assert!(dataset.notes.iter().any(|note| note.contains("the sizes of 3 say so")), "{:?}", dataset.notes);
}

#[test]
fn what_cannot_be_known_is_refused_unless_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..5 {
        jpeg(&dir.path().join(format!("images/{seed}.jpg")), &[90; 3 * 48 * 32], 48, 32, 3);
        numbers(&dir.path().join(format!("masks/{seed}.png")), &block(48, 32, seed).1, 48, 32);
    }
    let error = Dataset::open(dir.path(), &OpenOptions::default()).unwrap_err().to_string();
    for part in ["5 pictures", "0.jpg: turned by 180°", "--label-orientation upright"] {
        assert!(error.contains(part), "{error}");
    }
    for (wanted, turned) in [(LabelOrientation::Upright, 0), (LabelOrientation::Stored, 5)] {
        let options = OpenOptions { label_orientation: wanted, ..OpenOptions::default() };
        assert_eq!(Dataset::open(dir.path(), &options).unwrap().turned.len(), turned);
    }
}

#[test]
fn a_verdict_needs_a_clear_leaning() {
    assert_eq!(verdict(&[]), None);
    assert_eq!(verdict(&[0.2]), None);
    assert_eq!(verdict(&[0.8]), Some(Says::Stored));
    assert_eq!(verdict(&[-0.8, 0.1]), None);
    assert_eq!(verdict(&[-0.3, -0.4, -0.2, -0.5, -0.3]), Some(Says::Upright));
    assert_eq!(verdict(&[-0.3, 0.4, -0.2, 0.5, -0.3]), None);
}
