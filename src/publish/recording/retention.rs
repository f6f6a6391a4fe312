//! Retention: decides which recordings are removed. The oldest are removed until all limits are met.

use std::time::Duration;

use bytesize::ByteSize;

use crate::config::RecordConfig;

/// Why a recording is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The recording started longer ago than `max_age`.
    Age,
    /// The recordings of the stream were larger than `max_size` in total.
    Size,
    /// Less than `min_free` was free on the disk.
    Space,
    /// A client of the API requested it.
    Request,
}

impl Removal {
    pub const ALL: [Removal; 4] = [Removal::Age, Removal::Size, Removal::Space, Removal::Request];

    /// The value of the `reason` label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Removal::Age => "age",
            Removal::Size => "size",
            Removal::Space => "space",
            Removal::Request => "request",
        }
    }

    /// The text for the log.
    fn description(self) -> &'static str {
        match self {
            Removal::Age => "older than max_age",
            Removal::Size => "beyond max_size",
            Removal::Space => "to keep min_free",
            Removal::Request => "requested",
        }
    }
}

/// Limits of a stream's recordings; sizes in bytes. `None` is no limit.
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

/// A recording that may be removed, because it is not being written.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRecording {
    /// Since it started.
    pub age: Duration,
    pub bytes: u64,
}

/// Which recordings to remove, and whether that is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPlan {
    /// One reason per recording to remove, beginning with the oldest recording.
    pub reasons: Vec<Removal>,
    /// Whether at least `min_free` is free after that.
    pub enough_space: bool,
}

/// Decides which of `files`, ordered from the oldest to the newest, to remove. `open` is the size of the file that is
/// being written, `free` the free space on the disk, both in bytes.
///
/// The size of a removed file counts as free immediately, so that a file system that frees it later does not cause
/// further files to be removed.
pub fn plan_retention(
    files: &[FinishedRecording],
    open: u64,
    free: Option<u64>,
    limits: RetentionLimits,
) -> RetentionPlan {
    let mut total = files.iter().map(|file| file.bytes).sum::<u64>() + open;
    let mut free = free;
    let mut reasons = Vec::new();
    let too_little = |free: Option<u64>| free.zip(limits.min_free).is_some_and(|(free, min_free)| free < min_free);
    for file in files {
        let reason = if limits.max_age.is_some_and(|max_age| file.age > max_age) {
            Removal::Age
        } else if limits.max_size.is_some_and(|max_size| total > max_size) {
            Removal::Size
        } else if too_little(free) {
            Removal::Space
        } else {
            break;
        };
        reasons.push(reason);
        total -= file.bytes;
        free = free.map(|free| free.saturating_add(file.bytes));
    }
    RetentionPlan { reasons, enough_space: !too_little(free) }
}

/// The recordings that were removed together; displayed as a line for the log.
#[derive(Default)]
pub(super) struct RemovedFiles {
    pub files: u64,
    bytes: u64,
    by_reason: [u64; Removal::ALL.len()],
}

impl RemovedFiles {
    pub fn add(&mut self, reason: Removal, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        self.by_reason[reason as usize] += 1;
    }
}

impl std::fmt::Display for RemovedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.files == 1 { "" } else { "s" };
        write!(f, "removed {} recording{plural} ({})", self.files, ByteSize::b(self.bytes).display().si())?;
        let reasons = Removal::ALL.into_iter().filter(|reason| self.by_reason[*reason as usize] > 0);
        for (n, reason) in reasons.enumerate() {
            let lead = if n == 0 { ":" } else { "," };
            match self.by_reason[reason as usize] {
                count if count == self.files => write!(f, "{lead} {}", reason.description())?,
                count => write!(f, "{lead} {count} {}", reason.description())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plan for `count` files of 100 bytes each, one hour apart; the newest started an hour ago.
    fn plan(count: i64, open: u64, free: Option<u64>, limits: RetentionLimits) -> RetentionPlan {
        let file = |hours: i64| FinishedRecording { age: Duration::from_secs(3600 * hours as u64), bytes: 100 };
        let files: Vec<FinishedRecording> = (1..=count).rev().map(file).collect();
        plan_retention(&files, open, free, limits)
    }

    #[test]
    fn the_log_line_has_the_number_of_removed_recordings_for_each_reason() {
        let mut removed = RemovedFiles::default();
        removed.add(Removal::Size, 1_200_000);
        assert_eq!(removed.to_string(), "removed 1 recording (1.2 MB): beyond max_size");
        removed.add(Removal::Age, 800_000);
        removed.add(Removal::Age, 1_000_000);
        assert_eq!(removed.to_string(), "removed 3 recordings (3.0 MB): 2 older than max_age, 1 beyond max_size");
    }

    #[test]
    fn without_limits_nothing_is_removed() {
        let plan = plan(1000, 1 << 40, Some(0), RetentionLimits::default());
        assert_eq!(plan, RetentionPlan { reasons: Vec::new(), enough_space: true });
    }

    #[test]
    fn recordings_older_than_max_age_are_removed() {
        let limits = RetentionLimits { max_age: Some(Duration::from_secs(3 * 3600)), ..RetentionLimits::default() };
        assert_eq!(plan(5, 0, None, limits).reasons, [Removal::Age, Removal::Age]);
    }

    #[test]
    fn the_open_file_counts_for_max_size_and_is_not_removed() {
        let limits = RetentionLimits { max_size: Some(300), ..RetentionLimits::default() };
        assert_eq!(plan(3, 0, None, limits).reasons, []);
        assert_eq!(plan(3, 1, None, limits).reasons, [Removal::Size]);
        assert_eq!(plan(3, 1000, None, limits).reasons, [Removal::Size; 3]);
        assert_eq!(plan(0, 1000, None, limits), RetentionPlan { reasons: Vec::new(), enough_space: true });
    }

    #[test]
    fn the_oldest_recordings_are_removed_to_keep_min_free() {
        let limits = RetentionLimits { min_free: Some(1000), ..RetentionLimits::default() };
        assert_eq!(plan(5, 0, Some(1000), limits), RetentionPlan { reasons: Vec::new(), enough_space: true });
        assert_eq!(
            plan(5, 0, Some(750), limits),
            RetentionPlan { reasons: vec![Removal::Space; 3], enough_space: true }
        );
        assert_eq!(
            plan(2, 0, Some(750), limits),
            RetentionPlan { reasons: vec![Removal::Space; 2], enough_space: false }
        );
        assert_eq!(plan(0, 0, Some(750), limits), RetentionPlan { reasons: Vec::new(), enough_space: false });
        assert_eq!(
            plan(2, 0, None, limits),
            RetentionPlan { reasons: Vec::new(), enough_space: true },
            "unknown free space"
        );
    }

    #[test]
    fn a_removed_file_has_one_reason_and_counts_for_all_limits() {
        let limits =
            RetentionLimits { max_age: Some(Duration::from_secs(4 * 3600)), max_size: Some(300), min_free: Some(500) };
        let plan = plan(5, 0, Some(300), limits);
        assert_eq!(plan, RetentionPlan { reasons: vec![Removal::Age, Removal::Size], enough_space: true });
    }
}
