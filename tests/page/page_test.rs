//! A service and a browser with its page.

use std::fmt::Write;
use std::path::Path;

use axum::http::Method;
use fantoccini::Locator;
use fantoccini::actions::{
    InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MouseActions, PointerAction, TouchActions,
};
use fantoccini::wd::WebDriverCompatibleCommand;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

use super::common::browser::Browser;
use super::common::service::{Service, folder};

/// The accessibility checker axe (`make setup-test`).
const AXE: &str = ".testdata/axe/axe.min.js";

/// Defines `card`: the stream's card, including the video element that is in the large view.
const CARD: &str = "const root = document.querySelector('.card[data-stream=\"NAME\"]');
    if (!root) return null;
    const large = document.getElementById('stage');
    const isLarge = location.hash === '#/NAME' && large.firstElementChild !== null;
    const card = { querySelector: (selector) => root.querySelector(selector) ?? (isLarge ? large.querySelector(selector) : null) };";

/// Red, green, blue and alpha of a coarse grid over the video; null when no live video is shown.
const SAMPLE: &str = "const screen = card.querySelector('.screen');
    if (!screen || screen.dataset.way === 'none' || screen.classList.contains('old')) return null;
    const video = screen.querySelector(screen.dataset.way === 'whep' ? 'video' : 'canvas');
    if (video.getBoundingClientRect().width < 50) return null;
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 24;
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0, 24, 24);
    return Array.from(context.getImageData(0, 0, 24, 24).data);";

pub struct PageTest {
    // Dropped first: the browser ends before the service.
    pub browser: Browser,
    pub service: Service,
    pub folder: TempDir,
}

impl PageTest {
    pub async fn open(streams: &str) -> Self {
        PageTest::open_in(folder(), streams).await
    }

    pub async fn open_in(folder: TempDir, streams: &str) -> Self {
        let service = tokio::task::block_in_place(|| Service::ready(folder.path(), streams));
        PageTest { browser: Browser::start().await, service, folder }
    }

    /// Loads the page, also when only the part after # differs.
    pub async fn go(&self, hash: &str) {
        // Otherwise the browser would not load the page again.
        self.browser.client.goto("about:blank").await.unwrap();
        self.browser.client.goto(&format!("{}{hash}", self.service.page)).await.unwrap();
    }

    pub async fn run(&self, script: &str) -> Value {
        self.browser.run(script).await
    }

    pub async fn until(&self, what: &str, script: &str) -> Value {
        self.browser.until(what, script).await
    }

    /// Runs a script with the stream's `card`.
    pub async fn on(&self, stream: &str, script: &str) -> Value {
        self.run(&with_card(stream, script)).await
    }

    pub async fn until_on(&self, stream: &str, what: &str, script: &str) -> Value {
        self.until(&format!("{stream}: {what}"), &with_card(stream, script)).await
    }

    /// Waits until the video changes.
    pub async fn until_moving(&self, stream: &str) {
        let first = self.until_on(stream, "live video", SAMPLE).await;
        let changed = format!(
            "const sample = (() => {{ {SAMPLE} }})(); const first = {first};
            return sample !== null && sample.filter((value, at) => Math.abs(value - first[at]) > 40).length > 3;"
        );
        self.until_on(stream, "the video moves", &changed).await;
    }

    /// Waits until this channel is the strongest in 90 % of the video.
    pub async fn until_color(&self, stream: &str, color: &str) {
        let channel = ["red", "green", "blue"].iter().position(|name| *name == color).unwrap();
        let painted = format!(
            "const sample = (() => {{ {SAMPLE} }})();
            if (sample === null) return null;
            let count = 0;
            for (let at = 0; at < sample.length; at += 4) {{
                const pixel = sample.slice(at, at + 3);
                if (pixel[{channel}] > 120 && pixel.every((value, n) => n === {channel} || value < pixel[{channel}] - 60)) count += 1;
            }}
            return count > 0.9 * sample.length / 4;"
        );
        self.until_on(stream, &format!("the video is {color}"), &painted).await;
    }

    pub async fn click(&self, selector: &str) {
        self.until(selector, &format!("return document.querySelector({selector:?}) !== null;")).await;
        self.run(&format!("document.querySelector({selector:?}).click(); return 1;")).await;
    }

    pub async fn press(&self, key: char) {
        let keys = KeyActions::new("keyboard".into());
        let keys = keys.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        self.browser.client.perform_actions(keys).await.unwrap();
    }

    /// Presses a key together with Shift.
    pub async fn press_with_shift(&self, key: char) {
        let shift = fantoccini::key::Key::Shift.into();
        let keys = KeyActions::new("keyboard".into()).then(KeyAction::Down { value: shift });
        let keys = keys.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        self.browser.client.perform_actions(keys.then(KeyAction::Up { value: shift })).await.unwrap();
    }

    /// Clicks at a place of the window, in CSS pixels.
    pub async fn click_at(&self, at: (f64, f64)) {
        self.drag(&[at]).await;
    }

    /// Presses the mouse button at the first place and releases it at the last one.
    pub async fn drag(&self, path: &[(f64, f64)]) {
        let mut mouse = MouseActions::new("mouse".into()).then(moved(path[0]));
        mouse = mouse.then(PointerAction::Down { button: MOUSE_BUTTON_LEFT });
        for &at in &path[1..] {
            mouse = mouse.then(moved(at));
        }
        self.browser.client.perform_actions(mouse.then(PointerAction::Up { button: MOUSE_BUTTON_LEFT })).await.unwrap();
    }

    /// The same with a finger.
    pub async fn swipe(&self, path: &[(f64, f64)]) {
        let mut finger = TouchActions::new("finger".into()).then(moved(path[0]));
        finger = finger.then(PointerAction::Down { button: MOUSE_BUTTON_LEFT });
        for &at in &path[1..] {
            finger = finger.then(moved(at));
        }
        self.browser
            .client
            .perform_actions(finger.then(PointerAction::Up { button: MOUSE_BUTTON_LEFT }))
            .await
            .unwrap();
    }

    /// Emulates a window of this size.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The text of the focused element.
    pub async fn focus(&self) -> Value {
        self.run("return document.activeElement.textContent.trim();").await
    }

    pub async fn log_in(&self, user: &str, password: &str) {
        for (id, text) in [("login-user", user), ("login-password", password)] {
            let field = self.browser.client.find(Locator::Id(id)).await.unwrap();
            field.clear().await.unwrap();
            field.send_keys(text).await.unwrap();
        }
        self.click("#login-go").await;
    }

    /// Emulates the system preference for `light` or `dark`.
    pub async fn prefer(&self, theme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Runs a script before the page's own scripts at each following load.
    pub async fn run_before_page_scripts(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// Sets the download folder of the browser.
    pub async fn save_to(&self, folder: &Path) {
        let parameters = json!({ "behavior": "allow", "downloadPath": folder });
        self.devtools("Browser.setDownloadBehavior", parameters).await;
    }

    /// Switches the network of the browser on or off.
    pub async fn set_online(&self, online: bool) {
        self.devtools("Network.enable", json!({})).await;
        let conditions = json!({ "offline": !online, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools("Network.emulateNetworkConditions", conditions).await;
    }

    async fn devtools(&self, command: &'static str, parameters: Value) {
        self.browser.client.issue_cmd(DevTools(json!({ "cmd": command, "params": parameters }))).await.unwrap();
    }

    /// Fails when axe finds a serious or critical violation.
    pub async fn axe(&self, what: &str) {
        let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join(AXE);
        let axe = std::fs::read_to_string(axe).unwrap_or_else(|error| panic!("{AXE}, run `make setup-test`: {error}"));
        // Video and toasts do not affect the result, and transitions have ended by then.
        let script = format!(
            "const done = arguments[arguments.length - 1];
            if (!window.axe) {{ {axe} }}
            window.axe.run(document).then(({{ violations, passes }}) => done({{ passes: passes.length,
                violations: violations.map(({{ id, impact, nodes }}) => ({{ id, impact, nodes: nodes.map(({{ html, failureSummary }}) => [html, failureSummary]) }})) }}));"
        );
        let found = self.browser.client.execute_async(&script, Vec::new()).await.unwrap();
        assert!(found["passes"].as_u64().is_some_and(|passes| passes > 10), "{what}: axe has checked nothing: {found}");
        let mut serious = String::new();
        for violation in found["violations"].as_array().unwrap() {
            if violation["impact"] == "serious" || violation["impact"] == "critical" {
                writeln!(serious, "{violation:#}").unwrap();
            }
        }
        assert!(serious.is_empty(), "{what}: {serious}");
    }
}

fn moved((x, y): (f64, f64)) -> PointerAction {
    PointerAction::MoveTo { duration: None, x, y }
}

fn with_card(stream: &str, script: &str) -> String {
    CARD.replace("NAME", stream) + script
}

/// A command of the Chrome DevTools Protocol.
#[derive(Debug)]
struct DevTools(Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.0.to_string()))
    }
}
