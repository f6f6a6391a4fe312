//! Tests that write files of weights, read them, and load them into networks.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use maskcast::frame::{Label, Rgb};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::Tensor;

use super::*;
use crate::encoders::{Encoder, Flavour, Variant};
use crate::net::decoder::{Decoder, DecoderKind};
use crate::net::{Net, Params};
use crate::size::Size;
use crate::tensor_file;

/// Weights of an encoder with the names of their source, and a classifier.
fn published(encoder: Encoder, seed: u64) -> BTreeMap<String, Tensor> {
    let params = Params::fresh(&Variant::from(encoder).alone(), seed);
    let own = |(name, tensor): (String, Tensor)| (name.trim_start_matches("encoder.").to_string(), tensor);
    let mut tensors: BTreeMap<String, Tensor> = params.0.into_iter().map(own).collect();
    let classifier = match encoder {
        Encoder::Resnet18 | Encoder::Resnet34 => "fc.weight",
        Encoder::EfficientnetLite0 => "_fc.weight",
        _ => "classifier.6.weight",
    };
    tensors.insert(classifier.into(), Tensor::from_slice(&[1.0f32, 2.0]));
    tensors.insert("bn1.num_batches_tracked".into(), Tensor::from_slice(&[7.0f32]));
    tensors
}

fn saved(folder: &Path, tensors: &BTreeMap<String, Tensor>) -> PathBuf {
    let path = folder.join("weights.safetensors");
    tensor_file::write(&path, tensors.iter().map(|(name, tensor)| (name.clone(), tensor)), HashMap::new()).unwrap();
    path
}

/// The error of loading these tensors into this encoder: the differences and the hint.
fn misfit(encoder: Encoder, tensors: &BTreeMap<String, Tensor>) -> (Vec<Mismatch>, MisfitHint) {
    let folder = tempfile::tempdir().unwrap();
    let file = read(&saved(folder.path(), tensors)).unwrap();
    let net = encoder.unet(&Decoder::default(), 2).unwrap();
    let mut params = Params::fresh(&net, 1);
    let before = params.copied();
    let error = load_encoder(&net, &mut params, &file, &Mapping::detect(encoder, &file)).unwrap_err();
    assert!(params.0.iter().all(|(name, tensor)| tensor == before.get(name)), "the failed load changed parameters");
    parts(error)
}

fn parts(error: WeightsError) -> (Vec<Mismatch>, MisfitHint) {
    assert!(error.to_string().lines().count() < 15, "{error}");
    match error {
        WeightsError::Misfit { mismatches, hint, .. } => (mismatches.0, hint),
        other => panic!("{other}"),
    }
}

#[test]
fn weights_of_the_encoder_are_loaded_and_others_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = published(Encoder::Resnet18, 5);
    let file = read(&saved(folder.path(), &tensors)).unwrap();
    let net = Encoder::Resnet18.unet(&Decoder::default(), 2).unwrap();
    let mut params = Params::fresh(&net, 1);
    let decoder = params.get("decoder.0.0.conv.weight").copy();
    let report = load_encoder(&net, &mut params, &file, &Mapping::detect(Encoder::Resnet18, &file)).unwrap();
    assert_eq!(report.taken.len(), tensors.len() - 2);
    let skipped: Vec<&str> = report.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(skipped, ["bn1.num_batches_tracked", "fc.weight"]);
    assert!(report.to_string().contains("skipped 1 (classifier layer): fc.weight"), "{report}");
    assert_eq!(params.get("encoder.layer4.1.conv2.weight"), &tensors["layer4.1.conv2.weight"]);
    assert_eq!(params.get("decoder.0.0.conv.weight"), &decoder);
}

#[test]
fn weights_of_another_encoder_are_refused_with_its_name() {
    let (mismatches, hint) = misfit(Encoder::EfficientnetLite0, &published(Encoder::Resnet34, 1));
    let missing = Mismatch::Missing { name: "encoder._conv_stem.weight".into(), shape: vec![32, 3, 3, 3] };
    assert!(mismatches.contains(&missing), "{mismatches:?}");
    assert_eq!(hint, MisfitHint::OtherEncoder(Encoder::Resnet34));
    // ResNet34 has all parameters of ResNet18, and more.
    let (mismatches, hint) = misfit(Encoder::Resnet18, &published(Encoder::Resnet34, 1));
    let unexpected = Mismatch::Unexpected { name: "layer1.2.bn1.bias".into(), shape: vec![64] };
    assert!(mismatches.contains(&unexpected), "{mismatches:?}");
    assert_eq!(hint, MisfitHint::OtherEncoder(Encoder::Resnet34));
    let nothing = BTreeMap::from([("x".to_string(), Tensor::from_slice(&[1.0f32]))]);
    assert_eq!(misfit(Encoder::Resnet18, &nothing).1, MisfitHint::NoEncoder);
}

#[test]
fn all_mismatches_are_listed() {
    let mut tensors = published(Encoder::Resnet18, 1);
    tensors.remove("bn1.bias");
    tensors.insert("conv1.weight".into(), Tensor::from_slice(&[0.0f32; 8]).reshape([2, 4]));
    tensors.insert("attention.weight".into(), Tensor::from_slice(&[1.0f32]));
    let (mismatches, hint) = misfit(Encoder::Resnet18, &tensors);
    let shape = Mismatch::Shape { name: "encoder.conv1.weight".into(), network: vec![64, 3, 7, 7], file: vec![2, 4] };
    let missing = Mismatch::Missing { name: "encoder.bn1.bias".into(), shape: vec![64] };
    let unexpected = Mismatch::Unexpected { name: "attention.weight".into(), shape: vec![1] };
    assert_eq!(mismatches, [shape, missing, unexpected]);
    assert_eq!(hint, MisfitHint::SameEncoder);

    let mut tensors = published(Encoder::Resnet18, 1);
    tensors.insert("bn1.bias".into(), Tensor::from_slice(&[f32::NAN; 64]));
    let (mismatches, _) = misfit(Encoder::Resnet18, &tensors);
    assert_eq!(mismatches, [Mismatch::NotFinite { name: "encoder.bn1.bias".into() }]);
}

#[test]
fn half_precision_becomes_single_precision() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    // 1.5 and -2 in both types.
    let (half, brain) = ([0x00, 0x3E, 0x00, 0xC0], [0xC0, 0x3F, 0x00, 0xC0]);
    let views = [
        ("half", TensorView::new(Dtype::F16, vec![2], &half).unwrap()),
        ("brain", TensorView::new(Dtype::BF16, vec![2], &brain).unwrap()),
    ];
    let texts = HashMap::from([("flavour".to_string(), "caffe".to_string())]);
    fs::write(&path, safetensors::serialize(views, Some(texts)).unwrap()).unwrap();
    let file = read(&path).unwrap();
    let expected = Tensor::from_slice(&[1.5f32, -2.0]);
    assert_eq!((&file.tensors["half"], &file.tensors["brain"]), (&expected, &expected));
    assert_eq!(file.variant(Encoder::Vgg16, None).flavour, Flavour::Caffe);
    assert_eq!(file.variant(Encoder::Vgg16, Some(Flavour::Torchvision)).flavour, Flavour::Torchvision);
}

#[test]
fn an_incomplete_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &published(Encoder::Resnet18, 1));
    let whole = fs::read(&path).unwrap();
    for length in [4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err();
        // The format cannot be recognised from the first four bytes.
        let expected = match length {
            4 => matches!(error, WeightsError::NotWeights { .. }),
            _ => matches!(error, WeightsError::Damaged { .. }),
        };
        assert!(expected, "{length}: {error}");
    }
}

/// Writes the zip file of `torch.save({"state_dict": {"module.conv1.weight": a 2 × 3 tensor}, "epoch": 9}, path)`: a pickle, and
/// a file for each storage.
fn torch_zip(path: &Path) {
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let pickle = [
        b"\x80\x02}(".as_slice(),
        &text("epoch"),
        b"K\x09",
        &text("state_dict"),
        b"}(",
        &text("module.conv1.weight"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        // Six values, offset 0, shape, strides, no gradient, no hooks.
        b"K\x06tQK\x00(K\x02K\x03t(K\x03K\x01t\x89ccollections\nOrderedDict\n)RtRuu.",
    ]
    .concat();
    let storage: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("data.pkl", pickle.as_slice()), ("data/0", &storage), ("version", b"3\n")] {
        archive.start_file(format!("archive/{name}"), stored).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn a_pytorch_zip_is_read_without_the_prefixes_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.pth");
    torch_zip(&path);
    let file = read(&path).unwrap();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["conv1.weight"]);
    assert_eq!(file.tensors["conv1.weight"], Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let error = read(&path).unwrap_err();
    assert!(matches!(error, WeightsError::Damaged { .. }), "{error}");
}

fn label(name: &str, shade: u8) -> Label {
    Label::new(name, Rgb(shade, 0, 0))
}

fn small() -> Decoder {
    Decoder { kind: DecoderKind::Separable, widths: vec![16, 8] }
}

/// A model with three classes.
fn model() -> ModelFile {
    let description = ModelDescription {
        encoder: Encoder::EfficientnetLite0,
        flavour: Flavour::Lite,
        decoder: small(),
        normalise: Flavour::Lite.normalise(),
        labels: vec![label("sky", 1), label("road", 2), label("car", 3)],
        input: Size::new(96, 64),
        train: serde_json::json!({ "epochs": 3 }),
    };
    let params = Params::fresh(&description.net().unwrap(), 3);
    ModelFile { description, params }
}

#[test]
fn a_model_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    let model = model();
    for _ in 0..2 {
        model.write(&path).unwrap();
        let read = ModelFile::read(&path).unwrap();
        assert_eq!(read.description, model.description);
        assert!(model.params.0.iter().all(|(name, tensor)| tensor == read.params.get(name)));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    let error = model.write(&folder.path().join("none/best.safetensors")).unwrap_err();
    assert!(matches!(error, WeightsError::Io { action: "written", .. }), "{error}");
}

#[test]
fn files_other_than_a_trained_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let not_model = |path: &Path| match ModelFile::read(path).unwrap_err() {
        WeightsError::NotModel { problem, .. } => problem,
        other => panic!("{other}"),
    };
    let problem = not_model(&saved(folder.path(), &published(Encoder::Resnet18, 1)));
    assert!(matches!(problem, NotModel::NoMetadata), "{problem}");
    let onnx = folder.path().join("street.onnx");
    fs::write(&onnx, [8, 9, 18, 4]).unwrap();
    let problem = not_model(&onnx);
    assert!(matches!(problem, NotModel::NotWeights(NotWeights::Onnx)), "{problem}");

    let path = folder.path().join("best.safetensors");
    let mut model = model();
    model.params.0.remove("head.bias");
    model.write(&path).unwrap();
    let (mismatches, _) = parts(ModelFile::read(&path).unwrap_err());
    assert_eq!(mismatches, [Mismatch::Missing { name: "head.bias".into(), shape: vec![3] }]);
    let later = HashMap::from([("maskcast".to_string(), r#"{"version": 2, "field": 0}"#.to_string())]);
    let tensor = Tensor::from_slice(&[1.0f32]);
    tensor_file::write(&path, [("a".to_string(), &tensor)], later).unwrap();
    let problem = not_model(&path);
    assert!(matches!(problem, NotModel::Description(DescriptionError::Version { found: 2 })), "{problem}");
}

#[test]
fn a_new_model_gets_the_weights_of_a_trained_one_and_of_the_classes_in_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    let old = model();
    old.write(&path).unwrap();
    let labels = [label("Car", 9), label("tree", 8), label("sky", 7), label("person", 6)];
    let net = Encoder::EfficientnetLite0.unet(&small(), 4).unwrap();
    let mut params = Params::fresh(&net, 4);
    let fresh = params.copied();
    let report = init_from_model(&net, &mut params, &labels, ModelFile::read(&path).unwrap(), &path).unwrap();
    assert_eq!((report.kept, report.fresh), (vec!["Car".into(), "sky".into()], vec!["tree".into(), "person".into()]));
    for name in ["encoder._conv_stem.weight", "decoder.1.1.bn.running_var"] {
        assert_eq!(params.get(name), old.params.get(name), "{name}");
    }
    for name in ["head.weight", "head.bias"] {
        let (new, old, fresh) = (params.get(name), old.params.get(name), fresh.get(name));
        assert_eq!(new.size(), fresh.size());
        assert_eq!((new.get(0), new.get(2)), (old.get(2), old.get(0)), "{name}");
        assert_eq!((new.get(1), new.get(3)), (fresh.get(1), fresh.get(3)), "{name}");
    }
}

#[test]
fn a_trained_model_with_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    model().write(&path).unwrap();
    let labels = [label("sky", 1), label("road", 2)];
    let expected = MisfitHint::Model { encoder: Encoder::EfficientnetLite0, flavour: Flavour::Lite, decoder: small() };
    let mismatches_of = |net: Net| {
        let mut params = Params::fresh(&net, 1);
        let (mismatches, hint) =
            parts(init_from_model(&net, &mut params, &labels, ModelFile::read(&path).unwrap(), &path).unwrap_err());
        assert_eq!(hint, expected);
        mismatches
    };
    let mismatches = mismatches_of(Encoder::EfficientnetLite0.unet(&Decoder::default(), 2).unwrap());
    assert!(!mismatches.contains(&Mismatch::Normalisation), "{mismatches:?}");
    let tensorflow = Encoder::EfficientnetLite0.flavoured(Flavour::Tensorflow);
    assert_eq!(mismatches_of(tensorflow.unet(&small(), 2).unwrap()), [Mismatch::Normalisation]);
    let mismatches = mismatches_of(Encoder::EfficientnetLite1.unet(&small(), 2).unwrap());
    assert!(mismatches.iter().any(|mismatch| matches!(mismatch, Mismatch::Missing { .. })), "{mismatches:?}");
}
