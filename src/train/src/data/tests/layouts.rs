//! Data sets in the layouts of other programs.

use super::*;
use crate::data::testing::numbers;

#[test]
fn labelme_voc_export_uses_class_names() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        noise_image(&dir.path().join(format!("JPEGImages/f{n}.png")), n);
        indexed(&dir.path().join(format!("SegmentationClass/f{n}.png")), &[0, 1, 2], &[0, 0, 0, 128, 0, 0, 0, 128, 0]);
        write(&dir.path().join(format!("SegmentationClassVisualization/f{n}.jpg")), "");
    }
    // Without a class file, consecutive numbers do not identify VOC.
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, names(&dataset)), (Format::Voc, vec!["class0", "class1", "class2"]));
    for (name, place) in [("class_names.txt", ""), ("Class_Names.txt", ""), ("class_names.txt", "SegmentationClass")] {
        let path = dir.path().join(place).join(name);
        write(&path, "_background_\ndisc\nbox\n");
        let dataset = open(dir.path()).unwrap();
        assert_eq!((names(&dataset), stripes(&dataset, 3)), (vec!["_background_", "disc", "box"], vec![0, 1, 2]));
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_class_file_in_an_outer_folder_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        noise_image(&dir.path().join(format!("set/data/imgs/{n}.png")), n);
        gray(&dir.path().join(format!("set/data/masks/{n}.png")), &[0, 1]);
    }
    write(&dir.path().join("classes.txt"), "sky\nroad\n");
    assert_eq!(names(&open(dir.path()).unwrap()), ["sky", "road"]);
}

#[test]
fn roboflow_semantic_masks() {
    let dir = tempfile::tempdir().unwrap();
    for (n, part) in ["train", "train", "valid", "test"].into_iter().enumerate() {
        let path = dir.path().join(part).join(format!("f{n}_jpg.rf.0123abc"));
        let (rgb, mask) = testing::block(SIZE.0 as usize, SIZE.1 as usize, n);
        testing::jpeg(&path.with_extension("0123abc.jpg"), &rgb, SIZE.0 as usize, SIZE.1 as usize, 1);
        numbers(&path.with_extension("0123abc_mask.png"), &mask, SIZE.0 as usize, SIZE.1 as usize);
        write(&dir.path().join(part).join("_classes.csv"), "Pixel Value, Class\n0, background\n1, disc\n2, box\n");
    }
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, sizes(&dataset)), (Format::Plain, [2, 1, 1]));
    assert_eq!((names(&dataset), &dataset.unpaired), (vec!["background", "disc", "box"], &Unpaired::default()));
    let read = dataset.read(&dataset.train[0]).unwrap();
    assert_eq!(read.labels, testing::block(SIZE.0 as usize, SIZE.1 as usize, 0).1);
    write(&dir.path().join("valid/_classes.csv"), "Pixel Value, Class\n0, background\n1, box\n2, disc\n");
    let error = open(dir.path()).unwrap_err();
    let DataError::Dataset { path, problem: DatasetProblem::ClassFilesDiffer(_) } = &error else { panic!("{error}") };
    assert!(path.ends_with("valid/_classes.csv"), "{error}");
}

#[test]
fn openmmlab_folders() {
    let dir = tempfile::tempdir().unwrap();
    for (n, part) in ["train", "train", "val"].into_iter().enumerate() {
        noise_image(&dir.path().join(format!("img_dir/{part}/{n}.png")), n as u64);
        gray(&dir.path().join(format!("ann_dir/{part}/{n}.png")), &[0, 1, 255]);
    }
    write(&dir.path().join("classes.txt"), "ground\ndisc\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!((sizes(&dataset), stripes(&dataset, 3)), ([2, 1, 0], vec![0, 1, VOID]));
}

#[test]
fn extensions_may_be_in_any_case_and_double() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..2 {
        noise_image(&dir.path().join(format!("Images/{n}.PNG")), n);
        gray(&dir.path().join(format!("Masks/{n}.PNG.Png")), &[0, 1]);
    }
    let (rgb, _) = testing::block(SIZE.0 as usize, SIZE.1 as usize, 5);
    testing::jpeg(&dir.path().join("Images/2.JPG"), &rgb, SIZE.0 as usize, SIZE.1 as usize, 1);
    gray(&dir.path().join("Masks/2.JPG.png"), &[0, 1]);
    write(&dir.path().join("CLASSES.TXT"), "sky\nroad\n");
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.train.len() + dataset.val.len(), names(&dataset)), (3, vec!["sky", "road"]));
}
