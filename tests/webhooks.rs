//! Webhooks as a whole: the real program with HTTP servers that receive them.

mod common;

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::http::{get_json, send};
use common::program::{DEADLINE, run_with_input, until};
use common::receiver::{Request, receive, serve};
use common::schema::assert_valid;
use common::service::{Service, folder, write_config};
use maskcast::commands::schema::MessageKind;
use maskcast::outbox::EventQueue;
use serde_json::{Value, json};
use tempfile::TempDir;

const ZONE: &str = "\"><script>alert(1)</script>";

/// A red stream with rules that hold from the first mask on.
fn stream_with(rules: &str) -> String {
    let source = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue";
    format!(
        "[[stream]]\nname = \"gate\"\nsource = \"{source}\"\n\
         [[stream.zone]]\nname = '{ZONE}'\npolygon = [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]\n{rules}"
    )
}

fn rule(name: &str) -> String {
    format!("[[stream.rule]]\nname = \"{name}\"\nclasses = [\"red\"]\nzone = '{ZONE}'\nshare = 0.5\nfor = \"0s\"\n")
}

fn stream() -> String {
    stream_with(&rule("blocked"))
}

/// Removes the rules of the stream: their events end.
fn remove_rules(service: &Service) {
    let url = format!("{}api/v1/streams/gate", service.page);
    let (status, _, body) = send("PATCH", &url, Some(&json!({ "rule": [] }).to_string()));
    assert_eq!(status, 200, "{body}");
}

/// The example of docs/webhooks.md.
fn is_genuine(secret: &str, request: &Request) -> bool {
    let page = std::fs::read_to_string("docs/webhooks.md").unwrap();
    let example = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let arguments = json!({
        "secret": secret,
        "headers": request.head.iter().map(|(name, value)| (canonical(name), value)).collect::<std::collections::BTreeMap<_, _>>(),
        "body": request.body,
    });
    let script = format!(
        "{example}\nimport json\nimport sys\na = json.load(sys.stdin)\n\
         print(is_genuine(a['secret'].encode(), a['headers'], a['body'].encode()))\n"
    );
    let ended = run_with_input(std::process::Command::new("python3").args(["-c", &script]), &arguments.to_string());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.text() == "True"
}

/// `x-maskcast-event-id` as `X-Maskcast-Event-Id`: names are not case-sensitive in HTTP, but in a dictionary.
fn canonical(name: &str) -> String {
    let capital = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn dead_letters(state: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(state.join("webhook-dead.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The number of messages that a webhook has left in its file.
fn queued(state: &Path, name: &str) -> u64 {
    let file = state.join(format!("webhook-{name}.sqlite"));
    assert!(file.is_file(), "{}", file.display());
    EventQueue::open(Some(&file), 100, Arc::default(), "test").unwrap().len()
}

const SECRET: &str = "correct horse battery";

/// A folder with a model and a secret.
fn folder_with_secret() -> TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("hook.secret"), SECRET).unwrap();
    folder
}

#[test]
fn webhooks_are_signed_retried_and_kept_when_they_are_refused() {
    let folder = folder_with_secret();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let (good, requests) = receive(&["503 Service Unavailable"]);
    let (bad, refused) = receive(&["302 Found\r\nLocation: http://127.0.0.1:9/"; 9]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "{}[[webhook]]\nname = \"good\"\nurl = \"http://{good}/T0/hunter2?key=hunter2\"\nsecret_file = \"hook.secret\"\n\
         [[webhook]]\nname = \"bad\"\nurl = \"http://{bad}/hunter2\"\n\
         [[webhook]]\nname = \"silent\"\nurl = \"http://{}/hunter2\"\n\
         [[webhook]]\nname = \"other\"\nurl = \"http://{good}/\"\nstreams = [\"yard\"]\n",
        stream(),
        silent.local_addr().unwrap()
    );
    let state_text = state.to_str().unwrap();
    let variables = [("STATE_DIRECTORY", state_text), ("MASKCAST_LOG", "debug")];
    let mut service = Service::with(folder.path(), &config, &variables);
    service.program.wait_for_message("ready");
    let next = || requests.recv_timeout(DEADLINE).expect("a request arrives");
    let (first, again) = (next(), next());
    assert_eq!(first.body, again.body, "503: it is sent again");
    assert_valid(MessageKind::Event, &first.json());
    assert_eq!((&first.json()["phase"], &first.json()["zone"]), (&"start".into(), &ZONE.into()));
    assert_eq!(first.header("x-maskcast-event-id"), first.json()["id"]);
    remove_rules(&service);
    let end = next();
    assert_eq!((&end.json()["phase"], &end.json()["id"]), (&"end".into(), &first.json()["id"]));
    for request in [&first, &again, &end] {
        assert!(is_genuine(SECRET, request) && !is_genuine("another", request), "{}", request.body);
    }
    let changed = Request { head: end.head.clone(), body: end.body.replace("gate", "yard") };
    assert!(!is_genuine(SECRET, &changed));
    // The server that redirects gets each message once.
    let letters = until("both messages are in the file", || {
        let bad: Vec<Value> = dead_letters(&state).into_iter().filter(|letter| letter["webhook"] == "bad").collect();
        (bad.len() == 2).then_some(bad)
    });
    assert_eq!(letters[0]["reason"], "HTTP 302: redirects are not followed");
    assert_eq!(letters[0]["message"], first.json());
    assert_eq!(refused.len(), 2);
    assert_eq!(refused.recv().unwrap().header("x-maskcast-signature"), "", "it has no secret");
    // A server that never answers delays neither the others nor the stop.
    let (code, time, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(time < Duration::from_secs(30), "{time:?}");
    assert!(dead_letters(&state).iter().all(|letter| letter["webhook"] == "bad"));
    assert_eq!(queued(&state, "silent"), 2, "they are sent after the next start");
    assert_eq!(queued(&state, "good") + queued(&state, "bad"), 0);
    assert_eq!(requests.len(), 0, "the webhook of another stream");
    let text = std::fs::read_to_string(state.join("webhook-dead.jsonl")).unwrap();
    for secret in [SECRET, "hunter2"] {
        assert!(!log.contains(secret) && !text.contains(secret), "{secret}");
    }
    for line in ["webhook failed, the message will be retried: good: HTTP 503", "webhook works again: good"] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn a_reload_replaces_webhooks_and_the_api_cannot() {
    let folder = folder_with_secret();
    let (first, requests) = receive(&[]);
    let (second, moved) = receive(&[]);
    let hook = |address: &str| format!("[[webhook]]\nname = \"hook\"\nurl = \"http://{address}/\"\n");
    let mut service = Service::start(folder.path(), &(stream() + &hook(&first)));
    service.program.wait_for_message("ready");
    let start = requests.recv_timeout(DEADLINE).unwrap().json();
    assert_eq!(start["phase"], "start");
    let config = write_config(folder.path(), &(stream() + &hook(&second)));
    assert!(config.is_file());
    service.program.child.signal("HUP");
    service
        .program
        .wait_for("the reload", |entry| entry["message"].as_str()?.starts_with("configuration reloaded").then_some(()));
    remove_rules(&service);
    let end = moved.recv_timeout(DEADLINE).unwrap().json();
    assert_eq!((&end["phase"], &end["id"]), (&"end".into(), &start["id"]));
    assert_eq!(requests.len(), 0);
    let url = format!("{}api/v1/streams/gate", service.page);
    let patch = json!({ "webhook": [{ "name": "evil", "url": "http://evil.example/" }] });
    let (status, _, body) = send("PATCH", &url, Some(&patch.to_string()));
    assert!(matches!(status, 403 | 422), "{status} {body}");
    // No response of the API has the address.
    assert!(!get_json(&url).to_string().contains(&second));
}

/// A service is killed while these events wait for a server that is away, and started again when the server is back: all of them
/// arrive, in their order.
fn kill_while_the_server_is_away(is_silent: bool) {
    const EVENTS: usize = 20;
    let folder = folder_with_secret();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let variables = [("STATE_DIRECTORY", state.to_str().unwrap())];
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = away.local_addr().unwrap();
    // Connections to a listener that accepts none are established, and have no answer.
    let away = is_silent.then_some(away);
    let rules: String = (0..EVENTS).map(|n| rule(&format!("rule-{n}"))).collect();
    let hook = format!("[[webhook]]\nname = \"alarm\"\nurl = \"http://{address}/\"\nsecret_file = \"hook.secret\"\n");
    let config = write_config(folder.path(), &(stream_with(&rules) + &hook));

    let mut service = Service::run(&config, &variables);
    let waiting = |service: &Service| service.metrics().sum("maskcast_messages_waiting", &[("output", "webhook")]);
    until("the events wait", || (waiting(&service) == EVENTS as f64).then_some(()));
    assert_eq!(service.metrics().sum("maskcast_message_queue_stored", &[("output", "webhook")]), 1.0);
    let states = service.stream("gate")["rules"].clone();
    let ids: Vec<&str> = states.as_array().unwrap().iter().map(|rule| rule["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), EVENTS);
    service.program.child.signal("KILL");
    service.program.ended();
    assert!(dead_letters(&state).is_empty());

    let requests = serve(away.unwrap_or_else(|| TcpListener::bind(address).unwrap()), &[]);
    let service = Service::run(&config, &variables);
    // The receiver identifies messages by the id and the phase: they may arrive twice.
    let mut seen = HashSet::new();
    let mut next = || loop {
        let request = requests.recv_timeout(DEADLINE).expect("a request arrives");
        assert!(is_genuine(SECRET, &request), "{}", request.body);
        let message = request.json();
        let id = message["id"].as_str().unwrap().to_owned();
        let phase = message["phase"].as_str().unwrap().to_owned();
        if seen.insert((id.clone(), phase.clone())) {
            return (id, phase, message);
        }
    };
    for id in &ids {
        let (found, phase, message) = next();
        assert_eq!((found.as_str(), phase.as_str()), (*id, "start"), "in their order");
        assert_valid(MessageKind::Event, &message);
    }
    // Then their ends, which the history makes at the start of the service, among new events.
    let mut ends = Vec::new();
    while ends.len() < EVENTS {
        let (id, phase, message) = next();
        if phase == "end" {
            assert_eq!(message["end_reason"], "restart", "{message}");
            ends.push(id);
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, ids);
    until("nothing waits", || (waiting(&service) == 0.0).then_some(()));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("webhook messages of the previous run are queued: alarm: 20 messages"), "{log}");
    assert!(dead_letters(&state).is_empty());
}

#[test]
fn events_that_wait_survive_a_kill_while_the_server_refuses_connections() {
    kill_while_the_server_is_away(false);
}

#[test]
fn events_that_wait_survive_a_kill_while_the_server_gives_no_answer() {
    kill_while_the_server_is_away(true);
}
