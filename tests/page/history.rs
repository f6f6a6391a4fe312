//! The timeline of events, the chart of shares, and live shares in the page.
//!
//! [`HistoryFixture`] answers the paths of the history and of live messages; recordings, snapshots, zones and rules are those of
//! the real program.

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::browser::ConsoleLog;
use super::common::program::until;
use super::common::service::folder;
use super::history_fixture::HistoryFixture;
use super::page_test::PageTest;

const WATCHED: &str = r##"[[stream]]
name = "gate"
source = "test://red?width=320&height=180&fps=15"
overlay = { legend = false }
[[stream.zone]]
name = "\"><script>harmed=1</script>"
polygon = [[0.1, 0.2], [0.5, 0.2], [0.5, 0.8], [0.1, 0.8]]
[[stream.rule]]
name = "blue-seen"
classes = ["blue"]
"##;

const ZONE: &str = "\"><script>harmed=1</script>";

/// The page behind the fixture, and the fixture.
async fn open(folder: TempDir, streams: &str) -> (PageTest, HistoryFixture) {
    // The page requests the history only from a service that has one.
    let mut test = PageTest::open_in(folder, &format!("[history]\ndir = \"history\"\n{streams}")).await;
    let fixture = HistoryFixture::start(&test.service.page).await;
    test.service.page.clone_from(&fixture.page);
    (test, fixture)
}

/// An event of `gate` that began this many seconds ago, RFC 3339 with milliseconds.
fn ago(seconds: i64) -> String {
    format!("{:.3}", Timestamp::now() - seconds.seconds())
}

fn event(id: &str, start: &str, end: Option<&str>) -> Value {
    let mut event = json!({
        "id": id, "stream": "gate", "rule": "blue-seen", "classes": ["blue"], "start": start, "share": 0.1, "peak_share": 0.25,
        "peak": start, "snapshots": { "start": null, "peak": null }, "recording": null,
    });
    if let Some(end) = end {
        event["end"] = json!(end);
        event["end_reason"] = json!("cleared");
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn events_have_snapshots_and_play_their_recording_at_their_start() {
    let folder = folder();
    let dir = folder.path().join("recordings");
    let streams = WATCHED.replacen(
        "[[stream.zone]]",
        &format!("record = {{ dir = {dir:?}, segment = \"4s\" }}\n[[stream.zone]]"),
        1,
    );
    let (test, fixture) = open(folder, &streams).await;
    let recording = tokio::task::block_in_place(|| {
        until("a recording is complete", || {
            let list = super::common::http::get_json(&format!("{}api/v1/streams/gate/recordings", fixture.page));
            list.as_array().unwrap().iter().find(|recording| recording["complete"] == true).cloned()
        })
    });
    let mut shown = event("b", &ago(60), Some(&ago(48)));
    shown["snapshots"] =
        json!({ "start": "/api/v1/streams/gate/snapshot.jpg?start", "peak": "/api/v1/streams/gate/snapshot.jpg?peak" });
    shown["recording"] = json!({ "name": recording["name"], "url": recording["url"], "offset_s": 2.5 });
    let old = event("a", &ago(2 * 3600), Some(&ago(2 * 3600 - 5)));
    fixture.set_events(vec![shown, old]);

    test.go("#/gate").await;
    let rows = "const rows = [...document.querySelectorAll('#events-list li')]; return rows.length > 0 && rows.map((row) => row.innerText);";
    let rows = test.until("the event", rows).await;
    assert_eq!(rows.as_array().unwrap().len(), 1, "the older event is outside of the range: {rows}");
    let text = rows[0].as_str().unwrap();
    for part in ["blue-seen in the frame", "0:12", "peak 25.0\u{a0}%", "Play"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let loaded = "return [...document.querySelectorAll('#events-list img')].filter((image) => image.complete && image.naturalWidth === 320).length === 2;";
    test.run("document.getElementById('events-list').scrollIntoView(); return 1;").await;
    test.until("both snapshots", loaded).await;

    test.click(".event-play").await;
    let playing = "const video = document.getElementById('player-video');
        return document.getElementById('player').open && video.readyState >= 2 && !video.seeking && video.currentTime;";
    let at = test.until("the recording plays", playing).await.as_f64().unwrap();
    assert!((2.5..4.5).contains(&at), "it plays at {at} s");
    test.click("#player [data-close]").await;
    // A click on the timeline does the same.
    assert_eq!(test.run("return document.querySelectorAll('.timeline .mark').length;").await, 1);
    test.run("document.querySelector('.timeline .mark').dispatchEvent(new MouseEvent('click', { bubbles: true })); return 1;").await;
    let at = test.until("the recording plays again", playing).await.as_f64().unwrap();
    assert!((2.5..4.5).contains(&at), "it plays at {at} s");
    test.click("#player [data-close]").await;

    test.click("#events-range input[value=day]").await;
    test.until("both events", "return document.querySelectorAll('#events-list li').length === 2 && document.querySelectorAll('.timeline .mark').length === 2;")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_shares_are_shown_as_they_arrive() {
    let (test, fixture) = open(folder(), WATCHED).await;
    test.go("#/gate").await;
    let wait = |what: &str, clients: (usize, usize)| {
        tokio::task::block_in_place(|| until(what, || (fixture.clients() == clients).then_some(())));
    };
    wait("the page is connected", (1, 1));
    test.until("the stream", "return document.querySelector('[data-share=red]') !== null;").await;

    let start = ago(3);
    let mut message = event("c", &start, None);
    message["phase"] = json!("start");
    fixture.send_event(&message);
    let lasting = "return document.querySelector('#events-list li[data-event=c] .badge.on')?.textContent;";
    assert_eq!(test.until("the event lasts", lasting).await, "now");
    assert_eq!(test.run("return document.querySelectorAll('.timeline .mark.lasting').length;").await, 1);
    let mut message = event("c", &start, Some(&ago(0)));
    message["phase"] = json!("end");
    // The history has it by then.
    fixture.set_events(vec![event("c", &start, message["end"].as_str())]);
    fixture.send_event(&message);
    test.until("the event has ended", "return document.querySelector('#events-list li[data-event=c]') && !document.querySelector('#events-list .badge.on');")
        .await;

    fixture.send_mask(
        &json!({ "stream": "gate", "shares": { "red": 0.123, "blue": 0.5 }, "zones": { ZONE: { "green": 0.25 } } }),
    );
    let shares = "return [...document.querySelectorAll('[data-share]')].map((share) => `${share.dataset.share} ${share.textContent}`).join() === 'red 12.3\\u00a0%,green 0\\u00a0%,blue 50.0\\u00a0%'
        && document.querySelector('.zone-shares').textContent === 'green 25.0\\u00a0%';";
    test.until("the shares of the message", shares).await;
    // Without messages, the shares are those of the list of streams.
    let polled = "return document.querySelector('[data-share=red]').textContent === '100.0\\u00a0%';";
    test.until("the shares of the newest mask", polled).await;

    test.run("location.hash = '#/'; return 1;").await;
    wait("the grid has no connections", (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_shows_shares_of_the_frame_and_of_zones() {
    let (test, fixture) = open(folder(), WATCHED).await;
    test.go("#/gate").await;
    let legend = "const series = [...document.querySelectorAll('#shares-legend button')].map((button) => [button.children[1].textContent, button.children[2].textContent]);
        return series.length === 2 && series;";
    assert_eq!(test.until("the legend", legend).await, json!([["red", "40.0\u{a0}%"], ["green", "10.0\u{a0}%"]]));
    // The lines end where there are no points.
    let lines = "const lines = [...document.querySelectorAll('.chart .series')].map((line) => (line.getAttribute('d').match(/M/g) ?? []).length);
        return lines.length === 2 && lines;";
    assert_eq!(test.until("the lines", lines).await, json!([2, 2]));
    let height = "const red = document.querySelector('.chart .series').getBBox(); const axis = [...document.querySelectorAll('.chart .axis-label')].find((label) => label.textContent === '40 %');
        return Math.abs(red.y - (Number(axis.getAttribute('y')) - 4)) < 1;";
    assert_eq!(test.run(height).await, true, "red is at 40 %");
    // The theme changes the colours: green on white has too little contrast.
    let color = "return document.querySelectorAll('.chart .series')[1].getAttribute('stroke');";
    test.prefer("dark").await;
    test.until("green as it is", &format!("return (() => {{ {color} }})() === '#00ff00';")).await;
    test.prefer("light").await;
    test.until("a darker green", &format!("return (() => {{ {color} }})() !== '#00ff00';")).await;

    test.run("document.querySelector('#shares-table-box summary').click(); return 1;").await;
    let table = "return [...document.querySelectorAll('#shares-table tr')].slice(0, 2).map((row) => [...row.cells].slice(1).map((cell) => cell.textContent));";
    assert_eq!(
        test.run(table).await,
        json!([["red", "green"], ["40.0\u{a0}% (50.0\u{a0}%)", "10.0\u{a0}% (10.0\u{a0}%)"]])
    );

    // A class is switched off, and the scale fits the rest.
    test.click("#shares-legend button").await;
    test.until("one line", "return document.querySelectorAll('.chart .series').length === 1;").await;

    test.run(&format!(
        "const zone = document.getElementById('shares-zone'); zone.value = '=' + {};
        zone.dispatchEvent(new Event('change')); return 1;",
        json!(ZONE)
    ))
    .await;
    test.click("#shares-range input[value=week]").await;
    let wanted = json!({ "stream": "gate", "zone": ZONE, "length": 7 * 86_400_000 });
    tokio::task::block_in_place(|| until("the week of the zone", || fixture.queries().contains(&wanted).then_some(())));
    test.until(
        "its chart",
        "return document.querySelector('.chart svg').getAttribute('aria-label').includes('last week');",
    )
    .await;
    assert_eq!(test.run("return window.harmed ?? null;").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_history_the_page_says_so_and_shows_the_events_of_the_service() {
    let streams = "[[stream]]\nname = \"gate\"\nsource = \"test://red?width=320&height=180&fps=10\"\n\
                   [[stream.rule]]\nname = \"red-seen\"\nclasses = [\"red\"]\nfor = \"0s\"\n";
    let test = PageTest::open(streams).await;
    test.go("#/gate").await;
    for hint in ["events-hint", "shares-hint"] {
        let shown = format!("const hint = document.getElementById('{hint}'); return !hint.hidden && hint.textContent;");
        let text = test.until("the hint", &shown).await;
        assert!(text.as_str().is_some_and(|text| text.starts_with("The history is off: ")), "{text}");
    }
    let now = "return document.querySelector('#events-list .badge.on')?.textContent === 'now' && document.querySelector('#events-list b').textContent === 'red-seen';";
    test.until("the event that lasts", now).await;
    test.until("its share", "return document.querySelector('[data-share=red]').textContent === '100.0\\u00a0%';").await;
    // Another range or zone does not request it either: browsers log requests that fail.
    test.click("#events-range input[value=day]").await;
    test.click("#shares-range input[value=week]").await;
    test.until("the hint", "return !document.getElementById('shares-hint').hidden;").await;
    let log = test.browser.client.issue_cmd(ConsoleLog).await.unwrap();
    let severe: Vec<&Value> = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(severe.is_empty(), "{severe:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_serious_in_the_history() {
    let (test, fixture) = open(folder(), WATCHED).await;
    let mut with_picture = event("b", &ago(60), None);
    with_picture["snapshots"]["start"] = json!("/api/v1/streams/gate/snapshot.jpg");
    with_picture["recording"] = json!({ "name": "x.mp4", "url": "/x.mp4", "offset_s": 1.0 });
    let mut restarted = event("a", &ago(900), Some(&ago(800)));
    restarted["end_reason"] = json!("restart");
    fixture.set_events(vec![with_picture, restarted]);
    for (theme, width, height) in [("light", 1280, 900), ("dark", 1280, 900), ("light", 390, 844), ("dark", 390, 844)] {
        test.prefer(theme).await;
        test.resize(width, height).await;
        test.go("#/gate").await;
        test.until("all parts", "return document.querySelectorAll('#events-list li').length === 2 && document.querySelectorAll('.chart .series').length === 2;")
            .await;
        test.run("document.getElementById('shares-table-box').open = true; return 1;").await;
        test.axe(&format!("events and shares, {theme}, {width} pixels")).await;
        let wide = "return document.documentElement.scrollWidth > window.innerWidth;";
        assert_eq!(test.run(wide).await, false, "the page is wider than {width} pixels");
    }
}
