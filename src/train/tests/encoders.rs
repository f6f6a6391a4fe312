//! Pretrained encoders on real photographs: the fetched weights, under the layers that they were trained with, name
//! what is in the image or find its edges.
//!
//! A wrong padding changes the features and hardly the answer: on sides divisible by 32, padding on both sides comes to
//! the mirror image of TensorFlow's, and a classifier averages over the places. So the answers with other padding are
//! printed, not judged (some are surer); that the padding is TensorFlow's is tested by its definition in
//! `maskcast_train::encoders`.
//!
//! Photographs (out of scikit-image's package) and weights lie in `.testdata/`; `make setup-test` puts the former
//! there, the trainer's own `weights get` the latter.

use std::path::{Path, PathBuf};

use maskcast_train::encoders::{Encoder, Flavour, Variant};
use maskcast_train::net::exec::{RunOptions, forward, input, visit};
use maskcast_train::net::{Net, NetBuilder, Op, Padding, Params};
use maskcast_train::weights::{self, Mapping, WeightsFile, hdf5};
use opencv::core::{Mat, Rect, Size};
use opencv::prelude::*;
use opencv::{imgcodecs, imgproc};
use tch::{Device, Kind, Tensor, no_grad};

/// ImageNet's numbers of the classes that may be said of each photograph.
const PHOTOS: [(&str, &[i64]); 2] = [
    // Tabby, tiger cat, Egyptian cat.
    ("chelsea.png", &[281, 282, 285]),
    // Espresso, cup.
    ("coffee.png", &[967, 968]),
];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.testdata")
}

/// The weights, fetched by the trainer itself where they are not there yet.
fn pretrained(encoder: Encoder) -> WeightsFile {
    let path = weights::get(&encoder.to_string(), Some(&testdata().join("encoders"))).unwrap();
    weights::read(&path).unwrap()
}

/// The photograph's middle square, `[1, size, size, 3]` bytes, RGB.
fn photo(name: &str, size: i32) -> Tensor {
    let path = testdata().join("photos").join(name);
    assert!(path.exists(), "{} is missing: run `make setup-test`", path.display());
    let image = imgcodecs::imread(&path, imgcodecs::IMREAD_COLOR).unwrap();
    let side = image.rows().min(image.cols());
    let middle = Rect::new((image.cols() - side) / 2, (image.rows() - side) / 2, side, side);
    let square = Mat::roi(&image, middle).unwrap().try_clone().unwrap();
    let mut small = Mat::default();
    imgproc::resize(&square, &mut small, Size::new(size, size), 0.0, 0.0, imgproc::INTER_AREA).unwrap();
    // OpenCV's order is BGR.
    Tensor::from_slice(small.data_bytes().unwrap()).reshape([1, i64::from(size), i64::from(size), 3]).flip([3])
}

/// The encoder alone, with the file's weights.
fn loaded(variant: Variant, file: &WeightsFile) -> (Net, Params) {
    let net = variant.alone();
    let mut params = Params::fresh(&net, 1);
    weights::load_encoder(&net, &mut params, file, &Mapping::detect(variant.encoder, file)).unwrap();
    (net, params)
}

/// The same network with PyTorch's padding, the same on both sides.
fn padded_symmetrically(mut net: Net) -> Net {
    for node in &mut net.nodes {
        if let Op::Conv(conv) = &mut node.op {
            conv.padding = Padding::both(conv.kernel / 2);
        }
    }
    net
}

/// The classes' probabilities `[1000]` by the encoder and, on top of it, the classifier out of the same file.
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

/// The likeliest class, and the probability of all those of `wanted` together.
fn judged(probabilities: &Tensor, wanted: &[i64]) -> (i64, f64) {
    let sum = wanted.iter().map(|&class| probabilities.double_value(&[class])).sum();
    (probabilities.argmax(0, false).int64_value(&[]), sum)
}

fn names_what_is_in_photographs(encoder: Encoder, size: i32) {
    let file = pretrained(encoder);
    let variant = file.variant(encoder, None);
    assert_eq!(variant.flavour, Flavour::Lite);
    let (net, params) = loaded(variant, &file);
    let padded = padded_symmetrically(net.clone());
    let scaled = Net { normalise: Flavour::Torchvision.normalise(), ..net.clone() };
    for (name, wanted) in PHOTOS {
        let rgb = photo(name, size);
        let answer = |net: &Net| judged(&classify(net, &params, &file, &rgb), wanted);
        let ((class, sure), (_, sure_padded), (_, sure_scaled)) = (answer(&net), answer(&padded), answer(&scaled));
        println!(
            "{encoder} {name}: class {class}, {sure:.3}; \
             padded symmetrically {sure_padded:.3}; with ImageNet's mean and deviation {sure_scaled:.3}"
        );
        assert!(wanted.contains(&class), "{encoder} takes {name} for class {class} (right ones: {sure:.3})");
    }
    let deepest = |net: &Net| {
        let image = input(&photo(PHOTOS[0].0, size), &net.normalise, Device::Cpu);
        no_grad(|| forward(net, &params, &image, &RunOptions::EVAL))
    };
    let (features, others) = (deepest(&net), deepest(&padded));
    let apart = (&features - others).norm().double_value(&[]) / features.norm().double_value(&[]);
    println!("{encoder}: deepest features with symmetric padding are {apart:.2} of their size apart");
    assert!(apart > 0.1, "{apart}");
}

#[test]
fn efficientnet_lite0_names_what_is_in_photographs() {
    names_what_is_in_photographs(Encoder::EfficientnetLite0, 224);
}

#[test]
fn efficientnet_lite1_names_what_is_in_photographs() {
    names_what_is_in_photographs(Encoder::EfficientnetLite1, 256);
}

#[test]
fn efficientnet_lite2_names_what_is_in_photographs() {
    names_what_is_in_photographs(Encoder::EfficientnetLite2, 256);
}

/// How far the photographs are from what the weights' batch norms saw when they were trained: the mean square of
/// (channel's mean - running mean) / running deviation, over all layers.
fn strangeness(net: &Net, params: &Params, images: &[Tensor]) -> f64 {
    let (mut total, mut layers) = (0.0, 0);
    for rgb in images {
        no_grad(|| {
            let mut before = Tensor::zeros([1], (Kind::Float, Device::Cpu));
            visit(net, params, &input(rgb, &net.normalise, Device::Cpu), &RunOptions::EVAL, |index, value| {
                let node = &net.nodes[index];
                if let Op::BatchNorm { eps, .. } = node.op {
                    let statistic = |name: &str| params.get(&format!("{}.{name}", node.name));
                    let mean = before.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
                    let off = (mean - statistic("running_mean")) / (statistic("running_var") + eps).sqrt();
                    total += off.square().mean(Kind::Float).double_value(&[]);
                    layers += 1;
                }
                before = value.shallow_clone();
            });
        });
    }
    total / f64::from(layers)
}

/// Its file has no ImageNet classifier, but its running statistics tell which input they come from.
#[test]
fn mobilenet_v2s_statistics_know_their_flavour() {
    let file = pretrained(Encoder::MobilenetV2);
    let variant = file.variant(Encoder::MobilenetV2, None);
    assert_eq!(variant.flavour, Flavour::Tensorflow);
    let images: Vec<Tensor> = PHOTOS.iter().map(|(name, _)| photo(name, 160)).collect();
    let (net, params) = loaded(variant, &file);
    let right = strangeness(&net, &params, &images);
    let scaled = Net { normalise: Flavour::Torchvision.normalise(), ..net };
    let wrong = strangeness(&scaled, &params, &images);
    println!("mobilenet-v2: {right:.3}; with ImageNet's mean and deviation {wrong:.3}");
    assert!(right < wrong);
}

#[test]
fn a_cut_keras_file_is_refused() {
    let whole = std::fs::read(pretrained(Encoder::MobilenetV2).path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.h5");
    for length in [9, 100, 5_000, whole.len() / 2, whole.len() - 1_000] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = weights::read(&path).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("cut.h5"), "{message}");
    }
}

/// Its file is of an edge detector (Xie and Tu, 2015), whose own layers stand in for a classifier: one more convolution
/// on the features of each level, enlarged, summed up. Gives the edges' logits, `[H, W]`.
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

/// Pearson's correlation.
fn correlation(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a - a.mean(Kind::Float), b - b.mean(Kind::Float));
    (&a * &b).sum(Kind::Float).double_value(&[]) / (a.norm() * b.norm()).double_value(&[])
}

#[test]
fn vgg16_finds_the_edges_that_it_was_last_trained_for() {
    let file = pretrained(Encoder::Vgg16);
    let variant = file.variant(Encoder::Vgg16, None);
    assert_eq!(variant.flavour, Flavour::Caffe);
    assert!(file.beside.contains(&"dsn1/vars/0".to_string()));
    let (net, params) = loaded(variant, &file);
    let rgb = photo("coffee.png", 224);
    // How much each pixel differs from its neighbours below and to the right, smoothed as wide as the detector's lines.
    let grey = rgb.to_kind(Kind::Float).mean_dim([3i64].as_slice(), false, Kind::Float);
    let (down, right) = (grey.diff::<Tensor>(1, 1, None, None), grey.diff::<Tensor>(1, 2, None, None));
    let steps = down.narrow(2, 0, 223).abs() + right.narrow(1, 0, 223).abs();
    let steps = steps.avg_pool2d([7, 7], [1, 1], [3, 3], false, true, None).squeeze();
    let agreement = |net: &Net| {
        let edges = edges(net, variant, &params, &file, &rgb).sigmoid();
        correlation(&edges.narrow(0, 0, 223).narrow(1, 0, 223), &steps)
    };
    let (agrees, otherwise) =
        (agreement(&net), agreement(&Net { normalise: Flavour::Torchvision.normalise(), ..net.clone() }));
    println!(
        "vgg16: edges and steps in brightness correlate by {agrees:.2}; with ImageNet's mean and deviation {otherwise:.2}"
    );
    assert!(agrees > 0.5 && agrees > otherwise);
}
