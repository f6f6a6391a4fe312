//! Time to make a mask steady, on one core: median for each scene, with a mask of 512×288 pixels.
//!
//! `cargo bench --bench steady`

use std::time::{Duration, Instant};

use maskcast::config::Smooth;
use maskcast::frame::{Guide, Mask};
use maskcast::steady::Steady;

const SIZE: (usize, usize) = (512, 288);
const MASKS: u64 = 120;

fn main() {
    println!("{:<28} median ms", "scene");
    for (name, pan, errors) in [
        ("still", 0.0, 0),
        ("still, errors of the model", 0.0, 60),
        ("turning camera", 4.0, 60),
        ("fast turning camera", 14.0, 60),
    ] {
        println!("{name:<28} {:.3}", median(pan, errors).as_secs_f64() * 1e3);
    }
}

/// A textured scene that moves by `pan` guide pixels a mask, and `errors` blobs of a wrong class in each mask.
fn median(pan: f64, errors: u32) -> Duration {
    let mut state = 1_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let (guide_width, guide_height) = Guide::size(SIZE.0, SIZE.1);
    let labels: maskcast::frame::Labels = [].into();
    let mut steady = Steady::default();
    let mut times: Vec<Duration> = Vec::new();
    for seq in 0..MASKS {
        let mut guide = Guide::new(guide_width, guide_height);
        for (n, luma) in guide.plane_mut(0).iter_mut().enumerate() {
            let (x, y) = ((n % guide_width) as f64 + pan * seq as f64, (n / guide_width) as f64);
            let value = 120.0 + 50.0 * (x / 5.0 + (y / 9.0).sin()).sin() + 50.0 * (y / 4.0 + (x / 17.0).cos()).cos();
            *luma = value as u8 + random(4) as u8;
        }
        let mut classes: Vec<u8> = (0..SIZE.0 * SIZE.1)
            .map(|n| {
                let x = (n % SIZE.0) as f64 + pan * seq as f64 * SIZE.0 as f64 / guide_width as f64;
                ((x / 61.0) as usize + n / SIZE.0 / 47) as u8 % 12
            })
            .collect();
        for _ in 0..errors {
            let (x, y, class) = (random(SIZE.0 - 12), random(SIZE.1 - 12), random(12) as u8);
            (y..y + 12).for_each(|y| classes[y * SIZE.0 + x..][..12].fill(class));
        }
        let mask = Mask {
            seq,
            pts: Duration::from_millis(40 * seq),
            captured_at: Instant::now(),
            width: SIZE.0,
            height: SIZE.1,
            classes,
            labels: labels.clone(),
            model: "".into(),
            guide: Some(Box::new(guide)),
            probable: None,
            confirmed: false,
            seen: None,
        };
        let start = Instant::now();
        std::hint::black_box(steady.steady(&mask, Smooth::Normal));
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}
