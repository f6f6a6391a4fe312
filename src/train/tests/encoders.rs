//! Tests of pretrained encoders on photographs: with the layers that they were trained with, the fetched weights classify the
//! image or find its edges.
//!
//! A wrong padding changes the features, but hardly the class: for sides divisible by 32, symmetric padding mirrors that of
//! TensorFlow, and a classifier averages over the image. The results with symmetric padding are therefore printed and not
//! checked. `maskcast_train::encoders` tests that the padding is that of TensorFlow.
//!
//! The photographs (from the package of scikit-image) and the weights are in `.testdata/`. `make setup-test` downloads the
//! photographs, and the tests fetch the weights.

use std::path::{Path, PathBuf};

use maskcast_train::encoders::{Encoder, Flavour, Variant};
use maskcast_train::net::exec::{RunOptions, forward, input, visit};
use maskcast_train::net::{Net, NetBuilder, Op, Padding, Params};
use maskcast_train::weights::{self, Mapping, WeightsError, WeightsFile, hdf5};
use opencv::core::{Mat, Rect, Size};
use opencv::prelude::*;
use opencv::{imgcodecs, imgproc};
use tch::{Device, Kind, Tensor, no_grad};

/// The photographs, and the indices of their right classes in ImageNet.
const PHOTOS: [(&str, &[i64]); 2] = [
    // Tabby, tiger cat, Egyptian cat.
    ("chelsea.png", &[281, 282, 285]),
    // Espresso, cup.
    ("coffee.png", &[967, 968]),
];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.testdata")
}

/// The pretrained weights, fetched if necessary.
fn pretrained(encoder: Encoder) -> WeightsFile {
    let path = weights::get(&encoder.to_string(), Some(&testdata().join("encoders"))).unwrap();
    weights::read(&path).unwrap()
}

/// The middle square of a photograph, RGB bytes `[1, size, size, 3]`.
fn photo(name: &str, size: i32) -> Tensor {
    let path = testdata().join("photos").join(name);
    assert!(path.exists(), "{} is missing: run `make setup-test`", path.display());
    let image = imgcodecs::imread(&path, imgcodecs::IMREAD_COLOR).unwrap();
    let side = image.rows().min(image.cols());
    let middle = Rect::new((image.cols() - side) / 2, (image.rows() - side) / 2, side, side);
    let square = Mat::roi(&image, middle).unwrap().try_clone().unwrap();
    let mut small = Mat::default();
    imgproc::resize(&square, &mut small, Size::new(size, size), 0.0, 0.0, imgproc::INTER_AREA).unwrap();
    // OpenCV has the order BGR.
    Tensor::from_slice(small.data_bytes().unwrap()).reshape([1, i64::from(size), i64::from(size), 3]).flip([3])
}

/// The encoder without a decoder, with the weights of the file.
fn loaded(variant: Variant, file: &WeightsFile) -> (Net, Params) {
    let net = variant.alone();
    let mut params = Params::fresh(&net, 1);
    weights::load_encoder(&net, &mut params, file, &Mapping::detect(variant.encoder, file)).unwrap();
    (net, params)
}

/// The network with symmetric padding.
fn padded_symmetrically(mut net: Net) -> Net {
    for node in &mut net.nodes {
        if let Op::Conv(conv) = &mut node.op {
            conv.padding = Padding::both(conv.kernel / 2);
        }
    }
    net
}

/// The probabilities of the classes `[1000]`, by the encoder and the classifier of the same file.
fn classify(net: &Net, params: &Params, file: &WeightsFile, rgb: &Tensor) -> Tensor {
    let tensor = |name: &str| &file.tensors[name];
    no_grad(|| {
        let features = forward(net, params, &input(rgb, &net.normalise, Device::Cpu), &RunOptions::EVAL);
        let x = features.conv2d(tensor("_conv_head.weight"), None::<Tensor>, [1, 1], [0, 0], [1, 1], 1).batch_norm(
            Some(tensor("_bn1.weight")),
            Some(tensor("_bn1.bias")),
            Some(tensor("_bn1.running_mean")),
            Some(tensor("_bn1.running_var")),
            false,
            0.0,
            Flavour::Lite.eps(),
            false,
        );
        let x = x.clamp(0.0, 6.0).mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        x.linear(tensor("_fc.weight"), Some(tensor("_fc.bias"))).softmax(-1, Kind::Float).squeeze()
    })
}

/// The class with the highest probability, and the sum of the probabilities of the classes `right`.
fn best_class(probabilities: &Tensor, right: &[i64]) -> (i64, f64) {
    let sum = right.iter().map(|&class| probabilities.double_value(&[class])).sum();
    (probabilities.argmax(0, false).int64_value(&[]), sum)
}

fn check_classes(encoder: Encoder, size: i32) {
    let file = pretrained(encoder);
    let variant = file.variant(encoder, None);
    assert_eq!(variant.flavour, Flavour::Lite);
    let (net, params) = loaded(variant, &file);
    let padded = padded_symmetrically(net.clone());
    let scaled = Net { normalise: Flavour::Torchvision.normalise(), ..net.clone() };
    for (name, right) in PHOTOS {
        let rgb = photo(name, size);
        let result = |net: &Net| best_class(&classify(net, &params, &file, &rgb), right);
        let ((class, probability), (_, with_padding), (_, with_scale)) =
            (result(&net), result(&padded), result(&scaled));
        println!(
            "{encoder} {name}: class {class}, {probability:.3}; \
             with symmetric padding {with_padding:.3}; with ImageNet's mean and deviation {with_scale:.3}"
        );
        assert!(right.contains(&class), "{encoder} {name}: class {class} (right classes: {probability:.3})");
    }
    let deepest = |net: &Net| {
        let image = input(&photo(PHOTOS[0].0, size), &net.normalise, Device::Cpu);
        no_grad(|| forward(net, &params, &image, &RunOptions::EVAL))
    };
    let (features, others) = (deepest(&net), deepest(&padded));
    let difference = (&features - others).norm().double_value(&[]) / features.norm().double_value(&[]);
    println!("{encoder}: relative difference of the deepest features with symmetric padding: {difference:.2}");
    assert!(difference > 0.1, "{difference}");
}

#[test]
fn efficientnet_lite0_classifies_photographs() {
    check_classes(Encoder::EfficientnetLite0, 224);
}

#[test]
fn efficientnet_lite1_classifies_photographs() {
    check_classes(Encoder::EfficientnetLite1, 256);
}

#[test]
fn efficientnet_lite2_classifies_photographs() {
    check_classes(Encoder::EfficientnetLite2, 256);
}

/// The difference between the images and the training images, by the running statistics of the batch norms: the mean square of
/// (mean of a channel - running mean) / running deviation, over all layers.
fn distance_to_training(net: &Net, params: &Params, images: &[Tensor]) -> f64 {
    let (mut total, mut layers) = (0.0, 0);
    for rgb in images {
        no_grad(|| {
            let mut before = Tensor::zeros([1], (Kind::Float, Device::Cpu));
            visit(net, params, &input(rgb, &net.normalise, Device::Cpu), &RunOptions::EVAL, |index, value| {
                let node = &net.nodes[index];
                if let Op::BatchNorm { eps, .. } = node.op {
                    let statistic = |name: &str| params.get(&format!("{}.{name}", node.name));
                    let mean = before.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
                    let distance = (mean - statistic("running_mean")) / (statistic("running_var") + eps).sqrt();
                    total += distance.square().mean(Kind::Float).double_value(&[]);
                    layers += 1;
                }
                before = value.shallow_clone();
            });
        });
    }
    total / f64::from(layers)
}

/// The file has no classifier of ImageNet. The running statistics depend on the normalisation of the training.
#[test]
fn mobilenet_v2_statistics_fit_the_normalisation_of_the_flavour() {
    let file = pretrained(Encoder::MobilenetV2);
    let variant = file.variant(Encoder::MobilenetV2, None);
    assert_eq!(variant.flavour, Flavour::Tensorflow);
    let images: Vec<Tensor> = PHOTOS.iter().map(|(name, _)| photo(name, 160)).collect();
    let (net, params) = loaded(variant, &file);
    let right = distance_to_training(&net, &params, &images);
    let scaled = Net { normalise: Flavour::Torchvision.normalise(), ..net };
    let wrong = distance_to_training(&scaled, &params, &images);
    println!("mobilenet-v2: {right:.3}; with ImageNet's mean and deviation {wrong:.3}");
    assert!(right < wrong);
}

#[test]
fn an_incomplete_keras_file_is_refused() {
    let whole = std::fs::read(pretrained(Encoder::MobilenetV2).path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.h5");
    for length in [9, 100, 5_000, whole.len() / 2, whole.len() - 1_000] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = weights::read(&path).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, WeightsError::Damaged { .. } | WeightsError::NotWeights { .. }),
            "{length} bytes: {error}"
        );
    }
}

/// The logits `[H, W]` of the edge detector in the file of VGG16 (Xie and Tu, 2015): a convolution of the features of each level,
/// enlarged, and a convolution of their concatenation.
fn edges(net: &Net, variant: Variant, params: &Params, file: &WeightsFile, rgb: &Tensor) -> Tensor {
    let datasets = hdf5::datasets(&file.path).unwrap();
    let tensor = |name: &str| {
        let dataset = &datasets[name];
        let tensor = Tensor::from_slice(&dataset.values).reshape(&dataset.shape);
        if dataset.shape.len() == 4 { tensor.permute([3, 2, 0, 1]).contiguous() } else { tensor }
    };
    let levels: Vec<usize> = variant.build(&mut NetBuilder::new()).iter().map(|feature| feature.node).collect();
    let (height, width) = (rgb.size()[1], rgb.size()[2]);
    let point = |x: &Tensor, name: &str| {
        let bias = tensor(&format!("{name}/vars/1"));
        x.conv2d(&tensor(&format!("{name}/vars/0")), Some(&bias), [1, 1], [0, 0], [1, 1], 1)
    };
    no_grad(|| {
        let mut sides = Vec::new();
        visit(net, params, &input(rgb, &net.normalise, Device::Cpu), &RunOptions::EVAL, |index, value| {
            if levels[..5].contains(&index) {
                let side = point(value, &format!("dsn{}", sides.len() + 1));
                sides.push(side.upsample_bilinear2d([height, width], false, None, None));
            }
        });
        point(&Tensor::cat(&sides, 1), "fuse").squeeze()
    })
}

/// The Pearson correlation coefficient.
fn correlation(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a - a.mean(Kind::Float), b - b.mean(Kind::Float));
    (&a * &b).sum(Kind::Float).double_value(&[]) / (a.norm() * b.norm()).double_value(&[])
}

#[test]
fn vgg16_finds_edges() {
    let file = pretrained(Encoder::Vgg16);
    let variant = file.variant(Encoder::Vgg16, None);
    assert_eq!(variant.flavour, Flavour::Caffe);
    assert!(file.other_names.contains(&"dsn1/vars/0".to_string()));
    let (net, params) = loaded(variant, &file);
    let rgb = photo("coffee.png", 224);
    // The differences between each pixel and its neighbours below and to the right, smoothed to the width of the detected lines.
    let grey = rgb.to_kind(Kind::Float).mean_dim([3i64].as_slice(), false, Kind::Float);
    let (down, right) = (grey.diff::<Tensor>(1, 1, None, None), grey.diff::<Tensor>(1, 2, None, None));
    let steps = down.narrow(2, 0, 223).abs() + right.narrow(1, 0, 223).abs();
    let steps = steps.avg_pool2d([7, 7], [1, 1], [3, 3], false, true, None).squeeze();
    let correlation_with_steps = |net: &Net| {
        let edges = edges(net, variant, &params, &file, &rgb).sigmoid();
        correlation(&edges.narrow(0, 0, 223).narrow(1, 0, 223), &steps)
    };
    let scaled = Net { normalise: Flavour::Torchvision.normalise(), ..net.clone() };
    let (right, wrong) = (correlation_with_steps(&net), correlation_with_steps(&scaled));
    println!(
        "vgg16: correlation of edges and steps in brightness {right:.2}; with ImageNet's mean and deviation {wrong:.2}"
    );
    assert!(right > 0.5 && right > wrong);
}
