//! The retained messages that describe the present: states of streams and rules, and the entities of Home Assistant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::discovery::entities;
use super::topics::Topics;
use crate::config::MqttConfig;
use crate::events::RuleState;
use crate::view::StreamView;

/// The retained messages of a service, by topic.
pub type Retained = BTreeMap<String, Bytes>;

/// The states of all streams and of their rules.
pub fn states(topics: &Topics, streams: &[Arc<StreamView>]) -> Retained {
    let mut found = Retained::new();
    for view in streams {
        let name = &*view.status.name;
        found.insert(topics.state(name), Bytes::from_static(view.status.state().name().as_bytes()));
        for rule in view.events.status() {
            found.insert(topics.rule_state(name, &rule.name), Bytes::from_static(state_word(rule.state).as_bytes()));
        }
    }
    found
}

/// The descriptions of all entities.
pub fn descriptions(config: &MqttConfig, topics: &Topics, streams: &[Arc<StreamView>]) -> Retained {
    let entities = entities(config, topics, streams).into_iter();
    entities.map(|entity| (entity.topic, Bytes::from(entity.description.to_string()))).collect()
}

/// All topics that this service retains.
pub fn all_topics(
    config: &MqttConfig,
    topics: &Topics,
    streams: &[Arc<StreamView>],
    descriptions: &Retained,
) -> BTreeSet<String> {
    let snapshots = streams.iter().filter(|_| config.snapshots).map(|view| topics.snapshot(&view.status.name));
    let states = states(topics, streams).into_keys().chain([topics.status()]);
    states.chain(descriptions.keys().cloned()).chain(snapshots).collect()
}

/// The message of a rule's topic.
fn state_word(state: RuleState) -> &'static str {
    match state {
        RuleState::Active => "ON",
        RuleState::Inactive | RuleState::Pending => "OFF",
        RuleState::Unknown => "unknown",
    }
}
