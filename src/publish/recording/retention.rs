//! Which recordings are removed: the oldest, for as long as a limit is not kept.

use std::time::Duration;

use bytesize::ByteSize;

use crate::config::RecordConfig;

/// Why a recording is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It began longer ago than `max_age`.
    Age,
    /// The stream's recordings were larger than `max_size`.
    Size,
    /// Less than `min_free` was free on the disk.
    Space,
    /// Somebody asked for it.
    Request,
}

impl Removal {
    pub const ALL: [Removal; 4] = [Removal::Age, Removal::Size, Removal::Space, Removal::Request];

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Removal::Age => "age",
            Removal::Size => "size",
            Removal::Space => "space",
            Removal::Request => "request",
        }
    }

    /// What was wrong with it, for people.
    fn why(self) -> &'static str {
        match self {
            Removal::Age => "older than max_age",
            Removal::Size => "beyond max_size",
            Removal::Space => "to keep min_free",
            Removal::Request => "asked for",
        }
    }
}

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionLimits {
    pub max_age: Option<Duration>,
    pub max_size: Option<u64>,
    pub min_free: Option<u64>,
}

impl From<&RecordConfig> for RetentionLimits {
    fn from(config: &RecordConfig) -> Self {
        RetentionLimits { max_age: config.max_age, max_size: config.max_size, min_free: config.min_free }
    }
}

/// A recording that may be removed: one that is not being written.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRecording {
    /// Since it began.
    pub age: Duration,
    pub bytes: u64,
}

/// What has to go, and whether that is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Why the oldest goes, why the next, …; no more go than there are reasons.
    pub reasons: Vec<Removal>,
    /// Whether `min_free` is kept then.
    pub room: bool,
}

/// Decides about `files`, the oldest first. `open` is the size of the file that is being written, `free` what is free on
/// the disk now, both in bytes.
///
/// What a removed file leaves is counted as free at once: a file system that takes its time must not cost another file.
pub fn doomed(files: &[FinishedRecording], open: u64, free: Option<u64>, limits: RetentionLimits) -> RetentionPlan {
    let mut total = files.iter().map(|file| file.bytes).sum::<u64>() + open;
    let mut free = free;
    let mut reasons = Vec::new();
    let short = |free: Option<u64>| free.zip(limits.min_free).is_some_and(|(free, least)| free < least);
    for file in files {
        let reason = if limits.max_age.is_some_and(|most| file.age > most) {
            Removal::Age
        } else if limits.max_size.is_some_and(|most| total > most) {
            Removal::Size
        } else if short(free) {
            Removal::Space
        } else {
            break;
        };
        reasons.push(reason);
        total -= file.bytes;
        free = free.map(|free| free.saturating_add(file.bytes));
    }
    RetentionPlan { reasons, room: !short(free) }
}

/// What was removed at once, for the log.
#[derive(Default)]
pub(super) struct RemovedFiles {
    pub files: u64,
    bytes: u64,
    by: [u64; Removal::ALL.len()],
}

impl RemovedFiles {
    pub fn add(&mut self, reason: Removal, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        self.by[reason as usize] += 1;
    }
}

impl std::fmt::Display for RemovedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.files == 1 { "" } else { "s" };
        write!(f, "removed {} recording{plural} ({})", self.files, ByteSize::b(self.bytes).display().si())?;
        let reasons = Removal::ALL.into_iter().filter(|reason| self.by[*reason as usize] > 0);
        for (n, reason) in reasons.enumerate() {
            let lead = if n == 0 { ":" } else { "," };
            match self.by[reason as usize] {
                count if count == self.files => write!(f, "{lead} {}", reason.why())?,
                count => write!(f, "{lead} {count} {}", reason.why())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of 100 bytes each, an hour apart; the newest began an hour ago.
    fn decide(count: i64, open: u64, free: Option<u64>, limits: RetentionLimits) -> RetentionPlan {
        let file = |hours: i64| FinishedRecording { age: Duration::from_secs(3600 * hours as u64), bytes: 100 };
        let files: Vec<FinishedRecording> = (1..=count).rev().map(file).collect();
        doomed(&files, open, free, limits)
    }

    #[test]
    fn the_log_says_what_has_gone_and_why() {
        let mut gone = RemovedFiles::default();
        gone.add(Removal::Size, 1_200_000);
        assert_eq!(gone.to_string(), "removed 1 recording (1.2 MB): beyond max_size");
        gone.add(Removal::Age, 800_000);
        gone.add(Removal::Age, 1_000_000);
        assert_eq!(gone.to_string(), "removed 3 recordings (3.0 MB): 2 older than max_age, 1 beyond max_size");
    }

    #[test]
    fn without_limits_nothing_goes() {
        let doomed = decide(1000, 1 << 40, Some(0), RetentionLimits::default());
        assert_eq!(doomed, RetentionPlan { reasons: Vec::new(), room: true });
    }

    #[test]
    fn what_began_too_long_ago_goes() {
        let limits = RetentionLimits { max_age: Some(Duration::from_secs(3 * 3600)), ..RetentionLimits::default() };
        assert_eq!(decide(5, 0, None, limits).reasons, [Removal::Age, Removal::Age]);
    }

    #[test]
    fn the_open_file_counts_and_stays() {
        let limits = RetentionLimits { max_size: Some(300), ..RetentionLimits::default() };
        assert_eq!(decide(3, 0, None, limits).reasons, []);
        assert_eq!(decide(3, 1, None, limits).reasons, [Removal::Size]);
        assert_eq!(decide(3, 1000, None, limits).reasons, [Removal::Size; 3]);
        assert_eq!(decide(0, 1000, None, limits), RetentionPlan { reasons: Vec::new(), room: true });
    }

    #[test]
    fn the_oldest_make_room_on_the_disk() {
        let limits = RetentionLimits { min_free: Some(1000), ..RetentionLimits::default() };
        assert_eq!(decide(5, 0, Some(1000), limits), RetentionPlan { reasons: Vec::new(), room: true });
        assert_eq!(decide(5, 0, Some(750), limits), RetentionPlan { reasons: vec![Removal::Space; 3], room: true });
        assert_eq!(decide(2, 0, Some(750), limits), RetentionPlan { reasons: vec![Removal::Space; 2], room: false });
        assert_eq!(decide(0, 0, Some(750), limits), RetentionPlan { reasons: Vec::new(), room: false });
        assert_eq!(decide(2, 0, None, limits), RetentionPlan { reasons: Vec::new(), room: true }, "nobody knows");
    }

    #[test]
    fn a_file_goes_for_one_reason_and_counts_for_all() {
        let limits =
            RetentionLimits { max_age: Some(Duration::from_secs(4 * 3600)), max_size: Some(300), min_free: Some(500) };
        let doomed = decide(5, 0, Some(300), limits);
        assert_eq!(doomed, RetentionPlan { reasons: vec![Removal::Age, Removal::Size], room: true });
    }
}
