//! Candidates that a viewer found after its offer: `application/trickle-ice-sdpfrag` (RFC 8840).

use super::Refusal;

/// What a fragment brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Each as in `candidate:1 1 udp …`. An empty one says that there are no more.
    pub candidates: Vec<String>,
}

/// Candidates in one fragment; a browser sends a few at a time.
const MOST: usize = 64;

impl Fragment {
    /// # Errors
    /// What is no fragment.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let mut candidates = Vec::new();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match line.split_once('=') {
                Some(("a", "end-of-candidates")) => candidates.push(String::new()),
                Some(("a", value)) if value.starts_with("candidate:") => candidates.push(value.to_owned()),
                Some(("a" | "m" | "c" | "b" | "i", _)) => {}
                _ => {
                    let shown: String = line.chars().take(40).collect();
                    return Err(Refusal::NoSdp(format!("{shown:?} is no line of a fragment")));
                }
            }
        }
        if candidates.len() > MOST {
            return Err(Refusal::Unusable(format!(
                "{} candidates in one fragment; {MOST} are looked at",
                candidates.len()
            )));
        }
        if candidates.is_empty() {
            // RFC 9725, 4.3: who answers candidates but not restarts says so.
            return Err(Refusal::Unusable("the fragment has no candidates; ICE is not restarted, offer again".into()));
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
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n";
        let candidates = Fragment::read(text).unwrap().candidates;
        assert_eq!(candidates, ["candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host", ""]);
        let restart = Fragment::read("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n");
        assert!(matches!(restart, Err(Refusal::Unusable(_))), "{restart:?}");
        assert!(matches!(Fragment::read("{}"), Err(Refusal::NoSdp(_))));
        assert!(matches!(Fragment::read(&"a=candidate:1\r\n".repeat(65)), Err(Refusal::Unusable(_))));
    }
}
