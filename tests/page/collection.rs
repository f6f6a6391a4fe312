//! The gallery and the editor of collected frames, on the real program.

use std::path::Path;

use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, PenActions, PointerAction, TouchActions};
use fantoccini::key::Key;
use maskcast::collect::record::{FrameId, FrameRecord};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::collection_frames::{HEIGHT, Pixels, Stroke, WIDTH, collect, gate, has_stroke, label, png, proposal};
use super::common::browser::ConsoleLog;
use super::common::http::get_json;
use super::common::program::{DEADLINE, maskcast, run, until};
use super::common::service::{Service, folder, write_config_at};
use super::page_test::PageTest;

/// A still picture, of which the collector adds no frames during the test.
const STREAM: &str = "[[stream]]\nname = \"gate\"\nsource = \"test://red?width=160&height=90&fps=2\"\n\
                      collect = { folder = \"collected\", interval = \"1d\" }\n";

/// Diameter of the brush that the editor begins with, in pixels of the frame.
const BRUSH: f64 = 18.0;

async fn open(count: usize) -> (PageTest, Vec<FrameRecord>) {
    let folder = folder();
    let frames = collect(folder.path(), count);
    let test = PageTest::open_in(folder, STREAM).await;
    (test, frames)
}

/// Opens the editor of a frame.
async fn edit(test: &PageTest, id: &FrameId) {
    test.run(&format!("location.hash = '#/gate/collection/{id}'; return 1;")).await;
    until_open(test, id).await;
}

async fn until_open(test: &PageTest, id: &FrameId) {
    test.until(
        "the editor has the frame",
        &format!("return document.getElementById('frame-editor').dataset.frame === '{id}';"),
    )
    .await;
}

async fn until_state(test: &PageTest, state: &str) {
    let script = format!("return document.getElementById('label-status').dataset.state === '{state}';");
    test.until(&format!("the label is {state}"), &script).await;
}

/// The places in the window of pixels of the frame, which fills the canvas.
async fn places(test: &PageTest, path: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let script = "const { left, top, width, height } = document.getElementById('label-canvas').getBoundingClientRect(); return [left, top, width, height];";
    let found = test.run(script).await;
    let number = |at: usize| found[at].as_f64().unwrap();
    let scale = (number(2) / WIDTH as f64).min(number(3) / HEIGHT as f64);
    let (left, top) =
        (number(0) + (number(2) - WIDTH as f64 * scale) / 2.0, number(1) + (number(3) - HEIGHT as f64 * scale) / 2.0);
    // WebDriver moves pointers to whole pixels.
    path.iter().map(|&(x, y)| ((left + x * scale).round(), (top + y * scale).round())).collect()
}

async fn press(test: &PageTest, keys: &str) {
    for key in keys.chars() {
        test.press(key).await;
    }
}

/// Waits until the label on the disk has the stroke.
fn until_stroke(folder: &Path, id: &FrameId, before: &[u8], stroke: &Stroke) {
    let mut last = String::new();
    tokio::task::block_in_place(|| {
        let started = std::time::Instant::now();
        loop {
            match has_stroke(&label(folder, id), before, stroke, 1.5) {
                Ok(()) => return,
                Err(error) => last = error,
            }
            assert!(started.elapsed() < DEADLINE, "the label of {id} on the disk does not have the stroke: {last}");
            std::thread::yield_now();
        }
    });
}

fn line(n: usize, class: u8) -> Stroke {
    let n = n as f64;
    let path = vec![(60.0 + 3.0 * n, 60.0), (150.0, 100.0 + 4.0 * n), (250.0, 180.0 - 3.0 * n)];
    Stroke { path, radius: BRUSH / 2.0, class }
}

/// Draws a stroke, with another pointer or the keys for each `n`.
async fn draw(test: &PageTest, n: usize, stroke: &Stroke) {
    press(test, &format!("b{}", stroke.class + 1)).await;
    match n % 3 {
        0 => test.drag(&places(test, &stroke.path).await).await,
        1 => test.swipe(&places(test, &stroke.path).await).await,
        _ => {
            // From the middle of the frame to the left and down.
            test.press(' ').await;
            for key in [Key::Left, Key::Left, Key::Left, Key::Down, Key::Down] {
                test.press(key.into()).await;
            }
            test.press(' ').await;
        }
    }
}

fn stroke(n: usize) -> Stroke {
    // The proposal is green and blue.
    let class = if n.is_multiple_of(2) { 0 } else { 2 };
    match n % 3 {
        2 => {
            let (x, y) = (WIDTH as f64 / 2.0 + 0.5, HEIGHT as f64 / 2.0 + 0.5);
            Stroke { path: vec![(x, y), (x - 30.0, y), (x - 30.0, y + 20.0)], radius: BRUSH / 2.0, class }
        }
        _ => line(n, class),
    }
}

/// Stops the service, corrects the frame, closes the page, starts the service again and opens the frame.
async fn draw_without_service(test: &mut PageTest, n: usize, id: &FrameId) {
    let address = test.service.page.trim_start_matches("http://").trim_end_matches('/').to_owned();
    tokio::task::block_in_place(|| {
        test.service.program.child.signal("TERM");
        let (code, log) = test.service.program.ended();
        assert_eq!(code, Some(0), "{log}");
    });
    draw(test, n, &stroke(n)).await;
    until_state(test, "waiting").await;
    test.browser.client.goto("about:blank").await.unwrap();
    assert_eq!(label(test.folder.path(), id), proposal(), "the service did not save it");
    let config = write_config_at(test.folder.path(), &address, "127.0.0.1:0", STREAM);
    test.service = tokio::task::block_in_place(|| {
        let mut service = Service::run(&config, &[]);
        service.program.wait_for_message("ready");
        service
    });
    test.go("#/gate/collection").await;
    let marked = format!("return document.querySelector('[data-frame=\"{id}\"]')?.textContent.includes('not saved');");
    test.until("the gallery marks the frame", &marked).await;
    edit(test, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_frames_are_corrected_by_mouse_touch_and_keys_while_the_network_fails_twice() {
    const FRAMES: usize = 20;
    let (mut test, frames) = open(FRAMES).await;
    test.go("#/gate/collection").await;
    test.until("the gallery", &format!("return document.querySelectorAll('.frame-tile').length === {FRAMES};")).await;
    for (n, FrameRecord { id, .. }) in frames.iter().enumerate() {
        edit(&test, id).await;
        match n {
            6 => {
                test.set_online(false).await;
                draw(&test, n, &stroke(n)).await;
                until_state(&test, "waiting").await;
                let text = test.run("return document.getElementById('label-status-text').textContent;").await;
                assert_eq!(text, "Not saved: no connection; retrying");
                assert_eq!(label(test.folder.path(), id), proposal(), "nothing is saved without a network");
                test.set_online(true).await;
            }
            13 => draw_without_service(&mut test, n, id).await,
            _ => draw(&test, n, &stroke(n)).await,
        }
        until_stroke(test.folder.path(), id, &proposal(), &stroke(n));
        until_state(&test, "saved").await;
        test.press('a').await;
        let decided = format!("return !location.hash.endsWith('{id}');");
        test.until("the frame is accepted, and another view is shown", &decided).await;
    }
    for (n, FrameRecord { id, .. }) in frames.iter().enumerate() {
        until_stroke(test.folder.path(), id, &proposal(), &stroke(n));
    }
    let list = std::fs::read_to_string(gate(test.folder.path()).join("ImageSets/Segmentation/accepted.txt")).unwrap();
    let mut expected: Vec<&str> = frames.iter().map(|frame| frame.id.as_str()).collect();
    expected.sort_unstable();
    let mut accepted: Vec<&str> = list.lines().collect();
    accepted.sort_unstable();
    assert_eq!(accepted, expected);
    let counted = "return document.getElementById('frames-count').textContent.startsWith('20 of 20 accepted');";
    test.until("the gallery counts them", counted).await;
}

/// Saves a label as another editor would. Returns the status.
fn save_as_other(test: &PageTest, id: &FrameId, revision: u64, pixels: &[u8]) -> u16 {
    let url = format!("{}api/v1/streams/gate/collection/{id}/label.png", test.service.page);
    let request = ureq::put(&url).header("if-match", format!("\"{revision}\"")).header("content-type", "image/png");
    let request = request.config().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
    request.send(&png(pixels)).unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_which_label_is_kept_when_two_people_correct_one_frame() {
    let (test, frames) = open(2).await;
    test.go("#/gate/collection").await;
    let others: Pixels = vec![0; WIDTH * HEIGHT];
    let asked = "return document.getElementById('label-conflict').open;";
    let stroke = Stroke { class: 2, ..line(0, 2) };
    for (n, FrameRecord { id, .. }) in frames.iter().enumerate() {
        edit(&test, id).await;
        assert_eq!(tokio::task::block_in_place(|| save_as_other(&test, id, 0, &others)), 200);
        draw(&test, 0, &stroke).await;
        test.until("the question", asked).await;
        let text = test.run("return document.getElementById('label-conflict-text').textContent;").await;
        assert!(text.as_str().is_some_and(|text| text.contains("pixels differ")), "{text}");
        assert_eq!(label(test.folder.path(), id), others, "nothing is replaced before the answer");
        // Later: the label stays in the browser, also when the page is loaded again.
        test.click("#label-conflict [data-close]").await;
        until_state(&test, "conflict").await;
        test.go(&format!("#/gate/collection/{id}")).await;
        until_open(&test, id).await;
        test.until("the question again", asked).await;
        if n == 0 {
            test.click("#label-keep-mine").await;
            until_state(&test, "saved").await;
            until_stroke(test.folder.path(), id, &proposal(), &stroke);
        } else {
            test.click("#label-take-theirs").await;
            until_state(&test, "saved").await;
            assert_eq!(label(test.folder.path(), id), others);
            // The own label is not lost: undo brings it back.
            test.until("the dialog is closed", "return !document.getElementById('label-conflict').open;").await;
            test.click("#label-undo").await;
            until_stroke(test.folder.path(), id, &proposal(), &stroke);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tool_draws_what_it_is_for_and_changes_are_undone() {
    let (test, frames) = open(1).await;
    let FrameRecord { id, .. } = &frames[0];
    let folder = test.folder.path();
    test.go(&format!("#/gate/collection/{id}")).await;
    until_open(&test, id).await;
    let until_label = |what: &str, wanted: &dyn Fn(&[u8]) -> bool| {
        tokio::task::block_in_place(|| until(what, || wanted(&label(folder, id)).then_some(())));
    };
    let at = |x: usize, y: usize| y * WIDTH + x;

    // The connected region: the blue rectangle becomes red.
    press(&test, "1f").await;
    press(&test, "1").await;
    test.click_at(places(&test, &[(70.0, 80.0)]).await[0]).await;
    let refilled: Pixels = proposal().into_iter().map(|class| if class == 2 { 0 } else { class }).collect();
    until_label("the region is filled", &|label| label == refilled);
    test.run("document.getElementById('label-canvas').focus(); return 1;").await;
    test.click("#label-undo").await;
    until_label("the fill is undone", &|label| label == proposal());
    test.click("#label-redo").await;
    until_label("the fill is done again", &|label| label == refilled);
    test.click("#label-revert").await;
    until_label("the label is the proposal", &|label| label == proposal());

    // A polygon by clicks, closed by a click on its first corner.
    press(&test, "p").await;
    let corners = [(150.5, 40.5), (250.5, 40.5), (250.5, 140.5), (150.5, 140.5), (150.5, 40.5)];
    for place in places(&test, &corners).await {
        test.click_at(place).await;
    }
    until_label("the polygon is filled", &|label| {
        label[at(152, 42)] == 0 && label[at(248, 138)] == 0 && label[at(148, 90)] == 1 && label[at(253, 90)] == 1
    });
    // The class of a pixel is picked, and drawn with a pen.
    press(&test, "i").await;
    test.click_at(places(&test, &[(70.0, 80.0)]).await[0]).await;
    test.until(
        "blue is selected",
        "return document.querySelector('.label-class[data-value=\"2\"]').ariaPressed === 'true';",
    )
    .await;
    let path = places(&test, &[(180.0, 200.0), (280.0, 200.0)]).await;
    let moved = |(x, y): (f64, f64)| PointerAction::MoveTo { duration: None, x, y };
    let pen = PenActions::new("pen".into()).then(moved(path[0]));
    let pen = pen.then(PointerAction::Down { button: MOUSE_BUTTON_LEFT }).then(moved(path[1]));
    test.browser.client.perform_actions(pen.then(PointerAction::Up { button: MOUSE_BUTTON_LEFT })).await.unwrap();
    until_label("the pen has drawn", &|label| label[at(230, 200)] == 2 && label[at(230, 220)] == 1);

    // The eraser draws void.
    press(&test, "e").await;
    test.drag(&places(&test, &[(200.0, 90.0), (220.0, 90.0)]).await).await;
    until_label("void is drawn", &|label| label[at(210, 90)] == 255);

    // A superpixel: more than a few pixels, and not the frame.
    press(&test, "s").await;
    test.until("the superpixels", "return document.getElementById('label-parts').hidden;").await;
    press(&test, "1s").await;
    let before = label(folder, id);
    test.click_at(places(&test, &[(290.0, 20.0)]).await[0]).await;
    until_label("the superpixel is filled", &|label| {
        let changed = label.iter().zip(&before).filter(|(now, before)| now != before).count();
        label[at(290, 20)] == 0 && changed > 8 && changed < 2000
    });

    // Two fingers zoom and draw nothing.
    press(&test, "b").await;
    let before = label(folder, id);
    let two = places(&test, &[(140.0, 120.0), (180.0, 120.0), (80.0, 120.0), (240.0, 120.0)]).await;
    let finger = |name: &str, from, to| {
        let down =
            TouchActions::new(name.into()).then(moved(from)).then(PointerAction::Down { button: MOUSE_BUTTON_LEFT });
        down.then(moved(to)).then(PointerAction::Up { button: MOUSE_BUTTON_LEFT })
    };
    let both =
        fantoccini::actions::Actions::from(finger("first", two[0], two[2])).and(finger("second", two[1], two[3]));
    test.browser.client.perform_actions(both).await.unwrap();
    until_state(&test, "saved").await;
    assert_eq!(label(folder, id), before, "a gesture draws nothing");

    let log = test.browser.client.issue_cmd(ConsoleLog).await.unwrap();
    let severe: Vec<&Value> = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(severe.is_empty(), "{severe:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_reviewed_with_keys_and_axe_finds_no_serious_violations() {
    let (test, frames) = open(4).await;
    for theme in ["light", "dark"] {
        test.prefer(theme).await;
        test.go("#/gate/collection").await;
        test.until("the gallery", "return document.querySelectorAll('.frame-tile').length === 4;").await;
        test.axe(&format!("the gallery, {theme}")).await;
        edit(&test, &frames[0].id).await;
        test.axe(&format!("the editor, {theme}")).await;
    }
    test.resize(390, 844).await;
    test.axe("the editor on a phone").await;
    test.resize(1200, 1000).await;

    // Escape leads back to the tile. Arrows select another one, A accepts it, L puts it off.
    test.press(Key::Escape.into()).await;
    let focused =
        |id: &FrameId| format!("return document.activeElement.closest('[data-frame]')?.dataset.frame === '{id}';");
    test.until("the tile has the focus", &focused(&frames[0].id)).await;
    test.press(Key::Right.into()).await;
    test.until("the next tile has the focus", &focused(&frames[1].id)).await;
    let state = |test: &PageTest, id: &FrameId, wanted: &str| {
        let url = format!("{}api/v1/streams/gate/collection/{id}", test.service.page);
        tokio::task::block_in_place(|| until(wanted, || (get_json(&url)["state"] == wanted).then_some(())));
    };
    test.press('a').await;
    state(&test, &frames[1].id, "accepted");
    test.until("another tile has the focus", &focused(&frames[2].id)).await;
    test.press('l').await;
    state(&test, &frames[2].id, "later");
    // Two frames at once.
    test.click("#frames-all").await;
    test.click("[data-bulk=accepted]").await;
    for frame in &frames {
        state(&test, &frame.id, "accepted");
    }
    test.click("[name=frames-state][value=accepted]").await;
    test.until("all are accepted", "return document.querySelectorAll('.frame-tile').length === 4;").await;
    // X asks before it deletes.
    test.run("document.querySelector('.frame-link').focus(); return 1;").await;
    test.press('x').await;
    test.until("the question", "return document.getElementById('confirm').open;").await;
    test.click("#confirm-go").await;
    state(&test, &frames[0].id, "discarded");
    assert!(!gate(test.folder.path()).join(format!("JPEGImages/{}.jpg", frames[0].id)).exists());
}

fn add_user(folder: &TempDir, name: &str, role: &str) {
    let mut add = std::process::Command::new("sh");
    let users = folder.path().join("users.toml");
    let program = maskcast().get_program().to_owned();
    let command = "printf 'a long password\\n' | \"$0\" user add \"$1\" --role \"$2\" --password-stdin --users \"$3\"";
    let added = run(add.args(["-c", command]).arg(program).args([name, role]).arg(users));
    assert_eq!(added.code, Some(0), "{}", added.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_survives_the_end_of_the_session_and_viewers_see_no_collection() {
    let folder = folder();
    add_user(&folder, "otto", "operator");
    add_user(&folder, "vera", "viewer");
    let frames = collect(folder.path(), 1);
    let FrameRecord { id, .. } = &frames[0];
    let test = PageTest::open_in(folder, STREAM).await;
    test.go(&format!("#/gate/collection/{id}")).await;
    test.until("the login form", "return document.activeElement.id === 'login-user';").await;
    test.log_in("otto", "a long password").await;
    until_open(&test, id).await;
    // The session is ended by another client.
    test.run("return fetch('/api/v1/session').then((answer) => answer.json())
        .then(({ csrf }) => fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-CSRF-Token': csrf } })).then(() => 1);")
        .await;
    let stroke = line(0, 0);
    draw(&test, 0, &stroke).await;
    test.until("the login form again", "return document.body.dataset.view === 'login';").await;
    assert_eq!(label(test.folder.path(), id), proposal());
    test.log_in("otto", "a long password").await;
    until_open(&test, id).await;
    until_stroke(test.folder.path(), id, &proposal(), &stroke);

    test.click("#log-out").await;
    test.until("the login form once more", "return document.body.dataset.view === 'login';").await;
    test.log_in("vera", "a long password").await;
    test.until(
        "the stream, not its collection",
        "return document.body.dataset.view === 'detail' || document.body.dataset.view === 'grid';",
    )
    .await;
    assert_eq!(test.run("return document.getElementById('collection-open').hidden;").await, true);
    let status = test.run("return fetch('/api/v1/streams/gate/collection').then(({ status }) => status);").await;
    assert_eq!(status, json!(403));
}
