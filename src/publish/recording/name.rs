//! Names of recordings: `STREAM-20261124T101500Z.mp4`.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::config::Container;

const TIME: &str = "%Y%m%dT%H%M%SZ";

/// What a recording's name says beside its stream. Ordered by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordingName {
    /// When its first picture was recorded, in whole seconds of UTC.
    pub start: Timestamp,
    /// From 2 on where there is another recording of that second; else 1.
    pub number: u32,
    /// The event that it was recorded for.
    pub event: Option<String>,
    pub container: Container,
}

impl RecordingName {
    /// Reads the name of a file of `stream`; `None` for every other name, and so for everything that leads elsewhere.
    pub fn parse(stream: &str, file: &str) -> Option<Self> {
        let rest = file.strip_prefix(stream)?.strip_prefix('-')?;
        let (rest, container) = match rest.rsplit_once('.')? {
            (rest, "mp4") => (rest, Container::Mp4),
            (rest, "mkv") => (rest, Container::Mkv),
            _ => return None,
        };
        let (time, rest) = rest.split_at_checked("20261124T101500Z".len())?;
        let start = strtime::parse(TIME, time).ok()?.to_datetime().ok()?;
        let start = TimeZone::UTC.to_timestamp(start).ok()?;
        // An event begins with a letter, a number does not.
        let (number, event) = match rest.strip_prefix('-') {
            None => (None, None),
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => match rest.split_once('-') {
                None => (Some(rest), None),
                Some((number, event)) => (Some(number), Some(event)),
            },
            Some(event) => (None, Some(event)),
        };
        let number = number.map_or(Some(1), |number| number.parse().ok())?;
        let name = RecordingName { start, number, event: event.map(str::to_owned), container };
        let is_event = |event: &String| {
            event.starts_with(|c: char| c.is_ascii_alphabetic())
                && event.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        // One name has one spelling.
        (name.event.as_ref().is_none_or(is_event) && name.of(stream) == file).then_some(name)
    }

    /// The file's name as a recording of `stream`.
    pub fn of(&self, stream: &str) -> String {
        format!("{stream}-{self}")
    }
}

impl fmt::Display for RecordingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start.strftime(TIME))?;
        if self.number > 1 {
            write!(f, "-{}", self.number)?;
        }
        if let Some(event) = &self.event {
            write!(f, "-{event}")?;
        }
        f.write_str(match self.container {
            Container::Mp4 => ".mp4",
            Container::Mkv => ".mkv",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_were_made_of() {
        for (number, event, container, file) in [
            (1, None, Container::Mp4, "gate-20261124T101500Z.mp4"),
            (2, None, Container::Mkv, "gate-20261124T101500Z-2.mkv"),
            (1, Some("visit"), Container::Mp4, "gate-20261124T101500Z-visit.mp4"),
            (12, Some("visit-2"), Container::Mp4, "gate-20261124T101500Z-12-visit-2.mp4"),
        ] {
            let start = "2026-11-24T10:15:00Z".parse().unwrap();
            let name = RecordingName { start, number, event: event.map(str::to_owned), container };
            assert_eq!(name.of("gate"), file);
            assert_eq!(RecordingName::parse("gate", file), Some(name));
        }
    }

    #[test]
    fn no_other_file_is_ours() {
        for file in [
            "gate-2-20261124T101500Z.mp4",
            "yard-20261124T101500Z.mp4",
            "gate-20261124T101500Z.txt",
            "gate-20261124T101500Z.mp4.part",
            "gate-20261124T101500Z",
            "gate-20261324T101500Z.mp4",
            "gate-20261124T101500.mp4",
            "gate-20261124T101500Z-1.mp4",
            "gate-20261124T101500Z-02.mp4",
            "gate-20261124T101500Z-.mp4",
            "gate-20261124T101500Z-99999999999.mp4",
            "gate-20261124T101500Z-a/../../b.mp4",
            "../gate-20261124T101500Z.mp4",
            "gate-20261124T101500Zéé.mp4",
            "gate-2026112éT101500.mp4",
            "gate.mp4",
            "",
        ] {
            assert_eq!(RecordingName::parse("gate", file), None, "{file}");
        }
        // A stream whose name looks like a recording keeps its own.
        assert_eq!(RecordingName::parse("gate", "gate-20261124T101500Z-20261125T101500Z.mp4"), None);
    }

    #[test]
    fn names_are_in_the_order_of_time() {
        let files = [
            "g-20261124T101459Z-2-visit.mp4",
            "g-20261124T101500Z.mp4",
            "g-20261124T101500Z-2.mp4",
            "g-20261124T101500Z-10.mp4",
            "g-20261124T101501Z.mkv",
        ];
        let names: Vec<RecordingName> = files.iter().map(|file| RecordingName::parse("g", file).unwrap()).collect();
        assert!(names.is_sorted(), "{names:?}");
    }
}
