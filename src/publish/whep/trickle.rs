//! ICE candidates that a viewer sends after its offer: `application/trickle-ice-sdpfrag` (RFC 8840).

use super::candidate::{is_single_line, usable_candidate};
use super::offer::SdpError;

/// The content of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The candidates that are used, each in the form `candidate:1 1 udp …`. The end of candidates is not passed to
    /// webrtcbin: a viewer whose address is hidden is found by its own connectivity checks, and must not be given up
    /// before these arrive.
    pub candidates: Vec<String>,
}

/// Why a fragment is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    #[error("the fragment is not valid: {0}")]
    NotSdp(#[from] SdpError),
    #[error("the fragment has {0} candidates; at most {MAX_CANDIDATES} are allowed")]
    TooManyCandidates(usize),
    /// It requests an ICE restart, which is not supported (RFC 9725, section 4.3.3).
    #[error("the fragment has no candidates; ICE restart is not supported, send a new offer")]
    NoCandidates,
}

/// The most candidates in one fragment; a browser sends a few at a time.
const MAX_CANDIDATES: usize = 64;

impl Fragment {
    /// Parses the body of a PATCH request.
    ///
    /// # Errors
    /// When the text is not a fragment, or has no or too many candidates.
    pub fn parse(text: &str) -> Result<Self, FragmentError> {
        let (mut candidates, mut count) = (Vec::new(), 0);
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let Some((kind, value)) = line.split_once('=').filter(|_| is_single_line(line)) else {
                return Err(SdpError::invalid_line(line).into());
            };
            match (kind, value.strip_prefix("candidate:")) {
                ("a", Some(candidate)) => {
                    count += 1;
                    candidates.extend(usable_candidate(candidate).map(|used| format!("candidate:{used}")));
                }
                ("a", None) if value == "end-of-candidates" => count += 1,
                ("a" | "m" | "c" | "b" | "i", _) => {}
                _ => return Err(SdpError::invalid_line(line).into()),
            }
        }
        if count > MAX_CANDIDATES {
            return Err(FragmentError::TooManyCandidates(count));
        }
        if count == 0 {
            return Err(FragmentError::NoCandidates);
        }
        Ok(Fragment { candidates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_parsed_and_ice_restarts_are_refused() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
            a=candidate:2 1 udp 2122260222 0f2e.local 61764 typ host\r\na=end-of-candidates\r\n";
        let candidates = Fragment::parse(text).unwrap().candidates;
        assert_eq!(candidates, ["candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host"]);
        assert_eq!(Fragment::parse("a=candidate:2 1 udp 1 0f2e.local 9 typ host\r\n").unwrap().candidates, [""; 0]);
        assert_eq!(Fragment::parse("a=end-of-candidates\r\n").unwrap().candidates, [""; 0]);
        let restart = Fragment::parse("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n");
        assert_eq!(restart, Err(FragmentError::NoCandidates));
        assert!(matches!(Fragment::parse("{}"), Err(FragmentError::NotSdp(SdpError::InvalidLine(_)))));
        let hidden = "a=candidate:1 1 udp 1 10.0.0.9 9 typ host\ra=candidate:2 1 udp 1 0f2e.local 9 typ host\r\n";
        assert!(matches!(Fragment::parse(hidden), Err(FragmentError::NotSdp(SdpError::InvalidLine(_)))));
        let too_many = Fragment::parse(&"a=candidate:1\r\n".repeat(65));
        assert_eq!(too_many, Err(FragmentError::TooManyCandidates(65)));
    }
}
