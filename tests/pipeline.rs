//! The stages of a stream with a fake source, segmenter and output: order, ledger, batches, and failures.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::fakes::*;
use crossbeam_channel::{bounded, unbounded};
use maskcast::base::ledger::DropReason;
use maskcast::base::status::{Status, StreamState};
use maskcast::config::{Show, Smooth};
use maskcast::gst::GstError;
use maskcast::publish::{OutputError, PublishOutcome};
use maskcast::segment::SegmentError;
use maskcast::segment::pool::Pool;
use maskcast::sink::{SinkError, StreamMask};
use maskcast::stream::{Pace, SourceFailure, StreamError};

fn published() -> impl FnMut(usize) -> Result<PublishOutcome, OutputError> + Send + 'static {
    |_| Ok(PublishOutcome::Published)
}

/// Asserts that captured = published + dropped, and that no frame is in flight.
fn assert_ledger_closed(status: &Status, captured: u64) {
    let counts = status.ledger.counts();
    assert_eq!(counts.captured(), captured, "{counts:?}");
    assert_eq!(counts.captured(), counts.published + counts.dropped(), "{counts:?}");
    assert_eq!(counts.in_flight, 0, "{counts:?}");
}

#[test]
fn a_file_keeps_all_frames_in_order_when_workers_overtake_each_other() {
    // Every third frame waits until a later one is done.
    let passed = Arc::new(AtomicUsize::new(0));
    let newest = Arc::clone(&passed);
    let (pool, _) = pool(3, 1, move |frames| {
        let seq = frames[0].seq as usize;
        if seq.is_multiple_of(3) && seq < 199 {
            wait_until("another worker overtakes", || newest.load(Ordering::SeqCst) > seq);
        }
        newest.fetch_max(seq, Ordering::SeqCst);
        Ok(())
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, received) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(200)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    stream.join().unwrap();
    let received: Vec<PublishedFrame> = received.try_iter().collect();
    assert_eq!(received.len(), 200);
    for (n, frame) in received.iter().enumerate() {
        assert_eq!(frame.pts, Duration::from_millis(40 * n as u64));
        // Each frame has its own mask: black for even numbers.
        assert_eq!(frame.luma > 128, n % 2 == 1, "frame {n}: {frame:?}");
    }
    assert_ledger_closed(&status, 200);
    assert_eq!(status.ledger.counts().published, 200);
}

/// The fake model changes its mind with every frame although the image is always the same.
#[test]
fn the_drawing_is_steady_and_the_sinks_get_the_masks_of_the_model() {
    for (smooth, flips) in [(Smooth::Off, 39), (Smooth::Normal, 0)] {
        let (pool, _) = pool(1, 1, |_| Ok(()));
        let mut settings = config();
        (settings.show, settings.overlay.smooth) = (Show::Matched, smooth);
        let (output, received) = FakeOutput::new(published());
        let (masks, sunk) = unbounded();
        let sink = move |mask: &StreamMask| -> Result<(), SinkError> {
            masks.send(mask.mask.classes.clone()).unwrap();
            Ok(())
        };
        let source = ScriptedSource::file(vec![Step::Frames(40)]);
        let (stream, _) = start_with_sinks(settings, Pace::File, source, output, &pool, vec![Box::new(sink)]);
        stream.join().unwrap();
        let lumas: Vec<u8> = received.try_iter().map(|frame| frame.luma).collect();
        assert_eq!(lumas.len(), 40);
        assert_eq!(lumas.windows(2).filter(|pair| pair[0] != pair[1]).count(), flips, "{smooth:?}: {lumas:?}");
        let sunk: Vec<Vec<u8>> = sunk.try_iter().collect();
        assert_eq!(sunk.len(), 40);
        assert!(sunk.iter().enumerate().all(|(n, classes)| *classes == vec![(n % 2) as u8; SIDE * SIDE]), "{smooth:?}");
    }
}

#[test]
fn a_slow_model_makes_a_matched_live_stream_drop_frames_and_count_them() {
    let (go, gate) = unbounded();
    let (entered, started) = unbounded();
    let (pool, _) = pool(1, 1, move |_| {
        let _ = entered.send(());
        gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("over"))
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, received) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(50)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    next.send(()).unwrap();
    started.recv_timeout(DEADLINE).unwrap();
    // The other frames arrive while the model processes the first one.
    (1..50).for_each(|_| next.send(()).unwrap());
    wait_until("the source ends", || status.condition().ended);
    assert_eq!(
        status.ledger.counts().dropped_for(DropReason::SegmenterBusy),
        48,
        "one is processed, the newest one waits"
    );
    go.send(()).unwrap();
    go.send(()).unwrap();
    stream.stop();
    stream.join().unwrap();
    assert_ledger_closed(&status, 50);
    let times: Vec<_> = received.try_iter().map(|frame| frame.pts.as_millis() / 40).collect();
    assert_eq!(times, [0, 49]);
}

#[test]
fn full_rate_video_without_masks_continues_and_becomes_stale() {
    let (release, gate) = bounded::<()>(0);
    let (pool, _) = pool(1, 1, move |_| gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("never")));
    let mut settings = config();
    settings.max_mask_age = Duration::from_millis(100);
    let (output, received) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(1000)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    next.send(()).unwrap();
    received.recv_timeout(DEADLINE).unwrap();
    // The first mask is not late yet.
    wait_until("the stream is live", || status.state() == StreamState::Live);
    wait_until("the stream is stale", || {
        next.send(()).unwrap();
        received.recv_timeout(DEADLINE).unwrap();
        status.state() == StreamState::Stale
    });
    assert!(status.condition().reason.unwrap().contains("mask is older"));
    stream.stop();
    drop(release);
    stream.join().unwrap();
    let counts = status.ledger.counts();
    assert_eq!(counts.captured(), counts.published, "every captured frame was published: {counts:?}");
}

#[test]
fn late_frames_are_dropped_and_the_connection_is_opened_again() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, received) = FakeOutput::new(published());
    let source = ScriptedSource::new(vec![vec![Step::OldFrames], vec![Step::Frame, Step::Silence]]);
    let opened = Arc::clone(&source.opened);
    let mut settings = config();
    (settings.max_latency, settings.silence_timeout) = (Duration::from_millis(200), DEADLINE);
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    wait_until("the connection is opened again", || opened.load(Ordering::SeqCst) == 2);
    assert_eq!(status.late_connections(), 1);
    let counts = status.ledger.counts();
    assert!(counts.dropped_for(DropReason::Late) > 50, "{counts:?}");
    assert!(counts.published > 0, "the first frames were not late: {counts:?}");
    wait_until("a frame of the new connection makes the stream live", || status.state() == StreamState::Live);
    stream.stop();
    stream.join().unwrap();
    let captured = status.ledger.counts().captured();
    assert_ledger_closed(&status, captured);
    drop(received);
}

#[test]
fn full_rate_draws_the_newest_mask() {
    let (go, gate) = unbounded();
    let (entered, started) = unbounded();
    let (pool, _) = pool(1, 1, move |frames| {
        let _ = entered.send(frames[0].seq);
        gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("over"))
    });
    let mut settings = config();
    settings.max_mask_age = DEADLINE;
    let (output, received) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(1_000_000)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    let draw_is_white = || {
        next.send(()).unwrap();
        received.recv_timeout(DEADLINE).unwrap().luma > 128
    };
    let mut last = draw_is_white();
    let (mut changes, mut rounds) = (0, 0);
    while changes < 4 {
        // Masks of odd frames are white. The next mask is not made before the next message.
        let seq = started.recv_timeout(DEADLINE).unwrap();
        let white = seq % 2 == 1;
        go.send(()).unwrap();
        wait_until("the newest mask is drawn", || draw_is_white() == white);
        for _ in 0..3 + rounds % 2 {
            assert_eq!(draw_is_white(), white, "mask of frame {seq}");
        }
        changes += u32::from(white != last);
        last = white;
        rounds += 1;
        assert!(rounds < 1000, "{changes} changes of the colour in {rounds} masks");
    }
    stream.stop();
    drop(go);
    stream.join().unwrap();
    assert_ledger_closed(&status, status.ledger.counts().captured());
}

/// Otherwise the sinks of a camera with a frame a second would get each mask a second late.
#[test]
fn a_full_rate_mask_reaches_the_sinks_before_the_next_frame() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, received) = FakeOutput::new(published());
    let (masks, sunk) = unbounded();
    let sink = move |mask: &StreamMask| -> Result<(), SinkError> {
        masks.send(mask.mask.seq).unwrap();
        Ok(())
    };
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(3)]) };
    let (stream, status) = start_with_sinks(config(), Pace::Live, source, output, &pool, vec![Box::new(sink)]);
    for n in 0..3 {
        next.send(()).unwrap();
        received.recv_timeout(DEADLINE).expect("the frame is published");
        assert_eq!(sunk.recv_timeout(DEADLINE), Ok(n), "its mask, while there is no other frame");
    }
    stream.stop();
    stream.join().unwrap();
    assert_ledger_closed(&status, 3);
}

#[test]
fn after_a_pause_a_full_rate_frame_waits_for_its_own_mask() {
    let (go, gate) = unbounded();
    let (pool, _) = pool(1, 1, move |_| gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("over")));
    let mut settings = config();
    (settings.max_mask_age, settings.silence_timeout) = (Duration::from_secs(1), DEADLINE);
    let pause = settings.max_mask_age + Duration::from_millis(100);
    let (output, received) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(1000)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    next.send(()).unwrap();
    received.recv_timeout(DEADLINE).unwrap();
    go.send(()).unwrap();
    for n in 1..3 {
        assert!(received.recv_timeout(pause).is_err(), "no frame is published during the pause");
        next.send(()).unwrap();
        assert!(received.recv_timeout(Duration::from_millis(50)).is_err(), "frame {n} has no mask yet");
        go.send(()).unwrap();
        let frame = received.recv_timeout(DEADLINE).unwrap();
        assert_eq!(frame.luma > 128, n % 2 == 1, "frame {n}: {frame:?}");
        wait_until("the frame is settled", || status.ledger.counts().captured() == n + 1);
        assert_eq!(status.state(), StreamState::Live, "{:?}", status.condition());
    }
    stream.stop();
    stream.join().unwrap();
    assert_ledger_closed(&status, 3);
}

#[test]
fn a_failing_or_panicking_model_loses_only_the_masks_of_its_batch() {
    let (pool, segmenters) = pool(1, 1, |frames| match frames[0].seq {
        3 => Err(SegmentError::new("fails on purpose")),
        6 => panic!("the segmenter panics on purpose"),
        _ => Ok(()),
    });
    let mut settings = config();
    // A slow machine must not cause silence or late frames.
    (settings.max_latency, settings.silence_timeout) = (DEADLINE, DEADLINE);
    settings.show = Show::Matched;
    let (output, received) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(10)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    let mut states = Vec::new();
    for n in 0..10 {
        next.send(()).unwrap();
        assert_eq!(received.recv_timeout(DEADLINE).unwrap().pts, Duration::from_millis(40 * n));
        wait_until("the frame is settled", || status.ledger.counts().captured() == n + 1);
        states.push(status.state());
    }
    stream.stop();
    stream.join().unwrap();
    let stale: Vec<usize> = (0..10).filter(|&n| states[n] == StreamState::Stale).collect();
    assert_eq!(stale, [3, 6], "the video continues and is marked stale: {states:?}");
    assert_eq!(segmenters.load(Ordering::SeqCst), 3, "each failure creates a new segmenter");
    assert_eq!(pool.stats().failures.load(Ordering::SeqCst), 2);
    assert_ledger_closed(&status, 10);
}

#[test]
fn a_file_ends_with_the_model_s_error() {
    let (pool, _) = pool(2, 1, |frames| match frames[0].seq {
        5 => Err(SegmentError::new("fails on purpose")),
        _ => Ok(()),
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, received) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(1000)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    let error = stream.join().unwrap_err().to_string();
    assert!(error.contains("frame 5") && error.contains("fails on purpose"), "{error}");
    assert_eq!(received.try_iter().count(), 5);
    drop(pool);
    assert_ledger_closed(&status, status.ledger.counts().captured());
}

#[test]
fn a_file_is_segmented_in_batches_to_its_end() {
    let largest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&largest);
    let (pool, _) = pool(2, 4, move |frames| {
        seen.fetch_max(frames.len(), Ordering::SeqCst);
        Ok(())
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, received) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(500)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    wait_until("the file has ended", || stream.is_finished());
    stream.join().unwrap();
    let times: Vec<Duration> = received.try_iter().map(|received| received.pts).collect();
    assert_eq!(times, (0..500).map(|n| Duration::from_millis(40 * n)).collect::<Vec<_>>());
    assert!(largest.load(Ordering::SeqCst) > 1, "all batches had one frame");
    assert_ledger_closed(&status, 500);
}

#[test]
fn a_batch_larger_than_the_overlay_s_queue_does_not_wait_for_itself() {
    let pool = Pool::idle(2).unwrap();
    pool.install(workers(1, 8, |_| Ok(()))).unwrap();
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, received) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(100)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    wait_until("the file has ended", || stream.is_finished());
    stream.join().unwrap();
    assert_eq!(received.try_iter().count(), 100);
    assert_ledger_closed(&status, 100);
}

#[test]
fn waiting_frames_of_several_streams_are_segmented_in_one_batch() {
    let (go, gate) = unbounded();
    let (entered, started) = unbounded();
    let batches: Arc<Mutex<Vec<Vec<Arc<str>>>>> = Arc::default();
    let seen = Arc::clone(&batches);
    let (pool, _) = pool(1, 4, move |frames| {
        seen.lock().unwrap().push(frames.iter().map(|frame| Arc::clone(&frame.stream)).collect());
        let _ = entered.send(());
        gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("over"))
    });
    let (next, pace) = unbounded();
    let streams: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let mut settings = config();
            (settings.name, settings.show) = (name.into(), Show::Matched);
            let (output, _received) = FakeOutput::new(published());
            let source = ScriptedSource { pace: Some(pace.clone()), ..ScriptedSource::file(vec![Step::Frames(20)]) };
            start(settings, Pace::Live, source, output, &pool)
        })
        .collect();
    next.send(()).unwrap();
    started.recv_timeout(DEADLINE).unwrap();
    // All three sources end while the model processes that frame; the newest frame of each one waits.
    (1..60).for_each(|_| next.send(()).unwrap());
    for (_, status) in &streams {
        wait_until("the source ends", || status.condition().ended);
    }
    for _ in 0..60 {
        go.send(()).unwrap();
    }
    for (stream, status) in streams {
        stream.stop();
        stream.join().unwrap();
        assert_ledger_closed(&status, 20);
    }
    let batches = batches.lock().unwrap();
    let together = batches.iter().map(|batch| batch.iter().collect::<HashSet<_>>().len()).max();
    assert_eq!(together, Some(3), "{batches:?}");
}

#[test]
fn a_source_that_fails_or_panics_is_opened_again_and_the_ledger_continues() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, received) = FakeOutput::new(published());
    let scripts = vec![
        vec![Step::Frame, Step::Fail("refused on purpose")],
        vec![Step::Frame, Step::Panic],
        vec![Step::Frame, Step::Frame, Step::Silence],
    ];
    let source = ScriptedSource::new(scripts);
    let opened = Arc::clone(&source.opened);
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    received.recv_timeout(DEADLINE).unwrap();
    wait_until("the stream is offline", || status.state() == StreamState::Offline);
    assert!(status.condition().reason.unwrap().contains("refused on purpose"));
    wait_until("the third connection delivers frames", || {
        opened.load(Ordering::SeqCst) == 3 && status.ledger.counts().captured() == 4
    });
    assert_eq!(status.panics(), 1);
    stream.stop();
    stream.join().unwrap();
    assert_ledger_closed(&status, 4);
}

/// GStreamer delivers neither a frame nor an error for some truncated files.
#[test]
fn a_file_without_a_first_frame_fails() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, _received) = FakeOutput::new(published());
    let began = std::time::Instant::now();
    let source = ScriptedSource::file(vec![Step::Silence]);
    let (stream, status) = start(config(), Pace::File, source, output, &pool);
    let error = stream.join().unwrap_err();
    let StreamError::Source { source, .. } = error else { panic!("{error}") };
    let SourceFailure::NoFrame(silence) = *source else { panic!("{source}") };
    assert_eq!(silence.as_secs(), 30);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(29), "{took:?}");
    assert_ledger_closed(&status, 0);
}

#[test]
fn a_silent_source_makes_the_stream_offline_and_viewers_see_the_slate() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, received) = FakeOutput::new(published());
    let source = ScriptedSource::new(vec![vec![Step::Frame, Step::Silence]]);
    let opened = Arc::clone(&source.opened);
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    received.recv_timeout(DEADLINE).unwrap();
    // The output receives the slate although the source sends no frame.
    received.recv_timeout(DEADLINE).unwrap();
    assert_eq!(status.state(), StreamState::Offline);
    assert!(status.condition().reason.unwrap().contains("no frame for"));
    let counts = status.ledger.counts();
    assert!(counts.published <= opened.load(Ordering::SeqCst) as u64, "a slate does not count as a frame: {counts:?}");
    wait_until("the source is opened again", || opened.load(Ordering::SeqCst) >= 2);
    stream.stop();
    stream.join().unwrap();
}

/// The source sends data without a keyframe for longer than `silence_timeout`.
#[test]
fn a_source_without_a_keyframe_is_not_opened_again() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, received) = FakeOutput::new(published());
    let script = vec![Step::Frames(3), Step::NoKeyframe(3000), Step::Frames(4), Step::NoKeyframe(60_000)];
    let source = ScriptedSource::new(vec![script]);
    let opened = Arc::clone(&source.opened);
    let config = config();
    assert!(config.silence_timeout < Duration::from_secs(3));
    let (stream, status) = start(config, Pace::Live, source, output, &pool);
    let published = || status.ledger.counts().captured();
    wait_until("the stream waits for a keyframe", || status.state() == StreamState::AwaitsKeyframe && published() == 3);
    assert!(status.condition().reason.unwrap().contains("keyframe interval"));
    // The output receives slates that show the reason.
    received.try_iter().count();
    received.recv_timeout(DEADLINE).unwrap();
    assert_eq!((status.state(), published()), (StreamState::AwaitsKeyframe, 3));
    wait_until("frames arrive again", || published() == 7);
    wait_until("the stream waits for a keyframe again", || status.state() == StreamState::AwaitsKeyframe);
    assert_eq!(opened.load(Ordering::SeqCst), 1, "the source was opened once");
    stream.stop();
    stream.join().unwrap();
}

#[test]
fn busy_failing_and_panicking_outputs_lose_only_that_frame() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, received) = FakeOutput::new(|n| match n {
        2 => Ok(PublishOutcome::Busy),
        4 => Err(OutputError::Gst(GstError::new("fails on purpose"))),
        6 => panic!("the output panics on purpose"),
        _ => Ok(PublishOutcome::Published),
    });
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(10)]) };
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    for n in 0..10 {
        next.send(()).unwrap();
        wait_until("the frame is settled", || status.ledger.counts().captured() == n + 1);
    }
    stream.stop();
    stream.join().unwrap();
    let counts = status.ledger.counts();
    assert_eq!(counts.dropped_for(DropReason::EncoderBusy), 1);
    assert_eq!(counts.dropped_for(DropReason::OutputFailed), 1);
    assert_eq!(counts.dropped_for(DropReason::Abandoned), 1);
    assert_eq!(status.panics(), 1);
    assert_eq!(received.try_iter().count(), 7);
    assert_ledger_closed(&status, 10);
}

#[test]
fn a_slow_output_makes_a_full_rate_stream_drop_the_oldest_frames() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (go, gate) = bounded::<()>(0);
    let (output, received) = FakeOutput::new(move |_| {
        gate.recv_timeout(DEADLINE).map_err(|_| OutputError::Gst(GstError::new("over")))?;
        Ok(PublishOutcome::Published)
    });
    let source = ScriptedSource::file(vec![Step::Frames(30)]);
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    wait_until("the source ends", || status.condition().ended);
    assert!(status.ledger.counts().dropped_for(DropReason::OverlayBusy) >= 27);
    // At most one frame is processed and two wait; the last of them is the newest.
    let newest = (0..3).any(|_| {
        go.send_timeout((), DEADLINE).unwrap();
        received.recv_timeout(DEADLINE).unwrap().pts == Duration::from_millis(40 * 29)
    });
    assert!(newest, "the newest frame is published");
    drop(go);
    stream.stop();
    stream.join().unwrap();
    assert_ledger_closed(&status, 30);
}
