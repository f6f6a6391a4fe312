//! Distributes the sessions of a model over several GPUs.

use std::sync::Arc;

use parking_lot::Mutex;

use super::segmenter::OnnxSegmenter;
use super::{SegmentError, Segmented, Segmenter};
use crate::config::Devices;
use crate::frame::Frame;

/// The GPUs of a model, and how many sessions run on each. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct DeviceSlots(Arc<Mutex<Vec<(i32, usize)>>>);

impl DeviceSlots {
    pub(super) fn new(devices: &Devices) -> Self {
        DeviceSlots(Arc::new(Mutex::new(devices.numbers().iter().map(|device| (*device, 0)).collect())))
    }

    /// A place on the GPU with the fewest sessions, the first of these. A worker that has lost its session, and with it its place,
    /// gets that place again.
    pub(super) fn take(&self) -> DeviceSlot {
        let mut devices = self.0.lock();
        let fewest = devices.iter_mut().min_by_key(|(_, sessions)| *sessions);
        let device = fewest.map_or(0, |(device, sessions)| {
            *sessions += 1;
            *device
        });
        DeviceSlot { device, slots: self.clone() }
    }
}

/// The place of a session on a GPU, until it is dropped.
#[derive(Debug)]
pub(super) struct DeviceSlot {
    pub device: i32,
    slots: DeviceSlots,
}

impl Drop for DeviceSlot {
    fn drop(&mut self) {
        let mut devices = self.slots.0.lock();
        if let Some((_, sessions)) = devices.iter_mut().find(|(device, _)| *device == self.device) {
            *sessions = sessions.saturating_sub(1);
        }
    }
}

/// A segmenter and its place on a GPU.
pub struct PlacedSegmenter {
    pub(super) segmenter: OnnxSegmenter,
    /// Free again when the session has ended.
    pub(super) _slot: DeviceSlot,
}

impl Segmenter for PlacedSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        self.segmenter.segment(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(list: &str) -> Devices {
        serde_json::from_str(list).unwrap()
    }

    #[test]
    fn workers_are_distributed_evenly_in_the_order_of_the_list() {
        let slots = DeviceSlots::new(&devices("[2, 0]"));
        let taken: Vec<DeviceSlot> = (0..5).map(|_| slots.take()).collect();
        let numbers: Vec<i32> = taken.iter().map(|slot| slot.device).collect();
        assert_eq!(numbers, [2, 0, 2, 0, 2]);
        let one = DeviceSlots::new(&devices("3"));
        assert_eq!([one.take().device, one.take().device], [3, 3]);
    }

    #[test]
    fn a_worker_with_a_new_session_stays_on_its_gpu() {
        let slots = DeviceSlots::new(&devices("[0, 1, 2]"));
        let mut taken: Vec<DeviceSlot> = (0..6).map(|_| slots.take()).collect();
        // The worker drops the session that has failed before it opens another.
        drop(taken.remove(4));
        let again = slots.take();
        assert_eq!(again.device, 1);
        // All workers of the model before have ended.
        drop((taken, again));
        let numbers: Vec<i32> = (0..3).map(|_| slots.take().device).collect();
        assert_eq!(numbers, [0, 0, 0], "each place is free again at once");
    }
}
