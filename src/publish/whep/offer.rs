//! The SDP offer of a viewer, reduced to one video section with one H.264 payload type. The other sections (audio,
//! data) are rejected in the answer and never passed to webrtcbin, so that they cannot cause errors there.

use std::net::{IpAddr, Ipv4Addr};

use sdp_types::{
    Attribute, Candidate, CandidateAddress, CandidateType, Direction, Fmtp, Media, MediaType, Origin, ParserError,
    RtcpFb, RtcpFbPt, RtpMap, Session, TransportProto, TypedAttribute,
};

use super::candidate::{is_single_line, usable_candidate};

/// The most candidates of an offer that are used; a browser has a few per network.
const MAX_CANDIDATES: usize = 64;

/// Attributes of the video section that are passed to webrtcbin, in addition to candidates and those of the payload types.
const PASSED_ATTRIBUTES: [&str; 7] =
    ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "rtcp-mux", "rtcp-rsize"];

/// Why a text is not SDP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("it does not start with v=0")]
    NoVersion,
    /// Holds the start of the line.
    #[error("{0:?} is not a valid line")]
    InvalidLine(String),
    /// A line that is allowed only once is repeated; with the reason of the parser.
    #[error("{0}")]
    Repeated(String),
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
    /// The other sections, as in the answer.
    rejected: Vec<Media>,
    /// Whether the full offer has a BUNDLE group.
    bundled: bool,
}

impl Offer {
    /// Parses and reduces an offer.
    ///
    /// # Errors
    /// When the text is not SDP, or lacks supported H.264, multiplexed RTCP or the ICE and DTLS attributes.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        let session = parse_session(text)?;
        let videos = || session.medias.iter().enumerate().filter(|(_, media)| media.media == "video");
        if videos().next().is_none() {
            return Err(OfferError::NoVideo);
        }
        let (video, media, payload) = videos()
            .filter(|(_, media)| !media.has_attribute("sendonly") && !media.has_attribute("inactive"))
            .find_map(|(at, media)| Some((at, media, h264(media)?)))
            .ok_or(OfferError::NoH264)?;
        if !media.has_attribute("rtcp-mux") {
            return Err(OfferError::NoRtcpMux);
        }
        for needed in ["ice-ufrag", "ice-pwd", "fingerprint"] {
            if !media.has_attribute(needed) && !session.has_attribute(needed) {
                return Err(OfferError::MissingAttribute(needed));
            }
        }
        let others = session.medias.iter().enumerate().filter(|(at, _)| *at != video);
        Ok(Offer {
            text: reduced(&session, media, payload).to_string(),
            payload,
            video,
            rejected: others.map(|(_, other)| reject(other)).collect(),
            bundled: session.has_attribute("group"),
        })
    }

    /// The answer to the full offer, made from webrtcbin's answer to the reduced one. `addresses` are further addresses
    /// of this machine, such as that of a router: every host candidate is repeated with each of them. `level` is the
    /// H.264 level of the stream (`level_idc`), where it is known.
    ///
    /// # Errors
    /// When webrtcbin's answer is not SDP.
    pub fn answer(&self, reduced: &str, addresses: &[IpAddr], level: Option<u8>) -> Result<String, SdpError> {
        let mut session = parse_session(reduced)?;
        if !self.bundled {
            session.attributes.retain(|attribute| attribute.attribute != "group");
        }
        for media in &mut session.medias {
            for attribute in std::mem::take(&mut media.attributes) {
                let candidate = typed::<Candidate>(&attribute);
                let fmtp = typed::<Fmtp>(&attribute).zip(level).and_then(|(fmtp, level)| self.with_level(fmtp, level));
                media.attributes.push(fmtp.map_or(attribute, Attribute::from));
                if let Some(candidate) = candidate {
                    let repeated = addresses.iter().enumerate();
                    media.add_attributes(repeated.filter_map(|(at, address)| with_address(&candidate, *address, at)));
                }
            }
        }
        let (before, after) = self.rejected.split_at(self.video);
        session.medias.splice(..0, before.iter().cloned());
        session.medias.extend_from_slice(after);
        Ok(session.to_string())
    }

    /// The parameters of the video with the level of the stream; webrtcbin copies the level of the offer. `None` for other
    /// payload types, and where the viewer does not allow a different level (RFC 6184, section 8.2.2).
    fn with_level(&self, mut fmtp: Fmtp, level: u8) -> Option<Fmtp> {
        if fmtp.fmt != self.payload || parameter(&fmtp, "level-asymmetry-allowed") != Some("1") {
            return None;
        }
        let mut parameters = fmtp.format_specific_params.iter_mut();
        let id = parameters.find(|parameter| parameter.param.trim_start() == "profile-level-id")?.val.as_mut()?;
        *id = format!("{}{level:02x}", id.get(..4)?);
        Some(fmtp)
    }
}

/// Parses a session description. The names of attributes are lower-case afterwards.
fn parse_session(text: &str) -> Result<Session, SdpError> {
    // The parser accepts control characters that end a line for other parsers.
    if let Some(line) = text.lines().find(|line| !is_single_line(line)) {
        return Err(SdpError::invalid_line(line));
    }
    let mut session = Session::parse(text.as_bytes()).map_err(|error| match error {
        ParserError::NoVersion | ParserError::InvalidVersion(..) | ParserError::InvalidLineFormat(1, _) => {
            SdpError::NoVersion
        }
        ParserError::InvalidLineFormat(line, _)
        | ParserError::InvalidFieldEncoding(line, _)
        | ParserError::InvalidFieldFormat(line, _)
        | ParserError::MissingField(line, _)
        | ParserError::FieldTrailingData(line, _)
        | ParserError::RepeatWithoutTime(line) => {
            SdpError::invalid_line(text.lines().nth(line - 1).unwrap_or_default())
        }
        error => SdpError::Repeated(error.to_string()),
    })?;
    let attributes = session.medias.iter_mut().flat_map(|media| &mut media.attributes).chain(&mut session.attributes);
    attributes.for_each(|attribute| attribute.attribute.make_ascii_lowercase());
    Ok(session)
}

/// The attribute in the form of its type; `None` if it is another attribute or invalid.
fn typed<T: TypedAttribute>(attribute: &Attribute) -> Option<T> {
    attribute.value.as_deref().filter(|_| attribute.attribute == T::NAME)?.parse().ok()
}

/// The payload types of a section, in the order of preference.
fn payloads(media: &Media) -> impl Iterator<Item = u8> {
    media.fmt.split_ascii_whitespace().filter_map(|payload| payload.parse().ok())
}

fn rtpmap(media: &Media, payload: u8, codec: &str) -> Option<RtpMap> {
    let map = media.attributes_typed::<RtpMap>().flatten().find(|map| map.payload_type == payload)?;
    map.encoding_name.eq_ignore_ascii_case(codec).then_some(map)
}

fn fmtp(media: &Media, payload: u8) -> Option<Fmtp> {
    media.attributes_typed::<Fmtp>().flatten().find(|fmtp| fmtp.fmt == payload)
}

fn parameter<'a>(fmtp: &'a Fmtp, name: &str) -> Option<&'a str> {
    let mut parameters = fmtp.format_specific_params.iter();
    parameters.find(|parameter| parameter.param.trim_start() == name)?.val.as_deref().map(str::trim_end)
}

/// The H.264 payload type whose profile is the closest to constrained baseline, which is sent. Decoders of higher
/// profiles decode it too.
fn h264(media: &Media) -> Option<u8> {
    let rank = |payload: u8| {
        rtpmap(media, payload, "H264")?;
        let fmtp = fmtp(media, payload)?;
        if parameter(&fmtp, "packetization-mode") != Some("1") {
            return None;
        }
        // The default is baseline (RFC 6184, section 8.1).
        let profile = parameter(&fmtp, "profile-level-id").unwrap_or("420010");
        let constraints = u8::from_str_radix(profile.get(2..4)?, 16).ok()?;
        match (profile.get(..2)?, constraints & 0x40 != 0) {
            ("42", true) => Some(0),
            ("42", false) => Some(1),
            ("4d" | "4D", _) => Some(2),
            ("64", _) => Some(3),
            _ => None,
        }
    };
    let ranked = payloads(media).filter_map(|payload| Some((rank(payload)?, payload)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, payload)| payload)
}

/// SDP with only this section, this payload type and its retransmission type.
fn reduced(session: &Session, media: &Media, payload: u8) -> Session {
    let retransmits = |other: u8| {
        let apt = rtpmap(media, other, "rtx").and_then(|_| fmtp(media, other));
        apt.is_some_and(|fmtp| parameter(&fmtp, "apt").and_then(|apt| apt.parse().ok()) == Some(payload))
    };
    let rtx = payloads(media).find(|other| retransmits(*other));
    let formats = rtx.map_or(payload.to_string(), |rtx| format!("{payload} {rtx}"));
    let mid = media.get_first_attribute_value("mid").flatten().unwrap_or("0");
    let mut video = Media::new(MediaType::Video, 9, TransportProto::UdpTlsRtpSavpf, formats);
    video.add_connection(Ipv4Addr::UNSPECIFIED);
    video.add_attribute_with_value("mid", mid);
    video.add_attribute(Direction::RecvOnly);
    // Session attributes apply to sections that do not have the attribute.
    let inherited = session.attributes.iter().filter(|other| !media.has_attribute(&other.attribute));
    let offered: Vec<&Attribute> = inherited.chain(&media.attributes).collect();
    let passed = offered.iter().filter(|attribute| PASSED_ATTRIBUTES.contains(&attribute.attribute.as_str()));
    video.attributes.extend(passed.map(|attribute| Attribute::clone(attribute)));
    let candidates = offered.iter().filter(|attribute| attribute.attribute == Candidate::NAME);
    let candidates = candidates.filter_map(|attribute| usable_candidate(attribute.value.as_deref()?));
    video.add_attributes(candidates.take(MAX_CANDIDATES));
    for (payload, codec) in [(Some(payload), "H264"), (rtx, "rtx")] {
        let Some(payload) = payload else { continue };
        video.add_attributes(rtpmap(media, payload, codec));
        video.add_attributes(fmtp(media, payload));
        let feedback = media.attributes_typed::<RtcpFb>().flatten();
        video.add_attributes(feedback.filter(|feedback| feedback.pt == RtcpFbPt::Fmt(payload)));
    }
    let mut reduced = Session::new(Origin::with_ip_addr(1, 1, Ipv4Addr::LOCALHOST), "-");
    reduced.add_attribute_with_value("group", format_args!("BUNDLE {mid}"));
    reduced.add_media(video);
    reduced
}

/// The answer that rejects a section: port 0 (RFC 3264, section 6).
fn reject(media: &Media) -> Media {
    let format = media.fmt.split_ascii_whitespace().next().unwrap_or("0");
    let mut rejected =
        Media { media: media.media.clone(), ..Media::new(MediaType::Video, 0, media.parse_transport_proto(), format) };
    rejected.add_connection(Ipv4Addr::UNSPECIFIED);
    rejected.add_attribute(Direction::Inactive);
    let mid = media.attributes.iter().find(|attribute| attribute.attribute == "mid");
    rejected.attributes.extend(mid.cloned());
    rejected
}

/// Repeats a host candidate with another address and a lower priority. The router in between must forward the same port.
fn with_address(candidate: &Candidate, address: IpAddr, at: usize) -> Option<Candidate> {
    let CandidateAddress::IpAddr(own) = candidate.address else { return None };
    let is_udp_host = candidate.typ == CandidateType::Host && candidate.transport.eq_ignore_ascii_case("udp");
    (is_udp_host && own.is_ipv4() == address.is_ipv4() && own != address).then(|| Candidate {
        foundation: format!("{}n{at}", candidate.foundation),
        priority: candidate.priority.saturating_sub(1 + at as u64),
        address: CandidateAddress::IpAddr(address),
        ..candidate.clone()
    })
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
        let reduced = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 104\r\na=mid:1\r\n\
            a=candidate:1 1 UDP 2015363327 10.0.0.7 50001 typ host\r\na=candidate:2 1 UDP 9 1.2.3.4 5 typ srflx\r\n\
            a=candidate:3 1 UDP 2015363326 fe80::1 50001 typ host\r\n";
        let answer = offer.answer(reduced, &["203.0.113.9".parse().unwrap()], Some(0x28)).unwrap();
        assert_eq!(
            answer,
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 1\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:0\r\n\
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
            let answer = offer.answer(&reduced, &[], Some(0x28)).unwrap();
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
        for (from, to) in [("m=audio 9", "m=audio x"), ("o=- 46 2", "o=- 46")] {
            let error = error(&OFFER.replace(from, to));
            assert!(matches!(error, OfferError::NotSdp(SdpError::InvalidLine(_))), "{error:?}");
        }
        let repeated = error(&OFFER.replace("s=-\r\n", "s=-\r\ns=-\r\n"));
        assert!(matches!(repeated, OfferError::NotSdp(SdpError::Repeated(_))), "{repeated:?}");
        // GStreamer ends a line at these characters, so the rest would be a line that was not checked.
        for end in ['\r', '\0'] {
            let hidden = format!("a=setup:actpass{end}a=candidate:1 1 udp 9 a.local 9 typ host\r\n");
            let error = error(&OFFER.replace("a=setup:actpass\r\n", &hidden));
            assert!(matches!(error, OfferError::NotSdp(SdpError::InvalidLine(_))), "{error:?}");
        }
    }

    /// The field has seven bits in RTP.
    #[test]
    fn a_payload_type_above_127_is_not_used() {
        assert_eq!(Offer::parse(&OFFER.replace("104", "204")).unwrap().payload, 102);
    }

    #[test]
    fn a_payload_type_of_a_higher_profile_is_accepted() {
        let text = OFFER.replace("profile-level-id=42e01f", "profile-level-id=f4001f");
        assert_eq!(Offer::parse(&text).unwrap().payload, 102);
    }
}
