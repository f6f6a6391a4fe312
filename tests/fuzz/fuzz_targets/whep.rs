//! Data of WebRTC viewers. The input is an offer, a fragment of trickled candidates and an answer of GStreamer, separated by
//! lines `---`. Only validated lines may be passed to GStreamer.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use maskcast::publish::whep::WhepRefusal;
use maskcast::publish::whep::offer::Offer;
use maskcast::publish::whep::trickle::Fragment;

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, "\n---\n");
    let [offer, fragment, reduced] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    match Offer::parse(offer) {
        Ok(read) => {
            check_offer(offer, &read);
            check_answer(offer, &read, reduced);
        }
        Err(error) => check_refusal(&error.into()),
    }
    match Fragment::parse(fragment) {
        Ok(read) => {
            assert!(read.candidates.len() <= 64);
            read.candidates.iter().for_each(|candidate| check_candidate(candidate));
        }
        Err(error) => check_refusal(&error.into()),
    }
});

fn check_refusal(refusal: &WhepRefusal) {
    assert!(matches!(refusal, WhepRefusal::NotSdp(_) | WhepRefusal::Unusable(_)), "{refusal:?}");
    let text = refusal.to_string();
    assert!(!text.is_empty() && text.len() < 1000 && !text.contains(char::is_control), "{text:?}");
}

/// Asserts that a candidate is a single line with an IP address.
fn check_candidate(candidate: &str) {
    assert!(candidate.starts_with("candidate:") && !candidate.contains(['\r', '\n', '\0']), "{candidate:?}");
    // GStreamer splits candidates in this way.
    let words: Vec<&str> = candidate.split(' ').collect();
    assert!(words[1] == "1" && words[4].parse::<IpAddr>().is_ok(), "{candidate:?}");
}

fn check_offer(text: &str, offer: &Offer) {
    let lines: Vec<&str> = offer.text.split_terminator("\r\n").collect();
    assert!(offer.text.ends_with("\r\n") && lines[0] == "v=0");
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{:?}", offer.text);
    let media: Vec<&&str> = lines.iter().filter(|line| line.starts_with("m=")).collect();
    let [media] = media[..] else { panic!("{} sections", media.len()) };
    let formats: Vec<&str> = media.split(' ').skip(3).collect();
    let payload = offer.payload.to_string();
    assert!(offer.payload < 128 && formats.len() <= 2, "{media:?}");
    assert_eq!(formats[0].parse().ok(), Some(offer.payload));
    let of = |name: &str| {
        let start = format!("a={name}:{} ", formats[0]);
        lines.iter().find_map(|line| line.strip_prefix(start.as_str())).unwrap_or_default().to_ascii_lowercase()
    };
    assert!(of("rtpmap").starts_with("h264") && of("fmtp").contains("packetization-mode=1"), "{payload}: {lines:?}");
    for needed in ["a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=rtcp-mux", "a=mid:", "a=group:BUNDLE "] {
        assert!(lines.iter().any(|line| line.starts_with(needed)), "{needed}");
    }
    let known =
        ["rtpmap", "fmtp", "rtcp-fb", "recvonly", "group", "mid", "setup", "rtcp-mux", "rtcp-rsize", "candidate"];
    for line in lines.iter().filter_map(|line| line.strip_prefix("a=")) {
        let name = line.split(':').next().unwrap_or_default();
        assert!(known.contains(&name) || name.starts_with("ice-") || name == "fingerprint", "{line:?}");
        if name == "candidate" {
            check_candidate(line);
        }
    }
    assert!(lines.iter().filter(|line| line.starts_with("a=candidate:")).count() <= 64);
    // Each line of the offer is copied at most once for each of two payload types.
    assert!(offer.text.len() <= 2 * text.len() + 1000);
}

/// Asserts that the answer has a section for every section of the offer.
fn check_answer(text: &str, offer: &Offer, reduced: &str) {
    let addresses: [IpAddr; 2] = ["203.0.113.9".parse().expect("a literal"), "2001:db8::9".parse().expect("a literal")];
    let sections = |text: &str| text.lines().filter(|line| line.starts_with("m=")).count();
    let answer = offer.answer("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n", &addresses, Some(0x28));
    let answer = answer.expect("the answer of GStreamer is SDP");
    assert_eq!(sections(&answer), sections(text), "{answer}");
    let refused = answer.lines().filter(|line| line.starts_with("m=") && line.split(' ').nth(1) == Some("0")).count();
    assert_eq!(refused + 1, sections(text), "{answer}");
    // For any answer of GStreamer.
    let Ok(answer) = offer.answer(reduced, &addresses, None) else { return };
    let own = |text: &str| text.to_ascii_lowercase().lines().filter(|line| line.starts_with("a=candidate:")).count();
    assert!(own(&answer) <= 3 * own(reduced), "{answer}");
}
