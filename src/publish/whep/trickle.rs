//! Candidates that a viewer found after its offer: `application/trickle-ice-sdpfrag` (RFC 8840).

use super::WhepRefusal;
use super::candidate::{is_one_line, is_plain};

/// What a fragment brings.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Each as in `candidate:1 1 udp …`; those that are looked at. That there will be no more is not passed on: one whose
    /// address is hidden is found by its own checks, and must not be given up before they come.
    pub candidates: Vec<String>,
}

/// Candidates in one fragment; a browser sends a few at a time.
const MOST: usize = 64;

impl Fragment {
    /// # Errors
    /// What is no fragment.
    pub fn read(text: &str) -> Result<Self, WhepRefusal> {
        let (mut candidates, mut told) = (Vec::new(), 0);
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match line.split_once('=').filter(|_| is_one_line(line)) {
                Some(("a", "end-of-candidates")) => told += 1,
                Some(("a", value)) if value.starts_with("candidate:") => {
                    told += 1;
                    candidates.extend(is_plain(value).then(|| value.to_owned()));
                }
                Some(("a" | "m" | "c" | "b" | "i", _)) => {}
                _ => {
                    let shown: String = line.chars().take(40).collect();
                    return Err(WhepRefusal::NoSdp(format!("{shown:?} is no line of a fragment")));
                }
            }
        }
        if told > MOST {
            return Err(WhepRefusal::Unusable(format!("{told} candidates in one fragment; {MOST} are looked at")));
        }
        if told == 0 {
            // RFC 9725, 4.3: who answers candidates but not restarts says so.
            return Err(WhepRefusal::Unusable(
                "the fragment has no candidates; ICE is not restarted, offer again".into(),
            ));
        }
        Ok(Fragment { candidates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_found_and_restarts_refused() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
            a=candidate:2 1 udp 2122260222 0f2e.local 61764 typ host\r\na=end-of-candidates\r\n";
        let candidates = Fragment::read(text).unwrap().candidates;
        assert_eq!(candidates, ["candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host"]);
        assert_eq!(Fragment::read("a=candidate:2 1 udp 1 0f2e.local 9 typ host\r\n").unwrap().candidates, [""; 0]);
        assert_eq!(Fragment::read("a=end-of-candidates\r\n").unwrap().candidates, [""; 0]);
        let restart = Fragment::read("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n");
        assert!(matches!(restart, Err(WhepRefusal::Unusable(_))), "{restart:?}");
        assert!(matches!(Fragment::read("{}"), Err(WhepRefusal::NoSdp(_))));
        let hidden = "a=candidate:1 1 udp 1 10.0.0.9 9 typ host\ra=candidate:2 1 udp 1 0f2e.local 9 typ host\r\n";
        assert!(matches!(Fragment::read(hidden), Err(WhepRefusal::NoSdp(_))));
        assert!(matches!(Fragment::read(&"a=candidate:1\r\n".repeat(65)), Err(WhepRefusal::Unusable(_))));
    }
}
