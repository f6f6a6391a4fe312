//! Loads models of other trainers with ONNX Runtime. They have different shapes, types and scales; all of them detect red,
//! so that the right mask is known.

mod common;
#[path = "foreign_models/net.rs"]
mod net;

use std::path::{Path, PathBuf};

use common::fakes::red_and_blue;
use common::onnx::{self, proto};
use common::program::{maskcast, run};
use maskcast::config::{ModelConfig, Provider};
use maskcast::segment::contract::{ContractError, OutputProblem};
use maskcast::segment::manifest::ManifestProblem;
use maskcast::segment::normalisation::NormalisationError;
use maskcast::segment::onnx::Model;
use maskcast::segment::{ModelError, ModelProblem, ProviderProblem, Segmenter, UnusableModel};
use net::{BOOL, FLOAT, FLOAT16, HEIGHT, INT64, NCHW, NHWC, Net, PLANE, UINT8, WIDTH, ints, value};

// Labels of the models: of those with one value per pixel, and of those with scores or indices.
const BACKGROUND_AND_RED: [&str; 2] = ["background", "red"];
const COLOURS: [&str; 4] = ["other", "red", "green", "blue"];

/// A manifest that begins with `head` and has these labels.
fn manifest(head: &str, labels: &[&str]) -> String {
    let label = |(n, name): (usize, &&str)| format!("[[labels]]\nname = \"{name}\"\ncolor = \"#0000{n:02x}\"\n");
    format!("{head}\n{}", labels.iter().enumerate().map(label).collect::<String>())
}

/// Writes a model with its manifest to a new folder; returns the folder and the path of the model.
fn write_with_manifest(model: &proto::ModelProto, manifest: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    onnx::save(model, &path);
    std::fs::write(folder.path().join("net.toml"), manifest).unwrap();
    (folder, path)
}

/// The configuration of the model at `path` on the CPU.
fn cpu(path: &Path) -> ModelConfig {
    let mut config = ModelConfig::with_path(path);
    config.providers = vec![Provider::Cpu];
    config
}

/// Loads a model with this manifest.
fn load(model: &proto::ModelProto, manifest: &str) -> Result<Model, ModelError> {
    let (_folder, path) = write_with_manifest(model, manifest);
    Model::load(&cpu(&path), 1)
}

/// The contract error in `error`, which must name the model.
#[track_caller]
fn contract_error(error: &ModelError) -> &ContractError {
    match error {
        ModelError::Model(UnusableModel { path, problem: ModelProblem::Contract(problem) })
            if path.ends_with("net.onnx") =>
        {
            problem
        }
        other => panic!("{other}"),
    }
}

/// Asserts that the mask of [`red_and_blue`] has the class `red` on the left and `blue` on the right.
fn assert_halves(what: &str, model: &Model, red: u8, blue: u8) {
    let mask = model.segmenter(1).unwrap().segment(&[red_and_blue(WIDTH * 2, HEIGHT * 2)]).unwrap().masks.remove(0);
    assert_eq!((mask.width, mask.height), (WIDTH, HEIGHT), "{what}");
    for row in mask.classes.chunks(WIDTH) {
        let (left, right) = (&row[..WIDTH / 2 - 1], &row[WIDTH / 2 + 1..]);
        assert!(left.iter().all(|&class| class == red) && right.iter().all(|&class| class == blue), "{what}: {row:?}");
    }
}

/// Models with one value per pixel: name, model, and the manifest without labels.
fn binary_models() -> Vec<(&'static str, proto::ModelProto, &'static str)> {
    let input = "[input]";
    let free = [-1, -1, -1, -1];
    let squeezed = [1, HEIGHT as i64, WIDTH as i64];
    let last = [-1, HEIGHT as i64, WIDTH as i64, 1];
    let keras = |net: Net| net.transpose("input", "t", &[0, 3, 1, 2]).redness("t", "l");
    let sigmoid = || Net::default().redness("input", "l").op("Sigmoid", &["l"], "p", &[]);
    let from_operators = Net::default()
        .redness("input", "l")
        .op("Neg", &["l"], "n", &[])
        .op("Exp", &["n"], "e", &[])
        .floats("one", &[], &[1.0])
        .op("Add", &["e", "one"], "d", &[])
        .op("Reciprocal", &["d"], "p", &[]);
    let greater = || Net::default().redness("input", "l").floats("z", &[], &[0.0]).op("Greater", &["l", "z"], "g", &[]);
    let bytes = || greater().op("Cast", &["g"], "f", &[("to", FLOAT.into())]).floats("white", &[], &[255.0]);
    let bytes = || bytes().op("Mul", &["f", "white"], "m", &[]).op("Cast", &["m"], "p", &[("to", UINT8.into())]);
    vec![
        ("logit", Net::default().redness("input", "l").plain("l", FLOAT, &PLANE), input),
        ("logit, free", Net::default().redness("input", "l").plain("l", FLOAT, &free), input),
        ("sigmoid", sigmoid().plain("p", FLOAT, &PLANE), input),
        ("sigmoid, free", sigmoid().plain("p", FLOAT, &free), input),
        ("sigmoid from basic operators", from_operators.plain("p", FLOAT, &PLANE), input),
        ("sigmoid, then identity", sigmoid().op("Identity", &["p"], "q", &[]).plain("q", FLOAT, &PLANE), input),
        (
            "keras",
            keras(Net::default())
                .op("Sigmoid", &["l"], "p", &[])
                .transpose("p", "q", &[0, 2, 3, 1])
                .model(value("input", FLOAT, &NHWC), vec![value("q", FLOAT, &last)]),
            input,
        ),
        (
            "keras, logit",
            keras(Net::default())
                .transpose("l", "q", &[0, 2, 3, 1])
                .model(value("input", FLOAT, &NHWC), vec![value("q", FLOAT, &last)]),
            input,
        ),
        (
            "squeezed",
            sigmoid().indices("one", &[1]).op("Squeeze", &["p", "one"], "q", &[]).plain("q", FLOAT, &squeezed),
            input,
        ),
        (
            "without a batch",
            sigmoid().indices("axes", &[0, 1]).op("Squeeze", &["p", "axes"], "q", &[]).plain(
                "q",
                FLOAT,
                &squeezed[1..],
            ),
            input,
        ),
        ("bool", greater().plain("g", BOOL, &PLANE), input),
        (
            "float16",
            Net::default()
                .op("Cast", &["input"], "f", &[("to", FLOAT.into())])
                .redness("f", "l")
                .op("Sigmoid", &["l"], "p", &[])
                .op("Cast", &["p"], "h", &[("to", FLOAT16.into())])
                .model(value("input", FLOAT16, &NCHW), vec![value("h", FLOAT16, &PLANE)]),
            input,
        ),
        (
            "0 or 255 in floats",
            bytes().op("Cast", &["p"], "q", &[("to", FLOAT.into())]).plain("q", FLOAT, &PLANE),
            input,
        ),
        ("0 or 255", bytes().plain("p", UINT8, &PLANE), "[input]\n[output]\nthreshold = 127"),
        (
            "logit, sigmoid in the manifest",
            Net::default().redness("input", "l").plain("l", FLOAT, &PLANE),
            "[input]\n[output]\nactivation = \"sigmoid\"\nthreshold = 0.4",
        ),
        (
            "threshold in the metadata",
            // Red has a probability of 0.99, blue one of 0.0006.
            sigmoid().metadata("maskcast.output", r#"{"threshold": 0.9}"#).plain("p", FLOAT, &PLANE),
            input,
        ),
    ]
}

#[test]
fn models_with_one_value_per_pixel_have_a_mask_of_two_classes() {
    for (what, model, head) in binary_models() {
        let model =
            load(&model, &manifest(head, &BACKGROUND_AND_RED)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_halves(what, &model, 1, 0);
    }
}

#[test]
fn the_threshold_of_the_manifest_is_applied() {
    let model = Net::default().redness("input", "l").op("Sigmoid", &["l"], "p", &[]).plain("p", FLOAT, &PLANE);
    // Red has a probability of 0.9994, so no pixel is above the second threshold.
    for (threshold, red) in [("0.5", 1), ("0.9999", 0)] {
        let head = format!("[input]\n[output]\nthreshold = {threshold}");
        assert_halves(threshold, &load(&model, &manifest(&head, &BACKGROUND_AND_RED)).unwrap(), red, 0);
    }
    let error = load(&model, &manifest("[input]\n[output]\nthreshold = 128", &BACKGROUND_AND_RED)).err().unwrap();
    let ContractError::Output(output) = contract_error(&error) else { panic!("{error}") };
    assert!(
        matches!(&output.problem, OutputProblem::ThresholdNotAProbability { threshold: 128.0, reason }
            if reason.contains("Sigmoid")),
        "{error}"
    );
}

#[test]
fn a_model_with_one_value_per_pixel_needs_two_labels() {
    for (what, model, head) in binary_models() {
        let error = load(&model, &manifest(head, &["red"])).err().unwrap_or_else(|| panic!("{what}"));
        assert!(matches!(contract_error(&error), ContractError::SingleLabel(label) if label == "red"), "{error}");
    }
    let model = Net::default().redness("input", "l").plain("l", FLOAT, &PLANE);
    let error = load(&model, &manifest("[input]", &COLOURS)).err().unwrap();
    let ContractError::Output(output) = contract_error(&error) else { panic!("{error}") };
    assert_eq!(output.problem, OutputProblem::NotBinary(4));
}

#[test]
fn verify_prints_how_the_output_is_read() {
    let (_folder, path) = write_with_manifest(
        &Net::default().redness("input", "l").op("Sigmoid", &["l"], "p", &[]).plain("p", FLOAT, &PLANE),
        &manifest("[input]", &BACKGROUND_AND_RED),
    );
    let ended = run(maskcast().args(["model", "verify"]).arg(&path));
    let text = ended.text();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        text.contains(
            "p: f32 one value a pixel, probabilities (the network ends in Sigmoid): \"red\" where it is above 0.5"
        ),
        "{text}"
    );
}

#[test]
fn scores_and_indices_of_every_type_and_shape_are_read() {
    let (height, width) = (HEIGHT as i64, WIDTH as i64);
    let logits = || Net::default().colours("input", "l");
    let argmax = |keep: i64| logits().op("ArgMax", &["l"], "a", &[("axis", 1), ("keepdims", keep)]);
    let half = logits().op("Cast", &["l"], "h", &[("to", FLOAT16.into())]);
    let nhwc =
        |net: Net| net.transpose("input", "t", &[0, 3, 1, 2]).colours("t", "l").transpose("l", "q", &[0, 2, 3, 1]);
    let bytes = Net::default()
        .op("Cast", &["input"], "f", &[("to", FLOAT.into())])
        .floats("white", &[], &[255.0])
        .op("Div", &["f", "white"], "g", &[])
        .colours("g", "l");
    let free = [-1, -1, -1, -1];
    for (what, model, head) in [
        ("float16 out", half.plain("h", FLOAT16, &[1, 4, height, width]), "[input]"),
        ("indices NHW", argmax(0).plain("a", INT64, &[1, height, width]), "[input]"),
        ("indices N1HW", argmax(1).plain("a", INT64, &[1, 1, height, width]), "[input]"),
        (
            "indices NHW1",
            argmax(0).indices("last", &[3]).op("Unsqueeze", &["a", "last"], "u", &[]).plain(
                "u",
                INT64,
                &[1, height, width, 1],
            ),
            "[input]",
        ),
        (
            "indices in floats",
            argmax(0).op("Cast", &["a"], "c", &[("to", FLOAT.into())]).plain("c", FLOAT, &[1, height, width]),
            "[input]",
        ),
        (
            "uint8 NCHW",
            bytes.model(value("input", UINT8, &NCHW), vec![value("l", FLOAT, &[1, 4, height, width])]),
            "[input]\nlayout = \"nchw\"",
        ),
        (
            "all sides free, NHWC",
            nhwc(Net::default()).model(value("input", FLOAT, &free), vec![value("q", FLOAT, &free)]),
            "[input]\nlayout = \"nhwc\"\nsize = [64, 32]",
        ),
        (
            "all sides free, NCHW",
            logits().model(value("input", FLOAT, &free), vec![value("l", FLOAT, &free)]),
            "[input]\nsize = [64, 32]",
        ),
    ] {
        let model = load(&model, &manifest(head, &COLOURS)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_halves(what, &model, 1, 3);
    }
}

#[test]
fn the_named_or_the_largest_of_several_outputs_is_read() {
    let scores = [1, 4, HEIGHT as i64, WIDTH as i64];
    let free = [-1, -1, -1, -1];
    // A small mask, the right mask, a wrong mask of the same size, and an output that is not a mask.
    let net = |declared: [[i64; 4]; 2]| {
        let mut net = Net::default().colours("input", "out").op("Neg", &["out"], "aux", &[]);
        net.nodes.push({
            let mut pool = onnx::node("MaxPool", "out", "small", &[]);
            pool.attribute.extend([ints("kernel_shape", &[4, 4]), ints("strides", &[4, 4])]);
            pool
        });
        let net = net.op("Shape", &["input"], "size", &[]);
        let outputs = vec![
            value("small", FLOAT, &declared[0]),
            value("out", FLOAT, &declared[1]),
            value("aux", FLOAT, &declared[1]),
            value("size", INT64, &[4]),
        ];
        net.model(value("input", FLOAT, &NCHW), outputs)
    };
    let small = [1, 4, HEIGHT as i64 / 4, WIDTH as i64 / 4];
    for declared in [[small, scores], [free, free]] {
        let model = load(&net(declared), &manifest("[input]", &COLOURS)).unwrap();
        assert_eq!(model.contract.output.name, "out");
        assert_eq!(model.contract.others, ["small", "aux", "size"]);
        let reason = model.contract.output.choice_reason.clone().unwrap();
        assert!(reason.contains("the largest of small, out, aux"), "{reason}");
        assert_halves("the largest", &model, 1, 3);
    }
    let named = load(&net([small, scores]), &manifest("[input]\n[output]\nname = \"aux\"", &COLOURS)).unwrap();
    assert_eq!((named.contract.output.name.as_str(), &named.contract.output.choice_reason), ("aux", &None));
    let error = load(&net([small, scores]), &manifest("[input]\n[output]\nname = \"mask\"", &COLOURS)).err().unwrap();
    let ContractError::NoSuchOutput { name, outputs } = contract_error(&error) else { panic!("{error}") };
    assert_eq!((name.as_str(), outputs.join(",").as_str()), ("mask", "small,out,aux,size"));
}

#[test]
fn a_normalisation_of_another_scale_is_refused_or_causes_a_warning() {
    let model = || Net::default().colours("input", "l").plain("l", FLOAT, &[1, 4, HEIGHT as i64, WIDTH as i64]);
    let mean = "[input]\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]";
    let error = load(&model(), &manifest(mean, &COLOURS)).err().unwrap();
    let ModelError::Model(UnusableModel { path, problem: ModelProblem::Manifest(problem) }) = &error else {
        panic!("{error}")
    };
    let ManifestProblem::Normalisation(normalisation) = problem else { panic!("{error}") };
    assert!(matches!(normalisation, NormalisationError::MeanAboveWhite { .. }), "{error}");
    assert!(path.ends_with("net.toml") && normalisation.suggested_white() == Some(255.0), "{error}");

    // This model divides by 255 itself. Only its results show that the manifest is wrong.
    let bytes = Net::default()
        .floats("white", &[], &[255.0])
        .op("Div", &["input", "white"], "d", &[])
        .colours("d", "l")
        .plain("l", FLOAT, &[1, 4, HEIGHT as i64, WIDTH as i64]);
    let wrong = load(&bytes, &manifest("[input]", &COLOURS)).unwrap();
    assert!(wrong.warnings.iter().any(|warning| warning.contains("white = 255")), "{:?}", wrong.warnings);
    let right = load(&bytes, &manifest("[input]\nwhite = 255", &COLOURS)).unwrap();
    assert_eq!(right.warnings, [""; 0]);
    assert_halves("white = 255", &right, 1, 3);
}

#[test]
fn the_error_of_a_wrong_input_format_has_the_fitting_one() {
    let rgb: Vec<u8> =
        (0..WIDTH * HEIGHT).flat_map(|n| if n % WIDTH < 20 { [200, 10, 10] } else { [10, 10, 200] }).collect();
    let mask = (0..WIDTH * HEIGHT).map(|n| if n % WIDTH < 20 { 1 } else { 3 }).collect();
    let golden = maskcast::segment::golden::Golden { width: WIDTH, height: HEIGHT, rgb, mask }.to_json().unwrap();
    let model = Net::default()
        .floats("white", &[], &[255.0])
        .op("Div", &["input", "white"], "d", &[])
        .colours("d", "l")
        .metadata("maskcast.golden", &golden)
        .plain("l", FLOAT, &[1, 4, HEIGHT as i64, WIDTH as i64]);
    for (head, expected) in [
        ("[input]", "white = 255"),
        ("[input]\nwhite = 255\norder = \"bgr\"", "order = \"rgb\""),
        (
            "[input]\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]",
            "white = 255, mean = [0.0, 0.0, 0.0], std = [1.0, 1.0, 1.0]",
        ),
    ] {
        let error = load(&model, &manifest(head, &COLOURS)).err().unwrap();
        let ModelError::Model(UnusableModel { problem: ModelProblem::Provider(problem), .. }) = &error else {
            panic!("{error}")
        };
        let ProviderProblem::GoldenFrame { fitting_input: Some(fitting), .. } = problem else { panic!("{error}") };
        assert_eq!(fitting.keys, expected);
        assert!(fitting.manifest.ends_with("net.toml"), "{error}");
    }
    let right = load(&model, &manifest("[input]\nwhite = 255", &COLOURS)).unwrap();
    assert_eq!(right.golden_difference, Some(0.0));
}

#[test]
fn classes_without_a_label_are_counted_and_reported() {
    let model = Net::default().colours("input", "l").op("ArgMax", &["l"], "a", &[("axis", 1), ("keepdims", 0)]).plain(
        "a",
        INT64,
        &[1, HEIGHT as i64, WIDTH as i64],
    );
    let (_folder, path) = write_with_manifest(&model, &manifest("[input]", &COLOURS[..2]));
    let model = Model::load(&cpu(&path), 1).unwrap();
    assert!(
        model.warnings.iter().any(|warning| warning.contains("2 labels of the model end at 1")),
        "{:?}",
        model.warnings
    );
    assert_eq!((model.unlabelled.pixels(), model.unlabelled.highest()), (0, None));
    // Blue is class 3, which has no label: half of the mask.
    assert_halves("beyond", &model, 1, 3);
    let pixels = model.unlabelled.pixels() as usize;
    assert!(pixels.abs_diff(WIDTH * HEIGHT / 2) <= 2 * HEIGHT, "{pixels}");
    assert_eq!(model.unlabelled.highest(), Some(3));
    let ended = run(maskcast().args(["model", "verify"]).arg(&path));
    assert!(
        ended.text().contains("warning   on a test image") && ended.text().contains("class 3 (no label)"),
        "{}",
        ended.text()
    );
}

#[test]
fn a_model_with_external_weights_is_loaded_from_the_current_folder() {
    let model = Net::default().colours("input", "l").plain("l", FLOAT, &[1, 4, HEIGHT as i64, WIDTH as i64]);
    let (folder, path) = write_with_manifest(&model, &manifest("[input]", &COLOURS));
    // The protocol buffer types of these tests have no field for external data, so it is appended as bytes.
    let weights: Vec<u8> = model.graph.as_ref().unwrap().initializer[0].raw_data.clone().unwrap();
    std::fs::write(folder.path().join("net.onnx.data"), &weights).unwrap();
    std::fs::write(&path, onnx::with_external_weights(&model, "net.onnx.data")).unwrap();
    let ended = run(maskcast().args(["model", "verify", "net.onnx"]).current_dir(folder.path()));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let loaded = Model::load(&cpu(&path), 1).unwrap();
    assert_halves("external", &loaded, 1, 3);
    std::fs::remove_file(folder.path().join("net.onnx.data")).unwrap();
    let ended = run(maskcast().args(["model", "verify", "net.onnx"]).current_dir(folder.path()));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("its weights are in ./net.onnx.data"), "{}", ended.stderr);
}
