//! AdamW and SGD, with state that can be saved.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::net::Params;

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2017)
    Adamw,
    /// Stochastic gradient descent with Nesterov's momentum of 0.9
    Sgd,
}

/// Defaults of PyTorch.
const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;
const MOMENTUM: f64 = 0.9;

/// The state of the optimizer for one parameter.
#[derive(Debug)]
pub struct ParameterState {
    /// Number of steps of this parameter; a parameter that was frozen has fewer than others.
    pub steps: i64,
    /// Moving average of the gradient (AdamW), or the momentum (SGD).
    pub first: Tensor,
    /// Moving average of the squared gradient; AdamW only.
    pub second: Option<Tensor>,
}

/// An optimizer and its state.
#[derive(Debug)]
pub struct Optimizer {
    kind: OptimizerKind,
    weight_decay: f64,
    /// By name of the parameter.
    pub parameters: BTreeMap<String, ParameterState>,
}

impl Optimizer {
    pub fn new(kind: OptimizerKind, weight_decay: f64) -> Self {
        Optimizer { kind, weight_decay, parameters: BTreeMap::new() }
    }

    /// Updates every parameter that has a gradient, with the learning rate that `rate` returns for its name, and clears the
    /// gradients. Parameters with one dimension (biases and batch norms) have no weight decay.
    pub fn step(&mut self, params: &mut Params, rate: impl Fn(&str) -> f64) {
        tch::no_grad(|| {
            for (name, param) in &mut params.0 {
                let grad = param.grad();
                if !grad.defined() {
                    continue;
                }
                let rate = rate(name);
                let state = self.parameters.entry(name.clone()).or_insert_with(|| ParameterState {
                    steps: 0,
                    first: param.zeros_like(),
                    second: (self.kind == OptimizerKind::Adamw).then(|| param.zeros_like()),
                });
                state.steps += 1;
                let decay = if param.dim() > 1 { self.weight_decay } else { 0.0 };
                match &mut state.second {
                    Some(second) => {
                        let _ = param.g_mul_scalar_(1.0 - rate * decay);
                        let _ = state.first.lerp_(&grad, 1.0 - BETAS.0);
                        let _ = second.g_mul_scalar_(BETAS.1).addcmul_(&(&grad * (1.0 - BETAS.1)), &grad);
                        let first_bias = 1.0 - BETAS.0.powi(state.steps as i32);
                        let second_bias = 1.0 - BETAS.1.powi(state.steps as i32);
                        let deviation = second.sqrt() / second_bias.sqrt() + EPS;
                        let _ = param.addcdiv_(&(&state.first * (-rate / first_bias)), &deviation);
                    }
                    None => {
                        // The weight decay of SGD is added to the gradient, as in PyTorch.
                        let grad = &grad + &*param * decay;
                        let _ = state.first.g_mul_scalar_(MOMENTUM).g_add_(&grad);
                        let ahead = grad + &state.first * MOMENTUM;
                        let _ = param.g_sub_(&(ahead * rate));
                    }
                }
                param.zero_grad();
            }
        });
    }
}

/// Returns the norm of all gradients together. If it is larger than `limit`, the gradients are scaled down to `limit`; 0
/// means no limit.
pub fn clip(params: &Params, limit: f64) -> f64 {
    tch::no_grad(|| {
        let mut grads: Vec<Tensor> = params.0.values().map(Tensor::grad).filter(Tensor::defined).collect();
        let squares: Vec<Tensor> = grads.iter().map(|grad| grad.square().sum(Kind::Float)).collect();
        if squares.is_empty() {
            return 0.0;
        }
        let norm = Tensor::stack(&squares, 0).sum(Kind::Double).sqrt().double_value(&[]);
        if limit > 0.0 && norm > limit {
            for grad in &mut grads {
                let _ = grad.g_mul_scalar_(limit / (norm + 1e-6));
            }
        }
        norm
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: OptimizerKind, decay: f64) -> Vec<f32> {
        let weight = Tensor::from_slice(&[1f32, -2.0]).reshape([1, 2]).set_requires_grad(true);
        let mut params = Params(BTreeMap::from([("weight".to_owned(), weight)]));
        let mut optimizer = Optimizer::new(kind, decay);
        for _ in 0..3 {
            // Gradient 2 w.
            params.get("weight").square().sum(Kind::Float).backward();
            optimizer.step(&mut params, |_| 0.1);
        }
        Vec::try_from(params.get("weight").flatten(0, -1)).unwrap()
    }

    /// Compares with the published update rules, computed in double precision.
    #[test]
    fn steps_follow_the_published_update_rules() {
        let adamw = |mut w: f64, decay: f64| {
            let (mut m, mut v) = (0.0, 0.0);
            for t in 1..=3 {
                let g = 2.0 * w;
                w *= 1.0 - 0.1 * decay;
                m = 0.9 * m + 0.1 * g;
                v = 0.999 * v + 0.001 * g * g;
                let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
                w -= 0.1 * m / (v.sqrt() + 1e-8);
            }
            w as f32
        };
        let sgd = |mut w: f64, decay: f64| {
            let mut buffer = 0.0;
            for _ in 0..3 {
                let g = 2.0 * w + decay * w;
                buffer = 0.9 * buffer + g;
                w -= 0.1 * (g + 0.9 * buffer);
            }
            w as f32
        };
        for decay in [0.0, 0.01] {
            for (got, start) in run(OptimizerKind::Adamw, decay).iter().zip([1.0, -2.0]) {
                assert!((got - adamw(start, decay)).abs() < 1e-5);
            }
            for (got, start) in run(OptimizerKind::Sgd, decay).iter().zip([1.0, -2.0]) {
                assert!((got - sgd(start, decay)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn clipping_keeps_the_direction_of_the_gradient() {
        let weight = Tensor::from_slice(&[3f32, 4.0]).set_requires_grad(true);
        let params = Params(BTreeMap::from([("weight".to_owned(), weight)]));
        (params.get("weight").square().sum(Kind::Float) * 0.5).backward();
        assert!((clip(&params, 1.0) - 5.0).abs() < 1e-6);
        let grad = Vec::<f32>::try_from(params.get("weight").grad()).unwrap();
        assert!((grad[0] - 0.6).abs() < 1e-5 && (grad[1] - 0.8).abs() < 1e-5);
    }
}
