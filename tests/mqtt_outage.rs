//! Messages about events and a real broker (Mosquitto) that is away or killed, full queues, restarts, a program that is killed, and
//! files that are removed or in use.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::clip::{self, Patch};
use common::mosquitto::{Broker, DURABLE, Subscriber};
use common::program::until;
use common::service::{Service, folder};
use maskcast::config::{self, MqttConfig};
use maskcast::events::{EndReason, Event, EventMessage, EventPhase};
use maskcast::mqtt::Mqtt;
use maskcast::view::ServiceView;
use rusqlite::Connection;
use serde_json::Value;

/// The topic of the events.
const TOPIC: &str = "maskcast/gate/events";

fn settings(port: u16, folder: &Path, version: u8, queue_size: u32) -> MqttConfig {
    MqttConfig {
        version,
        queue_size,
        queue_dir: Some(folder.join("state")),
        ..MqttConfig::of(config::Broker { host: "127.0.0.1".into(), port, is_tls: false })
    }
}

fn view() -> Arc<ServiceView> {
    Arc::new(ServiceView::new("127.0.0.1:0".parse().unwrap(), Vec::new()).0)
}

/// An event: its start, and its end.
fn send(view: &ServiceView, number: usize) {
    let now = jiff::Timestamp::now();
    let start = Event {
        id: number.to_string().into(),
        stream: "gate".into(),
        rule: "blocked".into(),
        zone: None,
        classes: ["car".to_owned()].into(),
        start: now,
        end: None,
        end_reason: None,
        share: 0.5,
        peak_share: 0.5,
        peak: now,
    };
    let end = Event { end: Some(now), end_reason: Some(EndReason::Cleared), ..start.clone() };
    view.events.send(EventMessage { phase: EventPhase::Start, event: start });
    view.events.send(EventMessage { phase: EventPhase::End, event: end });
}

/// A message about an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    id: String,
    phase: String,
}

impl Arrival {
    fn of(message: &Value) -> Self {
        let text = |key: &str| message[key].as_str().unwrap().to_owned();
        Arrival { id: text("id"), phase: text("phase") }
    }
}

/// The messages of [`send`] for these numbers.
fn sent(numbers: std::ops::Range<usize>) -> Vec<Arrival> {
    let both = |number: usize| ["start", "end"].map(|phase| Arrival { id: number.to_string(), phase: phase.into() });
    numbers.flat_map(both).collect()
}

/// A subscriber whose session the broker keeps while it is away.
fn subscriber(broker: &Broker, filter: &str) -> Subscriber {
    let subscriber = Subscriber::to(broker.port, filter, &["-c", "-i", "test", "-t", "ready"]);
    // The subscription is active when a message arrives.
    let publish = || {
        let port = broker.port.to_string();
        std::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-t", "ready", "-m", "x", "-r"])
            .status()
    };
    assert!(publish().expect("mosquitto_pub is installed: run `make setup-test`").success());
    subscriber.on("ready");
    subscriber
}

/// The next messages, until this many different ones have arrived.
fn arrivals(subscriber: &Subscriber, different: usize) -> Vec<Arrival> {
    let mut all = Vec::new();
    until_arrived(subscriber, &mut all, different);
    all
}

/// Adds the next messages, until there are this many different ones.
fn until_arrived(subscriber: &Subscriber, all: &mut Vec<Arrival>, different: usize) {
    let mut seen: BTreeSet<Arrival> = all.iter().cloned().collect();
    while seen.len() < different {
        let arrival = Arrival::of(&subscriber.on(TOPIC).json());
        seen.insert(arrival.clone());
        all.push(arrival);
    }
}

/// Every message in the order in which it arrived first.
fn first_arrivals(all: &[Arrival]) -> Vec<Arrival> {
    let mut seen = BTreeSet::new();
    all.iter().filter(|arrival| seen.insert((*arrival).clone())).cloned().collect()
}

#[test]
fn all_events_arrive_though_the_broker_is_away_in_the_middle_of_them() {
    for version in [3, 5] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(folder.path(), "");
        let events = subscriber(&broker, TOPIC);
        let view = view();
        let mqtt = Mqtt::start(&settings(broker.port, folder.path(), version, 10_000), &view, None).unwrap();
        let status = mqtt.status();
        until("it is connected", || status.is_connected().then_some(()));
        (0..100).for_each(|number| send(&view, number));
        // In the middle of them.
        let mut arrived = arrivals(&events, 20);
        broker.stop();
        until("the connection is lost", || (!status.is_connected()).then_some(()));
        (100..200).for_each(|number| send(&view, number));
        until("the events are queued", || (status.events_queued() >= 200).then_some(()));
        broker.run();
        until_arrived(&events, &mut arrived, 400);
        assert_eq!(first_arrivals(&arrived), sent(0..200), "in their order, without a gap");
        until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
        // Only what was not acknowledged when the connection was lost is sent again.
        let received = broker.received(TOPIC);
        // The broker itself repeats what the subscriber had not acknowledged when the broker stopped.
        let repeated = broker.repeated("test", TOPIC);
        println!("MQTT {version}: the broker received {received}, repeated {repeated}; {} arrived", arrived.len());
        assert!((400..=408).contains(&received), "the broker received {received} messages");
        assert!(arrived.len() <= received + repeated, "{} arrived, {received} and {repeated}", arrived.len());
        assert_eq!((status.events_acknowledged(), status.events_lost()), (400, 0));
        assert!(status.failures() >= 1);
        drop(mqtt.stop());
    }
}

#[test]
fn all_events_arrive_though_the_broker_is_killed_and_attempts_to_connect_fail() {
    for version in [3, 5] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(folder.path(), DURABLE);
        let events = subscriber(&broker, TOPIC);
        let view = view();
        let mqtt = Mqtt::start(&settings(broker.port, folder.path(), version, 10_000), &view, None).unwrap();
        let status = mqtt.status();
        until("it is connected", || status.is_connected().then_some(()));
        (0..60).for_each(|number| send(&view, number));
        let mut arrived = arrivals(&events, 120);
        until("they are acknowledged", || (status.events_queued() == 0).then_some(()));
        // These are on their way when it is killed: what it has acknowledged and not passed on would be lost with it.
        broker.freeze();
        (60..100).for_each(|number| send(&view, number));
        until("they are queued", || (status.events_queued() == 80).then_some(()));
        broker.kill();
        for failures in 1..=4 {
            until("another attempt has failed", || (status.failures() >= failures).then_some(()));
            let first = 75 + 25 * failures as usize;
            (first..first + 25).for_each(|number| send(&view, number));
        }
        until("all are queued", || (status.events_queued() == 280).then_some(()));
        broker.run();
        until_arrived(&events, &mut arrived, 400);
        assert_eq!(first_arrivals(&arrived), sent(0..200), "in their order, without a gap");
        until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
        assert_eq!((status.events_acknowledged(), status.events_lost()), (400, 0), "each was acknowledged once");
        println!("MQTT {version}: {} messages arrived, {} failures", arrived.len(), status.failures());
        assert_eq!(status.sent(), 400 + 8 + 2, "what it had not acknowledged is sent again, after `online`");
        drop(mqtt.stop());
    }
}

/// The messages in the file of the queue, the oldest first.
fn queued(folder: &Path) -> Vec<Arrival> {
    let database = Connection::open(folder.join("state/mqtt.sqlite")).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut select = database.prepare("SELECT message FROM event ORDER BY id").unwrap();
    let messages = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    messages.map(|message| Arrival::of(&serde_json::from_slice(&message.unwrap()).unwrap())).collect()
}

/// The real program is killed several times while the broker is away, and once while it sends what has waited.
#[test]
fn events_of_a_killed_program_arrive() {
    let folder = folder();
    let square = Patch { left: 0, top: 0, width: 32, height: 36, color: clip::RED };
    clip::paint_scene(&folder.path().join("clip.mp4"), (64, 36), 25, 10, "blue", &[(square, 3..8)]);
    let mut broker = Broker::start(folder.path(), DURABLE);
    let events = subscriber(&broker, TOPIC);
    let config = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nqueue_dir = \"state\"\nsnapshots = false\ndiscovery = \"off\"\n\
         [[stream]]\nname = \"gate\"\nsource = \"file:clip.mp4\"\nloop = true\n\
         [[stream.rule]]\nname = \"blocked\"\nclasses = [\"red\"]\nfor = \"0s\"\n",
        broker.port
    );
    broker.stop();
    // The metric is there when MQTT has been started.
    let waiting = |service: &Service| {
        service.metrics().find("maskcast_messages_waiting", &[("output", "mqtt")]).unwrap_or(0.0) as usize
    };
    let mut known: Vec<Arrival> = Vec::new();
    for _ in 0..4 {
        let mut service = Service::start(folder.path(), &config);
        until("more events wait", || (waiting(&service) >= known.len() + 10).then_some(()));
        service.program.child.kill();
        let now = queued(folder.path());
        assert!(now.len() >= known.len() + 10 && now.starts_with(&known), "{known:?} {now:?}");
        known = now;
    }
    assert_eq!(first_arrivals(&known), known, "each is there once");
    let mut service = Service::start(folder.path(), &config);
    broker.run();
    let mut arrived = arrivals(&events, 5);
    service.program.child.kill();
    let service = Service::start(folder.path(), &config);
    until_arrived(&events, &mut arrived, known.len() + 10);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    let first = first_arrivals(&arrived);
    assert_eq!(first[..known.len()], known, "in their order");
    // At most eight are sent again by the program that follows the killed one.
    assert!(arrived.len() <= first.len() + 8, "{} messages, {} different", arrived.len(), first.len());
    assert!(log.contains("MQTT connected") && !log.contains("ERROR"), "{log}");
}

#[test]
fn events_survive_a_restart_while_the_broker_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), "");
    let events = subscriber(&broker, TOPIC);
    broker.stop();
    let settings = settings(broker.port, folder.path(), 3, 10_000);
    let before = view();
    let mqtt = Mqtt::start(&settings, &before, None).unwrap();
    (0..30).for_each(|number| send(&before, number));
    // The stop stores what has been sent to it.
    drop(mqtt.stop());
    let after = view();
    let mqtt = Mqtt::start(&settings, &after, None).unwrap();
    assert_eq!(mqtt.status().events_queued(), 60);
    (30..40).for_each(|number| send(&after, number));
    broker.run();
    assert_eq!(first_arrivals(&arrivals(&events, 80)), sent(0..40));
    // Settings that change meanwhile: no event is lost between two connections.
    let other = MqttConfig { every: std::time::Duration::from_millis(100), ..settings };
    let stopped = mqtt.stop();
    (40..50).for_each(|number| send(&after, number));
    let mqtt = Mqtt::start(&other, &after, Some(stopped)).unwrap();
    assert_eq!(first_arrivals(&arrivals(&events, 20)), sent(40..50));
    let status = mqtt.status();
    until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
    drop(mqtt.stop());
}

#[test]
fn the_oldest_events_of_a_full_queue_are_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), "");
    let events = subscriber(&broker, TOPIC);
    broker.stop();
    let view = view();
    let mqtt = Mqtt::start(&settings(broker.port, folder.path(), 5, 20), &view, None).unwrap();
    let status = mqtt.status();
    (0..25).for_each(|number| send(&view, number));
    until("the messages about 15 are lost", || (status.events_lost() == 30).then_some(()));
    assert_eq!(status.events_queued(), 20);
    broker.run();
    assert_eq!(first_arrivals(&arrivals(&events, 20)), sent(15..25));
    until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
    assert_eq!(status.events_acknowledged(), 20);
    drop(mqtt.stop());
}

#[test]
fn events_survive_the_removal_of_the_folder_and_another_service_with_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), "");
    let events = subscriber(&broker, TOPIC);
    broker.stop();
    let settings = settings(broker.port, folder.path(), 3, 10_000);
    let before = view();
    let mqtt = Mqtt::start(&settings, &before, None).unwrap();
    let status = mqtt.status();
    (0..10).for_each(|number| send(&before, number));
    until("they are queued", || (status.events_queued() == 20).then_some(()));
    let state = folder.path().join("state");
    std::fs::rename(&state, folder.path().join("removed")).unwrap();
    until("there is a new file", || {
        (state.join("mqtt.sqlite").exists() && status.queue.is_stored() == Some(true)).then_some(())
    });
    assert_eq!(queued(folder.path()), sent(0..10));
    // Another service with the same folder keeps its events in memory, and gets none of these.
    let other = view();
    let second = Mqtt::start(&settings, &other, None).unwrap();
    send(&other, 100);
    let second_status = second.status();
    until("they are queued", || (second_status.events_queued() == 2).then_some(()));
    assert_eq!((second_status.queue.is_stored(), status.queue.is_stored()), (Some(false), Some(true)));
    // A connection that replaces it takes them over.
    let stopped = second.stop();
    let second = Mqtt::start(&MqttConfig { queue_dir: None, ..settings.clone() }, &other, Some(stopped)).unwrap();
    assert_eq!(second.status().events_queued(), 2);
    drop(second.stop());
    drop(mqtt.stop());
    assert_eq!(queued(folder.path()), sent(0..10));
    let mqtt = Mqtt::start(&settings, &view(), None).unwrap();
    broker.run();
    assert_eq!(first_arrivals(&arrivals(&events, 20)), sent(0..10));
    drop(mqtt.stop());
}

#[test]
fn the_log_has_the_number_of_events_that_are_only_in_memory_at_the_stop() {
    let folder = folder();
    let mut broker = Broker::start(folder.path(), "");
    broker.stop();
    let config = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\ndiscovery_classes = [\"red\", \"rad\"]\n\
         [[stream]]\nname = \"gate\"\nsource = \"gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=64,height=36 ! queue\"\n\
         [[stream.rule]]\nname = \"blocked\"\nclasses = [\"red\"]\nfor = \"0s\"\n",
        broker.port
    );
    let mut service = Service::start(folder.path(), &config);
    service.program.wait_for_message("ready");
    let waiting = || service.metrics().find("maskcast_messages_waiting", &[("output", "mqtt")]);
    until("the event waits", || (waiting() >= Some(1.0)).then_some(()));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    let lost = log.lines().find(|line| line.contains("MQTT events lost, they were only in memory at the stop"));
    assert!(lost.is_some_and(|line| line.contains("ERROR")), "{log}");
    let unknown = "configuration refers to unknown names: mqtt.discovery_classes: the model has no class";
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(unknown)), "{log}");
}
