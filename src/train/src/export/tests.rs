//! Exported files, run by ONNX Runtime and compared with libtorch.

use maskcast::frame::{Rgb, Weight};
use prost::Message;
use rand::RngExt;
use tch::{Kind, Tensor};

use super::*;
use crate::encoders::Encoder;
use crate::net::decoder::Decoder;
use crate::net::{Conv, NetBuilder, Normalise, Order, Padding};
use crate::random;

mod head;
mod regions;
mod stored;

/// Waves with noise, bytes `[n, height, width, 3]`.
fn images(n: i64, height: i64, width: i64, seed: u64) -> Tensor {
    let mut rng = random::generator(seed, &[n, height, width].map(|side| side as u64));
    let mut bytes = Vec::new();
    for _ in 0..n {
        let wave: [f32; 6] = std::array::from_fn(|_| rng.random::<f32>() * 0.3);
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    let phase = wave[c] * y as f32 + wave[c + 3] * x as f32;
                    let value = 127.0 + 100.0 * phase.sin() + 56.0 * (rng.random::<f32>() - 0.5);
                    bytes.push(value as u8);
                }
            }
        }
    }
    Tensor::from_slice(&bytes).reshape([n, height, width, 3])
}

/// Random parameters. Batch norms and biases are random too, so that they have an effect.
fn parameters(net: &Net, seed: u64) -> Params {
    let mut params = Params::fresh(net, seed);
    for (name, tensor) in &mut params.0 {
        let mut rng = random::named_generator(seed, name);
        let mut numbers = |low: f32, high: f32| {
            let count = tensor.numel();
            let numbers: Vec<f32> = (0..count).map(|_| low + (high - low) * rng.random::<f32>()).collect();
            Tensor::from_slice(&numbers).reshape(tensor.size())
        };
        if name.ends_with("running_var") {
            *tensor = numbers(0.5, 1.5);
        } else if name.ends_with("running_mean") || name.ends_with("bias") {
            *tensor = numbers(-0.3, 0.3);
        } else if tensor.dim() == 1 {
            *tensor = numbers(0.7, 1.3);
        }
    }
    params
}

/// A network with every operation.
fn every_operation(normalise: Normalise) -> Net {
    let mut b = NetBuilder::new();
    let stem = Conv { stride: 2, padding: Padding::same(3, 2), ..Conv::new(3, 8, 3) };
    let x = b.conv("stem", stem, b.input());
    let x = b.batch_norm("stem_bn", 8, 1e-3, x);
    let half = b.plain(Op::Relu6, &[x]);
    let depthwise = Conv { stride: 2, padding: Padding::same(5, 2), ..Conv::depthwise(8, 5) };
    let x = b.conv("depthwise", depthwise, half);
    let x = b.batch_norm("depthwise_bn", 8, 1e-5, x);
    let quarter = b.plain(Op::Relu, &[x]);
    let x = b.conv("grouped", Conv { groups: 2, bias: true, ..Conv::new(8, 8, 3) }, quarter);
    let x = b.plain(Op::Add, &[x, quarter]);
    let x = b.batch_norm("alone", 8, 1e-5, x);
    let x = b.plain(Op::Relu, &[x]);
    let pool = Op::MaxPool { kernel: 3, stride: 2, padding: Padding { begin: 0, end: 1 } };
    let x = b.plain(pool, &[x]);
    let x = b.plain(Op::MaxPool { kernel: 3, stride: 1, padding: Padding::both(1) }, &[x]);
    let x = b.plain(Op::Nearest { factor: 2 }, &[x]);
    let x = b.plain(Op::Concat, &[x, quarter]);
    // Used by its activation and by another node.
    let x = b.conv("shared", Conv::new(16, 8, 1), x);
    let active = b.plain(Op::Relu6, &[x]);
    let x = b.plain(Op::Add, &[x, active]);
    let x = b.plain(Op::Bilinear { factor: 2 }, &[x]);
    let x = b.plain(Op::Concat, &[x, half]);
    let x = b.conv("head", Conv { bias: true, ..Conv::new(16, 5, 1) }, x);
    let x = b.plain(Op::Bilinear { factor: 2 }, &[x]);
    b.finish(normalise, x)
}

const BYTES: Normalise = Normalise { order: Order::Rgb, mean: [127.0; 3], std: [128.0; 3] };
const KERAS: Normalise = Normalise { order: Order::Rgb, mean: [127.5; 3], std: [127.5; 3] };
const CAFFE: Normalise = Normalise { order: Order::Bgr, mean: [104.007, 116.669, 122.679], std: [1.0; 3] };
const MIXED: Normalise = Normalise { order: Order::Bgr, mean: [120.0, 120.25, 120.5], std: [60.0, 70.0, 50.0] };

fn logits_of(model: &ModelProto, images: &Tensor, like: &Tensor) -> Tensor {
    let outputs = verify::run(&model.to_bytes(), images).unwrap();
    Tensor::from_slice(&outputs.logits.unwrap()).reshape(like.size())
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// The root mean square of the difference, divided by that of `b`.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let square = |x: Tensor| (&x * &x).mean(Kind::Double).double_value(&[]);
    (square(a - b) / square(b.copy())).sqrt()
}

fn with_logits(width: i64, height: i64) -> GraphOptions {
    GraphOptions { logits: true, ..GraphOptions::new(width, height) }
}

#[test]
fn every_operation_computes_the_same_as_libtorch() {
    for (seed, normalise) in [BYTES, KERAS, CAFFE, MIXED, Normalise::IMAGENET].into_iter().enumerate() {
        let net = every_operation(normalise);
        let params = parameters(&net, seed as u64);
        let (folded, folded_params) = fold::fold(&net, &params);
        assert!(!folded.nodes.iter().any(|node| matches!(node.op, Op::BatchNorm { .. })));
        let images = images(2, 48, 64, seed as u64);
        let expected = verify::logits(&net, &params, &images);
        let model = float::model(&folded, &folded_params, &with_logits(64, 48));
        let found = logits_of(&model, &images, &expected);
        let scale = expected.abs().max().double_value(&[]).max(1.0);
        let difference = largest_difference(&found, &expected) / scale;
        assert!(difference < 1e-4, "{normalise:?}: {difference}");
    }
}

#[test]
fn int8_is_close_to_float_for_every_operation_input_and_target() {
    for (seed, normalise) in [BYTES, KERAS, CAFFE, MIXED].into_iter().enumerate() {
        let net = every_operation(normalise);
        let (net, params) = fold::fold(&net, &parameters(&net, seed as u64));
        let batch = images(2, 48, 64, 3);
        let expected = verify::logits(&net, &params, &batch);
        let batches = || (0..4).map(|seed| images(1, 48, 64, seed)).chain([batch.copy()]);
        for calibration in [CalibrationMethod::MinMax, CalibrationMethod::Mean, CalibrationMethod::Percentile(1e-4)] {
            let ranges = ranges::calibrate(&net, &params, batches(), calibration).unwrap();
            for target in [Target::Cpu, Target::Tensorrt] {
                let model = int8::model(&net, &params, &ranges, &with_logits(64, 48), target, WeightBits::Fitted);
                let error = relative(&logits_of(&model, &batch, &expected), &expected);
                assert!(error < 0.08, "{normalise:?} {calibration:?} {target:?}: {error}");
            }
        }
    }
}

#[test]
fn pixels_with_low_logits_are_rejected() {
    let net = every_operation(BYTES);
    let (net, params) = fold::fold(&net, &parameters(&net, 7));
    let batch = images(2, 48, 64, 7);
    let logits = verify::logits(&net, &params, &batch);
    let largest = logits.amax([1i64].as_slice(), false);
    let below = largest.median().double_value(&[]) as f32;
    let rejection = Rejection { class: 3, below };
    let ranges = ranges::calibrate(&net, &params, [batch.copy()].into_iter(), CalibrationMethod::MinMax).unwrap();
    for argmax_stride2 in [false, true] {
        let options = GraphOptions { argmax_stride2, rejection: Some(rejection), ..GraphOptions::new(64, 48) };
        let int8 = |target| int8::model(&net, &params, &ranges, &options, target, WeightBits::Fitted);
        for (model, least) in
            [(float::model(&net, &params, &options), 0.995), (int8(Target::Cpu), 0.9), (int8(Target::Tensorrt), 0.9)]
        {
            let mask = Tensor::from_slice(&verify::run(&model.to_bytes(), &batch).unwrap().mask).reshape([2, 48, 64]);
            // Between small logits, enlargement and the choice of the larger one are not exchangeable.
            let is_rejected = largest.lt(f64::from(below) - 0.05);
            let is_accepted = largest.gt(f64::from(below) + 0.05);
            let share = |of: &Tensor, expected: &Tensor| {
                let right = mask.eq_tensor(expected).logical_and(of).sum(Kind::Int64).int64_value(&[]);
                right as f64 / of.sum(Kind::Int64).int64_value(&[]) as f64
            };
            let least = if argmax_stride2 { 0.8 } else { least };
            let rejected = share(&is_rejected, &Tensor::full([2, 48, 64], 3, (Kind::Uint8, tch::Device::Cpu)));
            let accepted = share(&is_accepted, &logits.argmax(1, false).to_kind(Kind::Uint8));
            assert!(rejected > least && accepted > least, "{rejected:.3} rejected, {accepted:.3} accepted");
        }
    }
}

#[test]
fn image_bytes_are_the_quantised_input_if_the_means_are_similar() {
    for (normalise, zero) in [(BYTES, Some(127)), (KERAS, Some(127)), (MIXED, Some(120)), (CAFFE, None)] {
        let net = every_operation(normalise);
        let (net, params) = fold::fold(&net, &parameters(&net, 1));
        assert_eq!(pixels::as_bytes(&net, &params).map(|bytes| bytes.zero), zero, "{normalise:?}");
    }
}

#[test]
fn mask_at_half_size_and_confidence_are_those_of_libtorch() {
    let net = every_operation(BYTES);
    let (net, params) = fold::fold(&net, &parameters(&net, 5));
    let batch = images(2, 48, 64, 5);
    let full = verify::logits(&net, &params, &batch);
    // The result of the head: the last node enlarges it.
    let mut small = net.clone();
    small.logits = net.nodes[net.logits].inputs[0];
    let small = verify::logits(&small, &params, &batch);
    let ranges = ranges::calibrate(&net, &params, [batch.copy()].into_iter(), CalibrationMethod::MinMax).unwrap();
    let bytes = |tensor: Tensor| verify::image_bytes(&tensor.to_kind(Kind::Uint8));
    for argmax_stride2 in [false, true] {
        let options = GraphOptions { confidence: true, scores: true, argmax_stride2, ..GraphOptions::new(64, 48) };
        let found = verify::run(&float::model(&net, &params, &options).to_bytes(), &batch).unwrap();
        let mask = match argmax_stride2 {
            true => small.argmax(1, true).to_kind(Kind::Float).upsample_nearest2d([48, 64], None, None),
            false => full.argmax(1, false),
        };
        assert!(verify::share_equal(&found.mask, &bytes(mask)) > 0.999);
        let expected = bytes((small.softmax(1, Kind::Float).amax([1], false) * 255.0).round());
        let confidence = found.confidence.unwrap();
        assert_eq!(confidence.len(), 2 * 24 * 32);
        assert!(confidence.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));

        let model = int8::model(&net, &params, &ranges, &options, Target::Cpu, WeightBits::Fitted);
        let quantised = verify::run(&model.to_bytes(), &batch).unwrap();
        assert!(verify::share_equal(&quantised.mask, &found.mask) > 0.9);
        assert_eq!(quantised.confidence.unwrap().len(), confidence.len());

        let logits: Vec<f32> = float::values(&small);
        let scores = found.scores.unwrap();
        assert_eq!(scores.len(), logits.len());
        assert!(scores.iter().zip(&logits).all(|(a, b)| (a - b).abs() < 1e-3), "channels first, as libtorch has them");
        let last = Tensor::from_slice(&quantised.scores.unwrap()).reshape([2, 24, 32, net.classes()]);
        let same = last.argmax(3, false).eq_tensor(&small.argmax(1, false));
        assert!(same.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]) > 0.9, "channels last");
    }
}

#[test]
fn networks_of_any_output_stride_are_exported() {
    for (levels, factor) in [(5, 1), (3, 4)] {
        let decoder = Decoder { widths: vec![8; levels], ..Decoder::default() };
        let net = Encoder::EfficientnetLite0.unet(&decoder, 3).unwrap();
        assert_eq!(ops::small_logits(&net).1, factor);
        let params = parameters(&net, 17);
        let (folded, folded_params) = fold::fold(&net, &params);
        let batch = images(1, 32, 64, 17);
        let batches = || [batch.copy()].into_iter();
        let ranges = ranges::calibrate(&folded, &folded_params, batches(), CalibrationMethod::MinMax).unwrap();
        for argmax_stride2 in [false, true] {
            let options = GraphOptions { confidence: true, argmax_stride2, logits: true, ..GraphOptions::new(64, 32) };
            let float = float::model(&folded, &folded_params, &options);
            if !argmax_stride2 {
                verify::same(&float.to_bytes(), &net, &params, &batch).unwrap();
            }
            let int8 = int8::model(&folded, &folded_params, &ranges, &options, Target::Cpu, WeightBits::Fitted);
            for model in [float, int8] {
                let found = verify::run(&model.to_bytes(), &batch).unwrap();
                assert_eq!((found.mask.len(), found.confidence.unwrap().len()), (32 * 64, 16 * 32));
            }
        }
    }
}

/// The number of nodes of each operator in a model after the optimisation by ONNX Runtime.
fn optimised_operators(model: &ModelProto) -> std::collections::BTreeMap<String, usize> {
    let optimised = maskcast::segment::probe::optimised(&model.to_bytes()).unwrap();
    let mut operations = std::collections::BTreeMap::new();
    let model = ModelProto::decode(optimised.as_slice()).unwrap();
    for node in model.graph.unwrap().node {
        *operations.entry(node.op_type).or_default() += 1;
    }
    operations
}

#[test]
fn an_int8_u_net_computes_on_bytes_only() {
    let net = Encoder::EfficientnetLite0.unet(&Decoder::default(), 11).unwrap();
    let params = parameters(&net, 7);
    let (folded, folded_params) = fold::fold(&net, &params);
    let image = images(1, 64, 96, 7);
    let float = float::model(&folded, &folded_params, &with_logits(96, 64));
    verify::same(&float.to_bytes(), &net, &params, &image).unwrap();
    let batches = (0..3).map(|seed| images(1, 64, 96, seed));
    let ranges = ranges::calibrate(&folded, &folded_params, batches, CalibrationMethod::MinMax).unwrap();
    let options = GraphOptions::new(96, 64);
    let model = int8::model(&folded, &folded_params, &ranges, &options, Target::Cpu, WeightBits::Fitted);
    let left = optimised_operators(&model);
    let convolutions = folded.nodes.iter().filter(|node| matches!(node.op, Op::Conv(_))).count();
    assert_eq!(left.get("QLinearConv"), Some(&convolutions), "{left:?}");
    // The values after the head are floats.
    assert_eq!((left.get("DequantizeLinear"), left.get("QuantizeLinear")), (Some(&1), None), "{left:?}");
    for removed in ["Conv", "FusedConv", "Add", "Relu", "Clip", "Sub", "Div", "Transpose"] {
        assert_eq!(left.get(removed), None, "{left:?}");
    }
}

fn labels(count: u8) -> Vec<Label> {
    let weight = |n: u8| Weight::try_from(f64::from(n % 4) / 3.0).unwrap();
    let label = |n| Label { name: format!("class{n}"), color: Rgb(n, 2 * n, 3 * n), weight: weight(n) };
    (0..count).map(label).collect()
}

/// Exports the network with every operation, with `label_count` labels.
fn export_to(
    path: &Path,
    precision: Precision,
    label_count: u8,
    evaluate: Option<Evaluate<'_>>,
) -> Result<Exported, ExportError> {
    let net = every_operation(BYTES);
    let params = parameters(&net, 11);
    let golden = verify::image_bytes(&images(1, 48, 64, 1));
    export(ExportRequest {
        net: &net,
        params: &params,
        labels: &labels(label_count),
        train: &serde_json::json!({"epochs": 3}),
        graph: GraphOptions::new(64, 48),
        regions: None,
        precision,
        golden: &golden,
        calibration: &mut (0..3).map(|seed| images(1, 48, 64, seed)),
        evaluate: evaluate.map(|evaluate| evaluate as Evaluate<'_>),
        max_loss: MAX_MIOU_LOSS,
        path,
    })
}

const INT8: Precision =
    Precision::Int8 { target: Target::Cpu, weights: WeightBits::Fitted, calibration: CalibrationMethod::MinMax };

#[test]
fn the_service_loads_an_exported_file_with_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    for precision in [Precision::Float, INT8] {
        let path = folder.path().join("model.onnx");
        let exported = export_to(&path, precision, 5, None).unwrap();
        assert_eq!(exported.bytes, std::fs::metadata(&path).unwrap().len());
        assert!(exported.agreement.masks >= verify::MASK_AGREEMENT);
        assert_eq!(exported.int8.is_some(), precision == INT8);
        let mut config = ModelConfig::with_path(&path);
        config.providers = vec![Provider::Cpu];
        let model = onnx::Model::load(&config, 1).unwrap();
        assert_eq!(model.golden_difference, Some(0.0));
        assert_eq!(model.contract.labels[..], labels(5)[..]);
        assert_eq!(model.contract.train, Some(serde_json::json!({"epochs": 3})));
        assert!(model.contract.describes_itself() && model.contract.input.dynamic_batch);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    }
}

#[test]
fn int8_that_loses_more_than_one_point_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, "old").unwrap();
    for (second, refused) in [(0.689, true), (f64::NAN, true), (0.691, false)] {
        let mut scores = [0.7, second].into_iter();
        let mut evaluate = |file: &Path| {
            assert!(file.exists() && file != path);
            Ok(scores.next().unwrap())
        };
        match export_to(&path, INT8, 5, Some(&mut evaluate)) {
            Ok(exported) => assert_eq!(exported.int8.unwrap().miou, Some((0.7, second))),
            Err(error) => {
                assert!(matches!(error, ExportError::AccuracyLoss { .. }), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), b"old");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap() == b"old", refused);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    }
}

#[test]
fn a_wrong_request_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = export_to(&folder.path().join("model.onnx"), Precision::Float, 4, None).unwrap_err();
    assert!(matches!(error, ExportError::Labels { labels: 4, classes: 5 }), "{error}");
    let missing = folder.path().join("none/model.onnx");
    let error = export_to(&missing, Precision::Float, 5, None).unwrap_err();
    assert!(matches!(&error, ExportError::Write { path, .. } if *path == missing), "{error}");
    let net = every_operation(BYTES);
    let error = check(&net, &labels(5), &GraphOptions::new(60, 48), &[]).unwrap_err();
    assert!(matches!(error, ExportError::InputSize { width: 60, height: 48, stride: 8 }), "{error}");
    let error = check(&net, &labels(5), &GraphOptions::new(64, 48), &[0; 3]).unwrap_err();
    assert!(matches!(error, ExportError::GoldenSize { bytes: 3, .. }), "{error}");
    let error = check_batch(&images(1, 48, 32, 1), &GraphOptions::new(64, 48)).unwrap_err();
    assert!(matches!(error, ExportError::CalibrationShape { .. }), "{error}");
}

#[test]
fn a_file_that_computes_something_else_is_refused() {
    let net = every_operation(BYTES);
    let params = parameters(&net, 13);
    let (folded, folded_params) = fold::fold(&net, &parameters(&net, 14));
    let model = float::model(&folded, &folded_params, &with_logits(64, 48));
    let error = verify::same(&model.to_bytes(), &net, &params, &images(1, 48, 64, 1)).unwrap_err();
    assert!(matches!(error, VerifyError::Different { .. }), "{error}");
}
