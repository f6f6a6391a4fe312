//! `maskcast-train data export` and `import`: the masks of a data set are compared pixel by pixel after they were read and written
//! by the libraries of the annotation programs: Datumaro (CVAT), pycocotools, and Label Studio's converter.

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::program::{Ended, run};
use maskcast::collect::record::{CollectedModel, FrameState, Reason};
use maskcast::collect::store::{Collection, NewFrame};
use maskcast::frame::{Label, Rgb};
use maskcast::segment::golden::encode_png;
use maskcast_train::data::{Dataset, OpenOptions};
use maskcast_train::label::read_mask;
use opencv::core::{Mat, Vec3b, Vector};
use opencv::imgcodecs::imencode_def;
use tempfile::TempDir;

const VOID: u8 = 255;
/// With spaces, characters of XML and other scripts, and a name that another one begins with.
const NAMES: [&str; 8] = ["road", "traffic light", "größe <&> \"x\"", "道路", "car", "car park", "sky", "zebra"];

/// A command of `maskcast-train data`.
fn data(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maskcast-train"));
    command.env_remove("MASKCAST_LOG").arg("data").args(arguments);
    command
}

fn ok(command: &mut Command) -> Ended {
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
    ended
}

fn failed(command: &mut Command, code: i32, words: &[&str]) {
    let ended = run(command);
    assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is not in: {}", ended.stderr);
    }
}

/// The Python with the libraries of `requirements.txt`.
fn python() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools");
    let found = std::fs::read_dir(tools).into_iter().flatten().flatten();
    let python = |folder: std::fs::DirEntry| {
        let is_it = folder.file_name().to_string_lossy().starts_with("datumaro-");
        Some(folder.path().join("bin/python")).filter(|path| is_it && path.exists())
    };
    found.filter_map(python).next().expect("Datumaro is not installed: run `make setup-test`")
}

/// Masks by path without extension.
type Masks = BTreeMap<String, (usize, usize, Vec<u8>)>;

struct Scene {
    dir: TempDir,
    masks: Masks,
}

impl Scene {
    /// A data set with these classes. With `parts`, it has its own lists.
    fn new(names: &[&str], parts: bool) -> Self {
        let scene = Scene { dir: tempfile::tempdir().unwrap(), masks: masks(names.len()) };
        for (seed, (stem, (width, height, mask))) in scene.masks.iter().enumerate() {
            let rgb: Vec<u8> = (0..width * height * 3).map(|at| ((at * (seed * 2 + 7)) >> 3) as u8).collect();
            png(&scene.path(&format!("set/images/{stem}.png")), &rgb, *width, *height, png::ColorType::Rgb);
            png(&scene.path(&format!("set/masks/{stem}.png")), mask, *width, *height, png::ColorType::Grayscale);
        }
        let classes: Vec<_> = names
            .iter()
            .enumerate()
            // The colours of the first classes are black and equal in all but one value.
            .map(|(id, name)| serde_json::json!({ "id": id, "name": name, "color": [id % 256, 0, 0] }))
            .collect();
        write(&scene.path("set/classes.json"), &serde_json::to_string(&classes).unwrap());
        write(&scene.path("set/names.json"), &serde_json::to_string(names).unwrap());
        if parts {
            let list = |wanted: usize| -> String {
                let chosen = scene.masks.keys().enumerate().filter(|(at, _)| at % 3 == wanted);
                chosen.map(|(_, stem)| format!("\"images/{stem}\"\n")).collect()
            };
            for (wanted, part) in ["train", "val", "test"].into_iter().enumerate() {
                write(&scene.path(&format!("set/{part}.txt")), &list(wanted));
            }
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn export(&self, format: &str, to: &str) -> Command {
        data(&["export", &self.text("set"), "--format", format, "-o", &self.text(to)])
    }

    fn import(&self, format: &str, from: &str, to: &str, more: &[&str]) -> Command {
        let mut command = data(&["import", &self.text(from), "--format", format, "-o", &self.text(to)]);
        command.args(more);
        command
    }

    /// Compares the export with the data set, and writes it to `back`, by the libraries of the program.
    fn by_tools(&self, format: &str, from: &str, back: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exchange/tools.py");
        let mut command = Command::new(python());
        command.args([script, format, &self.text("set"), &self.text(from), &self.text(back)]);
        let ended = ok(&mut command);
        let output = String::from_utf8_lossy(&ended.stdout);
        assert!(output.contains(&format!("{} masks, ", self.masks.len())), "{output}");
    }

    /// Checks that an imported data set has the masks, the images and the classes of this one.
    fn assert_same(&self, folder: &str, but: &[&str]) {
        let masks = self.masks.iter().filter(|(stem, _)| !but.contains(&stem.as_str()));
        let mut count = 0;
        for (stem, mask) in masks {
            let read = read_mask(&self.path(&format!("{folder}/masks/{stem}.png")));
            assert!(read.as_ref() == Some(mask), "{folder}: the mask of {stem} differs");
            let image = |of: &str| std::fs::read(self.path(&format!("{of}/images/{stem}.png"))).unwrap();
            assert!(image("set") == image(folder), "{folder}: the image of {stem} differs");
            count += 1;
        }
        let open = |of: &str| Dataset::open(&self.path(of), &OpenOptions::default()).unwrap();
        let (set, imported) = (open("set"), open(folder));
        let names = |of: &Dataset| of.classes.iter().map(|label| label.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&imported), names(&set));
        let all = [&imported.train, &imported.val, &imported.test, &imported.left_out];
        assert_eq!(all.iter().map(|part| part.len()).sum::<usize>(), count, "{folder}");
        assert_eq!(imported.split_here, set.split_here, "{folder}");
        if !set.split_here {
            let stems = |pairs: &[maskcast_train::data::Pair]| -> Vec<String> {
                let kept = pairs.iter().filter(|pair| !but.iter().any(|stem| pair.name == format!("images/{stem}")));
                let mut names: Vec<String> = kept.map(|pair| pair.name.clone()).collect();
                names.sort();
                names
            };
            assert_eq!(
                [&set.train, &set.val, &set.test].map(|part| stems(part)),
                [&imported.train, &imported.val, &imported.test].map(|part| stems(part))
            );
        }
    }
}

/// Masks of odd sizes: noise, single pixels, one class, all void, long runs.
fn masks(classes: usize) -> Masks {
    let last = classes - 1;
    let mut state = 12_345u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize
    };
    let mut masks = Masks::new();
    let mut add = |stem: &str, width: usize, height: usize, label: &mut dyn FnMut(usize, usize) -> usize| {
        let labels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| label(x, y).min(255) as u8);
        let labels = labels.collect();
        masks.insert(stem.to_owned(), (width, height, labels));
    };
    add("a", 17, 13, &mut |_, _| random() % (classes + 1) + if random() % 9 == 0 { 300 } else { 0 });
    // All classes beside each other, then void.
    add("sub/a", classes + 1, 3, &mut |x, _| if x == classes { 255 } else { x });
    add("sub dir/ä b.v1", 1, 1, &mut |_, _| last);
    add("sub dir/one pixel", 33, 31, &mut |x, y| if (x, y) == (32, 30) { last } else { 255 });
    add("row", 70, 1, &mut |x, _| x / 3 % classes);
    add("column", 1, 70, &mut |_, y| y % classes);
    add("empty", 5, 4, &mut |_, _| 255);
    add("whole", 6, 7, &mut |_, _| 0);
    // More than 2^16 values of Label Studio in a run.
    add("large", 641, 479, &mut |x, y| {
        if y < 200 {
            1
        } else if x < 300 {
            255
        } else {
            (x + y) / 50 % classes
        }
    });
    // Indices above the last class are void.
    for (_, _, labels) in masks.values_mut() {
        labels.iter_mut().filter(|label| usize::from(**label) >= classes).for_each(|label| *label = VOID);
    }
    masks
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn png(path: &Path, bytes: &[u8], width: usize, height: usize, color: png::ColorType) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, encode_png(bytes, width as u32, height as u32, color).unwrap()).unwrap();
}

/// Classes with and without one that is named background, and many.
fn class_lists() -> [Vec<String>; 3] {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let with_background = own(&["road", "background", "car"]);
    [own(&NAMES), with_background, (0..200).map(|n| format!("class {n}")).collect()]
}

fn round(format: &str, imports: &[(&str, &[&str])]) {
    for (place, names) in class_lists().iter().enumerate() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let scene = Scene::new(&names, place % 2 == 0);
        ok(&mut scene.export(format, "out"));
        scene.by_tools(format, "out", "back");
        let set = scene.text("set");
        ok(&mut scene.import(format, "out", "same", &["--classes", &set]));
        // Only an image of CVAT has a mask where all is void.
        scene.assert_same("same", if format == "cvat" { &[] } else { &["empty"] });
        for (from, but) in imports {
            let to = format!("from-{}", from.replace('/', "-"));
            let ended = ok(&mut scene.import(format, from, &to, &["--classes", &set]));
            // Programs do not write an image without an annotation as one that is void.
            let but = if place == 1 && format == "cvat" { &[][..] } else { but };
            assert_eq!(ended.stderr.contains("left out: 1 of 9 images"), !but.is_empty(), "{}", ended.stderr);
            scene.assert_same(&to, but);
        }
        if format != "label-studio" {
            ok(&mut scene.import(format, "out", "alone", &[]));
            scene.assert_same("alone", if format == "cvat" { &[] } else { &["empty"] });
        }
    }
}

#[test]
fn masks_are_the_same_after_cvat() {
    round("cvat", &[("back", &["empty"])]);
}

#[test]
fn masks_are_the_same_after_programs_for_coco() {
    round("coco", &[("back/compressed", &["empty"]), ("back/datumaro", &["empty"])]);
}

#[test]
fn masks_are_the_same_after_label_studio() {
    round("label-studio", &[("back", &["empty"]), ("back/project-1.json", &["empty"])]);
}

#[test]
fn pixels_without_an_annotation_get_the_class_that_is_asked_for() {
    let scene = Scene::new(&NAMES, false);
    for format in ["cvat", "coco", "label-studio"] {
        let (out, to) = (format!("{format}-out"), format!("{format}-in"));
        ok(&mut scene.export(format, &out));
        let set = scene.text("set");
        ok(&mut scene.import(format, &out, &to, &["--classes", &set, "--unlabelled", "sky"]));
        for (stem, (width, height, mask)) in &scene.masks {
            // CVAT's void is a class of the label map with this name, not a pixel without an annotation.
            let wanted = |label: &u8| if *label == VOID && format != "cvat" { 6 } else { *label };
            let wanted: Vec<u8> = mask.iter().map(wanted).collect();
            let read = read_mask(&scene.path(&format!("{to}/masks/{stem}.png")));
            assert!(read == Some((*width, *height, wanted)), "{format}: {stem}");
        }
    }
}

/// The frames that the service has collected, with corrected labels, go to the programs and return.
#[test]
fn labels_of_a_collection_of_the_service_are_the_same_after_each_program() {
    let scene = Scene { dir: tempfile::tempdir().unwrap(), masks: Masks::new() };
    let (classes, width, height) = (["road", "sky", "traffic light"], 96, 54);
    let collection = Collection::open(&scene.path("collected")).unwrap();
    let labels = classes.map(|name| Label::new(name, Rgb(0, 90, name.len() as u8)));
    let bgr: Vec<u8> = (0..width * height * 3).map(|at| (at >> 4) as u8).collect();
    let image = Mat::new_rows_cols_with_bytes::<Vec3b>(height as i32, width as i32, &bgr).unwrap();
    let mut jpeg = Vector::<u8>::new();
    assert!(imencode_def(".jpg", &image, &mut jpeg).unwrap());
    let mut masks = Masks::new();
    for n in 0..5_usize {
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
                jpeg: jpeg.as_slice(),
                mask: &vec![0; width * height],
                labels: &labels,
            })
            .unwrap();
        // Two frames keep the proposed label, of one class; the corrections of the others have each class, and void.
        let mut mask = vec![0; width * height];
        if n >= 2 {
            mask = (0..width * height).map(|at| [0, 1, 2, VOID][(at / (7 + n) + at / width) % 4]).collect();
            let label = encode_png(&mask, width as u32, height as u32, png::ColorType::Grayscale).unwrap();
            collection.save_label(&record.id, &label, 0).unwrap();
        }
        collection.set_state(&record.id, FrameState::Accepted, u64::from(n >= 2)).unwrap();
        png(&scene.path(&format!("set/masks/{}.png", record.id)), &mask, width, height, png::ColorType::Grayscale);
        masks.insert(record.id.to_string(), (width, height, mask));
    }
    write(&scene.path("set/names.json"), &serde_json::to_string(&classes).unwrap());
    let scene = Scene { masks, ..scene };
    for (format, returned) in [("cvat", "back"), ("coco", "back/compressed"), ("label-studio", "back")] {
        let (out, to) = (format!("{format}-out"), format!("{format}-in"));
        ok(&mut data(&["export", &scene.text("collected"), "--format", format, "-o", &scene.text(&out)]));
        let back = format!("{format}-{returned}");
        scene.by_tools(format, &out, &format!("{format}-back"));
        let classes = scene.text("collected");
        ok(&mut scene.import(format, &back, &to, &["--classes", &classes]));
        for (id, mask) in &scene.masks {
            let read = read_mask(&scene.path(&format!("{to}/masks/{id}.png")));
            assert!(read.as_ref() == Some(mask), "{format}: the label of frame {id} differs");
            let image = std::fs::read(scene.path(&format!("{to}/images/{id}.jpg"))).unwrap();
            assert!(image == jpeg.as_slice(), "{format}: the image of frame {id} differs");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_overwritten() {
    let scene = Scene::new(&NAMES, false);
    let set = scene.text("set");
    write(&scene.path("full/mine.txt"), "mine");
    for format in ["cvat", "coco", "label-studio"] {
        failed(&mut scene.export(format, "full"), 2, &["full", "not empty", "mine.txt", "-o"]);
        failed(&mut scene.export(format, "set/out"), 2, &["set/out", "must not be in"]);
        ok(&mut scene.export(format, format));
        failed(&mut scene.import(format, format, "full", &[]), 2, &["not empty"]);
        failed(&mut scene.import(format, "nowhere", "x", &[]), 1, &["nowhere", "does not exist"]);
        // The data set has lost a class.
        write(&scene.path("fewer.txt"), "road\nsky\ncar\n");
        let fewer = scene.text("fewer.txt");
        let words = ["pixels of", "road, sky, car", "--void"];
        failed(&mut scene.import(format, format, "x", &["--classes", &fewer]), 1, &words);
        failed(&mut scene.import(format, format, "x", &["--void", "lorry"]), 2, &["--void", "lorry", "zebra"]);
        // An image of another size.
        std::fs::rename(scene.path(format), scene.path("broken")).unwrap();
        let folder = if format == "cvat" { "JPEGImages" } else { "images" };
        png(&scene.path(&format!("broken/{folder}/row.png")), &[0; 12], 2, 2, png::ColorType::Rgb);
        failed(&mut scene.import(format, "broken", "x", &["--classes", &set]), 1, &["70x1", "row.png", "2x2"]);
        std::fs::remove_file(scene.path(&format!("broken/{folder}/row.png"))).unwrap();
        let words = ["row", "--images", "--classes"];
        failed(&mut scene.import(format, "broken", "x", &["--classes", &set]), 1, &words);
        // The images of the data set are used where the export has none.
        std::fs::remove_dir_all(scene.path(&format!("broken/{folder}"))).unwrap();
        failed(&mut scene.import(format, "broken", "x", &[]), 1, &["--images"]);
        let (images, again) = (scene.text("set/images"), format!("{format}-again"));
        ok(&mut scene.import(format, "broken", &format!("{format}-classes"), &["--classes", &set]));
        ok(&mut scene.import(format, "broken", &again, &["--images", &images, "--classes", &set]));
        scene.assert_same(&again, if format == "cvat" { &[] } else { &["empty"] });
        std::fs::remove_dir_all(scene.path("broken")).unwrap();
        assert!(!scene.path("x").exists(), "nothing remains of a failed import");
    }
    assert_eq!(std::fs::read_dir(scene.path("full")).unwrap().count(), 1);
    assert_eq!(std::fs::read(scene.path("full/mine.txt")).unwrap(), b"mine");
    let hidden = std::fs::read_dir(scene.dir.path()).unwrap().flatten();
    let partial = hidden.filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial")).count();
    assert_eq!(partial, 0, "temporary folders remain");
    let scene = Scene::new(&["a:b", "c"], false);
    failed(&mut scene.export("cvat", "out"), 1, &["a:b", "labelmap.txt", "rename"]);
}
