//! Learning rates over the course of a phase.

use std::f64::consts::PI;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the learning rate moves; each gives a factor of the peak rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Up from 1/25 over three tenths of the phase, then down to almost nothing (Smith and Topin, 2018)
    OneCycle,
    /// Half a cosine down to zero (Loshchilov and Hutter, 2016), after the warm-up
    Cosine,
    /// (1 - progress) to the power of 0.9, as in DeepLab, after the warm-up
    Poly,
    /// The same rate all the way, after the warm-up
    Constant,
}

/// PyTorch's `OneCycleLR`.
const RISE: f64 = 0.3;
const START: f64 = 1.0 / 25.0;
const END: f64 = START / 1e4;
const POWER: f64 = 0.9;

impl Schedule {
    /// The factor at `step` of `steps`; `warm_up` is the share of the steps over which all but one-cycle rise from zero.
    pub fn factor(self, step: u64, steps: u64, warm_up: f64) -> f64 {
        let progress = step as f64 / steps.max(1) as f64;
        if self == Schedule::OneCycle {
            return if progress < RISE {
                cosine(START, 1.0, progress / RISE)
            } else {
                cosine(1.0, END, (progress - RISE) / (1.0 - RISE))
            };
        }
        let rise = (warm_up * steps as f64).max(1.0);
        if (step as f64) < rise {
            return (step as f64 + 1.0) / (rise + 1.0);
        }
        let rest = (step as f64 - rise) / (steps as f64 - rise).max(1.0);
        match self {
            Schedule::Cosine => cosine(1.0, 0.0, rest),
            Schedule::Poly => (1.0 - rest).max(0.0).powf(POWER),
            Schedule::Constant | Schedule::OneCycle => 1.0,
        }
    }
}

/// From `from` to `to` along half a cosine.
fn cosine(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * progress.clamp(0.0, 1.0)).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_is_pytorchs() {
        // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=101, pct_start=0.3): the peak is at three tenths.
        assert!((Schedule::OneCycle.factor(0, 100, 0.0) - 0.04).abs() < 1e-12);
        assert!((Schedule::OneCycle.factor(30, 100, 0.0) - 1.0).abs() < 1e-12);
        assert!((Schedule::OneCycle.factor(15, 100, 0.0) - 0.52).abs() < 1e-12);
        assert!(Schedule::OneCycle.factor(100, 100, 0.0) < 1e-5);
    }

    #[test]
    fn the_others_rise_first_and_end_at_zero() {
        for schedule in [Schedule::Cosine, Schedule::Poly] {
            assert!(schedule.factor(0, 100, 0.1) < 0.1);
            assert!((schedule.factor(10, 100, 0.1) - 1.0).abs() < 1e-12);
            assert!(schedule.factor(99, 100, 0.1) < 0.02);
        }
        assert_eq!(Schedule::Constant.factor(99, 100, 0.1), 1.0);
    }
}
