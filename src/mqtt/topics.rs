//! The topics under the prefix of the service, and how names become levels of a topic.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// Everything but letters, digits, `-`, `_` and `.` is written `%XX`, so that a name is one level of a topic whatever it
/// contains (`/`, `+`, `#`), and different names are different levels.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The topics of a service.
#[derive(Clone, Debug)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// All topics begin with this prefix.
    pub fn new(prefix: &str) -> Self {
        Topics { prefix: prefix.to_owned() }
    }

    /// `online` or `offline`: whether the service is connected. Retained.
    pub fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// Messages about the events of a stream. `PREFIX/+/events` is the filter for all streams.
    pub fn events(&self, stream: &str) -> String {
        self.of(stream, "events")
    }

    /// The state of a stream. Retained.
    pub fn state(&self, stream: &str) -> String {
        self.of(stream, "state")
    }

    /// The shares of the classes in the frames of a stream.
    pub fn shares(&self, stream: &str) -> String {
        self.of(stream, "shares")
    }

    /// The shares of the classes in a zone.
    pub fn zone_shares(&self, stream: &str, zone: &str) -> String {
        self.of(stream, &format!("zone/{}/shares", level(zone)))
    }

    /// The state of a rule: `ON`, `OFF` or `unknown`. Retained.
    pub fn rule_state(&self, stream: &str, rule: &str) -> String {
        self.of(stream, &format!("rule/{}/state", level(rule)))
    }

    /// The newest image of a stream, a JPEG. Retained.
    pub fn snapshot(&self, stream: &str) -> String {
        self.of(stream, "snapshot")
    }

    fn of(&self, stream: &str, rest: &str) -> String {
        format!("{}/{}/{rest}", self.prefix, level(stream))
    }
}

/// A name as one level of a topic.
pub fn level(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

/// An identifier of letters, digits and `_` for these names, which differs for different names: the names as far as they can
/// be written, and eight hexadecimal digits of a SHA-256.
pub fn identifier(names: &[&str]) -> String {
    let mut text = String::new();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name);
        hash.update([0]);
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        for word in words {
            text.push_str(&word.to_ascii_lowercase());
            text.push('_');
        }
    }
    for byte in &hash.finalize()[..4] {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_level_and_can_be_read_back() {
        let names = ["Loading bay", "\"><script>", "+", "#", "a/b", "a%2Fb", "Süd", "..", "$SYS", "%"];
        let levels: std::collections::BTreeSet<String> = names.iter().map(|name| level(name)).collect();
        assert_eq!(levels.len(), names.len());
        for name in names {
            let level = level(name);
            assert!(!level.contains(['/', '+', '#', '$', ' ', '"']), "{level}");
            assert_eq!(percent_encoding::percent_decode_str(&level).decode_utf8().unwrap(), name);
        }
        assert_eq!(Topics::new("site/a").zone_shares("gate", "a/b"), "site/a/gate/zone/a%2Fb/shares");
    }

    #[test]
    fn identifiers_differ_where_the_names_do() {
        assert!(identifier(&["maskcast", "gate", "Loading bay"]).starts_with("maskcast_gate_loading_bay_"));
        assert_ne!(identifier(&["a", "b_c"]), identifier(&["a_b", "c"]));
        assert_ne!(identifier(&["Süd"]), identifier(&["Sud"]));
        assert!(identifier(&["\"><script>", "+"]).chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    }
}
