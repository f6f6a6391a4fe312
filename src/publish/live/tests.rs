use super::*;
use crate::publish::encoder::chain::EncodeError;

#[test]
fn capture_times_are_found_by_output_time() {
    let start = Instant::now();
    let at = Duration::from_millis;
    let in_encoder = FramesInEncoder::default();
    for n in [1, 2, 4] {
        in_encoder.enter(at(n), start + at(n));
    }
    assert_eq!(in_encoder.leave(at(2)), Some(start + at(2)), "a frame that never came out is forgotten");
    assert_eq!(in_encoder.leave(at(3)), None);
    assert_eq!(in_encoder.leave(at(4)), Some(start + at(4)));
    assert_eq!(in_encoder.leave(at(5)), None);
}

/// Each frame that an encoder was given comes out with its delay. A recording ends with the output; a viewer waits for the next
/// output until the fan-out is closed, and the encoder is dropped with the last sink.
#[test]
fn the_delay_of_encoded_frames_is_recorded() {
    struct FrameSink(crossbeam_channel::Sender<bool>);
    impl crate::publish::frame_sink::FrameSink for FrameSink {
        fn push(&mut self, _: &gst::Sample, keyframe: bool) -> crate::publish::frame_sink::FrameSinkResult {
            self.0.send(keyframe).unwrap();
            crate::publish::frame_sink::FrameSinkResult::Taken
        }
    }
    crate::gst::init().unwrap();
    let status = Arc::new(Status::new("test"));
    let outputs = StreamOutputs::default();
    let mut output = LiveOutput::new(EncodeConfig::default(), Arc::clone(&status), outputs.clone()).blocking();
    assert!(!output.wanted());
    let (sender, taken) = crossbeam_channel::unbounded();
    let (viewer, seen) = crossbeam_channel::unbounded();
    outputs.h264.add_for_run(&output.run, Box::new(FrameSink(sender)));
    outputs.h264.add(Box::new(FrameSink(viewer)));
    assert!(output.wanted());
    let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(crate::frame::PixelFormat::I420, 64, 48) };
    for n in 0..10 {
        let time = CaptureTime { pts: Duration::from_millis(40 * n), captured_at: Instant::now(), slate: false };
        let accepted = output.publish(time, info, &mut |_| {}).unwrap();
        assert_eq!(accepted, PublishOutcome::Encoding);
    }
    output.finish().unwrap();
    assert_eq!((taken.try_iter().count(), seen.try_iter().count()), (10, 10));
    assert_eq!(status.latency.summary().count, 10);
    use crossbeam_channel::TryRecvError::{Disconnected, Empty};
    assert_eq!((taken.try_recv(), seen.try_recv()), (Err(Disconnected), Err(Empty)));
    assert!(output.wanted() && outputs.h264.sinks() == 1);
    outputs.h264.remove_viewers();
    assert_eq!(seen.try_recv(), Err(Disconnected));
    assert!(output.pool.is_some());
    assert!(!output.wanted() && output.h264.is_none() && output.pool.is_none(), "nothing is kept without a sink");
}

/// Without this, a frame is what was in the memory before; if that is noise, OpenH264 has no room for it.
fn grey(image: &mut OutputImage<'_, '_>) {
    image.fill([128; 3]);
}

/// After a reload or a failure: x264enc adds 1000 hours to its times, OpenH264 nothing. For a viewer that stays, such a frame
/// would be six weeks old.
#[test]
fn times_continue_when_the_encoder_is_replaced() {
    struct FrameSink(crossbeam_channel::Sender<Option<gst::ClockTime>>);
    impl crate::publish::frame_sink::FrameSink for FrameSink {
        fn push(&mut self, sample: &gst::Sample, _: bool) -> crate::publish::frame_sink::FrameSinkResult {
            self.0.send(sample.buffer().unwrap().pts()).unwrap();
            crate::publish::frame_sink::FrameSinkResult::Taken
        }
    }
    crate::gst::init().unwrap();
    let (outputs, status) = (StreamOutputs::default(), Arc::new(Status::new("test")));
    let (sender, taken) = crossbeam_channel::unbounded();
    outputs.h264.add(Box::new(FrameSink(sender)));
    let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(crate::frame::PixelFormat::I420, 64, 48) };
    let start = Instant::now();
    use crate::config::EncoderChoice::{OpenH264, X264};
    for (turn, encoder) in [X264, OpenH264, X264].into_iter().enumerate() {
        let encode = EncodeConfig { encoder, ..EncodeConfig::default() };
        let mut output = LiveOutput::new(encode, Arc::clone(&status), outputs.clone()).blocking();
        for n in 0..5 {
            let pts = Duration::from_millis(40 * (5 * turn as u64 + n));
            let time = CaptureTime { pts, captured_at: start + pts, slate: false };
            output.publish(time, info, &mut grey).unwrap();
        }
        output.finish().unwrap();
    }
    let times: Vec<u64> = taken.try_iter().map(|time| time.unwrap().mseconds()).collect();
    assert_eq!(times.len(), 15);
    assert!(times.is_sorted() && times[14] < 1000, "{times:?}");
}

/// Frames that no encoder accepts: the error names the size, no encoder is marked as failed, and the next size works.
#[test]
fn a_frame_that_is_too_small_for_h264_is_named() {
    struct FrameSink;
    impl crate::publish::frame_sink::FrameSink for FrameSink {
        fn push(&mut self, _: &gst::Sample, _: bool) -> crate::publish::frame_sink::FrameSinkResult {
            crate::publish::frame_sink::FrameSinkResult::Taken
        }
    }
    crate::gst::init().unwrap();
    let (outputs, status) = (StreamOutputs::default(), Arc::new(Status::new("test")));
    outputs.h264.add(Box::new(FrameSink));
    let mut output = LiveOutput::new(EncodeConfig::default(), status, outputs).blocking();
    let time = |n| CaptureTime { pts: Duration::from_millis(40 * n), captured_at: Instant::now(), slate: false };
    let info = |width, height| VideoInfo::new(crate::frame::PixelFormat::I420, width, height);
    for (n, (width, height)) in [(8, 8), (4098, 2), (15, 20)].into_iter().enumerate() {
        output.h264_retry = None;
        let info = info(width, height);
        let error = output.publish(time(n as u64), info, &mut grey).unwrap_err();
        assert!(matches!(error, OutputError::Encode(EncodeError::FrameTooSmall(named)) if named == info), "{error}");
        // Until it is tried again, nothing is done.
        assert_eq!(output.publish(time(n as u64), info, &mut grey).unwrap(), PublishOutcome::Busy);
    }
    assert!(output.failed.0.is_empty());
    output.h264_retry = None;
    for (n, (width, height)) in [(16, 16), (17, 33)].into_iter().enumerate() {
        assert_eq!(
            output.publish(time(n as u64 + 3), info(width, height), &mut grey).unwrap(),
            PublishOutcome::Encoding
        );
    }
    output.finish().unwrap();
}

#[test]
fn an_output_that_is_dropped_by_a_panic_ends_its_recorder() {
    crate::gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = Arc::new(Archive::new("test", crate::config::RecordConfig::to(folder.path())));
    let (outputs, status) = (StreamOutputs::default(), Arc::new(Status::new("test")));
    let mut output = LiveOutput::new(EncodeConfig::default(), status, outputs.clone());
    let source = crate::config::SourceSpec::parse("test://black", folder.path()).unwrap();
    output.start_sinks(&crate::config::defaults_stream("test", source), Some(&archive)).unwrap();
    assert_eq!(outputs.h264.sinks(), 1);
    drop(output);
    assert_eq!(outputs.h264.sinks(), 0);
}

/// Without a successor as well: the last frame of a camera that stalls must not wait for the next one.
#[test]
fn a_frame_of_unknown_rate_comes_out_at_once() {
    struct FrameSink(crossbeam_channel::Sender<()>);
    impl crate::publish::frame_sink::FrameSink for FrameSink {
        fn push(&mut self, _: &gst::Sample, _: bool) -> crate::publish::frame_sink::FrameSinkResult {
            self.0.send(()).unwrap();
            crate::publish::frame_sink::FrameSinkResult::Taken
        }
    }
    crate::gst::init().unwrap();
    let outputs = StreamOutputs::default();
    let status = Arc::new(Status::new("test"));
    let mut output = LiveOutput::new(EncodeConfig::default(), status, outputs.clone());
    let (sender, taken) = crossbeam_channel::unbounded();
    outputs.h264.add(Box::new(FrameSink(sender)));
    let info = VideoInfo { fps: (0, 1), ..VideoInfo::new(crate::frame::PixelFormat::I420, 64, 48) };
    for n in 0..3 {
        let time = CaptureTime { pts: Duration::from_millis(40 * n), captured_at: Instant::now(), slate: false };
        output.publish(time, info, &mut |_| {}).unwrap();
        taken.recv_timeout(Duration::from_secs(600)).expect("it waits for its successor");
    }
}

#[test]
fn output_times_are_even_rise_and_follow_jumps() {
    let start = Instant::now();
    let mut clock = super::super::clock::OutputClock::default();
    let mut at = |pts: u64, arrival: u64| {
        let time = CaptureTime {
            pts: Duration::from_millis(pts),
            captured_at: start + Duration::from_millis(arrival),
            slate: false,
        };
        clock.at(time).as_millis()
    };
    assert_eq!(at(10_000, 0), 1);
    assert_eq!(at(10_040, 55), 40, "jitter of arrival is not passed on");
    assert_eq!(at(10_080, 79), 80);
    assert_eq!(at(3_000, 120), 120, "a clock that jumps back starts a new mapping");
    assert_eq!(at(3_040, 161), 160);
    assert_eq!(at(90_000, 200), 200, "so does one that jumps ahead");
    assert_eq!(at(90_000, 200), 201, "times rise");
}

fn info() -> VideoInfo {
    VideoInfo { fps: (25, 1), ..VideoInfo::new(crate::frame::PixelFormat::I420, 64, 48) }
}

fn output(outputs: &StreamOutputs) -> LiveOutput {
    crate::gst::init().unwrap();
    LiveOutput::new(EncodeConfig::default(), Arc::new(Status::new("test")), outputs.clone())
}

/// Publishes the `n`-th frame of 25 a second.
fn publish(output: &mut LiveOutput, n: u64) -> Result<PublishOutcome, OutputError> {
    let time = CaptureTime { pts: Duration::from_millis(40 * n), captured_at: Instant::now(), slate: false };
    output.publish(time, info(), &mut grey)
}

/// Reports that it has a frame, and returns when its gate is opened.
struct GatedSink(crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>);

impl crate::publish::frame_sink::FrameSink for GatedSink {
    fn push(&mut self, _: &gst::Sample, _: bool) -> crate::publish::frame_sink::FrameSinkResult {
        let _ = self.0.send(());
        let _ = self.1.recv();
        crate::publish::frame_sink::FrameSinkResult::Taken
    }
}

/// Publishes until the H.264 encoder, whose sink does not return, has no more room; returns the number of frames.
fn fill_h264(output: &mut LiveOutput, entered: &crossbeam_channel::Receiver<()>) -> u64 {
    let until = Instant::now() + Duration::from_secs(180);
    publish(output, 0).unwrap();
    // From now on the encoder's thread is in the sink.
    entered.recv_timeout(Duration::from_secs(180)).unwrap();
    let mut n = 1;
    loop {
        publish(output, n).unwrap();
        n += 1;
        if !output.h264.as_ref().unwrap().has_room() {
            return n;
        }
        assert!(Instant::now() < until, "the encoder takes everything");
        std::thread::yield_now();
    }
}

#[test]
fn a_frame_that_the_jpeg_encoder_drops_is_not_published() {
    let outputs = StreamOutputs::default();
    let _viewer = outputs.jpeg.subscribe();
    let mut output = output(&outputs);
    assert_eq!(publish(&mut output, 0).unwrap(), PublishOutcome::Published);
    // From now on it holds what it is given.
    output.jpeg.as_ref().unwrap().block();
    let outcomes: Vec<PublishOutcome> = (1..30).map(|n| publish(&mut output, n).unwrap()).collect();
    let published = outcomes.iter().filter(|outcome| **outcome == PublishOutcome::Published).count();
    // Two wait, and one may be in each element; the first frame may still be among those that wait.
    assert!((1..10).contains(&published), "{outcomes:?}");
    assert!(outcomes[published..].iter().all(|outcome| *outcome == PublishOutcome::Busy), "{outcomes:?}");
}

#[test]
fn a_frame_that_goes_out_as_jpeg_is_published_although_h264_has_no_room() {
    let outputs = StreamOutputs::default();
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let (enter, entered) = crossbeam_channel::unbounded();
    outputs.h264.add(Box::new(GatedSink(enter, gate)));
    let mut output = output(&outputs);
    // Opened before the output is dropped, also by a failure.
    let open = open;
    let sent = fill_h264(&mut output, &entered);
    assert_eq!(publish(&mut output, sent).unwrap(), PublishOutcome::Busy);
    let _viewer = outputs.jpeg.subscribe();
    assert_eq!(publish(&mut output, sent + 1).unwrap(), PublishOutcome::Published);
    drop(open);
}

#[test]
fn a_source_that_waits_waits_for_jpeg_where_there_is_no_other_encoder() {
    let outputs = StreamOutputs::default();
    let _viewer = outputs.jpeg.subscribe();
    let mut output = output(&outputs).blocking();
    for n in 0..50 {
        assert_eq!(publish(&mut output, n).unwrap(), PublishOutcome::Published, "{n}");
    }
}

#[test]
fn the_failure_of_one_encoder_does_not_keep_the_other_from_starting() {
    let outputs = StreamOutputs::default();
    let mut output = output(&outputs);
    let _viewer = outputs.jpeg.subscribe();
    output.h264_retry = Some(Instant::now() + Duration::from_secs(3600));
    assert_eq!(publish(&mut output, 0).unwrap(), PublishOutcome::Published);
    assert!(output.jpeg.is_some());
    // Its gate is open.
    outputs.h264.add(Box::new(GatedSink(crossbeam_channel::unbounded().0, crossbeam_channel::bounded(0).1)));
    publish(&mut output, 1).unwrap();
    assert!(output.h264.is_none(), "it waits for its own retry");
    (output.h264_retry, output.jpeg_retry) = (None, Some(Instant::now() + Duration::from_secs(3600)));
    output.jpeg = None;
    assert_eq!(publish(&mut output, 2).unwrap(), PublishOutcome::Encoding);
    assert!(output.jpeg.is_none(), "so does the other");
}

#[test]
fn an_encoder_that_accepts_no_more_frames_is_replaced() {
    let outputs = StreamOutputs::default();
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let (enter, entered) = crossbeam_channel::unbounded();
    outputs.h264.add(Box::new(GatedSink(enter, gate)));
    let mut output = output(&outputs);
    // Opened before the output is dropped, also by a failure.
    let open = open;
    let sent = fill_h264(&mut output, &entered);
    assert_eq!(publish(&mut output, sent).unwrap(), PublishOutcome::Busy);
    let since = output.full_since.expect("it has had no room since now");
    assert_eq!(publish(&mut output, sent + 1).unwrap(), PublishOutcome::Busy);
    assert_eq!(output.full_since, Some(since));
    output.full_since = since.checked_sub(STALL);
    // Stopping the encoder waits for the sink.
    drop(open);
    let error = publish(&mut output, sent + 2).unwrap_err();
    assert!(matches!(error, OutputError::H264 { source: EncoderFault::Stalled(STALL), .. }), "{error}");
    assert!(output.h264.is_none() && output.h264_retry.is_some());
}

#[test]
fn the_failure_of_an_encoder_is_forgotten_after_a_while() {
    let (mut failed, start) = (FailedEncoders::default(), Instant::now());
    failed.enter(H264::Nvenc, start);
    failed.enter(H264::Va, start + FORGET / 2);
    let at = |part: f64| start + FORGET.mul_f64(part);
    assert_eq!(failed.recent(at(0.9)), [H264::Nvenc, H264::Va]);
    assert_eq!(failed.recent(at(1.1)), [H264::Va]);
    failed.enter(H264::Va, at(1.2));
    assert_eq!(failed.recent(at(2.1)), [H264::Va], "the last failure counts");
    assert_eq!(failed.recent(at(2.3)), []);
}

/// The thread of an output hangs while it draws a frame, and continues after another output has replaced it, which may hide more
/// of the frames.
#[test]
fn an_output_that_was_replaced_while_it_hung_publishes_nothing() {
    struct FrameSink(crossbeam_channel::Sender<()>);
    impl crate::publish::frame_sink::FrameSink for FrameSink {
        fn push(&mut self, _: &gst::Sample, _: bool) -> crate::publish::frame_sink::FrameSinkResult {
            self.0.send(()).unwrap();
            crate::publish::frame_sink::FrameSinkResult::Taken
        }
    }
    const LIMIT: Duration = Duration::from_secs(180);
    crate::gst::init().unwrap();
    let (outputs, status) = (StreamOutputs::default(), Arc::new(Status::new("test")));
    let (viewer, seen) = crossbeam_channel::unbounded();
    outputs.h264.add(Box::new(FrameSink(viewer)));
    let mut images = outputs.jpeg.subscribe();
    let output = || LiveOutput::new(EncodeConfig::default(), Arc::clone(&status), outputs.clone());
    let time = |n: u64| CaptureTime { pts: Duration::from_millis(40 * n), captured_at: Instant::now(), slate: false };
    let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(crate::frame::PixelFormat::I420, 64, 48) };

    let mut hung = output();
    // Both encoders work.
    assert_eq!(hung.publish(time(0), info, &mut grey).unwrap(), PublishOutcome::Encoding);
    seen.recv_timeout(LIMIT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let image_comes = |images: &mut tokio::sync::watch::Receiver<Option<bytes::Bytes>>| {
        let changed = runtime.block_on(async { tokio::time::timeout(LIMIT, images.changed()).await });
        changed.is_ok_and(|changed| changed.is_ok() && images.borrow_and_update().is_some())
    };
    assert!(image_comes(&mut images));
    let (entered, has_entered) = crossbeam_channel::bounded(1);
    let (go, gate) = crossbeam_channel::bounded::<()>(0);
    let thread = std::thread::spawn(move || {
        let mut paint = |image: &mut OutputImage<'_, '_>| {
            grey(image);
            entered.send(()).unwrap();
            let _ = gate.recv();
        };
        hung.publish(time(1), info, &mut paint).unwrap();
        // Waits until the frame has come out of the encoder.
        hung.h264.as_ref().unwrap().drain();
        assert!(!hung.wanted(), "it draws no more frames");
        assert_eq!(hung.publish(time(2), info, &mut grey).unwrap(), PublishOutcome::Busy);
        hung.finish().unwrap();
    });
    has_entered.recv_timeout(LIMIT).unwrap();
    let mut next = output();
    drop(go);
    thread.join().unwrap();
    assert!(seen.is_empty(), "a frame of the output that hung was delivered");
    assert!(!images.has_changed().unwrap(), "as an image");
    assert_eq!(next.publish(time(3), info, &mut grey).unwrap(), PublishOutcome::Encoding);
    assert!(image_comes(&mut images));
    next.finish().unwrap();
    assert_eq!(seen.try_iter().count(), 1);
}
