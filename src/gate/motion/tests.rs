//! The detector on pictures of 256 × 144 that are made here.

use super::*;

const WIDTH: usize = 256;
const HEIGHT: usize = 144;

/// Pseudo-random numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A number from `-most` to `most`.
    fn around(&mut self, most: i32) -> i32 {
        self.below(2 * most as usize + 1) as i32 - most
    }
}

/// A yard: a texture without motion.
fn yard() -> Vec<u8> {
    let mut noise = Noise(7);
    (0..WIDTH * HEIGHT)
        .flat_map(|at| {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let grey = 60 + (x / 24 + y / 18) % 3 * 30 + noise.below(12);
            [grey as u8, (grey + 10) as u8, (grey + 20) as u8]
        })
        .collect()
}

/// Adds the noise of a sensor to each value, and `light` to all of them.
fn exposed(picture: &[u8], noise: &mut Noise, most: i32, light: f64) -> Vec<u8> {
    let value =
        |&value: &u8| (f64::from(value) + light + f64::from(noise.around(most))).round().clamp(0.0, 255.0) as u8;
    picture.iter().map(value).collect()
}

/// Adds `contrast` to the pixels of a rectangle.
fn add(picture: &mut [u8], (left, top): (usize, usize), (width, height): (usize, usize), contrast: i32) {
    for y in top..(top + height).min(HEIGHT) {
        for value in &mut picture[3 * (y * WIDTH + left)..][..3 * width.min(WIDTH - left)] {
            *value = (i32::from(*value) + contrast).clamp(0, 255) as u8;
        }
    }
}

fn blocks(picture: &[u8]) -> Blocks {
    Blocks::of(picture, WIDTH, HEIGHT).unwrap()
}

/// A detector that has seen 100 frames of a still scene with this noise, and the newest of them.
fn settled(most: i32) -> (Detector, Blocks, Noise) {
    let (yard, mut noise, mut detector) = (yard(), Noise(3), Detector::default());
    let reference = blocks(&exposed(&yard, &mut noise, most, 0.0));
    for _ in 0..100 {
        detector.moves(&reference, &blocks(&exposed(&yard, &mut noise, most, 0.0)));
    }
    (detector, reference, noise)
}

#[test]
fn blocks_are_sums_of_their_pixels_and_the_last_ones_overlap() {
    let (width, height) = (6, 5);
    let rgb: Vec<u8> = (0..width * height * 3).map(|n| n as u8).collect();
    let blocks = Blocks::of(&rgb, width, height).unwrap();
    assert_eq!((blocks.columns, blocks.len()), (2, 4));
    let sum = |left: usize, top: usize, channel: usize| -> u16 {
        let pixels = (0..16).map(|n| ((top + n / 4) * width + left + n % 4) * 3 + channel);
        pixels.map(|at| u16::from(rgb[at])).sum()
    };
    for channel in 0..3 {
        let expected = [sum(0, 0, channel), sum(2, 0, channel), sum(0, 1, channel), sum(2, 1, channel)];
        assert_eq!(blocks.sums[channel], expected, "channel {channel}");
    }
    assert_eq!(Blocks::of(&[0; 3 * 3 * 8], 3, 8), None);
    assert_eq!(Blocks::of(&[0; 3 * 3 * 8], 8, 3), None);
}

#[test]
fn noise_of_a_still_scene_is_not_motion() {
    for most in [0, 2, 6, 12] {
        let (mut detector, reference, mut noise) = settled(most);
        let yard = yard();
        let moved =
            (0..100).filter(|_| detector.moves(&reference, &blocks(&exposed(&yard, &mut noise, most, 0.0)))).count();
        assert!(moved <= 3, "noise of ±{most}: {moved} of 100 frames");
    }
}

/// A person 20 pixels high in 1080 rows, at every place in the grid of blocks, in the first frame in which it is there.
#[test]
fn an_object_of_five_by_two_pixels_that_appears_is_motion() {
    for most in [0, 2, 6] {
        let (detector, reference, mut noise) = settled(most);
        for at in 0..16 {
            let mut detector = detector.clone();
            let mut scene = exposed(&yard(), &mut noise, most, 0.0);
            add(&mut scene, (100 + at % 4, 80 + at / 4), (2, 5), 50);
            assert!(detector.moves(&reference, &blocks(&scene)), "noise of ±{most}, offset {at}");
        }
    }
}

#[test]
fn slow_changes_add_up() {
    let yard = yard();
    // A shadow that grows darker by a fifth of a level a frame.
    let (mut detector, reference, mut noise) = settled(2);
    let seen = (1..).find(|&frame| {
        let mut scene = exposed(&yard, &mut noise, 2, 0.0);
        add(&mut scene, (100, 60), (40, 60), -(frame / 5));
        detector.moves(&reference, &blocks(&scene))
    });
    assert!(seen.is_some_and(|frame| (15..=30).contains(&frame)), "{seen:?}");
    // Dusk: everything, by a tenth of a level a frame.
    let (mut detector, reference, mut noise) = settled(2);
    let seen = (1..).find(|&frame| {
        let light = -f64::from(frame) / 10.0;
        detector.moves(&reference, &blocks(&exposed(&yard, &mut noise, 2, light)))
    });
    assert!(seen.is_some_and(|frame| (10..=20).contains(&frame)), "{seen:?}");
}

#[test]
fn a_light_that_is_switched_is_motion() {
    let yard = yard();
    let (detector, reference, mut noise) = settled(2);
    for (light, moves) in [(25.0, true), (-25.0, true), (3.0, true), (-3.0, true), (0.5, false)] {
        let scene = exposed(&yard, &mut noise, 2, light);
        assert_eq!(detector.clone().moves(&reference, &blocks(&scene)), moves, "{light} levels");
    }
}

/// Leaves and rain: motion that does not end stays motion, however long it lasts, and an object in it is seen.
#[test]
fn continuous_motion_is_never_learned_as_noise() {
    let yard = yard();
    let (mut detector, mut reference, mut noise) = settled(2);
    for frame in 0..300 {
        let mut scene = exposed(&yard, &mut noise, 2, 0.0);
        for _ in 0..20 {
            add(&mut scene, (noise.below(WIDTH - 1), noise.below(HEIGHT)), (1, 14), 70);
        }
        let rain = blocks(&scene);
        assert!(detector.moves(&reference, &rain), "rain, frame {frame}");
        reference = rain;
    }
    let (mut detector, mut reference, mut noise) = settled(2);
    for frame in 0..300 {
        let mut scene = exposed(&yard, &mut noise, 2, 0.0);
        for _ in 0..40 {
            add(&mut scene, (150 + noise.below(60), 50 + noise.below(60)), (6, 6), 40);
        }
        let leaves = blocks(&scene);
        assert!(detector.moves(&reference, &leaves), "leaves, frame {frame}");
        reference = leaves;
    }
    let mut scene = exposed(&yard, &mut noise, 2, 0.0);
    let still = blocks(&scene);
    detector.moves(&still, &still);
    add(&mut scene, (170, 80), (8, 20), 60);
    assert!(detector.moves(&still, &blocks(&scene)), "a person among leaves");
}

#[test]
fn too_much_noise_opens_the_gate() {
    let (mut detector, reference, mut noise) = settled(60);
    let yard = yard();
    for frame in 0..50 {
        let scene = blocks(&exposed(&yard, &mut noise, 60, 0.0));
        assert!(detector.moves(&reference, &scene), "frame {frame}");
    }
    // Even of two equal images.
    assert!(detector.moves(&reference, &reference));
}

#[test]
fn an_image_of_another_size_is_motion() {
    let (mut detector, reference, _) = settled(0);
    assert!(!detector.moves(&reference, &reference));
    let other = Blocks::of(&vec![0; 3 * HEIGHT * WIDTH], HEIGHT, WIDTH).unwrap();
    assert!(detector.moves(&reference, &other), "as many blocks, in other rows");
    assert!(detector.moves(&reference, &Blocks::of(&[0; 3 * 64], 8, 8).unwrap()));
}
