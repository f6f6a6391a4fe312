use std::path::Path;

use super::super::error::{DataError, LabelError, LabelImageError, OtherFile};
use super::super::testing::{gray, noise_image, png_bytes, write};
use super::super::{OpenOptions, VOID};
use super::*;

/// Three training and two validation images with two named classes.
fn set(dir: &Path) {
    for (seed, name) in ["train/images/ant", "train/images/bee", "train/images/cat", "val/images/dog", "val/images/elk"]
        .into_iter()
        .enumerate()
    {
        noise_image(&dir.join(format!("{name}.png")), seed as u64);
        gray(&dir.join(format!("{}.png", name.replace("images", "masks"))), &[0, 1]);
    }
    write(&dir.join("classes.txt"), "sky\nroad\n");
}

fn checked(dir: &Path) -> CheckReport {
    check(&Dataset::open(dir, &OpenOptions::default()).unwrap(), 0, &mut |_, _| {})
}

fn only(report: &CheckReport, kind: FindingKind) -> &Finding {
    let of_kind: Vec<&Finding> = report.findings.iter().filter(|finding| finding.kind == kind).collect();
    assert_eq!(of_kind.len(), 1, "{kind:?} in {:#?}", report.findings);
    of_kind[0]
}

#[test]
fn a_valid_data_set_has_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    let dataset = Dataset::open(dir.path(), &OpenOptions::default()).unwrap();
    let mut progress_calls = Vec::new();
    let report = check(&dataset, 2, &mut |done, of| progress_calls.push((done, of)));
    assert_eq!(progress_calls, (1..=5).map(|done| (done, 5)).collect::<Vec<_>>());
    assert_eq!((report.errors, report.warnings), (0, 0), "{report}");
    assert_eq!(report.images, PartCounts { train: 3, val: 2, ..PartCounts::default() });
    assert_eq!(report.sizes, [SizeCount { width: 16, height: 12, images: 5 }]);
    assert_eq!(report.classes[1].pixels, 5 * 96);
    assert_eq!(report.classes[1].share, 0.5);
    assert_eq!(report.classes[1].images.val, 2);
    let text = report.to_string();
    assert!(text.contains("5: 3 train, 2 val") && text.contains("0 errors, 0 warnings"), "{text}");
    assert!(serde_json::to_value(&report).unwrap()["classes"][0]["name"] == "sky");
}

#[test]
fn damaged_files_and_wrong_sizes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    let file = dir.path().join("train/images/ant.png");
    let bytes = std::fs::read(&file).unwrap();
    write(&file, &bytes[..bytes.len() / 2]);
    let file = dir.path().join("train/masks/bee.png");
    let bytes = std::fs::read(&file).unwrap();
    write(&file, &bytes[..bytes.len() - 15]);
    let small = png_bytes(8, 12, png::ColorType::Grayscale, png::BitDepth::Eight, None, &[1; 96]);
    write(&dir.path().join("val/masks/dog.png"), small);
    let report = checked(dir.path());
    assert_eq!(report.errors, 3, "{report}");
    let finding = only(&report, FindingKind::UnreadableImage);
    assert!(finding.name == "train/images/ant" && finding.detail.contains("truncated"), "{finding:?}");
    assert_eq!(only(&report, FindingKind::UnreadableLabel).name, "train/masks/bee.png");
    assert_eq!(only(&report, FindingKind::SizeMismatch).detail, "image 16x12, label 8x12");
    assert_eq!(report.findings[0].severity, Severity::Error);
}

#[test]
fn unknown_values_are_counted_and_located() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    gray(&dir.path().join("val/masks/elk.png"), &[0, 1, 9, 1]);
    let report = checked(dir.path());
    let finding = only(&report, FindingKind::UnknownValue);
    assert_eq!((finding.name.as_str(), finding.pixels, finding.first), ("val/masks/elk.png", Some(48), Some((8, 0))));
    assert_eq!(finding.detail, "value 9: 48 pixels, the first at x 8, y 0");
}

#[test]
fn shares_of_classes_and_void_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    write(&dir.path().join("classes.txt"), "sky\nroad\ncar\nboat\ntree\n");
    for name in ["ant", "bee", "cat"] {
        gray(&dir.path().join(format!("train/masks/{name}.png")), &[0, 2, VOID, VOID, VOID]);
    }
    gray(&dir.path().join("val/masks/dog.png"), &[VOID]);
    gray(&dir.path().join("val/masks/elk.png"), &[0, 3, VOID, VOID]);
    let report = checked(dir.path());
    assert_eq!(only(&report, FindingKind::ClassNotInTrain).name, "boat");
    assert_eq!(only(&report, FindingKind::ClassNotInVal).name, "car");
    let nowhere: Vec<&str> =
        report.findings.iter().filter(|f| f.kind == FindingKind::ClassNowhere).map(|f| f.name.as_str()).collect();
    assert_eq!(nowhere, ["road", "tree"]);
    assert_eq!(only(&report, FindingKind::OnlyVoid).name, "val/images/dog");
    assert!(only(&report, FindingKind::MuchVoid).detail.starts_with(&format!("{:.1} %", 100.0 * report.void_share)));
}

#[test]
fn missing_labels_and_images_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    noise_image(&dir.path().join("train/images/owl.png"), 77);
    gray(&dir.path().join("val/masks/yak.png"), &[0, 1]);
    let report = checked(dir.path());
    assert_eq!(only(&report, FindingKind::ImageWithoutLabel).name, "train/images/owl.png");
    assert_eq!(only(&report, FindingKind::LabelWithoutImage).name, "val/masks/yak.png");
    assert_eq!(report.errors, 0);
}

#[test]
fn copies_near_copies_and_neighbours_are_leaks() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    let path = |text: &str| dir.path().join(text);
    let bytes = std::fs::read(path("train/images/ant.png")).unwrap();
    write(&path("val/images/dog.png"), &bytes);
    write(&path("train/images/bee.png"), &bytes);
    // Slightly brighter: different pixels, the same content.
    let cat = super::super::image::read(&path("train/images/cat.png")).unwrap();
    let brighter: Vec<u8> = cat.rgb.iter().map(|value| value / 2 + 64).collect();
    let brighter = png_bytes(16, 12, png::ColorType::Rgb, png::BitDepth::Eight, None, &brighter);
    write(&path("val/images/elk.png"), brighter);
    let report = checked(dir.path());
    let finding = only(&report, FindingKind::SameImageInTwoParts);
    assert_eq!((finding.name.as_str(), finding.other.as_deref()), ("train/images/ant", Some("val/images/dog")));
    assert_eq!(only(&report, FindingKind::SameImageTwice).other.as_deref(), Some("train/images/bee"));
    let finding = only(&report, FindingKind::NearCopyInTwoParts);
    assert_eq!((finding.name.as_str(), finding.other.as_deref()), ("train/images/cat", Some("val/images/elk")));
}

#[test]
fn similar_consecutive_frames_in_two_parts_are_leaks() {
    let dir = tempfile::tempdir().unwrap();
    let frame = |n: u32, part: &str| {
        // A scene of 12 rows that change one by one.
        let value = |at: u32| if at / 16 < n { 1000 + n + at } else { at };
        let rgb: Vec<u8> =
            (0..16 * 12).flat_map(|at| [(value(at).wrapping_mul(2_654_435_761) >> 24) as u8; 3]).collect();
        write(
            &dir.path().join(format!("{part}/cam_{n:04}.png")),
            png_bytes(16, 12, png::ColorType::Rgb, png::BitDepth::Eight, None, &rgb),
        );
        gray(&dir.path().join(format!("{part}annot/cam_{n:04}.png")), &[0, 1]);
    };
    (0..3).for_each(|n| frame(n, "train"));
    frame(3, "val");
    write(&dir.path().join("classes.txt"), "sky\nroad\n");
    let report = checked(dir.path());
    let finding = only(&report, FindingKind::RecordingInTwoParts);
    assert_eq!((finding.name.as_str(), finding.other.as_deref()), ("train/cam_0002", Some("val/cam_0003")));
    assert!(finding.help.as_ref().unwrap().contains("--resplit --by-sequence always"), "the folders are the split");
}

#[test]
fn images_of_a_fixed_camera_are_one_warning_with_help() {
    let dir = tempfile::tempdir().unwrap();
    let scene = |at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8;
    for n in 0..40u32 {
        // Equal except for slight noise in one pixel.
        let rgb: Vec<u8> = (0..16 * 12).flat_map(|at| [scene(at) ^ if at == n { 3 } else { 0 }; 3]).collect();
        let image = png_bytes(16, 12, png::ColorType::Rgb, png::BitDepth::Eight, None, &rgb);
        write(&dir.path().join(format!("images/cam_{:05}.png", 100 * n)), image);
        gray(&dir.path().join(format!("masks/cam_{:05}.png", 100 * n)), &[0, 1]);
    }
    let report = checked(dir.path());
    assert_eq!((report.errors, report.warnings), (0, 1), "{report}");
    let finding = only(&report, FindingKind::RecordingInTwoParts);
    assert!(finding.more.len() >= 5, "each validation image is similar to a training image: {finding:?}");
    assert!(finding.detail.contains("frame numbers apart"), "{finding:?}");
    let text = report.to_string();
    assert!(text.contains("(--json lists all)\n  help: this split was generated"), "{text}");
    assert_eq!(text.matches(" frame numbers apart").count(), 3, "examples: {text}");
    for way in ["val/", "--lists", "--by-sequence", "--val"] {
        assert!(text.contains(way), "{way} in {text}");
    }
}

#[test]
fn all_labels_in_lossy_formats_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        noise_image(&dir.path().join(format!("images/p{n}.png")), n);
        write(&dir.path().join(format!("masks/p{n}.jpg")), b"\xff\xd8\xff\xe0");
    }
    let error = Dataset::open(dir.path(), &OpenOptions::default()).unwrap_err();
    let DataError::NoLabels { count: 20, first, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(
            **first,
            DataError::Label { source: LabelError::Image(LabelImageError::OtherFormat(OtherFile::Jpeg)), .. }
        ),
        "{error}"
    );
    let report = check(&Dataset::open_to_check(dir.path(), &OpenOptions::default()).unwrap(), 0, &mut |_, _| {});
    let unreadable = |report: &CheckReport| {
        report.findings.iter().filter(|finding| finding.kind == FindingKind::UnreadableLabel).count()
    };
    assert_eq!(unreadable(&report), 20);
    let text = report.to_string();
    assert!(text.contains("cannot be read (20)") && text.contains("classes are unknown"), "{text}");
    assert!(!text.contains("share of pixels"), "{text}");
    // One readable label is sufficient.
    gray(&dir.path().join("masks/p7.png"), &[0, 1]);
    assert_eq!(unreadable(&checked(dir.path())), 19);
}

#[test]
fn long_lists_are_shortened_in_the_text() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    for n in 0..15 {
        noise_image(&dir.path().join(format!("train/images/extra{n}.png")), 100 + n);
    }
    let report = checked(dir.path());
    assert_eq!(report.warnings, 15);
    let text = report.to_string();
    assert!(text.contains("excluded (15)") && text.contains("and 5 more (--json lists all)"), "{text}");
}
