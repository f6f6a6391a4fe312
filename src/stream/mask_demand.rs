//! Whether something uses the masks of a stream. While nothing does, the model does not run for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::segment::pool::ModelShare;

/// The model continues for this long after the last use, for a client that requests one mask a second or a viewer that reconnects.
const LINGER: Duration = Duration::from_secs(5);

/// What the overlay stage does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Masks are made.
    Needed,
    /// Masks are made since a moment ago, and none has come yet.
    Awaited,
    /// No masks are made from this frame on.
    Ended,
    /// No masks are made.
    NotNeeded,
}

/// The demand for the masks of a stream over time. [`ModelShare`] passes it to the workers.
pub(super) struct MaskDemand {
    share: Arc<ModelShare>,
    /// Whether masks are made regardless of use: of a redacting stream, and at the pace of a source that waits for the model.
    is_fixed: bool,
    last_use: Instant,
    /// When the model started again for the stream, until its first mask.
    since: Option<Instant>,
    /// How long the first mask is waited for.
    limit: Duration,
}

impl MaskDemand {
    /// Masks are needed at first. After a time without, frames wait for `limit` at most until the first mask.
    pub fn new(share: Arc<ModelShare>, is_fixed: bool, limit: Duration) -> Self {
        share.set_needed(true);
        MaskDemand { share, is_fixed, last_use: Instant::now(), since: None, limit }
    }

    /// A frame comes, at `now`; `is_used` tells whether something uses masks now.
    pub fn update(&mut self, now: Instant, is_used: impl FnOnce() -> bool) -> Demand {
        if self.is_fixed || self.share.is_always_needed() || is_used() {
            self.last_use = now;
        }
        let was_needed = self.share.is_needed();
        let is_needed = now.saturating_duration_since(self.last_use) < LINGER;
        if is_needed != was_needed {
            self.share.set_needed(is_needed);
            self.since = is_needed.then_some(now);
        }
        match (was_needed, is_needed) {
            (true, false) => Demand::Ended,
            (false, false) => Demand::NotNeeded,
            (_, true) => {
                self.since = self.since.filter(|since| now.saturating_duration_since(*since) < self.limit);
                if self.since.is_some() { Demand::Awaited } else { Demand::Needed }
            }
        }
    }

    /// A mask has come.
    pub fn set_met(&mut self) {
        self.since = None;
    }

    pub fn is_needed(&self) -> bool {
        self.share.is_needed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MaskRate, MasksWhen};

    fn share(masks: MasksWhen) -> Arc<ModelShare> {
        Arc::new(ModelShare::new(masks, MaskRate::Auto, 1))
    }

    #[test]
    fn masks_end_some_time_after_the_last_use_and_are_awaited_when_they_start_again() {
        let share = share(MasksWhen::Auto);
        let mut demand = MaskDemand::new(Arc::clone(&share), false, Duration::from_secs(1));
        let start = demand.last_use;
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(demand.update(at(4_900), || false), Demand::Needed);
        assert_eq!(demand.update(at(5_000), || false), Demand::Ended);
        assert_eq!((demand.update(at(5_040), || false), share.is_needed()), (Demand::NotNeeded, false));
        assert_eq!((demand.update(at(6_000), || true), share.is_needed()), (Demand::Awaited, true));
        // A client that asks now and then keeps the model running.
        assert_eq!(demand.update(at(6_400), || false), Demand::Awaited);
        demand.set_met();
        assert_eq!(demand.update(at(6_440), || false), Demand::Needed);
        assert_eq!(demand.update(at(10_900), || true), Demand::Needed);
        assert_eq!(demand.update(at(15_899), || false), Demand::Needed);
        assert_eq!(demand.update(at(15_900), || false), Demand::Ended);
    }

    #[test]
    fn frames_do_not_wait_for_the_first_mask_without_limit() {
        let share = share(MasksWhen::Auto);
        let mut demand = MaskDemand::new(Arc::clone(&share), false, Duration::from_secs(1));
        let start = demand.last_use;
        assert_eq!(demand.update(start + LINGER, || false), Demand::Ended);
        assert_eq!(demand.update(start + 2 * LINGER, || true), Demand::Awaited);
        assert_eq!(demand.update(start + 2 * LINGER + Duration::from_secs(1), || true), Demand::Needed);
    }

    #[test]
    fn masks_that_are_always_made_need_no_use() {
        let auto = share(MasksWhen::Auto);
        let mut fixed = MaskDemand::new(Arc::clone(&auto), true, Duration::from_secs(1));
        let later = fixed.last_use + 10 * LINGER;
        assert_eq!((fixed.update(later, || false), auto.is_needed()), (Demand::Needed, true));

        let share = share(MasksWhen::Always);
        let mut demand = MaskDemand::new(Arc::clone(&share), false, Duration::from_secs(1));
        assert_eq!(demand.update(later, || false), Demand::Needed);
        share.set(MasksWhen::Auto, MaskRate::Auto, 1);
        assert_eq!(demand.update(later + LINGER, || false), Demand::Ended);
        share.set(MasksWhen::Always, MaskRate::Auto, 1);
        assert_eq!(demand.update(later + 2 * LINGER, || false), Demand::Awaited);
    }
}
