//! Live messages as a whole: the real program with WebSocket clients and a browser.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use common::browser::Browser;
use common::http::send;
use common::live::{ServerSentEvents, next, open, status};
use common::program::{DEADLINE, Guard, maskcast, run};
use common::schema::assert_valid;
use common::service::{Service, folder, folder_with_model};
use maskcast::commands::schema::MessageKind;
use serde_json::{Value, json};

const ZONE: &str = "\"><script>alert(1)</script>";

/// A red stream with a rule that holds from the first mask on.
fn stream(name: &str) -> String {
    let source = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue";
    format!(
        "[[stream]]\nname = \"{name}\"\nsource = \"{source}\"\n\
         [[stream.zone]]\nname = '{ZONE}'\npolygon = [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]\n{RULE}"
    )
}

const RULE: &str = "[[stream.rule]]\nname = \"blocked\"\nclasses = [\"red\"]\n\
                    zone = '\"><script>alert(1)</script>'\nshare = 0.5\nfor = \"0s\"\n";

/// Replaces the rules of the stream. Without rules, its event ends.
fn set_rules(service: &Service, rules: &Value) {
    let url = format!("{}api/v1/streams/gate", service.page);
    let (status, _, body) = send("PATCH", &url, Some(&json!({ "rule": rules }).to_string()));
    assert_eq!(status, 200, "{body}");
}

fn rule() -> Value {
    json!([{ "name": "blocked", "classes": ["red"], "zone": ZONE, "share": 0.5, "for": "0s" }])
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_and_events_are_as_their_schemas_describe_them() {
    let folder = folder();
    let service = tokio::task::block_in_place(|| Service::ready(folder.path(), &stream("gate")));
    for path in ["masks", "masks?mask=rle", "masks?mask=png&every=100ms"] {
        let mut masks = open(&service.page, &format!("api/v1/streams/gate/{path}"), &[]).await.unwrap();
        let mut last = None;
        for _ in 0..5 {
            let mask = next(&mut masks).await.unwrap();
            assert_valid(MessageKind::Mask, &mask);
            assert_eq!(mask["zones"], json!({ ZONE: { "red": 1.0 } }), "{mask}");
            assert_eq!(mask.get("mask").is_some(), path.contains("mask="), "{mask}");
            let seq = mask["seq"].as_u64();
            assert!(last < seq, "{mask}");
            last = seq;
        }
    }
    let mut events = open(&service.page, "api/v1/events/live?stream=gate&rule=blocked", &[]).await.unwrap();
    tokio::task::block_in_place(|| set_rules(&service, &json!([])));
    let end = next(&mut events).await.unwrap();
    assert_eq!((&end["phase"], &end["end_reason"], &end["zone"]), (&"end".into(), &"removed".into(), &ZONE.into()));
    tokio::task::block_in_place(|| set_rules(&service, &rule()));
    let start = next(&mut events).await.unwrap();
    assert_eq!((&start["phase"], &start["share"]), (&"start".into(), &1.0.into()));
    assert!(start["id"].as_str() > end["id"].as_str() && start.get("end").is_none(), "{start}");
    for event in [&start, &end] {
        assert_valid(MessageKind::Event, event);
    }
    let (code, time, log) = tokio::task::block_in_place(|| service.terminate());
    assert_eq!((code, next(&mut events).await), (Some(0), None), "{log}");
    assert!(time < Duration::from_secs(60), "{time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing_and_a_removed_user_gets_no_more() {
    let folder = folder();
    let users = folder.path().join("users.toml");
    let add = maskcast()
        .args(["user", "token", "wall", "--role", "viewer", "--users"])
        .arg(&users)
        .stdin(Stdio::null())
        .output();
    let token = String::from_utf8(add.unwrap().stdout).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let service = tokio::task::block_in_place(|| Service::ready(folder.path(), &stream("gate")));
    for path in ["api/v1/streams/gate/masks", "api/v1/streams/none/masks", "api/v1/events/live"] {
        assert_eq!(status(open(&service.page, path, &[]).await), 401, "{path}");
        assert_eq!(
            status(open(&service.page, path, &[("authorization", "Bearer maskcast_wrong")]).await),
            401,
            "{path}"
        );
    }
    let mut masks = open(&service.page, "api/v1/streams/gate/masks", &[("authorization", &bearer)]).await.unwrap();
    let mut events = open(&service.page, "api/v1/events/live", &[("authorization", &bearer)]).await.unwrap();
    assert_eq!(next(&mut masks).await.unwrap()["stream"], "gate");
    // `maskcast listen` with the token.
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, &token).unwrap();
    let mut listen = Listen::start(maskcast().arg("listen").arg(&service.page).arg("--token-file").arg(&token_file));
    assert_eq!(tokio::task::block_in_place(|| listen.next())["stream"], "gate");
    let refused = tokio::task::block_in_place(|| run(maskcast().arg("listen").arg(&service.page)));
    assert!(refused.code == Some(1) && refused.stderr.contains("authentication required"), "{}", refused.stderr);

    let removed = maskcast().args(["user", "remove", "wall", "--users"]).arg(&users).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    // Without users everybody on this machine has access, and connections would continue.
    let add = run(maskcast().args(["user", "token", "other", "--role", "viewer", "--users"]).arg(&users));
    assert_eq!(add.code, Some(0), "{}", add.stderr);
    service.program.child.signal("HUP");
    while next(&mut masks).await.is_some() {}
    assert_eq!(next(&mut events).await, None);
    let ended = tokio::task::block_in_place(|| listen.ended());
    assert_eq!(ended, Some(1), "its new connection is refused");
}

/// `maskcast listen`.
struct Listen {
    child: Guard,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listen {
    fn start(command: &mut std::process::Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Guard::spawn(command);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        Listen { child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().expect("a line").unwrap()).unwrap()
    }

    /// Reads to the end; returns the exit code.
    fn ended(mut self) -> Option<i32> {
        self.lines.by_ref().for_each(drop);
        self.child.wait(DEADLINE).code()
    }
}

#[test]
fn listen_prints_the_messages_of_all_streams_and_connects_again() {
    let folder = folder();
    let streams = stream("gate") + &stream("yard");
    let service = Service::ready(folder.path(), &streams);
    let address = service.page.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut masks =
        Listen::start(maskcast().arg("listen").arg(&service.page).args(["--every", "100ms", "--mask", "rle"]));
    let mut seen = [false; 2];
    while seen != [true; 2] {
        let mask = masks.next();
        assert_valid(MessageKind::Mask, &mask);
        assert_eq!(mask["mask"]["format"], "coco-rle", "{mask}");
        seen[usize::from(mask["stream"] == "yard")] = true;
    }
    let mut events = Listen::start(maskcast().args(["listen", "--events", "--stream", "gate"]).arg(&service.page));
    // The command may not be connected yet: events are made until it prints one.
    let (done, ended) = crossbeam_channel::bounded::<()>(0);
    let event = std::thread::scope(|scope| {
        scope.spawn(|| {
            let pace = crossbeam_channel::tick(Duration::from_millis(300));
            let mut rules = [json!([]), rule()].into_iter().cycle();
            while ended.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                set_rules(&service, &rules.next().unwrap());
                let _ = pace.recv();
            }
        });
        let event = events.next();
        drop(done);
        event
    });
    assert_valid(MessageKind::Event, &event);
    assert_eq!(event["stream"], "gate");
    let wrong = run(maskcast().args(["listen", "--stream", "none"]).arg(&service.page));
    assert!(wrong.code == Some(1) && wrong.stderr.contains("there is no stream \"none\""), "{}", wrong.stderr);

    // The service is restarted on the same port.
    let before = masks.next()["captured"].as_str().unwrap().to_owned();
    service.terminate();
    let config = common::service::write_config_at(folder.path(), &address, "127.0.0.1:0", &streams);
    let again = Service::run(&config, &[]);
    let restarted = jiff::Timestamp::now().to_string();
    while masks.next()["captured"].as_str().unwrap() < restarted.as_str() {}
    assert!(before < restarted);
    drop(again);
}

/// A client that reads slowly from a stream with large messages.
#[test]
fn a_slow_client_does_not_slow_the_stream() {
    let folder = folder_with_model(256, 144);
    let source = "gst:videotestsrc is-live=true pattern=chroma-zone-plate kx2=40 ky2=40 kt=3 ! \
                  video/x-raw,width=256,height=144,framerate=25/1 ! queue";
    let service = Service::ready(folder.path(), &format!("[[stream]]\nname = \"gate\"\nsource = \"{source}\"\n"));
    let mut client = ServerSentEvents::connect(&service.page, "api/v1/streams/gate/masks?mask=rle", &[]);
    let mut mask = || client.next().unwrap();
    mask();
    // It reads one message for every three frames of the stream.
    let mut total = 0;
    let mut frames = service.published("gate");
    while total == 0 {
        frames += 3;
        service.until_published("gate", frames);
        total += mask()["lost"].as_u64().unwrap_or(0);
        assert!(frames < 100_000, "no mask was lost");
    }
    // The client reads nothing, and the stream continues.
    service.until_published("gate", frames + 50);
    assert_eq!(service.stream("gate")["state"], "live");
}

/// The policy of the page allows WebSockets to the service, and no page of another address can open one.
#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_the_service_can_open_a_websocket_in_a_browser() {
    let folder = folder();
    let service = tokio::task::block_in_place(|| Service::ready(folder.path(), &stream("gate")));
    let browser = Browser::start().await;
    let connect = |service: &Service| {
        let address = service.page.replacen("http", "ws", 1);
        format!(
            "if (!window.opened) {{
                 window.opened = true;
                 const socket = new WebSocket('{address}api/v1/streams/gate/masks');
                 socket.onmessage = ({{ data }}) => {{ window.received = data; socket.close(); }};
                 socket.onerror = () => {{ window.received ??= 'refused'; }};
                 const events = new EventSource('/api/v1/streams/gate/masks');
                 events.addEventListener('mask', ({{ data }}) => {{ window.receivedMask = data; events.close(); }});
             }}
             return window.received && window.receivedMask ? [window.received, window.receivedMask] : null;"
        )
    };
    browser.client.goto(&service.page).await.unwrap();
    let own = browser.until("its own page", &connect(&service)).await;
    for text in [&own[0], &own[1]] {
        let mask: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert_eq!(mask["zones"][ZONE]["red"], 1.0, "{mask}");
    }
    // The policy of the service does not apply to this page.
    let page = "data:text/html,<title>elsewhere</title>";
    browser.client.goto(page).await.unwrap();
    let script = connect(&service).replace("new EventSource('/api", &format!("new EventSource('{}api", service.page));
    let script = script.replace("window.received && window.receivedMask", "window.received");
    let elsewhere = browser.until("a page from elsewhere", &script).await;
    assert_eq!((&elsewhere[0], &elsewhere[1]), (&"refused".into(), &Value::Null));
}
