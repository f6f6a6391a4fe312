//! The page of a comparison: the formatted values for `templates/compare.html`.

use askama::Template;

use super::page::Figure;
use super::plot::color;
use super::run_facts::{Fact, WeightsOrigin, environment_facts};
use super::text::{NONE, duration, percent};
use super::{CompareEntry, CompareReport, CompareRun, ReportError, plot};

#[derive(Template)]
#[template(path = "compare.html", config = "src/report/askama.toml")]
struct ComparePage<'a> {
    title: &'a str,
    lead: String,
    plot_style: String,
    figure: Figure,
    rows: Vec<CompareRow>,
    seeds: Vec<Vec<String>>,
    environment: Vec<Fact>,
    command: &'a str,
    version: &'static str,
}

/// A row of the table of entries.
struct CompareRow {
    color: String,
    strategy: String,
    encoder: String,
    weights: String,
    /// The text about the weights in the log.
    weights_log: String,
    miou: String,
    spread: String,
    runs: usize,
    time: String,
    sparkline: String,
    alt: String,
}

impl CompareReport {
    /// The page, a complete HTML document.
    ///
    /// # Errors
    /// A plot cannot be drawn.
    pub fn html(&self) -> Result<String, ReportError> {
        let mut rows = Vec::new();
        for (n, entry) in self.ranked().into_iter().enumerate() {
            let seeds = entry.runs.len();
            let last = entry.curve().last().map_or_else(|| NONE.into(), |point| percent(point.mean));
            rows.push(CompareRow {
                color: color(n),
                strategy: entry.strategy.clone(),
                encoder: entry.encoder.clone(),
                weights: WeightsOrigin::of(&entry.weights).source,
                weights_log: entry.weights.clone(),
                miou: percent(entry.mean()),
                spread: entry.spread().map_or_else(String::new, |spread| format!("± {:.1}", 100.0 * spread)),
                runs: seeds,
                time: duration(entry.seconds()),
                sparkline: self.sparkline(entry, n)?,
                alt: format!("mIoU by epoch, ending at {last} %"),
            });
        }
        let seed = |(entry, run): (&CompareEntry, &CompareRun)| {
            let best = run.history.best().map_or_else(|| NONE.into(), |(epoch, _)| epoch.to_string());
            let (strategy, encoder) = (entry.strategy.clone(), entry.encoder.clone());
            vec![strategy, encoder, run.seed.to_string(), percent(run.miou), best, duration(run.seconds)]
        };
        let runs = self.ranked().into_iter().flat_map(|entry| entry.runs.iter().map(move |run| (entry, run)));
        let note = "Validation mIoU after each epoch, mean over seeds; the band is from the lowest to the highest. For \
                    runs with a moving average of the weights, it is that of the average.";
        let page = ComparePage {
            title: &self.title,
            lead: format!("{}; {}", self.dataset, self.budget),
            plot_style: plot::style(),
            figure: Figure::new("mIoU by epoch", &self.plot(), note.into())?,
            rows,
            seeds: runs.map(seed).collect(),
            environment: environment_facts(&self.environment),
            command: &self.environment.command,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(page.render()?)
    }
}
