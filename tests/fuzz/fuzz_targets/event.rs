//! Events: zones of any shape on masks of any size, changing shares, and the state for the recorder, each compared with a
//! slower implementation.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use maskcast::config::EventConfig;
use maskcast::events::trigger::Trigger;
use maskcast::events::zone::ZonePixels;
use maskcast::events::{EventDetector, EventState};
use maskcast::frame::{Label, Labels, Mask, Rgb};

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
    let (width, height) = (usize::from(input.size[0] % 48), usize::from(input.size[1] % 48));
    let class = |n: usize| input.classes.get(n % input.classes.len().max(1)).copied().unwrap_or(0);
    let classes: Vec<u8> = (0..width * height).map(class).collect();
    zone_share(&zone, width, height, &classes, input.wanted);

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
    let held = check_trigger(&shares, threshold, millis(input.hold));
    check_state(&event("visit", Vec::new()), &shares, &held);
    check_detector([event("here", zone), event("anywhere", Vec::new())], (width, height), classes, &shares);
});

/// Compares the share with a count pixel by pixel.
fn zone_share(zone: &[[f64; 2]], width: usize, height: usize, classes: &[u8], wanted: [u8; 2]) {
    let wanted_classes: [bool; 256] = std::array::from_fn(|class| wanted.contains(&(class as u8)));
    let share = ZonePixels::of(zone, width, height).share(classes, &wanted_classes);
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

/// The time since which the condition holds at each share; compared with a search through all shares.
fn check_trigger(shares: &[(f64, Instant)], threshold: f64, hold: Duration) -> Vec<Option<Instant>> {
    let mut trigger = Trigger::new(threshold, hold);
    let held: Vec<_> = shares.iter().map(|&(share, at)| trigger.update(share, at)).collect();
    for (n, held) in held.iter().enumerate() {
        let seen = &shares[..=n];
        // Start of the last period without a gap and without a share below half of the threshold. A gap is also long in relation
        // to the usual distance of the masks.
        let distance = |at: usize| seen[at].1 - seen[at - 1].1;
        let is_gap = |at: usize| {
            let usual = (at.saturating_sub(3).max(1)..at).map(distance).min();
            at > 0 && distance(at) > Duration::from_secs(5) && usual.is_none_or(|usual| distance(at) > 2 * usual)
        };
        let begin = (0..seen.len()).rev().find(|&at| is_gap(at) || seen[at].0 < threshold * 0.5).unwrap_or(0);
        let since = seen[begin..].iter().find(|(share, _)| *share >= threshold).map(|(_, at)| *at);
        assert_eq!(*held, since.filter(|since| seen[n].1 - *since >= hold), "share {n}");
    }
    held
}

/// Every time at which the condition holds is active, with pre-roll and post-roll.
fn check_state(event: &EventConfig, shares: &[(f64, Instant)], held: &[Option<Instant>]) {
    let state = EventState::new("gate", std::slice::from_ref(event));
    let (mut count, mut last) = (0, None::<Instant>);
    for (&(_, at), since) in shares.iter().zip(held) {
        let Some(since) = *since else { continue };
        state.condition_met(0, since, at);
        count += u64::from(last.is_none_or(|last| last + event.post_roll < at));
        last = Some(at);
        let active = state.active(at).expect("the event is active");
        assert!(active.from <= since && active.until == at + event.post_roll && &*active.name == event.name);
        assert!(state.active(active.until).is_some());
        assert_eq!(state.active(active.until + Duration::from_millis(1)), None);
    }
    assert_eq!(state.counts().collect::<Vec<_>>(), [(event.name.as_str(), count)]);
}

/// The whole detector, with a model with fewer classes than the mask has values.
fn check_detector(
    events: [EventConfig; 2],
    (width, height): (usize, usize),
    classes: Vec<u8>,
    shares: &[(f64, Instant)],
) {
    let labels: Labels = ["other", "wanted"].map(|name| Label::new(name, Rgb(1, 2, 3))).into();
    let state = Arc::new(EventState::new("gate", &events));
    let mut detector = EventDetector::new(Arc::clone(&state));
    for (n, &(share, captured_at)) in shares.iter().enumerate().take(20) {
        let limit = (share * classes.len() as f64) as usize;
        let drawn = classes.iter().enumerate().map(|(at, class)| if at < limit { 1 } else { *class });
        let mask = Mask {
            seq: n as u64,
            pts: Duration::ZERO,
            captured_at,
            width,
            height,
            classes: drawn.collect(),
            labels: Arc::clone(&labels),
            model: "".into(),
            guide: None,
        };
        detector.examine(&mask);
        let whole = mask.classes.iter().filter(|&&class| class == 1).count() as f64 / classes.len().max(1) as f64;
        if whole >= events[1].share && events[1].hold.is_zero() {
            assert!(state.active(captured_at).is_some(), "no event at mask {n} with the share {whole}");
        }
    }
}
