//! Crops and tiles of frames (`stream.crop`, `stream.tiles`): the segmenter with a real model, and the real program with a picture
//! whose classes are known.

mod common;

use std::io::Cursor;
use std::path::Path;

use common::clip::{self, Patch, decoded_frame};
use common::fakes::red_and_blue;
use common::http::{get_bytes, send};
use common::live::ServerSentEvents;
use common::onnx;
use common::program::{maskcast, run, until};
use common::service::{Service, folder, write_config};
use maskcast::config::{ModelConfig, Provider};
use maskcast::frame::{Crop, Frame, Mask, Tiles, UNSEEN};
use maskcast::segment::Segmenter;
use maskcast::segment::onnx::Model;
use serde_json::{Value, json};

/// The size of the clip.
const SIZE: (usize, usize) = (640, 360);

const fn patch(left: usize, top: usize, width: usize, height: usize, color: &'static str) -> Patch {
    Patch { left, top, width, height, color }
}

/// A blue box in the lower right quarter, one outside of it, and a red box of which one half is in that quarter.
const BOXES: [Patch; 3] =
    [patch(480, 240, 80, 60, clip::BLUE), patch(80, 60, 80, 60, clip::BLUE), patch(280, 270, 80, 60, clip::RED)];

/// The lower right quarter.
const QUARTER: &str = "[0.5, 0.5, 0.5, 0.5]";

/// Classes of `channels.onnx`.
const RED: u8 = 0;
const GREEN: u8 = 1;
const BLUE: u8 = 2;

/// The class of a pixel of the clip: green where no box is.
fn truth(x: usize, y: usize, patches: &[Patch]) -> u8 {
    let is_in = |patch: &&Patch| {
        (patch.left..patch.left + patch.width).contains(&x) && (patch.top..patch.top + patch.height).contains(&y)
    };
    match patches.iter().rev().find(is_in) {
        Some(patch) if patch.color == clip::RED => RED,
        Some(_) => BLUE,
        None => GREEN,
    }
}

/// Whether all pixels that are up to `reach` away have the same class.
fn is_clear(x: usize, y: usize, reach: usize, patches: &[Patch]) -> bool {
    let class = truth(x, y, patches);
    let around = |at: usize, most: usize| [at.saturating_sub(reach), at, (at + reach).min(most - 1)];
    around(x, SIZE.0).iter().all(|&x| around(y, SIZE.1).iter().all(|&y| truth(x, y, patches) == class))
}

/// Settings of a stream that plays the clip again and again.
fn stream(name: &str, keys: &str, tables: &str) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\nsource = \"file:clip.mp4\"\nloop = true\nmasks = \"always\"\n{keys}\n\
         [stream.overlay]\nalpha = 1\nlegend = false\nsmooth = \"off\"\nhide = [\"green\"]\n\
         colors = {{ blue = \"#ffffff\", red = \"#000000\" }}\n{tables}\n"
    )
}

/// Width, height and pixels of `mask.png`, when there is one.
fn mask_png(service: &Service, stream: &str) -> (usize, usize, Vec<u8>) {
    let url = format!("{}api/v1/streams/{stream}/mask.png", service.page);
    let file = until("a mask", || Some(get_bytes(&url)).filter(|(status, _)| *status == 200).map(|(_, file)| file));
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width as usize, info.height as usize, pixels)
}

/// The class of a pixel of the clip in a mask.
fn class_at((width, height, pixels): &(usize, usize, Vec<u8>), x: usize, y: usize) -> u8 {
    pixels[Mask::index(y, SIZE.1, *height) * width + Mask::index(x, SIZE.0, *width)]
}

/// The next message about a mask of a stream.
fn message(service: &Service, stream: &str) -> Value {
    let mut masks = ServerSentEvents::connect(&service.page, &format!("api/v1/streams/{stream}/masks?mask=rle"), &[]);
    assert_eq!(masks.status, 200);
    masks.next().unwrap()
}

#[track_caller]
fn assert_near(found: &Value, expected: f64, tolerance: f64) {
    let share = found.as_f64().unwrap_or(0.0);
    assert!((share - expected).abs() <= tolerance, "{found} is not {expected} ± {tolerance}");
}

fn patch_stream(service: &Service, stream: &str, body: &str) -> (u16, String) {
    let (status, _, text) = send("PATCH", &format!("{}api/v1/streams/{stream}", service.page), Some(body));
    (status, text)
}

/// Zones: the middle half of the frame, and the blue box in the quarter.
const ZONES: &str = "[[stream.zone]]\nname = \"middle\"\npolygon = [[0.25, 0], [0.75, 0], [0.75, 1], [0.25, 1]]\n\
    [[stream.zone]]\nname = \"box\"\npolygon = [[0.77, 0.7], [0.855, 0.7], [0.855, 0.8], [0.77, 0.8]]\n\
    [[stream.rule]]\nname = \"much\"\nclasses = [\"blue\"]\nshare = 0.06\nfor = \"0s\"\n\
    [[stream.sink]]\ntype = \"jsonl\"\npath = \"masks.jsonl\"\n";

#[test]
fn a_stream_with_a_crop_has_a_mask_of_the_crop_only() {
    let folder = folder();
    clip::paint_scene(&folder.path().join("clip.mp4"), SIZE, 25, 50, "0x00FF00", &BOXES.map(|patch| (patch, 0..50)));
    let crop = format!("crop = {QUARTER}");
    let mut service = Service::ready(folder.path(), &stream("gate", &crop, ZONES));
    service.until_state("gate", "live");

    // The pixels of the mask are 5 × 5 pixels of the frame.
    let mask = mask_png(&service, "gate");
    assert_eq!((mask.0, mask.1), (128, 72), "twice the size of the model");
    for y in 0..SIZE.1 {
        for x in 0..SIZE.0 {
            let class = class_at(&mask, x, y);
            if x < 320 || y < 180 {
                assert_eq!(class, UNSEEN, "{x}, {y}");
            } else if is_clear(x, y, 10, &BOXES) {
                assert_eq!(class, truth(x, y, &BOXES), "{x}, {y}");
            }
        }
    }

    // Shares are those of the pixels that the model saw, up to a row of mask pixels at the edges of the boxes.
    let found = message(&service, "gate");
    assert_eq!((&found["width"], &found["height"]), (&json!(128), &json!(72)));
    let quarter = 320.0 * 180.0;
    assert_near(&found["shares"]["blue"], 80.0 * 60.0 / quarter, 0.015);
    assert_near(&found["shares"]["red"], 40.0 * 60.0 / quarter, 0.015);
    let total: f64 = found["shares"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-6 && found["shares"]["255"].is_null(), "{found}");
    assert_eq!(found["zones"]["box"], json!({ "blue": 1.0 }));
    assert_near(&found["zones"]["middle"]["red"], 40.0 * 60.0 / (160.0 * 180.0), 0.02);
    assert!(found["zones"]["middle"]["blue"].is_null(), "{found}");
    let classes: Vec<&String> = found["mask"]["classes"].as_object().unwrap().keys().collect();
    assert_eq!(classes, ["blue", "green", "red"], "pixels that the model did not see have no class");
    let report = service.stream("gate");
    assert_eq!(report["config"]["crop"], json!([0.5, 0.5, 0.5, 0.5]));
    // Blue has 8 % of the crop, and 4 % of the frame.
    until("the rule", || (service.stream("gate")["rules"][0]["state"] == "active").then_some(()));

    // Only the boxes in the crop are drawn.
    let picture = |service: &Service| {
        let (status, jpeg) = get_bytes(&format!("{}api/v1/streams/gate/snapshot.jpg", service.page));
        assert_eq!(status, 200);
        let path = folder.path().join("snapshot.jpg");
        std::fs::write(&path, jpeg).unwrap();
        decoded_frame(&path, 0)
    };
    let is_near = |[r, g, b]: [u8; 3], expected: [u8; 3]| {
        [(r, expected[0]), (g, expected[1]), (b, expected[2])].iter().all(|(a, b)| a.abs_diff(*b) < 60)
    };
    let shown = picture(&service);
    for (x, y, color) in [
        (520, 270, [255, 255, 255]),
        (120, 90, [0, 0, 255]),
        (340, 300, [0, 0, 0]),
        (300, 300, [255, 0, 0]),
        (400, 200, [0, 255, 0]),
        (40, 340, [0, 255, 0]),
    ] {
        assert!(is_near(shown.at(x, y), color), "{x}, {y}: {:?}", shown.at(x, y));
    }

    // The API changes the crop, and refuses one outside of which a zone is.
    let since = report["since"].clone();
    let (status, problem) = patch_stream(&service, "gate", r#"{"crop": [0, 0, 0.5, 0.5]}"#);
    assert_eq!(status, 422, "{problem}");
    let expected = "stream[gate].zone[1].polygon";
    assert!(
        problem.contains(expected)
            && problem.contains(r#"\"box\" has less than 0.01 % of the frame inside of crop = [0, 0, 0.5, 0.5]"#),
        "{problem}"
    );
    for (body, expected) in [
        (r#"{"crop": [0, 0, 0.1, 1]}"#, "width = 0.1 is less than 0.25"),
        (r#"{"crop": [0.5, 0, 1, 1]}"#, "0.5 + 1 is more than 1"),
        (r#"{"crop": [0, 0, 1]}"#, "has 3 numbers, not 4"),
        (r#"{"crop": [0, 0, 1, 2]}"#, "2 is not between 0 and 1"),
    ] {
        let (status, problem) = patch_stream(&service, "gate", body);
        assert!(status == 422 && problem.contains("stream[gate].crop") && problem.contains(expected), "{problem}");
    }
    assert_eq!(service.stream("gate")["since"], since, "a refused change does not restart the stream");
    let (status, body) = patch_stream(&service, "gate", r#"{"crop": [0, 0, 0.5, 0.5], "zone": [], "rule": []}"#);
    assert_eq!(status, 200, "{body}");
    let mask = until("the mask of the other crop", || {
        let mask = mask_png(&service, "gate");
        (class_at(&mask, 120, 90) == BLUE).then_some(mask)
    });
    assert_eq!((class_at(&mask, 520, 270), class_at(&mask, 40, 340), class_at(&mask, 20, 20)), (UNSEEN, UNSEEN, GREEN));
    assert!(is_near(picture(&service).at(120, 90), [255, 255, 255]));
    let written = std::fs::read_to_string(folder.path().join("maskcast.toml")).unwrap();
    assert!(
        written.contains("crop = [0.0, 0.0, 0.5, 0.5]") || written.contains("crop = [0, 0, 0.5, 0.5]"),
        "{written}"
    );

    // So does a reload: without the key, the model sees the whole frame.
    write_config(folder.path(), &stream("gate", "", ""));
    service.program.child.signal("HUP");
    service.program.wait_for("the reload", |entry| {
        entry["message"].as_str()?.starts_with("configuration reloaded: started none; restarted gate;").then_some(())
    });
    let mask = until("the mask of the whole frame", || {
        let mask = mask_png(&service, "gate");
        ((mask.0, mask.1) == (64, 36)).then_some(mask)
    });
    assert_eq!((class_at(&mask, 520, 270), class_at(&mask, 120, 90)), (BLUE, BLUE));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_wrong_crop_prevents_the_start() {
    let folder = folder();
    clip::paint(&folder.path().join("clip.mp4"), SIZE, 2, &BOXES);
    for (keys, tables, expected) in [
        ("crop = [0.8, 0, 0.5, 1]", "", "stream[gate].crop: x + width = 0.8 + 0.5 is more than 1"),
        (
            "crop = [0, 0, 0.5, 1]",
            ZONES,
            "stream[gate].zone[1].polygon: the zone \"box\" has less than 0.01 % of the frame inside of crop = [0, 0, 0.5, 1]",
        ),
        (
            "crop = [0, 0, 0.5, 1]",
            "[stream.redact]\nclasses = [\"blue\"]\n",
            "stream[gate].crop: is not possible with [stream.redact]",
        ),
    ] {
        let ended = run(maskcast().arg("check").arg(write_config(folder.path(), &stream("gate", keys, tables))));
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

/// A box lies across both seams of the tiles.
#[test]
fn a_stream_in_tiles_has_the_mask_of_the_whole_frame() {
    let folder = folder();
    let patches = [BOXES[0], BOXES[1], patch(240, 120, 160, 120, clip::RED)];
    clip::paint_scene(&folder.path().join("clip.mp4"), SIZE, 25, 50, "0x00FF00", &patches.map(|patch| (patch, 0..50)));
    let streams = stream("whole", "", "")
        + &stream("tiled", "tiles = \"2x2\"", ZONES)
        + &stream("both", "tiles = \"2x1\"\ncrop = [0.25, 0.25, 0.75, 0.75]", "");
    let service = Service::ready(folder.path(), &streams);
    let masks = ["whole", "tiled", "both"].map(|name| {
        service.until_state(name, "live");
        mask_png(&service, name)
    });
    assert_eq!((masks[0].0, masks[0].1), (64, 36));
    // Two tiles that overlap by 12 %.
    assert_eq!((masks[1].0, masks[1].1), (2 * 64 - 8, 2 * 36 - 4));
    for y in 0..SIZE.1 {
        for x in 0..SIZE.0 {
            let found = [0, 1, 2].map(|n| class_at(&masks[n], x, y));
            // The pixels of the mask without tiles are 10 × 10 pixels of the frame.
            let reach = [20, 10, 18].map(|reach| is_clear(x, y, reach, &patches));
            let class = truth(x, y, &patches);
            assert!(!reach[0] || found[0] == class, "whole: {x}, {y}: {}", found[0]);
            assert!(!reach[1] || found[1] == class, "tiled: {x}, {y}: {}", found[1]);
            match (x, y) {
                (165.., 95..) if reach[2] => assert_eq!(found[2], class, "both: {x}, {y}"),
                (0..155, _) | (_, 0..85) => assert_eq!(found[2], UNSEEN, "both: {x}, {y}"),
                _ => {}
            }
        }
    }
    let shares = message(&service, "tiled")["shares"].clone();
    let pixels = (SIZE.0 * SIZE.1) as f64;
    assert_near(&shares["blue"], 2.0 * 80.0 * 60.0 / pixels, 0.01);
    assert_near(&shares["red"], 160.0 * 120.0 / pixels, 0.01);
    // The API changes the tiles.
    let (status, body) = patch_stream(&service, "tiled", r#"{"tiles": "3x1"}"#);
    assert_eq!(status, 200, "{body}");
    until("the mask of three tiles", || {
        let (width, height, _) = mask_png(&service, "tiled");
        ((width, height) == (3 * 64 - 2 * 8, 36)).then_some(())
    });
    let (status, problem) = patch_stream(&service, "tiled", r#"{"tiles": "5x5"}"#);
    assert!(status == 422 && problem.contains("5x5 is not from 1x1 to 4x4"), "{problem}");
}

/// A box in the upper left quarter that is in another place in each frame.
#[test]
fn the_motion_gate_sees_the_crop_only() {
    let folder = folder();
    let place = |n: usize| patch(20 + n * 74 % 200, 20 + n * 38 % 80, 60, 60, clip::BLUE);
    let moving = (0..50).map(|n| (place(n), n..n + 1));
    let patches: Vec<_> = [(BOXES[0], 0..50)].into_iter().chain(moving).collect();
    clip::paint_scene(&folder.path().join("clip.mp4"), SIZE, 25, 50, "0x00FF00", &patches);
    let streams = stream("still", &format!("crop = {QUARTER}"), "")
        + &stream("moving", "crop = [0, 0, 0.5, 0.5]", "")
        + &stream("tiled", &format!("crop = {QUARTER}\ntiles = \"2x1\""), "");
    let service = Service::ready(folder.path(), &streams);
    let skipped = |name: &str| service.stream(name)["mask_runs_skipped_ratio"].as_f64().unwrap();
    until("most masks of the still part are confirmed", || (skipped("still") > 0.8).then_some(()));
    assert!(skipped("moving") < 0.3, "{}", skipped("moving"));
    assert_eq!(service.stream("tiled")["masks_confirmed"], 0, "the gate has no effect with tiles");
    // A confirmed mask is a mask of the crop, too.
    let mut masks = ServerSentEvents::connect(&service.page, "api/v1/streams/still/masks", &[]);
    let confirmed = until("a confirmed mask", || masks.next().filter(|mask| mask["confirmed"] == true));
    assert_near(&confirmed["shares"]["blue"], 80.0 * 60.0 / (320.0 * 180.0), 0.015);
    assert_eq!((&confirmed["width"], &confirmed["height"]), (&json!(128), &json!(72)));
}

#[test]
fn a_file_is_segmented_with_a_crop() {
    let folder = folder();
    clip::paint_scene(&folder.path().join("clip.mp4"), SIZE, 25, 3, "0x00FF00", &BOXES.map(|patch| (patch, 0..3)));
    let segment = |crop: &str| {
        let arguments =
            ["--model", "channels.onnx", "--providers", "cpu", "--mask-dir", "masks", "--report", "report.json"];
        let mut command = maskcast();
        command.current_dir(folder.path()).args(["segment", "clip.mp4", "-o", "out.mp4", "--crop", crop]);
        run(command.args(arguments))
    };
    let ended = segment("0.5,0.5,0.5,0.5");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let text = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_near(&report["classes"]["blue"], 80.0 * 60.0 / (320.0 * 180.0), 0.015);
    let total: f64 = report["classes"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-6, "{text}");
    let file = std::fs::read(folder.path().join("masks/000002.png")).unwrap();
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width as usize, info.height as usize), SIZE, "at the size of the frame");
    let at = |x: usize, y: usize| pixels[y * SIZE.0 + x];
    assert_eq!((at(520, 270), at(120, 90), at(319, 300), at(320, 300)), (BLUE, UNSEEN, UNSEEN, RED));
    let ended = segment("0.5,0.5,0.5");
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("has 3 numbers, not 4"), "{}", ended.stderr);
}

/// The segmenter itself, with frames of odd sizes, whose rows have padding, and with crops of odd places, alone and in tiles.
#[test]
fn crops_of_odd_frames_have_the_classes_of_their_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let path = Path::join(folder.path(), "channels.onnx");
    onnx::save(&onnx::channels(64, 32, &[]), &path);
    let model = ModelConfig { providers: vec![Provider::Cpu], ..ModelConfig::with_path(&path) };
    let model = Model::load(&model, 1).unwrap();
    let mut segmenter = model.segmenter(1).unwrap();
    let crops = [
        (0.0, 0.0, 1.0, 1.0),
        (0.25, 0.5, 0.5, 0.5),
        (0.331, 0.0, 0.377, 0.253),
        (0.4, 0.75, 0.6, 0.25),
        (0.0, 0.1, 0.75, 0.9),
    ];
    for (width, height) in [(641, 361), (160, 90), (1921, 1081), (47, 33)] {
        for (columns, rows) in [(1, 1), (2, 2), (3, 1)] {
            let frames = crops.map(|(x, y, width_part, height_part)| Frame {
                crop: Crop { x, y, width: width_part, height: height_part },
                tiles: Tiles { columns, rows },
                ..red_and_blue(width, height)
            });
            // A batch of frames with different crops.
            let masks = segmenter.segment(&frames).unwrap().masks;
            for (mask, frame) in masks.iter().zip(&frames) {
                let context = format!("{:?} of {width}x{height} in {:?}", frame.crop, frame.tiles);
                assert_eq!(mask.classes.len(), mask.width * mask.height, "{context}");
                assert_eq!(mask.seen.is_none(), frame.crop.is_whole(), "{context}");
                assert!(mask.guide.as_ref().is_some_and(|guide| guide.is_complete()), "{context}");
                let area = frame.crop.pixels(width, height);
                // Positions in the mask, in pixels of the frame.
                let scale = (width as f64 / mask.width as f64, height as f64 / mask.height as f64);
                for (at, &class) in mask.classes.iter().enumerate() {
                    let x = ((at % mask.width) as f64 + 0.5) * scale.0;
                    let y = ((at / mask.width) as f64 + 0.5) * scale.1;
                    let outside = |at: f64, start: usize, length: usize, reach: f64| {
                        let (start, end) = (start as f64, (start + length) as f64);
                        (at < start - reach || at > end + reach, at > start + reach && at < end - reach)
                    };
                    let (left_of, within_x) = outside(x, area.left, area.width, 1.5 * scale.0);
                    let (above, within_y) = outside(y, area.top, area.height, 1.5 * scale.1);
                    let is_whole = frame.crop.is_whole();
                    if !is_whole && (left_of || above) {
                        assert_eq!(class, UNSEEN, "{context}: {x:.1}, {y:.1}");
                    } else if is_whole || (within_x && within_y) {
                        let border = (width / 2) as f64;
                        let reach = 2.5 * scale.0.max(2.0);
                        if x < border - reach {
                            assert_eq!(class, RED, "{context}: {x:.1}, {y:.1}");
                        } else if x > border + reach {
                            assert_eq!(class, BLUE, "{context}: {x:.1}, {y:.1}");
                        }
                    }
                }
                if let Some(seen) = mask.seen {
                    assert!(mask.seen_classes().flatten().all(|&class| class != UNSEEN), "{context}");
                    let unseen = mask.classes.iter().filter(|&&class| class == UNSEEN).count();
                    assert_eq!(unseen + seen.pixels(), mask.classes.len(), "{context}");
                    assert!(mask.width <= width && mask.height <= height, "{context}: no more pixels than the frame");
                }
            }
        }
    }
}
