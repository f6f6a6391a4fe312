//! Tests of all encoders: shapes, sizes, names, and U-Nets with them.

use clap::ValueEnum;
use tch::{Device, Kind, Tensor};

use super::{Encoder, Flavour, Variant};
use crate::net::decoder::{Decoder, NetError};
use crate::net::exec::{RunOptions, forward, input, visit};
use crate::net::{NetBuilder, Op, Params};
use crate::random;

/// One image `[1, 64, 96, 3]` of noise.
fn noise() -> Tensor {
    use rand::RngExt;
    let mut rng = random::named_generator(1, "noise");
    let bytes: Vec<u8> = (0..64 * 96 * 3).map(|_| rng.random()).collect();
    Tensor::from_slice(&bytes).reshape([1, 64, 96, 3])
}

#[test]
fn features_have_the_declared_channels_and_strides() {
    for &encoder in Encoder::value_variants() {
        for flavour in [Flavour::Torchvision, Flavour::Tensorflow] {
            let variant = encoder.flavoured(flavour);
            let features = variant.build(&mut NetBuilder::new());
            let strides: Vec<i64> = features.iter().map(|feature| feature.stride).collect();
            let expected: &[i64] = match encoder {
                Encoder::Vgg11 | Encoder::Vgg11Bn | Encoder::Vgg16 | Encoder::Vgg16Bn => &[1, 2, 4, 8, 16, 32],
                Encoder::Unet => &[1, 2, 4, 8, 16],
                _ => &[2, 4, 8, 16, 32],
            };
            assert_eq!(strides, expected, "{encoder}");
            let net = variant.alone();
            let params = Params::fresh(&net, 1);
            let mut seen = 0;
            let image = input(&noise(), &net.normalise, Device::Cpu);
            tch::no_grad(|| {
                visit(&net, &params, &image, &RunOptions::EVAL, |node, value| {
                    if let Some(feature) = features.iter().find(|feature| feature.node == node) {
                        let shape = [1, feature.channels, 64 / feature.stride, 96 / feature.stride];
                        assert_eq!(value.size(), shape, "{encoder}, stride {}", feature.stride);
                        seen += 1;
                    }
                });
            });
            assert_eq!(seen, features.len(), "{encoder}");
        }
    }
}

#[test]
fn a_unet_with_any_encoder_returns_logits_in_the_size_of_the_image() {
    let image = noise();
    for &encoder in Encoder::value_variants() {
        for classes in [2, 11] {
            let net = encoder.unet(&Decoder::default(), classes).unwrap();
            let params = Params::fresh(&net, 1);
            let image = input(&image, &net.normalise, Device::Cpu);
            let logits = tch::no_grad(|| forward(&net, &params, &image, &RunOptions::EVAL));
            assert_eq!(logits.size(), [1, classes, 64, 96], "{encoder}");
            assert_eq!(logits.kind(), Kind::Float);
            assert!(bool::try_from(logits.isfinite().all()).unwrap(), "{encoder}");
        }
    }
}

/// The numbers of learned parameters of the published networks, minus those of their classifiers.
#[test]
fn encoders_have_as_many_parameters_as_the_published_networks() {
    // The classifiers of the Lite networks: a 1×1 convolution to 1280 channels, its batch norm, and 1000 classes.
    let lite = |channels: i64| channels * 1280 + 2 * 1280 + 1280 * 1000 + 1000;
    for (encoder, parameters) in [
        (Encoder::EfficientnetLite0, 4_652_008 - lite(320)),
        (Encoder::EfficientnetLite1, 5_416_680 - lite(320)),
        (Encoder::EfficientnetLite2, 6_092_072 - lite(352)),
        (Encoder::MobilenetV2, 3_504_872 - lite(320)),
        (Encoder::Resnet18, 11_689_512 - 513_000),
        (Encoder::Resnet34, 21_797_672 - 513_000),
        (Encoder::Vgg11, 132_863_336 - 123_642_856),
        (Encoder::Vgg11Bn, 132_868_840 - 123_642_856),
        (Encoder::Vgg16, 138_357_544 - 123_642_856),
        (Encoder::Vgg16Bn, 138_365_992 - 123_642_856),
    ] {
        let specs = Variant::from(encoder).param_specs();
        let learned = specs.iter().filter(|spec| spec.learned);
        assert_eq!(learned.map(|spec| spec.shape.iter().product::<i64>()).sum::<i64>(), parameters, "{encoder}");
    }
}

/// Most of these layers are near the end of their network, so that the numbers of the layers before them are checked as well.
#[test]
fn layers_have_the_names_of_torchvision() {
    for (encoder, name) in [
        (Encoder::MobilenetV2, "features.17.conv.3.running_var"),
        (Encoder::MobilenetV2, "features.1.conv.2.weight"),
        (Encoder::Resnet18, "layer4.1.bn2.weight"),
        (Encoder::Resnet18, "layer4.0.downsample.1.running_mean"),
        (Encoder::Resnet34, "layer3.5.conv2.weight"),
        (Encoder::Vgg11, "features.18.bias"),
        (Encoder::Vgg11Bn, "features.26.running_mean"),
        (Encoder::Vgg16, "features.28.weight"),
        (Encoder::Vgg16Bn, "features.41.bias"),
    ] {
        let name = format!("encoder.{name}");
        assert!(Variant::from(encoder).param_specs().iter().any(|spec| spec.name == name), "{encoder}: {name}");
    }
}

#[test]
fn names_are_unique_and_stages_ascend() {
    for &encoder in Encoder::value_variants() {
        let net = Variant::from(encoder).alone();
        let names: std::collections::BTreeSet<&str> = net.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names.len(), net.nodes.len(), "{encoder}");
        assert!(net.nodes.is_sorted_by_key(|node| node.stage), "{encoder}");
    }
}

#[test]
fn names_are_the_same_in_json_and_on_the_command_line() {
    for &encoder in Encoder::value_variants() {
        let json = serde_json::to_value(encoder).unwrap();
        assert_eq!(json, encoder.to_string());
        assert_eq!(Encoder::from_str(&encoder.to_string(), false), Ok(encoder));
    }
    for &flavour in Flavour::value_variants() {
        assert_eq!(serde_json::to_value(flavour).unwrap(), flavour.to_string());
        assert_eq!(Flavour::from_str(&flavour.to_string(), false), Ok(flavour));
    }
}

/// TensorFlow's definition of "SAME" for any size.
fn tensorflow_padding(size: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let outputs = (size + stride - 1) / stride;
    let total = ((outputs - 1) * stride + kernel - size).max(0);
    (total / 2, total - total / 2)
}

#[test]
fn tensorflow_networks_have_same_padding() {
    for encoder in [Encoder::EfficientnetLite0, Encoder::EfficientnetLite2, Encoder::MobilenetV2] {
        let net = encoder.flavoured(Flavour::Tensorflow).alone();
        // The number of rows at each node for an image of 224×224.
        let mut rows: Vec<i64> = Vec::new();
        for node in &net.nodes {
            let above = node.inputs.first().map_or(224, |&input| rows[input]);
            let Op::Conv(conv) = node.op else {
                rows.push(above);
                continue;
            };
            let expected = tensorflow_padding(above, conv.kernel, conv.stride);
            assert_eq!((conv.padding.begin, conv.padding.end), expected, "{encoder}: {}", node.name);
            rows.push(above / conv.stride);
        }
    }
}

/// This is why a wrong padding does not change the result of a classifier.
#[test]
fn symmetric_and_same_padding_mirror_each_other() {
    let x = Tensor::arange(48, (Kind::Float, Device::Cpu)).reshape([1, 1, 6, 8]).sin();
    for kernel in [3, 5] {
        let weight = Tensor::arange(kernel * kernel, (Kind::Float, Device::Cpu)).reshape([1, 1, kernel, kernel]).cos();
        let conv = |x: &Tensor, weight: &Tensor, flavour: Flavour| {
            let padding = flavour.padding(kernel, 2);
            let x = x.pad([padding.begin, padding.end, padding.begin, padding.end], "constant", 0.0);
            x.conv2d(weight, None::<Tensor>, [2, 2], [0, 0], [1, 1], 1)
        };
        let same = conv(&x, &weight, Flavour::Tensorflow);
        let symmetric = conv(&x.flip([2, 3]), &weight.flip([2, 3]), Flavour::Torchvision).flip([2, 3]);
        assert!(same.allclose(&symmetric, 1e-6, 1e-6, false));
        assert!(!same.allclose(&conv(&x, &weight, Flavour::Torchvision), 1e-2, 1e-2, false));
    }
}

#[test]
fn a_decoder_that_does_not_fit_is_refused() {
    let error = |widths: &[i64], classes| {
        let decoder = Decoder { widths: widths.to_vec(), ..Decoder::default() };
        Encoder::Resnet18.unet(&decoder, classes).unwrap_err()
    };
    assert_eq!(error(&[], 2), NetError::Levels { stride: 32, max: 5, given: 0 });
    assert_eq!(error(&[8; 6], 2), NetError::Levels { stride: 32, max: 5, given: 6 });
    assert_eq!(error(&[8, 0], 2), NetError::Width(0));
    assert_eq!(error(&[8, 8], 1), NetError::Classes(1));
}
