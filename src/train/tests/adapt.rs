//! Whole-program tests of `maskcast-train adapt` and `fit --teacher`: a model is adapted to a camera, with and without other classes,
//! through an interruption, and with wrong input.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use common::program::{Ended, Guard, run, until};
use maskcast::segment::golden::encode_png;
use maskcast_train::export::StoredModel;
use maskcast_train::weights;
use tempfile::TempDir;

const SIDE: usize = 64;

/// A scene: the colours of the ground, of a disc and of a square.
#[derive(Clone, Copy)]
struct Scene {
    ground: [u8; 3],
    disc: [u8; 3],
    square: Option<[u8; 3]>,
    /// Whether the border of the disc is void.
    void: bool,
}

const HOME: Scene = Scene { ground: [40, 60, 50], disc: [200, 190, 60], square: None, void: false };
/// A camera on which a model of [`HOME`] is wrong: the ground is as bright as the discs of `HOME`.
const CAMERA: Scene = Scene { ground: [190, 180, 90], disc: [60, 70, 200], square: None, void: true };

/// A data set of a scene, in the parts train and val.
fn data(scene: Scene, train: usize, val: usize, classes: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, count, first) in [("train", train, 0), ("val", val, 1000)] {
        for kind in ["images", "masks"] {
            std::fs::create_dir_all(folder.path().join(part).join(kind)).unwrap();
        }
        for index in first..first + count {
            let (rgb, mask) = picture(scene, index);
            let write = |kind: &str, pixels: &[u8], color| {
                let png = encode_png(pixels, SIDE as u32, SIDE as u32, color).unwrap();
                std::fs::write(folder.path().join(part).join(kind).join(format!("{index:04}.png")), png).unwrap();
            };
            write("images", &rgb, png::ColorType::Rgb);
            write("masks", &mask, png::ColorType::Grayscale);
        }
    }
    std::fs::write(folder.path().join("classes.txt"), classes).unwrap();
    folder
}

/// The RGB image and the mask of a scene: ground 0, disc 1, square 2.
fn picture(scene: Scene, seed: usize) -> (Vec<u8>, Vec<u8>) {
    let centre = ((seed * 37) % 40 + 12, (seed * 23) % 40 + 12);
    let radius = 8 + seed % 5;
    let corner = ((seed * 29) % 44, (seed * 31) % 44);
    let (mut rgb, mut mask) = (Vec::new(), Vec::new());
    for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
        let away = (x.abs_diff(centre.0).pow(2) + y.abs_diff(centre.1).pow(2)) as f64;
        let in_square = (corner.0..corner.0 + 16).contains(&x) && (corner.1..corner.1 + 16).contains(&y);
        let (color, class) = match scene.square {
            Some(square) if in_square => (square, 2),
            _ if away.sqrt() < radius as f64 => (scene.disc, 1),
            _ => (scene.ground, 0),
        };
        // The texture is different in each image, so that no two images are similar.
        let noise = ((x * 7 + y * 13 + seed * 29) % 32) as u8;
        rgb.extend(color.map(|value: u8| value + noise));
        let is_border = scene.void && (away.sqrt() - radius as f64).abs() < 1.5;
        mask.push(if is_border { 255 } else { class });
    }
    (rgb, mask)
}

fn train(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maskcast-train"));
    command.env_remove("MASKCAST_LOG").env("OMP_WAIT_POLICY", "PASSIVE").args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The options of a small run of `fit`.
const SMALL: [&str; 20] = [
    "--strategy",
    "scratch",
    "--input",
    "64x64",
    "--batch",
    "4",
    "--decoder-widths",
    "16,16,8,8",
    "--lr",
    "0.01",
    "--ema",
    "0.8",
    "--threads",
    "1",
    "--loader-threads",
    "1",
    "--epochs",
    "10",
    "--flip",
    "0.5",
];

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

/// The run of a model of [`HOME`], which all tests start from. Its int8 file rejects regions.
fn parent() -> &'static Path {
    static RUN: OnceLock<(TempDir, TempDir)> = OnceLock::new();
    let (_, folder) = RUN.get_or_init(|| {
        let (home, folder) = (data(HOME, 24, 6, "ground\ndisc\nsky\n"), tempfile::tempdir().unwrap());
        let output = folder.path().join("run");
        ok(train(&["fit", text(home.path()), "-o", text(&output)]).args(SMALL));
        let rejecting = ["--int8", "--reject", "sky=0.02", "--reject-regions", "sky=0.3"];
        let model = output.join("rejecting.onnx");
        let mut export = train(&["export", text(&output.join("best.safetensors")), text(home.path())]);
        ok(export.args(["-o", text(&model)]).args(rejecting));
        (home, folder)
    });
    Box::leak(folder.path().join("run").into_boxed_path())
}

fn adapt(data: &Path, from: &str, output: &Path, more: &[&str]) -> Command {
    let from = parent().join(from);
    let mut command = train(&["adapt", text(data), "--from", text(&from), "-o", text(output)]);
    command.args(["--threads", "1", "--loader-threads", "1"]).args(more);
    command
}

/// The scores of a model on the validation images of a data set.
fn scores(model: &Path, data: &Path) -> serde_json::Value {
    let ended = ok(&mut train(&["eval", text(model), text(data), "--json", "--threads", "1"]));
    serde_json::from_str::<serde_json::Value>(&ended.text()).unwrap()["scores"].clone()
}

fn miou(model: &Path, data: &Path) -> f64 {
    scores(model, data)["miou"].as_f64().unwrap()
}

#[test]
fn an_adapted_model_is_better_on_the_camera_and_keeps_the_outputs_of_the_old_one() {
    let (camera, home, folder) = (
        data(CAMERA, 10, 4, "ground\ndisc\nsky\n"),
        data(HOME, 12, 6, "ground\ndisc\nsky\n"),
        tempfile::tempdir().unwrap(),
    );
    let output = folder.path().join("run");
    let ended = ok(&mut adapt(camera.path(), "rejecting.onnx", &output, &["--replay", text(home.path())]));
    assert!(ended.stderr.contains("s per batch on 1 threads"), "the choice is printed: {}", ended.stderr);
    let (old, new) = (parent().join("rejecting.onnx"), output.join("model.onnx"));
    let (before, after) = (miou(&old, camera.path()), miou(&new, camera.path()));
    assert!(before < 0.7 && after > before + 0.15, "mIoU {before} before, {after} after: {}", ended.text());
    let rest = miou(&new, home.path());
    assert!(rest > 0.7, "mIoU on the replayed scene: {rest}");
    assert!(ended.text().contains("replayed, mean"), "{}", ended.text());
    for name in ["report.html", "model-fp32.onnx", "best.safetensors"] {
        assert!(output.join(name).is_file(), "{name}");
    }

    let (old, new) = (StoredModel::read(&old).unwrap(), StoredModel::read(&new).unwrap());
    assert!(old.steps.regions.is_some() && old.steps.rejection.is_some());
    assert_eq!(new.steps, old.steps);
    assert_eq!(new.file.description.input, old.file.description.input);
    assert_eq!(new.file.description.train["parent"]["sha256"], old.sha256.as_str());
}

#[test]
fn classes_are_added_and_dropped_by_the_labels() {
    let scene = Scene { square: Some([40, 200, 40]), ..HOME };
    let (camera, folder) = (data(scene, 12, 4, "ground\ndisc\nsquare\n"), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let ended = ok(&mut adapt(camera.path(), "model.onnx", &output, &[]));
    let words = "classes: 2 kept; new: square; dropped, because the data set does not have them: sky";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    let scores = scores(&output.join("model.onnx"), camera.path());
    for class in scores["classes"].as_array().unwrap() {
        assert!(class["iou"].as_f64().unwrap() > 0.5, "{scores:#}");
    }
}

/// The tensors of the last checkpoint of a run.
fn state(output: &Path) -> Vec<(String, Vec<u32>)> {
    let file = weights::read(&output.join("checkpoint.safetensors")).unwrap();
    let bits = |tensor: &tch::Tensor| {
        let mut values = vec![0f32; tensor.numel()];
        tensor.copy_data(&mut values, tensor.numel());
        values.into_iter().map(f32::to_bits).collect()
    };
    file.tensors.iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
}

#[test]
fn a_killed_and_resumed_adaptation_ends_with_the_weights_of_an_uninterrupted_one() {
    let (camera, folder) = (data(CAMERA, 12, 4, "ground\ndisc\nsky\n"), tempfile::tempdir().unwrap());
    let options = ["--epochs", "5"];
    let whole = folder.path().join("whole");
    ok(&mut adapt(camera.path(), "best.safetensors", &whole, &options));
    let killed = folder.path().join("killed");
    let checkpoint = killed.join("checkpoint.safetensors");
    let mut command = adapt(camera.path(), "best.safetensors", &killed, &options);
    let mut child = Guard::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    // A checkpoint is written at the start, after the old model was measured, and after each epoch.
    let seen = || std::fs::metadata(&checkpoint).and_then(|metadata| metadata.modified()).ok();
    let mut last = until("a checkpoint", seen);
    for _ in 0..3 {
        last = until("the next checkpoint", || seen().filter(|&time| time != last));
    }
    child.signal("KILL");
    child.wait(common::program::DEADLINE);
    assert!(!killed.join("report.html").exists(), "the run ended before it was killed");
    failed(&mut adapt(camera.path(), "best.safetensors", &killed, &options), 2, &["already contains a run", "resume"]);
    ok(&mut train(&["resume", text(&killed)]));
    assert!(state(&whole) == state(&killed), "the resumed run has different weights");
    assert!(killed.join("report.html").is_file());
}

#[test]
fn wrong_input_is_an_error_that_says_what_to_do() {
    let (camera, folder) = (data(CAMERA, 4, 2, "ground\ndisc\nsky\n"), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let from = |path: &Path| train(&["adapt", text(camera.path()), "--from", text(path), "-o", text(&output)]);
    failed(&mut from(&folder.path().join("none.onnx")), 1, &["none.onnx"]);
    let foreign = folder.path().join("foreign.onnx");
    std::fs::write(&foreign, [8, 9, 18, 0]).unwrap();
    failed(&mut from(&foreign), 1, &["foreign.onnx", "not a model that maskcast-train exported", "best.safetensors"]);

    let replay = |path: &Path| adapt(camera.path(), "model.onnx", &output, &["--replay", text(path)]);
    failed(&mut replay(&folder.path().join("nowhere")), 1, &["nowhere"]);
    let other = data(HOME, 2, 1, "earth\nball\nair\n");
    failed(&mut replay(other.path()), 1, &["none of its classes", "earth, ball, air"]);
    let mut command = adapt(camera.path(), "model.onnx", &output, &["--replay-share", "1"]);
    failed(command.args(["--replay", text(other.path())]), 2, &["--replay-share 1", "below 1"]);
    assert!(!output.join("checkpoint.safetensors").exists());
}

#[test]
fn a_model_without_labels_of_its_own_learns_from_a_teacher() {
    // Only every other pixel column has a label, and only in the part train: the teacher knows the rest.
    let (home, folder) = (data(HOME, 12, 6, "ground\ndisc\nsky\n"), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let teacher = parent().join("model.onnx");
    let mut command = train(&["fit", text(home.path()), "-o", text(&output)]);
    command.args(SMALL).args(["--teacher", text(&teacher), "--cross-entropy", "0.001", "--dice", "0", "--distil", "2"]);
    ok(&mut command);
    let learned = miou(&output.join("model.onnx"), home.path());
    assert!(learned > 0.7, "mIoU of a model that learned from its teacher: {learned}");

    let other = data(HOME, 4, 2, "ground\nball\nsky\n");
    let mut command = train(&["fit", text(other.path()), "-o", text(&folder.path().join("other"))]);
    command.args(SMALL).args(["--teacher", text(&teacher)]);
    failed(&mut command, 1, &["\"disc\"", "map=FILE"]);
    let mut command = train(&["fit", text(home.path()), "-o", text(&folder.path().join("cold"))]);
    command.args(SMALL).args(["--teacher", text(&teacher), "--temperature", "0"]);
    failed(&mut command, 2, &["--temperature 0"]);
}

/// The network that is read from a bundled model gives nearly all pixels of its golden frame the class that the file gives them.
#[test]
fn the_networks_of_the_bundled_models_are_read_from_their_files() {
    for (name, classes, rejects) in [("everyday", 16, true), ("street", 11, false)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/{name}.onnx"));
        let model = StoredModel::read(&path).unwrap();
        let description = &model.file.description;
        assert!(model.agreement > 0.985, "{name}: {}", model.agreement);
        assert_eq!((description.labels.len(), description.input.to_string()), (classes, "512x288".to_owned()));
        assert_eq!(description.normalise, description.flavour.normalise(), "{name}");
        assert_eq!((model.steps.rejection.is_some(), model.steps.regions.is_some()), (rejects, rejects), "{name}");
    }
}
