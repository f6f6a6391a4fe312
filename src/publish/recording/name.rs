//! File names of recordings: `STREAM-20261124T101500Z.mp4`, with the time in UTC.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::config::Container;

const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// The parts of a recording's file name after the name of the stream. Ordered by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordingName {
    /// When the first frame was recorded, in whole seconds.
    pub start: Timestamp,
    /// Distinguishes recordings that started in the same second: 1 for the first, not written in the name; 2 and up for
    /// the others.
    pub number: u32,
    /// The event that was recorded; `None` in a continuous recording.
    pub event: Option<String>,
    pub container: Container,
}

impl RecordingName {
    /// Parses the file name of a recording of `stream`; `None` for every other name, so also for a path with
    /// separators.
    pub fn parse(stream: &str, file: &str) -> Option<Self> {
        let rest = file.strip_prefix(stream)?.strip_prefix('-')?;
        let (rest, container) = match rest.rsplit_once('.')? {
            (rest, "mp4") => (rest, Container::Mp4),
            (rest, "mkv") => (rest, Container::Mkv),
            _ => return None,
        };
        let (time, rest) = rest.split_at_checked("20261124T101500Z".len())?;
        let start = strtime::parse(TIME_FORMAT, time).ok()?.to_datetime().ok()?;
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
        // Only the canonical spelling is accepted.
        (name.event.as_ref().is_none_or(is_event) && name.file_name(stream) == file).then_some(name)
    }

    /// The file name of a recording of `stream`.
    pub fn file_name(&self, stream: &str) -> String {
        format!("{stream}-{self}")
    }
}

impl fmt::Display for RecordingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start.strftime(TIME_FORMAT))?;
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
    fn file_names_can_be_parsed_back() {
        for (number, event, container, file) in [
            (1, None, Container::Mp4, "gate-20261124T101500Z.mp4"),
            (2, None, Container::Mkv, "gate-20261124T101500Z-2.mkv"),
            (1, Some("visit"), Container::Mp4, "gate-20261124T101500Z-visit.mp4"),
            (12, Some("visit-2"), Container::Mp4, "gate-20261124T101500Z-12-visit-2.mp4"),
        ] {
            let start = "2026-11-24T10:15:00Z".parse().unwrap();
            let name = RecordingName { start, number, event: event.map(str::to_owned), container };
            assert_eq!(name.file_name("gate"), file);
            assert_eq!(RecordingName::parse("gate", file), Some(name));
        }
    }

    #[test]
    fn other_file_names_are_rejected() {
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
        // A recording of a stream whose name itself looks like a recording of `gate`.
        assert_eq!(RecordingName::parse("gate", "gate-20261124T101500Z-20261125T101500Z.mp4"), None);
    }

    #[test]
    fn names_are_ordered_by_time() {
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
