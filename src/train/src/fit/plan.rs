//! A strategy as phases: which stages of the network are trained in which epochs, and at which learning rates.

use super::config::{BatchNormMode, FitOptions, Strategy};
use super::schedule::Schedule;
use crate::net::Stage;

/// The deepest encoder stage.
const DEEPEST: u8 = 5;

/// Consecutive epochs in which the same parts of the network are trained, with one schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Name in reports.
    pub name: &'static str,
    /// The epochs `from..to` of the run, counted from 0.
    pub from: u64,
    pub to: u64,
    /// Peak learning rate of the decoder and the head.
    pub decoder_lr: f64,
    /// Peak learning rate of the encoder; `None` if it is frozen.
    pub encoder_lr: Option<f64>,
    pub schedule: Schedule,
    warm_up: f64,
    unfreeze_every: u64,
    frozen_stages: u8,
    batch_norm: BatchNormMode,
}

/// Returns the phases of a run in their order.
pub fn phases(options: &FitOptions) -> Vec<Phase> {
    let phase = |name, from, to, encoder_lr| Phase {
        name,
        from,
        to,
        decoder_lr: options.lr,
        encoder_lr,
        schedule: options.schedule,
        warm_up: options.warm_up,
        unfreeze_every: options.unfreeze_every,
        frozen_stages: options.frozen_stages,
        batch_norm: options.batch_norm,
    };
    let epochs = options.epochs;
    match options.strategy {
        Strategy::Scratch => {
            // There are no pretrained weights to preserve: all stages have the same rate from the start.
            vec![Phase { unfreeze_every: 0, ..phase("scratch", 0, epochs, Some(options.lr)) }]
        }
        Strategy::Frozen => vec![phase("frozen", 0, epochs, None)],
        Strategy::Finetune => vec![phase("finetune", 0, epochs, Some(options.encoder_lr))],
        Strategy::FreezeThenFinetune => {
            let frozen = options.frozen_epochs().min(epochs);
            // Training continues in the second phase, so the rate does not decrease at the end of the first.
            let first = Phase { schedule: Schedule::Constant, ..phase("frozen", 0, frozen, None) };
            let second = phase("finetune", frozen, epochs, Some(options.encoder_lr));
            [first, second].into_iter().filter(|phase| phase.from < phase.to).collect()
        }
    }
}

/// Returns the phase of an epoch.
pub fn at(phases: &[Phase], epoch: u64) -> &Phase {
    let found = phases.iter().find(|phase| (phase.from..phase.to).contains(&epoch));
    found.or(phases.last()).expect("a run has a phase")
}

impl Phase {
    /// Whether a stage is trained in this epoch of the run.
    pub fn trains(&self, stage: Stage, epoch: u64) -> bool {
        let Stage::Encoder(depth) = stage else { return true };
        if self.encoder_lr.is_none() || depth < self.frozen_stages {
            return false;
        }
        if self.unfreeze_every == 0 {
            return true;
        }
        u64::from(DEEPEST.saturating_sub(depth)) <= (epoch - self.from) / self.unfreeze_every
    }

    /// Whether the batch norms of a stage normalise by the statistics of the batch in this epoch.
    pub fn batch_statistics(&self, stage: Stage, epoch: u64) -> bool {
        match (stage, self.batch_norm) {
            (_, BatchNormMode::Fixed) => false,
            (Stage::Decoder | Stage::Head, _) | (_, BatchNormMode::Batch) => true,
            (_, BatchNormMode::Keep) => false,
            (_, BatchNormMode::Auto) => self.trains(stage, epoch),
        }
    }

    /// Returns the learning rate of a stage at `step` of the run, with `per_epoch` steps per epoch.
    pub fn rate(&self, stage: Stage, step: u64, per_epoch: u64) -> f64 {
        let (first, steps) = (self.from * per_epoch, (self.to - self.from) * per_epoch);
        let factor = self.schedule.factor(step.saturating_sub(first), steps, self.warm_up);
        let peak = match stage {
            Stage::Encoder(_) => self.encoder_lr.unwrap_or(0.0),
            Stage::Decoder | Stage::Head => self.decoder_lr,
        };
        peak * factor
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCommand {
        #[command(flatten)]
        options: FitOptions,
    }

    fn plan(arguments: &str) -> Vec<Phase> {
        let arguments = std::iter::once("fit").chain(arguments.split_whitespace());
        phases(&TestCommand::parse_from(arguments).options)
    }

    #[test]
    fn the_default_strategy_freezes_then_fine_tunes() {
        let phases = plan("--epochs 10");
        let spans: Vec<_> = phases.iter().map(|phase| (phase.name, phase.from, phase.to)).collect();
        assert_eq!(spans, [("frozen", 0, 3), ("finetune", 3, 10)]);
        let encoder = Stage::Encoder(3);
        assert!(!at(&phases, 2).trains(encoder, 2) && !at(&phases, 2).batch_statistics(encoder, 2));
        assert!(at(&phases, 2).trains(Stage::Decoder, 2) && at(&phases, 2).batch_statistics(Stage::Head, 2));
        assert!(at(&phases, 3).trains(encoder, 3) && at(&phases, 3).batch_statistics(encoder, 3));
        assert_eq!(at(&phases, 1).rate(encoder, 10, 10), 0.0);
    }

    #[test]
    fn stages_are_unfrozen_from_the_deepest_on() {
        let phases = plan("--strategy finetune --epochs 12 --unfreeze-every 2");
        let trained =
            |epoch| (0..=5).filter(|&depth| phases[0].trains(Stage::Encoder(depth), epoch)).collect::<Vec<_>>();
        assert_eq!(trained(0), [5]);
        assert_eq!(trained(1), [5]);
        assert_eq!(trained(4), [3, 4, 5]);
        assert_eq!(trained(10), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_first_stages_stay_frozen() {
        let phases = plan("--strategy finetune --frozen-stages 3");
        let trained = |depth| phases[0].trains(Stage::Encoder(depth), 5);
        assert_eq!([0, 1, 2, 3, 5].map(trained), [false, false, false, true, true]);
        assert!(!phases[0].batch_statistics(Stage::Encoder(2), 5) && phases[0].trains(Stage::Decoder, 5));
    }

    #[test]
    fn scratch_uses_one_learning_rate() {
        let phases = plan("--strategy scratch --lr 0.01");
        let rate = |stage| phases[0].rate(stage, 100, 46);
        assert_eq!(rate(Stage::Encoder(0)), rate(Stage::Head));
        let fine = plan("--strategy finetune --lr 0.01 --encoder-lr 0.001");
        assert!((fine[0].rate(Stage::Encoder(0), 100, 46) * 10.0 - fine[0].rate(Stage::Head, 100, 46)).abs() < 1e-12);
    }
}
