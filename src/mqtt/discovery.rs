//! Home Assistant's MQTT discovery: a retained description of each entity.
//!
//! Each entity has a description of its own (`PREFIX/COMPONENT/OBJECT/config`), which all versions of Home Assistant read; the
//! descriptions name the same device. An empty description removes an entity.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::topics::{Topics, identifier};
use crate::base::status::StreamState;
use crate::config::{Condition, MqttConfig};
use crate::events::{Area, Rule};
use crate::view::StreamView;

/// The description of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    pub topic: String,
    pub description: Json,
}

/// What the descriptions of all entities of a service have in common.
struct Descriptions<'a> {
    config: &'a MqttConfig,
    topics: &'a Topics,
    discovery: &'a str,
}

/// The entities of all streams; empty if discovery is off.
pub fn entities(config: &MqttConfig, topics: &Topics, streams: &[Arc<StreamView>]) -> Vec<Entity> {
    let Some(discovery) = config.discovery_prefix() else { return Vec::new() };
    let descriptions = Descriptions { config, topics, discovery };
    streams.iter().flat_map(|stream| descriptions.of_stream(stream)).collect()
}

impl Descriptions<'_> {
    fn of_stream(&self, view: &StreamView) -> Vec<Entity> {
        let stream = view.config.name.as_str();
        let mut entities = vec![self.state(stream)];
        if self.config.snapshots {
            entities.push(self.camera(stream));
        }
        let recorded = view.config.record.iter().flat_map(|record| record.events.iter().map(Rule::from));
        let rules: Vec<Rule> = view.config.rules.iter().map(Rule::from).chain(recorded).collect();
        entities.extend(rules.iter().map(|rule| self.rule(stream, rule)));
        entities.extend(self.sensors(view, &rules).iter().map(|(zone, class)| self.share(stream, *zone, class)));
        entities
    }

    /// The zones (`None` for the frame) and classes that have a sensor.
    fn sensors<'s>(&'s self, view: &'s StreamView, rules: &'s [Rule]) -> BTreeSet<(Option<&'s str>, &'s str)> {
        if let Some(classes) = &self.config.discovery_classes {
            let zones = view.config.zones.iter().map(|zone| Some(zone.name.as_str()));
            let areas = std::iter::once(None).chain(zones);
            return areas.flat_map(|zone| classes.iter().map(move |class| (zone, class.as_str()))).collect();
        }
        let of_rule = |rule: &'s Rule| {
            let zone = match &rule.area {
                Area::Frame => Some(None),
                Area::Zone(name) => Some(Some(&**name)),
                // It has no name, and its shares are not sent.
                Area::Polygon(_) => None,
            };
            zone.into_iter().flat_map(|zone| rule.classes.iter().map(move |class| (zone, class.as_str())))
        };
        rules.iter().flat_map(of_rule).collect()
    }

    fn state(&self, stream: &str) -> Entity {
        let options: Vec<&str> = StreamState::ALL.iter().map(|state| state.name()).collect();
        self.entity(
            &["sensor", stream, "state"],
            format!("{stream} state"),
            json!({
                "state_topic": self.topics.state(stream),
                "device_class": "enum",
                "options": options,
                "entity_category": "diagnostic",
                "availability": [self.connected()],
            }),
        )
    }

    fn camera(&self, stream: &str) -> Entity {
        let shows = json!({
            "topic": self.topics.state(stream),
            "value_template": "{{ 'online' if value in ['live', 'stale'] else 'offline' }}",
        });
        self.entity(
            &["camera", stream, "snapshot"],
            format!("{stream} snapshot"),
            json!({
                "topic": self.topics.snapshot(stream),
                "availability": [self.connected(), shows],
                "availability_mode": "all",
            }),
        )
    }

    fn share(&self, stream: &str, zone: Option<&str>, class: &str) -> Entity {
        let topic = zone.map_or_else(|| self.topics.shares(stream), |zone| self.topics.zone_shares(stream, zone));
        let name = zone.map_or_else(|| format!("{stream} {class}"), |zone| format!("{stream} {zone} {class}"));
        let live = json!({
            "topic": self.topics.state(stream),
            "value_template": "{{ 'online' if value == 'live' else 'offline' }}",
        });
        let share = format!("value_json.shares.get({}, 0)", template_string(class));
        // A zone may be named like a class: their number of names differs.
        let names: Vec<&str> = ["sensor", stream, "share"].into_iter().chain(zone).chain([class]).collect();
        self.entity(
            &names,
            name,
            json!({
                "state_topic": topic,
                "value_template": format!("{{{{ ({share} * 100) | round(2) }}}}"),
                "unit_of_measurement": "%",
                "state_class": "measurement",
                "suggested_display_precision": 1,
                "availability": [self.connected(), live],
                "availability_mode": "all",
            }),
        )
    }

    /// A rule whose events last is a binary sensor; `entered` and `left` are events.
    fn rule(&self, stream: &str, rule: &Rule) -> Entity {
        let name = format!("{stream} {}", rule.name);
        if !rule.condition.lasts() {
            let kind = if rule.condition == Condition::Entered { "entered" } else { "left" };
            // The name of a rule contains no quotes.
            let is_this = format!("value_json.rule == {} and value_json.phase == 'start'", template_string(&rule.name));
            let event = format!(
                "{{{{ {{'event_type': '{kind}', 'id': value_json.id, 'share': value_json.share, \
                 'start': value_json.start}} | to_json }}}}"
            );
            return self.entity(
                &["event", stream, "rule", &rule.name],
                name,
                json!({
                    "state_topic": self.topics.events(stream),
                    "value_template": format!("{{% if {is_this} %}}{event}{{% endif %}}"),
                    "event_types": [kind],
                    "qos": 1,
                    "availability": [self.connected()],
                }),
            );
        }
        let device_class = match rule.condition {
            Condition::Below | Condition::Absent => "problem",
            _ => "occupancy",
        };
        self.entity(
            &["binary_sensor", stream, "rule", &rule.name],
            name,
            json!({
                "state_topic": self.topics.rule_state(stream, &rule.name),
                // `None` is what Home Assistant calls an unknown state.
                "value_template": "{{ 'None' if value == 'unknown' else value }}",
                "device_class": device_class,
                "availability": [self.connected()],
            }),
        )
    }

    fn connected(&self) -> Json {
        json!({"topic": self.topics.status()})
    }

    /// `names` begin with the component and identify the entity.
    fn entity(&self, names: &[&str], name: String, description: Json) -> Entity {
        let prefix = self.config.prefix.as_str();
        let (component, rest) = names.split_first().unwrap_or((&"sensor", &[]));
        let mut all = vec![prefix];
        all.extend(rest);
        let object = identifier(&all);
        let version = env!("CARGO_PKG_VERSION");
        let device_name = if prefix == "maskcast" { "Maskcast" } else { prefix };
        let mut whole = json!({
            "name": name,
            "unique_id": format!("{component}_{object}"),
            "device": {
                "identifiers": [identifier(&["maskcast", prefix])],
                "name": device_name,
                "manufacturer": "Maskcast",
                "model": "Maskcast",
                "sw_version": version,
            },
            "origin": {"name": "Maskcast", "sw_version": version},
        });
        if let (Json::Object(whole), Json::Object(own)) = (&mut whole, description) {
            whole.extend(own);
        }
        Entity { topic: format!("{}/{component}/{object}/config", self.discovery), description: whole }
    }
}

/// A text as a string of Home Assistant's templates (Jinja), whatever it contains.
fn template_string(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_') {
            quoted.push(c);
        } else {
            quoted.push_str(&format!("\\U{:08x}", u32::from(c)));
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Broker, EventConfig, RecordConfig, RuleConfig, SourceSpec, ZoneConfig, defaults_stream};
    use crate::events::EventHub;
    use crate::publish::outputs::StreamOutputs;

    fn config() -> MqttConfig {
        MqttConfig::of(Broker { host: "broker".into(), port: 1883, is_tls: false })
    }

    fn view() -> Arc<StreamView> {
        let source = SourceSpec::parse("test://", std::path::Path::new("/")).unwrap();
        let mut stream = defaults_stream("gate", source);
        let polygon = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]];
        stream.zones = ["Loading bay", "\"><script>"]
            .map(|name| ZoneConfig { name: name.into(), polygon: polygon.clone() })
            .into();
        stream.rules = vec![
            RuleConfig { zone: Some("Loading bay".into()), ..RuleConfig::of("blocked", &["car", "it's {{ 1 }}"]) },
            RuleConfig { when: Condition::Absent, ..RuleConfig::of("gone", &["person"]) },
            RuleConfig { when: Condition::Entered, ..RuleConfig::of("entry", &["person"]) },
        ];
        stream.record = Some(RecordConfig {
            events: vec![EventConfig { zone: polygon, ..EventConfig::of("visit", &["dog"]) }],
            ..RecordConfig::to("/srv")
        });
        Arc::new(StreamView::new(&stream, StreamOutputs::default(), &Arc::new(EventHub::default())))
    }

    fn named<'a>(entities: &'a [Entity], name: &str) -> &'a Json {
        let found = entities.iter().map(|entity| &entity.description).find(|known| known["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {entities:#?}"))
    }

    #[test]
    fn each_rule_and_its_shares_are_entities_of_one_device() {
        let found = entities(&config(), &Topics::new("maskcast"), &[view()]);
        let mut names: Vec<&str> = found.iter().filter_map(|known| known.description["name"].as_str()).collect();
        names.sort_unstable();
        let shares = ["gate Loading bay car", "gate Loading bay it's {{ 1 }}", "gate person"];
        let mut expected = vec!["gate blocked", "gate entry", "gate gone", "gate snapshot", "gate state", "gate visit"];
        expected.extend(shares);
        expected.sort_unstable();
        assert_eq!(names, expected);
        let topics: BTreeSet<&str> = found.iter().map(|known| known.topic.as_str()).collect();
        let ids: BTreeSet<&str> = found.iter().filter_map(|known| known.description["unique_id"].as_str()).collect();
        let devices: BTreeSet<String> = found.iter().map(|known| known.description["device"].to_string()).collect();
        assert_eq!((topics.len(), ids.len(), devices.len()), (names.len(), names.len(), 1));
        let blocked = named(&found, "gate blocked");
        assert_eq!(blocked["state_topic"], "maskcast/gate/rule/blocked/state");
        assert_eq!(
            (&blocked["device_class"], &named(&found, "gate gone")["device_class"]),
            (&json!("occupancy"), &json!("problem"))
        );
        assert_eq!(named(&found, "gate entry")["event_types"], json!(["entered"]));
        let car = named(&found, "gate Loading bay car");
        assert_eq!(car["state_topic"], "maskcast/gate/zone/Loading%20bay/shares");
        assert_eq!(car["value_template"], "{{ (value_json.shares.get('car', 0) * 100) | round(2) }}");
    }

    #[test]
    fn listed_classes_have_a_sensor_in_each_zone() {
        let config = MqttConfig { discovery_classes: Some(vec!["car".into()]), snapshots: false, ..config() };
        let found = entities(&config, &Topics::new("maskcast"), &[view()]);
        let shares = found.iter().filter(|known| known.description["unit_of_measurement"] == "%");
        let mut names: Vec<&str> = shares.filter_map(|known| known.description["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["gate \"><script> car", "gate Loading bay car", "gate car"]);
        assert!(!found.iter().any(|known| known.topic.contains("/camera/")));
        let off = MqttConfig { discovery: "off".into(), ..config };
        assert!(entities(&off, &Topics::new("maskcast"), &[view()]).is_empty());
    }

    #[test]
    fn class_names_cannot_end_a_template() {
        assert_eq!(template_string("traffic light"), "'traffic light'");
        assert_eq!(template_string("'}}"), "'\\U00000027\\U0000007d\\U0000007d'");
    }
}
