//! The page in a real browser, on the real program.

#[path = "page/collection.rs"]
mod collection;
#[path = "page/collection_frames.rs"]
mod collection_frames;
mod common;
#[path = "page/drift.rs"]
mod drift;
#[path = "page/history.rs"]
mod history;
#[path = "page/history_fixture.rs"]
mod history_fixture;
#[path = "page/models.rs"]
mod models;
#[path = "page/page_test.rs"]
mod page_test;
#[path = "page/screenshot.rs"]
mod screenshot;
#[path = "page/zones.rs"]
mod zones;

use std::net::TcpListener;
use std::time::Instant;

use common::browser::ConsoleLog;
use common::program::{maskcast, run};
use common::service::{folder, write_model};
use fantoccini::key::Key;
use page_test::PageTest;
use serde_json::{Value, json};

/// Every pixel has the class red, and red is drawn as opaque green.
const PAINTED: &str = "[[stream]]\nname = \"painted\"\nsource = \"test://red?width=320&height=180&fps=15\"\n\
                       overlay = { alpha = 1.0, legend = false, colors = { red = \"#00ff00\" } }\n";

const TWO: &str = "[[stream]]\nname = \"first\"\nsource = \"test://ball?width=320&height=180&fps=10\"\n\
                   [[stream]]\nname = \"second\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn video_moves_and_offline_cameras_show_the_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let streams = format!(
        "[[stream]]\nname = \"ball\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         overlay = {{ hide = [\"green\"] }}\n\
         [[stream]]\nname = \"dead\"\nsource = \"rtsp://{closed}/stream\"\n"
    );
    let test = PageTest::open(&streams).await;
    test.go("").await;
    // Measured by the page's clock since navigation; frames must be decoded, not only received.
    let decoded = "const video = card.querySelector('video');
        return video?.getVideoPlaybackQuality().totalVideoFrames >= 3 && performance.now();";
    let took = test.until_on("ball", "decoded frames", decoded).await.as_f64().unwrap();
    println!("video after {took:.0} ms");
    test.until_moving("ball").await;
    assert_eq!(test.on("ball", "return card.querySelector('.screen').dataset.way;").await, "whep");
    let size = "const v = card.querySelector('video'); return [v.videoWidth, v.videoHeight];";
    assert_eq!(test.on("ball", size).await, json!([320, 240]));

    for (stream, state) in [("ball", "live"), ("dead", "offline")] {
        let pill = format!("return card.querySelector('.pill').textContent === '{state}';");
        test.until_on(stream, &format!("the state is {state}"), &pill).await;
    }
    let numbers = "return card.querySelector('.numbers').textContent;";
    let shown = "const text = card.querySelector('.numbers').textContent; return /^[1-9].*320×240.*WebRTC/.test(text);";
    test.until_on("ball", "rate, size and transport", shown).await;
    let text = test.on("ball", numbers).await;
    let rate: f64 = text.as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(rate > 1.0 && rate < 30.0, "{text}");
    let reason = test.on("dead", "return card.querySelector('.reason').textContent;").await;
    assert!(reason.as_str().is_some_and(|reason| reason.contains(&closed.to_string())), "{reason}");
    assert_eq!(test.run("return document.title;").await, "(1 offline) Maskcast");

    // The large view keeps the same connection.
    test.run("window.before = document.querySelector('.screen video').srcObject; return 1;").await;
    test.run("location.hash = '#/ball'; return 1;").await;
    test.until_moving("ball").await;
    let same = "return document.querySelector('#stage video').srcObject === window.before;";
    assert_eq!(test.run(same).await, true);
    let address = "return document.getElementById('rtsp').value;";
    assert_eq!(test.run(address).await, json!(test.service.rtsp("ball")));
    let legend = "const off = [...document.querySelectorAll('.class')]
        .map((button) => [button.textContent, button.getAttribute('aria-pressed')]);
        return off.length > 0 && off;";
    let legend = test.until("the legend", legend).await;
    assert_eq!(legend, json!([["red", "true"], ["green", "false"], ["blue", "true"]]));

    // A stream without frames has no rate.
    test.run("location.hash = '#/dead'; return 1;").await;
    let rate = "const rate = document.querySelector('[data-fact=Rate] dd')?.textContent;
        return document.getElementById('detail-name').textContent === 'dead' && document.getElementById('detail-facts').textContent === '' && rate;";
    assert_eq!(test.until("the facts of the offline stream", rate).await, "–");
    test.run("location.hash = '#/ball'; return 1;").await;
    test.until_moving("ball").await;

    // No violation of the content security policy and no error, neither by the offline camera nor without a history.
    let history = "return document.getElementById('shares-hint').textContent.startsWith('The history is off');";
    test.until("the page says that there is no history", history).await;
    let log = test.browser.client.issue_cmd(ConsoleLog).await.unwrap();
    let severe: Vec<&Value> = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(severe.is_empty(), "{severe:?}");

    // The page shows that the service does not respond.
    let PageTest { service, browser, .. } = test;
    let (code, took, log) = tokio::task::block_in_place(|| service.terminate());
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    browser.until("the connection is lost", "return document.body.classList.contains('lost');").await;
    let claimed = "return document.getElementById('detail-state').textContent === 'unknown'
        && document.querySelector('#stage .screen').dataset.way === 'none';";
    browser.until("the page shows no state and no video", claimed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_switched_off_is_not_drawn_and_stays_off() {
    let test = PageTest::open(PAINTED).await;
    test.go("#/painted").await;
    test.until_color("painted", "green").await;
    test.click("[data-class=red]").await;
    let pressed = "return document.querySelector('[data-class=red]').getAttribute('aria-pressed');";
    assert_eq!(test.run(pressed).await, "false", "the button changes at once");
    test.until_color("painted", "red").await;

    // Opacity and style are changed in the same way.
    test.click("#all").await;
    test.until_color("painted", "green").await;
    let faint = "const alpha = document.getElementById('alpha'); alpha.value = 0;
        alpha.dispatchEvent(new Event('input', { bubbles: true })); return 1;";
    test.run(faint).await;
    test.until_color("painted", "red").await;
    test.click("input[value=mask-only]").await;
    test.until_color("painted", "green").await;

    // The change is kept by the service for all viewers, and in the file for the next start.
    test.click("[data-class=red]").await;
    let file = test.folder.path().join("maskcast.toml");
    // At once: the page must send the change also when it is closed immediately.
    test.go("#/painted").await;
    tokio::task::block_in_place(|| {
        common::program::until("the file has the change", || {
            let written = std::fs::read_to_string(&file).unwrap();
            ["hide = [\"red\"]", "style = \"mask-only\""].iter().all(|line| written.contains(line)).then_some(())
        })
    });
    let kept = "const red = document.querySelector('[data-class=red]');
        return red && red.ariaPressed === 'false' && document.querySelector('input[value=mask-only]').checked
            && document.getElementById('alpha-text').textContent === '0 %';";
    test.until("the page shows the saved settings", kept).await;

    // A change that the service does not accept is reverted, with a message.
    let PageTest { service, browser, .. } = test;
    service.program.child.signal("KILL");
    browser.run("document.querySelector('[data-class=red]').click(); return 1;").await;
    let back = "return document.querySelector('[data-class=red]').ariaPressed === 'false'
        && document.getElementById('toasts').textContent.includes('painted: the masks were not changed');";
    browser.until("the change is reverted", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strength_of_a_class_and_the_legend_can_be_changed() {
    let test = PageTest::open(PAINTED).await;
    test.go("#/painted").await;
    test.until_color("painted", "green").await;
    let shown = "const strength = document.querySelector('[data-weight=red]');
        return strength && strength.value === '100' && !strength.disabled
            && document.querySelector('input[name=legend][value=off]').checked
            && document.getElementById('weights-reset').hidden;";
    test.until("the page shows the settings", shown).await;
    let none = "const strength = document.querySelector('[data-weight=red]'); strength.value = 0;
        strength.dispatchEvent(new Event('input', { bubbles: true })); return 1;";
    test.run(none).await;
    test.until_color("painted", "red").await;
    test.click("input[name=legend][value=all]").await;
    let file = test.folder.path().join("maskcast.toml");
    let until_file = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        tokio::task::block_in_place(|| {
            common::program::until(what, || wanted(&std::fs::read_to_string(&file).unwrap()).then_some(()))
        })
    };
    until_file("the file has the weight and the legend", &|text| {
        text.contains("weights = { red = 0") && text.contains("legend = \"all\"")
    });
    test.go("#/painted").await;
    let kept = "return document.querySelector('[data-weight=red]')?.value === '0'
        && document.querySelector('input[name=legend][value=all]').checked;";
    test.until("the page shows the saved settings", kept).await;

    test.click("#weights-reset").await;
    test.until_color("painted", "green").await;
    until_file("the weight of the model is used", &|text| !text.contains("red = 0"));
    test.until(
        "the page shows the weight of the model",
        "return document.querySelector('[data-weight=red]').value === '100';",
    )
    .await;

    // Its number is beside it.
    let number = "return document.querySelector('[data-strength=red]').textContent;";
    assert_eq!(test.run(number).await, "100 %");

    // The strength of a hidden class has no effect.
    test.click("[data-class=red]").await;
    test.until("its strength cannot be set", "return document.querySelector('[data-weight=red]').disabled;").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_frame_is_not_shown_with_all_classes() {
    let folder = folder();
    let labels =
        r#"[{"name":"other","color":[0,255,0]},{"name":"green","color":[0,128,0]},{"name":"blue","color":[0,0,255]}]"#;
    // Every pixel of a red image has the first class.
    write_model(&folder.path().join("channels.onnx"), labels, true);
    let config = "[[stream]]\nname = \"gate\"\nsource = \"test://red?width=320&height=180&fps=10\"\n\
                  overlay = { alpha = 1.0, legend = false }\n";
    let test = PageTest::open_in(folder, config).await;
    test.go("#/gate").await;
    let shown = |expected: &str| {
        format!(
            "return [...document.querySelectorAll('.class[data-class]')].filter((button) => button.ariaPressed === 'true')
                .map((button) => button.dataset.class).join() === '{expected}';"
        )
    };
    test.until("it is hidden by default", &shown("green,blue")).await;
    test.until_color("gate", "red").await;
    test.click("#none").await;
    test.until("no class is shown", &shown("")).await;
    test.click("#all").await;
    test.until("all but the rest are shown", &shown("green,blue")).await;
    // Also in the service, once it has the change.
    tokio::task::block_in_place(|| {
        common::program::until("the service hides it", || {
            let overlay = common::http::get_json(&format!("{}api/v1/streams/gate/overlay", test.service.page));
            (overlay["hide"] == json!(["other"])).then_some(())
        })
    });
    test.until_color("gate", "red").await;
    // Chosen by itself, it is drawn.
    test.click("[data-class=other]").await;
    test.until("it is shown", &shown("other,green,blue")).await;
    test.until_color("gate", "green").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_video_is_not_shown_as_live() {
    let test = PageTest::open(TWO).await;
    test.go("").await;
    test.until_moving("first").await;
    let is_old = "const screen = card.querySelector('.screen');
        const video = card.querySelector(screen.dataset.way === 'whep' ? 'video' : 'canvas');
        return screen.dataset.way === 'none'
            || (getComputedStyle(video).filter.includes('grayscale') && !card.querySelector('.note').hidden);";
    assert_eq!(test.on("first", is_old).await, false);
    test.service.program.child.signal("STOP");
    let stopped = Instant::now();
    test.until_on("first", "the video is marked as old", is_old).await;
    println!("marked after {:?}", stopped.elapsed());
    test.service.program.child.signal("CONT");
    test.until_on("first", "the video is live again", &format!("return !(() => {{ {is_old} }})();")).await;
    test.until_moving("first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_webrtc_four_streams_are_live_and_the_others_show_single_frames() {
    let names = ["one", "two", "three", "four", "five", "six"];
    let streams = names
        .map(|name| format!("[[stream]]\nname = \"{name}\"\nsource = \"test://ball?width=160&height=90&fps=5\"\n"));
    let test = PageTest::open(&streams.concat()).await;
    test.run_before_page_scripts("delete window.RTCPeerConnection;").await;
    test.go("").await;
    let shown = "const texts = [...document.querySelectorAll('.numbers')].map((element) => element.textContent);
        const count = (what) => texts.filter((text) => text.endsWith(what)).length;
        const shown = document.querySelectorAll('.screen[data-way=mjpeg]').length;
        return shown === 6 && count('MJPEG') === 4 && count('single frames') === 2;";
    test.until("all six show frames, four of them live", shown).await;
    for name in ["one", "six"] {
        test.until_moving(name).await;
    }
    // Streams that are not visible have no connection.
    test.run("location.hash = '#/two'; return 1;").await;
    let released =
        "return [...document.querySelectorAll('.card .screen')].every((screen) => screen.dataset.way === 'none');";
    test.until("only the large view is connected", released).await;
    test.until_moving("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_controls_are_reachable_by_keyboard() {
    let test = PageTest::open(TWO).await;
    test.go("").await;
    test.until("both cards", "return document.querySelectorAll('.card').length === 2;").await;
    test.press(Key::Tab.into()).await;
    assert_eq!(test.focus().await, "Skip to the streams");
    let seen = "return document.activeElement.getBoundingClientRect().top >= 0;";
    test.until("the skip link is visible", seen).await;
    test.press(Key::Enter.into()).await;
    assert_eq!(test.run("return document.activeElement.id;").await, "main");
    test.press(Key::Right.into()).await;
    assert_eq!(test.focus().await, "first, show large");
    test.run("document.getElementById('theme').focus(); return 1;").await;
    test.press(Key::Right.into()).await;
    assert_eq!(
        test.focus().await,
        "first, show large",
        "arrow keys do not move the focus from the buttons of the header"
    );
    let ring = "const card = document.activeElement.closest('.card'); return getComputedStyle(card).outlineStyle;";
    assert_eq!(test.run(ring).await, "solid", "the focus is visible");
    test.press(Key::Right.into()).await;
    assert_eq!(test.focus().await, "second, show large");
    test.press(Key::Enter.into()).await;
    test.until("the large view", "return location.hash === '#/second' && document.body.dataset.view === 'detail';")
        .await;
    assert_eq!(test.focus().await, "second");
    test.press(Key::Left.into()).await;
    test.until("the previous stream", "return document.getElementById('detail-name').textContent === 'first';").await;
    test.press(Key::Escape.into()).await;
    test.until("the grid", "return document.body.dataset.view === 'grid';").await;
    assert_eq!(test.focus().await, "first, show large");
    test.press(Key::Enter.into()).await;
    test.until("the large view again", "return document.body.dataset.view === 'detail';").await;
    test.run("history.back(); return 1;").await;
    test.until("the grid again", "return document.body.dataset.view === 'grid';").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_theme_follows_the_system_until_the_user_selects_one() {
    let test = PageTest::open(TWO).await;
    let ground = "return getComputedStyle(document.body).backgroundColor;";
    let theme = "return document.documentElement.dataset.theme;";
    test.prefer("dark").await;
    test.go("").await;
    let dark = test.run(ground).await;
    assert_eq!(test.run(theme).await, "dark");
    test.prefer("light").await;
    test.until("the theme follows the system", "return document.documentElement.dataset.theme === 'light';").await;
    assert_ne!(test.run(ground).await, dark);
    test.click("#theme").await;
    assert_eq!(test.run(ground).await, dark);
    assert_eq!(test.run("return document.getElementById('theme').ariaPressed;").await, "true");
    test.go("").await;
    assert_eq!(test.run(theme).await, "dark", "the selected theme is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_can_be_sought_and_are_deleted_after_confirmation() {
    let folder = folder();
    let dir = folder.path().join("recordings");
    let streams = format!(
        "[[stream]]\nname = \"kept\"\nsource = \"test://ball?width=320&height=180&fps=15\"\n\
         record = {{ dir = {dir:?}, segment = \"4s\" }}\n"
    );
    let test = PageTest::open_in(folder, &streams).await;
    test.go("#/kept").await;
    let complete = "return [...document.querySelectorAll('.row')].some((row) => !row.querySelector('.badge.on'));";
    test.until("a recording is complete", complete).await;
    let play = "const row = [...document.querySelectorAll('.row')].findLast((row) => !row.querySelector('.badge.on'));
        window.file = row.querySelector('a[download]').download; row.querySelector('.row-play').click(); return window.file;";
    let file = test.run(play).await;
    let file = dir.join(file.as_str().unwrap());
    assert!(file.exists(), "{file:?}");
    let video = "const video = document.getElementById('player-video');";
    test.until("the recording plays", &format!("{video} return video.currentTime > 0.2 && video.videoWidth === 320;"))
        .await;
    test.run(&format!(
        "{video} window.sought = false; video.onseeked = () => {{ window.sought = true; }};
        video.currentTime = video.duration - 1; return 1;"
    ))
    .await;
    let sought =
        format!("{video} return window.sought && video.currentTime >= video.duration - 1.1 && video.readyState >= 2;");
    test.until("the recording plays from near its end", &sought).await;
    test.click("#player [data-close]").await;

    let bin = "[...document.querySelectorAll('.row')].find((row) => row.querySelector('a').download === window.file)
        .querySelector('button[title=Delete]').click(); return 1;";
    test.run(bin).await;
    test.click("#confirm [data-close]").await;
    assert!(file.exists(), "the deletion was not confirmed");
    test.run(bin).await;
    test.click("#confirm-go").await;
    let gone = "return ![...document.querySelectorAll('.row a')].some((link) => link.download === window.file);";
    test.until("the recording is not in the list", gone).await;
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_saved_with_stream_name_and_time() {
    let test = PageTest::open(TWO).await;
    let saved = test.folder.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    test.save_to(&saved).await;
    test.go("#/second").await;
    test.until_on("second", "live video", "return card.querySelector('.screen').dataset.way !== 'none';").await;
    test.click("#snapshot").await;
    let name = tokio::task::block_in_place(|| {
        common::program::until("the file", || {
            let names =
                std::fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.into_iter().find(|name| name.ends_with(".jpg"))
        })
    });
    // Example: second_2026-11-25T14-03-22.jpg
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "second_0000-00-00T00-00-00.jpg");
    assert!(std::fs::read(saved.join(name)).unwrap().starts_with(&[0xFF, 0xD8, 0xFF]), "it is a JPEG");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_added_changed_and_removed() {
    let test = PageTest::open(TWO).await;
    test.go("").await;
    test.until("both cards", "return document.querySelectorAll('.card').length === 2;").await;
    test.click("#add").await;
    let fill = |name: &str, source: &str| {
        format!(
            "document.getElementById('editor-name').value = '{name}';
            document.getElementById('editor-source').value = '{source}';
            document.getElementById('editor-go').click(); return 1;"
        )
    };
    test.run(&fill("third", "nonsense://x")).await;
    let refused = "const field = document.querySelector('.field[data-key=source]');
        return field.querySelector('input').ariaInvalid === 'true' && field.querySelector('.error').textContent;";
    let refused = test.until("the field shows the error", refused).await;
    assert!(refused.as_str().is_some_and(|text| text.contains("nonsense")), "{refused}");
    test.run(&fill("third", "test://ball?width=160&height=90&fps=5")).await;
    test.until_moving("third").await;

    test.run("location.hash = '#/third'; return 1;").await;
    test.until("the stream can be edited", "return !document.getElementById('edit').hidden;").await;
    test.click("#edit").await;
    test.until(
        "the settings of the stream",
        "return document.getElementById('editor-source')?.value.startsWith('test://ball');",
    )
    .await;
    test.run("document.getElementById('editor-show').value = 'matched'; document.getElementById('editor-go').click(); return 1;").await;
    test.until("saved", "return !document.getElementById('editor').open;").await;
    assert_eq!(test.service.stream("third")["show"], "matched");

    test.click("#remove").await;
    test.click("#confirm-go").await;
    let gone = "return document.body.dataset.view === 'grid' && document.querySelectorAll('.card').length === 2;";
    test.until("the stream is removed", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logged_in_users_see_the_streams_and_only_operators_change_them() {
    let folder = folder();
    for (name, role) in [("vera", "viewer"), ("otto", "operator")] {
        let mut add = std::process::Command::new("sh");
        let users = folder.path().join("users.toml");
        let program = maskcast().get_program().to_owned();
        add.args([
            "-c",
            "printf 'a long password\\n' | \"$0\" user add \"$1\" --role \"$2\" --password-stdin --users \"$3\"",
        ]);
        let added = run(add.arg(program).arg(name).arg(role).arg(users));
        assert_eq!(added.code, Some(0), "{}", added.stderr);
    }
    let test = PageTest::open_in(folder, PAINTED).await;
    test.go("#/painted").await;
    test.until("the login form", "return document.activeElement.id === 'login-user';").await;
    assert_eq!(test.run("return document.querySelectorAll('.card').length;").await, 0);
    test.log_in("vera", "wrong").await;
    let refused = "const error = document.getElementById('login-error'); return !error.hidden && error.textContent;";
    assert_eq!(test.until("the login is refused", refused).await, "User or password is wrong.");
    test.log_in("vera", "a long password").await;
    test.until_color("painted", "green").await;
    assert_eq!(test.run("return document.getElementById('who').textContent;").await, "vera · viewer");
    let closed =
        "return document.getElementById('masks').disabled && document.querySelector('[data-class=red]').disabled
        && document.getElementById('add').hidden && document.getElementById('edit').hidden;";
    test.until("nothing can be changed", closed).await;

    test.click("#log-out").await;
    test.until("logged out", "return document.body.dataset.view === 'login';").await;
    assert_eq!(test.run("return document.querySelectorAll('.card').length;").await, 0, "no stream is shown");
    test.log_in("otto", "a long password").await;
    test.until_color("painted", "green").await;
    test.until("the overlay can be changed", "return !document.querySelector('[data-class=red]').disabled;").await;
    test.click("[data-class=red]").await;
    test.until_color("painted", "red").await;

    // A reload needs no password. A session that is ended by another client ends in this page, too.
    test.go("#/painted").await;
    test.until_color("painted", "red").await;
    test.run("document.cookie; return fetch('/api/v1/session').then((answer) => answer.json())
        .then(({ csrf }) => fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-CSRF-Token': csrf } })).then(() => 1);").await;
    test.until("the login form again", "return document.body.dataset.view === 'login';").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_no_serious_violations() {
    let folder = folder();
    let dir = folder.path().join("recordings");
    let streams = format!(
        "{TWO}[[stream]]\nname = \"kept\"\nsource = \"test://ball?width=160&height=90&fps=5\"\n\
                           record = {{ dir = {dir:?}, segment = \"2s\" }}\n\
                           [[stream]]\nname = \"dead\"\nsource = \"rtsp://127.0.0.1:9/stream\"\n"
    );
    let test = PageTest::open_in(folder, &streams).await;
    for theme in ["light", "dark"] {
        test.prefer(theme).await;
        test.go("").await;
        test.until("the reason", "return document.querySelector('.reason:not([hidden])') !== null;").await;
        test.axe(&format!("the grid, {theme}")).await;
        test.click("#add").await;
        test.axe(&format!("the dialog, {theme}")).await;
        test.click("#editor [data-close]").await;
        test.run("location.hash = '#/kept'; return 1;").await;
        let all = "return document.querySelector('.row') && !document.getElementById('masks').hidden;";
        test.until("masks and recordings", all).await;
        test.axe(&format!("one stream, {theme}")).await;
        test.click(".row-play").await;
        test.axe(&format!("a recording, {theme}")).await;
        test.click("#player [data-close]").await;
        // Shows the login form, which this service does not need.
        test.run("document.getElementById('detail').hidden = true; document.getElementById('login').hidden = false; return 1;").await;
        test.axe(&format!("the login, {theme}")).await;
    }
}
