//! Weights written here, then read, fitted, and refused where they do not fit.

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
use crate::net::decoder::{self, Decoder};
use crate::net::{Net, Params};
use crate::size::Size;
use crate::tensor_file;

/// Weights of an encoder as its source would give them, with a classifier on top.
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

/// The error of fitting these tensors into this encoder.
fn mismatch(encoder: Encoder, tensors: &BTreeMap<String, Tensor>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = read(&saved(folder.path(), tensors)).unwrap();
    let net = encoder.unet(&Decoder::default(), 2).unwrap();
    let mut params = Params::fresh(&net, 1);
    let before = params.copied();
    let error = load_encoder(&net, &mut params, &file, &Mapping::detect(encoder, &file)).unwrap_err();
    assert!(params.0.iter().all(|(name, tensor)| tensor == before.get(name)), "changed by a failed load");
    error.to_string()
}

#[test]
fn fitting_weights_are_taken_and_the_rest_is_named() {
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
fn weights_of_another_network_are_refused_with_its_name() {
    let error = mismatch(Encoder::EfficientnetLite0, &published(Encoder::Resnet34, 1));
    assert!(error.contains("does not fit efficientnet-lite0"), "{error}");
    assert!(error.contains("the file lacks encoder._conv_stem.weight [32, 3, 3, 3]"), "{error}");
    assert!(error.contains("more"), "{error}");
    assert!(error.contains("use `--encoder resnet34`"), "{error}");
    assert!(error.lines().count() < 15, "{error}");
    // The smaller ResNet's names are all there, so only what is left over tells.
    let error = mismatch(Encoder::Resnet18, &published(Encoder::Resnet34, 1));
    assert!(error.contains("the network has no layer1.2.bn1.bias"), "{error}");
    let nothing = BTreeMap::from([("x".to_string(), Tensor::from_slice(&[1.0f32]))]);
    assert!(mismatch(Encoder::Resnet18, &nothing).contains("looks like none of the encoders"));
}

#[test]
fn every_kind_of_misfit_is_named_at_once() {
    let mut tensors = published(Encoder::Resnet18, 1);
    tensors.remove("bn1.bias");
    tensors.insert("conv1.weight".into(), Tensor::from_slice(&[0.0f32; 8]).reshape([2, 4]));
    tensors.insert("attention.weight".into(), Tensor::from_slice(&[1.0f32]));
    let error = mismatch(Encoder::Resnet18, &tensors);
    assert!(error.contains("the file lacks encoder.bn1.bias [64]"), "{error}");
    assert!(error.contains("encoder.conv1.weight is [2, 4] in the file and [64, 3, 7, 7] in the network"), "{error}");
    assert!(error.contains("the network has no attention.weight, which the file has [1]"), "{error}");
    assert!(error.contains("of this network, but changed"), "{error}");

    let mut tensors = published(Encoder::Resnet18, 1);
    tensors.insert("bn1.bias".into(), Tensor::from_slice(&[f32::NAN; 64]));
    assert!(mismatch(Encoder::Resnet18, &tensors).contains("encoder.bn1.bias has numbers that are NaN"));
}

#[test]
fn half_precision_becomes_single() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    // 1.5 and -2 in both formats.
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
fn a_cut_file_is_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), &published(Encoder::Resnet18, 1));
    let whole = fs::read(&path).unwrap();
    for length in [4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("weights.safetensors"), "{error}");
        assert!(length < 9 || error.contains("damaged or incomplete"), "{length}: {error}");
    }
}

/// What `torch.save({"state_dict": {"module.conv1.weight": a 2 × 3 tensor}, "epoch": 9}, path)` writes: a zip with a
/// pickle and one file a storage.
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
        // Six numbers; from the first; two rows of three; strides; no gradient; no hooks.
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
fn pytorchs_zip_is_read_through_its_wrappers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.pth");
    torch_zip(&path);
    let file = read(&path).unwrap();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["conv1.weight"]);
    assert_eq!(file.tensors["conv1.weight"], Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("damaged or incomplete"), "{error}");
}

fn label(name: &str, shade: u8) -> Label {
    Label { name: name.into(), color: Rgb(shade, 0, 0) }
}

fn small() -> Decoder {
    Decoder { kind: decoder::DecoderKind::Separable, widths: vec![16, 8] }
}

/// A model of lite0 for three classes, with its network.
fn model() -> (Net, ModelFile) {
    let about = ModelDescription {
        encoder: Encoder::EfficientnetLite0,
        flavour: Flavour::Lite,
        decoder: small(),
        normalise: Flavour::Lite.normalise(),
        labels: vec![label("sky", 1), label("road", 2), label("car", 3)],
        input: Size::new(96, 64),
        train: serde_json::json!({ "epochs": 3 }),
    };
    let net = about.net().unwrap();
    let params = Params::fresh(&net, 3);
    (net, ModelFile { about, params })
}

#[test]
fn a_model_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    let (_, model) = model();
    model.write(&path).unwrap();
    // Over an old one too.
    model.write(&path).unwrap();
    let read = ModelFile::read(&path).unwrap();
    assert_eq!(read.about, model.about);
    assert!(model.params.0.iter().all(|(name, tensor)| tensor == read.params.get(name)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = model.write(&folder.path().join("none/best.safetensors")).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
}

#[test]
fn what_is_no_model_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = ModelFile::read(&saved(folder.path(), &published(Encoder::Resnet18, 1))).unwrap_err().to_string();
    assert!(error.contains("no metadata maskcast") && error.contains("--weights"), "{error}");
    let onnx = folder.path().join("street.onnx");
    fs::write(&onnx, [8, 9, 18, 4]).unwrap();
    let error = ModelFile::read(&onnx).unwrap_err().to_string();
    assert!(error.contains("batch norms folded") && error.contains(".safetensors"), "{error}");

    let path = folder.path().join("best.safetensors");
    let (_, mut model) = model();
    model.params.0.remove("head.bias");
    model.write(&path).unwrap();
    let error = ModelFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("the file lacks head.bias [3]"), "{error}");
    // A later version of the format.
    let text = HashMap::from([("maskcast".to_string(), r#"{"version": 2, "what": "ever"}"#.to_string())]);
    let tensor = Tensor::from_slice(&[1.0f32]);
    tensor_file::write(&path, [("a".to_string(), &tensor)], text).unwrap();
    let error = ModelFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn a_new_model_begins_as_an_old_one_and_keeps_the_classes_they_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    let (_, old) = model();
    old.write(&path).unwrap();
    let labels = [label("Car", 9), label("tree", 8), label("sky", 7), label("person", 6)];
    let net = Encoder::EfficientnetLite0.unet(&small(), 4).unwrap();
    let mut params = Params::fresh(&net, 4);
    let fresh = params.copied();
    let report = init_from_model(&net, &mut params, &labels, &path).unwrap();
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
fn another_network_is_not_begun_from_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    model().1.write(&path).unwrap();
    let labels = [label("sky", 1), label("road", 2)];
    let error_for = |net: Net| {
        let mut params = Params::fresh(&net, 1);
        init_from_model(&net, &mut params, &labels, &path).unwrap_err().to_string()
    };
    let error = error_for(Encoder::EfficientnetLite0.unet(&Decoder::default(), 2).unwrap());
    assert!(error.contains("a separable decoder of widths 16,8"), "{error}");
    let error = error_for(Encoder::EfficientnetLite0.flavoured(Flavour::Tensorflow).unet(&small(), 2).unwrap());
    assert!(error.contains("normalised differently") && error.contains("flavour lite"), "{error}");
    let error = error_for(Encoder::EfficientnetLite1.unet(&small(), 2).unwrap());
    assert!(error.contains("over efficientnet-lite0"), "{error}");
}
