//! Finds persons in published frames: their colour, and the checker that they are painted with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::paint::{CODE, HEIGHT, Scene, WIDTH};

/// How red a pixel is at least that counts as a person: `2r - g - b`. A person has 200 or 270, the background -50, grey 0, and
/// the test models take anything above 60 for a person. Loss of video and JPEG at the quality of these tests is within 60, which
/// the stream without redaction proves: all its scenes must be found.
const RED: i32 = 110;

/// Contrast of the checker at least that counts as a person: half of the difference of its two lumas, the mean of an area of
/// 16×16 pixels. A person has 65, 23 in the dimmed last frame of an offline camera; a plain area has 0, and text of the overlay
/// up to 10.
const CHECKER: i32 = 14;

/// What was found in one frame.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// By the code in the frame; `None` if it is hidden.
    pub scene: Option<Scene>,
    /// Number of red pixels.
    pub red_pixels: usize,
    /// The reddest pixel.
    pub red: i32,
    /// The clearest checker.
    pub checker: i32,
}

impl Found {
    pub fn is_red(&self) -> bool {
        self.red_pixels > 0
    }

    pub fn is_checker(&self) -> bool {
        self.checker > CHECKER
    }
}

/// Analyses a frame of [`WIDTH`] × [`HEIGHT`] pixels, three bytes each.
pub fn find(rgb: &[u8]) -> Found {
    assert_eq!(rgb.len(), 3 * WIDTH * HEIGHT);
    let (mut red, mut red_pixels) = (i32::MIN, 0);
    for pixel in rgb.chunks_exact(3) {
        let value = redness(pixel);
        red = red.max(value);
        red_pixels += usize::from(value > RED);
    }
    Found { scene: scene(rgb), red_pixels, red, checker: checker(rgb) }
}

/// `2r - g - b`, which depends on the chroma only; 0 for the amber of the overlay's own badge, which has less blue.
fn redness(pixel: &[u8]) -> i32 {
    let [red, green, blue] = [0, 1, 2].map(|n| i32::from(pixel[n]));
    let value = 2 * red - green - blue;
    let is_amber = blue - brightness(pixel) < -value / 3;
    if value > 0 && is_amber { 0 } else { value }
}

fn luma(rgb: &[u8], x: usize, y: usize) -> i32 {
    brightness(&rgb[3 * (y * WIDTH + x)..])
}

/// Luma from 0 to 255.
fn brightness(pixel: &[u8]) -> i32 {
    (299 * i32::from(pixel[0]) + 587 * i32::from(pixel[1]) + 114 * i32::from(pixel[2])) / 1000
}

/// The scene by its code.
fn scene(rgb: &[u8]) -> Option<Scene> {
    let bit = |n: usize| match luma(rgb, CODE.0 + 8 * n + 4, CODE.1 + 4) {
        0..=60 => Some(0),
        190.. => Some(1),
        _ => None,
    };
    if (bit(0)?, bit(1)?) != (1, 0) {
        return None;
    }
    let number = (2..6).try_fold(0_u8, |number, n| Some(number << 1 | bit(n)?))?;
    Scene::ALL.into_iter().find(|scene| *scene as u8 == number)
}

/// The clearest checker of 2×2 pixels, in an area of 16×16 pixels.
fn checker(rgb: &[u8]) -> i32 {
    // A period of the checker in both directions. Plain areas and gradients have 0.
    const TILE: usize = 4;
    const AREA: usize = 4;
    let (columns, rows) = (WIDTH / TILE, HEIGHT / TILE);
    let tiles: Vec<i32> = (0..columns * rows)
        .map(|tile| {
            let (left, top) = (tile % columns * TILE, tile / columns * TILE);
            let sign = |x: usize, y: usize| if (x / 2 + y / 2).is_multiple_of(2) { 1 } else { -1 };
            (0..TILE * TILE).map(|n| (n % TILE, n / TILE)).map(|(x, y)| sign(x, y) * luma(rgb, left + x, top + y)).sum()
        })
        .collect();
    let area = |left: usize, top: usize| -> i32 {
        (0..AREA).flat_map(|y| &tiles[(top + y) * columns + left..][..AREA]).sum::<i32>().abs()
    };
    let areas = (0..=rows - AREA).flat_map(|top| (0..=columns - AREA).map(move |left| (left, top)));
    let pixels = (TILE * TILE * AREA * AREA) as i32;
    areas.map(|(left, top)| area(left, top) / pixels).max().unwrap_or(0)
}

/// Frames of one scene.
#[derive(Clone, Copy, Debug, Default)]
pub struct SceneFindings {
    pub frames: usize,
    pub red: usize,
    pub checker: usize,
}

/// What was found in all frames that one client has received.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub frames: usize,
    /// Frames with red pixels.
    pub red: usize,
    /// Frames with a checker.
    pub checker: usize,
    /// The reddest pixel of all, and the clearest checker.
    pub most_red: i32,
    pub most_checker: i32,
    pub scenes: BTreeMap<Scene, SceneFindings>,
    /// Frames whose code is hidden.
    pub hidden: usize,
    /// Those of them that have a checker: the dimmed last frame of an offline camera.
    pub slates: usize,
    /// The frame with the most red pixels, and the one with the clearest checker.
    worst: [Option<(usize, Vec<u8>)>; 2],
}

impl Findings {
    pub fn add(&mut self, rgb: &[u8]) {
        let found = find(rgb);
        self.frames += 1;
        self.red += usize::from(found.is_red());
        self.checker += usize::from(found.is_checker());
        (self.most_red, self.most_checker) = (self.most_red.max(found.red), self.most_checker.max(found.checker));
        match found.scene {
            None => {
                self.hidden += 1;
                self.slates += usize::from(found.is_checker());
            }
            Some(scene) => {
                let of_scene = self.scenes.entry(scene).or_default();
                of_scene.frames += 1;
                of_scene.red += usize::from(found.is_red());
                of_scene.checker += usize::from(found.is_checker());
            }
        }
        let (red, checker) = (found.red_pixels, if found.is_checker() { found.checker as usize } else { 0 });
        for (worst, amount) in self.worst.iter_mut().zip([red, checker]) {
            if amount > worst.as_ref().map_or(0, |(most, _)| *most) {
                *worst = Some((amount, rgb.to_vec()));
            }
        }
    }

    /// Adds the findings of other frames.
    pub fn merge(&mut self, other: Findings) {
        self.frames += other.frames;
        self.red += other.red;
        self.checker += other.checker;
        self.hidden += other.hidden;
        self.slates += other.slates;
        self.most_red = self.most_red.max(other.most_red);
        self.most_checker = self.most_checker.max(other.most_checker);
        for (scene, found) in other.scenes {
            let of_scene = self.scenes.entry(scene).or_default();
            of_scene.frames += found.frames;
            of_scene.red += found.red;
            of_scene.checker += found.checker;
        }
        for (worst, other) in self.worst.iter_mut().zip(other.worst) {
            if other.as_ref().map(|(amount, _)| *amount) > worst.as_ref().map(|(amount, _)| *amount) {
                *worst = other;
            }
        }
    }

    /// Frames with anything of a person.
    pub fn leaks(&self) -> usize {
        self.red.max(self.checker)
    }

    pub fn scene(&self, scene: Scene) -> SceneFindings {
        self.scenes.get(&scene).copied().unwrap_or_default()
    }

    /// Fails if a frame has the colour or the checker of a person, and shows where.
    pub fn assert_clean(&self, what: &str) {
        assert_eq!(self.checker, 0, "{what}: {self}; see {:?}", self.save(1, what));
        assert_eq!(self.red, 0, "{what}: {self}; see {:?}", self.save(0, what));
    }

    /// The same for a redaction that keeps the mean colour of cells.
    pub fn assert_no_checker(&self, what: &str) {
        assert_eq!(self.checker, 0, "{what}: {self}; see {:?}", self.save(1, what));
    }

    /// Fails unless each of these scenes was seen with the colour or the checker of a person, which proves that it would have
    /// been found in the redacted stream.
    pub fn assert_shows(&self, what: &str, scenes: &[Scene]) {
        for scene in scenes {
            let found = self.scene(*scene);
            assert!(found.red > 0, "{what}: {scene:?} has no colour: {self}");
            let is_thin = matches!(scene, Scene::OnePixel);
            assert!(is_thin || found.checker > 0, "{what}: {scene:?} has no checker: {self}");
        }
    }

    /// Writes a frame that leaks beside the other temporary files.
    fn save(&self, worst: usize, what: &str) -> Option<PathBuf> {
        let (_, rgb) = self.worst[worst].as_ref()?;
        let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("redaction-{name}.ppm"));
        std::fs::write(&path, [format!("P6 {WIDTH} {HEIGHT} 255\n").as_bytes(), rgb].concat()).ok()?;
        Some(path)
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} frames, {} with red (at most {}), {} with a checker (at most {}), {} without a code; {:?}",
            self.frames, self.red, self.most_red, self.checker, self.most_checker, self.hidden, self.scenes
        )
    }
}
