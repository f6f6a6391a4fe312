//! Zones and rules in the page, on the real program.

use fantoccini::key::Key;
use serde_json::{Value, json};

use super::common::browser::ConsoleLog;
use super::common::program::{maskcast, run};
use super::common::service::folder;
use super::page_test::PageTest;

/// Every pixel has the class red. The zone's name would run a script if it were not only text.
const WATCHED: &str = r##"[[stream]]
name = "gate"
source = "test://red?width=320&height=180&fps=10"
overlay = { legend = false, smooth = "off" }
[[stream.zone]]
name = "Loading bay"
polygon = [[0.1, 0.2], [0.5, 0.2], [0.5, 0.8], [0.1, 0.8]]
[[stream.zone]]
name = "\"><script>harmed=1</script><img src=x onerror=harmed=1>"
polygon = [[0.7, 0.1], [0.9, 0.1], [0.9, 0.3]]
[[stream.rule]]
name = "blocked"
classes = ["red"]
zone = "Loading bay"
for = "0s"
[[stream]]
name = "square"
source = "test://ball?width=240&height=240&fps=5"
[[stream.zone]]
name = "All"
polygon = [[0, 0], [1, 0], [1, 1], [0, 1]]
"##;

const HARMFUL: &str = "\"><script>harmed=1</script><img src=x onerror=harmed=1>";

/// The place of a point of the picture in the window. The picture of `gate` fills the video's box.
async fn place(test: &PageTest, x: f64, y: f64) -> (f64, f64) {
    let script = format!(
        "const box = document.querySelector('.zones').getBoundingClientRect();
        return [box.left + {x} * box.width, box.top + {y} * box.height];"
    );
    let at = test.run(&script).await;
    (at[0].as_f64().unwrap(), at[1].as_f64().unwrap())
}

/// The zones of a stream in the service, when they fulfil this.
fn until_zones(test: &PageTest, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    until_settings(test, what, "zone", wanted)
}

fn until_settings(test: &PageTest, what: &str, key: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    tokio::task::block_in_place(|| {
        super::common::program::until(what, || {
            let list = test.service.stream("gate")["config"][key].as_array().cloned().unwrap_or_default();
            wanted(&list).then_some(list)
        })
    })
}

fn names(list: &[Value]) -> Vec<&str> {
    list.iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

/// Whether two polygons differ by less than a pixel of the window.
fn is_near(polygon: &Value, expected: &[[f64; 2]]) -> bool {
    let Some(corners) = polygon.as_array().filter(|corners| corners.len() == expected.len()) else { return false };
    corners
        .iter()
        .zip(expected)
        .all(|(corner, expected)| (0..2).all(|axis| (corner[axis].as_f64().unwrap() - expected[axis]).abs() < 0.005))
}

async fn open() -> PageTest {
    let test = PageTest::open(WATCHED).await;
    test.go("#/gate").await;
    test.until("the zones", "return document.querySelectorAll('.zones .zone-shape').length === 2 && document.getElementById('stage').querySelector('.screen').dataset.way !== 'none';").await;
    test
}

const BAY: [[f64; 2]; 4] = [[0.1, 0.2], [0.5, 0.2], [0.5, 0.8], [0.1, 0.8]];

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_is_moved_by_mouse_touch_and_keys_and_changes_are_undone() {
    let test = open().await;
    test.click_at(place(&test, 0.3, 0.5).await).await;
    test.until("its corners", "return document.querySelectorAll('.zones .corner').length === 4;").await;

    // A corner by mouse.
    test.drag(&[place(&test, 0.1, 0.2).await, place(&test, 0.15, 0.3).await, place(&test, 0.2, 0.4).await]).await;
    let first = [[0.2, 0.4], BAY[1], BAY[2], BAY[3]];
    until_zones(&test, "the corner is moved", |zones| is_near(&zones[0]["polygon"], &first));

    // The same corner, which has the focus, by keys: a hundredth, and with Shift a thousandth.
    let before = test.service.stream("gate")["config"]["zone"][0]["polygon"][0].clone();
    test.press(Key::Right.into()).await;
    test.press_with_shift(Key::Down.into()).await;
    let (x, y) = (before[0].as_f64().unwrap() + 0.01, before[1].as_f64().unwrap() + 0.001);
    until_zones(&test, "the corner is moved by keys", |zones| {
        let corner = &zones[0]["polygon"][0];
        (corner[0].as_f64().unwrap() - x).abs() < 1e-4 && (corner[1].as_f64().unwrap() - y).abs() < 1e-4
    });

    // Tab goes to the next corner, Delete removes it.
    test.press(Key::Tab.into()).await;
    let label = test.run("return document.activeElement.getAttribute('aria-label');").await;
    assert!(label.as_str().is_some_and(|label| label.starts_with("Corner 2 of 4")), "{label}");
    test.press(Key::Delete.into()).await;
    until_zones(&test, "the corner is removed", |zones| zones[0]["polygon"].as_array().unwrap().len() == 3);
    assert_eq!(test.run("return location.hash;").await, "#/gate", "arrow keys do not change the stream");

    // The whole zone by a finger: it cannot leave the picture.
    test.swipe(&[place(&test, 0.3, 0.7).await, place(&test, 0.2, 0.7).await, place(&test, 0.0, 0.7).await]).await;
    until_zones(&test, "the zone is moved", |zones| zones[0]["polygon"][2][0] == json!(0.0));

    // A new corner in the middle of a side.
    let middle = "const dot = document.querySelector('.zones .middle[data-at=\"0\"]').getBoundingClientRect();
        return [dot.left + dot.width / 2, dot.top + dot.height / 2];";
    let middle = test.run(middle).await;
    let middle = (middle[0].as_f64().unwrap(), middle[1].as_f64().unwrap());
    test.drag(&[middle, (middle.0 + 20.0, middle.1 - 20.0)]).await;
    until_zones(&test, "a corner is added", |zones| zones[0]["polygon"].as_array().unwrap().len() == 4);

    // Every change is undone, the last one first.
    while test.run("return document.getElementById('zone-undo').hidden;").await == false {
        test.click("#zone-undo").await;
    }
    until_zones(&test, "the zone is as before", |zones| is_near(&zones[0]["polygon"], &BAY));
    assert_eq!(test.service.stream("gate")["panics"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_is_drawn_by_clicks_and_by_keys() {
    let test = open().await;
    let corners = [[0.55, 0.4], [0.95, 0.4], [0.95, 0.9], [0.55, 0.9]];
    test.click("#zone-add").await;
    for [x, y] in corners {
        test.click_at(place(&test, x, y).await).await;
    }
    // A click on the first corner closes the zone, and asks for its name.
    test.click_at(place(&test, 0.553, 0.403).await).await;
    test.until("the name is asked", "return document.getElementById('zone-name').open;").await;
    test.run("document.getElementById('zone-name-field').value = 'Track'; document.getElementById('zone-name-go').click(); return 1;")
        .await;
    let zones = until_zones(&test, "the zone is saved", |zones| zones.len() == 3);
    assert_eq!(zones[2]["name"], "Track");
    assert!(is_near(&zones[2]["polygon"], &corners), "{zones:?}");
    // Its shares come with the next mask.
    let shares = "const zone = [...document.querySelectorAll('#zones-list li')].at(-1);
        return zone.textContent.includes('Track') && zone.querySelector('.zone-shares').textContent === 'red 100.0\\u00a0%';";
    test.until("the shares of the zone", shares).await;

    // By keys: Space sets corners at the cross, Enter closes.
    test.run("document.getElementById('zone-add').focus(); return 1;").await;
    test.press(Key::Enter.into()).await;
    for key in [' ', Key::Right.into(), Key::Right.into(), ' ', Key::Down.into(), Key::Down.into(), ' '] {
        test.press(key).await;
    }
    test.press(Key::Enter.into()).await;
    test.until("the name is asked again", "return document.getElementById('zone-name').open;").await;
    test.press(Key::Enter.into()).await;
    let zones = until_zones(&test, "the second zone is saved", |zones| zones.len() == 4);
    assert_eq!(zones[3]["polygon"], json!([[0.5, 0.5], [0.52, 0.5], [0.52, 0.52]]));

    // Escape cancels, and stays in this view.
    test.click("#zone-add").await;
    test.click_at(place(&test, 0.6, 0.6).await).await;
    test.press(Key::Escape.into()).await;
    test.until("nothing is drawn", "return document.getElementById('zone-tools').hidden;").await;
    assert_eq!(test.run("return location.hash;").await, "#/gate");
    assert_eq!(test.service.stream("gate")["config"]["zone"].as_array().unwrap().len(), 4);

    // The file has them for the next start.
    let written = std::fs::read_to_string(test.folder.path().join("maskcast.toml")).unwrap();
    assert!(written.contains("Track"), "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_zones_are_text_and_rules_follow_them() {
    let test = open().await;
    let shown = "return [...document.querySelectorAll('.zone-name')].map((label) => label.textContent);";
    assert_eq!(test.run(shown).await, json!(["Loading bay", HARMFUL]));
    let row = "return [...document.querySelectorAll('#zones-list .zone-label')].map((label) => label.textContent);";
    assert_eq!(test.run(row).await, json!(["Loading bay", HARMFUL]));
    // In the chart's and the rule's choices, and in a message, too.
    test.click("#rule-add").await;
    let options = "return [...document.querySelectorAll('#rule-zone option')].map((option) => option.textContent);";
    assert_eq!(test.run(options).await, json!(["The whole frame", "Loading bay", HARMFUL]));
    test.click("#rule-editor [data-close]").await;
    test.run("document.querySelectorAll('#zones-list [title=Delete]')[1].click(); return 1;").await;
    until_zones(&test, "the zone is deleted", |zones| zones.len() == 1);
    test.click("#zone-undo").await;
    let zones = until_zones(&test, "the zone is restored", |zones| zones.len() == 2);
    assert_eq!(names(&zones), ["Loading bay", HARMFUL]);

    // A rule blocks the removal of its zone, and the page says so.
    test.run("document.querySelector('#zones-list [title=Delete]').click(); return 1;").await;
    let refused = "const text = document.getElementById('toasts').textContent;
        return text.includes('zone Loading bay was not deleted') && text.includes('rule[0].zone') && text;";
    test.until("the deletion is refused", refused).await;
    test.until("the zone is shown again", "return document.querySelectorAll('#zones-list li').length === 2;").await;

    // With another name, the rule has it, too.
    test.run("document.querySelector('#zones-list [title=Rename]').click(); return 1;").await;
    test.run("document.getElementById('zone-name-field').value = 'Rampe'; document.getElementById('zone-name-go').click(); return 1;")
        .await;
    let rules = until_settings(&test, "the rule has the new name", "rule", |rules| rules[0]["zone"] == "Rampe");
    assert_eq!(names(&rules), ["blocked"]);
    test.until("the list has it", "return document.querySelector('#zones-list .zone-label').textContent === 'Rampe';")
        .await;
    // A name that is taken is refused in the dialog.
    test.run("document.querySelectorAll('#zones-list [title=Rename]')[1].click(); return 1;").await;
    test.run("document.getElementById('zone-name-field').value = 'Rampe'; document.getElementById('zone-name-go').click(); return 1;")
        .await;
    let taken = "const error = document.getElementById('zone-name-error'); return !error.hidden && error.textContent;";
    let taken = test.until("the name is refused", taken).await;
    assert!(taken.as_str().is_some_and(|text| text.contains("already")), "{taken}");

    assert_eq!(test.run("return window.harmed ?? null;").await, Value::Null);
    let log = test.browser.client.issue_cmd(ConsoleLog).await.unwrap();
    let blocked = log.as_array().unwrap().iter().any(|entry| entry["message"].to_string().contains("Content Security"));
    assert!(!blocked, "the names were not only kept from running: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_lie_on_the_picture_beside_black_borders() {
    let test = PageTest::open(WATCHED).await;
    test.go("#/square").await;
    let placed = "const video = document.querySelector('#stage .screen video');
        const points = document.querySelector('.zones .zone-shape')?.getAttribute('points');
        if (!points || document.querySelector('#stage .screen').dataset.way !== 'whep') return null;
        const box = video.getBoundingClientRect();
        const side = Math.min(box.width, box.height);
        const [left, top] = [(box.width - side) / 2, (box.height - side) / 2];
        const wanted = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]];
        const found = points.split(' ').map((point) => point.split(',').map(Number));
        return side < box.width - 50 && found.every(([x, y], at) => Math.abs(x - wanted[at][0]) < 1 && Math.abs(y - wanted[at][1]) < 1);";
    test.until("the zone is the picture", placed).await;
    test.resize(390, 844).await;
    test.until("also on a phone", placed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_added_changed_and_removed() {
    let test = open().await;
    let state = |rule: &str, state: &str| {
        format!("return document.querySelector('#rules-list [data-rule=\"{rule}\"] .pill')?.textContent === '{state}';")
    };
    test.until("the rule is active", &state("blocked", "active")).await;
    let text = test.run("return document.querySelector('[data-rule=blocked] .rule-text').textContent;").await;
    assert_eq!(text, "red cover at least 2 % of Loading bay");
    test.until(
        "its zone is marked",
        "return document.querySelector('.zone.alarm .zone-name')?.textContent === 'Loading bay';",
    )
    .await;

    test.click("#rule-add").await;
    test.click("#rule-go").await;
    let errors =
        "const shown = [...document.querySelectorAll('#rule-form .error:not([hidden])')].map((error) => error.id);
        return shown.length > 0 && shown;";
    assert_eq!(test.until("the errors", errors).await, json!(["rule-name-error", "rule-classes-error"]));
    let fill = "document.getElementById('rule-name').value = 'green-gone';
        document.querySelector('#rule-classes [value=green]').click();
        document.getElementById('rule-when').value = 'absent';
        document.getElementById('rule-when').dispatchEvent(new Event('change'));
        document.getElementById('rule-for').value = '1s';
        document.getElementById('rule-share').value = '5';
        document.getElementById('rule-go').click(); return 1;";
    test.run(fill).await;
    let rules = until_settings(&test, "the rule is saved", "rule", |rules| rules.len() == 2);
    let rule = json!({ "when": rules[1]["when"], "for": rules[1]["for"], "share": rules[1]["share"], "release": rules[1]["release"] });
    assert_eq!(rule, json!({ "when": "absent", "for": "1s", "share": 0.05, "release": 0.025 }));
    test.until("the new rule is active", &state("green-gone", "active")).await;
    // What has its default is not written into the file.
    let written = std::fs::read_to_string(test.folder.path().join("maskcast.toml")).unwrap();
    assert!(
        written.contains("green-gone") && !written.contains("pre_roll") && !written.contains("release"),
        "{written}"
    );

    test.click("#rules-list [data-rule=green-gone] [title=Change]").await;
    let shown = test.run("return ['name', 'when', 'share', 'release', 'for'].map((key) => document.getElementById(`rule-${key}`).value);").await;
    assert_eq!(shown, json!(["green-gone", "absent", "5", "", "1s"]));
    test.run(
        "document.getElementById('rule-release').value = '6'; document.getElementById('rule-go').click(); return 1;",
    )
    .await;
    let wrong =
        "const error = document.getElementById('rule-release-error'); return !error.hidden && error.textContent;";
    let wrong = test.until("the share of the end is refused", wrong).await;
    assert!(wrong.as_str().is_some_and(|text| text.contains("share")), "{wrong}");
    test.run("document.getElementById('rule-release').value = '1'; document.getElementById('rule-zone').value = 'Loading bay'; document.getElementById('rule-go').click(); return 1;").await;
    let rules = until_settings(&test, "the rule is changed", "rule", |rules| rules[1]["zone"] == "Loading bay");
    assert_eq!(rules[1]["release"], 0.01);

    // What it lacks for a recording is said at the field, and its times have limits.
    test.click("#rules-list [data-rule=green-gone] [title=Change]").await;
    let recording = "return [document.getElementById('rule-record').checked, document.getElementById('rule-rolls').hidden, document.getElementById('rule-record-hint').textContent];";
    let shown = test.run(recording).await;
    assert_eq!((&shown[0], &shown[1]), (&json!(false), &json!(true)));
    assert!(shown[2].as_str().is_some_and(|text| text.contains("[stream.record]")), "{shown}");
    test.run(
        "document.getElementById('rule-record').click(); document.getElementById('rule-post-roll').value = '2h';
        document.getElementById('rule-go').click(); return 1;",
    )
    .await;
    let errors =
        "const shown = [...document.querySelectorAll('#rule-form .error:not([hidden])')].map((error) => [error.id, error.textContent]);
        return shown.length === 2 && shown;";
    let errors = test.until("both are refused", errors).await;
    assert_eq!((&errors[0][0], &errors[1][0]), (&json!("rule-record-error"), &json!("rule-post-roll-error")));
    assert!(errors[0][1].as_str().is_some_and(|text| text.contains("the stream has no [stream.record]")), "{errors}");
    assert!(errors[1][1].as_str().is_some_and(|text| text.contains("1h")), "{errors}");
    test.click("#rule-editor [data-close]").await;

    test.run("document.querySelector('#rules-list [data-rule=green-gone] [title=Delete]').click(); return 1;").await;
    test.click("#confirm-go").await;
    let rules = until_settings(&test, "the rule is deleted", "rule", |rules| rules.len() == 1);
    assert_eq!(names(&rules), ["blocked"]);
    test.until("the list has one", "return document.querySelectorAll('#rules-list li').length === 1;").await;

    // The grid marks the stream.
    test.run("location.hash = '#/'; return 1;").await;
    let marked =
        "const marks = [...document.querySelectorAll('.card .alarm:not([hidden])')].map((mark) => mark.textContent);
        return marks.length === 1 && marks[0] === 'blocked';";
    test.until("the mark", marked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_recorded_with_the_times_of_the_form() {
    let folder = folder();
    let dir = folder.path().join("recordings");
    let config = WATCHED.replacen(
        "[[stream.zone]]",
        &format!("record = {{ dir = {dir:?}, when = \"event\" }}\n[[stream.zone]]"),
        1,
    );
    // Recording events needs one.
    let config = config.replacen(
        "[[stream]]\nname = \"square\"",
        "[[stream.rule]]\nname = \"seen\"\nclasses = [\"blue\"]\nrecord = true\n[[stream]]\nname = \"square\"",
        1,
    );
    let test = PageTest::open_in(folder, &config).await;
    test.go("#/gate").await;
    test.click("#rules-list [data-rule=blocked] [title=Change]").await;
    let fill = "document.getElementById('rule-record').click();
        const hidden = document.getElementById('rule-rolls').hidden;
        const defaults = ['pre-roll', 'post-roll'].map((key) => document.getElementById(`rule-${key}`).placeholder);
        document.getElementById('rule-pre-roll').value = '3s';
        document.getElementById('rule-go').click();
        return [hidden, ...defaults];";
    assert_eq!(test.run(fill).await, json!([false, "5s", "10s"]));
    let rules = until_settings(&test, "the rule is recorded", "rule", |rules| rules[0]["record"] == true);
    assert_eq!((&rules[0]["pre_roll"], &rules[0]["post_roll"]), (&json!("3s"), &json!("10s")));
    let written = std::fs::read_to_string(test.folder.path().join("maskcast.toml")).unwrap();
    assert!(written.contains("pre_roll = \"3s\"") && !written.contains("post_roll"), "{written}");
    test.until(
        "the list says so",
        "return document.querySelector('[data-rule=blocked] .rule-text').textContent.endsWith(', recorded');",
    )
    .await;
    test.click("#rules-list [data-rule=blocked] [title=Change]").await;
    let shown = "return [document.getElementById('rule-record').checked, document.getElementById('rule-pre-roll').value, document.getElementById('rule-post-roll').value, document.getElementById('rule-rolls').hidden];";
    assert_eq!(test.run(shown).await, json!([true, "3s", "", false]));
    // Switched off again, it has no key.
    test.run("document.getElementById('rule-record').click(); document.getElementById('rule-go').click(); return 1;")
        .await;
    until_settings(&test, "the rule is not recorded", "rule", |rules| rules[0]["record"] == false);
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_zones_and_cannot_change_them() {
    let folder = folder();
    let mut add = std::process::Command::new("sh");
    let program = maskcast().get_program().to_owned();
    add.args([
        "-c",
        "printf 'a long password\\n' | \"$0\" user add vera --role viewer --password-stdin --users \"$1\"",
    ]);
    let added = run(add.arg(program).arg(folder.path().join("users.toml")));
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let test = PageTest::open_in(folder, WATCHED).await;
    test.go("#/gate").await;
    test.log_in("vera", "a long password").await;
    test.until("the zones", "return document.querySelectorAll('.zones .zone-shape').length === 2;").await;
    test.until("the rule", "return document.querySelector('#rules-list [data-rule=blocked]') !== null;").await;
    test.click_at(place(&test, 0.3, 0.5).await).await;
    let closed = "return document.querySelectorAll('.zones .corner, .zones [tabindex]').length === 0
        && document.getElementById('zone-add').hidden && document.getElementById('rule-add').hidden
        && document.querySelector('#zones-list button, #rules-list button') === null
        && document.getElementById('zone-tools').hidden;";
    assert_eq!(test.run(closed).await, true);
    // Viewers can switch them off, for their browser.
    test.click("#zones-shown").await;
    let hidden = "return getComputedStyle(document.querySelector('.zones')).display === 'none';";
    test.until("the zones are hidden", hidden).await;
    test.go("#/gate").await;
    test.until("they stay hidden", &format!("if (!document.querySelector('.zones')) return null; {hidden}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_serious_in_the_editors() {
    let test = open().await;
    for (theme, width, height) in [("light", 1280, 900), ("dark", 1280, 900), ("light", 390, 844), ("dark", 390, 844)] {
        test.prefer(theme).await;
        test.resize(width, height).await;
        test.go("#/gate").await;
        test.until(
            "the rule is active",
            "return document.querySelector('[data-rule=blocked] .pill')?.textContent === 'active';",
        )
        .await;
        let what = |view: &str| format!("{view}, {theme}, {width} pixels");
        test.axe(&what("zones and rules")).await;
        let wide = "return document.documentElement.scrollWidth > window.innerWidth;";
        assert_eq!(test.run(wide).await, false, "{}", what("the page is wider than the window"));
        test.click(".zone-select").await;
        test.until("the corners", "return document.querySelectorAll('.zones .corner').length === 4;").await;
        test.axe(&what("a selected zone")).await;
        test.click("#zone-add").await;
        test.axe(&what("drawing")).await;
        test.click("#zone-cancel").await;
        test.click("#zones-list [title=Rename]").await;
        test.axe(&what("the name of a zone")).await;
        test.click("#zone-name [data-close]").await;
        test.click("#rule-add").await;
        test.click("#rule-go").await;
        test.until("errors", "return !document.getElementById('rule-name-error').hidden;").await;
        test.axe(&what("a rule with errors")).await;
        test.click("#rule-editor [data-close]").await;
        test.run("location.hash = '#/'; return 1;").await;
        test.until("the mark", "return document.querySelector('.card .alarm:not([hidden])') !== null;").await;
        test.axe(&what("the grid with a mark")).await;
    }
}
