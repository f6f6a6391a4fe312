use std::path::Path;

use super::super::testing::{block, jpeg, numbers, write};
use super::super::{DataError, Dataset, OpenOptions};
use super::*;

const SIDES: (usize, usize) = (48, 32);

/// Writes a data set of `count` images with EXIF orientation `number`; labels as stored or as displayed.
fn data(root: &Path, first: usize, count: usize, number: u8, labels: DetectedOrientation, sides: (usize, usize)) {
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
            DetectedOrientation::Stored => numbers(&path, &mask, sides.0, sides.1),
            DetectedOrientation::Upright => {
                let (width, height) = orientation.size(sides.0, sides.1);
                numbers(&path, &orientation.apply(&mask, sides.0, sides.1), width, height);
            }
        }
    }
    write(&root.join("classes.txt"), "ground\nblock\n");
}

fn open(root: &Path) -> Dataset {
    Dataset::open(root, &OpenOptions::default()).unwrap()
}

/// The share of pixels whose label matches the image.
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
fn labels_fit_their_images_in_every_orientation() {
    for number in 2..=8 {
        for labels in [DetectedOrientation::Upright, DetectedOrientation::Stored] {
            // The size of a square image does not decide.
            for sides in [SIDES, (40, 40)] {
                let dir = tempfile::tempdir().unwrap();
                data(dir.path(), 0, 6, number, labels, sides);
                let dataset = open(dir.path());
                let fit = fit(&dataset);
                assert!(fit > 0.97, "orientation {number}, {labels:?}, {sides:?}: {fit}; {:?}", dataset.notes);
                let word = if labels == DetectedOrientation::Stored {
                    "as the images are stored"
                } else {
                    "as the images are displayed"
                };
                assert!(dataset.notes.iter().any(|note| note.contains(word)), "{:?}", dataset.notes);
            }
        }
    }
}

#[test]
fn sizes_of_some_images_decide_for_images_without_contrast() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), 0, 3, 6, DetectedOrientation::Stored, SIDES);
    for seed in 10..13 {
        // A uniform image: it has no edge at the label's border.
        jpeg(&dir.path().join(format!("images/{seed}.jpg")), &[90; 3 * 48 * 32], 48, 32, 3);
        numbers(&dir.path().join(format!("masks/{seed}.png")), &block(48, 32, seed).1, 48, 32);
    }
    let dataset = open(dir.path());
    assert_eq!(dataset.rotations.len(), 6, "{:?}", dataset.notes);
    assert!(
        dataset.notes.iter().any(|note| note.contains("3 sizes match only in this orientation")),
        "{:?}",
        dataset.notes
    );
}

#[test]
fn an_undecidable_orientation_is_an_error_unless_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..5 {
        jpeg(&dir.path().join(format!("images/{seed}.jpg")), &[90; 3 * 48 * 32], 48, 32, 3);
        numbers(&dir.path().join(format!("masks/{seed}.png")), &block(48, 32, seed).1, 48, 32);
    }
    let error = Dataset::open(dir.path(), &OpenOptions::default()).unwrap_err();
    let DataError::Dataset { problem: DatasetProblem::LabelOrientation { count, first, orientation }, .. } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((*count, orientation.as_str()), (5, "rotated by 180°"));
    assert!(first.ends_with("0.jpg"), "{error}");
    for (wanted, rotated) in [(LabelOrientation::Upright, 0), (LabelOrientation::Stored, 5)] {
        let options = OpenOptions { label_orientation: wanted, ..OpenOptions::default() };
        assert_eq!(Dataset::open(dir.path(), &options).unwrap().rotations.len(), rotated);
    }
}

#[test]
fn an_orientation_is_decided_only_by_clear_scores() {
    assert_eq!(decide(&[]), None);
    assert_eq!(decide(&[0.2]), None);
    assert_eq!(decide(&[0.8]), Some(DetectedOrientation::Stored));
    assert_eq!(decide(&[-0.8, 0.1]), None);
    assert_eq!(decide(&[-0.3, -0.4, -0.2, -0.5, -0.3]), Some(DetectedOrientation::Upright));
    assert_eq!(decide(&[-0.3, 0.4, -0.2, 0.5, -0.3]), None);
}
