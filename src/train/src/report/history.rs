//! The results of the epochs of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The results of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The number of the epoch, from 1, over all phases.
    pub epoch: u32,
    /// The phase of the strategy: `frozen`, `finetune`, …
    pub phase: String,
    /// Mean loss of the batches.
    pub train_loss: f64,
    /// Mean loss of the validation images; `None` if it was not measured.
    pub val_loss: Option<f64>,
    /// Validation mIoU (0 to 1) of the weights.
    pub val_miou: Option<f64>,
    /// Validation mIoU (0 to 1) of the moving average of the weights.
    pub val_miou_ema: Option<f64>,
    /// Learning rate of each group of parameters at the end of the epoch.
    pub lr: BTreeMap<String, f64>,
    /// Wall-clock time.
    pub seconds: f64,
    /// Share of the time in which the training waited for images, 0 to 1.
    pub data_wait_share: f64,
}

impl EpochRecord {
    /// The higher of the two mIoUs.
    pub fn best_miou(&self) -> Option<f64> {
        [self.val_miou, self.val_miou_ema].into_iter().flatten().filter(|miou| miou.is_finite()).reduce(f64::max)
    }
}

/// The results of all epochs so far, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(pub Vec<EpochRecord>);

impl History {
    /// Adds an epoch. Removes this epoch and later ones, which a killed run may have left.
    pub fn push(&mut self, record: EpochRecord) {
        self.0.retain(|old| old.epoch < record.epoch);
        self.0.push(record);
    }

    /// The epoch with the highest mIoU (the first of equal ones), and that mIoU.
    pub fn best(&self) -> Option<(u32, f64)> {
        let scored = self.0.iter().filter_map(|record| Some((record.epoch, record.best_miou()?)));
        scored.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// The first epoch and the name of each phase.
    pub fn phases(&self) -> Vec<(u32, &str)> {
        let mut phases: Vec<(u32, &str)> = Vec::new();
        for record in &self.0 {
            if phases.last().is_none_or(|(_, name)| *name != record.phase) {
                phases.push((record.epoch, &record.phase));
            }
        }
        phases
    }

    /// The names of the groups that have a learning rate.
    pub fn groups(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().flat_map(|record| record.lr.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Wall-clock time of all epochs.
    pub fn seconds(&self) -> f64 {
        self.0.iter().map(|record| record.seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u32, phase: &str, miou: Option<f64>, ema: Option<f64>) -> EpochRecord {
        EpochRecord { epoch, phase: phase.into(), val_miou: miou, val_miou_ema: ema, ..Default::default() }
    }

    #[test]
    fn the_best_epoch_is_the_first_of_equal_ones() {
        let mut history = History::default();
        assert_eq!(history.best(), None);
        history.push(record(1, "frozen", Some(0.3), Some(0.4)));
        history.push(record(2, "frozen", None, None));
        history.push(record(3, "finetune", Some(0.5), Some(0.2)));
        history.push(record(4, "finetune", Some(0.1), Some(0.5)));
        assert_eq!(history.best(), Some((3, 0.5)));
        assert_eq!(history.phases(), [(1, "frozen"), (3, "finetune")]);
    }

    #[test]
    fn a_repeated_epoch_replaces_the_previous_results() {
        let mut history = History::default();
        for epoch in 1..=3 {
            history.push(record(epoch, "finetune", Some(0.1), None));
        }
        history.push(record(2, "finetune", Some(0.7), None));
        assert_eq!(history.0.iter().map(|record| record.epoch).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(history.best(), Some((2, 0.7)));
        let text = serde_json::to_string(&history).unwrap();
        assert!(text.starts_with('['));
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    }
}
