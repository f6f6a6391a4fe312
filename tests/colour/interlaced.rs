//! Interlaced video: a frame has two fields that were captured at different times.

use std::path::Path;
use std::time::Duration;

use crate::common::clip::ffmpeg;
use crate::{frames, model_input};

const SIZE: (usize, usize) = (320, 240);

/// Movement of a white bar on black from field to field, pixels.
const STEP: usize = 16;

const WIDTH: usize = 40;

/// Frames in a clip.
const FRAMES: usize = 8;

/// Position of the bar in the first field of a frame.
fn left(frame: usize) -> usize {
    20 + 2 * STEP * frame
}

/// Writes a clip of the moving bar; the field of the even lines is first.
fn write(path: &Path, coding: &[&str]) {
    let (width, height) = SIZE;
    let mut bytes = Vec::new();
    for frame in 0..FRAMES {
        for y in 0..height {
            let left = left(frame) + STEP * (y % 2);
            bytes.extend((0..width).map(|x| if (left..left + WIDTH).contains(&x) { 235 } else { 16 }));
        }
        bytes.extend(std::iter::repeat_n(128, width * height / 2));
    }
    let raw = path.with_extension("yuv");
    std::fs::write(&raw, bytes).unwrap();
    let mut arguments =
        vec!["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "320x240", "-r", "25", "-i", raw.to_str().unwrap()];
    arguments.extend(["-vf", "setfield=tff", "-flags", "+ilme+ildct"]);
    arguments.extend(coding);
    arguments.push(path.to_str().unwrap());
    ffmpeg(&arguments);
}

#[test]
fn interlaced_frames_are_deinterlaced_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let h264 = ["-c:v", "libx264", "-x264opts", "tff=1", "-qp", "4", "-bf", "0"];
    let rotated = folder.path().join("rotated.mp4");
    for (name, more) in [
        ("h264.mp4", &[][..]),
        ("h264_422.mp4", &["-pix_fmt", "yuv422p"][..]),
        ("mpeg2.ts", &["-c:v", "mpeg2video", "-q:v", "2", "-top", "1"][..]),
        ("rotated.mp4", &[][..]),
    ] {
        let clip = folder.path().join(name);
        let coding = if name == "mpeg2.ts" { more.to_vec() } else { [&h264[..], more].concat() };
        write(&clip, &coding);
        if clip == rotated {
            crate::common::clip::turn(&clip, SIZE.1 as u32);
        }
        let frames = frames(clip.to_str().unwrap()).unwrap();
        assert_eq!(frames.len(), FRAMES, "{name}: one output frame per input frame");
        let times: Vec<Duration> = frames.iter().map(|(pts, _)| *pts - frames[0].0).collect();
        let even: Vec<Duration> = (0..FRAMES as u32).map(|n| n * Duration::from_millis(40)).collect();
        assert_eq!(times, even, "{name}");
        for (n, (_, frame)) in frames.iter().enumerate() {
            let size = if clip == rotated { (SIZE.1, SIZE.0) } else { SIZE };
            let image = model_input(&**frame, size);
            // Without the upper and lower edges. In a rotated clip, lines are columns.
            for y in 8..SIZE.1 - 8 {
                let pixel = |x: usize| if clip == rotated { image.at(SIZE.1 - 1 - y, x) } else { image.at(x, y) };
                let bright: Vec<usize> = (0..SIZE.0).filter(|&x| pixel(x)[1] > 128).collect();
                let (first, last) = (*bright.first().unwrap(), *bright.last().unwrap());
                // In the other field the bar is STEP pixels further.
                let matches = first.abs_diff(left(n)) <= 3 && last.abs_diff(left(n) + WIDTH - 1) <= 3;
                assert!(matches, "{name}, frame {n}, line {y}: from {first} to {last}, not from {}", left(n));
            }
        }
    }
}

/// Static content keeps its full vertical resolution.
#[test]
fn static_content_keeps_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("still.mp4");
    // Every fourth line is white, so all white lines are in one field.
    let graph = "color=black:s=320x240:r=25,format=yuv420p,geq=lum='if(eq(mod(Y,4),1),235,16)':cb=128:cr=128";
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        graph,
        "-frames:v",
        "8",
        "-vf",
        "setfield=tff",
        "-flags",
        "+ilme+ildct",
        "-c:v",
        "libx264",
        "-x264opts",
        "tff=1",
        "-qp",
        "4",
        "-bf",
        "0",
        clip.to_str().unwrap(),
    ]);
    let frames = frames(clip.to_str().unwrap()).unwrap();
    let image = model_input(&*frames[4].1, SIZE);
    for y in 8..SIZE.1 - 8 {
        let expected = if y % 4 == 1 { 255 } else { 0 };
        assert!(image.at(160, y)[1].abs_diff(expected) <= 8, "line {y} is {:?}", image.at(160, y));
    }
}
