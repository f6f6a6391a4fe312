use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select};

use super::worker::{TakenJob, deliver, take};
use super::*;
use crate::base::queue::{self, WhenFull, queue};
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::base::timing::{Elapsed, Stage};
use crate::frame::{Crop, Frame, Mask, OwnedImage, PixelFormat, Tiles, VideoInfo};
use crate::segment::{Segmented, Segmenter};

/// Guards against hanging.
const DEADLINE: Duration = Duration::from_secs(180);

fn request(status: &Status, seq: u64) -> Request {
    let frame = Frame {
        stream: "test".into(),
        seq,
        pts: Duration::ZERO,
        captured_at: Instant::now(),
        pixels: Arc::new(OwnedImage::new(VideoInfo::new(PixelFormat::I420, 2, 2), 0)),
        bias: None,
        gate: None,
        crop: Crop::default(),
        tiles: Tiles::default(),
    };
    Request { frame, entry: Some(status.ledger.open()) }
}

/// Calls a function with each batch.
struct ScriptedSegmenter<F>(F);

impl<F: FnMut(&[Frame]) -> Result<(), SegmentError> + Send> Segmenter for ScriptedSegmenter<F> {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        (self.0)(frames)?;
        let mask = |frame: &Frame| Mask {
            seq: frame.seq,
            pts: frame.pts,
            captured_at: frame.captured_at,
            width: 1,
            height: 1,
            classes: vec![0],
            labels: [].into(),
            model: "fake".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        };
        Ok(Segmented {
            masks: frames.iter().map(mask).collect(),
            preprocess: Elapsed::default(),
            run: Elapsed::default(),
        })
    }
}

/// Whether creating a segmenter panicked with `expected`.
fn is_preparation_panic(error: &SegmentError, expected: &str) -> bool {
    matches!(error, SegmentError::PreparationPanic(text) if text == expected)
}

/// A queue with `show = "matched"`, the sender of its requests and the receiver of its overlay.
fn matched_queue(
    requests: usize,
    room: usize,
    when_full: WhenFull,
) -> (Arc<Status>, queue::Sender<Request>, InferenceQueue, Receiver<Matched>) {
    let status = Arc::new(Status::new("test"));
    let (sender, waiting) = queue(requests, when_full);
    let (frames, overlay) = queue(room, when_full);
    let inference_queue = InferenceQueue::new(
        Arc::clone(&status),
        waiting,
        Arc::default(),
        InferenceOutput::Matched(frames),
        Stop::default(),
    );
    (status, sender, inference_queue, overlay)
}

#[test]
fn a_queue_without_room_in_its_overlay_is_skipped_until_there_is_room() {
    let (status, requests, inference_queue, overlay) = matched_queue(3, 1, WhenFull::Block);
    let inference_queue = Arc::new(inference_queue);
    (0..3).for_each(|seq| assert!(requests.send(request(&status, seq)).is_ok()));
    let TakenJob::Job(first) = take(&inference_queue) else { panic!("the first frame waits") };
    // The queue of the overlay is full now, with a frame of the batch of this worker.
    assert!(matches!(take(&inference_queue), TakenJob::Nothing), "the worker continues with the batch that it has");
    let mut select = Select::new();
    inference_queue.register_in(&mut select);
    assert!(select.try_ready().is_err(), "requests wait, and the overlay has no room");
    deliver(*first, Err(NoMask::NotReady));
    drop(overlay.recv_timeout(DEADLINE).unwrap());
    let mut select = Select::new();
    inference_queue.register_in(&mut select);
    assert!(select.try_ready().is_ok());
    assert!(matches!(take(&inference_queue), TakenJob::Job(_)));
}

/// A file at full speed whose output is blocked, and a live stream, with one worker for both.
#[test]
fn a_file_with_a_blocked_output_does_not_block_live_streams() {
    let factory = || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Ok(()))) as Box<dyn Segmenter>);
    let pool = Pool::start(1, 1, Box::new(factory)).unwrap();
    let (file, frames, file_queue, slow) = matched_queue(4, 2, WhenFull::Block);
    pool.add(file_queue);
    // Two frames fill the queue of the overlay and four the inference queue, so the worker has tried to take more.
    (0..6).for_each(|seq| assert!(frames.send(request(&file, seq)).is_ok()));
    let (live, requests, live_queue, shown) = matched_queue(1, 2, WhenFull::DropOldest);
    pool.add(live_queue);
    for seq in 0..20 {
        assert!(requests.send(request(&live, seq)).is_ok());
        let matched = shown.recv_timeout(DEADLINE).expect("the live stream's frame is taken");
        assert_eq!(matched.mask.recv_timeout(DEADLINE).expect("a mask").unwrap().seq, seq);
    }
    // No frame of the file is lost; it continues in order when its output does.
    for seq in 0..6 {
        let matched = slow.recv_timeout(DEADLINE).unwrap();
        assert_eq!(matched.mask.recv_timeout(DEADLINE).unwrap().unwrap().seq, seq);
    }
}

/// When the output of a file fails, the overlay ends with its queue full, and the source waits for room in the inference queue.
/// A channel without a receiver counts as full and as ready: workers that wait for it would loop and the source would block.
#[test]
fn a_queue_whose_overlay_has_ended_is_closed() {
    let factory = || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Ok(()))) as Box<dyn Segmenter>);
    let pool = Pool::start(2, 1, Box::new(factory)).unwrap();
    let (status, requests, inference_queue, overlay) = matched_queue(2, 2, WhenFull::Block);
    pool.add(inference_queue);
    (0..4).for_each(|seq| assert!(requests.send(request(&status, seq)).is_ok()));
    let (waits, waiting) = bounded(1);
    let (closed, outcome) = bounded(1);
    let source = Arc::clone(&status);
    std::thread::spawn(move || {
        // Frames that the workers take make room for a few more; only a closed queue refuses a frame.
        let refused = (4..).any(|seq| {
            let sent = requests.send_blocking(request(&source, seq), Duration::from_millis(1), || {
                let _ = waits.try_send(());
                true
            });
            sent.is_err()
        });
        let _ = closed.send(refused);
    });
    waiting.recv_timeout(DEADLINE).expect("the source waits for room");
    drop(overlay);
    let failed = outcome.recv_timeout(DEADLINE).expect("the closed queue refuses a frame");
    assert!(failed);
    assert!(pool.shared.queues.lock().is_empty(), "the workers have dropped it");
}

#[test]
fn a_worker_continues_after_a_panic_of_the_factory() {
    let made = AtomicUsize::new(0);
    let factory = move || {
        let attempt = made.fetch_add(1, Ordering::SeqCst);
        assert!(attempt != 1, "the factory panics on purpose");
        let fails_first = attempt == 0;
        Ok(Box::new(ScriptedSegmenter(move |_: &[Frame]| match fails_first {
            true => Err(SegmentError::new("fails on purpose")),
            false => Ok(()),
        })) as Box<dyn Segmenter>)
    };
    let pool = Pool::start(1, 1, Box::new(factory)).unwrap();
    let (status, requests, inference_queue, shown) = matched_queue(1, 2, WhenFull::DropOldest);
    pool.add(inference_queue);
    let answer = |seq| {
        assert!(requests.send(request(&status, seq)).is_ok());
        let matched = shown.recv_timeout(DEADLINE).expect("the worker takes the frame");
        let mask = matched.mask.recv_timeout(DEADLINE).expect("the worker answers");
        mask.map(|mask| mask.seq)
    };
    assert!(matches!(answer(0), Err(NoMask::Failed(SegmentError::Other(text))) if text == "fails on purpose"));
    let panic = answer(1).unwrap_err();
    assert!(
        matches!(&panic, NoMask::Failed(error) if is_preparation_panic(error, "the factory panics on purpose")),
        "{panic}"
    );
    // While the worker pauses, frames get the reason.
    let made = (2..).find_map(|seq| match answer(seq) {
        Ok(made) => Some((made, seq)),
        Err(NoMask::Failed(error)) if is_preparation_panic(&error, "the factory panics on purpose") => None,
        Err(other) => panic!("{other}"),
    });
    assert!(made.is_some_and(|(made, seq)| made == seq));
    assert_eq!(pool.stuck(RUN_LIMIT, MAKE_LIMIT), None);
}

#[test]
fn a_panic_of_the_factory_leaves_the_old_workers_running() {
    let factory = || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Ok(()))) as Box<dyn Segmenter>);
    let pool = Pool::start(1, 1, Box::new(factory)).unwrap();
    let spec = WorkerSpec { workers: 1, max_batch: 1, factory: Box::new(|| panic!("the library panics on purpose")) };
    let error = pool.install(spec).unwrap_err();
    assert!(is_preparation_panic(&error, "the library panics on purpose"), "{error}");
    let (status, requests, inference_queue, shown) = matched_queue(1, 2, WhenFull::DropOldest);
    pool.add(inference_queue);
    assert!(requests.send(request(&status, 7)).is_ok());
    assert_eq!(shown.recv_timeout(DEADLINE).unwrap().mask.recv_timeout(DEADLINE).unwrap().unwrap().seq, 7);
}

/// A live stream and a file at full speed, with one worker whose runs all fail.
#[test]
fn live_frames_and_a_stop_do_not_wait_for_a_worker_that_pauses() {
    let fails =
        || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Err(SegmentError::new("no memory")))) as Box<dyn Segmenter>);
    let pool = Pool::start(1, 1, Box::new(fails)).unwrap();
    let (live, requests, live_queue, shown) = matched_queue(1, 2, WhenFull::DropOldest);
    pool.add(live_queue);
    let answer = |shown: &Receiver<Matched>| {
        let matched = shown.recv_timeout(DEADLINE).expect("the frame is passed on");
        let answer = matched.mask.recv_timeout(DEADLINE).expect("it is answered");
        assert!(matches!(answer, Err(NoMask::Failed(SegmentError::Other(text))) if text == "no memory"));
        matched.frame.seq
    };
    let runs = || pool.stats().runs.load(Ordering::Relaxed);
    let mut seq = 0;
    let pace = crossbeam_channel::tick(Duration::from_millis(5));
    // The pauses between them take seven seconds, the next one eight.
    while runs() < 5 {
        let _ = pace.recv();
        assert!(requests.send(request(&live, seq)).is_ok());
        assert_eq!(answer(&shown), seq, "in order");
        seq += 1;
    }
    assert!(seq > 100, "only {seq} frames were answered while the worker paused");
    let (file, frames, mut file_queue, slow) = matched_queue(4, 2, WhenFull::Block);
    let stop = Stop::default();
    file_queue.stop = stop.clone();
    pool.add(file_queue);
    assert!(frames.send(request(&file, 0)).is_ok());
    // The worker has served the queues again, and not this one.
    for _ in 0..3 {
        assert!(requests.send(request(&live, seq)).is_ok());
        assert_eq!(answer(&shown), seq);
        seq += 1;
    }
    assert!(slow.is_empty(), "a file loses no frame because of a failure");
    stop.raise();
    drop(frames);
    assert_eq!(answer(&slow), 0);
    assert!(slow.recv_timeout(DEADLINE).is_err(), "its queue is closed");
    assert_eq!(runs(), 5, "in the same pause");
}

#[test]
fn stuck_reports_a_worker_that_does_not_return() {
    let (entered, running) = bounded(1);
    let (go, gate) = bounded::<()>(0);
    let factory = move || {
        let (entered, gate) = (entered.clone(), gate.clone());
        Ok(Box::new(ScriptedSegmenter(move |_: &[Frame]| {
            entered.send(()).unwrap();
            let _ = gate.recv();
            Ok(())
        })) as Box<dyn Segmenter>)
    };
    let pool = Pool::start(1, 1, Box::new(factory)).unwrap();
    assert_eq!(pool.stuck(Duration::ZERO, Duration::ZERO), None, "a worker that waits for frames is not stuck");
    let (status, requests, inference_queue, shown) = matched_queue(1, 2, WhenFull::DropOldest);
    pool.add(inference_queue);
    assert!(requests.send(request(&status, 0)).is_ok());
    running.recv_timeout(DEADLINE).unwrap();
    let stuck = pool.stuck(Duration::ZERO, MAKE_LIMIT).expect("the worker runs a batch");
    assert!(stuck.starts_with("segmentation worker 0 has been trying to run the model"), "{stuck}");
    assert_eq!(pool.stuck(RUN_LIMIT, MAKE_LIMIT), None);
    drop(go);
    assert!(shown.recv_timeout(DEADLINE).unwrap().mask.recv_timeout(DEADLINE).unwrap().is_ok());
}

/// Confirms the masks of frames with odd numbers.
struct GatedSegmenter;

impl Segmenter for GatedSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        let mut segmented = ScriptedSegmenter(|_: &[Frame]| Ok(())).segment(frames)?;
        segmented.masks.iter_mut().for_each(|mask| mask.confirmed = mask.seq % 2 == 1);
        Ok(segmented)
    }
}

#[test]
fn confirmed_masks_are_delivered_and_do_not_count_as_runs() {
    let pool = Pool::start(1, 1, Box::new(|| Ok(Box::new(GatedSegmenter) as Box<dyn Segmenter>))).unwrap();
    let (status, requests, inference_queue, shown) = matched_queue(1, 2, WhenFull::DropOldest);
    pool.add(inference_queue);
    for seq in 0..9 {
        assert!(requests.send(request(&status, seq)).is_ok());
        let mask = shown.recv_timeout(DEADLINE).unwrap().mask.recv_timeout(DEADLINE).unwrap().unwrap();
        assert_eq!((mask.seq, mask.confirmed), (seq, seq % 2 == 1));
    }
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&pool.stats().runs), count(&pool.stats().frames)), (5, 5));
    assert_eq!(status.confirmed_masks(), 4);
    assert!((status.confirmed_share() - 4.0 / 9.0).abs() < 1e-9);
    let timed = |stage| status.stage(stage).count();
    assert_eq!((timed(Stage::Preprocess), timed(Stage::Segment)), (9, 5));
}
