//! Networks that are read back from exported files.

use super::*;
use crate::net::decoder::DecoderKind;
use crate::net::exec::{self, RunOptions};
use crate::weights::{ModelDescription, ModelFile};

/// Exports a network and reads it back. Returns the logits of an image before and after.
fn exported_and_read(encoder: Encoder, kind: DecoderKind, precision: Precision) -> (Tensor, Tensor, StoredModel) {
    let decoder = Decoder { kind, widths: vec![8, 8] };
    let net = encoder.unet(&decoder, 3).unwrap();
    let mut params = parameters(&net, 5);
    // Weights with which the activations neither vanish nor explode.
    let inputs = (0..4).map(|seed| exec::input(&images(1, 64, 96, seed), &net.normalise, tch::Device::Cpu));
    crate::net::statistics::estimate(&net, &mut params, inputs);
    for node in net.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })) {
        params.0.insert(format!("{}.weight", node.name), params.get(&format!("{}.weight", node.name)).ones_like());
        params.0.insert(format!("{}.bias", node.name), params.get(&format!("{}.bias", node.name)).zeros_like() + 0.1);
    }
    let inputs = (0..4).map(|seed| exec::input(&images(1, 64, 96, seed), &net.normalise, tch::Device::Cpu));
    crate::net::statistics::estimate(&net, &mut params, inputs);
    // The export compares logits by an absolute difference, for which those of a random network are too large.
    params.0.insert("head.weight".into(), params.get("head.weight") * 0.05);
    let labels = ["a", "b", "c"].map(|name| Label::new(name, Rgb(1, 2, 3)));
    let widths: Vec<String> = decoder.widths.iter().map(i64::to_string).collect();
    let kind = match kind {
        DecoderKind::Dense => "dense",
        DecoderKind::Separable => "separable",
    };
    let train = serde_json::json!({ "encoder": encoder, "decoder": format!("{kind} {}", widths.join("-")) });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let golden = verify::image_bytes(&images(1, 64, 96, 9));
    export(ExportRequest {
        net: &net,
        params: &params,
        labels: &labels,
        train: &train,
        graph: GraphOptions { scores: true, ..GraphOptions::new(96, 64) },
        regions: None,
        precision,
        golden: &golden,
        calibration: &mut (0..8).map(|seed| images(1, 64, 96, seed)),
        evaluate: None,
        max_loss: MAX_MIOU_LOSS,
        path: &path,
    })
    .unwrap();
    let read = StoredModel::read(&path).unwrap();
    let image = images(1, 64, 96, 3);
    let ModelFile { description, params: stored } = &read.file;
    let logits = verify::logits(&description.net().unwrap(), stored, &image);
    (verify::logits(&net, &params, &image), logits, read)
}

#[test]
fn float_files_give_back_their_network() {
    for (encoder, kind) in [
        (Encoder::MobilenetV2, DecoderKind::Dense),
        (Encoder::EfficientnetLite0, DecoderKind::Separable),
        (Encoder::Resnet18, DecoderKind::Dense),
        (Encoder::Vgg11, DecoderKind::Dense),
    ] {
        let (expected, found, read) = exported_and_read(encoder, kind, Precision::Float);
        let error = relative(&found, &expected);
        assert!(error < 1e-3, "{encoder}: {error}");
        let description: &ModelDescription = &read.file.description;
        assert_eq!((description.encoder, description.normalise), (encoder, encoder.normalise()));
        assert_eq!(description.net().unwrap().param_specs().len(), read.file.params.0.len());
    }
}

#[test]
fn int8_files_give_back_their_network_with_rounded_weights() {
    for (encoder, target) in [
        (Encoder::EfficientnetLite0, Target::Cpu),
        (Encoder::Resnet18, Target::Cpu),
        (Encoder::MobilenetV2, Target::Tensorrt),
    ] {
        let calibration = CalibrationMethod::MinMax;
        let precision = Precision::Int8 { target, weights: WeightBits::Fitted, calibration };
        let (expected, found, read) = exported_and_read(encoder, DecoderKind::Dense, precision);
        let error = relative(&found, &expected);
        assert!(error < 0.1, "{encoder}: {error}");
        // Weights have the size of freshly initialised ones.
        let weight = read.file.params.get("decoder.0.0.conv.weight");
        let fan = weight.size()[1..].iter().product::<i64>() as f64;
        let size = weight.square().mean(Kind::Double).double_value(&[]).sqrt() / (2.0 / fan).sqrt();
        assert!((size - 1.0).abs() < 1e-3, "{encoder}: {size}");
    }
}

#[test]
fn a_network_that_was_read_can_be_trained_with_the_statistics_of_batches() {
    let (expected, _, read) = exported_and_read(Encoder::EfficientnetLite0, DecoderKind::Dense, Precision::Float);
    let ModelFile { description, mut params } = read.file;
    let net = description.net().unwrap();
    let input = exec::input(&images(1, 64, 96, 3), &net.normalise, tch::Device::Cpu);
    crate::net::statistics::estimate(&net, &mut params, [input.copy()].into_iter());
    let run = RunOptions { batch_statistics: &|_| true, precision: Kind::Float };
    let found = tch::no_grad(|| exec::forward(&net, &params, &input, &run));
    let error = relative(&found, &expected);
    assert!(error < 0.02, "{error}");
}
