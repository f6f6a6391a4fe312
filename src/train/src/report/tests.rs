//! Tests of the files of a small report with all parts.

use maskcast::frame::{Label, Rgb};

use super::*;
use crate::data::LabelledImage;
use crate::metrics::{BoundaryF1, Calibration, ObjectRecall};

const HOSTILE: &str = "<script>alert('\"&')</script>";

fn history(epochs: u32) -> History {
    let mut history = History::default();
    for epoch in 1..=epochs {
        let done = f64::from(epoch) / f64::from(epochs);
        history.push(EpochRecord {
            epoch,
            phase: if epoch <= 2 { "frozen" } else { "finetune" }.into(),
            train_loss: 1.0 - 0.7 * done,
            val_loss: Some(1.1 - 0.6 * done),
            val_miou: Some(0.6 * done),
            val_miou_ema: (epoch > 1).then_some(0.7 * done),
            lr: [("decoder".to_owned(), 2e-3 * done), ("encoder".to_owned(), 4e-4 * done)].into(),
            seconds: 12.0,
            data_wait_share: 0.01,
        });
    }
    history
}

fn report() -> Report {
    let classes = [("sky", Rgb(1, 2, 3)), (HOSTILE, Rgb(4, 5, 6))];
    let classes = classes.map(|(name, color)| Label::new(name, color));
    let labelled = LabelledImage {
        width: 8,
        height: 6,
        rgb: vec![90; 144],
        labels: (0..48).map(|n| u8::from(n % 8 > 3)).collect(),
    };
    let prediction: Vec<u8> = (0..48).map(|n| u8::from(n % 8 > 4)).collect();
    let mut confusion = ConfusionMatrix::new(2);
    confusion.add(&labelled.labels, &prediction).unwrap();
    let mut boundary = BoundaryF1::new(2);
    boundary.add(&labelled.labels, &prediction, 8).unwrap();
    let mut calibration = Calibration::default();
    calibration.add(&[0.8; 48], &labelled.labels, &prediction).unwrap();
    let miou = image_miou(2, &labelled.labels, &prediction).unwrap().unwrap();
    let mut objects = ObjectRecall::new(2, &[1]);
    objects.add(&labelled.labels, &prediction, 8).unwrap();
    let image = ImageFacts::new(HOSTILE, Rank::Worst, miou, &labelled, &prediction, &classes).unwrap();
    Report {
        title: format!("A run {HOSTILE}"),
        model: Some("my model.onnx".into()),
        training: Some(Training {
            encoder: "efficientnet-lite0".into(),
            strategy: "freeze-then-finetune".into(),
            phases: vec![("frozen".into(), 2), ("finetune".into(), 3)],
            weights: "lite0.pth: took 240 tensors; skipped 7 (classifier layer)".into(),
            settings: [("loss".to_owned(), HOSTILE.to_owned()), ("augment.noise".to_owned(), "0.0".to_owned())].into(),
            ..Default::default()
        }),
        dataset: DatasetFacts {
            name: "made up".into(),
            val_images: 1,
            size: (8, 6),
            classes: classes.iter().map(|label| ClassFacts::new(label, Some(0.5))).collect(),
            ..Default::default()
        },
        environment: Environment {
            command: shell_line(["maskcast-train", "fit", "my data"]),
            machine: Machine::detect(),
            ..Default::default()
        },
        scores: Scores::new(&confusion, Some(&boundary), &classes.clone().map(|label| label.name)),
        confusion,
        calibration: calibration.scores(),
        sizes: objects.scores(&classes.clone().map(|label| label.name)),
        history: history(5),
        images: vec![image],
        speed: vec![Speed {
            model: "my model.onnx".into(),
            precision: "int8".into(),
            provider: "cpu".into(),
            threads: 1,
            size: (8, 6),
            median_ms: 1.5,
            p95_ms: 2.0,
            miou: None,
        }],
    }
}

/// Checks that a page loads nothing, has no scripts, and describes every image.
fn check_page(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>"));
    assert!(!html.contains("<script") && !html.contains("<link") && !html.contains("@import"));
    for source in html.split("src=\"").skip(1).chain(html.split("url(").skip(1)) {
        assert!(source.starts_with("data:"), "{}", &source[..40.min(source.len())]);
    }
    for address in html.split("http").skip(1) {
        assert!(address.starts_with("://www.w3.org/2000/svg"), "{}", &address[..40.min(address.len())]);
    }
    for image in html.split("<img ").skip(1) {
        let tag = image.split_once('>').unwrap().0;
        assert!(tag.contains("alt=\"") && !tag.contains("alt=\"\""));
    }
    for tag in html.split("<table").skip(1) {
        assert!(tag.split("</table>").next().unwrap().contains("scope=\"col\""));
    }
    assert_eq!(html.matches("<svg").count(), html.matches("role=\"img\"").count());
}

#[test]
fn the_page_is_self_contained_and_escaped() {
    let html = report().html().unwrap();
    check_page(&html);
    assert!(html.contains("&#60;script&#62;alert(&#39;&#34;&#38;&#39;)"), "the name is escaped");
    assert!(html.contains("maskcast-train fit &#39;my data&#39;") && html.contains("--model &#39;my model.onnx&#39;"));
    assert_eq!(html.matches("<h2>").count(), 10, "all sections");
    assert!(html.contains("<dd>lite0.pth: took 240 tensors<details>"), "details are hidden");
    assert!(html.contains("<dt>augment</dt><dd>noise\u{a0}0.0</dd>") && !html.contains("augment.noise"));
    assert!(html.contains("<span class=\"swatch void\">") && html.contains("@media print"));
}

#[test]
fn recall_by_height_is_a_table() {
    let html = report().html().unwrap();
    let section = html.split("by height</h2>").nth(1).unwrap().split("</section>").next().unwrap();
    let text: String =
        section.split('<').filter_map(|part| Some(part.split_once('>')?.1.trim())).collect::<Vec<_>>().join(" ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("below 24 1 100.0 75.0 75.0") && text.contains("96 and more 0 – – –"), "{text}");
}

#[test]
fn proposals_have_a_page() {
    let classes = [("sky", Rgb(1, 2, 3)), (HOSTILE, Rgb(4, 5, 6))];
    let classes = classes.map(|(name, color)| Label::new(name, color));
    let labels = (0..48).map(|n| if n % 8 > 5 { crate::data::VOID } else { u8::from(n % 8 > 3) }).collect();
    let labelled = LabelledImage { width: 8, height: 6, rgb: vec![90; 144], labels };
    let picture = ProposalFacts::new(HOSTILE, Rank::Best, &labelled, &classes).unwrap();
    assert_eq!(picture.void_share, 0.25);
    let report = LabelReport {
        title: "Proposals".into(),
        images: 2,
        labelled: 1,
        corrected: 1,
        skipped: vec![format!("{HOSTILE}: damaged")],
        void_share: 0.25,
        classes: classes.iter().map(|label| ClassFacts::new(label, Some(0.5))).collect(),
        unseen: vec!["sky".into()],
        settings: serde_json::json!({ "agree": 0.7, "teachers": [{ "model": HOSTILE }] }),
        environment: Environment::default(),
        pictures: vec![picture],
    };
    let html = report.html().unwrap();
    check_page(&html);
    assert!(html.contains("25.0") && html.contains("damaged") && html.contains("least void"));
    let dir = tempfile::tempdir().unwrap();
    let written = report.write(dir.path()).unwrap();
    let read: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&written.json).unwrap()).unwrap();
    assert_eq!((read["labelled"].as_u64(), read["settings"]["agree"].as_f64()), (Some(1), Some(0.7)));
    assert!(!read.to_string().contains("base64"));
}

#[test]
fn an_evaluation_has_no_curves() {
    let evaluation = Report {
        training: None,
        model: None,
        calibration: None,
        history: History::default(),
        images: Vec::new(),
        speed: Vec::new(),
        ..report()
    };
    let html = evaluation.html().unwrap();
    check_page(&html);
    assert!(!html.contains("<h2>Curves") && html.contains("<h2>Classes"));
}

#[test]
fn files_are_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let report = report();
    let written = report.write(&dir.path().join("run")).unwrap();
    let mut read: Report = serde_json::from_str(&std::fs::read_to_string(&written.json).unwrap()).unwrap();
    assert_eq!(read.images[0].panels, Panels::default(), "JSON contains no images");
    read.images[0].panels = report.images[0].panels.clone();
    assert!(read == report, "JSON contains all digits of numbers");
    assert_eq!(std::fs::read_dir(dir.path().join("run")).unwrap().count(), 2, "a temporary file is left");
    std::fs::write(dir.path().join("new"), "").unwrap();
    let permissions = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions();
    assert_eq!(permissions(&written.html), permissions(&dir.path().join("new")));

    let blocked = tempfile::NamedTempFile::new().unwrap();
    let error = report.write(blocked.path()).unwrap_err();
    let expected = blocked.path().join("report.json");
    assert!(matches!(&error, ReportError::Write { path, .. } if *path == expected), "{error}");
}

#[test]
fn a_comparison_has_a_page_and_a_plot() {
    let entry = |strategy: &str, scale: f64| CompareEntry {
        strategy: strategy.into(),
        encoder: "vgg16".into(),
        weights: format!("/cache/{strategy}.pth: took 1 tensor; {HOSTILE}"),
        runs: vec![
            CompareRun { seed: 1, miou: Some(0.7 * scale), seconds: 60.0, history: history(5) },
            CompareRun { seed: 2, miou: Some(0.6 * scale), seconds: 70.0, history: history(4) },
        ],
    };
    let report = CompareReport {
        title: "Strategies".into(),
        dataset: "made up".into(),
        budget: "5 epochs".into(),
        environment: Environment::default(),
        entries: vec![
            entry("scratch", 0.5),
            entry("finetune", 1.0),
            CompareEntry { runs: Vec::new(), ..entry("failed", 1.0) },
        ],
    };
    let html = report.html().unwrap();
    check_page(&html);
    let places = ["finetune", "scratch", "failed"].map(|name| html.find(&format!("</span>{name}")).unwrap());
    assert!(places.is_sorted(), "the best entry is the first");
    assert!(html.contains("65.0") && html.contains("± 7.1"));
    assert!(html.contains(">scratch.pth</td>"), "the table has only the name of the weights");
    let dir = tempfile::tempdir().unwrap();
    let written = report.write(dir.path()).unwrap();
    let svg = std::fs::read_to_string(written.svg.unwrap()).unwrap();
    assert!(svg.starts_with("<svg width=") && svg.contains("finetune, vgg16"));
    let read: CompareReport = serde_json::from_str(&std::fs::read_to_string(&written.json).unwrap()).unwrap();
    assert!(read == report, "JSON contains all digits of numbers");
}
