use super::*;
use crate::frame::{OwnedPicture, PixelFormat, VideoInfo};
use crate::queue::{WhenFull, queue};

const DEADLINE: Duration = Duration::from_secs(30);

fn request(status: &Status, seq: u64) -> Request {
    let frame = Frame {
        stream: "test".into(),
        seq,
        pts: Duration::ZERO,
        captured_at: Instant::now(),
        pixels: Arc::new(OwnedPicture::new(VideoInfo::new(PixelFormat::I420, 2, 2), 0)),
    };
    Request { frame, entry: Some(status.ledger.open()) }
}

#[test]
fn a_worker_with_a_batch_does_not_wait_for_one_that_waits_for_the_overlay() {
    let status = Arc::new(Status::new("test"));
    let (requests, waiting) = queue(3, WhenFull::Block);
    let (promises, overlay) = queue(1, WhenFull::Block);
    let lane = Arc::new(Lane::new(Arc::clone(&status), waiting, LaneOutput::Matched(promises)));
    (0..3).for_each(|seq| assert!(requests.send(request(&status, seq)).is_ok()));
    // The overlay's queue is full now, of a frame in this worker's batch.
    let Taken::Job(first) = take(&lane, true) else { panic!("the first frame waits") };
    // Another worker waits for room, and keeps the lane to itself meanwhile.
    let other = Arc::clone(&lane);
    let waiter = std::thread::spawn(move || matches!(take(&other, true), Taken::Job(_)));
    let deadline = Instant::now() + DEADLINE;
    while lane.try_lock().is_some() {
        assert!(Instant::now() < deadline, "the other worker never came");
        std::thread::yield_now();
    }
    let (done, answered) = bounded(1);
    let same = Arc::clone(&lane);
    std::thread::spawn(move || done.send(matches!(take(&same, false), Taken::Nothing)));
    let answer = answered.recv_timeout(DEADLINE);
    // The first frame's mask comes, the overlay goes on, and so does the other worker.
    deliver(*first, Err(NoMask::NotReady));
    drop(overlay.recv_timeout(DEADLINE).unwrap());
    assert!(waiter.join().unwrap());
    assert_eq!(answer, Ok(true), "it goes on with the batch that it has");
}
