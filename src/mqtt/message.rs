//! The message about the shares of a frame or a zone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::sink::{StreamMask, labels_version};
use crate::zones::ClassCounts;

/// The shares of the classes in one mask: of the whole frame, or of a zone.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SharesMessage<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// Name of the zone; absent for the whole frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<&'a str>,
    /// Number of the frame in the stream.
    pub seq: u64,
    /// When the frame was captured, by the clock of this machine; RFC 3339, UTC.
    pub captured: String,
    /// Time from the capture of the frame until its mask was ready, in milliseconds.
    pub age_ms: f64,
    /// Version of the labels: it differs for models with other classes.
    pub labels: &'a str,
    /// For each class that occurs, its share of the pixels, 0 to 1.
    pub shares: BTreeMap<String, f64>,
}

impl<'a> SharesMessage<'a> {
    /// The messages about a mask: of the frame, and of each zone that has a name. `labels` is `labels_of` the mask.
    pub fn all(mask: &'a StreamMask, labels: &'a str) -> impl Iterator<Item = SharesMessage<'a>> {
        let counts = &mask.counts;
        let zones = counts.named().map(|(name, zone)| (Some(&**name), zone));
        let of = move |(zone, counts): (Option<&'a str>, &'a ClassCounts)| SharesMessage {
            stream: &mask.stream,
            zone,
            seq: mask.mask.seq,
            captured: format!("{:.3}", mask.captured),
            age_ms: (mask.age.as_secs_f64() * 1e6).round() / 1e3,
            labels,
            shares: counts.shares_by_name(&mask.mask.labels),
        };
        std::iter::once((None, &counts.frame)).chain(zones).map(of)
    }
}

/// The version of the labels of a mask.
pub fn labels_of(mask: &StreamMask) -> String {
    labels_version(&mask.mask.labels)
}

/// Whether a share of a class differs from the one before by `deadband` or more.
pub fn differ(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>, deadband: f64) -> bool {
    let share = |shares: &BTreeMap<String, f64>, class: &String| shares.get(class).copied().unwrap_or(0.0);
    before.keys().chain(now.keys()).any(|class| {
        let difference = (share(before, class) - share(now, class)).abs();
        // 0.3 - 0.1 is less than 0.2.
        difference > 0.0 && difference >= deadband - 1e-9
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_comes_or_goes_is_a_difference() {
        let shares = |list: &[(&str, f64)]| list.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
        let (empty, little, much) = (shares(&[]), shares(&[("car", 0.1)]), shares(&[("car", 0.3), ("sky", 0.05)]));
        assert!(!differ(&little, &little, 0.0) && differ(&little, &much, 0.2) && !differ(&little, &much, 0.25));
        assert!(differ(&empty, &little, 0.1) && differ(&much, &empty, 0.3) && !differ(&empty, &little, 0.2));
    }
}
