//! The page in a real browser, on the real program.

mod common;
#[path = "page/scene.rs"]
mod scene;

use std::net::TcpListener;
use std::time::Instant;

use common::browser::ConsoleLog;
use common::program::{maskcast, run};
use common::service::folder;
use fantoccini::key::Key;
use scene::Scene;
use serde_json::{Value, json};

/// Every pixel is of the class red, and red is drawn as a solid green.
const PAINTED: &str = "[[stream]]\nname = \"painted\"\nsource = \"test://red?width=320&height=180&fps=15\"\n\
                       overlay = { alpha = 1.0, legend = false, colors = { red = \"#00ff00\" } }\n";

const TWO: &str = "[[stream]]\nname = \"first\"\nsource = \"test://ball?width=320&height=180&fps=10\"\n\
                   [[stream]]\nname = \"second\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn video_moves_and_absent_cameras_say_why() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let streams = format!(
        "[[stream]]\nname = \"ball\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         overlay = {{ hide = [\"green\"] }}\n\
         [[stream]]\nname = \"dead\"\nsource = \"rtsp://{closed}/stream\"\n"
    );
    let scene = Scene::open(&streams).await;
    scene.go("").await;
    // By the page's own clock: from its navigation on, and frames that were decoded, not merely received.
    let decoded = "const video = card.querySelector('video');
        return video?.getVideoPlaybackQuality().totalVideoFrames >= 3 && performance.now();";
    let took = scene.until_on("ball", "decoded frames", decoded).await.as_f64().unwrap();
    println!("video after {took:.0} ms");
    scene.until_moving("ball").await;
    assert_eq!(scene.on("ball", "return card.querySelector('.screen').dataset.way;").await, "whep");
    let size = "const v = card.querySelector('video'); return [v.videoWidth, v.videoHeight];";
    assert_eq!(scene.on("ball", size).await, json!([320, 240]));

    for (stream, state) in [("ball", "live"), ("dead", "offline")] {
        let pill = format!("return card.querySelector('.pill').textContent === '{state}';");
        scene.until_on(stream, &format!("it is {state}"), &pill).await;
    }
    let numbers = "return card.querySelector('.numbers').textContent;";
    let shown = "const text = card.querySelector('.numbers').textContent; return /^[1-9].*320×240.*WebRTC/.test(text);";
    scene.until_on("ball", "rate, size and transport", shown).await;
    let text = scene.on("ball", numbers).await;
    let rate: f64 = text.as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(rate > 1.0 && rate < 30.0, "{text}");
    let reason = scene.on("dead", "return card.querySelector('.reason').textContent;").await;
    assert!(reason.as_str().is_some_and(|reason| reason.contains(&closed.to_string())), "{reason}");
    assert_eq!(scene.run("return document.title;").await, "(1 offline) Maskcast");

    // Large, the very same connection goes on.
    scene.run("window.before = document.querySelector('.screen video').srcObject; return 1;").await;
    scene.run("location.hash = '#/ball'; return 1;").await;
    scene.until_moving("ball").await;
    let same = "return document.querySelector('#stage video').srcObject === window.before;";
    assert_eq!(scene.run(same).await, true);
    let address = "return document.getElementById('rtsp').value;";
    assert_eq!(scene.run(address).await, json!(scene.service.rtsp("ball")));
    let legend = "const off = [...document.querySelectorAll('.class')]
        .map((button) => [button.textContent, button.getAttribute('aria-pressed')]);
        return off.length > 0 && off;";
    let legend = scene.until("the legend", legend).await;
    assert_eq!(legend, json!([["red", "true"], ["green", "false"], ["blue", "true"]]));

    // Nothing that the policy forbids, no error; the camera that is away is none.
    let log = scene.browser.client.issue_cmd(ConsoleLog).await.unwrap();
    let severe: Vec<&Value> = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(severe.is_empty(), "{severe:?}");

    // The page says so when the service is gone.
    let Scene { service, browser, .. } = scene;
    let (code, took, log) = tokio::task::block_in_place(|| service.terminate());
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    browser.until("the connection is lost", "return document.body.classList.contains('lost');").await;
    let claimed = "return document.getElementById('detail-state').textContent === 'unknown'
        && document.querySelector('#stage .screen').dataset.way === 'none';";
    browser.until("nothing is claimed of the stream", claimed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_switched_off_leaves_the_picture_and_stays_off() {
    let scene = Scene::open(PAINTED).await;
    scene.go("#/painted").await;
    scene.until_color("painted", "green").await;
    scene.click("[data-class=red]").await;
    let pressed = "return document.querySelector('[data-class=red]').getAttribute('aria-pressed');";
    assert_eq!(scene.run(pressed).await, "false", "it shows at once");
    scene.until_color("painted", "red").await;

    // Opacity and style, by the same way.
    scene.click("#all").await;
    scene.until_color("painted", "green").await;
    let faint = "const alpha = document.getElementById('alpha'); alpha.value = 0;
        alpha.dispatchEvent(new Event('input', { bubbles: true })); return 1;";
    scene.run(faint).await;
    scene.until_color("painted", "red").await;
    scene.click("input[value=mask-only]").await;
    scene.until_color("painted", "green").await;

    // Remembered: by the service, for whoever comes next, and in the file, for its next start.
    scene.click("[data-class=red]").await;
    let file = scene.folder.path().join("maskcast.toml");
    // At once: a page that is left has still said what was chosen.
    scene.go("#/painted").await;
    tokio::task::block_in_place(|| {
        common::program::until("the file has it", || {
            let written = std::fs::read_to_string(&file).unwrap();
            ["hide = [\"red\"]", "style = \"mask-only\""].iter().all(|line| written.contains(line)).then_some(())
        })
    });
    let kept = "const red = document.querySelector('[data-class=red]');
        return red && red.ariaPressed === 'false' && document.querySelector('input[value=mask-only]').checked
            && document.getElementById('alpha-text').textContent === '0 %';";
    scene.until("everything is as it was left", kept).await;

    // What the service does not take is taken back here, and said.
    let Scene { service, browser, .. } = scene;
    service.program.child.signal("KILL");
    browser.run("document.querySelector('[data-class=red]').click(); return 1;").await;
    let back = "return document.querySelector('[data-class=red]').ariaPressed === 'false'
        && document.getElementById('toasts').textContent.includes('painted: the masks were not changed');";
    browser.until("it is taken back", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_stands_still_is_not_shown_as_live() {
    let scene = Scene::open(TWO).await;
    scene.go("").await;
    scene.until_moving("first").await;
    let is_old = "const screen = card.querySelector('.screen');
        const picture = card.querySelector(screen.dataset.way === 'whep' ? 'video' : 'canvas');
        return screen.dataset.way === 'none'
            || (getComputedStyle(picture).filter.includes('grayscale') && !card.querySelector('.note').hidden);";
    assert_eq!(scene.on("first", is_old).await, false);
    scene.service.program.child.signal("STOP");
    let stopped = Instant::now();
    scene.until_on("first", "it is marked as old", is_old).await;
    println!("marked after {:?}", stopped.elapsed());
    scene.service.program.child.signal("CONT");
    scene.until_on("first", "it is live again", &format!("return !(() => {{ {is_old} }})();")).await;
    scene.until_moving("first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_webrtc_four_streams_are_live_and_the_others_take_turns() {
    let names = ["one", "two", "three", "four", "five", "six"];
    let streams = names
        .map(|name| format!("[[stream]]\nname = \"{name}\"\nsource = \"test://ball?width=160&height=90&fps=5\"\n"));
    let scene = Scene::open(&streams.concat()).await;
    scene.before_the_page("delete window.RTCPeerConnection;").await;
    scene.go("").await;
    let shown = "const texts = [...document.querySelectorAll('.numbers')].map((element) => element.textContent);
        const count = (what) => texts.filter((text) => text.endsWith(what)).length;
        const pictures = document.querySelectorAll('.screen[data-way=mjpeg]').length;
        return pictures === 6 && count('MJPEG') === 4 && count('single frames') === 2;";
    scene.until("all six have pictures, four of them live", shown).await;
    for name in ["one", "six"] {
        scene.until_moving(name).await;
    }
    // Nobody looks: nothing is connected.
    scene.run("location.hash = '#/two'; return 1;").await;
    let released =
        "return [...document.querySelectorAll('.card .screen')].every((screen) => screen.dataset.way === 'none');";
    scene.until("only the large one is connected", released).await;
    scene.until_moving("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reached_by_keys() {
    let scene = Scene::open(TWO).await;
    scene.go("").await;
    scene.until("both cards", "return document.querySelectorAll('.card').length === 2;").await;
    scene.press(Key::Tab.into()).await;
    assert_eq!(scene.focus().await, "Skip to the streams");
    let seen = "return document.activeElement.getBoundingClientRect().top >= 0;";
    scene.until("the link to skip is seen", seen).await;
    scene.press(Key::Enter.into()).await;
    assert_eq!(scene.run("return document.activeElement.id;").await, "main");
    scene.press(Key::Right.into()).await;
    assert_eq!(scene.focus().await, "first, show large");
    scene.run("document.getElementById('theme').focus(); return 1;").await;
    scene.press(Key::Right.into()).await;
    assert_eq!(scene.focus().await, "first, show large", "the head's buttons have no use for arrows");
    let ring = "const card = document.activeElement.closest('.card'); return getComputedStyle(card).outlineStyle;";
    assert_eq!(scene.run(ring).await, "solid", "the focus can be seen");
    scene.press(Key::Right.into()).await;
    assert_eq!(scene.focus().await, "second, show large");
    scene.press(Key::Enter.into()).await;
    scene.until("it is large", "return location.hash === '#/second' && document.body.dataset.view === 'detail';").await;
    assert_eq!(scene.focus().await, "second");
    scene.press(Key::Left.into()).await;
    scene.until("its neighbour", "return document.getElementById('detail-name').textContent === 'first';").await;
    scene.press(Key::Escape.into()).await;
    scene.until("all again", "return document.body.dataset.view === 'grid';").await;
    assert_eq!(scene.focus().await, "first, show large");
    scene.press(Key::Enter.into()).await;
    scene.until("large again", "return document.body.dataset.view === 'detail';").await;
    scene.run("history.back(); return 1;").await;
    scene.until("back", "return document.body.dataset.view === 'grid';").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn light_and_dark_follow_the_system_until_somebody_chooses() {
    let scene = Scene::open(TWO).await;
    let ground = "return getComputedStyle(document.body).backgroundColor;";
    let theme = "return document.documentElement.dataset.theme;";
    scene.prefer("dark").await;
    scene.go("").await;
    let dark = scene.run(ground).await;
    assert_eq!(scene.run(theme).await, "dark");
    scene.prefer("light").await;
    scene.until("it follows", "return document.documentElement.dataset.theme === 'light';").await;
    assert_ne!(scene.run(ground).await, dark);
    scene.click("#theme").await;
    assert_eq!(scene.run(ground).await, dark);
    assert_eq!(scene.run("return document.getElementById('theme').ariaPressed;").await, "true");
    scene.go("").await;
    assert_eq!(scene.run(theme).await, "dark", "it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_played_where_one_wants_and_deleted_after_a_question() {
    let folder = folder();
    let dir = folder.path().join("recordings");
    let streams = format!(
        "[[stream]]\nname = \"kept\"\nsource = \"test://ball?width=320&height=180&fps=15\"\n\
         record = {{ dir = {dir:?}, segment = \"4s\" }}\n"
    );
    let scene = Scene::open_in(folder, &streams).await;
    scene.go("#/kept").await;
    let complete = "return [...document.querySelectorAll('.row')].some((row) => !row.querySelector('.badge.on'));";
    scene.until("a recording is complete", complete).await;
    let play = "const row = [...document.querySelectorAll('.row')].findLast((row) => !row.querySelector('.badge.on'));
        window.file = row.querySelector('a[download]').download; row.querySelector('.row-play').click(); return window.file;";
    let file = scene.run(play).await;
    let file = dir.join(file.as_str().unwrap());
    assert!(file.exists(), "{file:?}");
    let video = "const video = document.getElementById('player-video');";
    scene.until("it plays", &format!("{video} return video.currentTime > 0.2 && video.videoWidth === 320;")).await;
    scene
        .run(&format!(
            "{video} window.sought = false; video.onseeked = () => {{ window.sought = true; }};
        video.currentTime = video.duration - 1; return 1;"
        ))
        .await;
    let sought =
        format!("{video} return window.sought && video.currentTime >= video.duration - 1.1 && video.readyState >= 2;");
    scene.until("it goes on from near its end", &sought).await;
    scene.click("#player [data-close]").await;

    let bin = "[...document.querySelectorAll('.row')].find((row) => row.querySelector('a').download === window.file)
        .querySelector('button[title=Delete]').click(); return 1;";
    scene.run(bin).await;
    scene.click("#confirm [data-close]").await;
    assert!(file.exists(), "nobody has agreed");
    scene.run(bin).await;
    scene.click("#confirm-go").await;
    let gone = "return ![...document.querySelectorAll('.row a')].some((link) => link.download === window.file);";
    scene.until("it is gone from the list", gone).await;
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_saved_under_the_streams_name_and_the_time() {
    let scene = Scene::open(TWO).await;
    let saved = scene.folder.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    scene.save_to(&saved).await;
    scene.go("#/second").await;
    scene.until_on("second", "a picture", "return card.querySelector('.screen').dataset.way !== 'none';").await;
    scene.click("#snapshot").await;
    let name = tokio::task::block_in_place(|| {
        common::program::until("the file", || {
            let names =
                std::fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.into_iter().find(|name| name.ends_with(".jpg"))
        })
    });
    // As in second_2026-11-25T14-03-22.jpg.
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "second_0000-00-00T00-00-00.jpg");
    assert!(std::fs::read(saved.join(name)).unwrap().starts_with(&[0xFF, 0xD8, 0xFF]), "it is a JPEG");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_added_changed_and_removed() {
    let scene = Scene::open(TWO).await;
    scene.go("").await;
    scene.until("both cards", "return document.querySelectorAll('.card').length === 2;").await;
    scene.click("#add").await;
    let fill = |name: &str, source: &str| {
        format!(
            "document.getElementById('editor-name').value = '{name}';
            document.getElementById('editor-source').value = '{source}';
            document.getElementById('editor-go').click(); return 1;"
        )
    };
    scene.run(&fill("third", "nonsense://x")).await;
    let refused = "const field = document.querySelector('.field[data-key=source]');
        return field.querySelector('input').ariaInvalid === 'true' && field.querySelector('.error').textContent;";
    let refused = scene.until("what is wrong stands at its field", refused).await;
    assert!(refused.as_str().is_some_and(|text| text.contains("nonsense")), "{refused}");
    scene.run(&fill("third", "test://ball?width=160&height=90&fps=5")).await;
    scene.until_moving("third").await;

    scene.run("location.hash = '#/third'; return 1;").await;
    scene.until("it can be changed", "return !document.getElementById('edit').hidden;").await;
    scene.click("#edit").await;
    scene
        .until("its settings", "return document.getElementById('editor-source')?.value.startsWith('test://ball');")
        .await;
    scene.run("document.getElementById('editor-show').value = 'matched'; document.getElementById('editor-go').click(); return 1;").await;
    scene.until("saved", "return !document.getElementById('editor').open;").await;
    assert_eq!(scene.service.stream("third")["show"], "matched");

    scene.click("#remove").await;
    scene.click("#confirm-go").await;
    let gone = "return document.body.dataset.view === 'grid' && document.querySelectorAll('.card').length === 2;";
    scene.until("it is gone", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_in_sees_the_streams_and_only_operators_change_them() {
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
    let scene = Scene::open_in(folder, PAINTED).await;
    scene.go("#/painted").await;
    scene.until("the form", "return document.activeElement.id === 'login-user';").await;
    assert_eq!(scene.run("return document.querySelectorAll('.card').length;").await, 0);
    scene.log_in("vera", "wrong").await;
    let refused = "const error = document.getElementById('login-error'); return !error.hidden && error.textContent;";
    assert_eq!(scene.until("it is refused", refused).await, "User or password is wrong.");
    scene.log_in("vera", "a long password").await;
    scene.until_color("painted", "green").await;
    assert_eq!(scene.run("return document.getElementById('who').textContent;").await, "vera · viewer");
    let closed =
        "return document.getElementById('masks').disabled && document.querySelector('[data-class=red]').disabled
        && document.getElementById('add').hidden && document.getElementById('edit').hidden;";
    scene.until("nothing can be changed", closed).await;

    scene.click("#log-out").await;
    scene.until("logged out", "return document.body.dataset.view === 'login';").await;
    assert_eq!(scene.run("return document.querySelectorAll('.card').length;").await, 0, "nothing is left to see");
    scene.log_in("otto", "a long password").await;
    scene.until_color("painted", "green").await;
    scene.until("it can be changed", "return !document.querySelector('[data-class=red]').disabled;").await;
    scene.click("[data-class=red]").await;
    scene.until_color("painted", "red").await;

    // A reload needs no password; a session that ends elsewhere ends here, too.
    scene.go("#/painted").await;
    scene.until_color("painted", "red").await;
    scene.run("document.cookie; return fetch('/api/v1/session').then((answer) => answer.json())
        .then(({ csrf }) => fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-CSRF-Token': csrf } })).then(() => 1);").await;
    scene.until("the form is back", "return document.body.dataset.view === 'login';").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_serious() {
    let folder = folder();
    let dir = folder.path().join("recordings");
    let streams = format!(
        "{TWO}[[stream]]\nname = \"kept\"\nsource = \"test://ball?width=160&height=90&fps=5\"\n\
                           record = {{ dir = {dir:?}, segment = \"2s\" }}\n\
                           [[stream]]\nname = \"dead\"\nsource = \"rtsp://127.0.0.1:9/stream\"\n"
    );
    let scene = Scene::open_in(folder, &streams).await;
    for theme in ["light", "dark"] {
        scene.prefer(theme).await;
        scene.go("").await;
        scene.until("the reason", "return document.querySelector('.reason:not([hidden])') !== null;").await;
        scene.axe(&format!("the grid, {theme}")).await;
        scene.click("#add").await;
        scene.axe(&format!("the dialog, {theme}")).await;
        scene.click("#editor [data-close]").await;
        scene.run("location.hash = '#/kept'; return 1;").await;
        let all = "return document.querySelector('.row') && !document.getElementById('masks').hidden;";
        scene.until("masks and recordings", all).await;
        scene.axe(&format!("one stream, {theme}")).await;
        scene.click(".row-play").await;
        scene.axe(&format!("a recording, {theme}")).await;
        scene.click("#player [data-close]").await;
        // The form as it is, without a service that asks.
        scene.run("document.getElementById('detail').hidden = true; document.getElementById('login').hidden = false; return 1;").await;
        scene.axe(&format!("the login, {theme}")).await;
    }
}
