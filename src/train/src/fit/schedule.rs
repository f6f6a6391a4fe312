//! Schedules of the learning rate.

use std::f64::consts::PI;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The course of the learning rate in a phase, as a factor of the peak rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Rises from 1/25 during 30 % of the phase, then falls to nearly 0 (Smith and Topin, 2018); without --warm-up
    OneCycle,
    /// Falls to 0 along half a cosine (Loshchilov and Hutter, 2016), after the warm-up
    Cosine,
    /// (1 - progress) to the power of 0.9, as in DeepLab, after the warm-up
    Poly,
    /// Constant, after the warm-up
    Constant,
}

/// Values of PyTorch's `OneCycleLR`.
const RISE: f64 = 0.3;
const START: f64 = 1.0 / 25.0;
const END: f64 = START / 1e4;
const POWER: f64 = 0.9;

impl Schedule {
    /// Returns the factor at `step` of `steps`. `warm_up` is the share of the steps in which all schedules except one-cycle
    /// rise from 0.
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

/// Interpolates between `from` and `to` along half a cosine; `progress` is 0 to 1.
fn cosine(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * progress.clamp(0.0, 1.0)).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_has_the_values_of_pytorch() {
        // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=101, pct_start=0.3): the peak is at 30 %.
        assert!((Schedule::OneCycle.factor(0, 100, 0.0) - 0.04).abs() < 1e-12);
        assert!((Schedule::OneCycle.factor(30, 100, 0.0) - 1.0).abs() < 1e-12);
        assert!((Schedule::OneCycle.factor(15, 100, 0.0) - 0.52).abs() < 1e-12);
        assert!(Schedule::OneCycle.factor(100, 100, 0.0) < 1e-5);
    }

    #[test]
    fn other_schedules_rise_first_and_end_at_zero() {
        for schedule in [Schedule::Cosine, Schedule::Poly] {
            assert!(schedule.factor(0, 100, 0.1) < 0.1);
            assert!((schedule.factor(10, 100, 0.1) - 1.0).abs() < 1e-12);
            assert!(schedule.factor(99, 100, 0.1) < 0.02);
        }
        assert_eq!(Schedule::Constant.factor(99, 100, 0.1), 1.0);
    }
}
