//! The motion gate with the bundled model.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{ModelConfig, Provider};
use crate::frame::{Crop, OwnedImage, PixelFormat, Tiles, VideoInfo};
use crate::gate::Gate;
use crate::segment::contract::Contract;
use crate::segment::file;
use crate::segment::session::open_session;

/// Two segmenters of a model that is loaded once, as those of two workers.
fn workers(batch: usize) -> [OnnxSegmenter; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
    let (config, model) = (ModelConfig::with_path(&path), file::read(&path).unwrap());
    let session = || match open_session(&config, &model, Provider::Cpu, 0, 1) {
        Ok(session) => session,
        Err(_) => panic!("the bundled model does not load: is ONNX Runtime installed (`make setup`)?"),
    };
    let contract = Arc::new(Contract::read(&session(), &path).unwrap());
    [(); 2].map(|()| OnnxSegmenter::new(session(), Arc::clone(&contract), batch))
}

/// Frame `seq` of 25 a second: a wall above a floor, and a dark box that is that far from the left.
fn frame(gate: Option<&Arc<Gate>>, start: Instant, seq: u64, left: usize) -> Frame {
    let (width, height) = (640, 360);
    let mut image = OwnedImage::new(VideoInfo::new(PixelFormat::I420, width, height), 0);
    let luma = &mut image.image_mut().planes[0];
    for (y, row) in luma.data.chunks_mut(luma.stride).enumerate() {
        row.fill(if y < 200 { 190 } else { 120 });
        if (140..300).contains(&y) {
            row[left..left + 80].fill(30);
        }
    }
    let pts = Duration::from_millis(40 * seq);
    let (stream, captured_at, pixels) = ("gate".into(), start + pts, Arc::new(image));
    Frame {
        stream,
        seq,
        pts,
        captured_at,
        pixels,
        bias: None,
        gate: gate.cloned(),
        crop: Crop::default(),
        tiles: Tiles::default(),
    }
}

/// Sequence number of each mask, and whether it was confirmed.
fn summary(segmented: &Segmented) -> Vec<(u64, bool)> {
    segmented.masks.iter().map(|mask| (mask.seq, mask.confirmed)).collect()
}

#[test]
fn a_confirmed_mask_has_the_identity_of_its_frame_and_the_classes_of_the_last_run() {
    let [mut worker, mut reference] = workers(2);
    let (gate, start) = (Arc::new(Gate::default()), Instant::now());
    let first = worker.segment(&[frame(Some(&gate), start, 0, 100)]).unwrap();
    assert_eq!(summary(&first), [(0, false)]);
    let frames = [(1, 100), (2, 300), (3, 100)].map(|(seq, left)| frame(Some(&gate), start, seq, left));
    let mixed = worker.segment(&frames).unwrap();
    assert_eq!(summary(&mixed), [(1, true), (2, false), (3, true)]);
    for (mask, frame) in mixed.masks.iter().zip(&frames) {
        assert_eq!((mask.pts, mask.captured_at), (frame.pts, frame.captured_at));
        assert!(Arc::ptr_eq(&mask.labels, &first.masks[0].labels));
    }
    assert_eq!(mixed.masks[0].classes, first.masks[0].classes);
    // Each frame of the batch has the mask that it has without a gate.
    let ungated = [(1, 100), (2, 300), (3, 100)].map(|(seq, left)| frame(None, start, seq, left));
    let expected = reference.segment(&ungated).unwrap();
    assert_eq!(summary(&expected), [(1, false), (2, false), (3, false)]);
    assert!(expected.masks[0].classes != expected.masks[1].classes, "the box is in the masks");
    for (mask, expected) in mixed.masks.iter().zip(&expected.masks) {
        assert!(mask.classes == expected.classes && mask.guide == expected.guide, "frame {}", mask.seq);
    }
    // No run at all.
    let still = worker.segment(&[frame(Some(&gate), start, 4, 300)]).unwrap();
    assert_eq!(summary(&still), [(4, true)]);
    assert_eq!(still.masks[0].classes, expected.masks[1].classes);
}

#[test]
fn workers_of_a_model_share_the_last_run_and_another_model_does_not_use_it() {
    let [mut first, mut second] = workers(1);
    let [mut reloaded, _] = workers(1);
    let (gate, start) = (Arc::new(Gate::default()), Instant::now());
    let run =
        |worker: &mut OnnxSegmenter, seq| summary(&worker.segment(&[frame(Some(&gate), start, seq, 100)]).unwrap());
    assert_eq!(run(&mut first, 1), [(1, false)]);
    assert_eq!(run(&mut second, 2), [(2, true)]);
    // A frame that the other worker took earlier.
    assert_eq!(run(&mut second, 0), [(0, false)]);
    // The same file, loaded again: its content may have changed.
    assert_eq!(run(&mut reloaded, 3), [(3, false)]);
    assert_eq!(run(&mut reloaded, 4), [(4, true)]);
    assert_eq!(run(&mut first, 5), [(5, false)]);
}
