use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select};

use super::worker::{TakenJob, deliver, take};
use super::*;
use crate::base::queue::{self, WhenFull, queue};
use crate::base::status::Status;
use crate::base::timing::Elapsed;
use crate::frame::{Frame, Mask, OwnedImage, PixelFormat, VideoInfo};
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
    };
    Request { frame, entry: Some(status.ledger.open()) }
}

/// Does to each batch what its function says.
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
        };
        Ok(Segmented {
            masks: frames.iter().map(mask).collect(),
            preprocess: Elapsed::default(),
            run: Elapsed::default(),
        })
    }
}

/// A lane whose frames each wait for their mask, and both its ends.
fn matched_lane(
    requests: usize,
    room: usize,
    when_full: WhenFull,
) -> (Arc<Status>, queue::Sender<Request>, InferenceQueue, Receiver<Matched>) {
    let status = Arc::new(Status::new("test"));
    let (sender, waiting) = queue(requests, when_full);
    let (promises, overlay) = queue(room, when_full);
    let lane = InferenceQueue::new(Arc::clone(&status), waiting, InferenceOutput::Matched(promises));
    (status, sender, lane, overlay)
}

#[test]
fn a_lane_without_room_is_passed_over_and_ready_again_when_there_is_some() {
    let (status, requests, lane, overlay) = matched_lane(3, 1, WhenFull::Block);
    let lane = Arc::new(lane);
    (0..3).for_each(|seq| assert!(requests.send(request(&status, seq)).is_ok()));
    let TakenJob::Job(first) = take(&lane) else { panic!("the first frame waits") };
    // The overlay's queue is full now, of a frame in this worker's batch.
    assert!(matches!(take(&lane), TakenJob::Nothing), "the worker continues with the batch that it has");
    let mut select = Select::new();
    lane.wait_in(&mut select);
    assert!(select.try_ready().is_err(), "requests wait, and there is no room");
    deliver(*first, Err(NoMask::NotReady));
    drop(overlay.recv_timeout(DEADLINE).unwrap());
    let mut select = Select::new();
    lane.wait_in(&mut select);
    assert!(select.try_ready().is_ok());
    assert!(matches!(take(&lane), TakenJob::Job(_)));
}

/// A file at full speed whose output takes nothing, beside a live stream, with one worker for both.
#[test]
fn a_file_with_a_slow_output_does_not_keep_the_worker_from_live_streams() {
    let factory = || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Ok(()))) as Box<dyn Segmenter>);
    let pool = Pool::start(1, 1, Box::new(factory)).unwrap();
    let (file, frames, lane, slow) = matched_lane(4, 2, WhenFull::Block);
    pool.add(lane);
    // Two fill the overlay's queue, and then the lane's own is filled: so the worker has tried.
    (0..6).for_each(|seq| assert!(frames.send(request(&file, seq)).is_ok()));
    let (live, requests, lane, shown) = matched_lane(1, 2, WhenFull::DropOldest);
    pool.add(lane);
    for seq in 0..20 {
        assert!(requests.send(request(&live, seq)).is_ok());
        let promised = shown.recv_timeout(DEADLINE).expect("the live stream's frame is taken");
        assert_eq!(promised.mask.recv_timeout(DEADLINE).expect("a mask").unwrap().seq, seq);
    }
    // The file has lost nothing, and continues in order as soon as its output does.
    for seq in 0..6 {
        let promised = slow.recv_timeout(DEADLINE).unwrap();
        assert_eq!(promised.mask.recv_timeout(DEADLINE).unwrap().unwrap().seq, seq);
    }
}

/// As when a file's output fails: the overlay ends with its queue full, and the source waits for room in the lane. A queue
/// without a receiver counts as full, and as ready to be sent to: the workers would turn for ever, the source would wait.
#[test]
fn a_lane_whose_overlay_has_ended_closes() {
    let factory = || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Ok(()))) as Box<dyn Segmenter>);
    let pool = Pool::start(2, 1, Box::new(factory)).unwrap();
    let (status, requests, lane, overlay) = matched_lane(2, 2, WhenFull::Block);
    pool.add(lane);
    (0..4).for_each(|seq| assert!(requests.send(request(&status, seq)).is_ok()));
    let (waits, waiting) = bounded(1);
    let (closed, outcome) = bounded(1);
    let source = Arc::clone(&status);
    std::thread::spawn(move || {
        // Frames that the workers take out of the lane make room for a few more; only a closed lane refuses one.
        let refused = (4..).any(|seq| {
            let sent = requests.send_blocking(request(&source, seq), Duration::from_millis(1), || {
                let _ = waits.try_send(());
            });
            sent.is_err()
        });
        let _ = closed.send(refused);
    });
    waiting.recv_timeout(DEADLINE).expect("the source waits for room");
    drop(overlay);
    let failed = outcome.recv_timeout(DEADLINE).expect("the closed lane refuses a frame");
    assert!(failed);
    assert!(lock(&pool.shared.lanes).is_empty(), "no worker is occupied by it");
}

#[test]
fn a_worker_survives_a_factory_that_panics() {
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
    let (status, requests, lane, shown) = matched_lane(1, 2, WhenFull::DropOldest);
    pool.add(lane);
    let answer = |seq| {
        assert!(requests.send(request(&status, seq)).is_ok());
        let promised = shown.recv_timeout(DEADLINE).expect("the worker takes the frame");
        let mask = promised.mask.recv_timeout(DEADLINE).expect("the worker answers");
        mask.map(|mask| mask.seq).map_err(|error| error.to_string())
    };
    assert_eq!(answer(0), Err("fails on purpose".into()));
    assert_eq!(answer(1), Err("preparing the model panicked: the factory panics on purpose".into()));
    assert_eq!(answer(2), Ok(2));
    assert_eq!(pool.stuck(RUN_LIMIT, MAKE_LIMIT), None);
}

#[test]
fn a_factory_that_panics_leaves_the_workers_before_in_place() {
    let factory = || Ok(Box::new(ScriptedSegmenter(|_: &[Frame]| Ok(()))) as Box<dyn Segmenter>);
    let pool = Pool::start(1, 1, Box::new(factory)).unwrap();
    let crew = WorkerSpec { workers: 1, max_batch: 1, factory: Box::new(|| panic!("the library panics on purpose")) };
    let error = pool.install(crew).unwrap_err().to_string();
    assert_eq!(error, "preparing the model panicked: the library panics on purpose");
    let (status, requests, lane, shown) = matched_lane(1, 2, WhenFull::DropOldest);
    pool.add(lane);
    assert!(requests.send(request(&status, 7)).is_ok());
    assert_eq!(shown.recv_timeout(DEADLINE).unwrap().mask.recv_timeout(DEADLINE).unwrap().unwrap().seq, 7);
}

#[test]
fn a_worker_that_does_not_return_is_told() {
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
    let (status, requests, lane, shown) = matched_lane(1, 2, WhenFull::DropOldest);
    pool.add(lane);
    assert!(requests.send(request(&status, 0)).is_ok());
    running.recv_timeout(DEADLINE).unwrap();
    let stuck = pool.stuck(Duration::ZERO, MAKE_LIMIT).expect("it is on a batch");
    assert!(stuck.starts_with("segmentation worker 0 has been trying to run the model"), "{stuck}");
    assert_eq!(pool.stuck(RUN_LIMIT, MAKE_LIMIT), None);
    drop(go);
    assert!(shown.recv_timeout(DEADLINE).unwrap().mask.recv_timeout(DEADLINE).unwrap().is_ok());
}
