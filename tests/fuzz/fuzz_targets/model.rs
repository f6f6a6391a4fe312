//! The metadata of a model file and its manifest. The input is four texts, separated by lines `---`: labels, golden frame,
//! training notes, manifest. They are written to a real ONNX file, which ONNX Runtime opens.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use maskcast::config::OverlayConfig;
use maskcast::overlay::Overlay;
use maskcast::segment::contract::Contract;
use maskcast::segment::golden::Golden;
use maskcast::segment::runtime;
use ort::session::Session;
use prost::Message;

#[allow(dead_code)] // Only a part is used here.
#[path = "../../common/onnx.rs"]
mod onnx;

/// The folder of the manifest: in memory, if the system has such a folder.
static FOLDER: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(parent).expect("a folder for manifests can be created");
    let path = folder.path().join("model.onnx");
    (folder, path)
});

fuzz_target!(|text: &str| {
    let mut parts = text.split("\n---\n");
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (labels, golden, train, manifest) = (next(), next(), next(), next());
    if let Some(golden) = golden.map(Golden::parse).and_then(Result::ok) {
        let pixels = golden.width * golden.height;
        assert_eq!((golden.rgb.len(), golden.mask.len()), (3 * pixels, pixels));
        assert_eq!(Golden::parse(&golden.to_json().expect("the buffers have the size of the frame")), Ok(golden));
    }
    // A model with metadata, or a foreign model that needs the manifest.
    let model = match labels {
        Some(labels) => {
            let more = [("maskcast.golden", golden), ("maskcast.train", train)];
            let more: Vec<_> = more.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            onnx::labelled(8, 6, labels, &more)
        }
        None => onnx::foreign(8, 6),
    };
    let path = &FOLDER.1;
    let manifest_path = path.with_extension("toml");
    match manifest {
        Some(manifest) => std::fs::write(&manifest_path, manifest).expect("the manifest can be written"),
        // Fails when there is no manifest.
        None => drop(std::fs::remove_file(&manifest_path)),
    }
    let environment = &runtime::load(None).expect("ONNX Runtime is installed: make setup").environment;
    let session = Session::builder(environment)
        .and_then(|builder| Ok(builder.with_intra_threads(1)?))
        .and_then(|mut builder| builder.commit_from_memory(&model.encode_to_vec()))
        .expect("ONNX Runtime opens models with any metadata");
    match Contract::read(&session, path) {
        Ok(contract) => {
            assert!((1..=255).contains(&contract.labels.len()));
            assert_eq!((contract.input.width, contract.input.height), (8, 6));
            assert!(Overlay::new(&OverlayConfig::default(), &contract.labels).is_ok());
        }
        Err(error) => assert!(error.to_string().contains("model."), "{error}"),
    }
});
