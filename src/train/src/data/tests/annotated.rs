//! Data sets with annotation files.

use super::*;
use crate::data::error::{RunLengthsError, ShapeError};
use crate::data::testing::png_bytes;

const WIDTH: usize = SIZE.0 as usize;

/// Returns the labels of an image by name, `[height, width]`.
fn labels(dataset: &Dataset, name: &str) -> Vec<u8> {
    let all = dataset.train.iter().chain(&dataset.val).chain(&dataset.test).chain(&dataset.left_out);
    let pair = all.into_iter().find(|pair| pair.name.ends_with(name)).unwrap_or_else(|| panic!("{name}"));
    dataset.read(pair).unwrap().labels.clone()
}

fn count(labels: &[u8], class: u8) -> usize {
    labels.iter().filter(|label| **label == class).count()
}

fn coco(images: &str, annotations: &str) -> String {
    format!(
        r#"{{"images": [{images}], "annotations": [{annotations}], "categories": [
            {{"id": 0, "name": "things", "supercategory": "none"}},
            {{"id": 7, "name": "disc", "supercategory": "things"}}, {{"id": 90, "name": "box", "supercategory": "things"}}]}}"#
    )
}

fn image(id: u32, name: &str) -> String {
    format!(r#"{{"id": {id}, "file_name": "{name}", "width": 16, "height": 12}}"#)
}

#[test]
fn coco_polygons_and_run_lengths() {
    let dir = tempfile::tempdir().unwrap();
    for (n, name) in ["a.png", "b.png", "c.png"].into_iter().enumerate() {
        noise_image(&dir.path().join("train").join(name), n as u64);
    }
    noise_image(&dir.path().join("valid/d.png"), 9);
    // A box of 4×3, a disc of 2×2 that covers its corner, a crowd in run lengths below both, and compressed run
    // lengths.
    let annotations = [
        r#"{"id": 1, "image_id": 1, "category_id": 90, "segmentation": [[2,1, 6,1, 6,4, 2,4]], "iscrowd": 0}"#,
        r#"{"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[5,3, 7,3, 7,5, 5,5]], "iscrowd": 0}"#,
        r#"{"id": 3, "image_id": 1, "category_id": 7, "segmentation": {"size": [12, 16], "counts": [0, 24, 168]},
            "iscrowd": 1}"#,
        // Column 1 from row 2 on, two pixels: 14 none, 2, 176 none.
        r#"{"id": 4, "image_id": 2, "category_id": 90, "segmentation": {"size": [12, 16], "counts": ">2`5"},
            "iscrowd": 0}"#,
    ];
    let text = coco(&[image(1, "a.png"), image(2, "b.png"), image(3, "c.png")].join(","), &annotations.join(","));
    write(&dir.path().join("train/_annotations.coco.json"), text);
    write(&dir.path().join("valid/_annotations.coco.json"), coco(&image(1, "d.png"), ""));
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, sizes(&dataset)), (Format::Coco, [3, 1, 0]));
    assert_eq!(names(&dataset), ["background", "disc", "box"]);
    let a = labels(&dataset, "a");
    assert_eq!((count(&a, 1), count(&a, 2)), (4 + 24, 11), "the disc covers one pixel of the box, the crowd none");
    assert_eq!((a[0], a[WIDTH + 2], a[3 * WIDTH + 5], a[WIDTH + 6]), (1, 2, 1, 0));
    let b = labels(&dataset, "b");
    assert_eq!((count(&b, 2), b[2 * WIDTH + 1], b[3 * WIDTH + 1]), (2, 2, 2));
    assert_eq!(count(&labels(&dataset, "c"), 0), 16 * 12, "nothing is annotated there");
    assert_eq!(count(&labels(&dataset, "d"), 0), 16 * 12);
}

#[test]
fn coco_merges_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..4 {
        noise_image(&dir.path().join(format!("images/p{n}.png")), n);
    }
    let json = dir.path().join("annotations/instances_default.json");
    let images: Vec<String> = (0..3).map(|n| image(n, &format!("p{n}.png"))).collect();
    let polygon = |category: u32| {
        format!(r#"{{"image_id": 0, "category_id": {category}, "segmentation": [[0,0, 4,0, 4,4, 0,4]]}}"#)
    };
    write(&json, coco(&images.join(","), &polygon(90)));
    let dataset = open(dir.path()).unwrap();
    assert_eq!(count(&labels(&dataset, "p0"), 2), 16);
    assert_eq!(dataset.unpaired.images, [dir.path().join("images/p3.png")]);
    let merges = dir.path().join("merges");
    write(&merges, "box=disc\n");
    let options = OpenOptions { classes: Some(merges.clone()), ..Default::default() };
    assert_eq!(names(&Dataset::open(dir.path(), &options).unwrap()), ["background", "disc"]);
    write(&merges, "a\nb\n");
    let error = Dataset::open(dir.path(), &options).unwrap_err();
    assert!(matches!(error, DataError::Dataset { problem: DatasetProblem::ClassesOfAnnotations, .. }), "{error}");

    let problem_of = |annotation: &str| {
        write(&json, coco(&images.join(","), annotation));
        problem(dir.path())
    };
    assert!(matches!(problem_of(&polygon(5)), DatasetProblem::UnknownCategory(5)));
    let unknown_image = r#"{"image_id": 8, "category_id": 7, "segmentation": [[0,0, 4,0, 4,4]]}"#;
    assert!(matches!(problem_of(unknown_image), DatasetProblem::UnknownImage(id) if id == "8"));
    let odd = r#"{"image_id": 0, "category_id": 7, "segmentation": [[0,0, 4,0, 4,4, 1]]}"#;
    assert!(matches!(problem_of(odd), DatasetProblem::Shape { source: ShapeError::PolygonNumbers(7), .. }));
    let short = r#"{"image_id": 0, "category_id": 7, "segmentation": {"size": [12, 16], "counts": [1, 2]}}"#;
    assert!(matches!(
        problem_of(short),
        DatasetProblem::Shape { source: ShapeError::RunLengths(RunLengthsError::Sum { sum: 3, .. }), .. }
    ));
    let boxes = r#"{"image_id": 0, "category_id": 7, "segmentation": [], "bbox": [1, 1, 2, 2]}"#;
    assert!(matches!(problem_of(boxes), DatasetProblem::OnlyBoxes(1)));
    write(&json, coco(&images.join(","), r#"{"image_id": 0, "segmentation": []}"#));
    assert!(matches!(line_error(dir.path()).2, LineError::Json { format: "COCO", .. }));
    write(&json, coco(r#"{"id": 0, "file_name": "p0.png", "width": 20, "height": 12}"#, &polygon(7)));
    let dataset = open(dir.path()).unwrap();
    assert!(matches!(dataset.read(&dataset.train[0]), Err(DataError::SizeMismatch { .. })));
}

#[test]
fn labelme_shapes() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        noise_image(&dir.path().join(format!("f{n}.png")), n);
    }
    let mask = png_bytes(2, 2, png::ColorType::Grayscale, png::BitDepth::Eight, None, &[255, 0, 255, 255]);
    let mask = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mask);
    let shapes = format!(
        r#"{{"label": "disc", "points": [[8, 6], [12, 6]], "shape_type": "circle"}},
           {{"label": "box", "points": [[14, 3], [10, 1]], "shape_type": "rectangle"}},
           {{"label": "mark", "points": [[1, 9], [2, 10]], "shape_type": "mask", "mask": "{mask}"}},
           {{"label": "disc", "points": [[0, 0], [9, 9]], "shape_type": "line"}},
           {{"label": "_background_", "points": [[7, 5], [9, 5], [9, 7], [7, 7]]}}"#
    );
    let file =
        |shapes: &str, name: &str| format!(r#"{{"version": "5.4.1", "shapes": [{shapes}], "imagePath": "{name}"}}"#);
    write(&dir.path().join("f0.json"), file(&shapes, "f0.png"));
    write(&dir.path().join("f1.json"), file("", "..\\\\old\\\\f1.png"));
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, names(&dataset)), (Format::Labelme, vec!["_background_", "box", "disc", "mark"]));
    let read = labels(&dataset, "f0");
    assert_eq!((count(&read, 1), count(&read, 3)), (4 * 2, 3));
    assert_eq!((read[6 * WIDTH + 11], read[6 * WIDTH + 8], read[9 * WIDTH + 1], read[9 * WIDTH + 2]), (2, 0, 3, 0));
    assert!((44..=48).contains(&count(&read, 2)), "a circle with radius 4 less a square of 2: {}", count(&read, 2));
    assert!(dataset.notes.iter().any(|note| note.contains("1 of 5 shapes are points or lines")), "{:?}", dataset.notes);
    assert_eq!(dataset.unpaired.images, [dir.path().join("f2.png")]);

    write(&dir.path().join("labels.txt"), "__ignore__\n_background_\ndisc\nbox\nmark\n");
    assert_eq!(names(&open(dir.path()).unwrap()), ["_background_", "disc", "box", "mark"]);
    write(&dir.path().join("labels.txt"), "_background_\ndisc\n");
    assert!(matches!(problem(dir.path()), DatasetProblem::UnknownLabel(label) if label == "box"));
    fs::remove_file(dir.path().join("labels.txt")).unwrap();
    write(&dir.path().join("f0.json"), file(r#"{"label": "disc", "points": [[1, 1]], "shape_type": "cuboid"}"#, ""));
    let error = open(dir.path()).unwrap_err();
    let DataError::Label { path, source: LabelError::Shape(ShapeError::Unsupported { kind, points: 1, .. }) } = &error
    else {
        panic!("{error}")
    };
    assert!(path.ends_with("f0.json") && kind == "cuboid", "{error}");
    write(&dir.path().join("f0.json"), file("", "f0.png"));
    assert!(matches!(problem(dir.path()), DatasetProblem::NoShapes(2)));
}

#[test]
fn yolo_polygons() {
    let dir = tempfile::tempdir().unwrap();
    for (n, part) in ["train", "train", "val"].into_iter().enumerate() {
        noise_image(&dir.path().join(format!("images/{part}/p{n}.png")), n as u64);
        write(&dir.path().join(format!("labels/{part}/p{n}.txt")), "1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n\n");
    }
    write(&dir.path().join("labels/val/p2.txt"), "");
    write(
        &dir.path().join("data.yaml"),
        "path: ../x\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: disc\n  1: box\n",
    );
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.format, sizes(&dataset)), (Format::Yolo, [2, 1, 0]));
    assert_eq!(names(&dataset), ["background", "disc", "box"]);
    let read = labels(&dataset, "p0");
    assert_eq!((count(&read, 2), read[3 * WIDTH + 4], read[5 * WIDTH + 7], read[6 * WIDTH + 4]), (4 * 3, 2, 2, 0));
    assert_eq!(count(&labels(&dataset, "p2"), 0), 16 * 12);

    write(&dir.path().join("data.yaml"), "names: [disc]\n");
    assert!(matches!(problem(dir.path()), DatasetProblem::TooFewNames { names: 1, highest: 1 }));
    write(&dir.path().join("data.yaml"), "names: ['disc', \"box\"]\n");
    write(&dir.path().join("labels/train/p1.txt"), "0 0.5 0.5 0.2 0.2\n");
    let (file, line, error) = line_error(dir.path());
    assert_eq!((file.as_str(), line), ("p1.txt", 1));
    assert!(matches!(error, LineError::Box { boxes: 1, .. }), "{error}");
    write(&dir.path().join("labels/train/p1.txt"), "0 10 10 20 10 20 20\n");
    assert!(matches!(line_error(dir.path()).2, LineError::Coordinate(10.0)));
}

#[test]
fn unsupported_annotations_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    noise_image(&dir.path().join("images/a.png"), 1);
    write(&dir.path().join("annotations.xml"), "<annotations/>");
    let problem = problem(dir.path());
    assert!(
        matches!(&problem, DatasetProblem::UnknownLayout { found, .. } if found.contains("annotations.xml")),
        "{problem}"
    );
}
