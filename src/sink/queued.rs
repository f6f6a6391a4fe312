//! The hand-over to a sink that may wait: a bounded queue, and a thread that feeds the sink from it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::mask::{MaskSink, SinkError, StreamMask};
use crate::base::log_dedup;
use crate::base::panic::panic_text;
use crate::base::queue::{Sender, WhenFull, queue};
use crate::base::sink_status::SinkStatus;

/// Masks that wait for the sink.
const WAITING: usize = 16;

/// After a failure, masks are dropped for this long before the sink is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the end of the sink is waited for when the stream ends.
const CLOSE_LIMIT: Duration = Duration::from_millis(1500);

/// A sink on a thread of its own. With [`WhenFull::DropOldest`], a sink that is slow, fails or hangs loses masks, which are
/// counted, and never delays the stream. With [`WhenFull::Block`], the stream waits for it.
pub struct QueuedSink {
    /// `None` once it is closed.
    queue: Option<Sender<StreamMask>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    status: Arc<SinkStatus>,
    /// The least time between two masks, by their capture.
    every: Option<Duration>,
    /// When the frame of the last mask that was queued was captured.
    last: Option<Instant>,
    stream: Arc<str>,
}

impl QueuedSink {
    /// Starts the thread of `sink`. At most one mask in `every` goes to it.
    ///
    /// # Errors
    /// [`SinkError::Thread`] when the system has no thread for it.
    pub fn start(
        sink: Box<dyn MaskSink>,
        stream: &Arc<str>,
        status: Arc<SinkStatus>,
        every: Option<Duration>,
        when_full: WhenFull,
    ) -> Result<Self, SinkError> {
        let (queue, masks) = queue(WAITING, when_full);
        let (alive, ended) = crossbeam_channel::bounded(0);
        let feeder = Feeder { sink, stream: Arc::clone(stream), status: Arc::clone(&status), failed_until: None };
        std::thread::Builder::new()
            .name(format!("sink-{stream}"))
            .spawn(move || {
                let _alive = alive;
                feeder.run(&masks);
            })
            .map_err(|source| SinkError::Thread { sink: status.label.clone(), source })?;
        Ok(QueuedSink { queue: Some(queue), ended, status, every, last: None, stream: Arc::clone(stream) })
    }
}

impl MaskSink for QueuedSink {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        let at = mask.mask.captured_at;
        let is_too_soon = |(last, every): (Instant, Duration)| at.saturating_duration_since(last) < every;
        if self.last.zip(self.every).is_some_and(is_too_soon) {
            return Ok(());
        }
        self.last = Some(at);
        // The thread receives until this end is dropped, whatever the sink does, so sending cannot fail.
        match self.queue.as_ref().map(|queue| queue.send(mask.clone())) {
            Some(Ok(None)) => {}
            _ => self.status.count_dropped(1),
        }
        self.status.set_waiting(self.queue.as_ref().map_or(0, Sender::waiting));
        Ok(())
    }
}

impl Drop for QueuedSink {
    /// The masks that wait are still given to the sink, for a limited time.
    fn drop(&mut self) {
        self.queue = None;
        // Nothing is ever sent: the channel is closed with the thread.
        if self.ended.recv_timeout(CLOSE_LIMIT) == Err(RecvTimeoutError::Timeout) {
            let SinkStatus { kind, label, .. } = &*self.status;
            let text = format!("sink did not close in time and is abandoned: {kind} {label}");
            log_dedup::warn(&self.stream, "sink", &text);
        }
    }
}

/// The thread's end of a [`QueuedSink`].
struct Feeder {
    sink: Box<dyn MaskSink>,
    stream: Arc<str>,
    status: Arc<SinkStatus>,
    /// After a failure: masks before this time are dropped.
    failed_until: Option<Instant>,
}

impl Feeder {
    fn run(mut self, masks: &Receiver<StreamMask>) {
        for mask in masks {
            self.status.set_waiting(masks.len());
            self.feed(&mask);
        }
        // Closing a file may take time as well, and may panic.
        let Feeder { sink, status, stream, .. } = self;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(sink))) {
            let SinkStatus { kind, label, .. } = &*status;
            let text = format!("sink panicked while it was closed: {kind} {label}: {}", panic_text(&*panic));
            log_dedup::error(&stream, "sink", None, &text);
        }
    }

    fn feed(&mut self, mask: &StreamMask) {
        if self.failed_until.is_some_and(|until| Instant::now() < until) {
            self.status.count_dropped(1);
            return;
        }
        let pushed = catch_unwind(AssertUnwindSafe(|| self.sink.push(mask)));
        let pushed = pushed.unwrap_or_else(|panic| Err(SinkError::Panicked(panic_text(&*panic).to_owned())));
        let SinkStatus { kind, label, .. } = &*self.status;
        match pushed {
            Ok(()) => {
                if self.failed_until.take().is_some() {
                    tracing::info!(stream = &*self.stream, stage = "sink", "sink works again: {kind} {label}");
                }
                self.status.count_written();
            }
            Err(error) => {
                let retry = RETRY.as_secs();
                let text = format!("sink failed, masks are dropped, next try in {retry} s: {kind} {label}: {error}");
                log_dedup::error(&self.stream, "sink", Some(mask.mask.seq), &text);
                self.status.fail(error.to_string());
                self.failed_until = Some(Instant::now() + RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, unbounded};

    use super::*;
    use crate::frame::{Mask, PixelFormat, VideoInfo};

    /// Guards against hanging.
    const DEADLINE: Duration = Duration::from_secs(180);

    fn mask(seq: u64, captured_at: Instant) -> StreamMask {
        let (pts, classes, labels) = (Duration::from_millis(40 * seq), vec![0], [].into());
        let mask = Mask {
            seq,
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
        };
        StreamMask::new(&"gate".into(), Arc::new(mask), VideoInfo::new(PixelFormat::I420, 2, 2), Default::default())
    }

    fn start(
        every: Option<Duration>,
        when_full: WhenFull,
        sink: impl FnMut(&StreamMask) -> Result<(), SinkError> + Send + 'static,
    ) -> (QueuedSink, Arc<SinkStatus>) {
        let status = Arc::new(SinkStatus::new("test", "x".into()));
        let sink = QueuedSink::start(Box::new(sink), &"gate".into(), Arc::clone(&status), every, when_full);
        (sink.unwrap(), status)
    }

    #[test]
    fn a_sink_that_hangs_blocks_nothing_and_its_losses_are_counted() {
        let (entered, in_sink) = unbounded();
        let (open, gate) = bounded::<()>(0);
        let (mut sink, status) = start(None, WhenFull::DropOldest, move |mask| {
            entered.send(mask.mask.seq).unwrap();
            // Returns when the gate is opened.
            let _ = gate.recv();
            Ok(())
        });
        sink.push(&mask(0, Instant::now())).unwrap();
        assert_eq!(in_sink.recv_timeout(DEADLINE), Ok(0));
        for seq in 1..=WAITING as u64 + 5 {
            sink.push(&mask(seq, Instant::now())).unwrap();
        }
        assert_eq!((status.written(), status.dropped()), (0, 5));
        drop(open);
        drop(sink);
        assert_eq!(in_sink.iter().collect::<Vec<_>>(), (6..=WAITING as u64 + 5).collect::<Vec<_>>(), "the newest");
        assert_eq!((status.written(), status.dropped(), status.failures()), (1 + WAITING as u64, 5, 0));
    }

    #[test]
    fn a_file_job_waits_for_its_sink_and_loses_nothing() {
        let (mut sink, status) = start(None, WhenFull::Block, |_| {
            std::thread::yield_now();
            Ok(())
        });
        for seq in 0..500 {
            sink.push(&mask(seq, Instant::now())).unwrap();
        }
        drop(sink);
        assert_eq!((status.written(), status.dropped()), (500, 0));
    }

    #[test]
    fn a_sink_that_panics_or_fails_is_tried_again_after_a_pause() {
        let (pushed, seen) = unbounded();
        let (mut sink, status) = start(None, WhenFull::Block, move |mask| {
            pushed.send(mask.mask.seq).unwrap();
            match mask.mask.seq {
                0 => panic!("no such class"),
                _ => Ok(()),
            }
        });
        sink.push(&mask(0, Instant::now())).unwrap();
        assert_eq!(seen.recv_timeout(DEADLINE), Ok(0));
        let start = Instant::now();
        let mut seq = 0;
        while seen.is_empty() {
            seq += 1;
            sink.push(&mask(seq, Instant::now())).unwrap();
            assert!(start.elapsed() < DEADLINE, "never tried again");
            std::thread::yield_now();
        }
        assert!(start.elapsed() > RETRY / 2, "not at once");
        drop(sink);
        assert_eq!((status.failures(), status.problem()), (1, None), "it works again");
        assert_eq!(status.written() + status.dropped(), seq + 1, "every mask is accounted for");
        assert!(status.written() > 0 && status.dropped() > 0);
    }

    #[test]
    fn masks_are_thinned_by_their_capture() {
        let (pushed, seen) = unbounded();
        let (mut sink, status) = start(Some(Duration::from_secs(1)), WhenFull::Block, move |mask| {
            pushed.send(mask.mask.seq).unwrap();
            Ok(())
        });
        let start = Instant::now();
        for seq in 0..100 {
            sink.push(&mask(seq, start + Duration::from_millis(40 * seq))).unwrap();
        }
        drop(sink);
        assert_eq!(seen.iter().collect::<Vec<_>>(), [0, 25, 50, 75]);
        assert_eq!(status.dropped(), 0, "masks that are not wanted are not dropped");
    }
}
