//! The evaluation must find each problem in generated data, and none in the data of a good run.

use super::client::Protocol;
use super::evaluate::evaluate;
use super::record::{Account, End, IdlePhase, Recovery, Run, Sample, StreamStatus, Visit};
use super::viewers::Departure;

/// A good run of half an hour with a sample every five seconds. Memory rises at first and is noisy, as encoders start and
/// stop.
fn good() -> Run {
    let mut random = fastrand::Rng::with_seed(1);
    let sample = |n: u64| {
        let at = 5.0 * n as f64;
        let viewers = random.u64(0..6);
        let idle = match n {
            0..4 => Some(IdlePhase::Before),
            356.. => Some(IdlePhase::After),
            _ => None,
        };
        let busy = if idle.is_some() { 0 } else { viewers };
        let pss = 180.0 + 30.0 * (1.0 - (-at / 120.0).exp()) + 8.0 * busy as f64 + 3.0 * random.f64();
        let status = StreamStatus {
            name: "gate".into(),
            state: "live".into(),
            captured: 15 * n,
            published: 14 * n,
            dropped: n,
            in_flight: 2,
            panics: 0,
        };
        Sample {
            at,
            anonymous: pss,
            rss: pss + 40.0,
            pss,
            descriptors: 60 + 5 * busy,
            threads: 50 + 4 * busy,
            idle,
            streams: vec![status],
        }
    };
    let recovery = |n: u64| Recovery {
        camera: "gate".into(),
        fault: "refuse".into(),
        at: 30.0 * n as f64,
        outage: (n % 30) as f64,
        took: Some(0.5 + 0.1 * (n % 20) as f64),
        disturbed: false,
    };
    let visit = |n: u64| Visit {
        stream: "gate".into(),
        protocol: Protocol::RtspTcp,
        departure: Departure::Clean,
        seconds: n as f64,
        frames: 10 * n,
    };
    let account = Account { stream: "gate".into(), captured: 10, published: 9, dropped: 1, in_flight: 0 };
    Run {
        minutes: 30.0,
        samples: (0..360).map(sample).collect(),
        recoveries: (0..60).map(recovery).collect(),
        visits: (0..60).map(visit).collect(),
        end: End { code: Some(0), took: 1.0, accounts: vec![account], ..End::default() },
        ..Run::default()
    }
}

#[test]
fn a_good_run_passes() {
    let verdict = evaluate(&good());
    assert_eq!(verdict.failures, [""; 0]);
    let figures = verdict.figures;
    assert!(figures.memory_slope.unwrap().abs() < 0.5, "{figures:?}");
    assert_eq!((figures.descriptors, figures.threads), ([Some(60), Some(60)], [Some(50), Some(50)]));
    assert_eq!(figures.recovery.count, 60);
}

/// A problem in a run, and a part of the expected failure.
type Problem = (fn(&mut Run), &'static str);

#[test]
fn every_problem_is_found() {
    let problems: [Problem; 18] = [
        (|run| run.end.early = true, "before SIGTERM"),
        (|run| run.end.code = None, "by a signal"),
        (|run| run.end.code = Some(1), "with code 1"),
        (|run| run.end.took = 5.5, "took 5.5 s"),
        (|run| run.reloads = 2, "0 reloads"),
        (|run| run.end.panics.push("the overlay stage panicked".into()), "a panic"),
        (|run| run.samples[200].streams[0].panics = 1, "panicked"),
        (|run| run.samples[100].streams[0].dropped += 1, "ledger of gate was not closed"),
        (|run| run.samples[100].streams[0].in_flight = 500, "in flight"),
        (|run| run.end.accounts[0].in_flight = 1, "final ledger of gate is not closed"),
        (|run| run.end.accounts.clear(), "no final ledger"),
        (|run| run.samples.iter_mut().for_each(|sample| sample.anonymous += 1.3 * sample.at / 60.0), "memory grows"),
        // Slower than the limit, but accelerating.
        (
            |run| run.samples.iter_mut().for_each(|sample| sample.anonymous += 0.016 * (sample.at / 60.0).powi(2)),
            "does not level off",
        ),
        (
            |run| run.samples.iter_mut().for_each(|sample| sample.descriptors += (sample.at / 60.0) as u64),
            "descriptors",
        ),
        (|run| run.samples.iter_mut().for_each(|sample| sample.threads += (sample.at / 60.0) as u64), "threads"),
        (
            |run| run.recoveries.iter_mut().for_each(|recovery| recovery.took = recovery.took.map(|took| took + 1.5)),
            "median recovery",
        ),
        (|run| run.recoveries[7].took = None, "did not recover"),
        (|run| run.visits.iter_mut().take(20).for_each(|visit| visit.frames = 0), "received no frame"),
    ];
    for (apply, reason) in problems {
        let mut run = good();
        apply(&mut run);
        let failures = evaluate(&run).failures;
        assert!(failures.iter().any(|failure| failure.contains(reason)), "{reason}: {failures:?}");
    }
}

#[test]
fn a_single_step_of_memory_is_not_a_leak() {
    let mut run = good();
    run.samples.iter_mut().skip(150).for_each(|sample| sample.anonymous += 20.0);
    let failures = evaluate(&run).failures;
    assert!(failures.iter().all(|failure| !failure.contains("level off")), "{failures:?}");
    // A temporary peak is not a failure.
    let mut run = good();
    run.samples.iter_mut().skip(200).take(30).for_each(|sample| sample.anonymous += 200.0);
    assert_eq!(evaluate(&run).failures, [""; 0]);
}

#[test]
fn a_run_without_samples_or_recoveries_fails() {
    let empty = Run { samples: Vec::new(), recoveries: Vec::new(), ..good() };
    let failures = evaluate(&empty).failures.join("; ");
    for reason in ["too few samples", "no idle phase", "no recovery"] {
        assert!(failures.contains(reason), "{reason}: {failures}");
    }
}
