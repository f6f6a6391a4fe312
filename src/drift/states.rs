//! The states in which a camera has been, and whether it is in another one now.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::features::Features;

/// Parts of a window.
pub const PARTS: usize = 6;

/// A state that differs by less from a window ago was reached slowly.
const SLOW: f32 = 0.5;

/// The most states that are known: the one that was not there for the longest is forgotten.
const MOST_STATES: usize = 48;

/// A change that lasts for so long is a state like the others.
const LEARNT_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A state in which the camera has been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub features: Features,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// The camera is in a state that it has not been in, and came into it suddenly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CameraChange {
    pub since: Timestamp,
    /// The state before.
    pub before: Features,
}

/// What is known of a camera, and kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct States {
    pub states: Vec<State>,
    pub change: Option<CameraChange>,
    /// How long the camera has been watched, in seconds.
    pub watched: f64,
    /// The address of the camera, without secrets: another address is another camera.
    #[serde(default)]
    pub source: String,
    /// The parts of the window, the newest last, and whether each was in a known state.
    #[serde(skip)]
    recent: VecDeque<(Timestamp, Features, bool)>,
    /// The known state of the newest part that was in one.
    #[serde(skip)]
    current: Option<Features>,
}

impl States {
    /// The newest window, if it is complete.
    pub fn window(&self) -> Option<Features> {
        let parts = self.recent.iter().map(|(_, features, _)| features);
        (self.recent.len() == PARTS).then(|| Features::mean(parts)).flatten()
    }

    /// What the newest window is compared with: the state before a change, or the known state that is nearest.
    pub fn reference(&self, window: &Features) -> Option<&Features> {
        match &self.change {
            Some(change) => Some(&change.before),
            None => self.nearest(window).map(|(_, state)| &self.states[state].features),
        }
    }

    fn nearest(&self, features: &Features) -> Option<(f32, usize)> {
        let distances = self.states.iter().enumerate().map(|(at, state)| (features.distance(&state.features), at));
        distances.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Takes the mean of a part of the window that lasted `seconds`. While `settling`, every state is a known one.
    pub fn push(&mut self, now: Timestamp, features: Features, seconds: f64, settling: bool) {
        self.watched += seconds;
        let nearest = self.nearest(&features);
        let known = match nearest.filter(|(distance, _)| *distance < 1.0) {
            Some((_, at)) => {
                self.states[at].last = now;
                self.current = Some(self.states[at].features.clone());
                true
            }
            None if settling || self.is_reached_slowly(&features) => {
                self.learn(now, features.clone());
                true
            }
            None => false,
        };
        self.recent.push_back((now, features, known));
        if self.recent.len() > PARTS {
            self.recent.pop_front();
        }
        self.judge(now);
    }

    fn is_reached_slowly(&self, features: &Features) -> bool {
        let before = self.recent.front().filter(|_| self.recent.len() == PARTS);
        before.is_some_and(|(_, before, known)| *known && features.distance(before) < SLOW)
    }

    fn learn(&mut self, now: Timestamp, features: Features) {
        if self.states.len() >= MOST_STATES
            && let Some((at, _)) = self.states.iter().enumerate().min_by_key(|(_, state)| state.last)
        {
            self.states.remove(at);
        }
        self.current = Some(features.clone());
        self.states.push(State { features, first: now, last: now });
    }

    /// Begins a change when a whole window is in no known state, and ends it when half of one is.
    fn judge(&mut self, now: Timestamp) {
        let known = self.recent.iter().rev().take_while(|(.., known)| *known).count();
        if known >= PARTS / 2 {
            self.change = None;
        }
        let all_unknown = self.recent.len() == PARTS && self.recent.iter().all(|(.., known)| !known);
        match (&self.change, self.recent.front()) {
            (None, Some((since, features, _))) if all_unknown => {
                // After a restart no part was in a known state yet.
                let nearest = || self.nearest(features).map(|(_, at)| self.states[at].features.clone());
                let before = self.current.clone().or_else(nearest);
                self.change = before.map(|before| CameraChange { since: *since, before });
            }
            (Some(change), _) if now.duration_since(change.since) > LEARNT_AFTER => self.accept(now),
            _ => {}
        }
    }

    /// Makes the state of now a known one, which ends the change.
    pub fn accept(&mut self, now: Timestamp) {
        if let Some(window) = self.window() {
            self.learn(now, window);
        }
        self.recent.iter_mut().for_each(|(.., known)| *known = true);
        self.change = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn light(luma: f32) -> Features {
        let cells = (0..48).map(|n| luma * (0.5 + (n % 7) as f32 / 12.0)).collect();
        Features { luma, contrast: 0.2, sharpness: 0.5, saturation: 0.2, cells, ..Features::default() }
    }

    /// A camera that is watched for parts of ten seconds.
    struct Watched {
        states: States,
        now: Timestamp,
    }

    impl Watched {
        fn settled(luma: f32) -> Watched {
            let mut watched = Watched { states: States::default(), now: Timestamp::UNIX_EPOCH };
            for _ in 0..12 {
                watched.part(luma, true);
            }
            watched
        }

        fn part(&mut self, luma: f32, settling: bool) {
            self.now += SignedDuration::from_secs(10);
            self.states.push(self.now, light(luma), 10.0, settling);
        }

        fn parts(&mut self, count: usize, luma: impl Fn(usize) -> f32) {
            (0..count).for_each(|n| self.part(luma(n), false));
        }

        fn is_changed(&self) -> bool {
            self.states.change.is_some()
        }
    }

    #[test]
    fn a_sudden_new_state_is_a_change_from_its_first_moment_until_it_ends() {
        let mut camera = Watched::settled(0.6);
        camera.parts(60, |n| 0.6 + 0.02 * (n % 3) as f32);
        assert!(!camera.is_changed() && camera.states.states.len() == 1);
        let before = camera.now;
        camera.parts(PARTS - 1, |_| 0.1);
        assert!(!camera.is_changed(), "it has not lasted for a window");
        camera.part(0.1, false);
        let change = camera.states.change.clone().unwrap();
        assert_eq!(change.since, before + SignedDuration::from_secs(10));
        assert_eq!(change.before, light(0.6));
        let window = camera.states.window().unwrap();
        assert_eq!(window.changes_from(&change.before)[0], "darker");
        // It stays one, also while it varies slowly.
        camera.parts(60, |n| 0.1 + 0.002 * n as f32);
        assert!(camera.is_changed());
        camera.parts(3, |_| 0.6);
        assert!(!camera.is_changed());
        // It was not learnt.
        camera.parts(PARTS, |_| 0.1);
        assert!(camera.is_changed());
    }

    #[test]
    fn dusk_and_dawn_are_no_changes_and_states_that_were_there_before_are_not_either() {
        let mut camera = Watched::settled(0.7);
        // Half an hour of dusk, an hour of night, half an hour of dawn.
        for (from, to) in [(0.7, 0.1), (0.1, 0.1), (0.1, 0.1), (0.1, 0.7)] {
            camera.parts(180, |n| from + (to - from) * n as f32 / 180.0);
            assert!(!camera.is_changed(), "{from} to {to}");
        }
        // Now the night is known: a cloud or a switch may bring it suddenly.
        camera.parts(2 * PARTS, |_| 0.1);
        assert!(!camera.is_changed());
    }

    #[test]
    fn a_person_who_passes_is_no_change() {
        let mut camera = Watched::settled(0.6);
        for _ in 0..10 {
            camera.parts(PARTS - 1, |_| 0.3);
            camera.parts(1, |_| 0.6);
            assert!(!camera.is_changed());
        }
    }

    #[test]
    fn a_change_that_is_accepted_or_lasts_for_a_day_is_a_known_state() {
        let mut camera = Watched::settled(0.6);
        camera.parts(PARTS, |_| 0.1);
        assert!(camera.is_changed());
        camera.states.accept(camera.now);
        camera.parts(PARTS, |_| 0.1);
        assert!(!camera.is_changed());
        camera.parts(PARTS, |_| 0.95);
        assert!(camera.is_changed());
        camera.parts(24 * 360 + PARTS, |_| 0.95);
        assert!(!camera.is_changed());
    }

    #[test]
    fn a_change_is_kept_over_a_restart() {
        let mut camera = Watched::settled(0.6);
        camera.parts(PARTS, |_| 0.1);
        let text = serde_json::to_string(&camera.states).unwrap();
        camera.states = serde_json::from_str(&text).unwrap();
        assert!(camera.is_changed());
        camera.parts(2 * PARTS, |_| 0.1);
        assert!(camera.is_changed());
        camera.parts(3, |_| 0.6);
        assert!(!camera.is_changed());
    }
}
