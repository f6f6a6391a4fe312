//! Which ICE candidates of a viewer are used.

use sdp_types::{Candidate, CandidateAddress};

/// Parses a candidate such as `1 1 udp 2113 192.0.2.1 40000 typ host`. `None` unless it has an IP address and not a host
/// name, and belongs to component 1, which carries RTP and RTCP.
///
/// Browsers hide their addresses behind mDNS names (`….local`). These names are not resolved: when a look-up fails,
/// webrtcbin (1.22) leaks its ICE agent, whose thread then calls the freed webrtcbin and crashes the process. The
/// viewer is reached without it, through the connectivity checks that it sends to the candidates of this machine.
pub(super) fn usable_candidate(text: &str) -> Option<Candidate> {
    let candidate: Candidate = text.parse().ok()?;
    (candidate.component_id == 1 && matches!(candidate.address, CandidateAddress::IpAddr(_))).then_some(candidate)
}

/// Whether every SDP parser reads the text as one line: parsers differ in which control characters end a line.
pub(super) fn is_single_line(line: &str) -> bool {
    !line.contains(|c: char| c.is_control() && c != '\t')
}

/// Removes the candidates without an IP address, and lines that contain control characters.
pub(in crate::publish) fn remove_hidden_candidates(description: &str) -> String {
    let keeps = |line: &&str| {
        let line = line.trim_end();
        is_single_line(line) && line.strip_prefix("a=candidate:").is_none_or(|text| usable_candidate(text).is_some())
    };
    description.split_inclusive('\n').filter(keeps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_with_host_names_or_other_components_are_not_used() {
        for used in [
            "1 1 udp 2113 192.0.2.1 40000 typ host",
            "1 1 UDP 2113 2001:db8::1 40000 typ srflx raddr 0.0.0.0 rport 0",
            "1 1 tcp 9 192.0.2.1 9 typ host tcptype active generation 0 ufrag Es network-id 1",
        ] {
            assert_eq!(usable_candidate(used).unwrap().to_string(), used);
        }
        for other in [
            "1 1 udp 2113 0f2e.local 40000 typ host",
            "1 1 udp 2113 camera.example 40000 typ host",
            "1 2 udp 2113 192.0.2.1 40000 typ host",
            "1 0 udp 2113 192.0.2.1 40000 typ host",
            "1 1 udp 2113",
            "1 1 udp\t2113 192.0.2.1 0f2e.local 40000 typ host",
            "1 1  2113 0f2e.local 192.0.2.1 40000 typ host",
            " 1 1 udp 2113 192.0.2.1 40000 typ host",
            "",
        ] {
            assert!(usable_candidate(other).is_none(), "{other}");
        }
    }

    #[test]
    fn only_hidden_candidates_and_invalid_lines_are_removed() {
        let before =
            "v=0\r\na=mid:0\r\na=candidate:1 1 udp 9 a.local 9 typ host\r\na=candidate:1 1 udp 9 ::1 9 typ host\r\n";
        let after = "v=0\r\na=mid:0\r\na=candidate:1 1 udp 9 ::1 9 typ host\r\n";
        assert_eq!(remove_hidden_candidates(before), after);
        assert_eq!(
            remove_hidden_candidates(&format!("{after}a=mid:0\ra=candidate:1 1 udp 9 a.local 9 typ host\r\n")),
            after
        );
    }
}
