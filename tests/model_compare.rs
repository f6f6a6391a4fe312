//! `maskcast model compare`: two models whose masks are known, on images with painted classes.

mod common;

use std::path::{Path, PathBuf};

use common::clip::{BLUE, GREEN, Patch, RED, ffmpeg, moving, paint};
use common::onnx;
use common::program::{Ended, maskcast, run};
use common::schema::assert_valid;
use maskcast::commands::schema::MessageKind;
use serde_json::Value;

/// Class of [`Patch::color`] in `labelmap.txt`.
const CLASSES: [(&str, &str, [u8; 3]); 3] =
    [("red", RED, [255, 0, 0]), ("green", GREEN, [0, 255, 0]), ("blue", BLUE, [0, 0, 255])];

const SIZE: (usize, usize) = (128, 72);

/// A collection with `count` accepted images: areas of the three colours, the border between them at another place in each. The
/// labels are those of the colours.
fn collection(folder: &Path, count: usize) -> PathBuf {
    let root = folder.join("yard");
    for inner in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
        std::fs::create_dir_all(root.join(inner)).unwrap();
    }
    let (width, height) = SIZE;
    let mut accepted = String::new();
    for n in 0..count {
        let (x, y) = (32 + n % 8 * 8, 24 + n % 4 * 8);
        let patches = [(0, 0, RED), (x, 0, GREEN), (x, y, BLUE)].map(|(left, top, color)| Patch {
            left,
            top,
            width: width - left,
            height: height - top,
            color,
        });
        let name = format!("20261201T0449{n:02}123Z");
        let clip = folder.join("image.mkv");
        paint(&clip, SIZE, 1, &patches);
        let image = root.join(format!("JPEGImages/{name}.jpg"));
        ffmpeg(&["-i", clip.to_str().unwrap(), "-q:v", "2", "-frames:v", "1", image.to_str().unwrap()]);
        let class = |(column, row): (usize, usize)| match (column < x, row < y) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let values: Vec<u8> = (0..width * height).map(|at| class((at % width, at / width))).collect();
        write_label(&root.join(format!("SegmentationClass/{name}.png")), &values);
        accepted += &format!("{name}\n");
    }
    std::fs::write(root.join("ImageSets/Segmentation/accepted.txt"), accepted).unwrap();
    let map: String = CLASSES.iter().map(|(name, _, [r, g, b])| format!("{name}:{r},{g},{b}::\n")).collect();
    std::fs::write(root.join("labelmap.txt"), format!("# label:color_rgb:parts:actions\n{map}")).unwrap();
    root
}

fn write_label(path: &Path, values: &[u8]) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), SIZE.0 as u32, SIZE.1 as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    let mut palette: Vec<u8> = CLASSES.iter().flat_map(|(_, _, color)| *color).collect();
    palette.resize(768, 0);
    encoder.set_palette(palette);
    encoder.write_header().unwrap().write_image_data(values).unwrap();
}

/// Writes `right.onnx`, whose mask is the strongest channel, `wrong.onnx`, which mixes up green and blue, and `more.onnx`, which calls
/// blue "water" and red "Red".
fn models(folder: &Path) {
    let label = |name: &str, color: [u8; 3]| serde_json::json!({ "name": name, "color": color });
    let save = |file: &str, names: [&str; 3]| {
        let labels: Vec<Value> = names.iter().zip(CLASSES).map(|(name, (_, _, color))| label(name, color)).collect();
        let labels = serde_json::to_string(&labels).unwrap();
        onnx::save(&onnx::labelled(64, 36, &labels, &[]), &folder.join(file));
    };
    save("right.onnx", ["red", "green", "blue"]);
    save("wrong.onnx", ["red", "blue", "green"]);
    save("more.onnx", ["Red", "green", "water"]);
}

fn compare(folder: &Path, old: &str, new: &str, more: &[&str]) -> Ended {
    let arguments = ["model", "compare", old, new, "--data", "yard", "--providers", "cpu", "--threads", "1"];
    run(maskcast().current_dir(folder).args(arguments).args(more))
}

fn report(folder: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(folder.join(name).join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_better_and_a_worse_model_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    collection(folder.path(), 12);
    models(folder.path());
    moving(&folder.path().join("clip.mp4"), (128, 72), 10, 10);
    let ended = compare(folder.path(), "wrong.onnx", "right.onnx", &["--clip", "clip.mp4", "--require", "better"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let last = ended.text().lines().last().unwrap().to_owned();
    assert!(last.starts_with("better: mIoU "), "{last}");
    let report = report(folder.path(), "right.compare");
    assert_valid(MessageKind::Comparison, &report);
    assert_eq!((report["verdict"].as_str(), report["data"]["images"].as_u64()), (Some("better"), Some(12)));
    // Colours are mixed in JPEG and in the scaling at the borders only.
    assert!(report["new"]["miou"].as_f64().unwrap() > 0.95, "{report}");
    let classes = report["classes"].as_array().unwrap();
    let iou = |name: &str, key: &str| {
        classes.iter().find(|class| class["name"] == name).unwrap()[key].as_f64().unwrap_or(-1.0)
    };
    assert!(iou("red", "old_iou") > 0.95 && iou("green", "old_iou") < 0.05 && iou("green", "new_iou") > 0.95);
    assert!(report["difference"]["low"].as_f64().unwrap() > 0.3, "{report}");
    let flicker = report["flicker"]["smooth"].as_array().unwrap();
    assert_eq!((flicker.len(), report["flicker"]["masks"].as_u64()), (4, Some(10)));
    assert!(report["speed"]["runs"].as_u64().unwrap() >= 30);
    let html = std::fs::read_to_string(folder.path().join("right.compare/report.html")).unwrap();
    assert!(html.contains("Largest gains") && !html.contains("Largest losses"), "no image is worse");
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
    assert_eq!(html.matches("<article").count(), 4);

    let ended = compare(folder.path(), "right.onnx", "wrong.onnx", &["--require", "not-worse", "-o", "report"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.text().lines().last().unwrap().starts_with("worse: "), "{}", ended.text());
    assert!(ended.stderr.contains("the new model is worse, which --require forbids"), "{}", ended.stderr);
    assert_eq!(self::report(folder.path(), "report")["verdict"], "worse");
}

#[test]
fn a_few_images_and_equal_models_make_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    collection(folder.path(), 3);
    models(folder.path());
    let ended = compare(folder.path(), "wrong.onnx", "right.onnx", &["--require", "not-worse"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let last = ended.text().lines().last().unwrap().to_owned();
    assert!(last.starts_with("not distinguishable: ") && last.ends_with("needs at least 6 images"), "{last}");
    let ended = compare(folder.path(), "right.onnx", "right.onnx", &["--require", "better"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.text().contains("not distinguishable: mIoU"), "{}", ended.text());
}

#[test]
fn added_and_dropped_classes_are_shown_and_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = collection(folder.path(), 8);
    models(folder.path());
    let ended = compare(folder.path(), "right.onnx", "more.onnx", &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report = report(folder.path(), "more.compare");
    let class = |name: &str| {
        let classes = report["classes"].as_array().unwrap();
        classes.iter().find(|class| class["name"] == name).unwrap().clone()
    };
    let known = |name: &str| ["in_data", "in_old", "in_new"].map(|key| class(name)[key].as_bool().unwrap());
    assert_eq!(known("red"), [true, true, true]);
    assert_eq!(known("blue"), [true, true, false]);
    assert_eq!(known("water"), [false, false, true]);
    // What the new model calls water is wrong where the label is blue.
    assert_eq!(class("blue")["new_iou"], 0.0);
    let (all, common) = (report["new"]["miou"].as_f64().unwrap(), report["new"]["miou_common"].as_f64().unwrap());
    assert!(all < 0.7 && common > 0.95, "{all} {common}");

    std::fs::remove_file(root.join("labelmap.txt")).unwrap();
    let ended = compare(folder.path(), "right.onnx", "more.onnx", &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("convert it with `maskcast-train data export --format cvat`"), "{}", ended.stderr);
}
