//! Messages about events and a real broker (Mosquitto) that is away, full queues and restarts.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::mosquitto::{Broker, Subscriber};
use common::program::until;
use maskcast::config::{self, MqttConfig};
use maskcast::events::{Event, EventMessage, EventPhase};
use maskcast::mqtt::Mqtt;
use maskcast::segment::pool::Pool;
use maskcast::view::ServiceView;

fn settings(port: u16, folder: &Path, version: u8, queue_size: u32) -> MqttConfig {
    MqttConfig {
        version,
        queue_size,
        queue_dir: Some(folder.join("state")),
        ..MqttConfig::of(config::Broker { host: "127.0.0.1".into(), port, is_tls: false })
    }
}

fn view() -> Arc<ServiceView> {
    let pool = Pool::idle(1).unwrap();
    Arc::new(ServiceView::new("127.0.0.1:0".parse().unwrap(), pool.stats()).0)
}

fn send(view: &ServiceView, number: usize) {
    let now = jiff::Timestamp::now();
    let event = Event {
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
    view.events.send(EventMessage { phase: EventPhase::Start, event });
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

/// The numbers of the next messages on the topic, until this many different ones have arrived.
fn numbers(subscriber: &Subscriber, different: usize) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    while seen.len() < different {
        let message = subscriber.on("maskcast/gate/events").json();
        let number = message["id"].as_str().unwrap().parse().unwrap();
        seen.insert(number);
        all.push(number);
    }
    all
}

/// Every message in the order in which it arrived first.
fn first_arrivals(numbers: &[usize]) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}

#[test]
fn all_events_arrive_though_the_broker_is_away_in_the_middle_of_them() {
    for version in [3, 5] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(folder.path(), "");
        let events = subscriber(&broker, "maskcast/gate/events");
        let view = view();
        let mqtt = Mqtt::start(&settings(broker.port, folder.path(), version, 10_000), &view, None).unwrap();
        let status = mqtt.status();
        until("it is connected", || status.is_connected().then_some(()));
        for number in 0..100 {
            send(&view, number);
        }
        // In the middle of them.
        let mut arrived = numbers(&events, 20);
        broker.stop();
        until("the connection is lost", || (!status.is_connected()).then_some(()));
        for number in 100..200 {
            send(&view, number);
        }
        until("the events are queued", || (status.events_queued() >= 100).then_some(()));
        broker.run();
        let missing = 200 - first_arrivals(&arrived).len();
        let known: BTreeSet<usize> = arrived.iter().copied().collect();
        let mut new = BTreeSet::new();
        while new.len() < missing {
            let number = numbers(&events, 1)[0];
            arrived.push(number);
            if !known.contains(&number) {
                new.insert(number);
            }
        }
        assert_eq!(first_arrivals(&arrived), (0..200).collect::<Vec<_>>(), "in their order, without a gap");
        // Only what was not acknowledged when the connection was lost is sent again.
        assert!(arrived.len() <= 208, "{} messages", arrived.len());
        until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
        assert_eq!((status.events_acknowledged(), status.events_lost()), (200, 0));
        assert!(status.failures() >= 1);
        drop(mqtt.stop());
    }
}

#[test]
fn events_survive_a_restart_while_the_broker_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), "");
    let events = subscriber(&broker, "maskcast/gate/events");
    broker.stop();
    let settings = settings(broker.port, folder.path(), 3, 10_000);
    let before = view();
    let mqtt = Mqtt::start(&settings, &before, None).unwrap();
    (0..30).for_each(|number| send(&before, number));
    // The stop stores what has been sent to it.
    drop(mqtt.stop());
    let after = view();
    let mqtt = Mqtt::start(&settings, &after, None).unwrap();
    assert_eq!(mqtt.status().events_queued(), 30);
    (30..40).for_each(|number| send(&after, number));
    broker.run();
    assert_eq!(first_arrivals(&numbers(&events, 40)), (0..40).collect::<Vec<_>>());
    // Settings that change meanwhile: no event is lost between two connections.
    let other = MqttConfig { every: std::time::Duration::from_millis(100), ..settings };
    let stopped = mqtt.stop();
    (40..50).for_each(|number| send(&after, number));
    let mqtt = Mqtt::start(&other, &after, Some(stopped)).unwrap();
    assert_eq!(first_arrivals(&numbers(&events, 10)), (40..50).collect::<Vec<_>>());
    let status = mqtt.status();
    until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
    drop(mqtt.stop());
}

#[test]
fn the_oldest_events_of_a_full_queue_are_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), "");
    let events = subscriber(&broker, "maskcast/gate/events");
    broker.stop();
    let view = view();
    let mqtt = Mqtt::start(&settings(broker.port, folder.path(), 5, 10), &view, None).unwrap();
    let status = mqtt.status();
    (0..25).for_each(|number| send(&view, number));
    until("15 are lost", || (status.events_lost() == 15).then_some(()));
    assert_eq!(status.events_queued(), 10);
    broker.run();
    assert_eq!(first_arrivals(&numbers(&events, 10)), (15..25).collect::<Vec<_>>());
    until("all are acknowledged", || (status.events_queued() == 0).then_some(()));
    assert_eq!(status.events_acknowledged(), 10);
    drop(mqtt.stop());
}
