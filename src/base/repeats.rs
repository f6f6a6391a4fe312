//! Log lines of faults that repeat: the first at once, the others counted and told together.
//!
//! A fault that comes with every frame or every attempt would fill the log with one line and hide all others. So the
//! line is written when the fault comes, and once a minute, for as long as it repeats, with a count:
//! `… (23 times in the last 60 s)`. Lines are the same when their level, stream, stage and words are; numbers (frames,
//! times, counts) do not make lines different, IP addresses do. Between two counted lines only the newest line's numbers are known.
//!
//! Filters like `tracing-throttle` sit before the subscriber, where an event's text is made already and its count can
//! only be told by another event without its fields; they take lines with other frame numbers for other lines.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

/// How long a line is counted before it is told again.
const WINDOW: Duration = Duration::from_secs(60);

/// Different lines that are kept in mind; one more, and the oldest is told early.
const KINDS: usize = 64;

/// Of the whole process, as the log is.
static LINES: Repeats = Repeats::new();

/// A line of the log, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// `WARN`, `ERROR`; anything else is told as `INFO`.
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
pub fn tell(line: Line<'_>) {
    LINES.enter(line, Instant::now()).iter().for_each(Told::write);
}

/// An error of a stream's stage.
pub fn error(stream: &str, stage: &'static str, seq: Option<u64>, text: &str) {
    tell(Line { level: Level::ERROR, stream, stage, from: None, seq, text });
}

/// A warning of a stream's stage; both may be empty.
pub fn warn(stream: &str, stage: &'static str, text: &str) {
    tell(Line { level: Level::WARN, stream, stage, from: None, seq: None, text });
}

/// What a stream's stage does about a fault that may repeat.
pub fn info(stream: &str, stage: &'static str, text: &str) {
    tell(Line { level: Level::INFO, stream, stage, from: None, seq: None, text });
}

/// Tells what was counted and is due. To be called every now and then.
pub fn tell_due() {
    LINES.due(Instant::now(), WINDOW).iter().for_each(Told::write);
}

/// Tells all that was counted: the log ends.
pub fn tell_rest() {
    LINES.due(Instant::now(), Duration::ZERO).iter().for_each(Told::write);
}

/// Lines that were told, and how often each has come since.
struct Repeats(Mutex<Vec<Kind>>);

struct Kind {
    level: Level,
    stream: String,
    stage: &'static str,
    from: Option<&'static str>,
    /// The text without its numbers.
    words: String,
    told: Instant,
    count: u64,
    seq: Option<u64>,
    text: String,
}

/// What goes to the log.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    level: Level,
    stream: String,
    stage: &'static str,
    from: Option<&'static str>,
    seq: Option<u64>,
    text: String,
    /// More than one: so many stand behind this line.
    times: u64,
}

impl Repeats {
    const fn new() -> Self {
        Repeats(Mutex::new(Vec::new()))
    }

    /// What is to be told because of `line`.
    fn enter(&self, line: Line<'_>, now: Instant) -> Vec<Told> {
        let Line { level, stream, stage, from, seq, text } = line;
        let text = &*crate::base::bounded::line(text);
        let words = words(text);
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kinds.iter_mut().find(|kind| {
            (kind.level, kind.stage, kind.from) == (level, stage, from) && kind.stream == stream && kind.words == words
        });
        if let Some(kind) = known {
            kind.count += 1;
            kind.seq = seq;
            text.clone_into(&mut kind.text);
            // Where nobody asks for what is due, the next line does.
            return if now - kind.told >= WINDOW { vec![kind.tell(now)] } else { Vec::new() };
        }
        let oldest = kinds.iter().enumerate().min_by_key(|(_, kind)| kind.told).map(|(at, _)| at);
        let evicted = oldest.filter(|_| kinds.len() >= KINDS).map(|at| kinds.swap_remove(at));
        let mut told: Vec<Told> =
            evicted.filter(|kind| kind.count > 0).map(|mut kind| kind.tell(now)).into_iter().collect();
        let (stream, text) = (stream.to_owned(), text.to_owned());
        told.push(Told { level, stream: stream.clone(), stage, from, seq, text: text.clone(), times: 1 });
        kinds.push(Kind { level, stream, stage, from, words, told: now, count: 0, seq, text });
        told
    }

    /// What was counted and last told `window` ago; what has not come again since is forgotten.
    fn due(&self, now: Instant, window: Duration) -> Vec<Told> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.retain(|kind| kind.count > 0 || now.saturating_duration_since(kind.told) < window);
        let due = kinds.iter_mut().filter(|kind| kind.count > 0 && now.saturating_duration_since(kind.told) >= window);
        due.map(|kind| kind.tell(now)).collect()
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

impl Kind {
    fn tell(&mut self, now: Instant) -> Told {
        let seconds = now.saturating_duration_since(self.told).as_secs_f64();
        let times = std::mem::take(&mut self.count);
        self.told = now;
        let text = match times {
            1 => self.text.clone(),
            _ => format!("{} ({times} times in the last {seconds:.0} s)", self.text),
        };
        let (level, stage, from, seq) = (self.level, self.stage, self.from, self.seq);
        Told { level, stream: self.stream.clone(), stage, from, seq, text, times }
    }
}

impl Told {
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

    fn line(text: &str) -> Line<'_> {
        Line { level: Level::ERROR, stream: "gate", stage: "overlay", from: None, seq: None, text }
    }

    fn texts(told: Vec<Told>) -> Vec<String> {
        told.into_iter().map(|told| told.text).collect()
    }

    #[test]
    fn the_first_at_once_the_others_counted() {
        let (lines, start) = (Repeats::new(), Instant::now());
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
        let (lines, now) = (Repeats::new(), Instant::now());
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            for text in [format!("login from {address}: refused"), format!("{address} has too many connections")] {
                assert_eq!(texts(lines.enter(line(&text), now)), [text.as_str()]);
                assert_eq!(texts(lines.enter(line(&text), now)), [""; 0]);
            }
        }
    }

    #[test]
    fn a_fault_that_comes_again_after_a_quiet_minute_is_new() {
        let (lines, start) = (Repeats::new(), Instant::now());
        assert_eq!(texts(lines.enter(line("no"), start)), ["no"]);
        assert_eq!(texts(lines.due(start + WINDOW, WINDOW)), [""; 0]);
        assert_eq!(texts(lines.enter(line("no"), start + WINDOW)), ["no"]);
        // The last one of all is not lost, and says what it is: one.
        assert_eq!(texts(lines.enter(line("no"), start + WINDOW)), [""; 0]);
        assert_eq!(texts(lines.due(start + WINDOW, Duration::ZERO)), ["no"]);
    }

    #[test]
    fn other_streams_stages_levels_and_words_are_other_lines() {
        let (lines, now) = (Repeats::new(), Instant::now());
        for other in [
            line("a"),
            line("b"),
            Line { stream: "yard", ..line("a") },
            Line { stage: "publish", ..line("a") },
            Line { level: Level::WARN, ..line("a") },
            Line { from: Some("live"), ..line("a") },
        ] {
            assert_eq!(lines.enter(other, now).len(), 1, "{other:?}");
            assert_eq!(lines.enter(other, now).len(), 0, "{other:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_nothing_counted_is_lost() {
        let (lines, start) = (Repeats::new(), Instant::now());
        let mut told = 0;
        for n in 0..1000_u64 {
            let text: String =
                format!("{n:x}").chars().map(|c| char::from(b'a' + c.to_digit(16).unwrap() as u8)).collect();
            for _ in 0..3 {
                let now = start + Duration::from_millis(n);
                told += lines.enter(line(&text), now).iter().map(|told| told.times).sum::<u64>();
            }
            assert!(lines.0.lock().unwrap().len() <= KINDS);
        }
        told += lines.due(start + Duration::from_secs(2), Duration::ZERO).iter().map(|told| told.times).sum::<u64>();
        assert_eq!(told, 3000);
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
        let told = Told {
            level: Level::ERROR,
            stream: "gate".into(),
            stage: "segment",
            from: None,
            seq: Some(7),
            text: "no (3 times in the last 60 s)".into(),
            times: 3,
        };
        let bare = Told { stream: String::new(), stage: "", seq: None, text: "no".into(), times: 1, ..told };
        tracing::subscriber::with_default(subscriber.finish(), || {
            [&told, &bare].into_iter().for_each(|told| told.write())
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let entries: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [told, bare] = &entries[..] else { panic!("{text}") };
        assert_eq!((&told["stream"], &told["stage"], &told["seq"]), (&"gate".into(), &"segment".into(), &7.into()));
        assert_eq!((&told["level"], &told["times"]), (&"ERROR".into(), &3.into()));
        for field in ["stream", "stage", "seq", "times"] {
            assert!(bare.get(field).is_none(), "{bare}");
        }
    }
}
