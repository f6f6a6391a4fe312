//! `[[stream.sink]]` as a whole: the real program writes the masks of a stream to a file, and sends them as datagrams.

mod common;

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use common::http::send;
use common::program::until;
use common::schema::assert_valid;
use common::service::{Service, folder};
use jiff::Timestamp;
use maskcast::commands::schema::MessageKind;
use serde_json::{Value, json};

const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue";

/// The complete lines of a file that the program writes.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    complete.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits until the file has this many lines; returns all.
fn until_lines(path: &Path, least: usize) -> Vec<Value> {
    until(&format!("{} has {least} lines", path.display()), || Some(lines(path)).filter(|lines| lines.len() >= least))
}

fn stream(sink: &str) -> String {
    format!("[[stream]]\nname = \"gate\"\nsource = \"{RED}\"\n[[stream.sink]]\ntype = \"jsonl\"\n{sink}\n")
}

#[test]
fn each_mask_is_one_line_and_a_moved_file_is_created_again() {
    let folder = folder();
    let path = folder.path().join("masks/gate.jsonl");
    let service = Service::ready(folder.path(), &stream("path = \"masks/gate.jsonl\""));
    let written = until_lines(&path, 10);
    for line in &written {
        assert_valid(MessageKind::Mask, line);
        assert_eq!((&line["stream"], &line["model"]), (&json!("gate"), &json!("channels")), "{line}");
        assert_eq!((&line["width"], &line["height"]), (&json!(64), &json!(36)), "{line}");
        assert_eq!(line["shares"], json!({"red": 1.0}), "{line}");
        let captured: Timestamp = line["captured"].as_str().unwrap().parse().unwrap();
        let since = Timestamp::now().duration_since(captured).as_secs_f64();
        let age = line["age_ms"].as_f64().unwrap() / 1e3;
        assert!((0.0..600.0).contains(&since) && (0.0..=since + 0.001).contains(&age), "{line}");
    }
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    for pair in written.windows(2) {
        assert!(number(&pair[0], "seq") < number(&pair[1], "seq"), "{pair:?}");
        assert!(number(&pair[0], "source_time_s") < number(&pair[1], "source_time_s"), "{pair:?}");
    }

    // Moved as by logrotate.
    let moved = folder.path().join("masks/gate.jsonl.1");
    std::fs::rename(&path, &moved).unwrap();
    let newer = until_lines(&path, 3);
    let older = lines(&moved);
    assert!(older.len() >= written.len() && older[..written.len()] == written);
    assert!(number(older.last().unwrap(), "seq") < number(&newer[0], "seq"), "no line is written twice");

    let report = service.stream("gate");
    let shown = path.display().to_string();
    assert_eq!(report["config"]["sink"], json!([{"type": "jsonl", "path": shown}]));
    let sink = &report["sinks"][0];
    assert_eq!((&sink["type"], &sink["sink"], &sink["reason"]), (&json!("jsonl"), &json!(shown), &Value::Null));
    assert!(sink["written"].as_u64().unwrap() >= 13, "{sink}");
    let labels = [("stream", "gate"), ("type", "jsonl"), ("sink", &*shown)];
    assert!(service.metrics().sum("maskcast_sink_masks_total", &labels) >= 13.0);

    // Sinks can be set only in the configuration file.
    let url = format!("{}api/v1/streams/gate", service.page);
    let patch = json!({"sink": [{"type": "jsonl", "path": folder.path().join("other")}]});
    let (status, _, problem) = send("PATCH", &url, Some(&patch.to_string()));
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert_eq!((status, &problem["errors"][0]["key"]), (403, &json!("stream[gate].sink")), "{problem}");

    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[test]
fn every_limits_the_rate_of_written_masks() {
    let folder = folder();
    let path = folder.path().join("gate.jsonl");
    let service = Service::ready(folder.path(), &stream("path = \"gate.jsonl\"\nevery = \"1s\""));
    let written = until_lines(&path, 3);
    let times: Vec<Timestamp> =
        written.iter().map(|line| line["captured"].as_str().unwrap().parse().unwrap()).collect();
    for pair in times.windows(2) {
        // The times are rounded to milliseconds.
        assert!(pair[1].duration_since(pair[0]).as_secs_f64() > 0.998, "{times:?}");
    }
    assert_eq!(service.stream("gate")["sinks"][0]["dropped"], 0, "masks that `every` skips do not count as dropped");
}

#[test]
fn on_a_full_disk_only_masks_are_dropped_and_only_until_space_is_free() {
    let folder = folder();
    let path = folder.path().join("gate.jsonl");
    // A device on which every write fails as on a full disk.
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let service = Service::ready(folder.path(), &stream("path = \"gate.jsonl\""));
    let sink = || service.stream("gate")["sinks"][0].clone();
    let failed =
        until("a second attempt has failed", || Some(sink()).filter(|sink| sink["failures"].as_u64() >= Some(2)));
    assert!(failed["reason"].as_str().unwrap().contains("No space left"), "{failed}");
    assert_eq!(failed["written"], 0);
    assert!(failed["dropped"].as_u64() > failed["failures"].as_u64(), "{failed}");
    let labels = [("stream", "gate"), ("type", "jsonl")];
    assert!(service.metrics().sum("maskcast_sink_masks_dropped_total", &labels) >= 2.0);
    service.until_published("gate", service.published("gate") + 30);
    assert_eq!(service.stream("gate")["state"], "live");

    // The path is replaced by a link to a file that can be written.
    let writable = folder.path().join("writable.jsonl");
    std::os::unix::fs::symlink(&writable, folder.path().join("link")).unwrap();
    std::fs::rename(folder.path().join("link"), &path).unwrap();
    let first = until_lines(&writable, 1);
    assert_eq!(first[0]["stream"], "gate");
    until("the sink works again", || (sink()["reason"] == Value::Null).then_some(()));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    for text in ["sink failed, masks are dropped, next try in 1 s: jsonl", "sink works again: jsonl"] {
        assert!(log.lines().any(|line| line.contains("\"sink\"") && line.contains(text)), "{text}: {log}");
    }
}

fn datagram(receiver: &UdpSocket) -> Value {
    let mut datagram = [0; 1 << 16];
    let length = receiver.recv(&mut datagram).expect("a datagram arrives");
    serde_json::from_slice(&datagram[..length]).unwrap()
}

/// A receiver of datagrams. The time limit guards against hanging.
fn receiver(address: &str) -> UdpSocket {
    let receiver = UdpSocket::bind(address).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(180))).unwrap();
    receiver
}

#[test]
fn each_mask_is_a_datagram_with_the_object_of_a_line() {
    let folder = folder();
    let path = folder.path().join("gate.jsonl");
    let first = receiver("127.0.0.1:0");
    let address = first.local_addr().unwrap().to_string();
    let both = format!("path = \"gate.jsonl\"\n[[stream.sink]]\ntype = \"udp\"\naddress = \"{address}\"");
    let service = Service::ready(folder.path(), &stream(&both));
    let received: Vec<Value> = (0..10).map(|_| datagram(&first)).collect();
    until("a line of the file is equal to a datagram", || {
        let lines = lines(&path);
        received.iter().any(|object| lines.contains(object)).then_some(())
    });
    received.iter().for_each(|mask| assert_valid(MessageKind::Mask, mask));
    for pair in received.windows(2) {
        assert!(pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64(), "{pair:?}");
    }
    let sink = || service.stream("gate")["sinks"][1].clone();
    assert_eq!(service.stream("gate")["config"]["sink"][1], json!({"type": "udp", "address": address}));
    let labels = [("stream", "gate"), ("type", "udp"), ("sink", &*address)];
    assert!(service.metrics().sum("maskcast_sink_masks_total", &labels) >= 10.0);

    // The machine of the receiver reports that the port is closed.
    drop(first);
    let failed = until("a datagram is refused", || Some(sink()).filter(|sink| sink["reason"] != Value::Null));
    assert!(failed["reason"].as_str().unwrap().contains("refused"), "{failed}");
    assert!(failed["failures"].as_u64() >= Some(1) && failed["dropped"].as_u64() >= Some(1), "{failed}");
    let second = receiver(&address);
    assert_eq!(datagram(&second)["stream"], "gate");
    until("it works again", || (sink()["reason"] == Value::Null).then_some(()));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    let is_logged = |text: &str| log.lines().any(|line| line.contains("\"sink\"") && line.contains(text));
    let failed = format!("sink failed, masks are dropped, next try in 1 s: udp {address}");
    assert!(is_logged(&failed) && is_logged(&format!("sink works again: udp {address}")), "{log}");
}
