//! Loads models with ONNX Runtime: own models, foreign models with a manifest, golden frames, damaged files.

mod common;

use std::path::Path;

use common::fakes::red_and_blue;
use common::onnx;
use common::program::{maskcast as program, run};
use maskcast::config::{ModelConfig, Provider, Require};
use maskcast::segment::contract::ContractError;
use maskcast::segment::file::ModelFileProblem;
use maskcast::segment::golden::Golden;
use maskcast::segment::onnx::Model;
use maskcast::segment::{MachineError, ModelError, ModelProblem, ProviderProblem, Segmenter, UnusableModel};

fn cpu(path: &Path) -> ModelConfig {
    let mut config = ModelConfig::with_path(path);
    config.providers = vec![Provider::Cpu];
    config
}

#[test]
fn a_model_segments_a_batch_of_frames_of_different_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.onnx");
    onnx::save(&onnx::channels(64, 32, &[]), &path);
    let model = Model::load(&cpu(&path), 1).unwrap();
    assert_eq!(model.provider, Provider::Cpu);
    assert_eq!(model.golden_difference, None);
    let names: Vec<&str> = model.contract.labels.iter().map(|label| label.name.as_str()).collect();
    assert_eq!(names, ["red", "green", "blue"]);
    let frames = [red_and_blue(640, 360), red_and_blue(128, 64), red_and_blue(360, 640)];
    let segmented = model.segmenter(1).unwrap().segment(&frames).unwrap();
    assert_eq!(segmented.masks.len(), 3);
    for mask in &segmented.masks {
        assert_eq!((mask.width, mask.height, mask.seq), (64, 32, 7));
        for row in mask.classes.chunks(64) {
            assert!(row[..31].iter().all(|&class| class == 0), "{row:?}");
            assert!(row[33..].iter().all(|&class| class == 2), "{row:?}");
        }
    }
}

#[test]
fn a_foreign_model_with_a_manifest_gives_the_same_mask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.onnx");
    onnx::save(&onnx::foreign(64, 32), &path);
    let without = Model::load(&cpu(&path), 1).err().unwrap();
    let ModelError::Model(UnusableModel { problem: ModelProblem::Contract(problem), .. }) = &without else {
        panic!("{without}")
    };
    assert!(matches!(problem, ContractError::NoLabels { manifest } if manifest.ends_with("foreign.toml")), "{without}");
    std::fs::write(folder.path().join("foreign.toml"), onnx::FOREIGN_MANIFEST).unwrap();
    let model = Model::load(&cpu(&path), 1).unwrap();
    let masks = model.segmenter(1).unwrap().segment(&[red_and_blue(640, 360)]).unwrap().masks;
    for row in masks[0].classes.chunks(64) {
        assert!(row[..31].iter().all(|&class| class == 0) && row[33..].iter().all(|&class| class == 2), "{row:?}");
    }
}

#[test]
fn a_model_with_a_wrong_golden_frame_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.onnx");
    let rgb: Vec<u8> = (0..64 * 32).flat_map(|n| if n % 64 < 20 { [200, 10, 10] } else { [10, 10, 200] }).collect();
    let mask: Vec<u8> = (0..64 * 32).map(|n| if n % 64 < 20 { 0 } else { 2 }).collect();
    let right = Golden { width: 64, height: 32, rgb, mask };
    onnx::save(&onnx::channels(64, 32, &[("maskcast.golden", &right.to_json().unwrap())]), &path);
    assert_eq!(Model::load(&cpu(&path), 1).unwrap().golden_difference, Some(0.0));

    let mut wrong = right.clone();
    wrong.mask[..64].fill(1);
    onnx::save(&onnx::channels(64, 32, &[("maskcast.golden", &wrong.to_json().unwrap())]), &path);
    let error = Model::load(&cpu(&path), 1).err().unwrap();
    let ModelError::Model(UnusableModel { problem: ModelProblem::Provider(problem), .. }) = &error else {
        panic!("{error}")
    };
    let ProviderProblem::GoldenFrame { provider: Provider::Cpu, difference, fitting_input: None } = problem else {
        panic!("{error}")
    };
    // A line of 64 pixels of 2048.
    assert_eq!(*difference, 1.0 / 32.0);
}

/// The problem with the file at `path`, if `error` is one.
fn file_problem<'a>(error: &'a ModelError, path: &Path) -> Option<&'a ModelFileProblem> {
    match error {
        ModelError::Model(UnusableModel { path: named, problem: ModelProblem::File(problem) }) if named == path => {
            Some(problem)
        }
        _ => None,
    }
}

#[test]
fn files_that_are_not_models_are_refused_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.onnx");
    onnx::save(&onnx::channels(64, 32, &[]), &good);
    let bytes = std::fs::read(&good).unwrap();
    type Check = fn(&ModelFileProblem) -> bool;
    let damaged: Check = |problem| matches!(problem, ModelFileProblem::Damaged(_));
    let cases: [(&str, &[u8], Check); 3] = [
        ("empty", b"", |problem| matches!(problem, ModelFileProblem::Empty)),
        ("truncated", &bytes[..bytes.len() / 2], damaged),
        ("text", b"this is not a model, but it is long enough to be read as one", damaged),
    ];
    for (name, bytes, is_expected) in cases {
        let path = folder.path().join(format!("{name}.onnx"));
        std::fs::write(&path, bytes).unwrap();
        let Err(error) = Model::load(&cpu(&path), 1) else { panic!("{name} is not a model") };
        assert!(file_problem(&error, &path).is_some_and(is_expected), "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    let missing = folder.path().join("missing.onnx");
    let Err(error) = Model::load(&cpu(&missing), 1) else { panic!("the file does not exist") };
    let is_missing = |problem: &ModelFileProblem| matches!(problem, ModelFileProblem::Io(error) if error.kind() == std::io::ErrorKind::NotFound);
    assert!(file_problem(&error, &missing).is_some_and(is_missing), "{error}");
}

#[test]
fn a_refused_provider_is_reported_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.onnx");
    onnx::save(&onnx::channels(64, 32, &[]), &path);
    let mut config = ModelConfig::with_path(&path);
    config.providers = vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu];
    let model = Model::load(&config, 1).unwrap();
    assert_eq!(model.requested(), Provider::TensorRt);
    // On a machine with a GPU an earlier provider runs. All providers before the one that runs are in `refused`.
    let position = config.providers.iter().position(|provider| *provider == model.provider).unwrap();
    let refused: Vec<Provider> = model.refused.iter().map(|(provider, _)| *provider).collect();
    assert_eq!(refused, config.providers[..position]);
    assert!(model.refused.iter().all(|(_, problem)| !problem.to_string().is_empty()));

    config.require = Require::Gpu;
    match Model::load(&config, 1) {
        Ok(model) => assert_ne!(model.provider, Provider::Cpu),
        Err(error) => assert!(
            matches!(error, ModelError::Machine(MachineError::NoProvider { require: Require::Gpu, .. })),
            "{error}"
        ),
    }
}

/// `tests/segment.rs` checks the masks of the bundled model on real frames.
#[test]
fn the_models_in_this_repository_have_the_documented_input_labels_and_golden_frame() {
    let everyday = [
        "other",
        "person",
        "bicycle",
        "vehicle",
        "animal",
        "furniture",
        "building",
        "wall",
        "floor",
        "ceiling",
        "paved",
        "ground",
        "grass",
        "plant",
        "sky",
        "water",
    ];
    let street =
        ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"];
    for (name, size, labels, images) in
        [("everyday", (512, 288), &everyday[..], "COCO"), ("street", (512, 288), &street, "CamVid")]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}.onnx"));
        let model = Model::load(&cpu(&path), 1).unwrap();
        let input = &model.contract.input;
        assert_eq!((input.width, input.height, input.dynamic_batch), (size.0, size.1, true), "{name}");
        assert_eq!(model.contract.labels.iter().map(|label| &*label.name).collect::<Vec<_>>(), labels);
        let difference = model.golden_difference;
        assert!(difference.is_some_and(|difference| difference <= 0.01), "{name}: {difference:?}");
        let manifest = model.contract.manifest.as_ref().unwrap();
        assert_eq!(manifest.labels().unwrap()[..], model.contract.labels[..], "{name}: manifest and model");
        assert!(manifest.licence.contains(images), "{name}");
    }
}

#[test]
fn two_frames_in_one_run_have_the_same_masks_as_in_separate_runs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
    let model = Model::load(&cpu(&path), 1).unwrap();
    let mut segmenter = model.segmenter(1).unwrap();
    let frames = [red_and_blue(640, 360), red_and_blue(360, 640)];
    let both = segmenter.segment(&frames).unwrap().masks;
    for (frame, together) in frames.iter().zip(&both) {
        let alone = segmenter.segment(std::slice::from_ref(frame)).unwrap().masks;
        let different = alone[0].classes.iter().zip(&together.classes).filter(|(a, b)| a != b).count();
        assert!(different * 1000 <= together.classes.len(), "{different} pixels differ");
    }
}

#[test]
fn onnx_runtime_writes_no_files_to_the_home_folder() {
    let home = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/everyday.onnx");
    let mut command = program();
    command.args(["model", "verify", model]).env("HOME", home.path());
    // The tests set these variables; users do not.
    let ended = run(command.env_remove("XDG_CACHE_HOME").env_remove("ORT_DISABLE_TELEMETRY"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
