//! The dialog of the models: the result of a comparison is shown, a compared model is used with one button, and another returns to the
//! model before.

use serde_json::{Value, json};

use super::common::http::get_json;
use super::common::service::{folder, write_model};
use super::page_test::PageTest;

const STREAM: &str = "[[stream]]\nname = \"painted\"\nsource = \"test://red?width=320&height=180&fps=15\"\n\
                      overlay = { alpha = 1.0, legend = false }\n";

/// Red is drawn in green.
const GREEN_LABELS: &str =
    r#"[{"name":"red","color":[0,255,0]},{"name":"green","color":[0,0,255]},{"name":"blue","color":[255,0,0]}]"#;

/// The report of a comparison with `channels.onnx`, as `maskcast model compare` writes it.
fn write_report(folder: &std::path::Path, name: &str) {
    let facts = |file: &str, miou: f64| json!({ "file": file, "sha256": "00", "provider": "cpu", "input": [64, 36], "miou": miou, "miou_common": miou });
    let report = json!({
        "version": 1, "at": "2100-01-01T00:00:00Z", "verdict": "better",
        "summary": "better: mIoU 52.1 % → 60.4 %, +8.3 points (95 % interval +5.9 to +10.6, 40 images)",
        "data": { "folder": "yard", "list": null, "images": 40 },
        "old": facts("channels.onnx", 0.521), "new": facts(&format!("{name}.onnx"), 0.604),
        "difference": { "miou": 0.083, "low": 0.059, "high": 0.106, "confidence": 0.95 },
        "classes": [], "flicker": null, "images": [],
        "speed": { "runs": 40, "old_ms": 1.0, "new_ms": 1.0, "ratio": 1.0 },
    });
    let folder = folder.join(format!("{name}.compare"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("report.json"), report.to_string()).unwrap();
    std::fs::write(folder.join("report.html"), "<!DOCTYPE html><title>The report</title><p id=ok>ok</p>").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compared_model_is_used_and_taken_back_with_one_button_each() {
    let folder = folder();
    write_model(&folder.path().join("yard.onnx"), GREEN_LABELS, true);
    write_report(folder.path(), "yard");
    let test = PageTest::open_in(folder, STREAM).await;
    test.go("#/painted").await;
    test.until_color("painted", "red").await;
    test.click("#models-open").await;
    let shown = "const text = document.querySelector('.candidate')?.textContent;
        return text?.includes('better') && text.includes('+8.3 points') && text.includes('channels.onnx') && text;";
    test.until("the comparison", shown).await;
    let back = "return document.querySelector('[data-back]') === null;";
    assert_eq!(test.run(back).await, true, "no file ran before");
    test.axe("the dialog of the models").await;

    test.click("[data-use=yard]").await;
    let label = "return document.querySelector('[data-back]')?.textContent;";
    assert_eq!(test.until("the way back", label).await, "Back to channels");
    test.until_color("painted", "green").await;
    let model = || -> Value { get_json(&format!("{}api/v1/model", test.service.page)) };
    let report = tokio::task::block_in_place(model);
    assert_eq!(report["name"], "yard");
    assert!(report["previous"].as_str().unwrap().ends_with("/channels.onnx"), "{report}");

    test.click("[data-back]").await;
    let label =
        "const back = document.querySelector('[data-back]')?.textContent; return back === 'Back to yard' && back;";
    test.until("the other way back", label).await;
    test.until_color("painted", "red").await;

    // The report is a page of its own.
    let file = std::fs::read_to_string(test.folder.path().join("maskcast.toml")).unwrap();
    assert!(file.contains("previous = "), "{file}");
    let address = test.run("return document.querySelector('.candidate a').href;").await;
    test.browser.client.goto(address.as_str().unwrap()).await.unwrap();
    assert_eq!(test.browser.client.title().await.unwrap(), "The report");
}
