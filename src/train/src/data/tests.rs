//! Opens and reads a small data set of each layout.

use std::fs;
use std::path::Path;

use maskcast::frame::{Label, Rgb};

use super::error::{ClassFileError, CodingError, LabelError, LabelImageError, LineError, OtherFile};
use super::testing::{SIZE, colored, gray, indexed, noise_image, write};
use super::*;

mod annotated;
mod layouts;

fn open(root: &Path) -> Result<Dataset, DataError> {
    Dataset::open(root, &OpenOptions::default())
}

/// The error of opening a data set, which must concern the data set as a whole.
fn problem(root: &Path) -> DatasetProblem {
    match open(root).unwrap_err() {
        DataError::Dataset { problem, .. } => problem,
        error => panic!("{error}"),
    }
}

/// The error of opening a data set, which must concern a line: file name, line number and problem.
fn line_error(root: &Path) -> (String, usize, LineError) {
    match open(root).unwrap_err() {
        DataError::Line { path, line, source } => {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), line, source)
        }
        error => panic!("{error}"),
    }
}

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.classes.iter().map(|label| label.name.as_str()).collect()
}

/// Returns the classes of the stripes of the first training image.
fn stripes(dataset: &Dataset, count: usize) -> Vec<u8> {
    let labelled = dataset.read(&dataset.train[0]).unwrap();
    assert_eq!((labelled.width, labelled.height), (SIZE.0 as usize, SIZE.1 as usize));
    assert_eq!(labelled.rgb.len(), 3 * labelled.labels.len());
    (0..count).map(|stripe| labelled.labels[stripe * labelled.width / count + 1]).collect()
}

fn sizes(dataset: &Dataset) -> [usize; 3] {
    Part::ALL.map(|part| dataset.part(part).len())
}

#[test]
fn camvid_in_segnets_layout() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, part) in ["train", "val", "test"].into_iter().enumerate() {
        noise_image(&dir.path().join(format!("{part}/0001_{seed}.png")), seed as u64);
        gray(&dir.path().join(format!("{part}annot/0001_{seed}.png")), &[0, 3, 11, 8]);
    }
    let dataset = open(dir.path()).unwrap();
    assert_eq!(dataset.format, Format::Camvid);
    assert_eq!(dataset.classes.len(), 11);
    assert_eq!(dataset.classes[8], Label::new("car", Rgb(64, 0, 128)));
    assert_eq!(stripes(&dataset, 4), [0, 3, VOID, 8]);
    assert_eq!(sizes(&dataset), [1, 1, 1]);
    assert_eq!(dataset.train[0].name, "train/0001_0");
    assert!(dataset.notes[0].contains("SegNet"), "{:?}", dataset.notes);
}

#[test]
fn camvid_by_lists_with_the_paths_of_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        noise_image(&dir.path().join(format!("pics/{seed}.png")), seed);
        gray(&dir.path().join(format!("marks/{seed}.png")), &[0, 1]);
    }
    let line = |n: u32| format!("/Somewhere/CamVid/pics/{n}.png /Somewhere/CamVid/marks/{n}.png\n");
    write(&dir.path().join("train.txt"), line(0) + &line(2));
    write(&dir.path().join("val.txt"), line(1));
    write(&dir.path().join("classes.txt"), "road\nsky\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!(sizes(&dataset), [2, 1, 0]);
    assert_eq!(names(&dataset), ["road", "sky"]);
    write(&dir.path().join("val.txt"), line(1) + &line(9));
    let (file, line, error) = line_error(dir.path());
    assert_eq!((file.as_str(), line), ("val.txt", 2));
    assert!(matches!(error, LineError::NoImage(_)), "{error}");
}

#[test]
fn original_camvid_with_colours() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        noise_image(&dir.path().join(format!("701_StillsRaw_full/Seq_f{seed}.png")), seed);
        colored(&dir.path().join(format!("LabeledApproved_full/Seq_f{seed}_L.png")), &[[64, 0, 128], [0, 0, 0]]);
    }
    let dataset = open(dir.path()).unwrap();
    assert_eq!(dataset.classes.len(), 31, "CamVid's own colours are known, and Void is void");
    let car = dataset.classes.iter().position(|label| label.name == "Car").unwrap() as u8;
    assert_eq!(stripes(&dataset, 2), [car, VOID]);
    write(&dir.path().join("label_colors.txt"), "64 0 128\tAuto\n0 0 0\tVoid\n9 9 9\tWall\n");
    assert_eq!(names(&open(dir.path()).unwrap()), ["Auto", "Wall"]);
}

#[test]
fn kaggle_camvid_with_a_csv() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, part) in ["train", "val"].into_iter().enumerate() {
        noise_image(&dir.path().join(format!("{part}/a{seed}.png")), seed as u64);
        colored(&dir.path().join(format!("{part}_labels/a{seed}_L.png")), &[[64, 0, 128], [0, 0, 0]]);
    }
    write(&dir.path().join("class_dict.csv"), "name,r,g,b\nCar,64,0,128\nSky,1,1,1\nVoid,0,0,0\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!((names(&dataset), stripes(&dataset, 2)), (vec!["Car", "Sky"], vec![0, VOID]));
}

#[test]
fn cvat_camvid_export() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for seed in 0..6 {
        noise_image(&dir.path().join(format!("default/frame_00000{seed}.png")), seed);
        list += &format!("/default/frame_00000{seed}.png ");
        if seed < 5 {
            colored(&dir.path().join(format!("defaultannot/frame_00000{seed}.png")), &[[0, 0, 0], [250, 50, 83]]);
            list += &format!("/defaultannot/frame_00000{seed}.png");
        }
        list += "\n";
    }
    write(&dir.path().join("default.txt"), list);
    write(&dir.path().join("label_colors.txt"), "0 0 0 background\n250 50 83 my person\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!(names(&dataset), ["background", "my person"]);
    assert_eq!(stripes(&dataset, 2), [0, 1]);
    assert_eq!(dataset.train.len() + dataset.val.len() + dataset.left_out.len(), 5);
    assert!(!dataset.val.is_empty());
    assert_eq!(dataset.unpaired.images.len(), 1, "a frame without annotations");
}

#[test]
fn cvat_segmentation_mask() {
    let dir = tempfile::tempdir().unwrap();
    let path = |text: &str| dir.path().join(text);
    for name in ["a", "sub/b", "c"] {
        noise_image(&path(&format!("JPEGImages/{name}.png")), name.len() as u64);
        colored(&path(&format!("SegmentationClass/{name}.png")), &[[0, 0, 0], [224, 224, 192], [250, 50, 83]]);
    }
    write(&path("labelmap.txt"), "# label:color_rgb:parts:actions\nbackground:0,0,0::\nperson:250,50,83::\n");
    write(&path("ImageSets/Segmentation/Train.txt"), "a\nsub/b\n");
    write(&path("ImageSets/Segmentation/Validation.txt"), "c\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, sizes(&dataset)), (Format::Voc, [2, 1, 0]));
    assert_eq!(stripes(&dataset, 3), [0, VOID, 1]);

    indexed(&path("SegmentationClass/a.png"), &[0, 1], &[0, 0, 0, 250, 50, 83]);
    assert_eq!(stripes(&open(dir.path()).unwrap(), 2), [0, 1]);
    for name in ["a", "sub/b", "c"] {
        gray(&path(&format!("SegmentationClass/{name}.png")), &[1, 0]);
    }
    assert_eq!(stripes(&open(dir.path()).unwrap(), 2), [1, 0]);

    write(&path("ImageSets/Segmentation/Train.txt"), "a\nzz\n");
    let (file, line, error) = line_error(dir.path());
    assert_eq!((file.as_str(), line), ("Train.txt", 2));
    assert!(matches!(&error, LineError::NoImageIn { image, .. } if image == "zz"), "{error}");
    fs::remove_dir_all(path("JPEGImages")).unwrap();
    assert!(matches!(problem(dir.path()), DatasetProblem::VocImages));
}

#[test]
fn cityscapes_by_ids_and_by_train_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = |text: &str| dir.path().join(text);
    for (seed, name) in ["train/aachen/aachen_000000_000019", "val/ulm/ulm_000000_000019"].into_iter().enumerate() {
        noise_image(&path(&format!("leftImg8bit/{name}_leftImg8bit.png")), seed as u64);
        gray(&path(&format!("gtFine/{name}_gtFine_labelIds.png")), &[7, 26, 3, 33]);
        gray(&path(&format!("gtFine/{name}_gtFine_instanceIds.png")), &[7, 26, 3, 33]);
        write(&path(&format!("gtFine/{name}_gtFine_polygons.json")), "{}");
    }
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, sizes(&dataset), dataset.classes.len()), (Format::Cityscapes, [1, 1, 0], 19));
    assert_eq!(stripes(&dataset, 4), [0, 13, VOID, 18]);
    assert_eq!(dataset.unpaired, Unpaired::default());
    for name in ["train/aachen/aachen_000000_000019", "val/ulm/ulm_000000_000019"] {
        gray(&path(&format!("gtFine/{name}_gtFine_labelTrainIds.png")), &[0, 13, 255, 18]);
    }
    assert_eq!(stripes(&open(dir.path()).unwrap(), 4), [0, 13, VOID, 18]);
}

#[test]
fn plain_folders_in_all_arrangements() {
    for (images, labels, sides) in [
        ("images", "masks", false),
        ("Images", "annotations", false),
        ("train/images", "train/labels", true),
        ("images/training", "annotations/training", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for name in ["dog", "cat", "cow"] {
            noise_image(&dir.path().join(images).join(format!("{name}.png")), 1);
            gray(&dir.path().join(labels).join(format!("{name}_mask.png")), &[0, 255]);
        }
        let dataset = open(dir.path()).unwrap();
        assert_eq!((dataset.format, names(&dataset)), (Format::Plain, vec!["background", "foreground"]));
        assert_eq!(stripes(&dataset, 2), [0, 1]);
        assert_eq!(sizes(&dataset), [2, 1, 0], "{images}: {:?}", dataset.notes);
        assert_eq!(sides, images.contains('/'));
    }
}

#[test]
fn plain_folders_with_lists_and_names_in_an_outer_folder() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("unpacked");
    for n in 0..4 {
        noise_image(&root.join(format!("images/{n}.png")), n);
        indexed(&root.join(format!("labels/{n}.png")), &[0, 1, 2], &[0, 0, 0, 1, 1, 1, 2, 2, 2]);
    }
    write(&root.join("train.txt"), "0\n1.png\n");
    write(&root.join("val.txt"), "images/2.png\n");
    write(&root.join("labels.txt"), "sky\nignore\nroad\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!(dataset.root, root);
    assert_eq!(sizes(&dataset), [2, 1, 0]);
    assert_eq!((names(&dataset), stripes(&dataset, 3)), (vec!["sky", "road"], vec![0, VOID, 1]));
}

#[test]
fn classes_void_and_merges_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        noise_image(&dir.path().join(format!("images/{n}.png")), n);
        gray(&dir.path().join(format!("masks/{n}.png")), &[0, 1, 2, 3]);
    }
    let file = dir.path().join("my classes");
    write(&file, "sky\ncar\ntruck\nroad\ntruck=car\n");
    let options = OpenOptions { classes: Some(file.clone()), void: Some(vec!["sky".into()]), ..Default::default() };
    let dataset = Dataset::open(dir.path(), &options).unwrap();
    assert_eq!((names(&dataset), stripes(&dataset, 4)), (vec!["car", "road"], vec![VOID, 0, 0, 1]));
    write(&file, "sky\ncar\n3 truck\n");
    let error = Dataset::open(dir.path(), &options).unwrap_err();
    let DataError::Line { path, line: 1, source: LineError::ClassFile(ClassFileError::MissingNumber) } = &error else {
        panic!("{error}")
    };
    assert_eq!(*path, file);
}

#[test]
fn masks_of_0_and_255_with_three_classes_need_a_larger_sample() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..40 {
        noise_image(&dir.path().join(format!("images/{n}.png")), n);
        gray(&dir.path().join(format!("masks/{n}.png")), &[0, 255]);
    }
    write(&dir.path().join("classes.txt"), "background\nperson\ncar\n");
    let error = open(dir.path()).unwrap_err();
    let DataError::Dataset { path, problem: DatasetProblem::Coding(coding) } = &error else { panic!("{error}") };
    assert!(path.ends_with("classes.txt"), "{error}");
    assert!(matches!(coding, CodingError::OnlyZeroAndVoid { files: 40, .. }), "{error}");
    // A class in few images is found in a larger sample.
    gray(&dir.path().join("masks/39.png"), &[0, 2, 255]);
    assert_eq!(names(&open(dir.path()).unwrap()), ["background", "person", "car"]);
    gray(&dir.path().join("masks/39.png"), &[0, 255]);
    write(&dir.path().join("classes.txt"), "background\nperson\n");
    assert_eq!(stripes(&open(dir.path()).unwrap(), 2), [0, 1]);
}

#[test]
fn names_in_nfd_are_paired_with_names_in_nfc() {
    let dir = tempfile::tempdir().unwrap();
    for (n, (image, label)) in [("\u{e4} \u{f6}", "a\u{308} o\u{308}"), ("u\u{308}", "\u{fc}")].iter().enumerate() {
        noise_image(&dir.path().join(format!("images/{image}.png")), n as u64);
        gray(&dir.path().join(format!("masks/{label}.png")), &[0, 1]);
    }
    write(&dir.path().join("train.txt"), "a\u{308} o\u{308}\n");
    write(&dir.path().join("val.txt"), "\u{fc}\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!((sizes(&dataset), &dataset.unpaired), ([1, 1, 0], &Unpaired::default()));
    assert_eq!(dataset.train[0].name, "images/\u{e4} \u{f6}");
    assert_eq!(stripes(&dataset, 2), [0, 1]);
}

#[test]
fn a_split_can_be_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..30 {
        noise_image(&dir.path().join(format!("images/f{n}.png")), n);
        gray(&dir.path().join(format!("masks/f{n}.png")), &[0, 1]);
    }
    let made = open(dir.path()).unwrap();
    let lists = dir.path().join("split");
    made.write_lists(&lists).unwrap();
    let options = OpenOptions { lists: Some(lists.clone()), ..Default::default() };
    let read = Dataset::open(dir.path(), &options).unwrap();
    assert_eq!((read.train, read.val), (made.train, made.val));
    fs::remove_file(lists.join("val.txt")).unwrap();
    let error = Dataset::open(dir.path(), &options).unwrap_err();
    assert!(matches!(error, DataError::Dataset { problem: DatasetProblem::ListMissing("val.txt"), .. }), "{error}");
}

#[test]
fn the_data_sets_own_split_can_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for (n, part) in ["train", "train", "train", "val"].into_iter().enumerate() {
        noise_image(&dir.path().join(format!("{part}/images/p{n}.png")), n as u64);
        gray(&dir.path().join(format!("{part}/masks/p{n}.png")), &[0, 1]);
    }
    let split = SplitOptions { resplit: true, val_share: 0.5, by_sequence: BySequence::Never, ..Default::default() };
    let dataset = Dataset::open(dir.path(), &OpenOptions { split, ..Default::default() }).unwrap();
    assert_eq!(sizes(&dataset), [2, 2, 0]);
}

#[test]
fn a_folder_that_is_not_a_data_set_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(problem(&dir.path().join("nothing")), DatasetProblem::NotFound));
    write(&dir.path().join("data.zip"), "PK");
    assert!(matches!(problem(&dir.path().join("data.zip")), DatasetProblem::Archive));
    assert!(matches!(problem(dir.path()), DatasetProblem::UnknownLayout { wanted: None, .. }));
}

#[test]
fn labels_that_do_not_fit_their_images_are_errors_with_their_path() {
    let dir = tempfile::tempdir().unwrap();

    noise_image(&dir.path().join("images/a.png"), 1);
    gray(&dir.path().join("masks/b.png"), &[0, 1]);
    assert!(matches!(problem(dir.path()), DatasetProblem::NoPairs { images: 1, labels: 1, .. }));

    gray(&dir.path().join("masks/a.png"), &[0, 1]);
    let dataset = open(dir.path()).unwrap();
    gray(&dir.path().join("masks/a.png"), &[0, 7]);
    let error = dataset.read(&dataset.train[0]).unwrap_err();
    assert!(matches!(error, DataError::UnknownValue { value: PixelValue::Index(7), x: 8, y: 0, .. }), "{error}");
    write(
        &dir.path().join("masks/a.png"),
        testing::png_bytes(3, 2, png::ColorType::Grayscale, png::BitDepth::Eight, None, &[0; 6]),
    );
    let error = dataset.read(&dataset.train[0]).unwrap_err();
    assert!(matches!(error, DataError::SizeMismatch { image_size: (16, 12), label_size: (3, 2), .. }), "{error}");
    write(&dir.path().join("masks/a.png"), "text");
    for error in [dataset.read(&dataset.train[0]).unwrap_err(), open(dir.path()).unwrap_err()] {
        let DataError::Label { path, source: LabelError::Image(LabelImageError::OtherFormat(OtherFile::Unknown)) } =
            &error
        else {
            panic!("{error}")
        };
        assert!(path.ends_with("masks/a.png"), "{error}");
    }
}
