//! `[mqtt]`.

use super::*;

fn mqtt(text: &str) -> Result<MqttConfig, ConfigErrors> {
    let dir = folder();
    let text = format!("[model]\npath = \"m.onnx\"\n[mqtt]\n{text}\n[[stream]]\nname = \"a\"\nsource = \"test://\"");
    read(dir.path(), &text).map(|config| config.mqtt.expect("[mqtt] is there"))
}

fn broker(url: &str) -> Result<Broker, ConfigErrors> {
    mqtt(&format!("url = \"{url}\"")).map(|config| config.broker)
}

#[test]
fn a_broker_has_a_host_and_the_port_of_its_scheme() {
    let label = |url: &str| broker(url).unwrap().label();
    assert_eq!(label("mqtt://broker.lan"), "mqtt://broker.lan:1883");
    assert_eq!(label("mqtts://broker.lan/"), "mqtts://broker.lan:8883");
    assert_eq!(label("mqtt://[::1]:1884"), "mqtt://[::1]:1884");
    assert_eq!(broker("mqtt://[::1]:1884").unwrap().host, "::1");
    for (url, problem) in [
        ("broker.lan", "is not a URL"),
        ("http://broker.lan", "unknown scheme \"http\""),
        ("mqtt://broker.lan/topic", "has a path or a query"),
        ("mqtt://", "has no host"),
    ] {
        let error = only(broker(url));
        assert!(error.starts_with("mqtt.url: ") && error.contains(problem), "{url}: {error}");
    }
    assert!(only(mqtt("prefix = \"a\"")).starts_with("mqtt.url: is missing"));
}

#[test]
fn defaults_and_the_keys_that_depend_on_others() {
    let minimal = mqtt("url = \"mqtt://broker.lan\"").unwrap();
    assert_eq!(minimal, MqttConfig::of(Broker { host: "broker.lan".into(), port: 1883, is_tls: false }));
    assert_eq!((minimal.version, minimal.discovery_prefix()), (3, Some("homeassistant")));
    assert_eq!(mqtt("url = \"mqtt://b\"\ndiscovery = \"off\"").unwrap().discovery_prefix(), None);
    let login = mqtt("url = \"mqtt://cameras:se%2Fcret@b\"").unwrap().credentials.unwrap();
    assert_eq!((login.user.as_str(), login.password.expose()), ("cameras", "se/cret"));
    for (text, problem) in [
        ("version = 4", "mqtt.version: there is no version 4"),
        ("password_file = \"pw\"", "mqtt.password_file: there is no user for this password"),
        ("ca = \"ca.pem\"", "mqtt.ca: has no meaning without TLS"),
        ("prefix = \"a/#\"", "mqtt.prefix: contains +, # or a control character"),
        ("prefix = \"/a\"", "mqtt.prefix: has an empty level"),
        ("discovery = \"\"", "mqtt.discovery: "),
        ("client_id = \"\"", "mqtt.client_id: "),
        ("every = \"10ms\"", "mqtt.every: "),
        ("queue_size = 0", "mqtt.queue_size: "),
    ] {
        let error = only(mqtt(&format!("url = \"mqtt://b\"\n{text}")));
        assert!(error.starts_with(problem), "{text}: {error}");
    }
    let error = only(mqtt("url = \"mqtts://b\"\nca = \"pw\""));
    assert!(error.starts_with("mqtt.ca: contains no certificate"), "{error}");
}

#[test]
fn the_queue_is_in_the_first_state_folder() {
    let dir = folder();
    let text = "[model]\npath = \"m.onnx\"\n[mqtt]\nurl = \"mqtt://b\"\n[[stream]]\nname = \"a\"\nsource = \"test://\"";
    let env = |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/maskcast:/var/lib/other".into());
    let config = parse_with(text, &dir.path().join("maskcast.toml"), &env).unwrap();
    assert_eq!(config.mqtt.unwrap().queue_dir, Some("/var/lib/maskcast".into()));
}
