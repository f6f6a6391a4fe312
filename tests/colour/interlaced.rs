//! Interlaced video: two fields in a frame, taken at different times.

use std::path::Path;
use std::time::Duration;

use crate::common::clip::ffmpeg;
use crate::{frames, model_input};

const SIZE: (usize, usize) = (320, 240);

/// A white bar on black moves by this many pixels from a field to the next.
const STEP: usize = 16;

const WIDTH: usize = 40;

/// Frames in a clip.
const FRAMES: usize = 8;

/// Where the bar is in the first field of a frame.
fn left(frame: usize) -> usize {
    20 + 2 * STEP * frame
}

/// Writes a clip of the moving bar, the even lines taken before the odd ones.
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
    let turned = folder.path().join("turned.mp4");
    for (name, more) in [
        ("h264.mp4", &[][..]),
        ("h264_422.mp4", &["-pix_fmt", "yuv422p"][..]),
        ("mpeg2.ts", &["-c:v", "mpeg2video", "-q:v", "2", "-top", "1"][..]),
        ("turned.mp4", &[][..]),
    ] {
        let clip = folder.path().join(name);
        let coding = if name == "mpeg2.ts" { more.to_vec() } else { [&h264[..], more].concat() };
        write(&clip, &coding);
        if clip == turned {
            crate::common::clip::turn(&clip, SIZE.1 as u32);
        }
        let frames = frames(clip.to_str().unwrap()).unwrap();
        assert_eq!(frames.len(), FRAMES, "{name}: a frame for each");
        let times: Vec<Duration> = frames.iter().map(|(pts, _)| *pts - frames[0].0).collect();
        let even: Vec<Duration> = (0..FRAMES as u32).map(|n| n * Duration::from_millis(40)).collect();
        assert_eq!(times, even, "{name}");
        for (n, (_, frame)) in frames.iter().enumerate() {
            let size = if clip == turned { (SIZE.1, SIZE.0) } else { SIZE };
            let picture = model_input(&**frame, size);
            // Away from the upper and lower edges; where a clip was turned, along its columns.
            for y in 8..SIZE.1 - 8 {
                let pixel = |x: usize| if clip == turned { picture.at(SIZE.1 - 1 - y, x) } else { picture.at(x, y) };
                let bright: Vec<usize> = (0..SIZE.0).filter(|&x| pixel(x)[1] > 128).collect();
                let (first, last) = (*bright.first().unwrap(), *bright.last().unwrap());
                // In the other field it would be elsewhere by STEP.
                let right = first.abs_diff(left(n)) <= 3 && last.abs_diff(left(n) + WIDTH - 1) <= 3;
                assert!(right, "{name}, frame {n}, line {y}: from {first} to {last}, not from {}", left(n));
            }
        }
    }
}

/// Where nothing moves, nothing of the picture's height is lost.
#[test]
fn what_stands_still_keeps_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("still.mp4");
    // A white line on every fourth line of the picture: it lies in one field only.
    let picture = "color=black:s=320x240:r=25,format=yuv420p,geq=lum='if(eq(mod(Y,4),1),235,16)':cb=128:cr=128";
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        picture,
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
    let picture = model_input(&*frames[4].1, SIZE);
    for y in 8..SIZE.1 - 8 {
        let wanted = if y % 4 == 1 { 255 } else { 0 };
        assert!(picture.at(160, y)[1].abs_diff(wanted) <= 8, "line {y} is {:?}", picture.at(160, y));
    }
}
