//! What a stream does under load.

use crate::base::queue::WhenFull;

/// What a stream does when a stage has no time for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The frame is dropped and counted: a frame is shown at once or not at all.
    Live,
    /// The stages before it wait, so no frame is lost. Failures are handled as in a live stream.
    Blocking,
    /// The stages before it wait, so no frame is lost. Any failure ends the stream.
    File,
}

impl Pace {
    /// What the queues of the stream do when they are full.
    pub fn when_full(self) -> WhenFull {
        match self {
            Pace::Live => WhenFull::DropOldest,
            Pace::Blocking | Pace::File => WhenFull::Block,
        }
    }
}
