//! Progress of long operations: a bar on a terminal, otherwise lines.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Smallest interval between lines, if standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows the progress of an operation that consists of steps.
pub struct ProgressMeter {
    bar: Option<ProgressBar>,
    what: String,
    started: Instant,
    shown: Instant,
    first: u64,
    total: u64,
}

impl ProgressMeter {
    /// Shows an operation of `total` steps, of which `done` are done, under the name `what`.
    pub fn new(what: &str, done: u64, total: u64) -> Self {
        let bar = std::io::IsTerminal::is_terminal(&std::io::stderr()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec} ETA {eta} {msg}")
                .expect("a valid template");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style);
            bar.set_prefix(what.to_owned());
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        ProgressMeter { bar, what: what.to_owned(), started: now, shown: now, first: done, total }
    }

    /// Shows the number of steps that are done, and a message.
    pub fn show(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message());
            bar.set_position(done);
        } else if self.shown.elapsed() >= LINE_EVERY {
            self.shown = Instant::now();
            let rate = (done - self.first) as f64 / self.started.elapsed().as_secs_f64();
            let rest = Duration::from_secs_f64((self.total - done) as f64 / rate.max(1e-9));
            let message = message();
            eprintln!("{} {done}/{} {rate:.2}/s, {} left, {message}", self.what, self.total, duration_text(rest));
        }
    }

    /// Writes a line above the bar, where it remains.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

impl Drop for ProgressMeter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Formats a duration: `1 h 05 min`, `12 min`, `40 s`.
pub fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}
