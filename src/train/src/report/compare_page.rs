//! A comparison's page: what `templates/compare.html` shows, as text that is ready to be read.

use askama::Template;

use super::how::{Fact, Origin, around};
use super::page::Figure;
use super::plot::color;
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
    around: Vec<Fact>,
    command: &'a str,
    version: &'static str,
}

struct CompareRow {
    color: String,
    strategy: String,
    encoder: String,
    weights: String,
    /// All that the log says of them.
    weights_log: String,
    miou: String,
    spread: String,
    runs: usize,
    time: String,
    spark: String,
    alt: String,
}

impl CompareReport {
    /// The page, a whole HTML document.
    ///
    /// # Errors
    /// If a plot cannot be drawn.
    pub fn html(&self) -> Result<String, ReportError> {
        let mut rows = Vec::new();
        for (n, entry) in self.ranked().into_iter().enumerate() {
            let seeds = entry.runs.len();
            let last = entry.curve().last().map_or_else(|| NONE.into(), |point| percent(point.mean));
            rows.push(CompareRow {
                color: color(n),
                strategy: entry.strategy.clone(),
                encoder: entry.encoder.clone(),
                weights: Origin::of(&entry.weights).source,
                weights_log: entry.weights.clone(),
                miou: percent(entry.mean()),
                spread: entry.spread().map_or_else(String::new, |spread| format!("± {:.1}", 100.0 * spread)),
                runs: seeds,
                time: duration(entry.seconds()),
                spark: self.spark(entry, n)?,
                alt: format!("mIoU by epoch, ending at {last} %"),
            });
        }
        let seed = |(entry, run): (&CompareEntry, &CompareRun)| {
            let best = run.history.best().map_or_else(|| NONE.into(), |(epoch, _)| epoch.to_string());
            let (strategy, encoder) = (entry.strategy.clone(), entry.encoder.clone());
            vec![strategy, encoder, run.seed.to_string(), percent(run.miou), best, duration(run.seconds)]
        };
        let runs = self.ranked().into_iter().flat_map(|entry| entry.runs.iter().map(move |run| (entry, run)));
        let note = "Validation mIoU after each epoch, mean over seeds; the band is from the lowest to the highest. Of \
                    the moving average of the weights, where a run keeps one.";
        let page = ComparePage {
            title: &self.title,
            lead: format!("{}; {}", self.dataset, self.budget),
            plot_style: plot::style(),
            figure: Figure::new("mIoU by epoch", &self.plot(), note.into())?,
            rows,
            seeds: runs.map(seed).collect(),
            around: around(&self.environment),
            command: &self.environment.command,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(page.render()?)
    }
}
