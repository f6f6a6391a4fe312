//! Whether a run was good: figures, and every reason why not.

use serde::Serialize;

use super::record::{Quiet, Recovery, Run, Sample};
use super::stats::{quantile, theil_sen};

/// Memory may grow so fast after the warm-up, MiB a minute,
const SLOPE: f64 = 1.0;

/// and growth above this must slow down: a leak does not.
const LEVEL: f64 = 0.25;

/// Descriptors, and threads, that may be more in the calm after the faults than in the calm before: GStreamer and the
/// HTTP server keep a few threads for the next ones.
const MORE: u64 = 6;

/// By so much may what is open at the least rise from the middle third of the run to the last.
const FLOOR: f64 = 12.0;

/// The median time from a camera's return to live pictures, seconds.
const RECOVERY: f64 = 2.0;

/// Frames of one stream that may be under way at one moment.
const IN_FLIGHT: u64 = 32;

/// Share of visits in which nothing was seen, of those that lasted [`LONG`] seconds.
const BLIND: f64 = 0.05;
const LONG: f64 = 8.0;

/// What was measured, and what it comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Empty when all is well.
    pub failures: Vec<String>,
    pub figures: Figures,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// MiB a minute, after the first third.
    pub memory_slope: Option<f64>,
    /// The same in the middle and in the last third.
    pub memory_slope_middle: Option<f64>,
    pub memory_slope_last: Option<f64>,
    pub memory_at_most: Option<f64>,
    /// In the calm before and after.
    pub descriptors: [Option<u64>; 2],
    pub threads: [Option<u64>; 2],
    /// All recoveries, seconds.
    pub recovery: Spread,
    /// By the length of the outage.
    pub recovery_by_outage: Vec<Group>,
    /// By what was wrong with the camera.
    pub recovery_by_fault: Vec<Group>,
}

/// Times of some recoveries, seconds.
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

pub fn judge(run: &Run) -> Verdict {
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
        let when = if end.early { "by itself" } else { "when it was asked to" };
        let how = end.code.map_or("by a signal".into(), |code| format!("with code {code}"));
        failures.push(format!("the service ended {when}, {how}"));
    } else if end.took > 5.0 {
        failures.push(format!("the service took {:.1} s to end", end.took));
    }
    // The last one may have come with the end.
    for (what, asked, done) in [
        ("reloads", run.reloads, end.reloads),
        ("refusals of a configuration", run.reloads_refused, end.reloads_refused),
    ] {
        if done + 1 < asked {
            failures.push(format!("the log tells of {done} {what}, {asked} were asked for"));
        }
    }
    failures.extend(end.panics.iter().map(|line| format!("a panic: {line}")));
    let panics = run.samples.iter().flat_map(|sample| &sample.streams).map(|stream| stream.panics).max().unwrap_or(0);
    if panics > 0 {
        failures.push(format!("{panics} stages of a stream panicked"));
    }
}

fn ledgers(run: &Run, failures: &mut Vec<String>) {
    let standings = run.samples.iter().flat_map(|sample| sample.streams.iter().map(move |stream| (sample.at, stream)));
    let open = standings.clone().find(|(_, stream)| stream.captured != stream.published + stream.dropped);
    if let Some((at, stream)) = open {
        failures.push(format!("the ledger of {} was open at {at:.0} s: {stream:?}", stream.name));
    }
    if let Some((at, stream)) = standings.clone().find(|(_, stream)| stream.in_flight > IN_FLIGHT) {
        failures.push(format!("{} frames of {} were under way at {at:.0} s", stream.in_flight, stream.name));
    }
    let names: std::collections::BTreeSet<_> = standings.map(|(_, stream)| stream.name.as_str()).collect();
    for name in names {
        let mut accounts = run.end.accounts.iter().filter(|account| account.stream == name).peekable();
        if accounts.peek().is_none() {
            failures.push(format!("{name} has no closing account in the log"));
        }
        for account in accounts {
            if account.captured != account.published + account.dropped || account.in_flight > 0 {
                failures.push(format!("the closing account of {name} is open: {account:?}"));
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
    figures.memory_at_most = run.samples.iter().map(|sample| sample.anonymous).reduce(f64::max);
    figures.memory_slope = slope(&run.samples[third..]);
    figures.memory_slope_middle = slope(&run.samples[third..2 * third]);
    figures.memory_slope_last = slope(&run.samples[2 * third..]);
    let (Some(all), Some(middle), Some(last)) =
        (figures.memory_slope, figures.memory_slope_middle, figures.memory_slope_last)
    else {
        verdict.failures.push("too few samples to tell how memory grows".into());
        return;
    };
    if all > SLOPE {
        verdict.failures.push(format!("memory grows by {all:.2} MiB a minute after the first third"));
    } else if all > LEVEL && last > LEVEL && last >= middle {
        verdict.failures.push(format!(
            "memory grows by {all:.2} MiB a minute and does not level off: {middle:.2} in the middle, {last:.2} at last"
        ));
    }
}

/// A value of a sample that must not grow, by its name.
type Held = (&'static str, fn(&Sample) -> u64);

fn leaks(run: &Run, verdict: &mut Verdict) {
    let third = run.samples.len() / 3;
    let held: [Held; 2] = [("descriptors", |sample| sample.descriptors), ("threads", |sample| sample.threads)];
    for (what, of) in held {
        let calm = |when| {
            let values = run.samples.iter().filter(|sample| sample.quiet == Some(when)).map(of);
            // What was just let go may still be closing.
            values.min()
        };
        let both = [calm(Quiet::Before), calm(Quiet::After)];
        match both {
            [Some(before), Some(after)] if after > before + MORE => {
                verdict.failures.push(format!("{after} {what} in the calm after the faults, {before} before"));
            }
            [Some(_), Some(_)] => {}
            _ => verdict.failures.push(format!("there was no calm to count {what} in")),
        }
        match what {
            "threads" => verdict.figures.threads = both,
            _ => verdict.figures.descriptors = both,
        }
        // Viewers come and go, so the least that is open is what tells.
        let floor =
            |samples: &[Sample]| quantile(&samples.iter().map(|sample| of(sample) as f64).collect::<Vec<_>>(), 0.1);
        let busy: Vec<Sample> = run.samples.iter().filter(|sample| sample.quiet.is_none()).cloned().collect();
        let busy_third = third.min(busy.len() / 3);
        if let (Some(middle), Some(last)) = (floor(&busy[busy_third..2 * busy_third]), floor(&busy[2 * busy_third..]))
            && last > middle + FLOOR
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
            "{} did not come back after {:.0} s of {} ({:.0} s into the run)",
            recovery.camera, recovery.outage, recovery.fault, recovery.at
        ));
    }
    let all = spread(counted());
    match all.median {
        Some(median) if median > RECOVERY => {
            let text =
                format!("cameras that are back are live again after {median:.2} s in the median, not {RECOVERY} s");
            verdict.failures.push(text);
        }
        Some(_) => {}
        None => verdict.failures.push("no camera came back".into()),
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
    let blind = long.iter().filter(|visit| visit.pictures == 0).count();
    if blind as f64 > BLIND * long.len() as f64 {
        failures.push(format!("{blind} of {} viewers who stayed for {LONG} s saw nothing", long.len()));
    }
}
