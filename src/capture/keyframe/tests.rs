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

/// A gate, and its time.
struct GateScript {
    gate: KeyframeGate,
    start: Instant,
}

impl GateScript {
    fn new() -> Self {
        GateScript { gate: KeyframeGate::default(), start: Instant::now() }
    }

    /// Running, after a first keyframe.
    fn flowing() -> Self {
        let play = GateScript::new();
        assert_eq!(play.unit(key(0), 0), GateDecision::Pass);
        assert!(play.shows(0, 0));
        play
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn unit(&self, unit: CodedUnit, now: u64) -> GateDecision {
        self.gate.judge(unit, self.at(now))
    }

    fn shows(&self, pts: u64, now: u64) -> bool {
        self.gate.shows(at(pts), false, self.at(now))
    }

    fn wait(&self, now: u64) -> Option<(u64, u64)> {
        let wait = self.gate.wait(self.at(now))?;
        Some((wait.lasting.as_millis() as u64, wait.silent.as_millis() as u64))
    }
}

#[test]
fn joined_in_the_middle_of_a_group_everything_up_to_the_keyframe_is_dropped() {
    let play = GateScript::new();
    assert_eq!(play.wait(500), None, "nothing has come: that is silence");
    assert_eq!(play.unit(delta(1000), 1000), GateDecision::DropFirst);
    assert_eq!(play.wait(1500), Some((500, 500)));
    for n in 1..200 {
        assert_eq!(play.unit(delta(1000 + 67 * n), 1000 + 67 * n), GateDecision::Drop);
    }
    assert_eq!(play.wait(14_400), Some((13_400, 67)), "the camera is alive");
    assert_eq!(play.unit(key(15_000), 15_000), GateDecision::Pass);
    assert_eq!(play.wait(15_010), Some((14_010, 10)), "the decoder has given no picture yet");
    assert!(play.shows(15_000, 15_020));
    assert_eq!(play.wait(15_030), None);
    assert_eq!(play.unit(delta(15_067), 15_067), GateDecision::Pass);
}

#[test]
fn a_camera_that_begins_with_a_keyframe_is_never_waited_for() {
    let play = GateScript::new();
    assert_eq!(play.unit(key(0), 0), GateDecision::Pass);
    assert_eq!(play.wait(5_000), None);
    assert!(play.shows(0, 5_000));
}

#[test]
fn a_loss_closes_the_gate_until_the_next_keyframe() {
    for reported in ["by the packets", "by a flag"] {
        let play = GateScript::flowing();
        assert_eq!(play.unit(delta(67), 67), GateDecision::Pass);
        let by_flag = reported == "by a flag";
        if !by_flag {
            play.gate.lose(at(67), at(200), 0);
        }
        assert_eq!(play.unit(CodedUnit { discont: by_flag, ..delta(200) }, 200), GateDecision::DropFirst, "{reported}");
        assert_eq!(play.unit(delta(267), 267), GateDecision::Drop);
        assert_eq!(play.wait(300), Some((100, 33)));
        assert!(!play.shows(67, 310), "what the decoder had kept back is old by now");
        assert_eq!(play.unit(key(2000), 2000), GateDecision::Pass);
        assert!(play.shows(2000, 2010));
    }
}

#[test]
fn a_loss_right_before_a_keyframe_costs_nothing_more() {
    let play = GateScript::flowing();
    play.gate.lose(at(67), at(133), 0);
    assert_eq!(play.unit(key(200), 200), GateDecision::Pass);
    assert_eq!(play.wait(210), None);
    assert_eq!(play.unit(delta(267), 267), GateDecision::Pass);
}

/// The keyframe's first packets are there, the next are lost.
#[test]
fn a_keyframe_that_is_cut_opens_nothing() {
    let play = GateScript::flowing();
    play.gate.lose(at(200), at(200), 0);
    assert_eq!(play.unit(key(200), 200), GateDecision::DropFirst);
    assert_eq!(play.unit(delta(267), 267), GateDecision::Drop);
    assert_eq!(play.unit(key(400), 400), GateDecision::Pass);
    assert!(play.shows(400, 410));
    // As the parser says.
    assert_eq!(play.unit(CodedUnit { corrupted: true, ..key(467) }, 467), GateDecision::DropFirst);
}

#[test]
fn pictures_from_before_the_keyframe_are_not_shown() {
    let play = GateScript::new();
    play.unit(delta(0), 0);
    play.unit(key(400), 400);
    // Shown before the keyframe, sent after it (open group of pictures).
    assert!(!play.shows(267, 410) && !play.shows(333, 420));
    assert!(play.shows(400, 430) && play.shows(467, 440));
    // A clock that was set back: frames are shown again after a while.
    let play = GateScript::new();
    play.unit(key(1_000_000), 0);
    let shown = (0..200).position(|n| play.shows(40 * n, 40 * n));
    assert_eq!(shown, Some(LEADING_LIMIT as usize));
}

#[test]
fn pictures_that_the_decoder_marks_are_not_shown() {
    let play = GateScript::new();
    play.unit(key(0), 0);
    let marked = |pts, now| play.gate.shows(at(pts), true, play.at(now));
    assert!(!marked(0, 10) && !marked(67, 77));
    assert_eq!(play.wait(80).map(|wait| wait.0), Some(70), "a picture that is refreshed part by part");
    assert!(play.shows(133, 143));
    assert_eq!(play.wait(150), None);
    // References broke in the middle.
    assert!(!marked(200, 210));
    assert_eq!(play.unit(delta(267), 267), GateDecision::Drop);
    assert_eq!(play.unit(key(333), 333), GateDecision::Pass);
    // A decoder that marks every frame is ignored after a while.
    assert!(!marked(333, 343));
    assert!(marked(25_000, 333 + CORRUPTED_LIMIT.as_millis() as u64));
}

#[test]
fn parameters_pass_and_open_nothing() {
    let play = GateScript::new();
    assert_eq!(play.unit(CodedUnit { header: true, ..delta(0) }, 0), GateDecision::Pass);
    assert!(!play.shows(0, 1), "nor is anything shown that came with them");
    assert_eq!(play.unit(delta(0), 1), GateDecision::DropFirst);
}

#[test]
fn pictures_that_no_decoder_made_are_shown() {
    let play = GateScript::new();
    assert!(play.shows(0, 0) && play.gate.shows(None, true, play.at(40)));
    assert_eq!(play.wait(1000), None);
}

/// The parser holds the last picture before a loss back until it has seen the next one.
#[test]
fn a_whole_picture_before_a_loss_is_shown() {
    let play = GateScript::flowing();
    play.gate.lose(None, None, 1);
    assert_eq!(play.unit(delta(67), 67), GateDecision::Pass);
    assert_eq!(play.unit(delta(200), 200), GateDecision::DropFirst);
    // It is a keyframe, and what follows refers to the lost picture all the same.
    let play = GateScript::flowing();
    play.gate.lose(None, None, 1);
    assert_eq!(play.unit(key(67), 67), GateDecision::Pass);
    assert_eq!(play.unit(delta(200), 200), GateDecision::DropFirst);
}
