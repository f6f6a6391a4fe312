//! A viewer's offer, reduced to what there is to talk about: one video section with one H.264 payload type. The other
//! sections (audio, data) are refused in the answer without webrtcbin having last_activity of them, so that what a player
//! offers beside video cannot disturb it.

use std::fmt::Write;
use std::net::IpAddr;

use super::WhepRefusal;
use super::candidate::{is_one_line, is_plain};

/// Candidates of a viewer that are looked at; a browser has a few for each of its networks.
const MOST_CANDIDATES: usize = 64;

/// Lines of a video section that are passed on, beside those of its payload types.
const PASSED: [&str; 8] =
    ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "rtcp-mux", "rtcp-rsize", "candidate"];

/// What is left of an offer.
#[derive(Debug)]
pub struct Offer {
    /// SDP with the video section alone.
    pub text: String,
    /// The payload type that is answered with.
    pub payload: u8,
    /// Place of the video among the sections.
    video: usize,
    /// The other sections, as they stand in the answer.
    refused: Vec<String>,
    /// Whether the sections were offered as one bundle.
    bundled: bool,
}

/// An `m=` line with what belongs to it, or what stands before the first.
#[derive(Default)]
struct MediaSection<'a> {
    media: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaSection<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn formats(&self) -> impl Iterator<Item = &'a str> {
        self.media.split_ascii_whitespace().skip(3)
    }

    /// Whether it wants to be sent pictures.
    fn receives(&self) -> bool {
        !self.has("sendonly") && !self.has("inactive")
    }

    /// The value of `a=NAME:PAYLOAD …` for a payload type.
    fn of_payload(&self, name: &str, payload: &str) -> Option<&'a str> {
        self.all_of_payload(name, payload).next()
    }

    fn all_of_payload(&self, name: &str, payload: &str) -> impl Iterator<Item = &'a str> {
        let values = self.attributes.iter().filter(move |(other, _)| *other == name);
        values.filter_map(move |(_, value)| {
            let (number, rest) = value.split_once(' ')?;
            (number == payload).then_some(rest)
        })
    }

    fn codec(&self, payload: &str) -> &'a str {
        self.of_payload("rtpmap", payload).map_or("", |map| map.split('/').next().unwrap_or(""))
    }
}

impl Offer {
    /// # Errors
    /// What is missing in it: no SDP at all, no H.264 that we can send, no bundled RTCP, no credentials.
    pub fn read(text: &str) -> Result<Self, WhepRefusal> {
        let (session, sections) = sections(text)?;
        let wanted = |what: &str| WhepRefusal::Unusable(format!("the offer {what}"));
        let videos = || sections.iter().enumerate().filter(|(_, section)| section.media.starts_with("video "));
        if videos().next().is_none() {
            return Err(wanted("has no video section"));
        }
        let (video, section, payload) = videos()
            .filter(|(_, section)| section.receives())
            .find_map(|(at, section)| Some((at, section, h264(section)?)))
            .ok_or_else(|| wanted("has no video section that receives H.264 with packetization-mode=1"))?;
        if !section.has("rtcp-mux") {
            return Err(wanted("does not put RTCP beside RTP (a=rtcp-mux)"));
        }
        for needed in ["ice-ufrag", "ice-pwd", "fingerprint"] {
            if !section.has(needed) && !session.has(needed) {
                return Err(wanted(&format!("has no a={needed}")));
            }
        }
        // RTP has seven bits for it.
        let number = payload.parse().ok().filter(|number| *number < 128);
        let refused = sections.iter().enumerate().filter(|(at, _)| *at != video).map(|(_, other)| refuse(other));
        let bundled = session.has("group");
        Ok(Offer {
            text: reduced(&session, section, payload),
            payload: number.ok_or_else(|| wanted("has a payload type that is no number up to 127"))?,
            video,
            refused: refused.collect(),
            bundled,
        })
    }

    /// The answer to the whole offer, made of webrtcbin's answer to what was left of it. `addresses` are those under which
    /// this machine is reached as well: every candidate of its own gets a twin with each of them. `level` is that of the
    /// pictures (`level_idc`), where it is known.
    pub fn answer(&self, reduced: &str, addresses: &[IpAddr], level: Option<u8>) -> String {
        let mut sections: Vec<String> = Vec::new();
        for line in reduced.lines().filter(|line| !line.is_empty()) {
            if line.starts_with("m=") || sections.is_empty() {
                sections.push(String::new());
            }
            let Some(section) = sections.last_mut() else { continue };
            if !self.bundled && line.starts_with("a=group:") {
                continue;
            }
            match level.and_then(|level| self.with_level(line, level)) {
                Some(line) => section.push_str(&line),
                None => section.push_str(line),
            }
            section.push_str("\r\n");
            for (at, address) in addresses.iter().enumerate() {
                if let Some(twin) = twin(line, *address, at) {
                    section.push_str(&twin);
                }
            }
        }
        let mut sections = sections.into_iter();
        let mut text = sections.next().unwrap_or_default();
        let (before, after) = self.refused.split_at(self.video);
        before.iter().for_each(|section| text.push_str(section));
        sections.for_each(|section| text.push_str(&section));
        after.iter().for_each(|section| text.push_str(section));
        text
    }
}

impl Offer {
    /// The line that tells profile and level of our video, with the level that it has: webrtcbin repeats the offer's. Where
    /// the viewer does not let it differ from its own, it stays (RFC 6184, 8.2.2).
    fn with_level(&self, line: &str, level: u8) -> Option<String> {
        let parameters = line.strip_prefix(&format!("a=fmtp:{} ", self.payload))?;
        if !parameters.contains("level-asymmetry-allowed=1") {
            return None;
        }
        let (before, id) = line.split_once("profile-level-id=")?;
        Some(format!("{before}profile-level-id={}{level:02x}{}", id.get(..4)?, id.get(6..)?))
    }
}

/// What stands before the first `m=`, and the sections.
fn sections(text: &str) -> Result<(MediaSection<'_>, Vec<MediaSection<'_>>), WhepRefusal> {
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("v=0") {
        return Err(WhepRefusal::NoSdp("it does not begin with v=0".into()));
    }
    let mut sections = vec![MediaSection::default()];
    for line in lines.filter(|line| !line.is_empty()) {
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1 && is_one_line(line)) else {
            let shown: String = line.chars().take(40).collect();
            return Err(WhepRefusal::NoSdp(format!("{shown:?} is no line of it")));
        };
        match (kind, sections.last_mut()) {
            ("m", _) => sections.push(MediaSection { media: value, attributes: Vec::new() }),
            ("a", Some(section)) => section.attributes.push(value.split_once(':').unwrap_or((value, ""))),
            _ => {}
        }
    }
    let session = sections.remove(0);
    Ok((session, sections))
}

/// The payload type of H.264 to send by, the nearest to what we encode first. We send constrained baseline, which every
/// decoder of a higher profile takes, too.
fn h264<'a>(section: &MediaSection<'a>) -> Option<&'a str> {
    let rank = |payload: &str| {
        if !section.codec(payload).eq_ignore_ascii_case("H264") {
            return None;
        }
        let parameters = section.of_payload("fmtp", payload).unwrap_or("");
        let parameter = |name: &str| {
            parameters.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name)
        };
        if parameter("packetization-mode").is_none_or(|(_, mode)| mode != "1") {
            return None;
        }
        // RFC 6184: without it, baseline.
        let profile = parameter("profile-level-id").map_or("420010", |(_, profile)| profile);
        let constraints = u8::from_str_radix(profile.get(2..4)?, 16).ok()?;
        match (profile.get(..2)?, constraints & 0x40 != 0) {
            ("42", true) => Some(0),
            ("42", false) => Some(1),
            ("4d" | "4D", _) => Some(2),
            ("64", _) => Some(3),
            _ => None,
        }
    };
    section
        .formats()
        .filter_map(|payload| Some((rank(payload)?, payload)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, p)| p)
}

/// SDP with this section alone, and only this payload type and its retransmission.
fn reduced(session: &MediaSection, section: &MediaSection, payload: &str) -> String {
    let apt = format!("apt={payload}");
    let repeats = |other: &&str| {
        section.codec(other).eq_ignore_ascii_case("rtx")
            && section.of_payload("fmtp", other).is_some_and(|fmtp| fmtp.split(';').any(|pair| pair.trim() == apt))
    };
    let rtx = section.formats().find(repeats);
    let mid = section.get("mid").unwrap_or("0");
    let mut lines = vec![
        "v=0".to_string(),
        "o=- 1 1 IN IP4 127.0.0.1".into(),
        "s=-".into(),
        "t=0 0".into(),
        format!("a=group:BUNDLE {mid}"),
        format!("m=video 9 UDP/TLS/RTP/SAVPF {payload}{}", rtx.map(|rtx| format!(" {rtx}")).unwrap_or_default()),
        "c=IN IP4 0.0.0.0".into(),
        format!("a=mid:{mid}"),
        "a=recvonly".into(),
    ];
    let written = |(name, value): &(&str, &str)| match *value {
        "" => format!("a={name}"),
        value => format!("a={name}:{value}"),
    };
    // What holds for the session holds for a section that says nothing of its own.
    let inherited = session.attributes.iter().filter(|(name, _)| !section.has(name));
    let passed = inherited.chain(&section.attributes).filter(|(name, _)| PASSED.contains(name));
    let passed = passed.filter(|(name, value)| *name != "candidate" || is_plain(value));
    let (candidates, others): (Vec<_>, Vec<_>) = passed.partition(|(name, _)| *name == "candidate");
    lines.extend(others.into_iter().chain(candidates.into_iter().take(MOST_CANDIDATES)).map(written));
    for payload in [Some(payload), rtx].into_iter().flatten() {
        for name in ["rtpmap", "fmtp", "rtcp-fb"] {
            lines.extend(section.all_of_payload(name, payload).map(|value| format!("a={name}:{payload} {value}")));
        }
    }
    lines.join("\r\n") + "\r\n"
}

/// A section that is not answered: port 0.
fn refuse(section: &MediaSection) -> String {
    let mut words = section.media.split_ascii_whitespace();
    let mut word = || words.next().unwrap_or("0");
    let (kind, _, protocol, format) = (word(), word(), word(), word());
    let mut text = format!("m={kind} 0 {protocol} {format}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n");
    if let Some(mid) = section.get("mid") {
        // Writing to a String does not fail.
        let _ = write!(text, "a=mid:{mid}\r\n");
    }
    text
}

/// The line of a host candidate once more with another address, less wanted than the first. For the router in between,
/// ports are the same on both sides.
fn twin(line: &str, address: IpAddr, at: usize) -> Option<String> {
    let mut words: Vec<&str> = line.strip_prefix("a=candidate:")?.split_ascii_whitespace().collect();
    let own: IpAddr = words.get(4)?.parse().ok()?;
    let is_host = words.get(6) == Some(&"typ") && words.get(7) == Some(&"host");
    let is_udp = words.get(2)?.eq_ignore_ascii_case("udp");
    if !is_host || !is_udp || own.is_ipv4() != address.is_ipv4() || own == address {
        return None;
    }
    let foundation = format!("{}n{at}", words.first()?);
    let priority = words.get(3)?.parse::<u32>().ok()?.saturating_sub(1 + at as u32).to_string();
    let address = address.to_string();
    (words[0], words[3], words[4]) = (&foundation, &priority, &address);
    Some(format!("a=candidate:{}\r\n", words.join(" ")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As Chromium writes it, shortened: audio first, several payload types of H.264.
    pub(in super::super) const OFFER: &str = "v=0\r\no=- 46 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:uf\r\na=ice-pwd:password\r\na=mid:0\r\n\
        a=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 105 106\r\nc=IN IP4 0.0.0.0\r\n\
        a=candidate:1 1 udp 2113 a.local 40000 typ host\r\na=candidate:2 1 udp 2113 10.0.0.9 40000 typ host\r\na=ice-ufrag:uf\r\na=ice-pwd:password\r\n\
        a=ice-options:trickle\r\na=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\na=mid:1\r\n\
        a=extmap:1 urn:ietf:params:rtp-hdrext:toffset\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f\r\n\
        a=rtpmap:104 H264/90000\r\na=rtcp-fb:104 nack\r\na=rtcp-fb:104 nack pli\r\n\
        a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:105 rtx/90000\r\na=fmtp:105 apt=104\r\na=rtpmap:106 rtx/90000\r\na=fmtp:106 apt=102\r\n";

    #[test]
    fn an_offer_is_reduced_to_constrained_baseline_and_its_retransmission() {
        let offer = Offer::read(OFFER).unwrap();
        assert_eq!((offer.payload, offer.video), (104, 1));
        let lines: Vec<&str> = offer.text.lines().collect();
        assert!(lines.contains(&"m=video 9 UDP/TLS/RTP/SAVPF 104 105"), "{}", offer.text);
        for line in
            ["a=rtcp-fb:104 nack pli", "a=fmtp:105 apt=104", "a=setup:actpass", "a=group:BUNDLE 1", "a=rtcp-mux"]
        {
            assert!(lines.contains(&line), "{line} is not in\n{}", offer.text);
        }
        assert!(!offer.text.contains("audio") && !offer.text.contains("VP8") && !offer.text.contains("extmap"));
        assert!(offer.text.contains("a=candidate:2 1 udp 2113 10.0.0.9 40000 typ host\r\n"));
        assert!(!offer.text.contains(".local"), "{}", offer.text);
    }

    #[test]
    fn the_answer_refuses_the_other_sections_in_their_places() {
        let offer = Offer::read(OFFER).unwrap();
        let reduced = "v=0\r\na=group:BUNDLE 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 104\r\na=mid:1\r\n\
            a=candidate:1 1 UDP 2015363327 10.0.0.7 50001 typ host\r\na=candidate:2 1 UDP 9 1.2.3.4 5 typ srflx\r\n\
            a=candidate:3 1 UDP 2015363326 fe80::1 50001 typ host\r\n";
        let answer = offer.answer(reduced, &["203.0.113.9".parse().unwrap()], Some(0x28));
        assert_eq!(
            answer,
            "v=0\r\na=group:BUNDLE 1\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:0\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 104\r\na=mid:1\r\na=candidate:1 1 UDP 2015363327 10.0.0.7 50001 typ host\r\n\
             a=candidate:1n0 1 UDP 2015363326 203.0.113.9 50001 typ host\r\na=candidate:2 1 UDP 9 1.2.3.4 5 typ srflx\r\n\
             a=candidate:3 1 UDP 2015363326 fe80::1 50001 typ host\r\n"
        );
    }

    #[test]
    fn the_answer_tells_the_level_of_the_pictures_where_it_may() {
        let offer = Offer::read(OFFER).unwrap();
        let answer = |line: &str| {
            let reduced = format!("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 104\r\na=mid:1\r\n{line}\r\n");
            let answer = offer.answer(&reduced, &[], Some(0x28));
            answer.lines().find(|line| line.starts_with("a=fmtp:")).unwrap().to_owned()
        };
        let line = "a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert_eq!(answer(line), line.replace("42e01f", "42e028"));
        assert_eq!(answer(&format!("{line};x=1")), format!("{};x=1", line.replace("42e01f", "42e028")));
        for kept in ["a=fmtp:104 packetization-mode=1;profile-level-id=42e01f", "a=fmtp:105 apt=104"] {
            assert_eq!(answer(kept), kept);
        }
    }

    #[test]
    fn what_the_session_says_holds_for_the_section() {
        // As Firefox writes it: the fingerprint for all.
        let text = OFFER
            .replace("a=fingerprint:sha-256 AA:BB\r\n", "")
            .replace("t=0 0\r\n", "t=0 0\r\na=fingerprint:sha-256 CC:DD\r\n");
        let offer = Offer::read(&text).unwrap();
        assert!(offer.text.contains("a=fingerprint:sha-256 CC:DD\r\n"), "{}", offer.text);
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        let problem = |text: &str| Offer::read(text).unwrap_err().to_string();
        assert!(problem("").contains("v=0"));
        assert!(problem("v=0\r\nhello\r\n").contains("\"hello\""));
        assert!(problem("v=0\r\ns=-\r\n").contains("no video section"));
        assert!(problem(&OFFER.replace("H264", "H265")).contains("packetization-mode=1"));
        assert!(
            problem(&OFFER.replace("packetization-mode=1", "packetization-mode=0")).contains("packetization-mode=1")
        );
        assert!(problem(&OFFER.replace("a=recvonly", "a=sendonly")).contains("receives"));
        assert!(problem(&OFFER.replace("a=rtcp-mux\r\n", "")).contains("rtcp-mux"));
        assert!(problem(&OFFER.replace("a=fingerprint:sha-256 AA:BB\r\n", "")).contains("fingerprint"));
        assert!(problem(&OFFER.replace("104", "204")).contains("up to 127"));
        // GStreamer takes a line to end at either, and what follows for another one, which nobody has looked at.
        for end in ['\r', '\0'] {
            let hidden = format!("a=setup:actpass{end}a=candidate:1 1 udp 9 a.local 9 typ host\r\n");
            assert!(problem(&OFFER.replace("a=setup:actpass\r\n", &hidden)).contains("is no line of it"));
        }
        assert!(matches!(Offer::read("hello"), Err(WhepRefusal::NoSdp(_))));
        assert!(matches!(Offer::read("v=0\r\n"), Err(WhepRefusal::Unusable(_))));
    }

    #[test]
    fn a_higher_profile_takes_our_pictures_too() {
        let text = OFFER.replace("profile-level-id=42e01f", "profile-level-id=f4001f");
        assert_eq!(Offer::read(&text).unwrap().payload, 102);
    }
}
