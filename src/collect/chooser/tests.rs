use super::*;
use crate::frame::Guide;

/// Pictures that differ from one another: an object at one of many places.
fn picture(place: usize) -> Thumbnail {
    let mut guide = Guide::new(192, 108);
    let (left, top) = (place * 12 % 180, place * 12 / 180 * 18 % 90);
    for (at, sample) in guide.plane_mut(0).iter_mut().enumerate() {
        let inside = (left..left + 24).contains(&(at % 192)) && (top..top + 36).contains(&(at / 192));
        *sample = if inside { 40 } else { 140 };
    }
    Thumbnail::of(&guide).unwrap()
}

fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs_f64(seconds)
}

/// Plays a video from `from` to `to` (seconds of the day) with the pictures of `scene`, which also returns the uncertainty. Returns
/// the collected frames.
fn play(
    config: &CollectConfig,
    known: &mut Known,
    (from, to): (f64, f64),
    mut scene: impl FnMut(f64) -> (Thumbnail, f32),
) -> Vec<(f64, Reason, Candidate)> {
    let mut chooser = Chooser::new(config, Rng::with_seed(7));
    let (mut collected, mut kept, mut now): (Vec<(f64, Reason, Candidate)>, Option<Candidate>, f64) =
        (Vec::new(), None, from);
    while now < to {
        let Some(step) = chooser.sample_interval(at(now), known) else { break };
        let (thumbnail, uncertainty) = scene(now);
        kept = chooser.consider(Sample { captured: at(now), thumbnail, uncertainty }, known).or(kept);
        if let Some(reason) = chooser.decide(at(now), known) {
            let candidate = kept.take().expect("a candidate is kept");
            known.thumbnails.push(candidate.sample.thumbnail.clone());
            known.newest = Some(candidate.sample.captured);
            known.today += 1;
            collected.push((now, reason, candidate));
        }
        now += step.as_secs_f64();
    }
    collected
}

fn busy(seconds: f64) -> (Thumbnail, f32) {
    // Another place every 100 ms, in an order that no interval between samples repeats (Fibonacci hashing).
    let tick = (seconds * 10.0) as u64;
    let place = (tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % 70;
    (picture(place), place as f32 / 100.0)
}

#[test]
fn a_still_scene_gives_a_frame_an_hour_and_an_exact_repetition_none() {
    let config = CollectConfig::to("x");
    let noise = |seconds: f64| {
        let mut bytes = picture(3).bytes().to_vec();
        bytes[seconds as usize % 500] ^= 1;
        (Thumbnail::read(&bytes).unwrap(), 0.1)
    };
    let collected = play(&config, &mut Known::default(), (0.0, 4.5 * 3600.0), noise);
    let times: Vec<f64> = collected.iter().map(|(time, ..)| time / 3600.0).collect();
    assert_eq!(times.len(), 5, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1.0), "{times:?}");
    let same = play(&config, &mut Known::default(), (0.0, 4.5 * 3600.0), |_| (picture(3), 0.1));
    assert_eq!(same.len(), 1);
}

#[test]
fn the_budget_is_not_spent_at_once_and_the_first_evening_gives_usable_frames() {
    let config = CollectConfig { random: 0.0, ..CollectConfig::to("x") };
    let mut known = Known::default();
    let evening = play(&config, &mut known, (18.0 * 3600.0, 24.0 * 3600.0), busy);
    let until = |hour: f64| evening.iter().filter(|(time, ..)| *time < hour * 3600.0).count();
    assert!((25..=100).contains(&evening.len()), "{}", evening.len());
    assert!(until(18.02) <= 2, "{} in the first minute", until(18.02));
    assert!(until(20.0) >= 20, "{} in the first two hours", until(20.0));
}

#[test]
fn the_budget_holds_and_is_distributed_over_the_day() {
    let config = CollectConfig { per_day: 20, ..CollectConfig::to("x") };
    let mut known = Known { thumbnails: vec![picture(69); 60], ..Known::default() };
    let collected = play(&config, &mut known, (0.0, 86_400.0), busy);
    assert!((12..=20).contains(&collected.len()), "{}", collected.len());
    let morning = collected.iter().filter(|(time, ..)| *time < 43_200.0).count();
    assert!((6..=14).contains(&morning), "{morning} of {}", collected.len());
    let used_up = Known { today: 20, ..known };
    assert_eq!(Chooser::new(&config, Rng::new()).slot_length(at(5.0), &used_up), None);
}

#[test]
fn after_a_pause_frames_do_not_come_faster_than_four_times_the_even_rate() {
    let chooser = Chooser::new(&CollectConfig { per_day: 96, ..CollectConfig::to("x") }, Rng::new());
    let known = Known { thumbnails: vec![picture(0); FIRST], ..Known::default() };
    assert_eq!(chooser.slot_length(at(86_000.0), &known), Some(Duration::from_secs(900 / 4)));
    assert_eq!(chooser.slot_length(at(0.0), &known), Some(Duration::from_secs(900)));
}

#[test]
fn slots_take_the_most_uncertain_and_the_most_different_samples_in_turn() {
    let config = CollectConfig { random: 0.0, per_day: 500, ..CollectConfig::to("x") };
    let collected = play(&config, &mut Known::default(), (36_000.0, 40_000.0), busy);
    let kinds: Vec<Reason> = collected.iter().skip(1).map(|(_, kind, _)| *kind).collect();
    assert!(kinds.len() > 8 && kinds.windows(2).all(|pair| pair[0] != pair[1]), "{kinds:?}");
    let mean = |kind: Reason| {
        let chosen: Vec<f32> =
            collected.iter().filter(|(_, other, _)| *other == kind).map(|(.., it)| it.sample.uncertainty).collect();
        chosen.iter().sum::<f32>() / chosen.len() as f32
    };
    assert!(mean(Reason::Uncertain) > 0.4, "the mean of the video is 0.35: {}", mean(Reason::Uncertain));
    for (at, (.., candidate)) in collected.iter().enumerate() {
        for (.., other) in &collected[..at] {
            let distance = candidate.sample.thumbnail.distance(&other.sample.thumbnail);
            assert!(distance >= ALIKE, "two collected frames are alike: {distance}");
        }
    }
}

#[test]
fn random_slots_have_their_share() {
    let config = CollectConfig { random: 0.5, per_day: 2000, ..CollectConfig::to("x") };
    let mut known = Known::default();
    let collected = play(&config, &mut known, (0.0, 3000.0), busy);
    let random = collected.iter().filter(|(_, kind, _)| *kind == Reason::Random).count();
    assert!(collected.len() > 30 && random > collected.len() / 4, "{random} of {}", collected.len());
}
