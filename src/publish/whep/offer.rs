//! The SDP offer of a viewer, reduced to one video section with one H.264 payload type. The other sections (audio,
//! data) are rejected in the answer and never passed to webrtcbin, so that they cannot cause errors there.

use std::fmt::Write;
use std::net::IpAddr;

use super::candidate::{has_ip_address, is_single_line};

/// The most candidates of an offer that are used; a browser has a few per network.
const MAX_CANDIDATES: usize = 64;

/// Attributes of the video section that are passed to webrtcbin, in addition to those of the payload types.
const PASSED_ATTRIBUTES: [&str; 8] =
    ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "rtcp-mux", "rtcp-rsize", "candidate"];

/// Why a text is not SDP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("it does not start with v=0")]
    NoVersion,
    /// Holds the start of the line.
    #[error("{0:?} is not a valid line")]
    InvalidLine(String),
}

impl SdpError {
    pub(super) fn invalid_line(line: &str) -> Self {
        SdpError::InvalidLine(line.chars().take(40).collect())
    }
}

/// Why an offer cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("the offer is not SDP: {0}")]
    NotSdp(#[from] SdpError),
    #[error("the offer has no video section")]
    NoVideo,
    #[error("the offer has no video section that receives H.264 with packetization-mode=1")]
    NoH264,
    #[error("the offer does not multiplex RTP and RTCP (a=rtcp-mux)")]
    NoRtcpMux,
    /// Without its `a=`.
    #[error("the offer has no a={0}")]
    MissingAttribute(&'static str),
    #[error("the offer has a payload type that is not a number up to 127")]
    PayloadType,
    /// webrtcbin did not accept the offer; with its reason.
    #[error("the offer was rejected: {0}")]
    Rejected(String),
}

/// A reduced offer.
#[derive(Debug)]
pub struct Offer {
    /// SDP with the video section only.
    pub text: String,
    /// The payload type of the answer.
    pub payload: u8,
    /// Index of the video among the sections of the full offer.
    video: usize,
    /// The other sections, as written in the answer.
    rejected: Vec<String>,
    /// Whether the full offer has a BUNDLE group.
    bundled: bool,
}

/// A media section: an `m=` line and its attributes. Also holds the session attributes before the first `m=` line.
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

    /// Whether the viewer offers to receive.
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
    /// Parses and reduces an offer.
    ///
    /// # Errors
    /// When the text is not SDP, or lacks supported H.264, multiplexed RTCP or the ICE and DTLS attributes.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        let (session, sections) = sections(text)?;
        let videos = || sections.iter().enumerate().filter(|(_, section)| section.media.starts_with("video "));
        if videos().next().is_none() {
            return Err(OfferError::NoVideo);
        }
        let (video, section, payload) = videos()
            .filter(|(_, section)| section.receives())
            .find_map(|(at, section)| Some((at, section, h264(section)?)))
            .ok_or(OfferError::NoH264)?;
        if !section.has("rtcp-mux") {
            return Err(OfferError::NoRtcpMux);
        }
        for needed in ["ice-ufrag", "ice-pwd", "fingerprint"] {
            if !section.has(needed) && !session.has(needed) {
                return Err(OfferError::MissingAttribute(needed));
            }
        }
        // The field has seven bits in RTP.
        let number = payload.parse().ok().filter(|number| *number < 128);
        let rejected = sections.iter().enumerate().filter(|(at, _)| *at != video).map(|(_, other)| reject(other));
        let bundled = session.has("group");
        Ok(Offer {
            text: reduced(&session, section, payload),
            payload: number.ok_or(OfferError::PayloadType)?,
            video,
            rejected: rejected.collect(),
            bundled,
        })
    }

    /// The answer to the full offer, made from webrtcbin's answer to the reduced one. `addresses` are further addresses
    /// of this machine, such as that of a router: every host candidate is repeated with each of them. `level` is the
    /// H.264 level of the stream (`level_idc`), where it is known.
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
                if let Some(candidate) = candidate_with_address(line, *address, at) {
                    section.push_str(&candidate);
                }
            }
        }
        let mut sections = sections.into_iter();
        let mut text = sections.next().unwrap_or_default();
        let (before, after) = self.rejected.split_at(self.video);
        before.iter().for_each(|section| text.push_str(section));
        sections.for_each(|section| text.push_str(&section));
        after.iter().for_each(|section| text.push_str(section));
        text
    }
}

impl Offer {
    /// The `a=fmtp` line of the video with the level of the stream; webrtcbin copies the level of the offer. `None` for
    /// other lines, and where the viewer does not allow a different level (RFC 6184, section 8.2.2).
    fn with_level(&self, line: &str, level: u8) -> Option<String> {
        let parameters = line.strip_prefix(&format!("a=fmtp:{} ", self.payload))?;
        if !parameters.contains("level-asymmetry-allowed=1") {
            return None;
        }
        let (before, id) = line.split_once("profile-level-id=")?;
        Some(format!("{before}profile-level-id={}{level:02x}{}", id.get(..4)?, id.get(6..)?))
    }
}

/// The session attributes and the media sections.
fn sections(text: &str) -> Result<(MediaSection<'_>, Vec<MediaSection<'_>>), SdpError> {
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("v=0") {
        return Err(SdpError::NoVersion);
    }
    let mut sections = vec![MediaSection::default()];
    for line in lines.filter(|line| !line.is_empty()) {
        let split = line.split_once('=').filter(|(kind, _)| kind.len() == 1 && is_single_line(line));
        let (kind, value) = split.ok_or_else(|| SdpError::invalid_line(line))?;
        match (kind, sections.last_mut()) {
            ("m", _) => sections.push(MediaSection { media: value, attributes: Vec::new() }),
            ("a", Some(section)) => section.attributes.push(value.split_once(':').unwrap_or((value, ""))),
            _ => {}
        }
    }
    let session = sections.remove(0);
    Ok((session, sections))
}

/// The H.264 payload type whose profile is the closest to constrained baseline, which is sent. Decoders of higher
/// profiles decode it too.
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
        // The default is baseline (RFC 6184, section 8.1).
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

/// SDP with only this section, this payload type and its retransmission type.
fn reduced(session: &MediaSection, section: &MediaSection, payload: &str) -> String {
    let apt = format!("apt={payload}");
    let retransmits = |other: &&str| {
        section.codec(other).eq_ignore_ascii_case("rtx")
            && section.of_payload("fmtp", other).is_some_and(|fmtp| fmtp.split(';').any(|pair| pair.trim() == apt))
    };
    let rtx = section.formats().find(retransmits);
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
    // Session attributes apply to sections that do not have the attribute.
    let inherited = session.attributes.iter().filter(|(name, _)| !section.has(name));
    let passed = inherited.chain(&section.attributes).filter(|(name, _)| PASSED_ATTRIBUTES.contains(name));
    let passed = passed.filter(|(name, value)| *name != "candidate" || has_ip_address(value));
    let (candidates, others): (Vec<_>, Vec<_>) = passed.partition(|(name, _)| *name == "candidate");
    lines.extend(others.into_iter().chain(candidates.into_iter().take(MAX_CANDIDATES)).map(written));
    for payload in [Some(payload), rtx].into_iter().flatten() {
        for name in ["rtpmap", "fmtp", "rtcp-fb"] {
            lines.extend(section.all_of_payload(name, payload).map(|value| format!("a={name}:{payload} {value}")));
        }
    }
    lines.join("\r\n") + "\r\n"
}

/// The answer that rejects a section: port 0 (RFC 3264, section 6).
fn reject(section: &MediaSection) -> String {
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

/// Repeats the line of a host candidate with another address and a lower priority. The router in between must forward
/// the same port.
fn candidate_with_address(line: &str, address: IpAddr, at: usize) -> Option<String> {
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

    /// A shortened offer of Chromium: audio first, several payload types of H.264.
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
        let offer = Offer::parse(OFFER).unwrap();
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
    fn the_answer_rejects_the_other_sections_in_the_order_of_the_offer() {
        let offer = Offer::parse(OFFER).unwrap();
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
    fn the_answer_has_the_level_of_the_stream_if_the_viewer_allows_it() {
        let offer = Offer::parse(OFFER).unwrap();
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
    fn session_attributes_apply_to_the_video_section() {
        // Firefox sends the fingerprint as a session attribute.
        let text = OFFER
            .replace("a=fingerprint:sha-256 AA:BB\r\n", "")
            .replace("t=0 0\r\n", "t=0 0\r\na=fingerprint:sha-256 CC:DD\r\n");
        let offer = Offer::parse(&text).unwrap();
        assert!(offer.text.contains("a=fingerprint:sha-256 CC:DD\r\n"), "{}", offer.text);
    }

    #[test]
    fn each_unusable_offer_has_its_own_error() {
        let error = |text: &str| Offer::parse(text).unwrap_err();
        assert_eq!(error(""), OfferError::NotSdp(SdpError::NoVersion));
        assert_eq!(error("hello"), OfferError::NotSdp(SdpError::NoVersion));
        assert_eq!(error("v=0\r\nhello\r\n"), OfferError::NotSdp(SdpError::InvalidLine("hello".into())));
        assert_eq!(error("v=0\r\n"), OfferError::NoVideo);
        assert_eq!(error("v=0\r\ns=-\r\n"), OfferError::NoVideo);
        for (from, to) in
            [("H264", "H265"), ("packetization-mode=1", "packetization-mode=0"), ("a=recvonly", "a=sendonly")]
        {
            assert_eq!(error(&OFFER.replace(from, to)), OfferError::NoH264, "{to}");
        }
        assert_eq!(error(&OFFER.replace("a=rtcp-mux\r\n", "")), OfferError::NoRtcpMux);
        let without_fingerprint = OFFER.replace("a=fingerprint:sha-256 AA:BB\r\n", "");
        assert_eq!(error(&without_fingerprint), OfferError::MissingAttribute("fingerprint"));
        assert_eq!(error(&OFFER.replace("104", "204")), OfferError::PayloadType);
        // GStreamer ends a line at these characters, so the rest would be a line that was not checked.
        for end in ['\r', '\0'] {
            let hidden = format!("a=setup:actpass{end}a=candidate:1 1 udp 9 a.local 9 typ host\r\n");
            let error = error(&OFFER.replace("a=setup:actpass\r\n", &hidden));
            assert!(matches!(error, OfferError::NotSdp(SdpError::InvalidLine(_))), "{error:?}");
        }
    }

    #[test]
    fn a_payload_type_of_a_higher_profile_is_accepted() {
        let text = OFFER.replace("profile-level-id=42e01f", "profile-level-id=f4001f");
        assert_eq!(Offer::parse(&text).unwrap().payload, 102);
    }
}
