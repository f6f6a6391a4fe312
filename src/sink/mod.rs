//! Outputs for masks: every mask of a stream, with the identity of its frame, goes to all mask sinks of the stream.
//!
//! A [`MaskSink`] gets [`StreamMask`]s on the thread of the overlay stage. Event detection, the newest mask for `mask.png` and
//! the masks that `maskcast segment` counts and writes are sinks that return at once, and run there. A sink that may wait (for a
//! disk, for a network) is wrapped in a [`QueuedSink`], which has a thread and a bounded queue of its own.
//!
//! Sinks of `[[stream.sink]]` are listed in [`MASK_SINKS`]. Each is one file, which has its [`MaskSinkKind`]: the name of the
//! type, the keys of its table with their documentation, and the function that opens it. The reader of the configuration, the
//! service, the API and the metrics work on that list, so that a new sink changes none of them.

mod feed;
mod jsonl;
mod kind;
mod mask;
mod message;
mod pixels;
mod queued;
mod udp;

pub use feed::{FeedSink, MaskFeed};
pub use kind::{COMMON_KEYS, KeyKind, KeyValue, MaskSinkKind, SinkKey, SinkSettings};
pub use mask::{MaskSink, SinkError, StreamMask};
pub use message::{LiveMaskMessage, MaskMessage, labels_version};
pub use pixels::{MaskPixels, PixelsFormat, mask_png};
pub use queued::QueuedSink;

/// The types of `[[stream.sink]]`.
pub static MASK_SINKS: &[&MaskSinkKind] = &[&jsonl::KIND, &udp::KIND];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sink_and_each_of_its_keys_is_documented() {
        let page = include_str!("../../docs/outputs.md");
        for kind in MASK_SINKS {
            assert!(page.contains(&format!("type = \"{}\"", kind.name)), "docs/outputs.md: {}", kind.name);
            for key in kind.keys.iter().chain(kind::COMMON_KEYS) {
                assert!(page.contains(&format!("`{}`", key.name)), "docs/outputs.md: {} {}", kind.name, key.name);
                assert!(key.about.ends_with('.'), "{} {}", kind.name, key.name);
            }
            assert!(kind.about.ends_with('.'), "{}", kind.name);
        }
    }

    /// The schema of the configuration has each name once, with the check of one kind.
    #[test]
    fn keys_of_the_same_name_have_the_same_kind_of_value() {
        let mut kinds: std::collections::BTreeMap<&str, KeyKind> = std::collections::BTreeMap::new();
        for key in MASK_SINKS.iter().flat_map(|kind| kind.keys).chain(COMMON_KEYS) {
            assert_eq!(*kinds.entry(key.name).or_insert(key.kind), key.kind, "{}", key.name);
        }
    }
}
