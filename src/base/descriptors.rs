//! The limit of open file descriptors, and a reserve of them for cameras and recordings.
//!
//! Every viewer and every idle connection uses descriptors. When none is left, cameras cannot be opened again, recordings
//! cannot begin, and GLib aborts the process ("Creating pipes for GWakeup"). Therefore listeners accept connections only
//! while the reserve is free.

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One descriptor in this many is reserved for cameras and recordings, within [`RESERVED`].
const RESERVED_PART: u64 = 4;
/// The smallest and the largest reserve.
const RESERVED: std::ops::RangeInclusive<u64> = 16..=1024;

/// With fewer descriptors than this, viewers may be refused.
const ENOUGH: u64 = 4096;

/// Raises the soft limit to the hard limit (`ulimit -Hn`), and warns if that is low.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without a hard limit the system's own maximum holds, which is not known here: the soft limit is unchanged.
    if let (Some(now), Some(most)) = (limit.current, limit.maximum)
        && now < most
    {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }) {
            Ok(()) => tracing::debug!("limit of open files raised from {now} to {most}"),
            Err(error) => tracing::warn!("limit of open files cannot be raised from {now} to {most}: {error}"),
        }
    }
    if limit_now() < ENOUGH {
        tracing::warn!(
            "limit of open files is low: {} files and connections can be open, {} of them are reserved for cameras and \
             recordings, and further viewers are refused; allow {ENOUGH} (LimitNOFILE= in the systemd unit, ulimit -Hn in \
             a shell)",
            limit_now(),
            reserved(limit_now())
        );
    }
}

/// Whether another viewer would use descriptors that are reserved for cameras and recordings.
pub fn are_scarce() -> bool {
    // The system returns the lowest free number: all numbers below it are in use.
    let first_reserved = i32::try_from(limit_now() - reserved(limit_now())).unwrap_or(i32::MAX);
    match fcntl_dupfd_cloexec(std::io::stderr(), 0) {
        Ok(lowest) => std::os::fd::AsRawFd::as_raw_fd(&lowest) >= first_reserved,
        Err(error) => error == Errno::MFILE || error == Errno::NFILE,
    }
}

fn limit_now() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many of `limit` descriptors are reserved.
fn reserved(limit: u64) -> u64 {
    (limit / RESERVED_PART).clamp(*RESERVED.start(), *RESERVED.end()).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_reserved_within_the_bounds() {
        let reserves = [8, 64, 1024, 16_384, u64::MAX].map(reserved);
        assert_eq!(reserves, [8, 16, 256, 1024, 1024]);
    }

    #[test]
    fn descriptors_are_not_scarce_in_this_test() {
        assert!(!are_scarce());
    }
}
