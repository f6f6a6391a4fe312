//! Evaluates a run: figures, and the reasons of a failure.

use serde::Serialize;

use super::record::{IdlePhase, Recovery, Run, Sample};
use super::stats::{quantile, theil_sen};

/// Maximum growth of memory after the warm-up, MiB a minute.
const MAX_SLOPE: f64 = 1.0;

/// Growth above this must slow down, which a leak does not; MiB a minute.
const LEVEL: f64 = 0.25;

/// Maximum increase of descriptors and threads between the idle phases before and after the faults: GStreamer and the HTTP
/// server keep a few idle threads.
const MAX_INCREASE: u64 = 6;

/// Maximum increase of the minimum (10 % quantile) from the middle third of the run to the last.
const MAX_MINIMUM_INCREASE: f64 = 12.0;

/// Maximum median time from the end of a fault to live frames, seconds.
const RECOVERY: f64 = 2.0;

/// Maximum number of frames of one stream in flight.
const MAX_IN_FLIGHT: u64 = 32;

/// Maximum fraction of viewers without a frame, of those that stayed for [`LONG`] seconds.
const MAX_WITHOUT_FRAME: f64 = 0.05;
const LONG: f64 = 8.0;

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Empty when the run has passed.
    pub failures: Vec<String>,
    pub figures: Figures,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// MiB a minute, after the first third.
    pub memory_slope: Option<f64>,
    /// The same in the middle third and in the last one.
    pub memory_slope_middle: Option<f64>,
    pub memory_slope_last: Option<f64>,
    pub memory_maximum: Option<f64>,
    /// In the idle phases before and after the faults.
    pub descriptors: [Option<u64>; 2],
    pub threads: [Option<u64>; 2],
    /// All recoveries, seconds.
    pub recovery: Spread,
    /// By the duration of the outage.
    pub recovery_by_outage: Vec<Group>,
    /// By the fault.
    pub recovery_by_fault: Vec<Group>,
}

/// Times of a group of recoveries, seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Spread {
    pub count: usize,
    pub median: Option<f64>,
    pub p95: Option<f64>,
    pub longest: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Group {
    pub name: String,
    pub spread: Spread,
}

pub fn evaluate(run: &Run) -> Verdict {
    let mut verdict = Verdict { failures: Vec::new(), figures: Figures::default() };
    ending(run, &mut verdict.failures);
    ledgers(run, &mut verdict.failures);
    memory(run, &mut verdict);
    leaks(run, &mut verdict);
    recoveries(run, &mut verdict);
    viewers(run, &mut verdict.failures);
    verdict.failures.extend(run.problems.iter().cloned());
    verdict
}

fn ending(run: &Run, failures: &mut Vec<String>) {
    let end = &run.end;
    if end.early || end.code != Some(0) {
        let when = if end.early { "before SIGTERM" } else { "after SIGTERM" };
        let how = end.code.map_or("by a signal".into(), |code| format!("with code {code}"));
        failures.push(format!("the service ended {when}, {how}"));
    } else if end.took > 5.0 {
        failures.push(format!("the service took {:.1} s to end", end.took));
    }
    // The last one may coincide with the end of the run.
    for (what, asked, done) in [
        ("reloads", run.reloads, end.reloads),
        ("refusals of a configuration", run.reloads_refused, end.reloads_refused),
    ] {
        if done + 1 < asked {
            failures.push(format!("the log has {done} {what}, {asked} were requested"));
        }
    }
    failures.extend(end.panics.iter().map(|line| format!("a panic: {line}")));
    let panics = run.samples.iter().flat_map(|sample| &sample.streams).map(|stream| stream.panics).max().unwrap_or(0);
    if panics > 0 {
        failures.push(format!("{panics} stages of a stream panicked"));
    }
}

fn ledgers(run: &Run, failures: &mut Vec<String>) {
    let statuses = run.samples.iter().flat_map(|sample| sample.streams.iter().map(move |stream| (sample.at, stream)));
    let open = statuses.clone().find(|(_, stream)| stream.captured != stream.published + stream.dropped);
    if let Some((at, stream)) = open {
        failures.push(format!("the ledger of {} was not closed at {at:.0} s: {stream:?}", stream.name));
    }
    if let Some((at, stream)) = statuses.clone().find(|(_, stream)| stream.in_flight > MAX_IN_FLIGHT) {
        failures.push(format!("{} frames of {} were in flight at {at:.0} s", stream.in_flight, stream.name));
    }
    let names: std::collections::BTreeSet<_> = statuses.map(|(_, stream)| stream.name.as_str()).collect();
    for name in names {
        let mut accounts = run.end.accounts.iter().filter(|account| account.stream == name).peekable();
        if accounts.peek().is_none() {
            failures.push(format!("the log has no final ledger of {name}"));
        }
        for account in accounts {
            if account.captured != account.published + account.dropped || account.in_flight > 0 {
                failures.push(format!("the final ledger of {name} is not closed: {account:?}"));
            }
        }
    }
}

fn memory(run: &Run, verdict: &mut Verdict) {
    let third = run.samples.len() / 3;
    let slope = |samples: &[Sample]| {
        let points: Vec<_> = samples.iter().map(|sample| (sample.at / 60.0, sample.anonymous)).collect();
        theil_sen(&points)
    };
    let figures = &mut verdict.figures;
    figures.memory_maximum = run.samples.iter().map(|sample| sample.anonymous).reduce(f64::max);
    figures.memory_slope = slope(&run.samples[third..]);
    figures.memory_slope_middle = slope(&run.samples[third..2 * third]);
    figures.memory_slope_last = slope(&run.samples[2 * third..]);
    let (Some(all), Some(middle), Some(last)) =
        (figures.memory_slope, figures.memory_slope_middle, figures.memory_slope_last)
    else {
        verdict.failures.push("too few samples to determine the growth of memory".into());
        return;
    };
    if all > MAX_SLOPE {
        verdict.failures.push(format!("memory grows by {all:.2} MiB a minute after the first third"));
    } else if all > LEVEL && last > LEVEL && last >= middle {
        verdict.failures.push(format!(
            "memory grows by {all:.2} MiB a minute and does not level off: {middle:.2} in the middle third, {last:.2} in the last third"
        ));
    }
}

/// A value of a sample that must not grow, by its name.
type Resource = (&'static str, fn(&Sample) -> u64);

fn leaks(run: &Run, verdict: &mut Verdict) {
    let third = run.samples.len() / 3;
    let resources: [Resource; 2] = [("descriptors", |sample| sample.descriptors), ("threads", |sample| sample.threads)];
    for (what, of) in resources {
        let minimum = |when| {
            let values = run.samples.iter().filter(|sample| sample.idle == Some(when)).map(of);
            // Resources that were just released may still be closing.
            values.min()
        };
        let both = [minimum(IdlePhase::Before), minimum(IdlePhase::After)];
        match both {
            [Some(before), Some(after)] if after > before + MAX_INCREASE => {
                verdict.failures.push(format!("{after} {what} in the idle phase after the faults, {before} before"));
            }
            [Some(_), Some(_)] => {}
            _ => verdict.failures.push(format!("there was no idle phase to count {what}")),
        }
        match what {
            "threads" => verdict.figures.threads = both,
            _ => verdict.figures.descriptors = both,
        }
        // Viewers connect and disconnect, so only the minimum shows a leak.
        let floor =
            |samples: &[Sample]| quantile(&samples.iter().map(|sample| of(sample) as f64).collect::<Vec<_>>(), 0.1);
        let busy: Vec<Sample> = run.samples.iter().filter(|sample| sample.idle.is_none()).cloned().collect();
        let busy_third = third.min(busy.len() / 3);
        if let (Some(middle), Some(last)) = (floor(&busy[busy_third..2 * busy_third]), floor(&busy[2 * busy_third..]))
            && last > middle + MAX_MINIMUM_INCREASE
        {
            verdict.failures.push(format!("{what} grow: at least {middle} in the middle third, {last} in the last"));
        }
    }
}

fn spread<'a>(recoveries: impl Iterator<Item = &'a Recovery>) -> Spread {
    let times: Vec<f64> = recoveries.filter_map(|recovery| recovery.took).collect();
    Spread {
        count: times.len(),
        median: quantile(&times, 0.5),
        p95: quantile(&times, 0.95),
        longest: quantile(&times, 1.0),
    }
}

fn recoveries(run: &Run, verdict: &mut Verdict) {
    let counted = || run.recoveries.iter().filter(|recovery| !recovery.disturbed);
    for recovery in counted().filter(|recovery| recovery.took.is_none()) {
        verdict.failures.push(format!(
            "{} did not recover after {:.0} s of {} ({:.0} s into the run)",
            recovery.camera, recovery.outage, recovery.fault, recovery.at
        ));
    }
    let all = spread(counted());
    match all.median {
        Some(median) if median > RECOVERY => {
            let text = format!("the median recovery takes {median:.2} s, more than {RECOVERY} s");
            verdict.failures.push(text);
        }
        Some(_) => {}
        None => verdict.failures.push("there was no recovery".into()),
    }
    verdict.figures.recovery = all;
    let lengths = [
        ("under 1 s", 0.0, 1.0),
        ("1 to 5 s", 1.0, 5.0),
        ("5 to 20 s", 5.0, 20.0),
        ("20 s and more", 20.0, f64::INFINITY),
    ];
    verdict.figures.recovery_by_outage = lengths
        .iter()
        .map(|&(name, least, most)| {
            let within = counted().filter(|recovery| (least..most).contains(&recovery.outage));
            Group { name: name.into(), spread: spread(within) }
        })
        .collect();
    let faults: std::collections::BTreeSet<&str> = counted().map(|recovery| recovery.fault.as_str()).collect();
    verdict.figures.recovery_by_fault = faults
        .into_iter()
        .map(|fault| Group { name: fault.into(), spread: spread(counted().filter(|recovery| recovery.fault == fault)) })
        .collect();
}

fn viewers(run: &Run, failures: &mut Vec<String>) {
    let long: Vec<_> = run.visits.iter().filter(|visit| visit.seconds >= LONG).collect();
    let without_frame = long.iter().filter(|visit| visit.frames == 0).count();
    if without_frame as f64 > MAX_WITHOUT_FRAME * long.len() as f64 {
        failures.push(format!("{without_frame} of {} viewers that stayed for {LONG} s received no frame", long.len()));
    }
}
