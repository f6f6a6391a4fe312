//! Follows the share of a rule's classes from mask to mask, and decides when events begin and end.

use std::time::{Duration, Instant};

use super::gaps::Gaps;
use super::rule::Rule;
use crate::config::Condition;

/// An event that lasts without current masks for this long ends.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(10);

/// The state of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleState {
    /// There is no mask that is new enough.
    Unknown,
    /// The condition does not hold.
    Inactive,
    /// The condition holds, but not yet for the time `for`, or the cool-down has not passed.
    Pending,
    /// There is an event.
    Active,
}

impl RuleState {
    /// All states.
    pub const ALL: [RuleState; 4] = [RuleState::Unknown, RuleState::Inactive, RuleState::Pending, RuleState::Active];

    /// The name in API, messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            RuleState::Unknown => "unknown",
            RuleState::Inactive => "inactive",
            RuleState::Pending => "pending",
            RuleState::Active => "active",
        }
    }
}

/// What a mask, or the time without one, has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An event has begun at this time.
    Began(Instant),
    /// The event continues.
    Continues,
    /// The condition no longer held at this time.
    Cleared(Instant),
    /// There has been no current mask since this time.
    Lost(Instant),
    /// An `entered` or `left` at this time.
    Moment(Instant),
}

/// The state of one rule.
#[derive(Clone, Debug)]
pub struct RuleTracker {
    gaps: Gaps,
    /// Whether the condition holds, with hysteresis; for `entered` and `left`, whether the classes are there. `None`: not known.
    holds: Option<bool>,
    /// Since when `holds` has had its value.
    since: Option<Instant>,
    /// For `entered` and `left`: the last value that lasted for the time `for`.
    settled: Option<bool>,
    is_active: bool,
    /// When the last event ended.
    ended: Option<Instant>,
    is_known: bool,
}

impl RuleTracker {
    /// A rule of whose stream there has been no mask yet. A mask older than `max_mask_age` is not current.
    pub fn new(max_mask_age: Duration) -> Self {
        let (holds, since, settled, ended) = (None, None, None, None);
        RuleTracker { gaps: Gaps::new(max_mask_age), holds, since, settled, is_active: false, ended, is_known: false }
    }

    /// The state now.
    pub fn state(&self, rule: &Rule) -> RuleState {
        match (self.is_known, self.is_active) {
            (false, _) => RuleState::Unknown,
            (true, true) => RuleState::Active,
            (true, false) if rule.condition.lasts() && self.holds == Some(true) => RuleState::Pending,
            (true, false) if !rule.condition.lasts() && self.settled.is_none() => RuleState::Unknown,
            (true, false) => RuleState::Inactive,
        }
    }

    /// Whether the condition holds now, with or without an event.
    pub fn holds(&self) -> bool {
        self.is_known && self.holds == Some(true)
    }

    /// Since when the condition holds, as far as the cool-down permits: the start of an event that is not certain yet. `None` if
    /// it does not hold.
    pub fn holds_since(&self, rule: &Rule) -> Option<Instant> {
        let since = self.since.filter(|_| self.holds())?;
        Some(since.max(self.earliest_start(rule).unwrap_or(since)))
    }

    /// The share in the mask of the frame that was captured at `at`.
    pub fn update(&mut self, rule: &Rule, share: f64, at: Instant) -> Option<Change> {
        if self.gaps.next(at) && !self.is_active {
            self.forget();
        }
        self.is_known = true;
        let holds = self.meets(rule, share);
        if self.holds != Some(holds) {
            (self.holds, self.since) = (Some(holds), Some(at));
        }
        let since = *self.since.get_or_insert(at);
        if !rule.condition.lasts() {
            return self.settle(rule, holds, since, at);
        }
        match (self.is_active, holds) {
            (true, true) => Some(Change::Continues),
            (true, false) if at.saturating_duration_since(since) >= rule.linger => {
                (self.is_active, self.ended) = (false, Some(since));
                Some(Change::Cleared(since))
            }
            (true, false) => Some(Change::Continues),
            (false, true) => {
                let start = self.holds_since(rule).unwrap_or(since);
                let is_due = at >= start && at.duration_since(start) >= rule.hold;
                is_due.then(|| {
                    self.is_active = true;
                    Change::Began(start)
                })
            }
            (false, false) => None,
        }
    }

    /// Whether the condition holds at this share: with hysteresis, by what held before.
    fn meets(&self, rule: &Rule, share: f64) -> bool {
        let were_present = match rule.condition {
            Condition::Absent => self.holds.map(|absent| !absent),
            _ => self.holds,
        };
        match rule.condition {
            Condition::Below if self.holds == Some(true) => share < rule.release,
            Condition::Below => share < rule.share,
            condition => {
                let limit = if were_present == Some(true) { rule.release } else { rule.share };
                // A release of 0 would never end.
                let present = share >= limit && share > 0.0;
                present != (condition == Condition::Absent)
            }
        }
    }

    /// The earliest start of the next event, by the cool-down.
    fn earliest_start(&self, rule: &Rule) -> Option<Instant> {
        self.ended.map(|ended| ended + rule.cooldown)
    }

    /// `entered` and `left`: the classes were there, or not, for long enough, and then the opposite was so.
    fn settle(&mut self, rule: &Rule, are_present: bool, since: Instant, at: Instant) -> Option<Change> {
        if self.settled == Some(are_present) || at.duration_since(since) < rule.hold {
            return None;
        }
        let before = self.settled.replace(are_present);
        let is_wanted = are_present == (rule.condition == Condition::Entered);
        let is_cool = self.earliest_start(rule).is_none_or(|earliest| since >= earliest);
        (before.is_some() && is_wanted && is_cool).then(|| {
            self.ended = Some(since);
            Change::Moment(since)
        })
    }

    /// The time passes without a mask. An event ends if that lasts too long.
    pub fn tick(&mut self, now: Instant) -> Option<Change> {
        let last = self.gaps.last()?;
        if self.is_known && self.gaps.is_stale(now) {
            self.is_known = false;
        }
        self.lose(last, !self.is_known && now.saturating_duration_since(last) >= LONGEST_UNKNOWN)
    }

    /// The source is offline, or the mask that came is too old: there is no current mask.
    pub fn set_unknown(&mut self) {
        self.is_known = false;
    }

    fn lose(&mut self, last: Instant, is_lost: bool) -> Option<Change> {
        let is_lost = is_lost && self.gaps.is_unusual(LONGEST_UNKNOWN);
        if is_lost {
            self.forget();
        }
        (is_lost && std::mem::take(&mut self.is_active)).then(|| {
            self.ended = Some(last);
            Change::Lost(last)
        })
    }

    /// What was seen before says nothing about what will be seen.
    fn forget(&mut self) {
        (self.holds, self.since, self.settled) = (None, None, None);
    }
}
