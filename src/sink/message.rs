//! A mask as a JSON object: a line of the sink `jsonl`, a datagram of the sink `udp`, a message of the API and of MQTT.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::mask::StreamMask;
use super::pixels::MaskPixels;
use crate::frame::Label;

/// The shares of the classes in one mask of a stream.
#[derive(Serialize, JsonSchema)]
pub struct MaskMessage<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// Number of the frame in the stream, from 0; it continues when the source is opened again.
    pub seq: u64,
    /// When the frame was captured, by the clock of this machine; RFC 3339, UTC.
    pub captured: String,
    /// Timestamp of the frame in the source, in seconds.
    pub source_time_s: f64,
    /// Time from the capture of the frame until its mask was ready, in milliseconds.
    pub age_ms: f64,
    /// True if the model did not run for the frame, because nothing had moved since its last run, whose mask this is; absent
    /// otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// Name of the model.
    pub model: &'a str,
    /// Version of the labels: it differs for models with other classes.
    pub labels: String,
    /// Width of the mask in pixels.
    pub width: usize,
    /// Height of the mask in pixels.
    pub height: usize,
    /// For each class in the mask, its share of the pixels, 0 to 1. A class without a label has its index as its name.
    pub shares: BTreeMap<String, f64>,
    /// For each zone of the stream, the share of each class in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<&'a str, BTreeMap<String, f64>>,
}

impl<'a> MaskMessage<'a> {
    /// The message about a mask.
    pub fn of(mask: &'a StreamMask) -> Self {
        let StreamMask { stream, mask, captured, age, counts, .. } = mask;
        let zones = counts.named().map(|(name, zone)| (&**name, zone.shares_by_name(&mask.labels)));
        MaskMessage {
            stream,
            seq: mask.seq,
            captured: format!("{captured:.3}"),
            source_time_s: mask.pts.as_secs_f64(),
            age_ms: (age.as_secs_f64() * 1e6).round() / 1e3,
            confirmed: mask.confirmed,
            model: &mask.model,
            labels: labels_version(&mask.labels),
            width: mask.width,
            height: mask.height,
            shares: counts.frame.shares_by_name(&mask.labels),
            zones: zones.collect(),
        }
    }
}

/// The message about a mask to an API client.
#[derive(Serialize, JsonSchema)]
pub struct LiveMaskMessage<'a> {
    #[serde(flatten)]
    pub mask_message: MaskMessage<'a>,
    /// The pixels of the mask; absent unless the client has requested them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskPixels>,
    /// Number of masks that this client lost since the previous message, because it received too slowly; absent if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// Identifies the names of the classes and their order: eight hexadecimal digits of a SHA-256.
pub fn labels_version(labels: &[Label]) -> String {
    let mut hash = Sha256::new();
    for label in labels {
        hash.update(&label.name);
        hash.update([0]);
    }
    hash.finalize()[..4].iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
