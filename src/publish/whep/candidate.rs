//! Which of a viewer's candidates are looked at.

use std::net::IpAddr;

/// Whether a candidate, as in `candidate:1 1 udp 2113 192.0.2.1 40000 typ host`, has an address that needs no look-up, and
/// belongs to the one component that carries everything.
///
/// Browsers hide their addresses behind names that only multicast DNS knows (`….local`). They are not asked for: a look-up
/// that fails makes webrtcbin (1.22) leave its ICE agent behind, whose thread goes on to report to a webrtcbin that is
/// gone, which ends the process. Such a viewer is found all the same, by the checks that it sends to our candidates.
pub(super) fn is_plain(candidate: &str) -> bool {
    // As GStreamer and libnice read it: they know no other space, and two in a row as a word between them.
    let mut words = candidate.split(' ').skip(1);
    words.next() == Some("1") && words.nth(2).is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

/// Whether nobody takes a line for more than one, or for less: other readers of SDP know more ends of a line than we do.
pub(super) fn is_one_line(line: &str) -> bool {
    !line.contains(|c: char| c.is_control() && c != '\t')
}

/// The same session description without the candidates that are not plain, and the lines that are not one.
pub(in crate::publish) fn plain(description: &str) -> String {
    let stays = |line: &&str| {
        let line = line.trim_end();
        is_one_line(line) && line.strip_prefix("a=candidate:").is_none_or(is_plain)
    };
    description.split_inclusive('\n').filter(stays).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_plain() {
        assert!(is_plain("candidate:1 1 udp 2113 192.0.2.1 40000 typ host"));
        assert!(is_plain("1 1 UDP 2113 2001:db8::1 40000 typ srflx raddr 0.0.0.0 rport 0"));
        for other in [
            "candidate:1 1 udp 2113 0f2e.local 40000 typ host",
            "candidate:1 1 udp 2113 camera.example 40000 typ host",
            "candidate:1 2 udp 2113 192.0.2.1 40000 typ host",
            "candidate:1 0 udp 2113 192.0.2.1 40000 typ host",
            "candidate:1 1 udp 2113",
            "candidate:1 1 udp\t2113 192.0.2.1 0f2e.local 40000 typ host",
            "candidate:1 1  2113 0f2e.local 192.0.2.1 40000 typ host",
            "candidate: 1 1 udp 2113 192.0.2.1 40000 typ host",
            "",
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn descriptions_lose_nothing_else() {
        let before =
            "v=0\r\na=mid:0\r\na=candidate:1 1 udp 9 a.local 9 typ host\r\na=candidate:1 1 udp 9 ::1 9 typ host\r\n";
        let after = "v=0\r\na=mid:0\r\na=candidate:1 1 udp 9 ::1 9 typ host\r\n";
        assert_eq!(plain(before), after);
        assert_eq!(plain(&format!("{after}a=mid:0\ra=candidate:1 1 udp 9 a.local 9 typ host\r\n")), after);
    }
}
