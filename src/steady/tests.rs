//! Labelled video: a textured object on a textured background, with exact masks and masks with errors.

use super::*;
use crate::frame::UNSEEN;
use std::time::Instant;

const WIDTH: usize = 256;
const HEIGHT: usize = 144;
const OBJECT: ClassId = 2;

/// The share of the object that may be late: a border of one pixel.
const LATE: f64 = 0.117;

/// Between two masks.
const INTERVAL: Duration = Duration::from_millis(66);

/// The object, a box with a textured surface.
#[derive(Clone, Copy)]
struct Object {
    /// Its left upper corner in mask pixels.
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

/// One frame of a scene.
#[derive(Clone, Copy)]
struct Scene {
    object: Option<Object>,
    /// Where the camera looks.
    camera: f32,
}

/// A pseudo-random number from 0 to 1 for a place; smooth between places four pixels apart.
fn texture(x: f32, y: f32, seed: u32) -> f32 {
    let corner = |x: i32, y: i32| {
        let mut hash = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77) ^ seed;
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
        ((hash ^ (hash >> 12)) & 0xFF) as f32 / 255.0
    };
    let (x, y) = (x / 4.0, y / 4.0);
    let (left, top) = (x.floor() as i32, y.floor() as i32);
    let (u, v) = (x - x.floor(), y - y.floor());
    let row = |y: i32| corner(left, y) * (1.0 - u) + corner(left + 1, y) * u;
    row(top) * (1.0 - v) + row(top + 1) * v
}

impl Scene {
    fn class(&self, x: f32, y: f32) -> ClassId {
        match self.object {
            Some(object)
                if (object.x..object.x + object.width).contains(&x)
                    && (object.y..object.y + object.height).contains(&y) =>
            {
                OBJECT
            }
            _ => ClassId::from(y > HEIGHT as f32 * 0.6),
        }
    }

    fn luma(&self, x: f32, y: f32) -> f32 {
        match self.object {
            Some(object) if self.class(x, y) == OBJECT => 90.0 + 110.0 * texture(x - object.x, y - object.y, 77),
            _ => 60.0 + 90.0 * texture(x + self.camera, y, 5) + 20.0 * f32::from(self.class(x, y)),
        }
    }

    fn truth(&self) -> Vec<ClassId> {
        (0..WIDTH * HEIGHT).map(|n| self.class((n % WIDTH) as f32 + 0.5, (n / WIDTH) as f32 + 0.5)).collect()
    }

    /// The image at the size of the guide, by the mean of 3×3 points of each pixel, with the noise of a sensor.
    fn guide(&self, random: &mut Random) -> Guide {
        let (width, height) = Guide::size(WIDTH, HEIGHT);
        let mut guide = Guide::new(width, height);
        let (scale_x, scale_y) = (WIDTH as f32 / width as f32, HEIGHT as f32 / height as f32);
        for (n, luma) in guide.plane_mut(0).iter_mut().enumerate() {
            let at = |i: usize, part: usize, scale: f32| (i as f32 + (part as f32 + 0.5) / 3.0) * scale;
            let points = (0..9).map(|p| self.luma(at(n % width, p % 3, scale_x), at(n / width, p / 3, scale_y)));
            *luma = (points.sum::<f32>() / 9.0 + 3.0 * (random.next() - 0.5)).round() as u8;
        }
        (1..3).for_each(|plane| guide.plane_mut(plane).fill(128));
        guide
    }
}

struct Random(u32);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 24) as f32
    }
}

/// The classes with the errors of a model: blobs of a wrong class that are there in one mask only, mostly at borders.
fn with_errors(truth: &[ClassId], random: &mut Random) -> Vec<ClassId> {
    let mut classes = truth.to_vec();
    for _ in 0..60 {
        let (x, y) = ((random.next() * WIDTH as f32) as usize, (random.next() * HEIGHT as f32) as usize);
        let (class, side) = ((random.next() * 3.0) as ClassId, 2 + (random.next() * 7.0) as usize);
        for y in y..(y + side).min(HEIGHT) {
            classes[y * WIDTH + x..][..side.min(WIDTH - x)].fill(class);
        }
    }
    classes
}

fn mask(seq: u64, classes: Vec<ClassId>, guide: Guide, labels: &crate::frame::Labels) -> Mask {
    Mask {
        seq,
        pts: INTERVAL * seq as u32,
        captured_at: Instant::now(),
        width: WIDTH,
        height: HEIGHT,
        classes,
        labels: Arc::clone(labels),
        model: "test".into(),
        guide: Some(Box::new(guide)),
        probable: None,
        confirmed: false,
        seen: None,
    }
}

fn labels() -> crate::frame::Labels {
    [].into()
}

/// The mean IoU of the three classes.
fn miou(shown: &[ClassId], truth: &[ClassId]) -> f64 {
    let ious: Vec<f64> = (0..3).filter(|class| truth.contains(class)).map(|class| iou(shown, truth, class)).collect();
    ious.iter().sum::<f64>() / ious.len() as f64
}

fn iou(shown: &[ClassId], truth: &[ClassId], class: ClassId) -> f64 {
    let count = |test: &dyn Fn(bool, bool) -> bool| {
        shown.iter().zip(truth).filter(|&(&a, &b)| test(a == class, b == class)).count() as f64
    };
    count(&|a, b| a && b) / count(&|a, b| a || b).max(1.0)
}

/// The masks of a scene: exact, and with errors before and after they are made steady.
struct Shown {
    truth: Vec<Vec<ClassId>>,
    raw: Vec<Vec<ClassId>>,
    steady: Vec<Vec<ClassId>>,
}

impl Shown {
    fn of(frames: usize, smooth: Smooth, errors: bool, scene: impl Fn(usize) -> Scene) -> Self {
        let (mut random, labels) = (Random(9), labels());
        let mut steady = Steady::default();
        let mut shown = Shown { truth: Vec::new(), raw: Vec::new(), steady: Vec::new() };
        for t in 0..frames {
            let truth = scene(t).truth();
            let raw = if errors { with_errors(&truth, &mut random) } else { truth.clone() };
            let mask = mask(t as u64, raw.clone(), scene(t).guide(&mut random), &labels);
            shown.steady.push(steady.steady(&mask, smooth).classes.clone());
            shown.truth.push(truth);
            shown.raw.push(raw);
        }
        shown
    }

    /// Mean IoU over all masks, `(raw, steady)`.
    fn quality(&self) -> (f64, f64) {
        let mean = |masks: &[Vec<ClassId>]| {
            masks.iter().zip(&self.truth).map(|(mask, truth)| miou(mask, truth)).sum::<f64>() / masks.len() as f64
        };
        (mean(&self.raw), mean(&self.steady))
    }

    /// The pixels that show neither the class of their mask nor that of the mask before, as a share of the object; the largest of
    /// all masks.
    fn late(&self) -> f64 {
        let late = |t: usize| {
            let wrong = |n: &usize| ![self.truth[t][*n], self.truth[t - 1][*n]].contains(&self.steady[t][*n]);
            (0..WIDTH * HEIGHT).filter(wrong).count() as f64 / (30.0 * 40.0)
        };
        (1..self.truth.len()).map(late).fold(0.0, f64::max)
    }
}

fn object_at(x: f32) -> Option<Object> {
    Some(Object { x, y: 50.0, width: 30.0, height: 40.0 })
}

fn moving(speed: f32) -> impl Fn(usize) -> Scene {
    move |t| Scene { object: object_at(-10.0 + speed * t as f32), camera: 0.0 }
}

#[test]
fn steady_masks_are_better_than_those_of_the_model_at_any_speed() {
    for speed in [0.0, 0.5, 2.0, 8.0, 25.0] {
        let frames = if speed == 25.0 { 12 } else { 30 };
        for smooth in [Smooth::Light, Smooth::Normal, Smooth::Strong] {
            let (raw, steady) = Shown::of(frames, smooth, true, moving(speed)).quality();
            assert!(steady > raw + 0.01, "{speed} px a mask, {smooth:?}: mIoU {raw:.3} became {steady:.3}");
        }
    }
}

#[test]
fn an_object_is_at_most_one_mask_behind_at_any_speed() {
    for speed in [0.5, 2.0, 8.0, 25.0] {
        let frames = if speed == 25.0 { 12 } else { 30 };
        for smooth in [Smooth::Light, Smooth::Normal, Smooth::Strong] {
            let late = Shown::of(frames, smooth, false, moving(speed)).late();
            assert!(late < LATE, "{speed} px a mask, {smooth:?}: {late:.3} is late");
        }
    }
}

#[test]
fn an_object_that_starts_stops_appears_and_disappears_is_at_most_one_mask_behind() {
    let stop_and_go = |t: usize| {
        let way = match t {
            0..10 => 0.0,
            10..20 => 5.0 * (t - 10) as f32,
            20..30 => 50.0,
            _ => 50.0 + 3.0 * (t - 30) as f32,
        };
        Scene { object: object_at(20.0 + way), camera: 0.0 }
    };
    let comes_and_goes =
        |t: usize| Scene { object: (10..25).contains(&t).then(|| object_at(100.0)).flatten(), camera: 0.0 };
    let comes_while_the_camera_turns =
        |t: usize| Scene { object: (10..25).contains(&t).then(|| object_at(100.0)).flatten(), camera: 3.0 * t as f32 };
    let scenes: [(&str, &dyn Fn(usize) -> Scene); 3] = [
        ("stop and go", &stop_and_go),
        ("comes and goes", &comes_and_goes),
        ("comes while the camera turns", &comes_while_the_camera_turns),
    ];
    for (name, scene) in scenes {
        for smooth in [Smooth::Light, Smooth::Normal, Smooth::Strong] {
            let late = Shown::of(45, smooth, false, scene).late();
            assert!(late < LATE, "{name}, {smooth:?}: {late:.3} is late");
        }
    }
}

#[test]
fn masks_are_better_while_the_camera_turns() {
    for pan in [0.5, 3.0, 10.0] {
        let scene = move |t: usize| Scene { object: object_at(20.0 + 2.0 * t as f32), camera: pan * t as f32 };
        let (raw, steady) = Shown::of(30, Smooth::Normal, true, scene).quality();
        assert!(steady > raw + 0.01, "{pan} px a mask: mIoU {raw:.3} became {steady:.3}");
    }
}

/// What is shown for a mask of one class, of an image that is always the same.
fn flicker(
    steady: &mut Steady,
    seq: u64,
    class: ClassId,
    labels: &crate::frame::Labels,
    change: impl Fn(&mut Mask),
) -> Vec<ClassId> {
    let scene = Scene { object: None, camera: 0.0 };
    let mut mask = mask(seq, vec![class; WIDTH * HEIGHT], scene.guide(&mut Random(1)), labels);
    change(&mut mask);
    steady.steady(&mask, Smooth::Normal).classes.clone()
}

#[test]
fn a_class_must_hold_where_nothing_changes() {
    let (mut steady, labels) = (Steady::default(), labels());
    let mut show = |seq, class| flicker(&mut steady, seq, class, &labels, |_| {})[0];
    assert_eq!(show(0, 1), 1);
    // One mask, and every other mask, are not enough.
    assert_eq!([show(1, 2), show(2, 1)], [1, 1]);
    assert!((3..40).all(|seq| show(seq, 1 + (seq % 2) as ClassId) == 1));
    assert!((40..50).all(|seq| show(seq, 1) == 1));
    // 0.6 s are nine masks.
    let changed = (50..70).find(|&seq| show(seq, 2) == 2);
    assert!(changed.is_some_and(|seq| (57..=59).contains(&seq)), "{changed:?}");
    // The same mask again is not counted.
    assert!((0..40).all(|_| show(70, 3) == 2));
}

#[test]
fn a_gap_a_jump_back_another_size_another_model_and_a_cut_show_the_mask_as_it_is() {
    type Change<'a> = &'a dyn Fn(&mut Mask);
    let other = labels();
    let changes: [(&str, u64, Change<'_>); 5] = [
        ("gap", 30, &|_| {}),
        ("jump back", 2, &|_| {}),
        ("size", 4, &|mask| {
            (mask.width, mask.height) = (WIDTH / 2, HEIGHT / 2);
            mask.classes.truncate(WIDTH * HEIGHT / 4);
        }),
        ("model", 4, &|mask| mask.labels = Arc::from(vec![crate::frame::Label::new("a", crate::frame::Rgb(0, 0, 0))])),
        ("cut", 4, &|mask| {
            let guide = mask.guide.as_mut().unwrap();
            let (width, height) = (guide.width, guide.height);
            for (n, luma) in guide.plane_mut(0).iter_mut().enumerate() {
                *luma =
                    (255.0 * texture((n % width) as f32 * 1.7, (n / width) as f32 * 1.3 + height as f32, 1234)) as u8;
            }
        }),
    ];
    for (name, seq, change) in changes {
        let (mut steady, labels) = (Steady::default(), labels());
        for seq in 1..4 {
            flicker(&mut steady, seq, 1, &labels, |_| {});
        }
        let shown = flicker(&mut steady, seq, 2, &labels, change);
        assert!(shown.iter().all(|&class| class == 2), "{name}");
        assert_eq!(shown.len(), if name == "size" { WIDTH * HEIGHT / 4 } else { WIDTH * HEIGHT }, "{name}");
    }
    // Without any of these, one mask is not enough.
    let (mut steady, labels) = (Steady::default(), other);
    flicker(&mut steady, 3, 1, &labels, |_| {});
    assert!(flicker(&mut steady, 4, 2, &labels, |_| {}).iter().all(|&class| class == 1));
    steady.reset();
    assert!(flicker(&mut steady, 5, 2, &labels, |_| {}).iter().all(|&class| class == 2));
}

#[test]
fn off_and_masks_without_a_guide_are_unchanged() {
    let (mut steady, labels, mut random) = (Steady::default(), labels(), Random(3));
    for seq in 0..10 {
        let scene = moving(2.0)(seq as usize);
        let mut mask = mask(seq, with_errors(&scene.truth(), &mut random), scene.guide(&mut random), &labels);
        assert!(std::ptr::eq(steady.steady(&mask, Smooth::Off), &mask));
        mask.guide = None;
        assert!(std::ptr::eq(steady.steady(&mask, Smooth::Normal), &mask));
    }
}

#[test]
fn masks_and_guides_of_any_size_are_accepted() {
    let labels = labels();
    for (width, height, guide_size) in
        [(1, 1, (1, 1)), (3, 2, (192, 108)), (512, 288, (5, 3)), (64, 200, (60, 192)), (40, 40, (8, 8))]
    {
        let mut steady = Steady::default();
        for seq in 0..4 {
            let mut guide = Guide::new(guide_size.0, guide_size.1);
            guide.plane_mut(0).iter_mut().enumerate().for_each(|(n, luma)| *luma = (n as u64 * 31 * (seq + 1)) as u8);
            let classes = (0..width * height).map(|n| ((n as u64 + seq) % 3) as ClassId).collect();
            let mask = Mask { width, height, ..mask(seq, classes, guide, &labels) };
            assert_eq!(steady.steady(&mask, Smooth::Normal).classes.len(), width * height, "{width}x{height}");
        }
    }
    // A mask with too few pixels is drawn as it is.
    let short = Mask { classes: vec![1; 3], ..mask(0, Vec::new(), Guide::new(192, 108), &labels) };
    assert!(std::ptr::eq(Steady::default().steady(&short, Smooth::Normal), &short));
}

#[test]
fn buffers_are_reused() {
    let (mut steady, labels, mut random) = (Steady::default(), labels(), Random(3));
    let mut masks = (0..12).map(|seq| {
        let scene = moving(2.0)(seq as usize);
        mask(seq, with_errors(&scene.truth(), &mut random), scene.guide(&mut random), &labels)
    });
    let buffers = |steady: &Steady| {
        let mut buffers = vec![
            steady.now.shown.as_ptr(),
            steady.before.shown.as_ptr(),
            steady.mask.as_ref().unwrap().classes.as_ptr(),
        ];
        buffers.push(steady.guide.plane(0).as_ptr());
        buffers.push(steady.pyramid.levels[0].detail.as_ptr());
        buffers.push(steady.previous.levels[0].detail.as_ptr());
        buffers.sort();
        buffers
    };
    for mask in masks.by_ref().take(3) {
        steady.steady(&mask, Smooth::Normal);
    }
    let first = buffers(&steady);
    for mask in masks {
        steady.steady(&mask, Smooth::Normal);
        assert_eq!(buffers(&steady), first);
    }
}

/// A box moves into a crop and out of it while the camera turns.
#[test]
fn a_crop_is_made_steady_as_a_mask_of_its_own() {
    let (mut random, labels) = (Random(4), labels());
    let (mut own, mut framed) = (Steady::default(), Steady::default());
    let area = PixelArea { left: 100, top: 36, width: WIDTH, height: HEIGHT };
    let (width, height) = (2 * WIDTH, 3 * HEIGHT / 2);
    let mut changed = 0;
    for t in 0..25 {
        let scene = Scene { object: object_at(-20.0 + 12.0 * t as f32), camera: 2.0 * t as f32 };
        let part = mask(t, with_errors(&scene.truth(), &mut random), scene.guide(&mut random), &labels);
        let mut classes = vec![UNSEEN; width * height];
        area.rows(width).zip(part.classes.chunks(WIDTH)).for_each(|(row, from)| classes[row].copy_from_slice(from));
        let whole = Mask { width, height, classes, seen: Some(area), ..part.clone() };
        for smooth in [Smooth::Normal, Smooth::Normal] {
            // Twice, as for two frames that are drawn with one mask.
            let expected = own.steady(&part, smooth).classes.clone();
            let found = framed.steady(&whole, smooth);
            assert_eq!((found.seq, found.width, found.height, found.seen), (t, width, height, Some(area)));
            assert!(found.seen_classes().flatten().eq(&expected), "mask {t}");
            let unseen = found.classes.iter().filter(|&&class| class == UNSEEN).count();
            assert_eq!(unseen, width * height - area.pixels(), "nothing moves out of the crop or into it");
            changed += usize::from(found.classes != whole.classes);
        }
    }
    assert!(changed > 40, "errors are smoothed: {changed}");
    // Without smoothing, and for a mask without a guide, the mask itself.
    let plain = Mask { guide: None, seen: Some(area), ..mask(30, Vec::new(), Guide::default(), &labels) };
    let plain = Mask { width, height, classes: vec![UNSEEN; width * height], ..plain };
    assert!(std::ptr::eq(framed.steady(&plain, Smooth::Off), &raw const plain));
    assert!(std::ptr::eq(framed.steady(&plain, Smooth::Normal), &raw const plain));
}
