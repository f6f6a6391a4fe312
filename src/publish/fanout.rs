//! One encoded stream for any number of sinks. Each has a queue of its own, and a slow one loses only its own frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use gst::prelude::*;

use super::frame_sink::{FrameSink, FrameSinkResult};
use super::runs::OutputRun;

/// The fan-out of one stream. Outlives its encoders.
#[derive(Default)]
pub struct Fanout {
    sinks: Mutex<Vec<SinkEntry>>,
    /// Their number, which can be read while a frame is delivered.
    count: AtomicUsize,
    /// The viewers by their kind: each has a clone of the [`Arc`].
    viewers: Mutex<BTreeMap<&'static str, Arc<()>>>,
    /// The next id of a sink.
    next: AtomicU64,
    encoder: Mutex<EncoderLink>,
    /// Access units that sinks have dropped.
    lost: Arc<AtomicU64>,
}

/// A viewer that is counted by its kind until this is dropped. RTSP viewers share one sink, so sinks are not counted.
pub(super) struct CountedViewer(#[expect(dead_code, reason = "only its references are counted")] Arc<()>);

/// Identifies a sink of a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSinkId(u64);

struct SinkEntry {
    sink: Box<dyn FrameSink>,
    id: FrameSinkId,
    owner: SinkOwner,
}

/// Who a sink belongs to.
enum SinkOwner {
    /// A run of the output, which it ends with, as a recording does. Viewers stay when a stream is restarted.
    OutputRun(OutputRun),
    Viewer,
}

impl SinkOwner {
    fn is_revoked(&self) -> bool {
        matches!(self, SinkOwner::OutputRun(run) if run.is_revoked())
    }
}

/// The encoder that feeds the fan-out.
#[derive(Default)]
struct EncoderLink {
    /// Keyframes are requested through its sink; `None` while nothing is encoded.
    sink: Option<gst_app::AppSink>,
    /// The run of the output that it belongs to.
    run: Option<OutputRun>,
    /// When a keyframe was last requested.
    requested_at: Option<Instant>,
    /// Another one was requested since, too soon: it is requested with a later frame.
    is_pending: bool,
}

/// The least time between two keyframe requests: fifty viewers that connect at once share a few keyframes, and none of them
/// waits longer than this.
const KEYFRAME_PAUSE: Duration = Duration::from_millis(250);

impl Fanout {
    /// Adds a viewer. It starts with a keyframe, which is requested at once.
    pub fn add(&self, sink: Box<dyn FrameSink>) -> FrameSinkId {
        self.add_sink(sink, SinkOwner::Viewer)
    }

    /// Counts one more viewer of this kind (the name of a [`FrameSinkKind`](super::frame_sink_kind::FrameSinkKind)).
    pub(super) fn count_viewer(&self, kind: &'static str) -> CountedViewer {
        CountedViewer(Arc::clone(self.viewers.lock().entry(kind).or_default()))
    }

    /// The number of viewers of a kind that are counted now.
    pub(super) fn viewers(&self, kind: &str) -> usize {
        self.viewers.lock().get(kind).map_or(0, |counted| Arc::strong_count(counted) - 1)
    }

    /// Removes a sink now, and not with the next frame, which may never come.
    pub(super) fn remove(&self, id: FrameSinkId) {
        let mut sinks = self.sinks.lock();
        let gone = sinks.iter().position(|listed| listed.id == id).map(|at| sinks.remove(at));
        self.recount(&sinks);
        drop(sinks);
        drop(gone);
    }

    /// Adds a sink that ends with [`Fanout::end_run`]. A sink of a run that is revoked is dropped at once.
    pub(super) fn add_for_run(&self, run: &OutputRun, sink: Box<dyn FrameSink>) {
        self.add_sink(sink, SinkOwner::OutputRun(run.clone()));
    }

    /// Runs were revoked: their sinks, a recording among them, get no frames of the next run. They are closed on a thread of
    /// their own, because that may hang as well. Returns when no frame of a revoked run is being delivered.
    pub(super) fn close_revoked(&self) {
        let gone = self.take_where(SinkOwner::is_revoked);
        let mut encoder = self.encoder.lock();
        if encoder.run.as_ref().is_some_and(OutputRun::is_revoked) {
            *encoder = EncoderLink::default();
        }
        drop(encoder);
        if gone.is_empty() {
            return;
        }
        if let Err(error) = std::thread::Builder::new().name("abandoned".into()).spawn(move || drop(gone)) {
            // They were closed on this thread.
            tracing::debug!("no thread to close the sinks of an output that hangs: {error}");
        }
    }

    fn add_sink(&self, sink: Box<dyn FrameSink>, owner: SinkOwner) -> FrameSinkId {
        let id = FrameSinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut sinks = self.sinks.lock();
        // Under the lock, which `close_revoked` takes after the run was revoked.
        if owner.is_revoked() {
            return id;
        }
        sinks.push(SinkEntry { sink, id, owner });
        self.recount(&sinks);
        drop(sinks);
        self.request_keyframe();
        id
    }

    fn recount(&self, sinks: &[SinkEntry]) {
        self.count.store(sinks.len(), Ordering::Release);
    }

    pub fn sinks(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Access units that slow sinks have dropped so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn lost_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// The sink of the encoder of a run, through which keyframes are requested.
    pub(super) fn set_encoder(&self, run: &OutputRun, sink: gst_app::AppSink) {
        let mut encoder = self.encoder.lock();
        if !run.is_revoked() {
            // Sinks that were added before get their keyframe anyway: a new encoder starts with one.
            *encoder = EncoderLink { sink: Some(sink), run: Some(run.clone()), ..EncoderLink::default() };
        }
    }

    /// The encoder with this sink has ended; it may have been replaced already.
    pub(super) fn forget_encoder(&self, sink: &gst_app::AppSink) {
        let mut encoder = self.encoder.lock();
        if encoder.sink.as_ref() == Some(sink) {
            *encoder = EncoderLink::default();
        }
    }

    /// Delivers an access unit of a run to all sinks, unless the run is revoked.
    pub(super) fn deliver(&self, run: &OutputRun, sample: &gst::Sample) {
        let keyframe = sample.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        let mut wants_keyframe = false;
        let mut sinks = self.sinks.lock();
        // Under the lock, which `close_revoked` takes after the run was revoked.
        if run.is_revoked() {
            return;
        }
        sinks.retain_mut(|listed| match listed.sink.push(sample, keyframe) {
            FrameSinkResult::Taken => true,
            FrameSinkResult::WantsKeyframe => {
                wants_keyframe = true;
                true
            }
            FrameSinkResult::Ended => false,
        });
        self.recount(&sinks);
        drop(sinks);
        if wants_keyframe || self.encoder.lock().is_pending {
            self.request_keyframe();
        }
    }

    /// The run has ended: drops its sinks, in the order in which they were added.
    pub(super) fn end_run(&self, run: &OutputRun) {
        self.remove_where(|owner| matches!(owner, SinkOwner::OutputRun(of) if of == run));
    }

    /// Drops all viewers, which see the end of the stream. Sinks of a run stay until it ends: closing a stream must not wait
    /// for the disk of a recording.
    pub fn remove_viewers(&self) {
        self.remove_where(|owner| !matches!(owner, SinkOwner::OutputRun(_)));
    }

    fn remove_where(&self, is_removed: impl Fn(&SinkOwner) -> bool) {
        // Outside the lock: closing a file takes a moment.
        drop(self.take_where(is_removed));
    }

    /// Takes sinks out of the fan-out by their owner, without dropping them.
    fn take_where(&self, is_taken: impl Fn(&SinkOwner) -> bool) -> Vec<SinkEntry> {
        let mut sinks = self.sinks.lock();
        let (taken, left): (Vec<_>, Vec<_>) = sinks.drain(..).partition(|listed| is_taken(&listed.owner));
        *sinks = left;
        self.recount(&sinks);
        taken
    }

    /// Requests a keyframe of the encoder, at once or after [`KEYFRAME_PAUSE`].
    pub(super) fn request_keyframe(&self) {
        let mut encoder = self.encoder.lock();
        let is_too_soon = encoder.requested_at.is_some_and(|at| at.elapsed() < KEYFRAME_PAUSE);
        encoder.is_pending = encoder.sink.is_some() && is_too_soon;
        if encoder.is_pending {
            return;
        }
        let Some(sink) = encoder.sink.clone() else { return };
        encoder.requested_at = Some(Instant::now());
        drop(encoder);
        // By the pad, not by the element: `send_event` takes the state lock of the element, which a thread that stops this
        // encoder holds while it waits for the delivery of a frame to return.
        if let Some(pad) = sink.static_pad("sink") {
            pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }
}

/// A sink that feeds an `appsrc` of another pipeline.
pub struct AppSrcSink {
    source: gst_app::AppSrc,
    /// Access units that may wait in the appsrc.
    capacity: u64,
    needs_keyframe: bool,
    /// Whether that keyframe was requested.
    has_requested: bool,
    /// Added to the times of the encoder: the time line of the sink.
    shift: Option<i64>,
    /// The time of the newest frame in it.
    last: Option<i64>,
    /// Whether times start at the current running time of the sink (live) or at zero (files).
    live: bool,
    lost: Arc<AtomicU64>,
}

impl AppSrcSink {
    /// `live`: the appsrc plays against a clock, so the first frame is due now.
    pub fn new(source: gst_app::AppSrc, capacity: u64, live: bool, lost: Arc<AtomicU64>) -> Self {
        AppSrcSink { source, capacity, needs_keyframe: true, has_requested: false, shift: None, last: None, live, lost }
    }

    pub fn source(&self) -> &gst_app::AppSrc {
        &self.source
    }
}

impl Drop for AppSrcSink {
    fn drop(&mut self) {
        // The pipeline sees the end of the stream; one that was stopped already ignores it.
        let _ = self.source.end_of_stream();
    }
}

impl FrameSink for AppSrcSink {
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> FrameSinkResult {
        let Some(buffer) = sample.buffer_owned() else { return FrameSinkResult::Taken };
        if self.source.current_level_buffers() >= self.capacity {
            // No keyframe is requested until there is room again: a viewer that stalls must not make the encoder spend the
            // bits of the others.
            (self.needs_keyframe, self.has_requested) = (true, false);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return FrameSinkResult::Taken;
        }
        if self.needs_keyframe && !keyframe {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return if std::mem::replace(&mut self.has_requested, true) {
                FrameSinkResult::Taken
            } else {
                FrameSinkResult::WantsKeyframe
            };
        }
        self.needs_keyframe = false;
        let pts = buffer.pts().map_or(0, gst::ClockTime::nseconds) as i64;
        let now = self.source.current_running_time().filter(|_| self.live).map(|now| now.nseconds() as i64);
        let shift = self.shift.get_or_insert(now.unwrap_or(0) - pts);
        // A frame that has come is due. A frame that came late, as the first one does while its encoder starts, must not
        // delay all that follow by as much.
        *shift = now.map_or(*shift, |now| (*shift).min(now - pts));
        let at = (pts + *shift).max(self.last.map_or(0, |last| last + 1));
        self.last = Some(at);
        let mut buffer = buffer;
        // Shares the memory; only the times are the copy's own.
        let copy = buffer.make_mut();
        let at = gst::ClockTime::from_nseconds(at as u64);
        copy.set_pts(at);
        copy.set_dts(at);
        let caps = sample.caps_owned();
        let mut shifted = gst::Sample::builder().buffer(&buffer);
        if let Some(caps) = &caps {
            shifted = shifted.caps(caps);
        }
        match self.source.push_sample(&shifted.build()) {
            Ok(_) => FrameSinkResult::Taken,
            Err(_) => FrameSinkResult::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::publish::runs::OutputRuns;

    /// Its end shows in the count of references.
    struct CountingSink(#[allow(dead_code)] Arc<()>);

    impl FrameSink for CountingSink {
        fn push(&mut self, _: &gst::Sample, _: bool) -> FrameSinkResult {
            FrameSinkResult::Taken
        }
    }

    #[test]
    fn a_run_that_ends_late_ends_only_its_own_sinks() {
        let fanout = Fanout::default();
        let [first, second, viewer] = [(); 3].map(|()| Arc::new(()));
        // Of two streams, because one has one run at a time that is not revoked.
        let (old, new) = (OutputRuns::default().begin(), OutputRuns::default().begin());
        fanout.add_for_run(&old, Box::new(CountingSink(Arc::clone(&first))));
        fanout.add_for_run(&new, Box::new(CountingSink(Arc::clone(&second))));
        fanout.add(Box::new(CountingSink(Arc::clone(&viewer))));
        let here = || [&first, &second, &viewer].map(|share| Arc::strong_count(share) == 2);
        fanout.end_run(&old);
        assert_eq!(here(), [false, true, true]);
        fanout.remove_viewers();
        assert_eq!((here(), fanout.sinks()), ([false, true, false], 1), "a recording ends with its run");
        fanout.end_run(&new);
        assert_eq!((here(), fanout.sinks()), ([false; 3], 0));
    }

    /// Counts the frames that it gets.
    struct FrameCounter(Arc<AtomicUsize>);

    impl FrameSink for FrameCounter {
        fn push(&mut self, _: &gst::Sample, _: bool) -> FrameSinkResult {
            self.0.fetch_add(1, Ordering::Relaxed);
            FrameSinkResult::Taken
        }
    }

    #[test]
    fn a_run_that_hangs_gets_no_frames_of_the_next_one_and_delivers_none() {
        crate::gst::init().unwrap();
        let (fanout, runs) = (Fanout::default(), OutputRuns::default());
        let [recording, viewer, late, next] = [(); 4].map(|()| Arc::new(AtomicUsize::new(0)));
        let counted = || [&recording, &viewer, &late, &next].map(|count| count.load(Ordering::Relaxed));
        let counter = |count: &Arc<AtomicUsize>| Box::new(FrameCounter(Arc::clone(count)));
        let encoder = || gst_app::AppSink::builder().build();
        let sample = gst::Sample::builder().buffer(&gst::Buffer::new()).build();
        let hung = runs.begin();
        fanout.add_for_run(&hung, counter(&recording));
        fanout.add(counter(&viewer));
        fanout.set_encoder(&hung, encoder());
        fanout.deliver(&hung, &sample);
        assert_eq!(counted(), [1, 1, 0, 0]);
        runs.revoke();
        fanout.close_revoked();
        assert_eq!((fanout.sinks(), fanout.encoder.lock().sink.is_none()), (1, true), "the viewer stays");
        fanout.deliver(&hung, &sample);
        assert_eq!(counted(), [1, 1, 0, 0]);
        let (run, of_run) = (runs.begin(), encoder());
        fanout.add_for_run(&run, counter(&next));
        fanout.set_encoder(&run, of_run.clone());
        // As a push that reconnects, and as an encoder that is started.
        fanout.add_for_run(&hung, counter(&late));
        fanout.set_encoder(&hung, encoder());
        assert_eq!((fanout.sinks(), &fanout.encoder.lock().sink), (2, &Some(of_run)));
        fanout.deliver(&hung, &sample);
        fanout.deliver(&run, &sample);
        assert_eq!(counted(), [1, 2, 0, 1]);
    }

    /// The first frame comes half a second late, the others in time.
    #[test]
    fn no_frame_waits_because_the_first_was_late() {
        crate::gst::init().unwrap();
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).is_live(true).build();
        let appsink = gst_app::AppSink::builder().sync(false).build();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref::<gst::Element>(), appsink.upcast_ref()]).unwrap();
        source.link(&appsink).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut sink = AppSrcSink::new(source.clone(), 100, true, Arc::default());
        let mut times = Vec::new();
        for n in [0, 500, 501, 502] {
            let mut buffer = gst::Buffer::new();
            buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(n));
            assert_eq!(sink.push(&gst::Sample::builder().buffer(&buffer).build(), true), FrameSinkResult::Taken);
            let at = appsink.pull_sample().unwrap().buffer().unwrap().pts().unwrap();
            assert!(at <= source.current_running_time().unwrap() + gst::ClockTime::from_mseconds(1), "{n}: {at}");
            times.push(at);
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    }

    #[test]
    fn an_encoder_that_ends_late_does_not_remove_its_successor() {
        crate::gst::init().unwrap();
        let (fanout, run) = (Fanout::default(), OutputRuns::default().begin());
        let (old, new) = (gst_app::AppSink::builder().build(), gst_app::AppSink::builder().build());
        fanout.set_encoder(&run, old.clone());
        fanout.set_encoder(&run, new.clone());
        fanout.forget_encoder(&old);
        assert_eq!(fanout.encoder.lock().sink.as_ref(), Some(&new));
        fanout.forget_encoder(&new);
        assert_eq!(fanout.encoder.lock().sink, None);
    }
}
