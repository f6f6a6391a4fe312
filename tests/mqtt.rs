//! `[mqtt]` as a whole: the real program and a real broker (Mosquitto).

mod common;

use std::path::Path;

use common::http::send;
use common::mosquitto::{Broker, Message, Subscriber, retained};
use common::program::until;
use common::schema::assert_valid;
use common::service::{Service, folder};
use maskcast::commands::schema::MessageKind;
use serde_json::{Value, json};

const RED: &str = "gst:videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 ! queue";

/// A configuration with zones whose names need care, a rule that begins at once, and one that never does.
fn config(broker: &Broker, more: &str) -> String {
    let port = broker.port;
    format!(
        r#"[mqtt]
url = "mqtt://127.0.0.1:{port}"
queue_dir = "state"
every = "200ms"
{more}
[[stream]]
name = "gate"
source = "{RED}"
[[stream.zone]]
name = "Loading bay"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[[stream.zone]]
name = "\"><script>/+#"
polygon = [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]
[[stream.rule]]
name = "all-red"
classes = ["red"]
zone = "Loading bay"
share = 0.9
for = "0s"
[[stream.rule]]
name = "greens"
classes = ["green"]
zone = "\"><script>/+#"
"#
    )
}

fn is_jpeg(message: &Message) -> bool {
    message.payload.starts_with(&[0xff, 0xd8]) && message.payload.ends_with(&[0xff, 0xd9])
}

fn text_of(messages: &[Message], topic: &str) -> String {
    let found = messages.iter().find(|message| message.topic == topic);
    found.unwrap_or_else(|| panic!("{topic} is not retained: {messages:?}")).text()
}

#[test]
fn states_shares_events_and_images_arrive_and_what_is_true_later_is_retained() {
    let folder = folder();
    let broker = Broker::start(folder.path(), "");
    let all = Subscriber::to(broker.port, "maskcast/#", &[]);
    let service = Service::start(folder.path(), &config(&broker, ""));

    all.until("maskcast/status", "online");
    let begins = all.on("maskcast/gate/events");
    assert_eq!((begins.qos, begins.is_retained), (1, false));
    let event = begins.json();
    assert_eq!(
        (&event["phase"], &event["rule"], &event["zone"]),
        (&json!("start"), &json!("all-red"), &json!("Loading bay"))
    );
    assert_valid(MessageKind::Event, &event);

    // Two topics of one mask have its number.
    let shares = all.on("maskcast/gate/shares");
    assert_eq!((shares.qos, shares.is_retained), (0, false));
    let shares = shares.json();
    assert_valid(MessageKind::Shares, &shares);
    assert_eq!((&shares["stream"], &shares["shares"]), (&json!("gate"), &json!({"red": 1.0})));
    assert_eq!(shares.get("zone"), None);
    let bay = all.on("maskcast/gate/zone/Loading%20bay/shares").json();
    assert_valid(MessageKind::Shares, &bay);
    assert_eq!((&bay["zone"], &bay["seq"], &bay["shares"]), (&json!("Loading bay"), &shares["seq"], &shares["shares"]));
    let script = all.on("maskcast/gate/zone/%22%3E%3Cscript%3E%2F%2B%23/shares").json();
    assert_eq!((&script["zone"], &script["seq"]), (&json!("\"><script>/+#"), &shares["seq"]));
    let next = all.on("maskcast/gate/shares").json();
    let time = |message: &Value| message["captured"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&next).duration_since(time(&shares)).as_secs_f64() > 0.1, "{shares} {next}: `every` is 200 ms");

    let kept = until("the active rule and an image are retained", || {
        let kept = retained(broker.port, "#", &[]);
        let is_on = |message: &Message| message.topic == "maskcast/gate/rule/all-red/state" && message.text() == "ON";
        let has_image = kept.iter().any(|message| message.topic == "maskcast/gate/snapshot");
        (has_image && kept.iter().any(is_on)).then_some(kept)
    });
    assert_eq!(text_of(&kept, "maskcast/status"), "online");
    assert_eq!(text_of(&kept, "maskcast/gate/state"), "live");
    assert_eq!(text_of(&kept, "maskcast/gate/rule/greens/state"), "OFF");
    assert!(kept.iter().any(|message| message.topic == "maskcast/gate/snapshot" && is_jpeg(message)));
    assert!(!kept.iter().any(|message| message.topic.ends_with("/events") || message.topic.ends_with("/shares")));
    let entities: Vec<Value> =
        kept.iter().filter(|message| message.topic.ends_with("/config")).map(Message::json).collect();
    let mut names: Vec<&str> = entities.iter().map(|entity| entity["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let script_zone = "gate \"><script>/+# green";
    let shares = ["gate Loading bay red", script_zone];
    let mut expected = vec!["gate all-red", "gate greens", "gate snapshot", "gate state"];
    expected.extend(shares);
    expected.sort_unstable();
    assert_eq!(names, expected);
    let green = entities.iter().find(|entity| entity["name"] == script_zone).unwrap();
    assert_eq!(green["state_topic"], "maskcast/gate/zone/%22%3E%3Cscript%3E%2F%2B%23/shares");
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_-/".contains(c));
    let topics = kept.iter().map(|message| message.topic.as_str()).filter(|topic| topic.ends_with("/config"));
    assert!(topics.clone().all(is_plain), "{:?}", topics.collect::<Vec<_>>());
    assert!(is_plain(green["unique_id"].as_str().unwrap()), "{green}");

    // The rules are replaced: the topics and entities of those that are gone are cleared.
    let url = format!("{}api/v1/streams/gate", service.page);
    let rule = json!({"rule": [{"name": "reds", "classes": ["red"], "share": 0.9, "for": "0s"}]});
    let (status, _, body) = send("PATCH", &url, Some(&rule.to_string()));
    assert_eq!(status, 200, "{body}");
    until("the entities of the old rules are cleared", || {
        let kept = retained(broker.port, "#", &[]);
        let configs = kept.iter().filter(|message| message.topic.ends_with("/config"));
        let mut names: Vec<String> =
            configs.map(|message| message.json()["name"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        let has_old = kept.iter().any(|message| message.topic.contains("all-red"));
        let is_on = |message: &Message| message.topic == "maskcast/gate/rule/reds/state" && message.text() == "ON";
        (kept.iter().any(is_on) && !has_old && names == ["gate red", "gate reds", "gate snapshot", "gate state"])
            .then_some(())
    });

    let ends = |message: &Message| message.topic == "maskcast/gate/events" && message.json()["phase"] == "end";
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    all.find("the event of the removed rule ends", |message| ends(message).then_some(()));
    all.until("maskcast/status", "offline");
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[test]
fn the_will_says_that_a_killed_service_is_offline() {
    for version in [3, 5] {
        let folder = folder();
        let broker = Broker::start(folder.path(), "");
        let service =
            Service::start(folder.path(), &config(&broker, &format!("version = {version}\ndiscovery = \"off\"")));
        let status = Subscriber::to(broker.port, "maskcast/status", &[]);
        status.until("maskcast/status", "online");
        service.program.child.signal("KILL");
        let offline = status.until("maskcast/status", "offline");
        assert_eq!(offline.qos, 1);
        let kept = retained(broker.port, "#", &[]);
        assert_eq!(text_of(&kept, "maskcast/status"), "offline");
        assert!(!kept.iter().any(|message| message.topic.starts_with("homeassistant/")), "discovery is off");
    }
}

/// The messages of a log that begin with these words.
fn lines_of(log: &str, words: &str) -> Vec<String> {
    let message = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["message"].as_str()?.to_owned());
    log.lines().filter_map(message).filter(|message| message.starts_with(words)).collect()
}

#[test]
fn a_wrong_password_is_one_line_of_the_log_and_the_right_one_connects() {
    let folder = folder();
    let passwords = folder.path().join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-c", "-b"])
        .arg(&passwords)
        .args(["cameras", "hunter2"])
        .status()
        .expect("mosquitto_passwd is installed: run `make setup-test`");
    assert!(made.success());
    let broker = Broker::start(folder.path(), &format!("password_file {}", passwords.display()));
    std::fs::write(folder.path().join("password"), "hunter3\n").unwrap();
    let login = "user = \"cameras\"\npassword_file = \"password\"";
    for version in [3, 5] {
        std::fs::write(folder.path().join("password"), "hunter3\n").unwrap();
        let text = config(&broker, &format!("{login}\nversion = {version}"));
        let mut service = Service::start(folder.path(), &text);
        let failed = service.program.wait_for("the wrong password", |entry| {
            entry["message"].as_str().filter(|text| text.starts_with("MQTT not connected")).map(str::to_owned)
        });
        assert!(failed.contains("refuses user and password; check mqtt.user and mqtt.password_file"), "{failed}");
        assert!(!failed.contains("hunter"), "{failed}");
        // A second attempt has failed as well. The broker's log shows it.
        let refused =
            || std::fs::read_to_string(folder.path().join("broker/log")).unwrap().matches("not authorised").count();
        let before = refused();
        until("it was tried again", || (refused() > before).then_some(()));
        std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
        service.program.child.signal("HUP");
        service.program.wait_for("the connection", |entry| {
            entry["message"].as_str().filter(|text| text.starts_with("MQTT connected: mqtt://127.0.0.1:")).map(drop)
        });
        let (code, _, log) = service.terminate();
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(lines_of(&log, "MQTT not connected").len(), 1, "{log}");
    }
}

/// A certificate authority, and a certificate of it for 127.0.0.1.
fn write_certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    // A certificate with the name of its issuer would be self-signed.
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let server = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("ca.pem", certificate.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn with_tls_the_certificate_of_the_broker_is_checked() {
    let folder = folder();
    write_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("cafile {}\ncertfile {}\nkeyfile {}", path("ca.pem"), path("server.pem"), path("server.key"));
    let broker = Broker::start(folder.path(), &tls);
    for version in [3, 5] {
        let text = |ca: &str| {
            let config = config(&broker, &format!("version = {version}\nprefix = \"site/a\"\n{ca}"));
            config.replace("mqtt://", "mqtts://")
        };
        // The authorities of the system did not sign it.
        let mut service = Service::start(folder.path(), &text(""));
        let failed = service.program.wait_for("the unknown authority", |entry| {
            entry["message"].as_str().filter(|text| text.starts_with("MQTT not connected")).map(str::to_owned)
        });
        assert!(failed.contains("TLS: ") && failed.contains("check mqtt.ca"), "{failed}");
        drop(service);
        let service = Service::start(folder.path(), &text("ca = \"ca.pem\""));
        let ca = path("ca.pem");
        let all = Subscriber::to(broker.port, "site/a/#", &["--cafile", &ca]);
        all.until("site/a/status", "online");
        assert_eq!(all.on("site/a/gate/shares").json()["shares"], json!({"red": 1.0}));
        let (code, _, log) = service.terminate();
        assert_eq!(code, Some(0), "{log}");
        all.until("site/a/status", "offline");
    }
}
