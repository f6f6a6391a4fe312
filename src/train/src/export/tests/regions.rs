//! The rejection of regions, run by ONNX Runtime and compared with a plain computation.

use super::*;
use crate::export::regions::{Grid, add, renew_pixel_rejection};

/// Logits `[N, h, w, classes]`.
struct Logits {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    classes: usize,
}

impl Logits {
    /// Of the output `scores` of a model, with the classes along axis 1 or 3.
    fn new(scores: Vec<f32>, [rows, columns, classes]: [usize; 3], axis: usize) -> Self {
        let n = (scores.len() / (rows * columns * classes)) as i64;
        let [h, w, c] = [rows, columns, classes].map(|side| side as i64);
        let scores = Tensor::from_slice(&scores);
        let scores = if axis == 1 { scores.reshape([n, c, h, w]).permute([0, 2, 3, 1]) } else { scores };
        Logits { values: float::values(&scores), rows, columns, classes }
    }

    /// The softmax of a pixel of an image.
    fn probabilities(&self, image: usize, row: usize, column: usize) -> Vec<f64> {
        let first = ((image * self.rows + row) * self.columns + column) * self.classes;
        let logits: Vec<f64> = self.values[first..first + self.classes].iter().map(|&logit| f64::from(logit)).collect();
        let largest = logits.iter().copied().fold(f64::MIN, f64::max);
        let powers: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    /// The mean probability of a class in its region in a window of samples; `None` for an empty region.
    fn mean(&self, image: usize, class: usize, grid: &Grid, window: [std::ops::Range<i64>; 2]) -> Option<f64> {
        let [rows, columns] = window;
        let mut region = Vec::new();
        for y in rows.start.max(0)..rows.end.min(grid.samples[0]) {
            for x in columns.start.max(0)..columns.end.min(grid.samples[1]) {
                let at = [y, x].map(|sample| sample * grid.step);
                let all = self.probabilities(image, (grid.start[0] + at[0]) as usize, (grid.start[1] + at[1]) as usize);
                if all.iter().all(|&other| other <= all[class]) {
                    region.push(all[class]);
                }
            }
        }
        (!region.is_empty()).then(|| region.iter().sum::<f64>() / region.len() as f64)
    }

    /// The mean of the region of each pixel of the masks `[N, height, width]`.
    fn means(&self, mask: &[u8], [height, width]: [usize; 2]) -> Vec<Option<f64>> {
        let grid = Grid::new([self.rows, self.columns].map(|side| side as i64), height as i64);
        let mut known = std::collections::BTreeMap::new();
        let mut means = Vec::new();
        for (index, &class) in mask.iter().enumerate() {
            let (image, y, x) = (index / (height * width), index / width % height, index % width);
            let cell = |at: usize, logits: usize, pixels: usize, axis: usize| {
                ((at * logits / pixels) as i64 / grid.step / 2).min(grid.cells[axis] - 1)
            };
            let cell = [cell(y, self.rows, height, 0), cell(x, self.columns, width, 1)];
            means.push(*known.entry((image, class, cell)).or_insert_with(|| {
                let window = cell.map(|cell| 2 * cell - grid.reach..2 * cell + 2 + grid.reach);
                self.mean(image, class.into(), &grid, window)
            }));
        }
        means
    }
}

/// A network whose head is changed so that each class is the best one somewhere in `batch`, with different probabilities. Also returns
/// the median of the largest logits.
pub(super) fn balanced(net: &Net, seed: u64, batch: &Tensor) -> (Net, Params, f32) {
    let (net, mut params) = fold::fold(net, &parameters(net, seed));
    let logits = verify::logits(&net, &params, batch).permute([1, 0, 2, 3]).flatten(1, 3);
    let scale: Tensor = logits.std_dim([1i64].as_slice(), true, false).reciprocal() * 2.0;
    let bias = (params.get("head.bias") - logits.mean_dim(1i64, false, Kind::Float)) * scale.view([-1]);
    let weight = params.get("head.weight") * scale.view([-1, 1, 1, 1]);
    params.0.insert("head.bias".into(), bias);
    params.0.insert("head.weight".into(), weight);
    let largest = verify::logits(&net, &params, batch).amax([1i64].as_slice(), false).median().double_value(&[]);
    (net, params, largest as f32)
}

/// Compares the mask of a model that rejects regions with a plain computation from its `scores` and the mask without the rejection.
fn compare(model: &ModelProto, batch: &Tensor, size: [usize; 3], axis: usize, class: u8) {
    let (_, height, width, _) = batch.size4().unwrap();
    let before = verify::run(&model.to_bytes(), batch).unwrap();
    let logits = Logits::new(before.scores.clone().unwrap(), size, axis);
    let means = logits.means(&before.mask, [height as usize, width as usize]);
    // About half of the regions of each class are rejected.
    let limit = |class: usize| {
        let of_class = before.mask.iter().zip(&means).filter(|(is, _)| usize::from(**is) == class);
        let mut sorted: Vec<f64> = of_class.filter_map(|(_, mean)| *mean).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup_by(|a, b| (*a - *b).abs() < 1e-4);
        let middle = sorted.len() / 2;
        if middle == 0 { 0.0 } else { ((sorted[middle - 1] + sorted[middle]) / 2.0) as f32 }
    };
    let limits: Vec<f32> = (0..size[2]).map(limit).collect();
    let rejection = RegionRejection { class: class.into(), limits };
    let mut model = model.clone();
    add(&mut model, &rejection).unwrap();
    let after = verify::run(&model.to_bytes(), batch).unwrap();
    assert!((after.scores, after.confidence) == (before.scores, before.confidence), "other outputs changed");
    let (mut kept, mut rejected) = (0, 0);
    for ((&before, mean), &after) in before.mask.iter().zip(&means).zip(&after.mask) {
        let difference = mean.map_or(1.0, |mean| mean - f64::from(rejection.limits[usize::from(before)]));
        if before == class || difference > 1e-5 {
            assert_eq!(after, before);
            kept += 1;
        } else if difference < -1e-5 {
            assert_eq!(after, class);
            rejected += 1;
        }
    }
    let all = before.mask.len();
    assert!(kept > all / 20 && rejected > all / 20 && kept + rejected > all * 9 / 10, "{kept} and {rejected} of {all}");
    assert_eq!(add(&mut model, &rejection), Err(RegionsError::AlreadyThere));
}

#[test]
fn regions_are_rejected_in_any_layout_size_and_batch() {
    // 40 × 56 and 72 × 104 pixels make cells that are not complete.
    for (seed, (n, height, width)) in [(2, 48, 64), (1, 40, 56), (3, 72, 104)].into_iter().enumerate() {
        let batch = images(n, height, width, seed as u64);
        let (net, params, below) = balanced(&every_operation(BYTES), 7, &batch);
        let ranges = ranges::calibrate(&net, &params, [batch.copy()].into_iter(), CalibrationMethod::MinMax).unwrap();
        let size = [height as usize / 2, width as usize / 2, 5];
        for argmax_stride2 in [false, true] {
            for rejection in [None, Some(Rejection { class: 2, below })] {
                let confidence = argmax_stride2;
                let options = GraphOptions::new(width, height);
                let options = GraphOptions { scores: true, argmax_stride2, confidence, rejection, ..options };
                let int8 = |target| int8::model(&net, &params, &ranges, &options, target, WeightBits::Fitted);
                compare(&float::model(&net, &params, &options), &batch, size, 1, 2);
                compare(&int8(Target::Cpu), &batch, size, 3, 2);
                compare(&int8(Target::Tensorrt), &batch, size, 1, 2);
            }
        }
    }
}

#[test]
fn regions_are_rejected_with_logits_of_any_density() {
    for (levels, factor) in [(5, 1), (3, 4)] {
        let decoder = Decoder { widths: vec![8; levels], ..Decoder::default() };
        let net = Encoder::EfficientnetLite0.unet(&decoder, 3).unwrap();
        let batch = images(2, 64, 96, 17);
        let (net, params, _) = balanced(&net, 17, &batch);
        let ranges = ranges::calibrate(&net, &params, [batch.copy()].into_iter(), CalibrationMethod::MinMax).unwrap();
        let size = [64 / factor, 96 / factor, 3];
        assert_eq!(Grid::new([size[0] as i64, size[1] as i64], 64).samples, [8, 12]);
        let options = GraphOptions { scores: true, ..GraphOptions::new(96, 64) };
        compare(&float::model(&net, &params, &options), &batch, size, 1, 0);
        compare(&int8::model(&net, &params, &ranges, &options, Target::Cpu, WeightBits::Fitted), &batch, size, 3, 0);
    }
}

#[test]
fn models_that_cannot_reject_regions_are_refused() {
    let net = every_operation(BYTES);
    let (net, params) = fold::fold(&net, &parameters(&net, 7));
    let rejection = RegionRejection { class: 0, limits: vec![0.5; 5] };
    let options = GraphOptions::new(64, 48);
    assert_eq!(add(&mut float::model(&net, &params, &options), &rejection), Err(RegionsError::NoScores));
    let mut model = float::model(&net, &params, &GraphOptions { scores: true, ..options });
    let unchanged = model.clone();
    let rejection = RegionRejection { class: 0, limits: vec![0.5; 4] };
    assert_eq!(add(&mut model, &rejection), Err(RegionsError::Classes { limits: 4, classes: 5 }));
    assert_eq!(model, unchanged);
}

/// Exports the network with every operation in int8, with `scores`.
fn export_with(path: &Path, rejection: Option<Rejection>, regions: Option<&RegionRejection>) {
    let image = images(1, 48, 64, 1);
    let (net, params, _) = balanced(&every_operation(BYTES), 11, &image);
    let golden = verify::image_bytes(&image);
    export(ExportRequest {
        net: &net,
        params: &params,
        labels: &labels(5),
        train: &serde_json::json!({"epochs": 3}),
        graph: GraphOptions { scores: true, rejection, ..GraphOptions::new(64, 48) },
        regions,
        precision: INT8,
        golden: &golden,
        calibration: &mut (0..3).map(|seed| images(1, 48, 64, seed)),
        evaluate: None,
        max_loss: MAX_MIOU_LOSS,
        path,
    })
    .unwrap();
}

#[test]
fn a_step_added_to_a_file_is_the_one_of_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let [exported, plain, added] = ["exported", "plain", "added"].map(|name| folder.path().join(name));
    let regions = RegionRejection { class: 4, limits: vec![0.8; 5] };
    let pixels = Some(Rejection { class: 4, below: 0.1 });
    export_with(&exported, pixels, Some(&regions));
    export_with(&plain, pixels, None);
    let mut model = ExistingModel::read(&plain).unwrap();
    assert_eq!(model.labels(), labels(5));
    let changed = model.reject_regions(&regions).unwrap();
    assert!(changed > 0.0 && changed < 1.0, "{changed}");
    let bytes = model.write(&added).unwrap();
    assert_eq!(std::fs::read(&added).unwrap().len() as u64, bytes);
    assert!(std::fs::read(&added).unwrap() == std::fs::read(&exported).unwrap(), "another file");

    let error = ExistingModel::read(&added).unwrap().reject_regions(&regions).unwrap_err();
    assert!(matches!(error, ExistingError::Regions { error: RegionsError::AlreadyThere, .. }), "{error}");
    // The documentation string of a model, which the messages of the trainer do not have.
    let mut foreign = std::fs::read(&plain).unwrap();
    foreign.extend([6 << 3 | 2, 1, b'x']);
    std::fs::write(&plain, foreign).unwrap();
    let error = ExistingModel::read(&plain).map(|_| ()).unwrap_err();
    assert!(matches!(error, ExistingError::Foreign { .. }), "{error}");
}

#[test]
fn the_rejection_of_pixels_of_an_older_file_is_renewed() {
    let batch = images(2, 48, 64, 7);
    let (net, params, below) = balanced(&every_operation(BYTES), 7, &batch);
    let ranges = ranges::calibrate(&net, &params, [batch.copy()].into_iter(), CalibrationMethod::MinMax).unwrap();
    let options = GraphOptions { scores: true, ..GraphOptions::new(64, 48) };
    let model = |rejection| {
        let options = GraphOptions { rejection, ..options };
        int8::model(&net, &params, &ranges, &options, Target::Cpu, WeightBits::Fitted)
    };
    let rejection = Rejection { class: 1, below };
    let new = model(Some(rejection));
    // As it was exported: one node with one limit for each class.
    let mut old = model(None);
    let graph = old.graph.as_mut().unwrap();
    let position = graph.node.iter().position(|node| node.op_type == "Resize" && node.output == ["mask.enlarged"]);
    let mut after = graph.node.split_off(position.unwrap());
    let mut b = graph::GraphBuilder::continued(std::mem::take(graph));
    let limits = b.floats("rejection.limits", &[1, 1, 1, 5], &[f32::MIN, below, f32::MIN, f32::MIN, f32::MIN]);
    b.node("Max", &["mask.logits", &limits], ops::REJECTED, Vec::new());
    after[0].input[0] = ops::REJECTED.into();
    *graph = b.into_graph();
    graph.node.append(&mut after);
    let before = verify::run(&old.to_bytes(), &batch).unwrap().mask;
    assert!(before != verify::run(&model(None).to_bytes(), &batch).unwrap().mask, "no pixel is rejected");
    renew_pixel_rejection(&mut old);
    assert_eq!(old.graph.as_ref().unwrap().node, new.graph.as_ref().unwrap().node);
    assert!(verify::run(&old.to_bytes(), &batch).unwrap().mask == before, "another mask");
}
