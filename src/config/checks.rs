//! The named checks of values that are more than a word, a number or a list: `#[schemars(extend("x-check" = "address"))]`.

use std::time::Duration;

use serde_json::Value as Json;

use super::schema::{Object, text};
use super::value::Value;
use super::{
    credentials, crop, devices, duration, encode, mask_rate, mqtt, overlay, path, push, record, server, sink_key,
    source, stream, tiles, webhook, webrtc, zone,
};

/// Reads a value. Returns the form that serde reads, or `None` after reporting an error.
pub(super) type Check = fn(&Value, &Object) -> Option<Json>;

const CHECKS: &[(&str, Check)] = &[
    ("api-source", |value, _| server::read_api_source(value)),
    ("bitrate", |value, _| encode::read_bitrate(value)),
    ("broker-url", |value, _| mqtt::read_broker(value)),
    ("client-id", |value, _| mqtt::read_client_id(value)),
    ("color", |value, _| overlay::read_color(value)),
    ("crop", |value, _| crop::read_crop(value)),
    ("destination", |value, _| sink_key::read_destination(value)),
    ("devices", |value, _| devices::read_devices(value)),
    ("duration", read_duration),
    ("event-name", |value, _| record::read_event_name(value)),
    ("existing-file", |value, _| value.existing_file().map(|path| path::to_json(&path))),
    ("fingerprint", |value, _| source::read_fingerprint(value)),
    ("folder", |value, _| value.folder().map(|path| path::to_json(&path))),
    ("host-address", |value, _| webrtc::read_host_address(value)),
    ("host-name", |value, _| server::read_host_name(value)),
    ("legend", |value, _| overlay::read_legend(value)),
    ("mask-rate", |value, _| mask_rate::read_mask_rate(value)),
    ("network", |value, _| server::read_network(value)),
    ("output-file", |value, _| value.file_to_write().map(|path| path::to_json(&path))),
    ("password-file", |value, _| credentials::read_password_file(value)),
    ("password-variable", |value, _| credentials::read_password_variable(value)),
    ("push-url", |value, _| push::read_url(value)),
    ("size", read_size),
    ("socket-address", |value, _| server::read_socket_address(value)),
    ("source", |value, _| stream::read_source(value)),
    ("stream-name", |value, _| stream::read_name(value)),
    ("stun", |value, _| webrtc::read_stun(value)),
    ("tiles", |value, _| tiles::read_tiles(value)),
    ("topic", |value, _| mqtt::read_topic(value)),
    ("turn", |value, _| webrtc::read_turn(value)),
    ("udp-ports", |value, _| webrtc::read_udp_ports(value)),
    ("user", |value, _| credentials::read_user(value)),
    ("users-file", |value, _| server::read_users_file(value)),
    ("webhook-url", |value, _| webhook::read_url(value)),
    ("zone", |value, _| zone::read_polygon(value)),
    ("zone-name", |value, _| zone::read_zone_name(value)),
];

/// The check of this name. A name that does not exist accepts no value; a test looks up all names in the schema.
pub(super) fn find(name: &str) -> Check {
    let unknown: Check = |value, _| value.fail("cannot be read: its check is not defined", None);
    CHECKS.iter().find(|(known, _)| *known == name).map_or(unknown, |(_, check)| *check)
}

fn read_duration(value: &Value, schema: &Object) -> Option<Json> {
    let limit = |attribute: &str| text(schema, attribute).and_then(duration::parse);
    let range = limit("x-least").unwrap_or_default()..=limit("x-most").unwrap_or(Duration::MAX);
    value.duration(range).map(|read| duration::show(read).into())
}

/// Range of sizes in bytes.
fn read_size(value: &Value, _: &Object) -> Option<Json> {
    value.size(100_000..=1 << 60).map(Json::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::schema;

    #[test]
    fn every_check_of_the_schema_is_defined_and_used() {
        let text = Json::Object(schema().clone()).to_string();
        let named: std::collections::BTreeSet<&str> = ["\"x-check\":\"", "\"x-check-items\":\""]
            .iter()
            .flat_map(|start| text.split(start).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(named, CHECKS.iter().map(|(name, _)| *name).collect());
    }
}
