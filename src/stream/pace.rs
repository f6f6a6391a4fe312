//! What a stream does under load.

use crate::base::queue::WhenFull;

/// What a stream does when a stage has no time for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The frame is dropped, and accounted for: pictures are shown now or not at all.
    Live,
    /// The stages before it wait: no frame is lost. Failures are handled as in a live stream.
    Patient,
    /// The stages before it wait: no frame is lost. Any failure ends the stream.
    File,
}

impl Pace {
    pub(super) fn when_full(self) -> WhenFull {
        match self {
            Pace::Live => WhenFull::DropOldest,
            Pace::Patient | Pace::File => WhenFull::Block,
        }
    }
}
