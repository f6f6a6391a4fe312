//! Which pixels of a mask are hidden.

use std::time::{Duration, Instant};

use super::{Noise, hidden, marked, mask, video};
use crate::frame::{Mask, Probable};
use crate::redact::area::{Area, AreaError, Growth, HIDDEN};

#[test]
fn the_area_contains_the_mask_grown_and_what_is_held() {
    let mut noise = Noise(1);
    for _ in 0..200 {
        let size = (1 + noise.below(60), 1 + noise.below(60));
        let video = video(&mut noise);
        let growth = Growth::new(noise.below(20) as f64 / 100.0, size, &video);
        let hold = Duration::from_millis(noise.below(1000) as u64);
        let (mut area, start) = (Area::default(), Instant::now());
        let mut past: Vec<Mask> = Vec::new();
        for n in 0..6 {
            let at = Duration::from_millis(n * 150 + noise.below(100) as u64);
            let now = mask(&mut noise, size, start, at);
            let found = area.update(&now, &hidden(), growth, hold).unwrap().to_vec();
            past.push(now);
            for old in past.iter().filter(|old| at - old.pts <= hold) {
                for (pixel, _) in old.classes.iter().enumerate().filter(|(_, class)| **class == 1) {
                    let (x, y) = (pixel % size.0, pixel / size.0);
                    let columns = x.saturating_sub(growth.columns)..(x + growth.columns + 1).min(size.0);
                    for row in y.saturating_sub(growth.rows)..(y + growth.rows + 1).min(size.1) {
                        let is_hidden = found[row * size.0..][columns.clone()].iter().all(|&pixel| pixel == HIDDEN);
                        assert!(is_hidden, "{size:?} {growth:?} {x} {y}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_area_is_visible_again_when_it_is_not_held_any_longer() {
    let (mut area, start) = (Area::default(), Instant::now());
    let none = Growth { columns: 0, rows: 0 };
    let of = |class: u8, at: u64| Mask {
        classes: vec![class, 0],
        ..mask(&mut Noise(0), (2, 1), start, Duration::from_millis(at))
    };
    let hold = Duration::from_millis(500);
    let mut update = |class, at| area.update(&of(class, at), &hidden(), none, hold).unwrap().to_vec();
    assert_eq!(update(1, 0), [HIDDEN, 0]);
    assert_eq!(update(0, 500), [HIDDEN, 0], "as long as it is held");
    assert_eq!(update(0, 501), [HIDDEN, 0], "the second mask after it");
    assert_eq!(update(0, 502), [0, 0]);
    assert_eq!(update(1, 2000), [HIDDEN, 0]);
    assert_eq!(update(0, 4000), [HIDDEN, 0], "a slow camera: one mask in the time");
    assert_eq!(update(0, 6000), [HIDDEN, 0]);
    assert_eq!(update(0, 8000), [0, 0]);
    // What was seen in masks of another size is not known for that time.
    let other = |at| Mask { width: 1, height: 2, ..of(0, at) };
    let mut update = |at| area.update(&other(at), &hidden(), none, hold).map(<[u8]>::to_vec);
    assert!(matches!(update(9000), Err(AreaError::UnknownPast)));
    assert!(matches!(update(9500), Err(AreaError::UnknownPast)));
    assert_eq!(update(9501).unwrap(), [0; 2]);
}

#[test]
fn a_hole_in_the_area_is_hidden_and_a_bay_is_not() {
    let ring = |open: bool| {
        let mut classes = [1; 9 * 9];
        classes[4 * 9 + 4] = 0;
        if open {
            (5..9).for_each(|row| classes[row * 9 + 4] = 0);
        }
        let mut all = vec![0; 100 * 100];
        for row in 0..9 {
            all[(row + 20) * 100 + 20..][..9].copy_from_slice(&classes[row * 9..][..9]);
        }
        Mask { classes: all, ..mask(&mut Noise(0), (100, 100), Instant::now(), Duration::ZERO) }
    };
    let none = Growth { columns: 0, rows: 0 };
    for (open, expected) in [(false, HIDDEN), (true, 0)] {
        let mut area = Area::default();
        let found = area.update(&ring(open), &hidden(), none, Duration::ZERO).unwrap();
        assert_eq!(found[24 * 100 + 24], expected, "open: {open}");
    }
}

#[test]
fn probable_pixels_are_hidden_too() {
    let mut now = Mask { classes: vec![0; 16], ..mask(&mut Noise(0), (4, 4), Instant::now(), Duration::ZERO) };
    let probable =
        |pixels: Vec<bool>| Some(Box::new(Probable { width: 2, height: 2, pixels, confidence: 200, margin: 0 }));
    now.probable = probable(vec![false, true, false, false]);
    let none = Growth { columns: 0, rows: 0 };
    let update = |mask: &Mask| Area::default().update(mask, &hidden(), none, Duration::ZERO).map(<[u8]>::to_vec);
    let (h, row) = (HIDDEN, [0; 4]);
    assert_eq!(update(&now).unwrap(), [[0, 0, h, h], [0, 0, h, h], row, row].concat());
    now.probable = probable(vec![true]);
    assert!(update(&now).is_err(), "fewer pixels than its size");
}

#[test]
fn the_parts_that_are_hidden_as_holes_are_those_of_a_flood_fill() {
    let mut noise = Noise(7);
    let mut holes = 0;
    for _ in 0..100 {
        let (width, height) = (1 + noise.below(90), 1 + noise.below(90));
        let density = 2 + noise.below(4);
        let classes: Vec<u8> = (0..width * height).map(|_| u8::from(noise.below(density) > 0)).collect();
        let mask = Mask { classes, ..mask(&mut Noise(0), (width, height), Instant::now(), Duration::ZERO) };
        let mut expected: Vec<u8> = mask.classes.iter().map(|&class| marked(class == 1)).collect();
        if mask.classes.contains(&1) {
            let mut is_known = vec![false; width * height];
            for start in (0..width * height).filter(|&pixel| mask.classes[pixel] == 0) {
                let (mut part, mut done, mut touches) = (vec![], 0, false);
                if !std::mem::replace(&mut is_known[start], true) {
                    part.push(start);
                }
                while done < part.len() {
                    let (x, y) = (part[done] % width, part[done] / width);
                    touches |= x == 0 || y == 0 || x == width - 1 || y == height - 1;
                    for (dx, dy) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
                        let (x, y) = (x + dx, y + dy);
                        let is_inside = (1..=width).contains(&x) && (1..=height).contains(&y);
                        let near = (y.max(1) - 1) * width + x.max(1) - 1;
                        if is_inside && mask.classes[near] == 0 && !std::mem::replace(&mut is_known[near], true) {
                            part.push(near);
                        }
                    }
                    done += 1;
                }
                if !touches && part.len() <= width * height / 500 {
                    part.iter().for_each(|&pixel| expected[pixel] = HIDDEN);
                    holes += usize::from(part.len() > 1);
                }
            }
        }
        let none = Growth { columns: 0, rows: 0 };
        let mut area = Area::default();
        let found = area.update(&mask, &hidden(), none, Duration::ZERO).unwrap();
        assert!(found == expected, "{width} {height} {density}");
    }
    assert!(holes > 100, "{holes}");
}
