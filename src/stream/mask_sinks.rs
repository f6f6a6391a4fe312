//! All mask sinks of one stream, fed on the thread of the overlay stage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::base::panic::panic_text;
use crate::base::status::Status;
use crate::frame::{Mask, VideoInfo};
use crate::sink::{MaskSink, SinkError, StreamMask};
use crate::zones::{ZoneMeter, ZoneState};

/// The sinks of a stream. One that panics affects neither the others nor the stream.
pub struct MaskSinks {
    sinks: Vec<Box<dyn MaskSink>>,
    status: Arc<Status>,
    zones: Arc<ZoneState>,
    meter: ZoneMeter,
}

impl MaskSinks {
    /// Masks go to `sinks` in this order, with their counts in `zones`; panics are counted in `status`.
    pub(super) fn new(sinks: Vec<Box<dyn MaskSink>>, zones: Arc<ZoneState>, status: Arc<Status>) -> Self {
        let meter = ZoneMeter::new(zones.get());
        MaskSinks { sinks, status, zones, meter }
    }

    /// Gives a mask to every sink. `video` is the shape of the stream's video now.
    ///
    /// # Errors
    /// The first failure; the other sinks have the mask nevertheless.
    pub(super) fn push(&mut self, mask: &Arc<Mask>, video: VideoInfo) -> Result<(), SinkError> {
        self.meter.set_zones(&self.zones.get());
        let counts = self.meter.measure(mask);
        let mask = StreamMask::new(&self.status.name, Arc::clone(mask), video, counts);
        self.each(|sink| sink.push(&mask))
    }

    /// Whether a sink uses masks, or the stream has zones, whose shares the API and the metrics show.
    pub(super) fn need_masks(&self) -> bool {
        !self.zones.get().is_empty() || self.sinks.iter().any(|sink| sink.needs_masks())
    }

    /// The source is offline, or the model does not run for the stream: the masks that were pushed are out of date.
    ///
    /// # Errors
    /// The panic of a sink.
    pub(super) fn clear(&mut self) -> Result<(), SinkError> {
        self.each(|sink| {
            sink.clear();
            Ok(())
        })
    }

    fn each(&mut self, mut call: impl FnMut(&mut dyn MaskSink) -> Result<(), SinkError>) -> Result<(), SinkError> {
        let mut outcome = Ok(());
        for sink in &mut self.sinks {
            let called = catch_unwind(AssertUnwindSafe(|| call(&mut **sink))).unwrap_or_else(|panic| {
                self.status.count_panic();
                Err(SinkError::Panicked(panic_text(&*panic).to_owned()))
            });
            outcome = outcome.and(called);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::PixelFormat;

    #[test]
    fn a_sink_that_panics_or_fails_does_not_affect_other_sinks() {
        let (status, count) = (Arc::new(Status::quiet("gate")), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&count);
        let sinks: Vec<Box<dyn MaskSink>> = vec![
            Box::new(|_: &StreamMask| -> Result<(), SinkError> { panic!("index out of bounds") }),
            Box::new(|_: &StreamMask| Err(SinkError::Other("no room".into()))),
            Box::new(move |mask: &StreamMask| {
                assert_eq!((&*mask.stream, mask.mask.seq, mask.video.width), ("gate", 7, 640));
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }),
        ];
        let mut sinks = MaskSinks::new(sinks, Arc::default(), Arc::clone(&status));
        let (pts, captured_at) = (Duration::ZERO, Instant::now());
        let (classes, labels) = (vec![0], [].into());
        let mask = Arc::new(Mask {
            seq: 7,
            pts,
            captured_at,
            width: 1,
            height: 1,
            classes,
            labels,
            model: "m".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        });
        for n in 1..=3 {
            let error = sinks.push(&mask, VideoInfo::new(PixelFormat::I420, 640, 360)).unwrap_err();
            assert!(matches!(&error, SinkError::Panicked(text) if text == "index out of bounds"), "{error:?}");
            assert_eq!((count.load(Ordering::Relaxed), status.panics()), (n, n as u64));
        }
        sinks.clear().unwrap();
    }
}
