//! One encoded stream, any number of packet_sinks: each has its own queue, and only its own queue drops.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;

/// Who takes encoded pictures.
pub trait PacketSink: Send {
    /// Takes one access unit with its caps. Must not block.
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> PushResult;
}

/// What a packet_sink did with a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushResult {
    /// It has it.
    Yes,
    /// It has to start, or start again, with a keyframe, and asks for one.
    WantsKeyframe,
    /// It has left.
    Gone,
}

/// The fan-out of one stream. Outlives its encoders.
#[derive(Default)]
pub struct Fanout {
    packet_sinks: Mutex<Vec<SinkEntry>>,
    /// Their number, for those who must not wait while a picture is handed out.
    count: AtomicUsize,
    /// How many of them watch by WebRTC.
    webrtc: AtomicUsize,
    /// Who plays it by RTSP: they share a packet_sink.
    rtsp: AtomicUsize,
    /// The next name of a packet_sink or an output.
    next: AtomicU64,
    /// Outputs with smaller names hang: others have taken their place.
    abandoned: AtomicU64,
    encoder: Mutex<EncoderLink>,
    /// Access units that packet_sinks have lost.
    lost: Arc<AtomicU64>,
}

/// Names a packet_sink among those of its fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSinkId(u64);

/// Names an output among those that a fan-out outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutputId(u64);

struct SinkEntry {
    packet_sink: Box<dyn PacketSink>,
    id: PacketSinkId,
    kind: SinkKind,
}

/// What a packet_sink is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SinkKind {
    /// Goes with the output that brought it, as a recording does; viewers stay when a stream starts anew.
    OfOutput(OutputId),
    Viewer,
    WebRtc,
}

/// What the fan-out knows of the encoder that feeds it.
#[derive(Default)]
struct EncoderLink {
    /// Keyframes are asked for through its sink; `None` while nothing is encoded.
    sink: Option<gst_app::AppSink>,
    /// When a keyframe was last asked for.
    asked: Option<Instant>,
    /// Somebody has asked again since, too soon.
    wanted: bool,
}

/// The least time between two keyframes that are asked for: fifty viewers who come at once share a few, and none of
/// them waits longer than this.
const KEYFRAME_PAUSE: Duration = Duration::from_millis(250);

impl Fanout {
    /// Adds a viewer; it starts with a keyframe, which is asked for at once.
    pub fn add(&self, packet_sink: Box<dyn PacketSink>) {
        self.enlist(packet_sink, SinkKind::Viewer);
    }

    /// Adds one who watches by WebRTC, counted apart.
    pub(super) fn add_webrtc(&self, packet_sink: Box<dyn PacketSink>) -> PacketSinkId {
        self.enlist(packet_sink, SinkKind::WebRtc)
    }

    /// Lets a packet_sink go now, rather than with the next picture, which may never come.
    pub(super) fn remove(&self, id: PacketSinkId) {
        let mut packet_sinks = lock(&self.packet_sinks);
        let gone = packet_sinks.iter().position(|listed| listed.id == id).map(|at| packet_sinks.remove(at));
        self.recount(&packet_sinks);
        drop(packet_sinks);
        drop(gone);
    }

    /// A name for an output that brings packet_sinks of its own. One that hangs may end when another has long taken its place,
    /// and must not take that one's recording with it.
    pub(super) fn new_output(&self) -> OutputId {
        OutputId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a packet_sink that leaves with [`Fanout::end_output`]. One of an output that was abandoned leaves at once.
    pub(super) fn add_for_output(&self, output: OutputId, packet_sink: Box<dyn PacketSink>) {
        if !self.is_abandoned(output) {
            self.enlist(packet_sink, SinkKind::OfOutput(output));
        }
    }

    /// Gives up all outputs that there are: they hang, and cannot end by themselves. What they have brought, their recording
    /// among it, takes nothing of the output that comes next. It is closed on a thread of its own, for it may hang, too.
    ///
    /// # Errors
    /// When there is no thread; then they are closed here.
    pub fn abandon_outputs(&self) -> std::io::Result<()> {
        self.abandoned.store(self.next.load(Ordering::Relaxed), Ordering::Release);
        let gone = self.take_out(|kind| matches!(kind, SinkKind::OfOutput(_)));
        std::thread::Builder::new().name("abandoned".into()).spawn(move || drop(gone)).map(drop)
    }

    /// Whether an output was given up.
    pub(super) fn is_abandoned(&self, output: OutputId) -> bool {
        output.0 < self.abandoned.load(Ordering::Acquire)
    }

    fn enlist(&self, packet_sink: Box<dyn PacketSink>, kind: SinkKind) -> PacketSinkId {
        let id = PacketSinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut packet_sinks = lock(&self.packet_sinks);
        packet_sinks.push(SinkEntry { packet_sink, id, kind });
        self.recount(&packet_sinks);
        drop(packet_sinks);
        self.request_keyframe();
        id
    }

    fn recount(&self, packet_sinks: &[SinkEntry]) {
        let webrtc = packet_sinks.iter().filter(|listed| listed.kind == SinkKind::WebRtc).count();
        self.webrtc.store(webrtc, Ordering::Release);
        self.count.store(packet_sinks.len(), Ordering::Release);
    }

    pub fn packet_sinks(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Takers that watch by WebRTC.
    pub fn webrtc(&self) -> usize {
        self.webrtc.load(Ordering::Acquire)
    }

    /// Who plays it by RTSP, however they share their packet_sink.
    pub fn rtsp(&self) -> usize {
        self.rtsp.load(Ordering::Acquire)
    }

    pub(super) fn set_rtsp(&self, players: usize) {
        self.rtsp.store(players, Ordering::Release);
    }

    /// Access units that slow packet_sinks have lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn lost_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// The encoder's sink, through which keyframes are asked for.
    pub(super) fn set_encoder(&self, sink: gst_app::AppSink) {
        // Takers who came while there was no encoder get their keyframe anyway: a new encoder starts with one.
        *lock(&self.encoder) = EncoderLink { sink: Some(sink), ..EncoderLink::default() };
    }

    /// The encoder with this sink has ended; another may have taken its place already.
    pub(super) fn forget_encoder(&self, sink: &gst_app::AppSink) {
        let mut encoder = lock(&self.encoder);
        if encoder.sink.as_ref() == Some(sink) {
            *encoder = EncoderLink::default();
        }
    }

    /// Hands an access unit to all packet_sinks.
    pub(super) fn deliver(&self, sample: &gst::Sample) {
        let keyframe = sample.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        let mut wanted = false;
        let mut packet_sinks = lock(&self.packet_sinks);
        packet_sinks.retain_mut(|listed| match listed.packet_sink.push(sample, keyframe) {
            PushResult::Yes => true,
            PushResult::WantsKeyframe => {
                wanted = true;
                true
            }
            PushResult::Gone => false,
        });
        self.recount(&packet_sinks);
        drop(packet_sinks);
        if wanted || lock(&self.encoder).wanted {
            self.request_keyframe();
        }
    }

    /// Lets those go who came with the output, in the order in which they came: it has ended.
    pub(super) fn end_output(&self, output: OutputId) {
        self.part(|kind| kind == SinkKind::OfOutput(output));
    }

    /// Lets all viewers go: there will be no more pictures, and they see the end of the stream. What an output has brought
    /// is its own affair: whoever closes the stream must not wait for a recording's disk.
    pub fn close(&self) {
        self.part(|kind| !matches!(kind, SinkKind::OfOutput(_)));
    }

    fn part(&self, goes: impl Fn(SinkKind) -> bool) {
        // Outside the lock: closing a file takes a moment.
        drop(self.take_out(goes));
    }

    fn take_out(&self, goes: impl Fn(SinkKind) -> bool) -> Vec<SinkEntry> {
        let mut packet_sinks = lock(&self.packet_sinks);
        let (gone, stay): (Vec<_>, Vec<_>) = packet_sinks.drain(..).partition(|listed| goes(listed.kind));
        *packet_sinks = stay;
        self.recount(&packet_sinks);
        gone
    }

    /// Asks the encoder for a keyframe, now or in a moment.
    pub(super) fn request_keyframe(&self) {
        let mut encoder = lock(&self.encoder);
        encoder.wanted = encoder.sink.is_some() && encoder.asked.is_some_and(|at| at.elapsed() < KEYFRAME_PAUSE);
        if encoder.wanted {
            return;
        }
        let Some(sink) = encoder.sink.clone() else { return };
        encoder.asked = Some(Instant::now());
        drop(encoder);
        // By the pad, not by the element: `send_event` takes the element's state lock, which a thread that stops this
        // encoder holds while it waits for us to return from handing out a picture.
        if let Some(pad) = sink.static_pad("sink") {
            pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }
}

/// A packet_sink that feeds an `appsrc` of another pipeline.
pub struct AppSrcSink {
    source: gst_app::AppSrc,
    /// Access units that may wait in the appsrc.
    capacity: u64,
    needs_keyframe: bool,
    /// Whether that keyframe has been asked for.
    asked: bool,
    /// Added to the encoder's times: the packet_sink's own time line.
    shift: Option<i64>,
    /// The newest picture's time in it.
    last: Option<i64>,
    /// Whether times start at the packet_sink's current running time (live) or at zero (files).
    live: bool,
    lost: Arc<AtomicU64>,
}

impl AppSrcSink {
    /// `live`: the appsrc plays against a clock, so the first picture is due now.
    pub fn new(source: gst_app::AppSrc, capacity: u64, live: bool, lost: Arc<AtomicU64>) -> Self {
        AppSrcSink { source, capacity, needs_keyframe: true, asked: false, shift: None, last: None, live, lost }
    }

    pub fn source(&self) -> &gst_app::AppSrc {
        &self.source
    }
}

impl Drop for AppSrcSink {
    fn drop(&mut self) {
        // Whoever is fed by it sees the end. A pipeline that is gone already does not mind.
        let _ = self.source.end_of_stream();
    }
}

impl PacketSink for AppSrcSink {
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> PushResult {
        let Some(buffer) = sample.buffer_owned() else { return PushResult::Yes };
        if self.source.current_level_buffers() >= self.capacity {
            // No keyframe is asked for until there is room again: a viewer that stalls must not make the encoder
            // spend the others' bits.
            (self.needs_keyframe, self.asked) = (true, false);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return PushResult::Yes;
        }
        if self.needs_keyframe && !keyframe {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return if std::mem::replace(&mut self.asked, true) { PushResult::Yes } else { PushResult::WantsKeyframe };
        }
        self.needs_keyframe = false;
        let pts = buffer.pts().map_or(0, gst::ClockTime::nseconds) as i64;
        let now = self.source.current_running_time().filter(|_| self.live).map(|now| now.nseconds() as i64);
        let shift = self.shift.get_or_insert(now.unwrap_or(0) - pts);
        // A picture that is there is due. One that came late, as the first does while its encoder starts, must not have
        // all that follow wait for as long.
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
            Ok(_) => PushResult::Yes,
            Err(_) => PushResult::Gone,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Says that it is gone by giving up its share.
    struct CountingSink(#[allow(dead_code)] Arc<()>);

    impl PacketSink for CountingSink {
        fn push(&mut self, _: &gst::Sample, _: bool) -> PushResult {
            PushResult::Yes
        }
    }

    #[test]
    fn an_output_that_ends_late_takes_only_its_own_with_it() {
        let fanout = Fanout::default();
        let [first, second, viewer] = [(); 3].map(|()| Arc::new(()));
        let (old, new) = (fanout.new_output(), fanout.new_output());
        fanout.add_for_output(old, Box::new(CountingSink(Arc::clone(&first))));
        fanout.add_for_output(new, Box::new(CountingSink(Arc::clone(&second))));
        fanout.add(Box::new(CountingSink(Arc::clone(&viewer))));
        let here = || [&first, &second, &viewer].map(|share| Arc::strong_count(share) == 2);
        fanout.end_output(old);
        assert_eq!(here(), [false, true, true]);
        fanout.close();
        assert_eq!((here(), fanout.packet_sinks()), ([false, true, false], 1), "a recording ends with its output");
        fanout.end_output(new);
        assert_eq!((here(), fanout.packet_sinks()), ([false; 3], 0));
    }

    #[test]
    fn an_output_that_hangs_takes_no_pictures_of_the_next_one() {
        let fanout = Fanout::default();
        let [recording, late, next, viewer] = [(); 4].map(|()| Arc::new(()));
        let hung = fanout.new_output();
        fanout.add_for_output(hung, Box::new(CountingSink(Arc::clone(&recording))));
        fanout.add(Box::new(CountingSink(Arc::clone(&viewer))));
        fanout.abandon_outputs().unwrap();
        assert_eq!((fanout.packet_sinks(), fanout.is_abandoned(hung)), (1, true), "the viewer stays");
        let output = fanout.new_output();
        fanout.add_for_output(output, Box::new(CountingSink(Arc::clone(&next))));
        // As a push does that connects again.
        fanout.add_for_output(hung, Box::new(CountingSink(Arc::clone(&late))));
        assert_eq!((fanout.packet_sinks(), fanout.is_abandoned(output)), (2, false));
        assert_eq!([&late, &next, &viewer].map(Arc::strong_count), [1, 2, 2]);
    }

    /// The first picture comes half a second late, the others in time.
    #[test]
    fn no_picture_waits_because_the_first_was_late() {
        crate::gst::init().unwrap();
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).is_live(true).build();
        let sink = gst_app::AppSink::builder().sync(false).build();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref::<gst::Element>(), sink.upcast_ref()]).unwrap();
        source.link(&sink).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut packet_sink = AppSrcSink::new(source.clone(), 100, true, Arc::default());
        let mut times = Vec::new();
        for n in [0, 500, 501, 502] {
            let mut buffer = gst::Buffer::new();
            buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(n));
            assert_eq!(packet_sink.push(&gst::Sample::builder().buffer(&buffer).build(), true), PushResult::Yes);
            let at = sink.pull_sample().unwrap().buffer().unwrap().pts().unwrap();
            assert!(at <= source.current_running_time().unwrap() + gst::ClockTime::from_mseconds(1), "{n}: {at}");
            times.push(at);
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    }

    #[test]
    fn an_encoder_that_ends_late_leaves_its_successor_in_place() {
        crate::gst::init().unwrap();
        let fanout = Fanout::default();
        let (old, new) = (gst_app::AppSink::builder().build(), gst_app::AppSink::builder().build());
        fanout.set_encoder(old.clone());
        fanout.set_encoder(new.clone());
        fanout.forget_encoder(&old);
        assert_eq!(lock(&fanout.encoder).sink.as_ref(), Some(&new));
        fanout.forget_encoder(&new);
        assert_eq!(lock(&fanout.encoder).sink, None);
    }
}
