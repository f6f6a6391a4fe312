//! The judge must find each fault in a series made for it, and find none in a good one.

use super::judge::judge;
use super::record::{Account, End, Quiet, Recovery, Run, Sample, Standing, Visit};
use super::viewers::Leaves;
use super::watching::By;

/// Half an hour, a sample every five seconds, in which nothing is wrong: memory rises at first, as it does, and is as
/// noisy as encoders that come and go make it.
fn good() -> Run {
    let mut random = fastrand::Rng::with_seed(1);
    let sample = |n: u64| {
        let at = 5.0 * n as f64;
        let viewers = random.u64(0..6);
        let quiet = match n {
            0..4 => Some(Quiet::Before),
            356.. => Some(Quiet::After),
            _ => None,
        };
        let busy = if quiet.is_some() { 0 } else { viewers };
        let pss = 180.0 + 30.0 * (1.0 - (-at / 120.0).exp()) + 8.0 * busy as f64 + 3.0 * random.f64();
        let standing = Standing {
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
            quiet,
            streams: vec![standing],
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
        by: By::RtspTcp,
        leaves: Leaves::Properly,
        seconds: n as f64,
        pictures: 10 * n,
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
    let verdict = judge(&good());
    assert_eq!(verdict.failures, [""; 0]);
    let figures = verdict.figures;
    assert!(figures.memory_slope.unwrap().abs() < 0.5, "{figures:?}");
    assert_eq!((figures.descriptors, figures.threads), ([Some(60), Some(60)], [Some(50), Some(50)]));
    assert_eq!(figures.recovery.count, 60);
}

/// What is to be wrong, and a part of what the judge must say of it.
type Fault = (fn(&mut Run), &'static str);

#[test]
fn every_fault_is_found() {
    let faults: [Fault; 18] = [
        (|run| run.end.early = true, "by itself"),
        (|run| run.end.code = None, "by a signal"),
        (|run| run.end.code = Some(1), "with code 1"),
        (|run| run.end.took = 5.5, "took 5.5 s"),
        (|run| run.reloads = 2, "0 reloads"),
        (|run| run.end.panics.push("the overlay stage panicked".into()), "a panic"),
        (|run| run.samples[200].streams[0].panics = 1, "panicked"),
        (|run| run.samples[100].streams[0].dropped += 1, "ledger of gate was open"),
        (|run| run.samples[100].streams[0].in_flight = 500, "under way"),
        (|run| run.end.accounts[0].in_flight = 1, "closing account of gate is open"),
        (|run| run.end.accounts.clear(), "no closing account"),
        (|run| run.samples.iter_mut().for_each(|sample| sample.anonymous += 1.3 * sample.at / 60.0), "memory grows"),
        // Slower than the limit, but it goes on and becomes faster.
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
            "in the median",
        ),
        (|run| run.recoveries[7].took = None, "did not come back"),
        (|run| run.visits.iter_mut().take(20).for_each(|visit| visit.pictures = 0), "saw nothing"),
    ];
    for (spoil, reason) in faults {
        let mut run = good();
        spoil(&mut run);
        let failures = judge(&run).failures;
        assert!(failures.iter().any(|failure| failure.contains(reason)), "{reason}: {failures:?}");
    }
}

#[test]
fn one_leap_of_memory_is_no_leak() {
    let mut run = good();
    run.samples.iter_mut().skip(150).for_each(|sample| sample.anonymous += 20.0);
    let failures = judge(&run).failures;
    assert!(failures.iter().all(|failure| !failure.contains("level off")), "{failures:?}");
    // And a peak is none at all.
    let mut run = good();
    run.samples.iter_mut().skip(200).take(30).for_each(|sample| sample.anonymous += 200.0);
    assert_eq!(judge(&run).failures, [""; 0]);
}

#[test]
fn a_run_without_samples_or_recoveries_is_no_success() {
    let empty = Run { samples: Vec::new(), recoveries: Vec::new(), ..good() };
    let failures = judge(&empty).failures.join("; ");
    for reason in ["too few samples", "no calm", "no camera came back"] {
        assert!(failures.contains(reason), "{reason}: {failures}");
    }
}
