//! Deduplication of log lines that repeat: the first is logged at once, the others are counted and logged together.
//!
//! A fault that occurs with every frame or every retry would fill the log and hide all other lines. Therefore its line is
//! logged when it first occurs, and then once a minute while it repeats, with a count: `… (23 times in the last 60 s)`.
//! Two lines are the same if level, stream, stage and text are the same; numbers in the text (frames, times, counts) are
//! ignored, IP addresses are not. A counted line has the numbers of its newest occurrence.
//!
//! Layers such as `tracing-throttle` do not fit: they treat lines with different frame numbers as different, and log a count
//! as another event without the fields of the first.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Level;

/// The target of changes of a stream's state, to which log filters apply. It does not follow the module's name, so that
/// filters such as `maskcast::stream=debug` keep their effect.
pub(super) const STATE_TARGET: &str = "maskcast::stream::status";

/// How long a line is counted before it is logged again.
const WINDOW: Duration = Duration::from_secs(60);

/// The most different lines that are counted. When there is one more, the oldest is logged early and removed.
const MAX_LINES: usize = 64;

/// The lines of the process.
static LINES: LogDeduplicator = LogDeduplicator::new();

/// A log line and its origin.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// `WARN` or `ERROR`; any other level is logged as `INFO`.
    pub level: Level,
    /// The stream's name; empty if the line is not about a stream.
    pub stream: &'a str,
    /// The stage's name; empty if the line is not about a stage.
    pub stage: &'static str,
    /// The previous state, if the line is about a change of state.
    pub from: Option<&'static str>,
    /// The sequence number of the frame that the line is about.
    pub seq: Option<u64>,
    /// The message: fixed words first, variable parts after them.
    pub text: &'a str,
}

/// Logs a line: at once if it is new, else with its count within a minute.
pub fn log(line: LogLine<'_>) {
    LINES.record(line, Instant::now()).iter().for_each(LogRecord::write);
}

/// Logs an error of a stage; `stream` and `stage` may be empty.
pub fn error(stream: &str, stage: &'static str, seq: Option<u64>, text: &str) {
    log(LogLine { level: Level::ERROR, stream, stage, from: None, seq, text });
}

/// Logs a warning of a stage; `stream` and `stage` may be empty.
pub fn warn(stream: &str, stage: &'static str, text: &str) {
    log(LogLine { level: Level::WARN, stream, stage, from: None, seq: None, text });
}

/// Logs how a stage handles a fault that may repeat.
pub fn info(stream: &str, stage: &'static str, text: &str) {
    log(LogLine { level: Level::INFO, stream, stage, from: None, seq: None, text });
}

/// Logs the counted lines whose minute is over. To be called several times a minute.
pub fn flush_due() {
    LINES.due(Instant::now(), WINDOW).iter().for_each(LogRecord::write);
}

/// Logs all counted lines, at the end of the process.
pub fn flush_all() {
    LINES.due(Instant::now(), Duration::ZERO).iter().for_each(LogRecord::write);
}

/// Lines that were logged, and how often each has occurred since.
struct LogDeduplicator(Mutex<Vec<RepeatedLine>>);

struct RepeatedLine {
    level: Level,
    stream: String,
    stage: &'static str,
    from: Option<&'static str>,
    /// The text without its numbers, by which repeated lines are found.
    pattern: String,
    logged: Instant,
    count: u64,
    seq: Option<u64>,
    text: String,
}

/// A line that is due to be logged.
#[derive(Debug, PartialEq, Eq)]
struct LogRecord {
    level: Level,
    stream: String,
    stage: &'static str,
    from: Option<&'static str>,
    seq: Option<u64>,
    text: String,
    /// How many occurrences the line is for.
    times: u64,
}

impl LogDeduplicator {
    const fn new() -> Self {
        LogDeduplicator(Mutex::new(Vec::new()))
    }

    /// Counts `line`, and returns the lines that are now due.
    fn record(&self, line: LogLine<'_>, now: Instant) -> Vec<LogRecord> {
        let LogLine { level, stream, stage, from, seq, text } = line;
        let text = &*crate::base::bounded::line(text);
        let pattern = without_numbers(text);
        let mut lines = self.0.lock();
        let known = lines.iter_mut().find(|line| {
            (line.level, line.stage, line.from) == (level, stage, from)
                && line.stream == stream
                && line.pattern == pattern
        });
        if let Some(line) = known {
            line.count += 1;
            line.seq = seq;
            text.clone_into(&mut line.text);
            // Without calls of `flush_due`, the next occurrence logs the count.
            return if now - line.logged >= WINDOW { vec![line.take_record(now)] } else { Vec::new() };
        }
        let oldest = lines.iter().enumerate().min_by_key(|(_, line)| line.logged).map(|(at, _)| at);
        let evicted = oldest.filter(|_| lines.len() >= MAX_LINES).map(|at| lines.swap_remove(at));
        let mut logged: Vec<LogRecord> =
            evicted.filter(|line| line.count > 0).map(|mut line| line.take_record(now)).into_iter().collect();
        let (stream, text) = (stream.to_owned(), text.to_owned());
        logged.push(LogRecord { level, stream: stream.clone(), stage, from, seq, text: text.clone(), times: 1 });
        lines.push(RepeatedLine { level, stream, stage, from, pattern, logged: now, count: 0, seq, text });
        logged
    }

    /// The counted lines that were logged `window` ago or earlier. Lines that have not occurred since then are removed.
    fn due(&self, now: Instant, window: Duration) -> Vec<LogRecord> {
        let mut lines = self.0.lock();
        lines.retain(|line| line.count > 0 || now.saturating_duration_since(line.logged) < window);
        let due =
            lines.iter_mut().filter(|line| line.count > 0 && now.saturating_duration_since(line.logged) >= window);
        due.map(|line| line.take_record(now)).collect()
    }
}

/// The text without digits and points. IP addresses are kept: a line about another client is another line.
fn without_numbers(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for word in text.split_inclusive(' ') {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':');
        match bare.trim_end_matches(':').parse::<IpAddr>() {
            Ok(_) => pattern.push_str(word),
            Err(_) => pattern.extend(word.chars().filter(|c| !c.is_ascii_digit() && *c != '.')),
        }
    }
    pattern
}

impl RepeatedLine {
    fn take_record(&mut self, now: Instant) -> LogRecord {
        let seconds = now.saturating_duration_since(self.logged).as_secs_f64();
        let times = std::mem::take(&mut self.count);
        self.logged = now;
        let text = match times {
            1 => self.text.clone(),
            _ => format!("{} ({times} times in the last {seconds:.0} s)", self.text),
        };
        let (level, stage, from, seq) = (self.level, self.stage, self.from, self.seq);
        LogRecord { level, stream: self.stream.clone(), stage, from, seq, text, times }
    }
}

impl LogRecord {
    fn write(&self) {
        let stream = Some(self.stream.as_str()).filter(|stream| !stream.is_empty());
        let stage = Some(self.stage).filter(|stage| !stage.is_empty());
        let times = Some(self.times).filter(|times| *times > 1);
        let (from, seq, text) = (self.from, self.seq, &self.text);
        // A target is part of the call site, so each needs its own.
        macro_rules! event {
            ($target:expr) => {
                match self.level {
                    Level::ERROR => tracing::error!(target: $target, stream, stage, from, seq, times, "{text}"),
                    Level::WARN => tracing::warn!(target: $target, stream, stage, from, seq, times, "{text}"),
                    _ => tracing::info!(target: $target, stream, stage, from, seq, times, "{text}"),
                }
            };
        }
        if from.is_some() { event!(STATE_TARGET) } else { event!(module_path!()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine<'_> {
        LogLine { level: Level::ERROR, stream: "gate", stage: "overlay", from: None, seq: None, text }
    }

    fn texts(logged: Vec<LogRecord>) -> Vec<String> {
        logged.into_iter().map(|logged| logged.text).collect()
    }

    #[test]
    fn the_first_line_is_logged_at_once_and_the_others_are_counted() {
        let (lines, start) = (LogDeduplicator::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(texts(lines.record(line("frame 1 at 0.04s: no"), at(0))), ["frame 1 at 0.04s: no"]);
        for n in 2..25 {
            assert_eq!(texts(lines.record(line(&format!("frame {n} at 1.5s: no")), at(n))), [""; 0]);
        }
        assert_eq!(texts(lines.due(at(59), WINDOW)), [""; 0]);
        assert_eq!(texts(lines.due(at(60), WINDOW)), ["frame 24 at 1.5s: no (23 times in the last 60 s)"]);
        assert_eq!(texts(lines.due(at(61), WINDOW)), [""; 0]);
        // Without a flush, the next occurrence logs the count.
        assert_eq!(texts(lines.record(line("frame 25 at 9s: no"), at(100))), [""; 0]);
        assert_eq!(
            texts(lines.record(line("frame 26 at 9s: no"), at(130))),
            ["frame 26 at 9s: no (2 times in the last 70 s)"]
        );
    }

    #[test]
    fn lines_about_different_addresses_are_different() {
        let (lines, now) = (LogDeduplicator::new(), Instant::now());
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            for text in [format!("login from {address}: refused"), format!("too many connections from {address}")] {
                assert_eq!(texts(lines.record(line(&text), now)), [text.as_str()]);
                assert_eq!(texts(lines.record(line(&text), now)), [""; 0]);
            }
        }
    }

    #[test]
    fn a_line_that_occurs_again_after_a_minute_without_it_is_new() {
        let (lines, start) = (LogDeduplicator::new(), Instant::now());
        assert_eq!(texts(lines.record(line("no"), start)), ["no"]);
        assert_eq!(texts(lines.due(start + WINDOW, WINDOW)), [""; 0]);
        assert_eq!(texts(lines.record(line("no"), start + WINDOW)), ["no"]);
        // The last occurrence is not lost; it has no count, because it is one.
        assert_eq!(texts(lines.record(line("no"), start + WINDOW)), [""; 0]);
        assert_eq!(texts(lines.due(start + WINDOW, Duration::ZERO)), ["no"]);
    }

    #[test]
    fn lines_of_other_streams_stages_levels_and_texts_are_different() {
        let (lines, now) = (LogDeduplicator::new(), Instant::now());
        for other in [
            line("a"),
            line("b"),
            LogLine { stream: "yard", ..line("a") },
            LogLine { stage: "publish", ..line("a") },
            LogLine { level: Level::WARN, ..line("a") },
            LogLine { from: Some("live"), ..line("a") },
        ] {
            assert_eq!(lines.record(other, now).len(), 1, "{other:?}");
            assert_eq!(lines.record(other, now).len(), 0, "{other:?}");
        }
    }

    #[test]
    fn the_number_of_lines_is_limited_and_no_count_is_lost() {
        let (lines, start) = (LogDeduplicator::new(), Instant::now());
        let mut logged = 0;
        for n in 0..1000_u64 {
            let text: String =
                format!("{n:x}").chars().map(|c| char::from(b'a' + c.to_digit(16).unwrap() as u8)).collect();
            for _ in 0..3 {
                let now = start + Duration::from_millis(n);
                logged += lines.record(line(&text), now).iter().map(|logged| logged.times).sum::<u64>();
            }
            assert!(lines.0.lock().len() <= MAX_LINES);
        }
        logged +=
            lines.due(start + Duration::from_secs(2), Duration::ZERO).iter().map(|logged| logged.times).sum::<u64>();
        assert_eq!(logged, 3000);
    }

    /// journald and JSON show the fields. The target of a change of state is that of the stream, for log filters.
    #[test]
    fn a_logged_line_has_fields_and_a_target() {
        use std::sync::Arc;
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Memory {
            fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend(data);
                Ok(data.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        let bare = || LogRecord {
            level: Level::ERROR,
            stream: String::new(),
            stage: "",
            from: None,
            seq: None,
            text: "no".into(),
            times: 1,
        };
        let text = "no (3 times in the last 60 s)".into();
        let full = LogRecord { stream: "gate".into(), stage: "segment", seq: Some(7), text, times: 3, ..bare() };
        let change = LogRecord { stream: "gate".into(), from: Some("live"), ..bare() };
        tracing::subscriber::with_default(subscriber.finish(), || {
            [&full, &bare(), &change].into_iter().for_each(|record| record.write())
        });
        let text = String::from_utf8(memory.0.lock().clone()).unwrap();
        let entries: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [logged, bare, change] = &entries[..] else { panic!("{text}") };
        assert_eq!(
            (&logged["stream"], &logged["stage"], &logged["seq"]),
            (&"gate".into(), &"segment".into(), &7.into())
        );
        assert_eq!((&logged["level"], &logged["times"]), (&"ERROR".into(), &3.into()));
        for field in ["stream", "stage", "seq", "times"] {
            assert!(bare.get(field).is_none(), "{bare}");
        }
        let targets = [logged, bare, change].map(|entry| entry["target"].as_str());
        assert_eq!(
            targets,
            [Some("maskcast::base::log_dedup"), Some("maskcast::base::log_dedup"), Some("maskcast::stream::status")]
        );
        assert_eq!((&change["stream"], &change["from"]), (&"gate".into(), &"live".into()));
    }
}
