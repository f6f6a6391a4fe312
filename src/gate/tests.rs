use super::*;

const SIDE: usize = 32;

/// A grey image in which a square of 8 × 8 pixels is white at this place.
fn picture(square: Option<usize>) -> Vec<u8> {
    let is_white = |at: usize| square.is_some_and(|left| (left..left + 8).contains(&(at % SIDE)) && at / SIDE < 8);
    (0..SIDE * SIDE).flat_map(|at| [if is_white(at) { 255 } else { 90 }; 3]).collect()
}

/// A stream with its clock.
struct Stream {
    gate: Gate,
    start: Instant,
    model: ModelId,
}

impl Stream {
    fn new() -> Self {
        Stream { gate: Gate::default(), start: Instant::now(), model: model() }
    }

    fn judge_at(&self, seq: u64, ms: u64, rgb: &[u8]) -> Verdict {
        self.judge_by(&self.model, (640, 360), seq, ms, rgb)
    }

    fn judge_by(&self, model: &ModelId, video: (usize, usize), seq: u64, ms: u64, rgb: &[u8]) -> Verdict {
        let captured_at = self.start + Duration::from_millis(ms);
        self.gate.judge(&GateInput { seq, captured_at, video, model, rgb, width: SIDE, height: SIDE })
    }

    /// Frame `seq` of 25 a second.
    fn judge(&self, seq: u64, rgb: &[u8]) -> Verdict {
        self.judge_at(seq, 40 * seq, rgb)
    }

    fn keep(&self, verdict: Verdict, class: u8) {
        self.gate.keep(*run(verdict), mask(class));
    }
}

fn model() -> ModelId {
    Arc::new("a model".to_owned())
}

fn mask(class: u8) -> GatedMask {
    GatedMask { width: 2, height: 2, classes: [class; 4].into() }
}

fn run(verdict: Verdict) -> Box<GatedImage> {
    match verdict {
        Verdict::Run(image) => image,
        Verdict::Still(_) => panic!("the mask was confirmed"),
    }
}

/// The class of the confirmed mask; `None` if the model has to run.
fn class(verdict: Verdict) -> Option<u8> {
    match verdict {
        Verdict::Still(mask) => Some(mask.classes[0]),
        Verdict::Run(_) => None,
    }
}

#[test]
fn a_mask_is_confirmed_until_something_moves() {
    let stream = Stream::new();
    let still = picture(None);
    let first = stream.judge(0, &still);
    assert!(matches!(stream.judge(1, &still), Verdict::Run(_)), "the first run has no result yet");
    stream.keep(first, 1);
    for seq in 2..10 {
        assert_eq!(class(stream.judge(seq, &still)), Some(1), "frame {seq}");
    }
    // A busy scene is never starved: the model runs for each of its frames.
    for seq in 10..300 {
        let verdict = stream.judge(seq, &picture(Some(seq as usize % 24)));
        stream.keep(verdict, 2);
    }
    assert_eq!(class(stream.judge(300, &picture(Some(299 % 24)))), Some(2), "it has stopped");
}

#[test]
fn the_model_runs_at_least_once_a_second() {
    let stream = Stream::new();
    let still = picture(None);
    stream.keep(stream.judge(0, &still), 1);
    let runs: Vec<u64> = (1..100)
        .filter(|&seq| match stream.judge(seq, &still) {
            Verdict::Still(_) => false,
            run => {
                stream.keep(run, 1);
                true
            }
        })
        .collect();
    assert_eq!(runs, [25, 50, 75]);
}

#[test]
fn while_one_worker_runs_the_model_for_the_ceiling_the_others_need_not() {
    let stream = Stream::new();
    let still = picture(None);
    stream.keep(stream.judge(0, &still), 1);
    let ceiling = stream.judge(25, &still);
    assert!(matches!(ceiling, Verdict::Run(_)));
    assert_eq!(class(stream.judge(26, &still)), Some(1));
    stream.keep(ceiling, 2);
    assert_eq!(class(stream.judge(27, &still)), Some(2));
    // A run that fails has no result: the next one is a second later.
    let failed = stream.judge(50, &still);
    assert!(matches!(failed, Verdict::Run(_)));
    assert_eq!(class(stream.judge(74, &still)), Some(2));
    assert_eq!(class(stream.judge(75, &still)), None);
}

#[test]
fn workers_that_finish_out_of_order_do_not_go_back() {
    let stream = Stream::new();
    let (left, right) = (picture(Some(0)), picture(Some(16)));
    let (older, newer) = (stream.judge(1, &left), stream.judge(2, &right));
    stream.keep(newer, 2);
    stream.keep(older, 1);
    assert_eq!(class(stream.judge(3, &right)), Some(2));
    assert_eq!(class(stream.judge(4, &left)), None, "the older run is not the reference");
    // A frame that another worker took before the last run.
    assert_eq!(class(stream.judge(1, &right)), None);
    assert_eq!(class(stream.judge(2, &right)), None);
}

#[test]
fn a_mask_of_another_model_or_size_of_the_video_is_not_confirmed() {
    let stream = Stream::new();
    let still = picture(None);
    stream.keep(stream.judge(0, &still), 1);
    let other = model();
    assert_eq!(class(stream.judge_by(&other, (640, 360), 1, 40, &still)), None);
    assert_eq!(class(stream.judge_by(&stream.model, (360, 640), 2, 80, &still)), None);
    assert_eq!(class(stream.judge(3, &still)), Some(1), "neither has changed the reference");
    stream.keep(stream.judge_by(&other, (640, 360), 4, 160, &still), 7);
    assert_eq!(class(stream.judge_by(&other, (640, 360), 5, 200, &still)), Some(7));
    // A worker of the old model, which finishes last.
    assert_eq!(class(stream.judge(6, &still)), None);
}

#[test]
fn an_image_that_is_smaller_than_a_block_is_not_judged() {
    let stream = Stream::new();
    let input = |seq| GateInput {
        seq,
        captured_at: stream.start,
        video: (3, 3),
        model: &stream.model,
        rgb: &[0; 27],
        width: 3,
        height: 3,
    };
    stream.keep(stream.gate.judge(&input(0)), 1);
    assert_eq!(class(stream.gate.judge(&input(1))), None);
}
