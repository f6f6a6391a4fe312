//! Zones: named parts of the frame, and the share of each class in them.
//!
//! A [`ZoneMeter`] counts the pixels of each class in the whole frame and in all zones of a stream, for every mask. It first
//! converts the mask to runs of equal pixels ([`MaskRuns`]), which all zones share: a zone costs time for the runs that it
//! meets, not for its pixels. The counts are exact. They belong to the mask and go to all its sinks
//! ([`StreamMask::counts`](crate::sink::StreamMask)). Of a stream with a crop, only pixels that the model saw are counted.

use std::sync::Arc;

use parking_lot::Mutex;

mod counts;
mod meter;
mod pixels;
mod runs;

pub use counts::{ClassCounts, MaskCounts};
pub use meter::ZoneMeter;
pub use pixels::{ZonePixels, find_crossings};
pub use runs::MaskRuns;

/// A part of the frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Unique in the stream. `None`: a polygon that only one rule uses.
    pub name: Option<Arc<str>>,
    /// Corners, as fractions of the width and height of the frame.
    pub polygon: Vec<[f64; 2]>,
}

/// The zones of a stream. They are replaced as a whole, so that a pointer identifies them.
pub type Zones = Arc<[Arc<Zone>]>;

/// The zones of a running stream, which may be changed between two masks.
#[derive(Debug)]
pub struct ZoneState(Mutex<Zones>);

impl Default for ZoneState {
    fn default() -> Self {
        ZoneState(Mutex::new([].into()))
    }
}

impl ZoneState {
    /// The zones as they are now; the same pointer for as long as they are the same.
    pub fn get(&self) -> Zones {
        Arc::clone(&self.0.lock())
    }

    /// Measures in these zones from the next mask on.
    pub fn set(&self, zones: Zones) {
        *self.0.lock() = zones;
    }
}
