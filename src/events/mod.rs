//! Events: classes that cover enough of a zone for long enough in the masks.
//!
//! An [`EventDetector`] is a mask sink that examines every mask on the thread of the overlay stage: one pass over the pixels of the
//! [`zone`], and a [`trigger`] with hysteresis. The result is recorded in the [`EventState`] of the stream, from which the recorder
//! takes when to record, and the metrics how often events began.

use std::sync::Arc;

use crate::config::EventConfig;
use crate::frame::{Label, Labels, Mask};
use crate::sink::{MaskSink, SinkError, StreamMask};

pub mod event_state;
pub mod trigger;
pub mod zone;

pub use event_state::{ActiveEvent, EventState};
use trigger::Trigger;
use zone::ZonePixels;

/// Detects the events of a stream in its masks.
pub struct EventDetector {
    events: Vec<EventRule>,
    state: Arc<EventState>,
    /// The labels of the masks that the events are prepared for.
    labels: Labels,
    size: (usize, usize),
}

/// One event, prepared for masks of one model.
struct EventRule {
    config: EventConfig,
    trigger: Trigger,
    is_class: [bool; 256],
    pixels: ZonePixels,
}

impl EventDetector {
    /// Detects the events of `state`, which is updated.
    pub fn new(state: Arc<EventState>) -> Self {
        let rule = |config: &EventConfig| EventRule {
            config: config.clone(),
            trigger: Trigger::new(config.share, config.hold),
            is_class: [false; 256],
            pixels: ZonePixels::default(),
        };
        EventDetector { events: state.events().map(rule).collect(), state, labels: [].into(), size: (0, 0) }
    }

    /// Examines the next mask of the stream.
    pub fn examine(&mut self, mask: &Mask) {
        if !Arc::ptr_eq(&mask.labels, &self.labels) || self.size != (mask.width, mask.height) {
            self.prepare(mask);
        }
        for (index, event) in self.events.iter_mut().enumerate() {
            let share = event.pixels.share(&mask.classes, &event.is_class);
            if let Some(since) = event.trigger.update(share, mask.captured_at) {
                self.state.condition_met(index, since, mask.captured_at);
            }
        }
    }

    /// Adapts to the masks of another model: other classes, or another size.
    fn prepare(&mut self, mask: &Mask) {
        self.labels = Arc::clone(&mask.labels);
        self.size = (mask.width, mask.height);
        for event in &mut self.events {
            event.pixels = ZonePixels::of(&event.config.zone, mask.width, mask.height);
            event.is_class = [false; 256];
            // A model has 256 classes at most: an index is a byte.
            for (is_class, label) in event.is_class.iter_mut().zip(mask.labels.iter()) {
                *is_class = event.config.classes.contains(&label.name);
            }
        }
    }
}

impl MaskSink for EventDetector {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.examine(&mask.mask);
        Ok(())
    }
}

/// The classes of an event that are not among the labels of a model.
pub fn unknown_classes<'a>(event: &'a EventConfig, labels: &[Label]) -> Vec<&'a str> {
    let known = |name: &&String| labels.iter().any(|label| label.name == **name);
    event.classes.iter().filter(|name| !known(name)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::Rgb;

    fn labels(names: &[&str]) -> Labels {
        names.iter().map(|name| Label::new(*name, Rgb(1, 2, 3))).collect()
    }

    /// A mask of 10 x 10 with class `class` in its lower half and 0 above.
    fn mask(labels: &Labels, class: u8, captured_at: Instant) -> Mask {
        let classes = (0..100).map(|n| if n < 50 { 0 } else { class }).collect();
        Mask {
            seq: 0,
            pts: Duration::ZERO,
            captured_at,
            width: 10,
            height: 10,
            classes,
            labels: Arc::clone(labels),
            model: "".into(),
            guide: None,
        }
    }

    #[test]
    fn classes_are_found_by_name_in_each_model() {
        let event = EventConfig {
            zone: vec![[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]],
            share: 0.9,
            hold: Duration::ZERO,
            ..EventConfig::of("visit", &["person", "car"])
        };
        let state = Arc::new(EventState::new("gate", &[event]));
        let mut watch = EventDetector::new(Arc::clone(&state));
        let count = || state.counts().map(|(_, count)| count).sum::<u64>();
        let (first, second) = (labels(&["sky", "car"]), labels(&["car", "person", "sky"]));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        watch.examine(&mask(&first, 0, at(0)));
        assert_eq!(count(), 0, "sky");
        watch.examine(&mask(&first, 1, at(1)));
        assert_eq!(count(), 1, "a car");
        watch.examine(&mask(&second, 2, at(100)));
        assert_eq!(count(), 1, "sky, in another model");
        watch.examine(&mask(&second, 1, at(101)));
        assert_eq!(count(), 2, "a person");
    }

    #[test]
    fn unknown_classes_are_named() {
        let event = EventConfig::of("visit", &["person", "cat", "car"]);
        assert_eq!(unknown_classes(&event, &labels(&["car", "person"])), ["cat"]);
    }
}
