//! `maskcast-train label` and the evaluation of its results, with models whose masks are known.

mod common;
#[path = "../../../tests/foreign_models/net.rs"]
#[allow(dead_code)]
mod net;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::onnx::{self, proto};
use common::program::{Ended, run};
use maskcast::segment::golden::encode_png;
use maskcast_train::label::read_mask;
use net::{FLOAT, NHWC, Net, UINT8, ints, value};
use tempfile::TempDir;

const WIDTH: usize = 96;
const HEIGHT: usize = 64;
const VOID: u8 = 255;
const COLOURS: [[u8; 3]; 3] = [[220, 20, 10], [30, 200, 40], [10, 50, 240]];

/// A command of `maskcast-train`.
fn train(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maskcast-train"));
    command.env_remove("MASKCAST_LOG").args(arguments);
    command
}

fn ok(command: &mut Command) -> Ended {
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
    ended
}

fn failed(command: &mut Command, code: i32, words: &[&str]) -> String {
    let ended = run(command);
    assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is not in: {}", ended.stderr);
    }
    ended.stderr
}

/// The class of a pixel of the test image: a picture that differs from its mirror image in every row.
fn class_at(x: usize, y: usize) -> u8 {
    match (x, y) {
        (0..20, 0..30) => 0,
        (50..90, 10..60) => 2,
        _ => 1,
    }
}

fn truth() -> Vec<u8> {
    (0..WIDTH * HEIGHT).map(|at| class_at(at % WIDTH, at / WIDTH)).collect()
}

fn write_png(path: &Path, rgb: &[u8], width: usize, height: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, encode_png(rgb, width as u32, height as u32, png::ColorType::Rgb).unwrap()).unwrap();
}

/// A folder with test images, models and the proposals.
struct Scene {
    dir: TempDir,
}

impl Scene {
    /// `images` with the same classes.
    fn new(images: &[&str]) -> Self {
        let scene = Scene { dir: tempfile::tempdir().unwrap() };
        for (seed, name) in images.iter().enumerate() {
            // Blocks of different brightness, so that the images are not copies of each other.
            let light = |at: usize| ((at % WIDTH / 12 * 7 + at / WIDTH / 12 * 13) * (seed + 3) % 11) as u8;
            let pixel = |(at, &class): (usize, &u8)| COLOURS[usize::from(class)].map(|value| value + light(at));
            let rgb: Vec<u8> = truth().iter().enumerate().flat_map(pixel).collect();
            write_png(&scene.path("images").join(name), &rgb, WIDTH, HEIGHT);
        }
        onnx::save(&onnx::channels(WIDTH as i64, HEIGHT as i64, &[]), &scene.path("net.onnx"));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.text(name)
    }

    /// The command without teachers.
    fn bare(&self) -> Command {
        let mut command = train(&["label", &self.text("images"), "-o", &self.text("out")]);
        command.args(["--threads", "2", "--min-area", "1"]);
        command
    }

    /// The command with the model that knows red, green and blue.
    fn label(&self, more: &[&str]) -> Command {
        let mut command = self.bare();
        command.args(["--teacher", &self.text("net.onnx")]).args(more);
        command
    }

    fn mask(&self, name: &str) -> Vec<u8> {
        let (width, height, mask) = read_mask(&self.path("out/masks").join(name)).unwrap();
        assert_eq!(mask.len(), width * height);
        mask
    }

    fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("out/report.json")).unwrap()).unwrap()
    }
}

#[test]
fn mirrored_views_agree_with_the_others_in_every_pixel() {
    let scene = Scene::new(&["a.png"]);
    ok(&mut scene.label(&["--flip", "--agree", "1"]));
    assert!(scene.mask("a.png") == truth(), "the mask of the mirror image was not mirrored back");
}

#[test]
fn parts_are_put_back_where_they_were_cut() {
    for views in [&["--scales", "1,1.5,2"][..], &["--scales", "1,0.5"], &["--tiles", "2x2,3x1"], &["--keep-aspect"]] {
        let scene = Scene::new(&["a.png"]);
        ok(scene.label(&["--flip", "--agree", "1"]).args(views));
        let (mask, truth) = (scene.mask("a.png"), truth());
        for (at, (&proposed, &class)) in mask.iter().zip(&truth).enumerate() {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let around = |x: usize, y: usize| {
                (x.saturating_sub(2)..=x + 2).flat_map(move |x| (y.saturating_sub(2)..=y + 2).map(move |y| (x, y)))
            };
            let border = around(x, y).filter(|&(x, y)| x < WIDTH && y < HEIGHT).any(|(x, y)| class_at(x, y) != class);
            assert!(proposed == class || (border && proposed == VOID), "{views:?}: {proposed} at {x}, {y}");
        }
        let void = mask.iter().filter(|&&label| label == VOID).count();
        assert!(void * 12 < mask.len(), "{views:?}: {void} pixels are void");
    }
}

#[test]
fn the_result_is_a_data_set() {
    let scene = Scene::new(&["a.png", "sub/b.PNG", "c.png"]);
    let shown = ok(&mut scene.label(&["--flip", "--agree", "1"])).text();
    assert!(shown.contains("3 masks made") && shown.contains("0.0 % void"), "{shown}");
    let out = scene.text("out");
    let checked: serde_json::Value =
        serde_json::from_str(&ok(&mut train(&["data", "check", &out, "--json"])).text()).unwrap();
    assert_eq!(checked["errors"], 0, "{checked:#}");
    let names = std::fs::read_to_string(scene.path("out/classes.txt")).unwrap();
    assert_eq!(
        names.lines().map(|line| line.rsplit(' ').next().unwrap()).collect::<Vec<_>>(),
        ["red", "green", "blue"]
    );

    // The images have no split; all of them are measured.
    let model = scene.text("net.onnx");
    let eval = |more: &[&str]| ok(train(&["eval", &model, &out, "--threads", "1"]).args(more));
    let scores: serde_json::Value =
        serde_json::from_str(&eval(&["--part", "all", "--sizes", "Red,blue", "--json"]).text()).unwrap();
    assert_eq!((scores["part"].as_str(), scores["pictures"].as_u64()), (Some("all"), Some(3)));
    assert_eq!(scores["scores"]["miou"].as_f64(), Some(1.0));
    let objects = |class: usize, range: usize| scores["sizes"][class]["ranges"][range]["objects"].as_u64();
    // The red area is 30 pixels high, the blue one 50.
    assert_eq!((objects(0, 0), objects(0, 1), objects(1, 2)), (Some(0), Some(3), Some(3)));
    let table = eval(&["--part", "all", "--sizes", "red", "-o", &scene.text("measured")]).text();
    assert!(table.contains("on 3 images (all)") && table.contains("height of red at 96x64"), "{table}");
    assert!(table.contains("24 to 47") && table.contains("100.0 %"), "{table}");
    let report = std::fs::read_to_string(scene.path("measured/report.json")).unwrap();
    assert!(report.contains("object_recall"));
    failed(&mut train(&["eval", &model, &out, "--sizes", "gren"]), 2, &["--sizes gren", "red, green, blue"]);
    let part = eval(&[]);
    assert!(part.stderr.contains("--part all") && part.text().contains("(val)"), "{}", part.stderr);
}

#[test]
fn only_void_pixels_of_known_masks_are_filled() {
    let scene = Scene::new(&["a.png", "b.png", "c.png"]);
    // Class 0 is known in the upper half, whatever the model sees there.
    let known: Vec<u8> = (0..WIDTH * HEIGHT).map(|at| if at / WIDTH < HEIGHT / 2 { 0 } else { VOID }).collect();
    let write = |name: &str, mask: &[u8], width: usize| {
        let png = encode_png(mask, width as u32, (mask.len() / width) as u32, png::ColorType::Grayscale).unwrap();
        std::fs::create_dir_all(scene.path("known")).unwrap();
        std::fs::write(scene.path("known").join(name), png).unwrap();
    };
    write("a.png", &known, WIDTH);
    write("b.png", &known, WIDTH / 2);
    let stderr = failed(&mut scene.label(&["--agree", "1", "--fill", &scene.text("known")]), 1, &["2 of 3 images"]);
    assert!(stderr.contains("b.png: the mask has 48x128 pixels, the image b.png has 96x64"), "{stderr}");
    assert!(stderr.contains("c.png: there is no 8-bit PNG"), "{stderr}");
    let (upper, lower) = (&scene.mask("a.png")[..WIDTH * HEIGHT / 2], &scene.mask("a.png")[WIDTH * HEIGHT / 2..]);
    assert!(upper.iter().all(|&label| label == 0), "known labels are kept");
    assert!(lower == &truth()[WIDTH * HEIGHT / 2..], "void pixels are filled");
}

/// The map of a model with the classes green, red and other to those of the colours.
const OTHER_NAMES: &str =
    r#"[{"name":"Green","color":[0,255,0]},{"name":"RED","color":[255,0,0]},{"name":"azure","color":[0,0,255]}]"#;

#[test]
fn teachers_that_disagree_make_void_and_weights_decide() {
    let scene = Scene::new(&["a.png"]);
    let other = scene.path("other.onnx");
    onnx::save(&onnx::labelled(WIDTH as i64, HEIGHT as i64, OTHER_NAMES, &[]), &other);
    let map = scene.write("map.toml", "[classes]\nazure = \"blue\"\n");
    let classes = scene.write("classes.txt", "red\ngreen\nblue\nsea\n");
    let teacher = |options: &str| format!("{},map={map}{options}", other.display());
    let ended = ok(&mut scene.label(&["--classes", &classes, "--teacher", &teacher("")]));
    assert!(ended.stderr.contains("no teacher votes for sea"), "{}", ended.stderr);
    let blue_only: Vec<u8> = truth().iter().map(|&class| if class == 2 { 2 } else { VOID }).collect();
    assert!(scene.mask("a.png") == blue_only);
    // Three quarters of the votes.
    ok(&mut scene.label(&["--classes", &classes, "--redo", "--teacher", &teacher(",weight=3")]));
    let swapped: Vec<u8> = truth().iter().map(|&class| [1, 0, 2][usize::from(class)]).collect();
    assert!(scene.mask("a.png") == swapped);

    // The first model alone decides red, and abstains for blue; the other one still votes for its classes.
    let decides = scene.write("decides.toml", "decides = [\"red\"]\n[classes]\nblue = \"abstain\"\n");
    let first = format!("{},map={decides}", scene.text("net.onnx"));
    ok(scene.bare().args(["--classes", &classes, "--redo", "--teacher", &first, "--teacher", &teacher(",weight=9")]));
    let decided: Vec<u8> = truth().iter().map(|&class| [0, VOID, 2][usize::from(class)]).collect();
    assert!(scene.mask("a.png") == decided, "red is decided; red of the other model is void; only it votes for blue");
    let report = scene.report();
    assert_eq!(report["settings"]["teachers"][0]["decides"][0], "red");
    assert_eq!(report["unseen"][0], "sea");
}

#[test]
fn class_maps_that_cannot_be_used_are_reported_together() {
    let scene = Scene::new(&["a.png"]);
    let classes = scene.write("classes.txt", "redd\nsky\n");
    let map = scene.write("map.toml", "[classes]\nred = \"sik\"\ngrene = \"sky\"\n");
    let model = scene.text("net.onnx");
    let mut command = scene.label(&["--classes", &classes, "--teacher", &format!("{model},map={map}")]);
    let words = [
        "\"red\" (like \"redd\"?)",
        "\"green\", \"blue\"",
        "map=FILE",
        "map.toml",
        "\"sik\"",
        "did you mean \"green\"?",
    ];
    failed(&mut command, 2, &words);
    assert!(!scene.path("out").exists());
    failed(&mut scene.bare(), 2, &["--teacher"]);
    failed(&mut scene.label(&["--agree", "0", "--scales", "99"]), 2, &["--agree 0", "--scales 99"]);
    failed(scene.bare().args(["--teacher", &scene.text("none.onnx")]), 1, &["none.onnx"]);
    failed(&mut train(&["label", &scene.text("nowhere"), "-o", "x", "--teacher", &model]), 1, &["nowhere"]);
}

#[test]
fn a_run_is_continued_and_masks_of_people_are_kept() {
    let scene = Scene::new(&["a.png", "b.png", "c.png"]);
    ok(&mut scene.label(&[]));
    let time = |name: &str| std::fs::metadata(scene.path("out/masks").join(name)).unwrap().modified().unwrap();
    let before = time("a.png");
    std::fs::remove_file(scene.path("out/masks/b.png")).unwrap();
    let corrected = encode_png(&[1; WIDTH * HEIGHT], WIDTH as u32, HEIGHT as u32, png::ColorType::Grayscale).unwrap();
    std::fs::write(scene.path("out/masks/c.png"), &corrected).unwrap();
    let shown = ok(&mut scene.label(&[])).text();
    assert!(shown.contains("1 masks made, 1 kept from earlier runs, 1 edited masks kept"), "{shown}");
    assert!(time("a.png") == before && scene.mask("b.png") == truth());

    let text = failed(&mut scene.label(&["--agree", "0.9"]), 2, &["other settings", "agree", "--redo"]);
    assert!(text.contains("out"), "{text}");
    let shown = ok(&mut scene.label(&["--agree", "0.9", "--redo"])).text();
    assert!(shown.contains("2 masks made, 0 kept from earlier runs, 1 edited"), "{shown}");
    assert!(scene.mask("c.png") == vec![1; WIDTH * HEIGHT]);
    assert_eq!(scene.report()["corrected"], 1);

    // Another image of a name that has a mask.
    write_png(&scene.path("images/a.png"), &[9; 3 * 8 * 8], 8, 8);
    failed(&mut scene.label(&["--agree", "0.9"]), 1, &["another image of this name", "1 of 3 images"]);
    // A folder that was not made by this command.
    let human = scene.text("images");
    let mut command = train(&["label", &scene.text("out/images"), "-o", &human, "--teacher", &scene.text("net.onnx")]);
    failed(&mut command, 2, &["was not made by", "a.png"]);
}

#[test]
fn images_that_cannot_be_read_are_listed_and_the_others_are_labelled() {
    let scene = Scene::new(&["a.png", "b.png", "z.png"]);
    let whole = std::fs::read(scene.path("images/b.png")).unwrap();
    std::fs::write(scene.path("images/b.png"), &whole[..whole.len() / 2]).unwrap();
    failed(&mut scene.label(&[]), 1, &["skipped", "b.png", "1 of 3 images have no mask"]);
    assert!(scene.mask("a.png") == truth() && scene.mask("z.png") == truth());
    assert!(scene.report()["skipped"][0].as_str().unwrap().contains("b.png"));
    assert!(scene.path("out/report.html").is_file() && !scene.path("out/masks/b.png").exists());
    std::fs::write(scene.path("images/b.png"), &whole).unwrap();
    assert!(ok(&mut scene.label(&[])).text().contains("1 masks made, 2 kept from earlier runs"));
}

/// A manifest of the foreign models of this file.
fn manifest(names: &[&str]) -> String {
    let label = |(n, name): (usize, &&str)| format!("[[labels]]\nname = \"{name}\"\ncolor = \"#0000{n:02x}\"\n");
    format!("[input]\n{}", names.iter().enumerate().map(label).collect::<String>())
}

#[test]
fn probabilities_of_merged_classes_are_added_up() {
    let scene = Scene::new(&["a.png"]);
    write_png(&scene.path("images/a.png"), &[255, 0, 0].repeat(net::WIDTH * net::HEIGHT), net::WIDTH, net::HEIGHT);
    // Logits 0.25, 1, -0.5 and -0.5 of a red image: the probability of red is 0.52, that of red or other 0.77.
    let model = Net::default().colours("input", "l").plain("l", FLOAT, &[1, 4, net::HEIGHT as i64, net::WIDTH as i64]);
    onnx::save(&model, &scene.path("colours.onnx"));
    scene.write("colours.toml", &manifest(&["other", "red", "green", "blue"]));
    let classes = scene.write("classes.txt", "warm\ncold\n");
    let cold = "green = \"cold\"\nblue = \"cold\"\nred = \"warm\"\n";
    let masks = ["other = \"cold\"", "other = \"warm\"", "other = \"abstain\""].map(|other| {
        let map = scene.write("map.toml", &format!("[classes]\n{cold}{other}\n"));
        let teacher = format!("{},map={map}", scene.text("colours.onnx"));
        ok(scene.bare().args(["--classes", &classes, "--redo", "--flip", "--teacher", &teacher]));
        scene.mask("a.png")
    });
    let all = |class: u8| vec![class; net::WIDTH * net::HEIGHT];
    assert!(masks == [all(VOID), all(0), all(VOID)], "{:?}", masks.map(|mask| mask[0]));
}

#[test]
fn the_confidence_of_a_model_is_a_share_of_its_vote() {
    let scene = Scene::new(&["a.png"]);
    // The left half is bright, the right half darker: the model is as sure as the strongest channel is bright.
    let pixel = |at: usize| if at % net::WIDTH < net::WIDTH / 2 { [204, 0, 0] } else { [0, 0, 153] };
    let rgb: Vec<u8> = (0..net::WIDTH * net::HEIGHT).flat_map(pixel).collect();
    write_png(&scene.path("images/a.png"), &rgb, net::WIDTH, net::HEIGHT);
    let mut net = Net::default()
        .op("Cast", &["image"], "float", &[("to", FLOAT.into())])
        .op("ArgMax", &["float"], "index", &[("axis", 3), ("keepdims", 0)])
        .op("Cast", &["index"], "mask", &[("to", UINT8.into())])
        .op("ReduceMax", &["float"], "largest", &[("keepdims", 0)])
        .op("Cast", &["largest"], "confidence", &[("to", UINT8.into())])
        .metadata("maskcast.version", "1")
        .metadata("maskcast.labels", onnx::LABELS);
    let reduce: &mut proto::NodeProto = net.nodes.iter_mut().find(|node| node.op_type == "ReduceMax").unwrap();
    reduce.attribute.push(ints("axes", &[3]));
    let outputs = ["mask", "confidence"].map(|name| value(name, UINT8, &NHWC[..3]));
    onnx::save(&net.model(value("image", UINT8, &NHWC), outputs.into()), &scene.path("sure.onnx"));
    let teacher = scene.text("sure.onnx");
    let halves = |left: u8, right: u8| -> Vec<u8> {
        (0..net::WIDTH * net::HEIGHT).map(|at| if at % net::WIDTH < net::WIDTH / 2 { left } else { right }).collect()
    };
    ok(scene.bare().args(["--teacher", &teacher, "--flip"]));
    assert!(scene.mask("a.png") == halves(0, VOID), "0.8 is enough, 0.6 is not");
    ok(scene.bare().args(["--teacher", &teacher, "--flip", "--redo", "--agree", "0.6"]));
    assert!(scene.mask("a.png") == halves(0, 2));
}

#[test]
fn a_real_model_labels_photographs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (photos, model) = (root.join(".testdata/photos"), root.join("models/street.onnx"));
    let out = tempfile::tempdir().unwrap();
    let mut command = train(&["label", photos.to_str().unwrap(), "-o", out.path().to_str().unwrap(), "--flip"]);
    command.args(["--teacher", model.to_str().unwrap(), "--tiles", "2x1", "--copy", "symlink"]);
    let shown = ok(&mut command).text();
    assert!(shown.contains("masks made") && shown.contains("pedestrian"), "{shown}");
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("<img ") && page.contains("chelsea"));
    let (width, height, mask) = read_mask(&out.path().join("masks/chelsea.png")).unwrap();
    let image = std::fs::read(out.path().join("images/chelsea.png")).unwrap();
    let side = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((width, height, mask.len()), (side(16), side(20), width * height), "the mask has the size of the image");
    assert!(mask.iter().all(|&label| label < 11 || label == VOID) && mask.contains(&VOID));
}

#[test]
fn the_help_explains_class_maps() {
    let help = ok(&mut train(&["label", "--help"])).text();
    for word in ["map=FILE", "decides = ", "abstain", "weight=N", "COLUMNSxROWS", "maskcast-train fit"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
