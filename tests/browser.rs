//! The page in a real browser: headless Chromium, steered by chromedriver.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::browser::{Browser, ConsoleLog};
use common::service::{Service, folder};
use serde_json::{Value, json};

/// A card's element; `CARD` stands for the stream's name.
const CARD: &str = "const card = document.querySelector('[aria-label=\"CARD\"]'); if (!card) return null;";

/// The sum of each cell of a coarse grid over the picture, or null when there is none.
const LOOK: &str = "const image = card.querySelector('img');
    if (!image || image.naturalWidth === 0) return null;
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 24;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, 24, 24);
    return Array.from(context.getImageData(0, 0, 24, 24).data);";

fn of(stream: &str, script: &str) -> String {
    CARD.replace("CARD", stream) + script
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_live_pictures_and_the_truth_about_the_others() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = folder();
    let streams = format!(
        "[[stream]]\nname = \"ball\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         overlay = {{ hide = [\"green\"] }}\n\
         [[stream]]\nname = \"dead\"\nsource = \"rtsp://{closed}/stream\"\n"
    );
    let service = tokio::task::block_in_place(|| Service::ready(folder.path(), &streams));
    let browser = Browser::start().await;
    browser.client.goto(&service.page).await.unwrap();

    for (stream, state) in [("ball", "live"), ("dead", "offline")] {
        let pill = format!("return card.querySelector('.pill').textContent === '{state}';");
        browser.until(&format!("{stream} is {state}"), &of(stream, &pill)).await;
    }
    let first = browser.until("a picture", &of("ball", LOOK)).await;
    let changed = format!(
        "const look = (() => {{ {} {LOOK} }})(); const first = {first};
        return look !== null && look.filter((value, at) => Math.abs(value - first[at]) > 40).length > 3;",
        CARD.replace("CARD", "ball")
    );
    browser.until("the ball has moved", &changed).await;
    let size = "const image = card.querySelector('img'); return [image.naturalWidth, image.naturalHeight];";
    assert_eq!(browser.run(&of("ball", size)).await, json!([320, 240]));
    let visible = "const i = card.querySelector('img'); return !i.hidden && i.getBoundingClientRect().width > 50;";
    browser.until("the picture is visible", &of("ball", visible)).await;

    let legend = "return [...card.querySelectorAll('.legend li')].map((item) => [item.textContent, item.className]);";
    assert_eq!(browser.run(&of("ball", legend)).await, json!([["red", ""], ["green", "off"], ["blue", ""]]));
    let rate = "const rate = parseFloat(card.querySelector('[data-fact=rate]').textContent); return rate > 0 && rate;";
    let rate = browser.until("the rate", &of("ball", rate)).await;
    assert!(rate.as_f64().is_some_and(|rate| rate > 1.0 && rate < 30.0), "{rate}");
    let reason = browser.run(&of("dead", "return card.querySelector('.reason').textContent;")).await;
    assert!(reason.as_str().is_some_and(|reason| reason.contains(&closed.to_string())), "{reason}");
    let address = browser.run(&of("ball", "return card.querySelector('.rtsp').value;")).await;
    assert_eq!(address, json!(service.rtsp("ball")));
    let title = browser.run("return document.title;").await;
    assert_eq!(title, "(1 offline) Maskcast");

    // A click makes it large, and the picture goes on.
    browser.run(&of("ball", "card.querySelector('.picture').click(); return true;")).await;
    let large = "const image = document.querySelector('#large-picture img');
        return document.getElementById('large').open && image && image.naturalWidth === 320;";
    browser.until("the large picture", large).await;
    browser.run("document.getElementById('large-close').click(); return true;").await;
    let back = "return !document.getElementById('large').open && card.querySelector('img') !== null;";
    browser.until("the picture is back", &of("ball", back)).await;

    let log = browser.client.issue_cmd(ConsoleLog).await.unwrap();
    let severe: Vec<&Value> = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(severe.is_empty(), "{severe:?}");

    // The page says so when the service is gone.
    let (code, took, log) = tokio::task::block_in_place(|| service.terminate());
    assert!(code == Some(0) && took < Duration::from_secs(5), "{code:?} after {took:?}: {log}");
    browser.until("the connection is lost", "return document.body.classList.contains('lost');").await;
    let pill = "return card.querySelector('.pill').textContent === 'unknown';";
    browser.until("nothing is claimed of the streams", &of("ball", pill)).await;
}
