//! Clips with shapes that the test model calls "person", and with a code of their scene that survives lossy video.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::program::Guard;
use crate::common::wait::DEADLINE;

/// The size of all analysed frames, pixels.
pub const WIDTH: usize = 320;
pub const HEIGHT: usize = 180;

pub const FPS: usize = 15;

type Color = [u8; 3];

/// The background. It is less red than green or blue.
const BACKGROUND: Color = [70, 90, 100];

/// The two colours of a person: a checker of 2×2 pixels. Both have the class "person", and their luma differs.
const PERSON: [Color; 2] = [[255, 120, 120], [100, 0, 0]];

/// A person that the model does not recognise: the same checker without colour.
const MISSED: [Color; 2] = [[200, 200, 200], [60, 60, 60]];

/// The colour with which some test models cannot be run.
const POISON: [Color; 2] = [[0, 0, 255]; 2];

/// Width and height of a patch of poison, and its number of pixels.
const POISON_SIDE: usize = 16;
pub const POISON_PIXELS: usize = POISON_SIDE * POISON_SIDE;

/// What a clip shows. The number of the variant is drawn in the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// No person.
    Empty = 1,
    /// A person walks.
    Moving = 2,
    /// From one cell of the checker to half of the frame.
    Growing = 3,
    /// A person stays, and after a second the model does not recognise it in every other frame.
    Flickering = 4,
    /// The person jumps by more than its size.
    Fast = 5,
    /// Shapes of one chroma sample.
    OnePixel = 6,
    /// Thin lines along all borders of the frame, and its corners.
    Borders = 7,
    /// The frame is full of it.
    Whole = 8,
    /// A person walks, and there is a patch with which some models cannot be run.
    Poison = 9,
}

impl Scene {
    pub const ALL: [Scene; 9] = [
        Scene::Empty,
        Scene::Moving,
        Scene::Growing,
        Scene::Flickering,
        Scene::Fast,
        Scene::OnePixel,
        Scene::Borders,
        Scene::Whole,
        Scene::Poison,
    ];

    /// The scenes of [`write_shapes`] with a person.
    pub const PEOPLE: [Scene; 7] =
        [Scene::Moving, Scene::Growing, Scene::Flickering, Scene::Fast, Scene::OnePixel, Scene::Borders, Scene::Whole];
}

/// A frame, three bytes a pixel.
struct Canvas(Vec<u8>);

impl Canvas {
    fn new() -> Self {
        Canvas(BACKGROUND.repeat(WIDTH * HEIGHT))
    }

    /// Fills a rectangle with a checker of 2×2 pixels. Sides and position are even; what is outside of the frame is left out.
    fn fill(&mut self, (left, top): (usize, usize), (width, height): (usize, usize), colors: [Color; 2]) {
        for y in top..(top + height).min(HEIGHT) {
            for x in left..(left + width).min(WIDTH) {
                self.0[3 * (y * WIDTH + x)..][..3].copy_from_slice(&colors[(x / 2 + y / 2) % 2]);
            }
        }
    }

    /// The frame `n` of a scene.
    fn paint(scene: Scene, n: usize) -> Canvas {
        let mut canvas = Canvas::new();
        // Otherwise an encoder would send nothing.
        canvas.fill((8 + 8 * (n % 8), 24), (8, 8), [[40, 110, 60]; 2]);
        match scene {
            Scene::Empty => {}
            Scene::Moving => canvas.fill((20 + 6 * n, 60), (44, 60), PERSON),
            Scene::Growing => canvas.fill((100, 50), (2 + 8 * n, 2 + 4 * n), PERSON),
            // Recognised for a second first, because a busy machine drops frames.
            Scene::Flickering => {
                let is_missed = n > FPS && !n.is_multiple_of(2);
                canvas.fill((200, 40), (64, 80), if is_missed { MISSED } else { PERSON });
            }
            Scene::Fast => canvas.fill((10 + 110 * n % 270, 40 + 70 * n % 100), (44, 44), PERSON),
            Scene::OnePixel => {
                for at in [(50, 60), (122, 90), (200, 122), (261, 41), (309, 169)] {
                    canvas.fill((at.0 / 2 * 2, at.1 / 2 * 2), (2, 2), [PERSON[0]; 2]);
                }
            }
            Scene::Borders => {
                canvas.fill((0, 0), (WIDTH, 2), PERSON);
                canvas.fill((0, HEIGHT - 2), (WIDTH, 2), PERSON);
                canvas.fill((0, 0), (2, HEIGHT), PERSON);
                canvas.fill((WIDTH - 2, 0), (2, HEIGHT), PERSON);
                canvas.fill((WIDTH - 30, HEIGHT - 40), (30, 40), PERSON);
                canvas.fill((0, HEIGHT - 40), (24, 40), PERSON);
            }
            Scene::Whole => canvas.fill((0, 0), (WIDTH, HEIGHT), PERSON),
            Scene::Poison => {
                canvas.fill((20 + 6 * n, 60), (44, 60), PERSON);
                canvas.fill((160, 8), (POISON_SIDE, POISON_SIDE), POISON);
            }
        }
        canvas.code(scene as u8);
        canvas
    }

    /// White, black, and the number of the scene as four bits: blocks of 8×8 pixels.
    fn code(&mut self, number: u8) {
        let bits = [1, 0].into_iter().chain((0..4).rev().map(|bit| number >> bit & 1));
        for (n, bit) in bits.enumerate() {
            self.fill((CODE.0 + 8 * n, CODE.1), (8, 8), [[if bit == 1 { 240 } else { 15 }; 3]; 2]);
        }
    }
}

/// Where the code is, pixels.
pub const CODE: (usize, usize) = (136, 148);

/// Writes a clip with all shapes and without poison, eight seconds long.
pub fn write_shapes(path: &Path) {
    let frames = [10, 20, 20, 31, 16, 10, 10, 8];
    let scenes: Vec<(Scene, usize)> = Scene::ALL.into_iter().zip(frames).collect();
    write(path, &scenes, 1);
}

/// Writes a clip of a person who walks, three seconds long.
pub fn write_walk(path: &Path) {
    write(path, &[(Scene::Empty, 6), (Scene::Moving, 40)], 1);
}

/// A person who walks again and again for two minutes.
pub fn write_long_walk(path: &Path) {
    write(path, &[(Scene::Moving, 40); 45], 1);
}

/// A person who walks so many times, in frames of twice the size; once takes three seconds.
pub fn write_large_walk(path: &Path, times: usize) {
    write(path, &[(Scene::Moving, 40)].repeat(times), 2);
}

/// A few frames of a person, 4800 × 2700 pixels.
pub fn write_huge_walk(path: &Path) {
    write(path, &[(Scene::Moving, 5)], 15);
}

/// A person who walks, with poison from time to time, for two minutes.
pub fn write_poison(path: &Path) {
    write(path, &[(Scene::Empty, 6), (Scene::Moving, 40), (Scene::Poison, 2)].repeat(40), 1);
}

/// A person who walks, with poison in every frame.
pub fn write_only_poison(path: &Path) {
    write(path, &[(Scene::Poison, 40)], 1);
}

/// A person who comes nearer for a second and is away for two.
pub fn write_visits(path: &Path) {
    write(path, &[(Scene::Growing, 20), (Scene::Empty, 30)], 1);
}

/// Writes scenes and their numbers of frames as lossless H.264; each pixel becomes a square of `scale` pixels.
fn write(path: &Path, scenes: &[(Scene, usize)], scale: usize) {
    let size = format!("{WIDTH}x{HEIGHT}");
    let scale = format!("scale={}:{}:flags=neighbor", scale * WIDTH, scale * HEIGHT);
    let mut ffmpeg = Guard::spawn(
        Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-r", &FPS.to_string()])
            .args(["-i", "pipe:0", "-vf", &scale, "-pix_fmt", "yuv420p"])
            .args(["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-g", "15"])
            .arg(path)
            .stdin(Stdio::piped()),
    );
    let mut input = ffmpeg.0.stdin.take().unwrap();
    for &(scene, frames) in scenes {
        for n in 0..frames {
            input.write_all(&Canvas::paint(scene, n).0).unwrap();
        }
    }
    drop(input);
    assert!(ffmpeg.wait(DEADLINE).success(), "ffmpeg writes {}", path.display());
}
