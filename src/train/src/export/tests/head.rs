//! Masks of the service, which computes the last steps of a model itself, compared with those of the whole graph.

use maskcast::segment::head::METADATA;

use super::regions::balanced;
use super::*;

/// The masks of images by the service: with its own last steps, and by the whole graph.
fn both(path: &Path, images: &Tensor) -> [Vec<u8>; 2] {
    let mut config = ModelConfig::with_path(path);
    config.providers = vec![Provider::Cpu];
    let (own, whole) = (onnx::Model::load(&config, 1).unwrap(), onnx::Model::load_whole(&config, 1).unwrap());
    assert!(own.has_own_head() && !whole.has_own_head());
    let rgb = verify::image_bytes(images);
    let n = images.size()[0] as usize;
    [own, whole].map(|model| model.segmenter(1).unwrap().run_rgb(&rgb, n).unwrap().0)
}

#[test]
fn the_service_computes_the_last_steps_of_each_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let batch = images(3, 48, 64, 5);
    let (net, params, below) = balanced(&every_operation(BYTES), 11, &batch);
    for (stride2, rejected, limit, scores) in [
        (false, false, None, false),
        (true, false, None, true),
        (false, true, None, false),
        (false, true, Some(0.6), true),
        (true, true, Some(0.5), true),
    ] {
        let rejection = rejected.then_some(Rejection { class: 3, below });
        let regions = limit.map(|limit| RegionRejection { class: 4, limits: vec![limit; 5] });
        let graph = GraphOptions { argmax_stride2: stride2, rejection, scores, ..GraphOptions::new(64, 48) };
        export(ExportRequest {
            net: &net,
            params: &params,
            labels: &labels(5),
            train: &serde_json::json!({}),
            graph,
            regions: regions.as_ref(),
            precision: INT8,
            golden: &verify::image_bytes(&images(1, 48, 64, 1)),
            calibration: &mut (0..3).map(|seed| images(1, 48, 64, seed)),
            evaluate: None,
            max_loss: MAX_MIOU_LOSS,
            path: &path,
        })
        .unwrap();
        let [own, whole] = both(&path, &batch);
        let mut classes = whole.clone();
        classes.sort_unstable();
        classes.dedup();
        assert!(classes.len() > 2, "{classes:?}");
        assert!(own == whole, "{:.2} % differ: {graph:?}", 100.0 - 100.0 * verify::share_equal(&own, &whole));
    }
}

#[test]
fn a_description_is_added_to_an_older_file() {
    let folder = tempfile::tempdir().unwrap();
    let [exported, old, described] = ["exported", "old", "described"].map(|name| folder.path().join(name));
    export_to(&exported, INT8, 5, None).unwrap();
    let mut model = ModelProto::decode(std::fs::read(&exported).unwrap().as_slice()).unwrap();
    model.metadata.retain(|entry| entry.key != METADATA);
    std::fs::write(&old, model.to_bytes()).unwrap();
    let mut model = ExistingModel::read(&old).unwrap();
    model.describe_head().unwrap();
    model.write(&described).unwrap();
    assert!(std::fs::read(&described).unwrap() == std::fs::read(&exported).unwrap(), "another file");
}

#[test]
fn other_models_are_not_described() {
    let net = every_operation(BYTES);
    let (net, params) = fold::fold(&net, &parameters(&net, 7));
    let ranges =
        ranges::calibrate(&net, &params, [images(1, 48, 64, 7)].into_iter(), CalibrationMethod::MinMax).unwrap();
    let plain = GraphOptions::new(64, 48);
    let int8 = |options, target| int8::model(&net, &params, &ranges, options, target, WeightBits::Fitted);
    let refused = |mut model: ModelProto| {
        model.put(METADATA, "an older description");
        let error = crate::export::head::describe(&mut model).unwrap_err();
        assert_eq!(model.get(METADATA), None);
        error
    };
    assert!(matches!(refused(float::model(&net, &params, &plain)), HeadError::Steps(_)));
    assert!(matches!(refused(int8(&plain, Target::Tensorrt)), HeadError::Steps(_)));
    let with_confidence = GraphOptions { confidence: true, ..plain };
    assert_eq!(refused(int8(&with_confidence, Target::Cpu)), HeadError::Output("confidence".into()));
    let mut model = int8(&plain, Target::Cpu);
    assert_eq!(crate::export::head::describe(&mut model), Ok(()));
    assert!(model.get(METADATA).is_some());
}
