use super::*;

fn at(millis: u64) -> Option<gst::ClockTime> {
    Some(gst::ClockTime::from_mseconds(millis))
}

fn delta(pts: u64) -> CodedUnit {
    CodedUnit { delta: true, pts: at(pts), ..CodedUnit::default() }
}

fn key(pts: u64) -> CodedUnit {
    CodedUnit { pts: at(pts), ..CodedUnit::default() }
}

/// A gate, and the start of its time.
struct GateScript {
    gate: KeyframeGate,
    start: Instant,
}

impl GateScript {
    fn new() -> Self {
        GateScript { gate: KeyframeGate::default(), start: Instant::now() }
    }

    /// A gate after its first keyframe.
    fn flowing() -> Self {
        let script = GateScript::new();
        assert_eq!(script.unit(key(0), 0), GateDecision::Pass);
        assert!(script.allows(0, 0));
        script
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn unit(&self, unit: CodedUnit, now: u64) -> GateDecision {
        self.gate.decide(unit, self.at(now))
    }

    fn allows(&self, pts: u64, now: u64) -> bool {
        self.gate.allows(at(pts), false, self.at(now))
    }

    fn wait(&self, now: u64) -> Option<(u64, u64)> {
        let wait = self.gate.wait(self.at(now))?;
        Some((wait.elapsed.as_millis() as u64, wait.since_data.as_millis() as u64))
    }
}

#[test]
fn delta_units_before_the_first_keyframe_are_dropped() {
    let script = GateScript::new();
    assert_eq!(script.wait(500), None, "no data has come");
    assert_eq!(script.unit(delta(1000), 1000), GateDecision::DropFirst);
    assert_eq!(script.wait(1500), Some((500, 500)));
    for n in 1..200 {
        assert_eq!(script.unit(delta(1000 + 67 * n), 1000 + 67 * n), GateDecision::Drop);
    }
    assert_eq!(script.wait(14_400), Some((13_400, 67)), "data comes");
    assert_eq!(script.unit(key(15_000), 15_000), GateDecision::Pass);
    assert_eq!(script.wait(15_010), Some((14_010, 10)), "the decoder has output no frame yet");
    assert!(script.allows(15_000, 15_020));
    assert_eq!(script.wait(15_030), None);
    assert_eq!(script.unit(delta(15_067), 15_067), GateDecision::Pass);
}

#[test]
fn there_is_no_wait_for_a_camera_that_begins_with_a_keyframe() {
    let script = GateScript::new();
    assert_eq!(script.unit(key(0), 0), GateDecision::Pass);
    assert_eq!(script.wait(5_000), None);
    assert!(script.allows(0, 5_000));
}

#[test]
fn a_loss_closes_the_gate_until_the_next_keyframe() {
    for reported in ["by an event", "by a flag"] {
        let script = GateScript::flowing();
        assert_eq!(script.unit(delta(67), 67), GateDecision::Pass);
        let by_flag = reported == "by a flag";
        if !by_flag {
            script.gate.record_loss(at(67), at(200), 0);
        }
        assert_eq!(
            script.unit(CodedUnit { discont: by_flag, ..delta(200) }, 200),
            GateDecision::DropFirst,
            "{reported}"
        );
        assert_eq!(script.unit(delta(267), 267), GateDecision::Drop);
        assert_eq!(script.wait(300), Some((100, 33)));
        assert!(!script.allows(67, 310), "a frame that the decoder had delayed is old");
        assert_eq!(script.unit(key(2000), 2000), GateDecision::Pass);
        assert!(script.allows(2000, 2010));
    }
}

#[test]
fn a_loss_right_before_a_keyframe_drops_no_further_frame() {
    let script = GateScript::flowing();
    script.gate.record_loss(at(67), at(133), 0);
    assert_eq!(script.unit(key(200), 200), GateDecision::Pass);
    assert_eq!(script.wait(210), None);
    assert_eq!(script.unit(delta(267), 267), GateDecision::Pass);
}

/// The first packets of the keyframe have come, others are lost.
#[test]
fn an_incomplete_keyframe_does_not_open_the_gate() {
    let script = GateScript::flowing();
    script.gate.record_loss(at(200), at(200), 0);
    assert_eq!(script.unit(key(200), 200), GateDecision::DropFirst);
    assert_eq!(script.unit(delta(267), 267), GateDecision::Drop);
    assert_eq!(script.unit(key(400), 400), GateDecision::Pass);
    assert!(script.allows(400, 410));
    // As marked by the parser.
    assert_eq!(script.unit(CodedUnit { corrupted: true, ..key(467) }, 467), GateDecision::DropFirst);
}

#[test]
fn decoded_frames_from_before_the_keyframe_are_not_shown() {
    let script = GateScript::new();
    script.unit(delta(0), 0);
    script.unit(key(400), 400);
    // With timestamps before the keyframe, sent after it (open group of pictures).
    assert!(!script.allows(267, 410) && !script.allows(333, 420));
    assert!(script.allows(400, 430) && script.allows(467, 440));
    // After the clock of the source was set back, frames are shown again after a limit.
    let script = GateScript::new();
    script.unit(key(1_000_000), 0);
    let shown = (0..200).position(|n| script.allows(40 * n, 40 * n));
    assert_eq!(shown, Some(LEADING_LIMIT as usize));
}

#[test]
fn frames_that_the_decoder_marks_as_corrupted_are_not_shown() {
    let script = GateScript::new();
    script.unit(key(0), 0);
    let marked = |pts, now| script.gate.allows(at(pts), true, script.at(now));
    assert!(!marked(0, 10) && !marked(67, 77));
    assert_eq!(script.wait(80).map(|wait| wait.0), Some(70), "a gradual refresh");
    assert!(script.allows(133, 143));
    assert_eq!(script.wait(150), None);
    // A reference is missing later on.
    assert!(!marked(200, 210));
    assert_eq!(script.unit(delta(267), 267), GateDecision::Drop);
    assert_eq!(script.unit(key(333), 333), GateDecision::Pass);
    // The marks of a decoder that marks every frame are ignored after a limit.
    assert!(!marked(333, 343));
    assert!(marked(25_000, 333 + CORRUPTED_LIMIT.as_millis() as u64));
}

#[test]
fn parameters_pass_and_do_not_open_the_gate() {
    let script = GateScript::new();
    assert_eq!(script.unit(CodedUnit { header: true, ..delta(0) }, 0), GateDecision::Pass);
    assert!(!script.allows(0, 1), "a frame that came with them is not shown");
    assert_eq!(script.unit(delta(0), 1), GateDecision::DropFirst);
}

#[test]
fn frames_are_shown_if_there_is_no_decoder() {
    let script = GateScript::new();
    assert!(script.allows(0, 0) && script.gate.allows(None, true, script.at(40)));
    assert_eq!(script.wait(1000), None);
}

/// The parser delays the last frame before a loss until the next one has come.
#[test]
fn a_complete_frame_before_a_loss_is_shown() {
    let script = GateScript::flowing();
    script.gate.record_loss(None, None, 1);
    assert_eq!(script.unit(delta(67), 67), GateDecision::Pass);
    assert_eq!(script.unit(delta(200), 200), GateDecision::DropFirst);
    // The same with a keyframe: the frames after it refer to the lost one.
    let script = GateScript::flowing();
    script.gate.record_loss(None, None, 1);
    assert_eq!(script.unit(key(67), 67), GateDecision::Pass);
    assert_eq!(script.unit(delta(200), 200), GateDecision::DropFirst);
}
