//! Whole-program tests of `maskcast-train`: from a data set to a model that `maskcast` loads, interrupted runs, and errors.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::program::{Ended, Guard, maskcast, run, until};
use maskcast::segment::golden::encode_png;
use maskcast_train::weights;
use tempfile::TempDir;

const SIDE: usize = 64;

/// A data set that can be learned in a minute: a bright disc on dark ground, at a different position in each image.
fn discs(train: usize, val: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, count, first) in [("train", train, 0), ("val", val, 1000)] {
        for kind in ["images", "masks"] {
            std::fs::create_dir_all(folder.path().join(part).join(kind)).unwrap();
        }
        for index in 0..count {
            let (rgb, mask) = disc(first + index);
            let side = SIDE as u32;
            let name = format!("{:04}.png", first + index);
            let write = |kind: &str, png: Vec<u8>| {
                std::fs::write(folder.path().join(part).join(kind).join(&name), png).unwrap()
            };
            write("images", encode_png(&rgb, side, side, png::ColorType::Rgb).unwrap());
            write("masks", encode_png(&mask, side, side, png::ColorType::Grayscale).unwrap());
        }
    }
    std::fs::write(folder.path().join("classes.txt"), "ground\ndisc\n").unwrap();
    folder
}

fn disc(seed: usize) -> (Vec<u8>, Vec<u8>) {
    let centre = ((seed * 37) % 40 + 12, (seed * 23) % 40 + 12);
    let radius = 8 + seed % 5;
    let (mut rgb, mut mask) = (Vec::new(), Vec::new());
    for y in 0..SIDE {
        for x in 0..SIDE {
            let inside = x.abs_diff(centre.0).pow(2) + y.abs_diff(centre.1).pow(2) < radius * radius;
            // The texture is different in each image, so that no two images are similar.
            let noise = ((x * 7 + y * 13 + seed * 29) % 32) as u8;
            rgb.extend(if inside { [220 - noise, 200, 60 + noise] } else { [40 + noise, 60, 50] });
            mask.push(u8::from(inside));
        }
    }
    (rgb, mask)
}

/// A command of `maskcast-train`.
fn train(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maskcast-train"));
    command.env_remove("MASKCAST_LOG").env("OMP_WAIT_POLICY", "PASSIVE").args(arguments);
    command
}

/// The options of a small run.
const SMALL: [&str; 16] = [
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
];

fn fit(data: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = train(&["fit", data.to_str().unwrap(), "-o", output.to_str().unwrap()]);
    command.args(SMALL).args(more);
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

#[test]
fn fit_writes_a_report_and_a_model_that_the_service_loads() {
    let (data, folder) = (discs(24, 6), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let ended = ok(&mut fit(data.path(), &output, &["--epochs", "12"]));
    for name in ["model.onnx", "model-fp32.onnx", "best.safetensors", "report.html", "report.json"] {
        assert!(output.join(name).is_file(), "{name} is missing: {}", ended.stderr);
    }

    // A disc is easy to learn. The exported models have the mIoU of the weights.
    let miou = |model: &str| {
        let model = output.join(model);
        let arguments = ["eval", model.to_str().unwrap(), data.path().to_str().unwrap(), "--json", "--threads", "1"];
        let scores: serde_json::Value = serde_json::from_str(&ok(&mut train(&arguments)).text()).unwrap();
        scores["scores"]["miou"].as_f64().unwrap()
    };
    let (trained, float, int8) = (miou("best.safetensors"), miou("model-fp32.onnx"), miou("model.onnx"));
    assert!(trained > 0.8, "{trained}");
    assert!((trained - float).abs() < 1e-3, "{trained} {float}");
    assert!((float - int8).abs() <= 0.01, "{float} {int8}");

    let rejecting = output.join("rejecting.onnx");
    let export = |reject: &str| {
        let mut command = train(&["export", output.join("best.safetensors").to_str().unwrap()]);
        command.arg(data.path()).arg("-o").arg(&rejecting).args(["--reject", reject]);
        command
    };
    let text = ok(&mut export("disc=0.5")).text();
    assert!(text.contains("--reject disc=0.5: pixels whose logits are all below"), "{text}");
    // Half of the pixels are discs now, where one in ten was.
    assert!(miou("rejecting.onnx") < trained - 0.1);
    failed(&mut export("sky=0.5"), 2, &["--reject", "no class \"sky\"; its classes are ground, disc"]);
    failed(&mut export("disc"), 2, &["CLASS=SHARE", "a share is missing"]);

    // The average of the weights with themselves is the same model.
    let best = output.join("best.safetensors");
    let average = |share: &str| {
        let mut command = train(&["export", best.to_str().unwrap(), data.path().to_str().unwrap(), "-o"]);
        command.arg(output.join("average.onnx")).arg("--average").arg(format!("{}={share}", best.display()));
        command
    };
    ok(&mut average("0.3"));
    assert!((miou("average.onnx") - trained).abs() < 1e-3);
    failed(&mut average("1.5"), 2, &["--average", "below 1"]);

    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(output.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["history"].as_array().unwrap().len(), 12);
    assert!((report["scores"]["miou"].as_f64().unwrap() - trained).abs() < 1e-9);
    assert!(std::fs::read_to_string(output.join("report.html")).unwrap().contains("disc"));

    // The service checks the input and outputs, the labels, and the golden frame.
    let verified = ok(maskcast().args(["model", "verify"]).arg(output.join("model.onnx")));
    assert!(!verified.text().is_empty());
    let shown = ok(maskcast().args(["model", "show"]).arg(output.join("model.onnx"))).text();
    assert!(shown.contains("ground") && shown.contains("disc"), "{shown}");
}

/// The tensors of the last checkpoint of a run.
fn state(output: &Path) -> Vec<(String, Vec<u8>)> {
    let file = weights::read(&output.join("checkpoint.safetensors")).unwrap();
    let bytes = |tensor: &tch::Tensor| {
        let mut values = vec![0f32; tensor.numel()];
        tensor.copy_data(&mut values, tensor.numel());
        values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect()
    };
    file.tensors.iter().map(|(name, tensor)| (name.clone(), bytes(tensor))).collect()
}

#[test]
fn a_killed_and_resumed_run_ends_with_the_weights_of_an_uninterrupted_run() {
    let (data, folder) = (discs(16, 2), tempfile::tempdir().unwrap());
    let options = ["--epochs", "5", "--accumulate", "3", "--cut-mix", "0.5", "--lovasz", "0.5", "--paste", "disc"];
    let whole = folder.path().join("whole");
    ok(&mut fit(data.path(), &whole, &options));
    let again = folder.path().join("again");
    ok(&mut fit(data.path(), &again, &options));
    assert!(state(&whole) == state(&again), "two runs with the same seed have different weights");

    let killed = folder.path().join("killed");
    let checkpoint = killed.join("checkpoint.safetensors");
    let mut child = Guard::spawn(fit(data.path(), &killed, &options).stdout(Stdio::null()).stderr(Stdio::null()));
    // A checkpoint is written at the start and after each epoch. The run is killed in the third epoch.
    let seen = || std::fs::metadata(&checkpoint).and_then(|metadata| metadata.modified()).ok();
    let mut last = until("a checkpoint", seen);
    for _ in 0..2 {
        last = until("the next checkpoint", || seen().filter(|&time| time != last));
    }
    child.signal("KILL");
    child.wait(common::program::DEADLINE);
    assert!(!killed.join("report.html").exists(), "the run ended before it was killed");
    ok(&mut train(&["resume", killed.to_str().unwrap()]));
    assert!(state(&whole) == state(&killed), "the resumed run has different weights");
    assert!(killed.join("report.html").is_file());
}

#[test]
fn a_stopped_run_can_be_resumed() {
    let (data, folder) = (discs(16, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let mut child =
        Guard::spawn(fit(data.path(), &output, &["--epochs", "3"]).stdout(Stdio::null()).stderr(Stdio::null()));
    until("a checkpoint", || output.join("checkpoint.safetensors").exists().then_some(()));
    child.signal("TERM");
    assert_eq!(child.wait(common::program::DEADLINE).code(), Some(1));
    let text = failed(&mut fit(data.path(), &output, &[]), 2, &["already contains a run", "resume"]);
    assert!(text.contains(output.to_str().unwrap()));
    ok(&mut train(&["resume", output.to_str().unwrap()]));
    assert!(output.join("model.onnx").is_file());
}

#[test]
fn a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_last_finite_checkpoint() {
    let (data, folder) = (discs(16, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let mut command =
        fit(data.path(), &output, &["--epochs", "20", "--optimizer", "sgd", "--schedule", "constant", "--clip", "0"]);
    command.args(["--lr", "1e30"]);
    failed(&mut command, 1, &["is not a number", "lr", "checkpoint.safetensors"]);
    assert!(
        state(&output)
            .iter()
            .all(|(_, bytes)| { bytes.as_chunks::<4>().0.iter().all(|&value| f32::from_le_bytes(value).is_finite()) })
    );
}

#[test]
fn a_full_disk_ends_the_run_and_keeps_the_previous_checkpoint() {
    let (data, folder) = (discs(16, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    // Files are limited to 64 KiB, which is smaller than a checkpoint.
    let on_a_full_disk = |program: Command| {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"]);
        command.arg(program.get_program()).args(program.get_args());
        command
    };
    let begin = || fit(data.path(), &output, &["--epochs", "1"]);
    failed(&mut on_a_full_disk(begin()), 1, &["checkpoint", "could not be written", "start the run again"]);
    ok(&mut begin());
    let checkpoint = output.join("checkpoint.safetensors");
    let before = std::fs::read(&checkpoint).unwrap();
    let resume = train(&["resume", output.to_str().unwrap()]);
    failed(&mut on_a_full_disk(resume), 1, &["could not be written", "The previous checkpoint is intact", "resume"]);
    assert!(std::fs::read(&checkpoint).unwrap() == before);
    let left: Vec<_> = std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn wrong_weights_are_refused_with_their_path() {
    let (data, folder) = (discs(4, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let weights = folder.path().join("weights.pth");
    std::fs::write(&weights, b"<html>not found</html>").unwrap();
    let pretrained = ["--strategy", "finetune", "--encoder", "resnet18", "--weights", weights.to_str().unwrap()];
    let mut command =
        train(&["fit", data.path().to_str().unwrap(), "-o", output.to_str().unwrap(), "--input", "64x64"]);
    failed(command.args(pretrained), 1, &["weights.pth", "web page"]);

    // A trained model with another encoder.
    let other = folder.path().join("other");
    ok(&mut fit(data.path(), &other, &["--epochs", "1", "--encoder", "mobilenet-v2"]));
    let model = other.join("best.safetensors");
    let init = ["--strategy", "finetune", "--init", model.to_str().unwrap(), "--encoder", "resnet18"];
    let mut command =
        train(&["fit", data.path().to_str().unwrap(), "-o", output.to_str().unwrap(), "--input", "64x64"]);
    failed(command.args(init).args(["--decoder-widths", "16,16,8,8"]), 1, &["best.safetensors", "mobilenet-v2"]);
}

#[test]
fn a_damaged_image_is_an_error_with_its_name() {
    let (data, folder) = (discs(6, 2), tempfile::tempdir().unwrap());
    let image = data.path().join("train/images/0003.png");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let output = folder.path().join("run");
    failed(&mut fit(data.path(), &output, &["--epochs", "1"]), 1, &["0003"]);
    failed(&mut train(&["data", "check", data.path().to_str().unwrap()]), 1, &["cannot be used for training"]);
}

#[test]
fn all_invalid_options_are_reported() {
    let (data, folder) = (discs(4, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    let wrong = ["--epochs", "0", "--ema", "1", "--scale-min", "3", "--cross-entropy", "0", "--dice", "0"];
    failed(&mut fit(data.path(), &output, &wrong), 2, &["--epochs", "--ema", "--scale-min", "--cross-entropy"]);
    let options = ["--void-as", "sky", "--paste", "disc,cat"];
    failed(&mut fit(data.path(), &output, &options), 2, &["--void-as sky", "--paste cat", "ground, disc"]);
    failed(&mut fit(data.path(), &output, &["--input", "100x64"]), 2, &["multiple of 32", "96"]);
    failed(&mut fit(&data.path().join("nowhere"), &output, &[]), 1, &["nowhere"]);
}

#[test]
fn compare_prints_a_table_and_does_not_repeat_finished_runs() {
    let (data, folder) = (discs(8, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("compare");
    let first = folder.path().join("first");
    ok(&mut fit(data.path(), &first, &["--epochs", "1"]));
    let model = first.join("best.safetensors");
    let compare = || {
        let mut command = train(&["compare", data.path().to_str().unwrap(), "-o", output.to_str().unwrap()]);
        command.args(SMALL).args(["--strategies", "scratch", "--seeds", "0,1", "--epochs", "1"]);
        command.args(["--from-model", model.to_str().unwrap()]);
        command
    };
    let table = ok(&mut compare()).text();
    assert!(table.contains("| scratch | efficientnet-lite0 |") && table.contains("| from a U-Net |"), "{table}");
    for name in ["compare.json", "compare.html", "compare.svg"] {
        assert!(output.join(name).is_file(), "{name}");
    }
    assert_eq!(ok(&mut compare()).text(), table, "finished runs were repeated");
    failed(compare().args(["--epochs", "2"]), 2, &["other options"]);
}

#[test]
fn lr_find_suggests_a_learning_rate() {
    let (data, folder) = (discs(8, 2), tempfile::tempdir().unwrap());
    let output = folder.path().join("lr");
    let mut command = train(&["lr", "find", data.path().to_str().unwrap(), "-o", output.to_str().unwrap()]);
    let ended = ok(command.args(SMALL).args(["--batches", "20"]));
    assert!(ended.text().starts_with("--lr "), "{}", ended.text());
    assert!(output.join("lr.svg").is_file());
    assert!(std::fs::read_to_string(output.join("lr.csv")).unwrap().lines().count() > 5);
}

/// Moves a validation image to the training images.
fn change(data: &Path) {
    for kind in ["images", "masks"] {
        std::fs::rename(data.join(format!("val/{kind}/1003.png")), data.join(format!("train/{kind}/1003.png")))
            .unwrap();
    }
}

#[test]
fn a_run_with_changed_data_does_not_resume_without_restart() {
    let (data, folder) = (discs(16, 4), tempfile::tempdir().unwrap());
    let output = folder.path().join("run");
    ok(&mut fit(data.path(), &output, &["--epochs", "2"]));
    let before = state(&output);
    change(data.path());
    let resume = ["resume", output.to_str().unwrap()];
    let words = ["then 16 training and 4 validation images, now 17 and 3", "--restart", "--init"];
    failed(&mut train(&resume), 2, &words);
    assert!(state(&output) == before, "the refused run changed the checkpoint");
    ok(train(&resume).arg("--restart"));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(output.join("report.json")).unwrap()).unwrap();
    let epochs: Vec<_> = report["history"].as_array().unwrap().iter().map(|epoch| epoch["epoch"].as_u64()).collect();
    assert_eq!(epochs, [Some(1), Some(2)], "epochs are counted from 1");
    assert!(state(&output) != before);
    // The checkpoint now has the fingerprint of the changed data.
    ok(&mut train(&resume));
}

#[test]
fn an_accumulation_that_is_cut_by_the_end_of_an_epoch_has_the_same_weight() {
    let (data, folder) = (discs(8, 2), tempfile::tempdir().unwrap());
    // An epoch has two batches: an accumulation of four batches is cut to two.
    let [two, four] = ["2", "4"].map(|accumulate| {
        let output = folder.path().join(accumulate);
        let options = ["--epochs", "2", "--optimizer", "sgd", "--clip", "0", "--accumulate", accumulate];
        ok(&mut fit(data.path(), &output, &options));
        state(&output)
    });
    assert!(two == four);
}
