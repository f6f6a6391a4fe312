//! File descriptors: as many as the system allows, and some that viewers cannot take.
//!
//! Every viewer takes descriptors, and so does every idle connection. Without any left, cameras cannot be opened
//! again, recordings cannot be begun, and GLib ends the process ("Creating pipes for GWakeup"). So listeners accept
//! connections only while a part of the descriptors is free.

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The share of all descriptors that is kept for what the service does itself, and its bounds.
const RESERVED_PART: u64 = 4;
const RESERVED: std::ops::RangeInclusive<u64> = 16..=1024;

/// With fewer descriptors than this, viewers may be turned away.
const ENOUGH: u64 = 4096;

/// Raises the limit to the most that the system allows this process (`ulimit -Hn`), and warns if that is little.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without a maximum the system's own holds, which is not known here: what there is stays.
    if let (Some(now), Some(most)) = (limit.current, limit.maximum)
        && now < most
    {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }) {
            Ok(()) => tracing::debug!("the limit of open files was raised from {now} to {most}"),
            Err(error) => tracing::warn!("the limit of open files cannot be raised from {now} to {most}: {error}"),
        }
    }
    if limit_now() < ENOUGH {
        tracing::warn!(
            "no more than {} files and connections can be open, of which {} are kept for cameras and recordings: many \
             viewers at a time will be turned away; allow {ENOUGH} (LimitNOFILE= in the unit, ulimit -Hn in a shell)",
            limit_now(),
            reserved(limit_now())
        );
    }
}

/// Whether viewers who come now would take what is kept for cameras and recordings.
pub fn are_scarce() -> bool {
    // The system gives out the lowest number that is free. One that is high says that all below it are taken.
    let first_reserved = i32::try_from(limit_now() - reserved(limit_now())).unwrap_or(i32::MAX);
    match fcntl_dupfd_cloexec(std::io::stderr(), 0) {
        Ok(lowest) => std::os::fd::AsRawFd::as_raw_fd(&lowest) >= first_reserved,
        Err(error) => error == Errno::MFILE || error == Errno::NFILE,
    }
}

fn limit_now() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors that are kept of so many.
fn reserved(limit: u64) -> u64 {
    (limit / RESERVED_PART).clamp(*RESERVED.start(), *RESERVED.end()).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_but_no_more_than_is_of_use() {
        let kept = [8, 64, 1024, 16_384, u64::MAX].map(reserved);
        assert_eq!(kept, [8, 16, 256, 1024, 1024]);
    }

    #[test]
    fn there_are_descriptors_for_this_test() {
        assert!(!are_scarce());
    }
}
