//! Loads models with ONNX Runtime: own models, foreign models with a manifest, golden frames, damaged files.

mod common;

use std::path::Path;

use common::fakes::red_and_blue;
use common::onnx;
use common::program::{maskcast as program, run};
use maskcast::config::{ModelConfig, Provider, Require};
use maskcast::frame::{ClassBias, Frame, Tiles};
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

/// Images of a bundled model's input size: its golden frame, parts of it enlarged, mirrored and darker ones, colours, and noise.
fn images(golden: &Golden) -> Vec<Vec<u8>> {
    let Golden { width, height, ref rgb, .. } = *golden;
    let moved = |from: &dyn Fn(usize, usize) -> (usize, usize), light: f32| -> Vec<u8> {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let bytes = pixels.flat_map(|(y, x)| {
            let (y, x) = from(y, x);
            let start = (y * width + x) * 3;
            [rgb[start], rgb[start + 1], rgb[start + 2]]
        });
        bytes.map(|byte| (f32::from(byte) * light).min(255.0) as u8).collect()
    };
    let mut images = vec![
        moved(&|y, x| (y, x), 1.0),
        moved(&|y, x| (y, width - 1 - x), 1.0),
        moved(&|y, x| (height - 1 - y, x), 0.7),
    ];
    for (top, left, part) in [(0, 0, 2), (1, 1, 2), (0, 1, 3), (2, 1, 3)] {
        images.push(moved(&|y, x| ((y + top * height) / part, (x + left * width) / part), 1.2));
    }
    let mut state = 1_u32;
    let mut noise = |range: u32, of: &dyn Fn(usize) -> u8| -> Vec<u8> {
        let byte = |index| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            of(index).saturating_add(((state >> 16) % range) as u8)
        };
        (0..rgb.len()).map(byte).collect()
    };
    images.push(noise(256, &|_| 0));
    images.push(noise(40, &|index| (index / (width * 3) * 200 / height) as u8));
    images.push(noise(60, &|index| rgb[index]));
    images
}

#[test]
fn the_service_computes_the_masks_of_the_whole_graph_of_the_bundled_models() {
    for name in ["everyday", "street"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}.onnx"));
        let (model, whole) = (Model::load(&cpu(&path), 1).unwrap(), Model::load_whole(&cpu(&path), 1).unwrap());
        assert!(model.has_own_head() && !whole.has_own_head(), "{name}");
        assert!(model.has_own_stem() && !whole.has_own_stem(), "{name}");
        assert_eq!(model.contract.output, whole.contract.output);
        assert_eq!(model.contract.others, whole.contract.others);
        assert_eq!(model.golden_difference, whole.golden_difference);
        let (mut segmenter, mut graph) = (model.segmenter(1).unwrap(), whole.segmenter(1).unwrap());
        let images = images(model.contract.golden.as_ref().unwrap());
        let (mut pixels, mut different, mut classes) = (0, 0, [false; 256]);
        for image in &images {
            let ((mask, size), (expected, expected_size)) =
                (segmenter.run_rgb(image, 1).unwrap(), graph.run_rgb(image, 1).unwrap());
            assert_eq!((size, mask.len()), (expected_size, expected.len()), "{name}");
            pixels += mask.len();
            different += mask.iter().zip(&expected).filter(|(a, b)| a != b).count();
            expected.iter().for_each(|&class| classes[usize::from(class)] = true);
        }
        println!("{name}: {different} of {pixels} pixels differ");
        assert!(classes.iter().filter(|class| **class).count() >= 8, "{name}: the images have few classes");
        // Where two classes are equal, processors that fuse products and sums may decide in another way.
        let allowed = if cfg!(target_arch = "x86_64") { 0 } else { pixels / 2000 };
        assert!(different <= allowed, "{name}: {different} of {pixels} pixels differ");

        let two = [images[1].as_slice(), &images[3]].concat();
        let (masks, _) = segmenter.run_rgb(&two, 2).unwrap();
        assert!(masks == graph.run_rgb(&two, 2).unwrap().0, "{name}: two images in a run");
    }
}

#[test]
fn a_wrong_description_of_the_last_steps_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
    let bytes = std::fs::read(&bundled).unwrap();
    let text = maskcast::segment::head::prune::metadata(&bytes, "maskcast.head").unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let expected = Model::load(&cpu(&bundled), 1).unwrap();
    let grey = vec![128; 512 * 288 * 3];
    let mask = expected.segmenter(1).unwrap().run_rgb(&grey, 1).unwrap();
    // Each has as many bytes as before.
    for (right, wrong) in [
        ("\"mask.bytes\"", "\"mask.bites\""),
        ("\"table\":\"regions.table\"", "\"table\":\"regions.offset\""),
        ("\"enlarge\":2", "\"enlarge\":1"),
        ("\"cell\":8", "\"cell\":3"),
        ("{\"logits\"", "[\"logits\""),
    ] {
        let mut wrong = text.replace(right, wrong);
        assert_ne!(wrong, text, "{right}");
        wrong.truncate(text.len());
        let mut changed = bytes.clone();
        changed[at..at + text.len()].fill(b' ');
        changed[at..at + wrong.len()].copy_from_slice(wrong.as_bytes());
        std::fs::write(&path, changed).unwrap();
        let model = Model::load(&cpu(&path), 1).unwrap();
        assert!(!model.has_own_head(), "{wrong}");
        assert_eq!(model.golden_difference, expected.golden_difference);
        assert!(model.segmenter(1).unwrap().run_rgb(&grey, 1).unwrap() == mask, "{wrong}");
    }
}

#[test]
fn a_manifest_with_another_output_uses_the_whole_graph() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("everyday.onnx");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx"), &path).unwrap();
    std::fs::write(folder.path().join("everyday.toml"), "[output]\nname = \"mask\"\n").unwrap();
    let model = Model::load(&cpu(&path), 1).unwrap();
    assert!(!model.has_own_head());
    assert_eq!(model.contract.output.name, "mask");
}

#[test]
fn a_manifest_with_another_order_of_colours_uses_the_first_convolution_of_the_graph() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("everyday.onnx");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx"), &path).unwrap();
    let rgb = Model::load(&cpu(&path), 1).unwrap();
    let golden = rgb.contract.golden.as_ref().unwrap().rgb.clone();
    let mask = rgb.segmenter(1).unwrap().run_rgb(&golden, 1).unwrap();
    std::fs::write(folder.path().join("everyday.toml"), "[input]\norder = \"rgb\"\n").unwrap();
    let model = Model::load(&cpu(&path), 1).unwrap();
    assert!(!model.has_own_stem());
    assert!(model.segmenter(1).unwrap().run_rgb(&golden, 1).unwrap() == mask);
}

#[test]
fn frames_in_tiles_have_the_same_mask_as_whole_frames_with_more_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.onnx");
    onnx::save(&onnx::channels(64, 32, &[]), &path);
    let model = Model::load(&cpu(&path), 1).unwrap();
    let tiled = |columns, rows| Frame { tiles: Tiles { columns, rows }, ..red_and_blue(641, 361) };
    let frames = [tiled(2, 2), tiled(1, 1), tiled(3, 1), tiled(4, 4)];
    let masks = model.segmenter(1).unwrap().segment(&frames).unwrap().masks;
    assert_eq!((masks[1].width, masks[1].height), (64, 32));
    for (mask, frame) in masks.iter().zip(&frames) {
        // Tiles overlap by 12 %.
        let least = |tiles: usize, side: usize| tiles * side * 8 / 10..=tiles * side;
        assert!(least(frame.tiles.columns, 64).contains(&mask.width), "{}", mask.width);
        assert!(least(frame.tiles.rows, 32).contains(&mask.height), "{}", mask.height);
        let half = mask.width / 2;
        for row in mask.classes.chunks(mask.width) {
            assert!(row[..half - 2].iter().all(|&class| class == 0), "{:?} {row:?}", frame.tiles);
            assert!(row[half + 2..].iter().all(|&class| class == 2), "{:?} {row:?}", frame.tiles);
        }
        assert!(mask.guide.as_ref().is_some_and(|guide| guide.is_complete()));
    }
}

#[test]
fn the_bundled_model_sees_probable_classes_in_tiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
    let bias = Some(ClassBias { classes: vec!["person".into()], bias: 0.3 }.into());
    let frame = Frame { tiles: Tiles { columns: 2, rows: 2 }, bias, ..red_and_blue(640, 360) };
    for model in [Model::load(&cpu(&path), 1).unwrap(), Model::load_whole(&cpu(&path), 1).unwrap()] {
        let mask = model.segmenter(1).unwrap().segment(std::slice::from_ref(&frame)).unwrap().masks.remove(0);
        let probable = mask.probable.unwrap();
        assert_eq!(probable.pixels.len(), probable.width * probable.height);
        assert!((920..=1000).contains(&mask.width) && (520..=560).contains(&mask.height));
        assert!(probable.confidence > 0 && (460..=490).contains(&probable.width), "{}", probable.width);
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
