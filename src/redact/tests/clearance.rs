//! When a frame is hidden as a whole, and what is published of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Noise, mask, rows};
use crate::config::RedactConfig;
use crate::frame::{Crop, Frame, Label, Labels, Mask, OwnedImage, PixelFormat, Probable, Rgb, Tiles, VideoInfo};
use crate::redact::cells::coarsest_side;
use crate::redact::{Clearance, HideReason};

fn frame(noise: &mut Noise, info: VideoInfo, seq: u64) -> Frame {
    let mut image = OwnedImage::new(info, 0);
    for plane in image.image_mut().planes {
        plane.data.iter_mut().for_each(|sample| *sample = noise.below(256) as u8);
    }
    let captured_at = Instant::now();
    Frame {
        stream: "gate".into(),
        seq,
        pts: Duration::ZERO,
        captured_at,
        pixels: Arc::new(image),
        bias: None,
        gate: None,
        crop: Crop::default(),
        tiles: Tiles::default(),
    }
}

/// What is published of `frame`, and why all of it is hidden.
fn cleared(
    clearance: &mut Clearance,
    frame: &Frame,
    mask: Result<&Mask, HideReason>,
) -> (OwnedImage, Option<HideReason>) {
    let decision = clearance.decide(frame, mask);
    let cleared = clearance.clear(frame, &decision);
    (cleared.to_image(), cleared.hidden().cloned())
}

#[test]
fn a_frame_without_its_own_mask_is_hidden_as_a_whole() {
    let mut noise = Noise(3);
    let info = VideoInfo::new(PixelFormat::I420, 160, 96);
    let config = RedactConfig { classes: vec!["person".into()], hold: Duration::ZERO, ..RedactConfig::default() };
    let frame = frame(&mut noise, info, 7);
    let raw = OwnedImage::copy_of(&frame.pixels.image());
    let mut own = Mask {
        seq: 7,
        classes: vec![0; 64],
        width: 8,
        height: 8,
        ..mask(&mut noise, (8, 8), frame.captured_at, Duration::ZERO)
    };
    let mut clearance = Clearance::of(Some(&config));
    let (visible, reason) = cleared(&mut clearance, &frame, Ok(&own));
    assert_eq!((rows(&visible, 0), reason), (rows(&raw, 0), None), "there is no person in it");

    let earlier = Mask { seq: 6, ..own.clone() };
    let older = Mask { captured_at: frame.captured_at - Duration::from_millis(1), ..own.clone() };
    let cut = Mask { classes: vec![0; 63], ..own.clone() };
    let other: Labels = [Label::new("human", Rgb(0, 0, 0))].into();
    let other = Mask { labels: other, ..own.clone() };
    let no_mask = || HideReason::NoMask("too late".into());
    type Case<'a> = (Result<&'a Mask, HideReason>, fn(&HideReason) -> bool);
    let cases: [Case<'_>; 6] = [
        (Ok(&earlier), |reason| *reason == HideReason::OtherFrame),
        (Ok(&older), |reason| *reason == HideReason::OtherFrame),
        (Ok(&cut), |reason| matches!(reason, HideReason::NoArea(_))),
        (Ok(&other), |reason| *reason == HideReason::NoClass("person".into())),
        (Err(HideReason::NoModel), |reason| *reason == HideReason::NoModel),
        (Err(no_mask()), |reason| matches!(reason, HideReason::NoMask(_))),
    ];
    for (mask, expected) in cases {
        let (published, reason) = cleared(&mut clearance, &frame, mask);
        let reason = reason.expect("all of it is hidden");
        assert!(expected(&reason), "{reason}");
        let luma = rows(&published, 0);
        let cell = coarsest_side(96);
        let first: Vec<u8> = luma[..cell].iter().flat_map(|row| &row[..cell]).copied().collect();
        assert!(first.iter().all(|sample| *sample == first[0]), "{reason}: one colour in each cell");
    }
    // A pixel of a class that the model gives no name may be a person.
    own.classes[0] = 9;
    let (published, reason) = cleared(&mut clearance, &frame, Ok(&own));
    assert_eq!(reason, None);
    assert_ne!(rows(&published, 0)[0][0..4], rows(&raw, 0)[0][0..4]);

    // A bias that the model cannot apply, and a model that is not sure of anything.
    let biased = RedactConfig { bias: Some(0.1), ..config.clone() };
    own.classes[0] = 0;
    assert_eq!(cleared(&mut Clearance::of(Some(&biased)), &frame, Ok(&own)).1, Some(HideReason::NoScores));
    for (confidence, is_hidden) in [(60, true), (120, false)] {
        let probable = Probable { width: 8, height: 8, pixels: vec![false; 64], confidence, margin: 0 };
        let own = Mask { probable: Some(Box::new(probable)), ..own.clone() };
        let reason = cleared(&mut Clearance::of(Some(&biased)), &frame, Ok(&own)).1;
        assert_eq!(matches!(reason, Some(HideReason::LowConfidence(_))), is_hidden, "{confidence}: {reason:?}");
    }

    // A decision about another frame clears nothing.
    let decision = clearance.decide(&frame, Ok(&Mask { classes: vec![0; 64], ..own }));
    let next = Frame { seq: 8, ..frame.clone() };
    assert_eq!(clearance.clear(&next, &decision).hidden(), Some(&HideReason::OtherFrame));
}

#[test]
fn after_a_panic_whole_frames_are_hidden_for_as_long_as_pixels_are_held() {
    let mut noise = Noise(4);
    let info = VideoInfo::new(PixelFormat::Nv12, 64, 64);
    let config = RedactConfig { classes: vec!["person".into()], ..RedactConfig::default() };
    let mut clearance = Clearance::of(Some(&config));
    let at = |frame: &Frame, later: u64| {
        let captured_at = frame.captured_at + Duration::from_millis(later);
        let frame = Frame { seq: later, captured_at, ..frame.clone() };
        let mask =
            Mask { seq: later, classes: vec![0; 64], ..mask(&mut Noise(0), (8, 8), captured_at, Duration::ZERO) };
        (frame, mask)
    };
    let start = frame(&mut noise, info, 0);
    let raw = rows(&OwnedImage::copy_of(&start.pixels.image()), 0);
    let is_visible = |clearance: &mut Clearance, later: u64| {
        let (frame, mask) = at(&start, later);
        rows(&cleared(clearance, &frame, Ok(&mask)).0, 0) == raw
    };
    assert!(is_visible(&mut clearance, 0));
    clearance.recover();
    assert!(!is_visible(&mut clearance, 100));
    assert!(is_visible(&mut clearance, 100_000));
}

#[test]
fn the_slate_has_what_may_be_published_of_the_last_frame() {
    let mut noise = Noise(8);
    let info = VideoInfo::new(PixelFormat::I420, 96, 64);
    let config = RedactConfig { classes: vec!["person".into()], hold: Duration::ZERO, ..RedactConfig::default() };
    let mut clearance = Clearance::of(Some(&config));
    let mut last = frame(&mut noise, info, 3);
    let raw = rows(&OwnedImage::copy_of(&last.pixels.image()), 0);
    let mut mask = mask(&mut noise, (12, 8), last.captured_at, Duration::ZERO);
    (mask.seq, mask.classes) = (3, (0..96).map(|pixel| u8::from(pixel % 12 < 5)).collect());
    let decision = clearance.decide(&last, Ok(&mask));
    let published = rows(&clearance.clear(&last, &decision).to_image(), 0);
    assert_ne!(published, raw);
    // A dropped frame after it changes nothing.
    clearance.decide(&frame(&mut noise, info, 4), Err(HideReason::NoModel));
    let slate = clearance.release(&mut last, Some(&decision)).expect("it was decided");
    assert_eq!(rows(&slate.frame().to_image(), 0), published);
    assert_eq!(rows(&OwnedImage::copy_of(&last.pixels.image()), 0), published, "the frame itself is not kept");

    let mut next = frame(&mut noise, info, 5);
    let slate = clearance.release(&mut next.clone(), Some(&decision)).expect("a frame that is hidden as a whole");
    let luma = rows(&slate.frame().to_image(), 0);
    assert!(luma[..8].iter().all(|row| row[..8].iter().all(|sample| *sample == luma[0][0])));
    assert!(clearance.release(&mut next, None).is_none(), "nothing was decided");
    assert!(rows(&OwnedImage::copy_of(&next.pixels.image()), 0).iter().flatten().all(|sample| *sample == 16));
}
