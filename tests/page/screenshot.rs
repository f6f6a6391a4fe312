//! The screenshot of the documentation, `docs/images/page.jpg`: a painted car park, its zones and rules on the real program, and
//! a day of made-up events and shares. The test writes `target/page.jpg`; copy it when the page looks different.

use std::f64::consts::TAU;
use std::fs::File;
use std::path::Path;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::common::clip::ffmpeg;
use super::common::onnx;
use super::common::service::folder;
use super::history_fixture::{Curve, HistoryFixture};
use super::page_test::PageTest;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;

/// The class of a pixel is its strongest channel.
const LABELS: &str = r#"[{"name":"paved","color":[200,150,90]},{"name":"grass","color":[40,170,70]},{"name":"vehicle","color":[60,110,255]}]"#;

const STREAM: &str = r#"[history]
dir = "history"
[[stream]]
name = "yard"
source = "gst:filesrc location=SCENE ! pngdec ! imagefreeze is-live=true ! videoconvert ! video/x-raw,framerate=10/1 ! queue"
overlay = { weights = { paved = 0.15, grass = 0.6 } }
[[stream.zone]]
name = "Loading bay"
polygon = [[0.07, 0.12], [0.41, 0.12], [0.41, 0.44], [0.07, 0.44]]
[[stream.zone]]
name = "Entrance"
polygon = [[0.62, 0.52], [0.97, 0.52], [0.97, 0.86], [0.74, 0.93], [0.62, 0.8]]
[[stream.rule]]
name = "bay-blocked"
classes = ["vehicle"]
zone = "Loading bay"
share = 0.2
for = "1s"
[[stream.rule]]
name = "entrance-blocked"
classes = ["vehicle"]
zone = "Entrance"
share = 0.2
for = "1s"
"#;

struct Canvas(Vec<[u8; 3]>);

impl Canvas {
    /// Fills an ellipse or a rounded rectangle: all points whose distance from the middle, in the norm `power`, is at most one.
    fn fill(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], power: f64, color: [u8; 3]) {
        for n in 0..self.0.len() {
            let (across, down) = ((n % WIDTH) as f64 - x, (n / WIDTH) as f64 - y);
            let distance = (2.0 * across / width).abs().powf(power) + (2.0 * down / height).abs().powf(power);
            if distance <= 1.0 {
                self.0[n] = color;
            }
        }
    }

    fn car(&mut self, [x, y]: [f64; 2], is_upright: bool, color: [u8; 3]) {
        let turned = |[width, height]: [f64; 2]| if is_upright { [height, width] } else { [width, height] };
        let along = |distance: f64| if is_upright { [x, y + distance] } else { [x + distance, y] };
        let glass = color.map(|channel| channel / 3 + 8);
        self.fill([x + 5.0, y + 6.0], turned([142.0, 66.0]), 6.0, [62, 56, 52]);
        self.fill([x, y], turned([140.0, 62.0]), 6.0, color);
        self.fill(along(24.0), turned([20.0, 50.0]), 6.0, glass);
        self.fill(along(-42.0), turned([16.0, 46.0]), 6.0, glass);
    }
}

/// A car park from above: asphalt with lines, a strip of grass with trees, a lorry and cars.
fn scene() -> Canvas {
    let asphalt = |n: usize| {
        // A texture that is the same in every run.
        let grain = (n.wrapping_mul(2_654_435_761) >> 7) % 9;
        [104, 99, 95].map(|channel: u8| channel + grain as u8)
    };
    let mut canvas = Canvas((0..WIDTH * HEIGHT).map(asphalt).collect());
    canvas.fill([640.0, 14.0], [1400.0, 72.0], 40.0, [86, 128, 66]);
    canvas.fill([640.0, 712.0], [1400.0, 60.0], 40.0, [92, 134, 70]);
    for x in [60.0, 210.0, 420.0, 655.0, 830.0, 1010.0, 1190.0] {
        canvas.fill([x + 6.0, 24.0], [92.0, 84.0], 2.0, [58, 88, 46]);
        canvas.fill([x, 16.0], [88.0, 80.0], 2.0, [66, 118, 52]);
        canvas.fill([x - 10.0, 8.0], [44.0, 38.0], 2.0, [84, 142, 64]);
    }
    for n in 0..=6 {
        canvas.fill([640.0 + 100.0 * f64::from(n), 190.0], [5.0, 190.0], 40.0, [216, 208, 198]);
    }
    canvas.fill([300.0, 100.0], [450.0, 5.0], 40.0, [222, 176, 84]);
    canvas.fill([300.0, 318.0], [450.0, 5.0], 40.0, [222, 176, 84]);
    // A lorry: trailer and cab.
    canvas.fill([292.0, 216.0], [330.0, 104.0], 30.0, [62, 56, 52]);
    canvas.fill([262.0, 208.0], [264.0, 98.0], 30.0, [150, 168, 214]);
    canvas.fill([424.0, 208.0], [58.0, 90.0], 8.0, [44, 78, 170]);
    canvas.fill([436.0, 208.0], [14.0, 74.0], 6.0, [20, 32, 66]);
    for (n, color) in [[46, 84, 176], [120, 146, 196], [34, 52, 110], [70, 120, 190]].into_iter().enumerate() {
        canvas.car([[690.0, 790.0, 990.0, 1190.0][n], 190.0], true, color);
    }
    canvas.car([560.0, 470.0], false, [58, 96, 188]);
    canvas.car([200.0, 585.0], false, [132, 150, 200]);
    canvas.car([905.0, 500.0], false, [40, 62, 140]);
    canvas
}

fn write_scene(path: &Path) {
    let mut encoder = png::Encoder::new(File::create(path).unwrap(), WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&scene().0.concat()).unwrap();
}

fn event(rule: &str, hours: f64, minutes: f64, peak: f64) -> Value {
    let at = |minutes: f64| format!("{:.3}", Timestamp::now() - ((minutes * 60.0) as i64).seconds());
    let start = at(hours * 60.0);
    let picture = "/api/v1/streams/yard/snapshot.jpg";
    json!({
        "id": format!("{hours:07.2}"), "stream": "yard", "rule": rule, "classes": ["vehicle"], "start": start,
        "zone": if rule == "bay-blocked" { "Loading bay" } else { "Entrance" },
        "end": at(hours * 60.0 - minutes), "end_reason": "cleared", "share": 0.1, "peak_share": peak, "peak": start,
        "snapshots": { "start": picture, "peak": picture }, "recording": null,
    })
}

fn curve(share: impl Fn(f64) -> f64 + Send + 'static) -> Curve {
    Box::new(share)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screenshot_of_the_documentation_has_zones_shares_events_and_the_chart() {
    let folder = folder();
    onnx::save(&onnx::labelled(640, 360, LABELS, &[]), &folder.path().join("channels.onnx"));
    let scene = folder.path().join("scene.png");
    write_scene(&scene);
    let mut test = PageTest::open_in(folder, &STREAM.replace("SCENE", scene.to_str().unwrap())).await;
    let fixture = HistoryFixture::start(&test.service.page).await;
    test.service.page.clone_from(&fixture.page);
    fixture.set_events(vec![
        event("entrance-blocked", 1.9, 9.0, 0.31),
        event("bay-blocked", 4.2, 38.0, 0.46),
        event("bay-blocked", 9.6, 75.0, 0.52),
        event("entrance-blocked", 11.3, 14.0, 0.27),
        event("bay-blocked", 15.5, 55.0, 0.49),
        event("bay-blocked", 20.1, 42.0, 0.44),
    ]);
    // The shares of the last day by the hours before now.
    let day = |hours: f64| 0.5 + 0.5 * (TAU * (hours - 7.0) / 24.0).cos();
    let noise = |hours: f64| 0.012 * (9.0 * hours).sin() + 0.008 * (23.0 * hours).sin();
    let vehicles = move |hours: f64| 0.05 + 0.16 * day(hours) + noise(hours);
    fixture.set_shares(vec![
        ("paved", curve(move |hours| 0.83 - vehicles(hours))),
        ("vehicle", curve(vehicles)),
        ("grass", curve(|_| 0.17)),
    ]);
    test.prefer("light").await;
    test.resize(1400, 1360).await;
    test.go("#/yard").await;
    for range in ["events-range", "shares-range"] {
        test.click(&format!("#{range} input[value=day]")).await;
    }
    let live = "const screen = document.querySelector('#stage .screen');
        return screen?.dataset.way === 'whep' && screen.querySelector('video').videoWidth > 0;";
    test.until("live video", live).await;
    for (what, script) in [
        ("the zones", "return document.querySelectorAll('.zones .zone-shape').length === 2;"),
        (
            "their shares",
            "return [...document.querySelectorAll('.zone-shares')].every((shares) => shares.textContent.includes('vehicle'));",
        ),
        (
            "the active rule",
            "return document.querySelector('[data-rule=bay-blocked] .pill')?.textContent === 'active';",
        ),
        ("the events", "return document.querySelectorAll('.timeline .mark').length >= 7;"),
        ("the chart", "return document.querySelectorAll('.chart .series').length === 3;"),
        (
            "the snapshots",
            "return [...document.querySelectorAll('#events-list img')].some((image) => image.complete && image.naturalWidth > 0);",
        ),
    ] {
        test.until(what, script).await;
    }
    let picture = test.browser.client.screenshot().await.unwrap();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let (png, jpeg) = (target.join("page.png"), target.join("page.jpg"));
    std::fs::write(&png, picture).unwrap();
    ffmpeg(&["-i", png.to_str().unwrap(), "-q:v", "6", jpeg.to_str().unwrap()]);
    let size = std::fs::metadata(&jpeg).unwrap().len();
    assert!((20_000..200_000).contains(&size), "{size} bytes");
}
