//! Log lines of faults that repeat: the first at once, the others counted and logged together.
//!
//! A fault that comes with every frame or every attempt would fill the log with one line and hide all others. So the
//! line is written when the fault comes, and once a minute, for as long as it repeats, with a count:
//! `… (23 times in the last 60 s)`. Lines are the same when their level, stream, stage and words are; numbers (frames,
//! times, counts) do not make lines different, IP addresses do. Between two counted lines only the newest line's numbers are known.
//!
//! Filters like `tracing-throttle` sit before the subscriber, where an event's text is made already and its count can
//! only be logged by another event without its fields; they take lines with other frame numbers for other lines.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

/// How long a line is counted before it is logged again.
const WINDOW: Duration = Duration::from_secs(60);

/// Different lines that are kept in mind; one more, and the oldest is logged early.
const KINDS: usize = 64;

/// Of the whole process, as the log is.
static LINES: LogDeduplicator = LogDeduplicator::new();

/// A line of the log, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// `WARN`, `ERROR`; anything else is logged as `INFO`.
    pub level: Level,
    /// Empty where it is no stream's.
    pub stream: &'a str,
    /// Empty outside the stages.
    pub stage: &'static str,
    /// Of a change of state: the state before.
    pub from: Option<&'static str>,
    /// The frame it is about.
    pub seq: Option<u64>,
    pub text: &'a str,
}

/// Writes a line to the log, now or, when it repeats, with its count within a minute.
pub fn log(line: LogLine<'_>) {
    LINES.enter(line, Instant::now()).iter().for_each(LogRecord::write);
}

/// An error of a stream's stage.
pub fn error(stream: &str, stage: &'static str, seq: Option<u64>, text: &str) {
    log(LogLine { level: Level::ERROR, stream, stage, from: None, seq, text });
}

/// A warning of a stream's stage; both may be empty.
pub fn warn(stream: &str, stage: &'static str, text: &str) {
    log(LogLine { level: Level::WARN, stream, stage, from: None, seq: None, text });
}

/// What a stream's stage does about a fault that may repeat.
pub fn info(stream: &str, stage: &'static str, text: &str) {
    log(LogLine { level: Level::INFO, stream, stage, from: None, seq: None, text });
}

/// Tells what was counted and is due. To be called every now and then.
pub fn flush_due() {
    LINES.due(Instant::now(), WINDOW).iter().for_each(LogRecord::write);
}

/// Tells all that was counted: the log ends.
pub fn flush_all() {
    LINES.due(Instant::now(), Duration::ZERO).iter().for_each(LogRecord::write);
}

/// Lines that were logged, and how often each has come since.
struct LogDeduplicator(Mutex<Vec<RepeatedLine>>);

struct RepeatedLine {
    level: Level,
    stream: String,
    stage: &'static str,
    from: Option<&'static str>,
    /// The text without its numbers.
    words: String,
    logged: Instant,
    count: u64,
    seq: Option<u64>,
    text: String,
}

/// What goes to the log.
#[derive(Debug, PartialEq, Eq)]
struct LogRecord {
    level: Level,
    stream: String,
    stage: &'static str,
    from: Option<&'static str>,
    seq: Option<u64>,
    text: String,
    /// More than one: so many stand behind this line.
    times: u64,
}

impl LogDeduplicator {
    const fn new() -> Self {
        LogDeduplicator(Mutex::new(Vec::new()))
    }

    /// What is to be logged because of `line`.
    fn enter(&self, line: LogLine<'_>, now: Instant) -> Vec<LogRecord> {
        let LogLine { level, stream, stage, from, seq, text } = line;
        let text = &*crate::base::bounded::line(text);
        let words = words(text);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lines.iter_mut().find(|line| {
            (line.level, line.stage, line.from) == (level, stage, from) && line.stream == stream && line.words == words
        });
        if let Some(line) = known {
            line.count += 1;
            line.seq = seq;
            text.clone_into(&mut line.text);
            // Where nobody asks for what is due, the next line does.
            return if now - line.logged >= WINDOW { vec![line.take_record(now)] } else { Vec::new() };
        }
        let oldest = lines.iter().enumerate().min_by_key(|(_, line)| line.logged).map(|(at, _)| at);
        let evicted = oldest.filter(|_| lines.len() >= KINDS).map(|at| lines.swap_remove(at));
        let mut logged: Vec<LogRecord> =
            evicted.filter(|line| line.count > 0).map(|mut line| line.take_record(now)).into_iter().collect();
        let (stream, text) = (stream.to_owned(), text.to_owned());
        logged.push(LogRecord { level, stream: stream.clone(), stage, from, seq, text: text.clone(), times: 1 });
        lines.push(RepeatedLine { level, stream, stage, from, words, logged: now, count: 0, seq, text });
        logged
    }

    /// What was counted and last logged `window` ago; what has not come again since is forgotten.
    fn due(&self, now: Instant, window: Duration) -> Vec<LogRecord> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.count > 0 || now.saturating_duration_since(line.logged) < window);
        let due =
            lines.iter_mut().filter(|line| line.count > 0 && now.saturating_duration_since(line.logged) >= window);
        due.map(|line| line.take_record(now)).collect()
    }
}

/// A text without its numbers, by which repeats are found. Addresses stay: a line about another client is another line.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for word in text.split_inclusive(' ') {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':');
        match bare.trim_end_matches(':').parse::<IpAddr>() {
            Ok(_) => words.push_str(word),
            Err(_) => words.extend(word.chars().filter(|c| !c.is_ascii_digit() && *c != '.')),
        }
    }
    words
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
        match self.level {
            Level::ERROR => tracing::error!(stream, stage, from, seq, times, "{text}"),
            Level::WARN => tracing::warn!(stream, stage, from, seq, times, "{text}"),
            _ => tracing::info!(stream, stage, from, seq, times, "{text}"),
        }
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
    fn the_first_at_once_the_others_counted() {
        let (lines, start) = (LogDeduplicator::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(texts(lines.enter(line("frame 1 at 0.04s: no"), at(0))), ["frame 1 at 0.04s: no"]);
        for n in 2..25 {
            assert_eq!(texts(lines.enter(line(&format!("frame {n} at 1.5s: no")), at(n))), [""; 0]);
        }
        assert_eq!(texts(lines.due(at(59), WINDOW)), [""; 0]);
        assert_eq!(texts(lines.due(at(60), WINDOW)), ["frame 24 at 1.5s: no (23 times in the last 60 s)"]);
        assert_eq!(texts(lines.due(at(61), WINDOW)), [""; 0]);
        // Without anybody asking, the next one brings the count.
        assert_eq!(texts(lines.enter(line("frame 25 at 9s: no"), at(100))), [""; 0]);
        assert_eq!(
            texts(lines.enter(line("frame 26 at 9s: no"), at(130))),
            ["frame 26 at 9s: no (2 times in the last 70 s)"]
        );
    }

    #[test]
    fn lines_about_different_addresses_are_different() {
        let (lines, now) = (LogDeduplicator::new(), Instant::now());
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            for text in [format!("login from {address}: refused"), format!("{address} has too many connections")] {
                assert_eq!(texts(lines.enter(line(&text), now)), [text.as_str()]);
                assert_eq!(texts(lines.enter(line(&text), now)), [""; 0]);
            }
        }
    }

    #[test]
    fn a_fault_that_comes_again_after_a_quiet_minute_is_new() {
        let (lines, start) = (LogDeduplicator::new(), Instant::now());
        assert_eq!(texts(lines.enter(line("no"), start)), ["no"]);
        assert_eq!(texts(lines.due(start + WINDOW, WINDOW)), [""; 0]);
        assert_eq!(texts(lines.enter(line("no"), start + WINDOW)), ["no"]);
        // The last one of all is not lost, and says what it is: one.
        assert_eq!(texts(lines.enter(line("no"), start + WINDOW)), [""; 0]);
        assert_eq!(texts(lines.due(start + WINDOW, Duration::ZERO)), ["no"]);
    }

    #[test]
    fn other_streams_stages_levels_and_words_are_other_lines() {
        let (lines, now) = (LogDeduplicator::new(), Instant::now());
        for other in [
            line("a"),
            line("b"),
            LogLine { stream: "yard", ..line("a") },
            LogLine { stage: "publish", ..line("a") },
            LogLine { level: Level::WARN, ..line("a") },
            LogLine { from: Some("live"), ..line("a") },
        ] {
            assert_eq!(lines.enter(other, now).len(), 1, "{other:?}");
            assert_eq!(lines.enter(other, now).len(), 0, "{other:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_nothing_counted_is_lost() {
        let (lines, start) = (LogDeduplicator::new(), Instant::now());
        let mut logged = 0;
        for n in 0..1000_u64 {
            let text: String =
                format!("{n:x}").chars().map(|c| char::from(b'a' + c.to_digit(16).unwrap() as u8)).collect();
            for _ in 0..3 {
                let now = start + Duration::from_millis(n);
                logged += lines.enter(line(&text), now).iter().map(|logged| logged.times).sum::<u64>();
            }
            assert!(lines.0.lock().unwrap().len() <= KINDS);
        }
        logged +=
            lines.due(start + Duration::from_secs(2), Duration::ZERO).iter().map(|logged| logged.times).sum::<u64>();
        assert_eq!(logged, 3000);
    }

    /// What reaches the log has the fields that journald and JSON show.
    #[test]
    fn the_fields_are_fields() {
        use std::sync::Arc;
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Memory {
            fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend(data);
                Ok(data.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        let logged = LogRecord {
            level: Level::ERROR,
            stream: "gate".into(),
            stage: "segment",
            from: None,
            seq: Some(7),
            text: "no (3 times in the last 60 s)".into(),
            times: 3,
        };
        let bare = LogRecord { stream: String::new(), stage: "", seq: None, text: "no".into(), times: 1, ..logged };
        tracing::subscriber::with_default(subscriber.finish(), || {
            [&logged, &bare].into_iter().for_each(|logged| logged.write())
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let entries: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [logged, bare] = &entries[..] else { panic!("{text}") };
        assert_eq!(
            (&logged["stream"], &logged["stage"], &logged["seq"]),
            (&"gate".into(), &"segment".into(), &7.into())
        );
        assert_eq!((&logged["level"], &logged["times"]), (&"ERROR".into(), &3.into()));
        for field in ["stream", "stage", "seq", "times"] {
            assert!(bare.get(field).is_none(), "{bare}");
        }
    }
}
