//! Webhooks with a real HTTP server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::Value;

use super::*;
use crate::base::secret::Secret;
use crate::config::WebhookSecret;
use crate::events::{Event, EventMessage, EventPhase};

/// Guards against hanging.
const DEADLINE: Duration = Duration::from_secs(180);

fn phased(stream: &str, rule: &str, id: &str, phase: EventPhase) -> Arc<EventMessage> {
    let start = "2026-01-02T03:04:05Z".parse().unwrap();
    let event = Event {
        id: id.into(),
        stream: stream.into(),
        rule: rule.into(),
        zone: Some("\"><script>".into()),
        classes: ["person".to_owned()].into(),
        start,
        end: None,
        end_reason: None,
        share: 0.5,
        peak_share: 0.5,
        peak: start,
    };
    Arc::new(EventMessage { phase, event })
}

/// The start of an event.
pub(super) fn message(stream: &str, rule: &str, id: &str) -> Arc<EventMessage> {
    phased(stream, rule, id, EventPhase::Start)
}

/// A request: when it arrived, its header fields in lower case, and its body.
struct Request {
    arrived: Instant,
    head: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.head.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn id(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        format!("{} {}", body["id"].as_str().unwrap(), body["phase"].as_str().unwrap())
    }
}

/// An HTTP server that answers what the test says for each request, in order; then 204.
struct HookServer {
    url: String,
    requests: Receiver<Request>,
    answers: Sender<&'static str>,
}

impl HookServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=hunter2", listener.local_addr().unwrap());
        let (sender, requests) = unbounded();
        let (answers, answer) = unbounded::<&'static str>();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(request) = read(stream.as_ref().unwrap()) else { continue };
                let answer = answer.try_recv().unwrap_or("204 No Content");
                let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.unwrap().write_all(text.as_bytes());
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        HookServer { url, requests, answers }
    }

    fn next(&self) -> Request {
        self.requests.recv_timeout(DEADLINE).expect("a request arrives")
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
        Some(line.trim_end().to_owned())
    };
    assert!(line()?.starts_with("POST /hook?token=hunter2 "));
    let mut head = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        head.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = head.iter().find(|(name, _)| name == "content-length")?.1.parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { arrived: Instant::now(), head, body: String::from_utf8(body).unwrap() })
}

fn webhooks(hub: &Arc<EventHub>, folder: &Path) -> Webhooks {
    Webhooks::in_folder(Arc::clone(hub), Some(folder.to_path_buf()))
}

fn config(url: &str) -> WebhookConfig {
    let secret = WebhookSecret(Some(Secret::new("s3cret")));
    WebhookConfig { secret, ..WebhookConfig::new("alarm", url.parse().unwrap()) }
}

fn dead(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("webhook-dead.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

fn send(hub: &EventHub, message: &EventMessage) {
    hub.send(message.clone());
}

#[test]
fn starts_and_ends_are_sent_with_a_signature() {
    let (hub, folder, server) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap(), HookServer::start());
    let mut hooks = webhooks(&hub, folder.path());
    let only = WebhookConfig { streams: vec!["gate".into()], rules: vec!["blocked".into()], ..config(&server.url) };
    hooks.set(&[only]).unwrap();
    for message in [
        message("yard", "blocked", "other stream"),
        message("gate", "other", "other rule"),
        message("gate", "blocked", "1"),
        phased("gate", "blocked", "1", EventPhase::Peak),
        phased("gate", "blocked", "1", EventPhase::End),
    ] {
        send(&hub, &message);
    }
    let (first, second) = (server.next(), server.next());
    assert_eq!([first.id(), second.id()], ["1 start", "1 end"]);
    let timestamp: i64 = first.header("x-maskcast-timestamp").parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - timestamp).abs() < 600);
    let expected = signature(&Secret::new("s3cret"), &timestamp.to_string(), &first.body);
    assert_eq!(first.header("x-maskcast-signature"), expected);
    assert_eq!((first.header("x-maskcast-event-id"), first.header("content-type")), ("1", "application/json"));
    let status = hooks.status();
    until("both are counted", || status[0].sent() == 2 && status[0].waiting() == 0);
    hooks.stop();
    assert!(dead(folder.path()).is_empty());
}

#[test]
fn a_message_that_failed_is_sent_again_and_others_meanwhile() {
    let (hub, folder, server) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap(), HookServer::start());
    let mut hooks = webhooks(&hub, folder.path());
    server.answers.send("500 Internal Server Error").unwrap();
    hooks.set(&[config(&server.url)]).unwrap();
    send(&hub, &message("gate", "blocked", "1"));
    assert_eq!(server.next().id(), "1 start");
    let status = hooks.status();
    until("it is counted", || status[0].failed() == 1);
    assert_eq!(status[0].problem().as_deref(), Some("HTTP 500"));
    send(&hub, &message("gate", "blocked", "2"));
    assert_eq!([server.next().id(), server.next().id()], ["2 start", "1 start"]);
    until("both are counted", || status[0].sent() == 2);
    assert_eq!((status[0].problem(), status[0].dead()), (None, 0));
}

#[test]
fn a_server_that_fails_for_every_message_gets_one_after_each_pause() {
    let (hub, folder, server) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap(), HookServer::start());
    (0..7).for_each(|_| server.answers.send("500 Internal Server Error").unwrap());
    // All of them wait when the first is sent.
    let letters = Arc::new(DeadLetters::new(None));
    let pending = Pending::open("alarm", hub.queue(), Some(folder.path()), &letters).unwrap();
    pending.add(&(0..20).map(|n| message("gate", "blocked", &n.to_string())).collect::<Vec<_>>());
    pending.close("");
    drop(pending);
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&server.url)]).unwrap();
    let requests: Vec<Request> = (0..27).map(|_| server.next()).collect();
    let ids: Vec<String> = requests.iter().map(Request::id).collect();
    assert_eq!(ids[..5], starts(0..5), "others are sent, until the fifth has failed");
    for pair in requests[4..8].windows(2) {
        let pause = pair[1].arrived - pair[0].arrived;
        assert!(pause >= Duration::from_millis(500), "{pause:?}: {ids:?}");
    }
    let status = hooks.status();
    until("all are delivered", || status[0].sent() == 20);
    assert_eq!((status[0].failed(), status[0].dead()), (7, 0));
}

#[test]
fn a_server_that_accepts_nothing_gets_every_message_later() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&nowhere())]).unwrap();
    for n in 0..5 {
        send(&hub, &message("gate", "blocked", &n.to_string()));
    }
    let status = hooks.status();
    until("an attempt has failed", || status[0].failed() > 0);
    assert!(status[0].problem().unwrap().contains("refused"), "{:?}", status[0].problem());
    // A webhook of the same name gets the messages that wait.
    let server = HookServer::start();
    server.answers.send("503 Service Unavailable\r\nRetry-After: 1").unwrap();
    hooks.set(&[config(&server.url)]).unwrap();
    let ids: Vec<String> = (0..6).map(|_| server.next().id()).collect();
    assert_eq!(ids, ["0 start", "0 start", "1 start", "2 start", "3 start", "4 start"]);
    hooks.stop();
    assert!(dead(folder.path()).is_empty());
}

#[test]
fn messages_that_cannot_be_delivered_are_kept_in_a_file() {
    let (hub, folder, server) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap(), HookServer::start());
    let mut hooks = webhooks(&hub, folder.path());
    server.answers.send("410 Gone").unwrap();
    server.answers.send("307 Temporary Redirect\r\nLocation: http://169.254.169.254/").unwrap();
    hooks.set(&[config(&server.url)]).unwrap();
    send(&hub, &message("gate", "blocked", "1"));
    send(&hub, &message("gate", "blocked", "2"));
    until("both are in the file", || dead(folder.path()).len() == 2);
    let letters = dead(folder.path());
    assert_eq!([&letters[0]["reason"], &letters[1]["reason"]], ["HTTP 410", "HTTP 307: redirects are not followed"]);
    assert_eq!((&letters[0]["message"]["id"], &letters[0]["attempts"]), (&"1".into(), &1.into()));
    assert_eq!([server.next().id(), server.next().id()], ["1 start", "2 start"]);
    // The server goes away, and the webhook is removed.
    server.answers.send("503 Service Unavailable\r\nRetry-After: 300").unwrap();
    send(&hub, &message("gate", "blocked", "3"));
    let status = hooks.status();
    until("it waits", || status[0].failed() == 3);
    assert_eq!(server.next().id(), "3 start", "the others are not sent again");
    hooks.set(&[]).unwrap();
    let text = std::fs::read_to_string(folder.path().join("webhook-dead.jsonl")).unwrap();
    let last = &dead(folder.path())[2];
    assert_eq!((&last["message"]["id"], &last["reason"]), (&"3".into(), &"the webhook was removed".into()));
    assert_eq!((&last["last_problem"], &last["attempts"]), (&"HTTP 503".into(), &1.into()));
    assert!(!text.contains("hunter2") && !text.contains("s3cret"), "{text}");
    assert_eq!(files(folder.path()), ["webhook-dead.jsonl"], "its queue is deleted");
}

/// The names of the files in a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The address of a port on which no server listens: that of a listener that was dropped.
fn nowhere() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{port}/hook?token=hunter2")
}

fn ids(server: &HookServer, count: usize) -> Vec<String> {
    (0..count).map(|_| server.next().id()).collect()
}

fn starts(ids: std::ops::Range<usize>) -> Vec<String> {
    ids.map(|id| format!("{id} start")).collect()
}

#[test]
fn messages_that_wait_are_sent_after_a_restart_in_their_order() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&nowhere())]).unwrap();
    (0..5).for_each(|n| send(&hub, &message("gate", "blocked", &n.to_string())));
    let status = hooks.status();
    until("an attempt has failed", || status[0].failed() > 0 && status[0].waiting() == 5);
    assert_eq!(status[0].queue.is_stored(), Some(true));
    hooks.stop();
    assert!(dead(folder.path()).is_empty());
    let stored = std::fs::read(folder.path().join("webhook-alarm.sqlite")).unwrap();
    assert!(!stored.windows(7).any(|bytes| bytes == b"hunter2"), "the address is not stored");

    let server = HookServer::start();
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&server.url)]).unwrap();
    let status = hooks.status();
    assert_eq!(ids(&server, 5), starts(0..5));
    send(&hub, &message("gate", "blocked", "5"));
    assert_eq!(server.next().id(), "5 start");
    until("all are delivered", || status[0].sent() == 6 && status[0].waiting() == 0);
    hooks.stop();

    // What was delivered is not sent again.
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&server.url)]).unwrap();
    assert_eq!(hooks.status()[0].waiting(), 0);
    send(&hub, &message("gate", "blocked", "6"));
    assert_eq!(server.next().id(), "6 start");
}

#[test]
fn messages_of_a_webhook_that_was_removed_while_the_service_was_stopped_are_given_up() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&nowhere())]).unwrap();
    (0..3).for_each(|n| send(&hub, &message("gate", "blocked", &n.to_string())));
    let status = hooks.status();
    until("they are stored", || status[0].waiting() == 3);
    hooks.stop();
    let other = WebhookConfig { name: "other".into(), ..config(&nowhere()) };
    webhooks(&hub, folder.path()).set(&[other]).unwrap();
    let letters = dead(folder.path());
    let of = |letter: &Value| (letter["webhook"].clone(), letter["message"]["id"].clone(), letter["reason"].clone());
    let expected = |id: &str| ("alarm".into(), id.into(), "the webhook was removed".into());
    assert_eq!(letters.iter().map(of).collect::<Vec<_>>(), ["0", "1", "2"].map(expected));
    assert!(!files(folder.path()).iter().any(|name| name.contains("alarm")), "{:?}", files(folder.path()));
}

#[test]
fn a_queue_that_cannot_be_stored_delays_nothing() {
    let (hub, folder, server) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap(), HookServer::start());
    // A folder cannot be opened as a file.
    std::fs::create_dir(folder.path().join("webhook-alarm.sqlite")).unwrap();
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&server.url)]).unwrap();
    let status = hooks.status();
    assert_eq!(status[0].queue.is_stored(), Some(false));
    (0..3).for_each(|n| send(&hub, &message("gate", "blocked", &n.to_string())));
    assert_eq!(ids(&server, 3), starts(0..3));
    server.answers.send("503 Service Unavailable\r\nRetry-After: 300").unwrap();
    send(&hub, &message("gate", "blocked", "3"));
    until("it waits", || status[0].failed() == 1);
    // Only these are given up at the stop.
    hooks.stop();
    let letters = dead(folder.path());
    assert_eq!((letters.len(), &letters[0]["message"]["id"]), (1, &"3".into()));
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["last_problem"]),
        (&"the service has stopped".into(), &"HTTP 503".into())
    );
}

#[test]
fn files_that_are_not_queues_or_of_another_service_are_kept() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let damaged = ["webhook-old.sqlite", "webhook-old-damaged-20260102T030405Z.sqlite"];
    let text = "not a database, but of some length".repeat(100);
    damaged.iter().for_each(|name| std::fs::write(folder.path().join(name), &text).unwrap());
    let mut first = webhooks(&hub, folder.path());
    first.set(&[config(&nowhere())]).unwrap();
    send(&hub, &message("gate", "blocked", "0"));
    let status = first.status();
    until("it waits", || status[0].waiting() == 1);
    // Another service with the same state directory, at its start and at a reload; it has a webhook of the same name then.
    let other_hub = Arc::new(EventHub::default());
    let mut second = webhooks(&other_hub, folder.path());
    second.set(&[]).unwrap();
    second.set(&[config(&nowhere())]).unwrap();
    assert_eq!(second.status()[0].queue.is_stored(), Some(false));
    assert_eq!(second.status()[0].waiting(), 0);
    send(&other_hub, &message("gate", "blocked", "1"));
    second.stop();
    let of = |letter: &Value| letter["message"]["id"].clone();
    assert_eq!(dead(folder.path()).iter().map(of).collect::<Vec<_>>(), ["1"], "it was only in memory");
    assert!(damaged.iter().all(|name| std::fs::read_to_string(folder.path().join(name)).unwrap() == text));
    first.stop();
    let letters = Arc::new(DeadLetters::new(None));
    let left = Pending::open("alarm", hub.queue(), Some(folder.path()), &letters).unwrap();
    assert_eq!(left.status.waiting(), 1, "the file of the first service");
}

#[test]
fn a_queue_whose_file_is_removed_while_nothing_happens_is_stored_again() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let mut hooks = webhooks(&hub, &state);
    hooks.set(&[config(&nowhere())]).unwrap();
    send(&hub, &message("gate", "blocked", "0"));
    let status = hooks.status();
    until("it waits", || status[0].waiting() == 1);
    let remove = |to: &str| std::fs::rename(&state, folder.path().join(to)).unwrap();
    remove("first");
    until("the file is there again", || state.join("webhook-alarm.sqlite").exists());
    // Once more, just before the stop.
    remove("second");
    hooks.stop();
    let letters = Arc::new(DeadLetters::new(None));
    let left = Pending::open("alarm", hub.queue(), Some(&state), &letters).unwrap();
    assert_eq!(left.status.waiting(), 1);
}

#[test]
fn the_oldest_message_is_given_up_when_too_many_wait() {
    let folder = tempfile::tempdir().unwrap();
    let letters = Arc::new(DeadLetters::new(Some(folder.path().to_path_buf())));
    let open = || Pending::open("alarm", EventHub::default().queue(), Some(folder.path()), &letters).unwrap();
    let pending = open();
    let most = delivery::MAX_WAITING;
    let messages: Vec<_> = (0..most + 3).map(|n| message("gate", "blocked", &n.to_string())).collect();
    messages.chunks(100).for_each(|messages| pending.add(messages));
    let given_up: Vec<Value> = dead(folder.path()).iter().map(|letter| letter["message"]["id"].clone()).collect();
    assert_eq!(given_up, ["0", "1", "2"]);
    assert_eq!(dead(folder.path())[0]["reason"], "too many messages wait");
    assert_eq!((pending.status.waiting(), pending.status.dead(), pending.status.lost()), (most as u64, 3, 0));
    drop(pending);
    let pending = open();
    let (_, first) = pending.backlog.lock().untried(None).unwrap();
    assert_eq!((first.event_id.as_str(), pending.status.waiting()), ("3", most as u64));
}

#[test]
fn messages_are_stored_while_a_request_has_no_answer() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&format!("http://{}/", silent.local_addr().unwrap()))]).unwrap();
    send(&hub, &message("gate", "blocked", "0"));
    let (_connection, _) = silent.accept().unwrap();
    (1..20).for_each(|n| send(&hub, &message("gate", "blocked", &n.to_string())));
    // As a process that is killed now leaves them.
    let file = rusqlite::Connection::open(folder.path().join("webhook-alarm.sqlite")).unwrap();
    let read = || file.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0)).unwrap();
    until("all are in the file", || read() == 20);
    assert_eq!(hooks.status()[0].failed(), 0, "the request has no answer yet");
}

#[test]
fn a_message_is_given_up_after_its_time() {
    let (hub, folder, server) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap(), HookServer::start());
    for _ in 0..100 {
        server.answers.send("500 Internal Server Error").unwrap();
    }
    let letters = Arc::new(DeadLetters::new(Some(folder.path().to_path_buf())));
    let pending = Arc::new(Pending::open("alarm", hub.queue(), Some(folder.path()), &letters).unwrap());
    let (stop, status) = (Stop::default(), Arc::clone(&pending.status));
    let (wake, woken) = unbounded();
    pending.add(&[message("gate", "blocked", "1")]);
    wake.send(()).unwrap();
    let worker = Worker::new(config(&server.url), pending, woken, stop.clone());
    let worker = worker.giving_up_after(Duration::from_secs(1));
    let thread = std::thread::spawn(move || worker.run());
    until("it is in the file", || dead(folder.path()).len() == 1);
    let letter = &dead(folder.path())[0];
    assert_eq!((&letter["reason"], &letter["last_problem"]), (&"not accepted in time".into(), &"HTTP 500".into()));
    assert!(status.failed() >= 2 && status.dead() == 1, "{status:?}");
    stop.raise();
    thread.join().unwrap();
}

#[test]
fn a_webhook_whose_server_hangs_does_not_delay_the_stop() {
    let (hub, folder) = (Arc::new(EventHub::default()), tempfile::tempdir().unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&format!("http://{}/", silent.local_addr().unwrap()))]).unwrap();
    send(&hub, &message("gate", "blocked", "1"));
    let (_connection, _) = silent.accept().unwrap();
    let asked = Instant::now();
    hooks.stop();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let server = HookServer::start();
    let mut hooks = webhooks(&hub, folder.path());
    hooks.set(&[config(&server.url)]).unwrap();
    assert_eq!(server.next().id(), "1 start", "it is sent after the next start");
}
