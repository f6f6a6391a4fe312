//! Redaction that the configuration file has weakened, as page and API show it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long page and API show such a change.
pub const SHOWN_FOR: SignedDuration = SignedDuration::from_hours(24);

/// A change of the configuration after which pixels of a stream may be visible that were hidden before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeakenedRedaction {
    pub at: Timestamp,
    pub stream: String,
    /// What is weaker, as a sentence.
    pub change: String,
}

impl WeakenedRedaction {
    /// Whether page and API still show it.
    pub fn is_shown(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < SHOWN_FOR
    }
}
