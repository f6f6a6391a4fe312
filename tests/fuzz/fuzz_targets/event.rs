//! Events: zones of any shape on masks of any size, changing shares, and the state for the recorder, each compared with a
//! slower implementation.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use maskcast::config::{EventConfig, RuleConfig};
use maskcast::events::tracker::{Change, RuleTracker};
use maskcast::events::{EventHub, EventSink, EventState, Rule, RuleState, StreamEvents};
use maskcast::frame::{Label, Labels, Mask, PixelFormat, Rgb, VideoInfo};
use maskcast::sink::{MaskSink, StreamMask};
use maskcast::zones::{Zone, ZoneMeter, ZoneState};

#[derive(Arbitrary, Debug)]
struct Input {
    corners: Vec<[u16; 2]>,
    size: [u8; 2],
    classes: Vec<u8>,
    wanted: [u8; 2],
    threshold: u16,
    /// Milliseconds.
    hold: u16,
    pre_roll: u16,
    post_roll: u16,
    /// Share, and milliseconds since the one before.
    shares: Vec<(u8, u16)>,
}

fuzz_target!(|input: Input| {
    let fraction = |part: u16| f64::from(part) / 65535.0;
    let zone: Vec<[f64; 2]> = input.corners.iter().take(12).map(|&[x, y]| [fraction(x), fraction(y)]).collect();
    // Models have at least one pixel.
    let (width, height) = (1 + usize::from(input.size[0] % 48), 1 + usize::from(input.size[1] % 48));
    let class = |n: usize| input.classes.get(n % input.classes.len().max(1)).copied().unwrap_or(0);
    let classes: Vec<u8> = (0..width * height).map(class).collect();
    zone_share(&zone, mask(0, Instant::now(), (width, height), classes.clone()), input.wanted);

    let threshold = fraction(input.threshold).max(0.0001);
    let start = Instant::now() + Duration::from_secs(1000);
    let mut at = start;
    let shares: Vec<(f64, Instant)> = input
        .shares
        .iter()
        .take(100)
        .map(|&(share, gap)| {
            at += Duration::from_millis(gap.into());
            (f64::from(share) / 255.0, at)
        })
        .collect();
    let millis = |n: u16| Duration::from_millis(n.into());
    let event = |name: &str, zone| EventConfig {
        zone,
        share: threshold,
        hold: millis(input.hold),
        pre_roll: millis(input.pre_roll),
        post_roll: millis(input.post_roll),
        ..EventConfig::of(name, &["wanted"])
    };
    check_tracker(&shares, threshold, millis(input.hold));
    check_state(&event("visit", Vec::new()), &shares);
    check_events(event("here", zone), (width, height), &classes, &shares);
});

fn labels() -> Labels {
    ["other", "wanted"].map(|name| Label::new(name, Rgb(1, 2, 3))).into()
}

fn mask(seq: u64, captured_at: Instant, (width, height): (usize, usize), classes: Vec<u8>) -> Mask {
    let (labels, model) = (labels(), "".into());
    Mask { seq, pts: Duration::ZERO, captured_at, width, height, classes, labels, model, guide: None, probable: None, confirmed: false, seen: None }
}

/// Compares the share with a count pixel by pixel.
fn zone_share(zone: &[[f64; 2]], mask: Mask, wanted: [u8; 2]) {
    let Mask { width, height, ref classes, .. } = mask;
    let wanted_classes: [bool; 256] = std::array::from_fn(|class| wanted.contains(&(class as u8)));
    let zones = [Arc::new(Zone { name: Some("zone".into()), polygon: zone.to_vec() })];
    let counts = ZoneMeter::new(zones.into()).measure(&mask);
    let (_, counts) = counts.named().next().expect("the zone is measured");
    let share = counts.share(&wanted_classes);
    assert!((0.0..=1.0).contains(&share), "{share}");
    let (mut inside, mut found, mut doubtful) = (0_usize, 0_usize, 0_usize);
    for (at, class) in classes.iter().enumerate() {
        let (x, y) = ((at % width) as f64 + 0.5, ((at / width) as f64 + 0.5) / height as f64);
        let (mut odd, mut near) = (zone.is_empty(), false);
        for (a, b) in zone.iter().zip(zone.iter().cycle().skip(1)) {
            if (a[1] <= y) != (b[1] <= y) {
                let crossing = (a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])) * width as f64;
                odd ^= x >= crossing;
                near |= (x - crossing).abs() < 1e-6;
            }
        }
        inside += usize::from(odd);
        found += usize::from(odd && wanted_classes[usize::from(*class)]);
        // Rounding decides whether these pixels are inside.
        doubtful += usize::from(near);
    }
    if inside > 0 && doubtful == 0 {
        assert_eq!(share, found as f64 / inside as f64, "{inside} pixels of {width}x{height}");
    }
    // A zone always has at least one pixel.
    if wanted_classes.iter().all(|wanted| *wanted) && !classes.is_empty() {
        assert_eq!(share, 1.0);
    }
}

/// The rule "above" for a share of the frame: since when its condition holds, compared with a search through all shares, and
/// an event that begins when it has held for the time `for`.
fn check_tracker(shares: &[(f64, Instant)], threshold: f64, hold: Duration) {
    let rule = Rule::from(&RuleConfig {
        share: threshold,
        release: threshold * 0.5,
        hold,
        ..RuleConfig::of("a", &["wanted"])
    });
    let mut tracker = RuleTracker::new(Duration::from_secs(1));
    let mut is_active = false;
    for (n, &(share, at)) in shares.iter().enumerate() {
        let change = tracker.update(&rule, share, at);
        let seen = &shares[..=n];
        // Start of the last period without a gap and without a share below half of the threshold. A gap is also long in relation
        // to the usual distance of the masks, and an event lasts over it.
        let distance = |at: usize| seen[at].1 - seen[at - 1].1;
        let is_gap = |at: usize| {
            let usual = (at.saturating_sub(3).max(1)..at).map(distance).min();
            at > 0 && distance(at) > Duration::from_secs(5) && usual.is_none_or(|usual| distance(at) > 2 * usual)
        };
        let begin = (0..seen.len()).rev().find(|&at| is_gap(at) || seen[at].0 < rule.release).unwrap_or(0);
        let since = seen[begin..].iter().find(|(share, _)| *share >= threshold).map(|(_, at)| *at);
        let was_active = std::mem::replace(&mut is_active, tracker.state(&rule) == RuleState::Active);
        match change {
            Some(Change::Began(start)) => {
                assert!(!was_active && is_active);
                assert_eq!(Some(start), since.filter(|since| at - *since >= hold), "share {n}");
            }
            Some(Change::Cleared(end)) => assert!(was_active && !is_active && end == at && share < threshold),
            Some(Change::Continues) => assert!(was_active && is_active),
            Some(change) => panic!("{change:?} without a tick"),
            None => {
                assert!(!was_active && !is_active);
                assert_eq!(since.filter(|since| at - *since >= hold), None, "share {n}: the event should have begun");
            }
        }
    }
}

/// Every time at which the condition holds is active, with pre-roll and post-roll.
fn check_state(event: &EventConfig, shares: &[(f64, Instant)]) {
    let state = EventState::new(&[event.into()]);
    let (mut count, mut last) = (0, None::<Instant>);
    for &(_, at) in shares.iter().filter(|(share, _)| *share >= event.share) {
        state.condition_met(0, at, at);
        count += u64::from(last.is_none_or(|last| last + event.post_roll < at));
        last = Some(at);
        let active = state.active(at).expect("the event is active");
        assert!(active.from <= at && active.until == at + event.post_roll && *active.name == event.name);
        assert!(state.active(active.until).is_some());
        assert_eq!(state.active(active.until + Duration::from_millis(1)), None);
    }
    assert_eq!(state.counts().collect::<Vec<_>>(), [(event.name.as_str(), count)]);
}

/// The rules of a stream, with a model with fewer classes than the mask has values.
fn check_events(event: EventConfig, size: (usize, usize), classes: &[u8], shares: &[(f64, Instant)]) {
    let zones = Arc::new(ZoneState::default());
    let events = Arc::new(StreamEvents::new("gate", Arc::new(EventHub::default()), Arc::clone(&zones)));
    let anywhere = Rule::from(&RuleConfig {
        hold: Duration::ZERO,
        share: event.share,
        release: 0.0,
        ..RuleConfig::of("anywhere", &["wanted"])
    });
    events.configure(vec![Rule::from(&event), anywhere], Vec::new(), Duration::from_secs(1), true, None);
    let mut sink = EventSink(Arc::clone(&events));
    for (n, &(share, captured_at)) in shares.iter().enumerate().take(20) {
        let limit = (share * classes.len() as f64) as usize;
        let drawn = classes.iter().enumerate().map(|(at, class)| if at < limit { 1 } else { *class });
        let mask = mask(n as u64, captured_at, size, drawn.collect());
        let whole = mask.classes.iter().filter(|&&class| class == 1).count() as f64 / classes.len().max(1) as f64;
        let counts = ZoneMeter::new(zones.get()).measure(&mask);
        let video = VideoInfo::new(PixelFormat::I420, 64, 48);
        sink.push(&StreamMask::new(&"gate".into(), Arc::new(mask), video, counts)).expect("rules do not fail");
        events.tick(captured_at);
        let status = &events.status()[1];
        if whole >= event.share && whole > 0.0 {
            assert!(status.event.is_some(), "no event at mask {n} with the share {whole}");
        }
    }
    events.remove();
}
