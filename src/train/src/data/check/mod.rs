//! Reads each file of a data set on several threads and reports what would make training fail or its result wrong.

use std::time::Instant;

use crossbeam_channel::bounded;

use super::{Dataset, Part};

mod facts;
mod leaks;
mod report;
#[cfg(test)]
mod tests;

pub use report::{CheckReport, ClassStatistics, Finding, FindingKind, PartCounts, Severity, SimilarPair, SizeCount};

use facts::{CheckItem, PairFacts, inspect};

/// Checks a data set on `threads` threads (0: one per core). Calls `progress` after each pair with the number of
/// checked pairs and the total.
pub fn check(dataset: &Dataset, threads: usize, progress: &mut dyn FnMut(usize, usize)) -> CheckReport {
    let started = Instant::now();
    let parts = Part::ALL.into_iter().map(|part| (Some(part), dataset.part(part)));
    let items: Vec<CheckItem<'_>> = parts
        .chain([(None, &dataset.left_out[..])])
        .flat_map(|(part, pairs)| pairs.iter().map(move |pair| CheckItem { pair, part }))
        .collect();
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = if threads == 0 { cores() } else { threads.min(items.len().max(1)) };
    let facts = read_all(dataset, &items, threads, progress);
    let mut report = CheckReport::new(dataset, &items, &facts);
    report.findings.extend(leaks::find(&items, &facts, dataset.split_here));
    report.finish(started.elapsed());
    report
}

/// Inspects all items and returns the results in their order. There are two bounded queues: of indices to read and of
/// results.
fn read_all(
    dataset: &Dataset,
    items: &[CheckItem<'_>],
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Vec<PairFacts> {
    let (jobs, inbox) = bounded::<usize>(2 * threads);
    let (outbox, results) = bounded::<(usize, PairFacts)>(2 * threads);
    let mut all: Vec<PairFacts> = items.iter().map(|_| PairFacts::default()).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || (0..items.len()).all(|place| jobs.send(place).is_ok()));
        for _ in 0..threads {
            let (inbox, outbox) = (inbox.clone(), outbox.clone());
            scope.spawn(move || {
                for place in inbox {
                    // The receiver is closed only when this scope unwinds.
                    if outbox.send((place, inspect(dataset, items[place].pair))).is_err() {
                        break;
                    }
                }
            });
        }
        drop((inbox, outbox));
        for (done, (place, facts)) in results.iter().enumerate() {
            all[place] = facts;
            progress(done + 1, items.len());
        }
    });
    all
}
