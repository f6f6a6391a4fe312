//! A mask as a JSON object: a line of the sink `jsonl`, a datagram of the sink `udp`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::mask::StreamMask;
use crate::frame::Mask;

/// The JSON object of a mask.
#[derive(Serialize)]
pub(super) struct MaskJson<'a> {
    stream: &'a str,
    seq: u64,
    /// RFC 3339, UTC.
    captured: String,
    source_time_s: f64,
    /// From the capture of the frame to its mask.
    age_ms: f64,
    model: &'a str,
    /// Of the mask, in pixels.
    width: usize,
    height: usize,
    /// Of the pixels of the mask, by class; classes that do not occur are left out.
    shares: BTreeMap<String, f64>,
}

impl<'a> MaskJson<'a> {
    pub(super) fn of(mask: &'a StreamMask) -> Self {
        let StreamMask { stream, mask, captured, age, .. } = mask;
        MaskJson {
            stream,
            seq: mask.seq,
            captured: format!("{captured:.3}"),
            source_time_s: mask.pts.as_secs_f64(),
            age_ms: (age.as_secs_f64() * 1e6).round() / 1e3,
            model: &mask.model,
            width: mask.width,
            height: mask.height,
            shares: shares(mask),
        }
    }
}

/// The share of the pixels of each class that occurs. Classes that have the same name count together; one without a label is
/// named by its index.
fn shares(mask: &Mask) -> BTreeMap<String, f64> {
    let mut counts = [0_u64; 256];
    for &class in &mask.classes {
        counts[usize::from(class)] += 1;
    }
    let mut by_name = BTreeMap::<String, u64>::new();
    for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let name = mask.labels.get(class).map_or_else(|| class.to_string(), |label| label.name.clone());
        *by_name.entry(name).or_default() += count;
    }
    let pixels = mask.classes.len() as f64;
    by_name.into_iter().map(|(name, count)| (name, count as f64 / pixels)).collect()
}
