//! The entities of a service in a real Home Assistant core (`make test-home-assistant` installs it in `.tools`).

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use common::harness;
use common::http::send;
use common::mosquitto::Broker;
use common::program::{Guard, until};
use common::service::{Service, folder};
use serde_json::{Value, json};

const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue";

fn main() {
    harness::main(
        tests![entities_have_the_values_of_the_service_and_those_of_removed_rules_disappear if home_assistant],
    );
}

/// The Python with the core.
fn python() -> Option<PathBuf> {
    let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let found = std::fs::read_dir(tools).ok()?.flatten();
    let mut cores = found.filter(|entry| entry.file_name().to_string_lossy().starts_with("home-assistant-"));
    cores.next().map(|core| core.path().join("bin/python")).filter(|python| python.exists())
}

fn home_assistant() -> Result<(), String> {
    python().map(drop).ok_or_else(|| "Home Assistant is not installed: make test-home-assistant".to_owned())
}

/// A running core that is connected to a broker.
struct Core {
    _process: Guard,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Core {
    fn start(port: u16) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/home_assistant/core.py");
        let mut command = Command::new(python().expect("it is installed"));
        command.arg(script).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Guard::spawn(&mut command);
        let (requests, answers) = (process.0.stdin.take().unwrap(), process.0.stdout.take().unwrap());
        let mut core = Core { _process: process, requests, answers: BufReader::new(answers) };
        assert_eq!(core.read(), json!({"ready": true}));
        core
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// What it knows now.
    fn report(&mut self) -> Value {
        self.requests.write_all(b"\n").unwrap();
        self.read()
    }

    /// The states of all entities by their entity ids.
    fn states(&mut self) -> Vec<(String, String)> {
        let report = self.report();
        let entities = report["entities"].as_object().unwrap().values();
        let text = |entity: &Value, key: &str| entity[key].as_str().unwrap_or_default().to_owned();
        let mut states: Vec<(String, String)> =
            entities.map(|entity| (text(entity, "entity_id"), text(entity, "state"))).collect();
        states.sort();
        states
    }

    /// Waits for these states.
    fn until(&mut self, wanted: &[(&str, &str)]) {
        let is = |states: &[(String, String)]| {
            states.iter().map(|(id, state)| (id.as_str(), state.as_str())).collect::<Vec<_>>() == wanted
        };
        let mut last = Vec::new();
        until(&format!("{wanted:?}"), || {
            let states = self.states();
            if states != last {
                eprintln!("Home Assistant: {states:?}");
                last.clone_from(&states);
            }
            is(&states).then_some(())
        });
    }
}

fn entities_have_the_values_of_the_service_and_those_of_removed_rules_disappear() {
    let folder = folder();
    let broker = Broker::start(folder.path(), "");
    let mut core = Core::start(broker.port);
    let config = format!(
        r#"[mqtt]
url = "mqtt://127.0.0.1:{}"
queue_dir = "state"
[[stream]]
name = "gate"
source = "{RED}"
[[stream.zone]]
name = "\"><script>/+#"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[[stream.rule]]
name = "blocked"
classes = ["red"]
zone = "\"><script>/+#"
share = 0.9
for = "0s"
[[stream.rule]]
name = "greens"
classes = ["green"]
when = "absent"
for = "1h"
[[stream.rule]]
name = "entry"
classes = ["blue"]
when = "entered"
"#,
        broker.port
    );
    let service = Service::start(folder.path(), &config);
    core.until(&[
        ("binary_sensor.maskcast_gate_blocked", "on"),
        ("binary_sensor.maskcast_gate_greens", "off"),
        ("camera.maskcast_gate_snapshot", "idle"),
        ("event.maskcast_gate_entry", "unknown"),
        ("sensor.maskcast_gate_blue", "0.0"),
        ("sensor.maskcast_gate_green", "0.0"),
        ("sensor.maskcast_gate_script_red", "100.0"),
        ("sensor.maskcast_gate_state", "live"),
    ]);
    let report = core.report();
    let devices: Vec<&Value> = report["devices"].as_object().unwrap().values().collect();
    assert_eq!(devices.len(), 1, "all are under one device: {devices:?}");
    assert_eq!((&devices[0]["name"], &devices[0]["manufacturer"]), (&json!("Maskcast"), &json!("Maskcast")));
    let entities = report["entities"].as_object().unwrap();
    let attributes = |id: &str| &entities.values().find(|entity| entity["entity_id"] == id).unwrap()["attributes"];
    let red = attributes("sensor.maskcast_gate_script_red");
    assert_eq!((&red["unit_of_measurement"], &red["state_class"]), (&json!("%"), &json!("measurement")));
    assert_eq!(attributes("binary_sensor.maskcast_gate_blocked")["device_class"], "occupancy");
    assert_eq!(attributes("binary_sensor.maskcast_gate_greens")["device_class"], "problem");

    let url = format!("{}api/v1/streams/gate", service.page);
    let (status, _, body) = send("PATCH", &url, Some(&json!({"rule": []}).to_string()));
    assert_eq!(status, 200, "{body}");
    core.until(&[("camera.maskcast_gate_snapshot", "idle"), ("sensor.maskcast_gate_state", "live")]);
    assert_eq!(service.terminate().0, Some(0));
    core.until(&[("camera.maskcast_gate_snapshot", "unavailable"), ("sensor.maskcast_gate_state", "unavailable")]);
}
