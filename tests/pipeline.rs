//! A stream's stages, put together with fakes at the edges: order, accounts, batches, and what becomes of failures.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::fakes::*;
use crossbeam_channel::{bounded, unbounded};
use maskcast::base::ledger::DropReason;
use maskcast::base::status::{Status, StreamState};
use maskcast::config::Show;
use maskcast::publish::{Accepted, OutputError};
use maskcast::segment::SegmentError;
use maskcast::segment::pool::Pool;
use maskcast::stream::Pace;

fn published() -> impl FnMut(usize) -> Result<Accepted, OutputError> + Send + 'static {
    |_| Ok(Accepted::Published)
}

/// Captured = published + dropped, and nothing under way.
fn assert_closed(status: &Status, captured: u64) {
    let counts = status.ledger.counts();
    assert_eq!(counts.captured(), captured, "{counts:?}");
    assert_eq!(counts.captured(), counts.published + counts.dropped(), "{counts:?}");
    assert_eq!(counts.in_flight, 0, "{counts:?}");
}

#[test]
fn a_file_loses_no_frame_and_keeps_order_while_workers_overtake_each_other() {
    // Every third frame is held until the one after it has passed.
    let passed = Arc::new(AtomicUsize::new(0));
    let newest = Arc::clone(&passed);
    let (pool, _) = pool(3, 1, move |frames| {
        let seq = frames[0].seq as usize;
        if seq.is_multiple_of(3) && seq < 199 {
            wait_until("another worker passes", || newest.load(Ordering::SeqCst) > seq);
        }
        newest.fetch_max(seq, Ordering::SeqCst);
        Ok(())
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, shown) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(200)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    stream.join().unwrap();
    let shown: Vec<ReceivedFrame> = shown.try_iter().collect();
    assert_eq!(shown.len(), 200);
    for (n, picture) in shown.iter().enumerate() {
        assert_eq!(picture.pts, Duration::from_millis(40 * n as u64));
        // Each frame carries its own mask: black where its number is even.
        assert_eq!(picture.luma > 128, n % 2 == 1, "frame {n}: {picture:?}");
    }
    assert_closed(&status, 200);
    assert_eq!(status.ledger.counts().published, 200);
}

#[test]
fn a_slow_model_costs_a_matched_live_stream_frames_and_the_account_says_so() {
    let (go, gate) = unbounded();
    let (entered, in_work) = unbounded();
    let (pool, _) = pool(1, 1, move |_| {
        let _ = entered.send(());
        gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("over"))
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, shown) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(50)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    next.send(()).unwrap();
    in_work.recv_timeout(DEADLINE).unwrap();
    // The others come while the model is on the first.
    (1..50).for_each(|_| next.send(()).unwrap());
    wait_until("the source ends", || status.condition().ended);
    assert_eq!(status.ledger.counts().dropped_for(DropReason::SegmenterBusy), 48, "one in work, the latest waiting");
    go.send(()).unwrap();
    go.send(()).unwrap();
    stream.stop();
    stream.join().unwrap();
    assert_closed(&status, 50);
    let times: Vec<_> = shown.try_iter().map(|picture| picture.pts.as_millis() / 40).collect();
    assert_eq!(times, [0, 49]);
}

#[test]
fn full_rate_video_goes_on_without_masks_and_says_that_it_is_stale() {
    let (release, gate) = bounded::<()>(0);
    let (pool, _) = pool(1, 1, move |_| gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("never")));
    let mut settings = config();
    settings.max_mask_age = Duration::from_millis(100);
    let (output, shown) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(1000)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    next.send(()).unwrap();
    shown.recv_timeout(DEADLINE).unwrap();
    // The first mask may still come.
    wait_until("the stream is live", || status.state() == StreamState::Live);
    wait_until("the stream is stale", || {
        next.send(()).unwrap();
        shown.recv_timeout(DEADLINE).unwrap();
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
fn frames_that_stay_late_are_dropped_and_their_connection_is_opened_anew() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, shown) = FakeOutput::new(published());
    let source = ScriptedSource::new(vec![vec![Step::OldFrames], vec![Step::Frame, Step::Silence]]);
    let opened = Arc::clone(&source.opened);
    let mut settings = config();
    (settings.max_latency, settings.silence_timeout) = (Duration::from_millis(200), DEADLINE);
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    wait_until("the connection is opened anew", || opened.load(Ordering::SeqCst) == 2);
    assert_eq!(status.late_connections(), 1);
    let counts = status.ledger.counts();
    assert!(counts.dropped_for(DropReason::Late) > 50, "{counts:?}");
    assert!(counts.published > 0, "those that were not late yet: {counts:?}");
    wait_until("the new connection's frame makes it live", || status.state() == StreamState::Live);
    stream.stop();
    stream.join().unwrap();
    let captured = status.ledger.counts().captured();
    assert_closed(&status, captured);
    drop(shown);
}

#[test]
fn full_rate_draws_the_newest_mask() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, shown) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(1000)]) };
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    // Masks are white for odd frames: white must come within a few frames, and without fail.
    wait_until("a white mask is shown", || {
        next.send(()).unwrap();
        shown.recv_timeout(DEADLINE).unwrap().luma > 128
    });
    stream.stop();
    stream.join().unwrap();
    assert_closed(&status, status.ledger.counts().captured());
}

#[test]
fn after_a_pause_a_full_rate_frame_waits_for_its_own_mask() {
    let (go, gate) = unbounded();
    let (pool, _) = pool(1, 1, move |_| gate.recv_timeout(DEADLINE).map_err(|_| SegmentError::new("over")));
    let mut settings = config();
    (settings.max_mask_age, settings.silence_timeout) = (Duration::from_secs(1), DEADLINE);
    let pause = settings.max_mask_age + Duration::from_millis(100);
    let (output, shown) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(1000)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    next.send(()).unwrap();
    shown.recv_timeout(DEADLINE).unwrap();
    go.send(()).unwrap();
    for n in 1..3 {
        assert!(shown.recv_timeout(pause).is_err(), "nothing is published meanwhile");
        next.send(()).unwrap();
        assert!(shown.recv_timeout(Duration::from_millis(50)).is_err(), "the model has not seen frame {n} yet");
        go.send(()).unwrap();
        let picture = shown.recv_timeout(DEADLINE).unwrap();
        assert_eq!(picture.luma > 128, n % 2 == 1, "frame {n}: {picture:?}");
        wait_until("the frame is settled", || status.ledger.counts().captured() == n + 1);
        assert_eq!(status.state(), StreamState::Live, "{:?}", status.condition());
    }
    stream.stop();
    stream.join().unwrap();
    assert_closed(&status, 3);
}

#[test]
fn a_failing_and_a_panicking_model_cost_their_batch_and_nothing_else() {
    let (pool, made) = pool(1, 1, |frames| match frames[0].seq {
        3 => Err(SegmentError::new("fails on purpose")),
        6 => panic!("the segmenter panics on purpose"),
        _ => Ok(()),
    });
    let mut settings = config();
    // A slow machine is no silence of the camera, and no delay.
    (settings.max_latency, settings.silence_timeout) = (DEADLINE, DEADLINE);
    settings.show = Show::Matched;
    let (output, shown) = FakeOutput::new(published());
    let (next, pace) = unbounded();
    let source = ScriptedSource { pace: Some(pace), ..ScriptedSource::file(vec![Step::Frames(10)]) };
    let (stream, status) = start(settings, Pace::Live, source, output, &pool);
    let mut states = Vec::new();
    for n in 0..10 {
        next.send(()).unwrap();
        assert_eq!(shown.recv_timeout(DEADLINE).unwrap().pts, Duration::from_millis(40 * n));
        wait_until("the frame is settled", || status.ledger.counts().captured() == n + 1);
        states.push(status.state());
    }
    stream.stop();
    stream.join().unwrap();
    let stale: Vec<usize> = (0..10).filter(|&n| states[n] == StreamState::Stale).collect();
    assert_eq!(stale, [3, 6], "video goes on, marked: {states:?}");
    assert_eq!(made.load(Ordering::SeqCst), 3, "a new segmenter after each failure");
    assert_eq!(pool.stats().failures.load(Ordering::SeqCst), 2);
    assert_closed(&status, 10);
}

#[test]
fn a_file_ends_with_the_model_s_error() {
    let (pool, _) = pool(2, 1, |frames| match frames[0].seq {
        5 => Err(SegmentError::new("fails on purpose")),
        _ => Ok(()),
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, shown) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(1000)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    let error = stream.join().unwrap_err().to_string();
    assert!(error.contains("frame 5") && error.contains("fails on purpose"), "{error}");
    assert_eq!(shown.try_iter().count(), 5);
    drop(pool);
    assert_closed(&status, status.ledger.counts().captured());
}

#[test]
fn a_file_goes_through_the_model_in_batches_to_its_end() {
    let largest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&largest);
    let (pool, _) = pool(2, 4, move |frames| {
        seen.fetch_max(frames.len(), Ordering::SeqCst);
        Ok(())
    });
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, shown) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(500)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    wait_until("the file has ended", || stream.is_finished());
    stream.join().unwrap();
    let times: Vec<Duration> = shown.try_iter().map(|shown| shown.pts).collect();
    assert_eq!(times, (0..500).map(|n| Duration::from_millis(40 * n)).collect::<Vec<_>>());
    assert!(largest.load(Ordering::SeqCst) > 1, "batches of one frame only");
    assert_closed(&status, 500);
}

#[test]
fn a_batch_larger_than_the_overlay_s_queue_does_not_wait_for_itself() {
    let pool = Pool::idle(2).unwrap();
    pool.install(workers(1, 8, |_| Ok(()))).unwrap();
    let mut settings = config();
    settings.show = Show::Matched;
    let (output, shown) = FakeOutput::new(published());
    let source = ScriptedSource::file(vec![Step::Frames(100)]);
    let (stream, status) = start(settings, Pace::File, source, output, &pool);
    wait_until("the file has ended", || stream.is_finished());
    stream.join().unwrap();
    assert_eq!(shown.try_iter().count(), 100);
    assert_closed(&status, 100);
}

#[test]
fn frames_that_wait_in_several_streams_go_through_the_model_together() {
    let (go, gate) = unbounded();
    let (entered, in_work) = unbounded();
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
            let (output, _shown) = FakeOutput::new(published());
            let source = ScriptedSource { pace: Some(pace.clone()), ..ScriptedSource::file(vec![Step::Frames(20)]) };
            start(settings, Pace::Live, source, output, &pool)
        })
        .collect();
    next.send(()).unwrap();
    in_work.recv_timeout(DEADLINE).unwrap();
    // While the model is on that frame, all three sources play to their ends: each leaves its latest frame.
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
        assert_closed(&status, 20);
    }
    let batches = batches.lock().unwrap();
    let together = batches.iter().map(|batch| batch.iter().collect::<HashSet<_>>().len()).max();
    assert_eq!(together, Some(3), "{batches:?}");
}

#[test]
fn a_source_that_fails_or_panics_is_opened_again_and_the_account_goes_on() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, shown) = FakeOutput::new(published());
    let scripts = vec![
        vec![Step::Frame, Step::Fail("refused on purpose")],
        vec![Step::Frame, Step::Panic],
        vec![Step::Frame, Step::Frame, Step::Silence],
    ];
    let source = ScriptedSource::new(scripts);
    let opened = Arc::clone(&source.opened);
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    shown.recv_timeout(DEADLINE).unwrap();
    wait_until("it is offline", || status.state() == StreamState::Offline);
    assert!(status.condition().reason.unwrap().contains("refused on purpose"));
    wait_until("it is back", || opened.load(Ordering::SeqCst) == 3 && status.ledger.counts().captured() == 4);
    assert_eq!(status.panics(), 1);
    stream.stop();
    stream.join().unwrap();
    assert_closed(&status, 4);
}

/// As GStreamer does with some files that are cut off: neither a frame nor an error comes.
#[test]
fn a_file_whose_first_frame_never_comes_is_given_up() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, _shown) = FakeOutput::new(published());
    let began = std::time::Instant::now();
    let source = ScriptedSource::file(vec![Step::Silence]);
    let (stream, status) = start(config(), Pace::File, source, output, &pool);
    let error = stream.join().unwrap_err().to_string();
    assert!(error.contains("no frame for 30"), "{error}");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(29), "{took:?}");
    assert_eq!(status.failure(), Some(error));
    assert_closed(&status, 0);
}

#[test]
fn a_silent_source_is_offline_and_its_viewers_are_told() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, shown) = FakeOutput::new(published());
    let source = ScriptedSource::new(vec![vec![Step::Frame, Step::Silence]]);
    let opened = Arc::clone(&source.opened);
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    shown.recv_timeout(DEADLINE).unwrap();
    // No frame comes, but pictures do: the slate.
    shown.recv_timeout(DEADLINE).unwrap();
    assert_eq!(status.state(), StreamState::Offline);
    assert!(status.condition().reason.unwrap().contains("no frame for"));
    let counts = status.ledger.counts();
    assert!(counts.published <= opened.load(Ordering::SeqCst) as u64, "a slate is no frame: {counts:?}");
    wait_until("it is tried again", || opened.load(Ordering::SeqCst) >= 2);
    stream.stop();
    stream.join().unwrap();
}

/// The source sends data for longer than it may be silent, and no keyframe.
#[test]
fn a_source_without_a_keyframe_is_waited_for_and_not_opened_again() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, shown) = FakeOutput::new(published());
    let script = vec![Step::Frames(3), Step::NoKeyframe(3000), Step::Frames(4), Step::NoKeyframe(60_000)];
    let source = ScriptedSource::new(vec![script]);
    let opened = Arc::clone(&source.opened);
    let config = config();
    assert!(config.silence_timeout < Duration::from_secs(3));
    let (stream, status) = start(config, Pace::Live, source, output, &pool);
    let published = || status.ledger.counts().captured();
    wait_until("it waits for a keyframe", || status.state() == StreamState::AwaitsKeyframe && published() == 3);
    assert!(status.condition().reason.unwrap().contains("keyframe interval"));
    // Pictures come that are no frames: they say what is waited for.
    shown.try_iter().count();
    shown.recv_timeout(DEADLINE).unwrap();
    assert_eq!((status.state(), published()), (StreamState::AwaitsKeyframe, 3));
    wait_until("frames come again", || published() == 7);
    wait_until("it waits again", || status.state() == StreamState::AwaitsKeyframe);
    assert_eq!(opened.load(Ordering::SeqCst), 1, "the connection is the first one");
    stream.stop();
    stream.join().unwrap();
}

#[test]
fn busy_failing_and_panicking_outputs_lose_only_their_picture() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (output, shown) = FakeOutput::new(|n| match n {
        2 => Ok(Accepted::Busy),
        4 => Err(OutputError("fails on purpose".into())),
        6 => panic!("the output panics on purpose"),
        _ => Ok(Accepted::Published),
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
    assert_eq!(shown.try_iter().count(), 7);
    assert_closed(&status, 10);
}

#[test]
fn a_slow_output_makes_a_full_rate_stream_drop_the_oldest() {
    let (pool, _) = pool(1, 1, |_| Ok(()));
    let (go, gate) = bounded::<()>(0);
    let (output, shown) = FakeOutput::new(move |_| {
        gate.recv_timeout(DEADLINE).map_err(|_| OutputError("over".into()))?;
        Ok(Accepted::Published)
    });
    let source = ScriptedSource::file(vec![Step::Frames(30)]);
    let (stream, status) = start(config(), Pace::Live, source, output, &pool);
    wait_until("the source ends", || status.condition().ended);
    assert!(status.ledger.counts().dropped_for(DropReason::OverlayBusy) >= 27);
    // At most one picture in work and two waiting; the last of them is the newest.
    let newest = (0..3).any(|_| {
        go.send_timeout((), DEADLINE).unwrap();
        shown.recv_timeout(DEADLINE).unwrap().pts == Duration::from_millis(40 * 29)
    });
    assert!(newest, "the newest is shown");
    drop(go);
    stream.stop();
    stream.join().unwrap();
    assert_closed(&status, 30);
}
