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

/// The service writes collections with the same code as this test.
#[test]
fn only_accepted_frames_of_a_collection_are_used_for_training() {
    use maskcast::collect::record::{CollectedModel, FrameState, Reason};
    use maskcast::collect::store::{Collection, NewFrame};
    use maskcast::frame::{Label, Rgb};

    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::open(dir.path()).unwrap();
    // Two models with other numbers of the same classes. Black, and a colour that two classes have, are colours of classes.
    let first = [Label::new("background", Rgb(0, 0, 0)), Label::new("disc", Rgb(200, 0, 0))];
    let second =
        [Label::new("disc", Rgb(1, 2, 3)), Label::new("box", Rgb(200, 0, 0)), Label::new("background", Rgb(9, 9, 9))];
    let (width, height) = (SIZE.0 as usize, SIZE.1 as usize);
    let (rgb, _) = testing::block(width, height, 0);
    let image = dir.path().join("image.jpg");
    testing::jpeg(&image, &rgb, width, height, 1);
    let jpeg = fs::read(&image).unwrap();
    fs::remove_file(image).unwrap();
    let mut expected = Vec::new();
    for n in 0..6_usize {
        let labels: &[Label] = if n % 2 == 0 { &first } else { &second };
        let mask: Vec<u8> = (0..width * height).map(|at| ((at + n) % labels.len()) as u8).collect();
        let record = collection
            .add(&NewFrame {
                stream: "gate",
                captured: format!("2026-12-01T04:49:{:02}Z", 10 + n).parse().unwrap(),
                model: CollectedModel { name: "m".into(), sha256: String::new() },
                reason: Reason::Novel,
                uncertainty: 0.0,
                novelty: 1.0,
                confidence: None,
                width: width as u32,
                height: height as u32,
                hash: String::new(),
                thumbnail: Vec::new(),
                jpeg: &jpeg,
                mask: &mask,
                labels,
            })
            .unwrap();
        let class =
            |index: u8| ["background", "disc", "box"].iter().position(|name| *name == labels[usize::from(index)].name);
        let mut label: Vec<u8> = mask.iter().map(|&index| class(index).unwrap() as u8).collect();
        if n < 3 {
            label[0] = VOID;
            let png =
                maskcast::segment::golden::encode_png(&label, width as u32, height as u32, png::ColorType::Grayscale);
            collection.save_label(&record.id, &png.unwrap(), 0).unwrap();
            collection.set_state(&record.id, FrameState::Accepted, 1).unwrap();
            expected.push((record.id.to_string(), label));
        }
    }
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, names(&dataset)), (Format::Voc, vec!["background", "disc", "box"]));
    let used: Vec<&Pair> = dataset.train.iter().chain(&dataset.val).collect();
    assert_eq!((used.len(), dataset.left_out.len()), (3, 3));
    assert!(dataset.notes.iter().any(|note| note.contains("3 frames with proposed labels")), "{:?}", dataset.notes);
    for (id, label) in expected {
        let pair = used.iter().find(|pair| pair.image.to_string_lossy().contains(&id)).unwrap();
        assert_eq!(dataset.read_labels(pair).unwrap().2, label, "{id}");
    }
}
