//! The frames that are collected for training.

use std::sync::Arc;

use super::families::Families;
use crate::base::collect_status::{CollectStatus, REASONS};
use crate::collect::stream_collection::StreamCollection;
use crate::view::StreamView;

/// The collections of all streams that have one. A scrape does not wait for the disk.
pub(super) fn collections(streams: &[Arc<StreamView>], out: &mut Families) {
    let of = |stream: &Arc<StreamView>| Some((Arc::clone(&stream.status.name), stream.collection.clone()?));
    let all: Vec<(Arc<str>, Arc<StreamCollection>)> = streams.iter().filter_map(of).collect();
    let each = |value: fn(&CollectStatus) -> u64| {
        all.iter().map(move |(name, collection)| (vec![("stream", &**name)], value(&collection.status) as f64))
    };
    let collected = all.iter().flat_map(|(name, collection)| {
        let counts = REASONS.into_iter().zip(collection.status.collected());
        counts.map(|(reason, count)| (vec![("stream", &**name), ("reason", reason)], count as f64))
    });
    out.counters("maskcast_collect_frames_total", "Frames that were collected, by reason.", collected);
    out.counters(
        "maskcast_collect_evicted_total",
        "Collected frames that were deleted because the collection had reached its maximum size.",
        each(CollectStatus::evicted),
    );
    out.counters(
        "maskcast_collect_failures_total",
        "Attempts to store a frame that failed; repeated after ten seconds.",
        each(CollectStatus::failures),
    );
    out.gauges("maskcast_collect_today", "Frames that were collected today (UTC).", each(CollectStatus::today));
    let sizes: Vec<_> = all.iter().filter_map(|(name, collection)| Some((&**name, collection.size()?))).collect();
    let states = sizes.iter().flat_map(|(name, size)| {
        [("new", size.new), ("later", size.later), ("accepted", size.accepted)]
            .map(|(state, count)| (vec![("stream", *name), ("state", state)], count as f64))
    });
    out.gauges("maskcast_collect_frames", "Frames in the collection, by what a person has decided.", states);
    let bytes = sizes.iter().map(|(name, size)| (vec![("stream", *name)], size.bytes as f64));
    out.gauges("maskcast_collect_bytes", "Size of the collection on the disk.", bytes);
}
