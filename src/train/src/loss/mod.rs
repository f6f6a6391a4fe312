//! The loss of the training: a weighted sum of cross-entropy, Dice and Lovász losses.

mod lovasz;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use crate::data::VOID;

/// The options of the loss.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Loss")]
pub struct LossOptions {
    /// Weight of the cross-entropy
    #[arg(long, default_value_t = 1.0, value_name = "WEIGHT")]
    pub cross_entropy: f64,
    /// Weight of the Dice loss
    #[arg(long, default_value_t = 0.5, value_name = "WEIGHT")]
    pub dice: f64,
    /// Weight of the Lovász-softmax loss, which approximates the IoU: best for thin objects and rare classes
    #[arg(long, default_value_t = 0.0, value_name = "WEIGHT")]
    pub lovasz: f64,
    /// Weights of the classes in the cross-entropy
    #[arg(long, value_enum, default_value_t = ClassWeights::Log)]
    pub class_weights: ClassWeights,
    /// Use only this share of the pixels for the cross-entropy, those with the largest loss (online hard example mining); 1
    /// uses all
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    pub hard_pixels: f64,
    /// Label smoothing of the cross-entropy
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub label_smoothing: f64,
}

/// Weights of the classes in the cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// The same weight for all classes
    None,
    /// 1 / ln(1.10 + share of the pixels) (Paszke et al., ENet, 2016)
    Log,
    /// Median of the shares / share (Eigen and Fergus, 2015)
    Median,
}

impl LossOptions {
    /// Messages about invalid options.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let weights = [self.cross_entropy, self.dice, self.lovasz];
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) || weights.iter().sum::<f64>() <= 0.0 {
            problems
                .push("--cross-entropy, --dice, --lovasz: weights must be 0 or more, and one of them above 0".into());
        }
        if !(self.hard_pixels > 0.0 && self.hard_pixels <= 1.0) {
            problems.push(format!("--hard-pixels {}: the share must be above 0 and at most 1", self.hard_pixels));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            problems
                .push(format!("--label-smoothing {}: the share must be at least 0 and below 1", self.label_smoothing));
        }
        problems
    }
}

/// The loss with the weights of the classes of a data set.
#[derive(Debug)]
pub struct Loss {
    options: LossOptions,
    class_weights: Option<Tensor>,
}

/// Prevents a division by zero for a class without pixels.
const EPSILON: f64 = 1e-6;

impl Loss {
    /// `shares` are the shares of the classes in the training pixels, 0 to 1.
    pub fn new(options: &LossOptions, shares: &[f64], device: Device) -> Self {
        let weights: Option<Vec<f32>> = match options.class_weights {
            ClassWeights::None => None,
            ClassWeights::Log => Some(shares.iter().map(|share| (1.0 / (1.10 + share).ln()) as f32).collect()),
            ClassWeights::Median => {
                let mut sorted: Vec<f64> = shares.iter().copied().filter(|&share| share > 0.0).collect();
                sorted.sort_by(f64::total_cmp);
                let median = sorted.get(sorted.len() / 2).copied().unwrap_or(1.0);
                Some(shares.iter().map(|&share| if share > 0.0 { (median / share) as f32 } else { 0.0 }).collect())
            }
        };
        let class_weights = weights.map(|weights| Tensor::from_slice(&weights).to_device(device));
        Loss { options: options.clone(), class_weights }
    }

    /// The loss of `logits` `[N, C, H, W]` for `labels` `[N, H, W]`, a scalar; zero without labelled pixels. `step` is the
    /// seed of the choice of pixels for the Lovász loss.
    pub fn compute(&self, logits: &Tensor, labels: &Tensor, step: u64) -> Tensor {
        let options = &self.options;
        let log_softmax = logits.log_softmax(1, Kind::Float);
        // −log of the probability of the labelled class: 0 for void.
        let negative_log = log_softmax.nll_loss2d(labels, None::<Tensor>, Reduction::None, i64::from(VOID));
        let mut parts = Vec::new();
        if options.cross_entropy > 0.0 {
            parts.push(self.cross_entropy(&log_softmax, &negative_log, labels) * options.cross_entropy);
        }
        if options.dice > 0.0 || options.lovasz > 0.0 {
            let probabilities = log_softmax.exp();
            if options.dice > 0.0 {
                parts.push(dice(&probabilities, &negative_log, labels) * options.dice);
            }
            if options.lovasz > 0.0 {
                parts.push(lovasz::softmax(&probabilities, labels, step) * options.lovasz);
            }
        }
        parts.into_iter().sum()
    }

    /// The divergence of the network from the probabilities of teachers: the Kullback-Leibler divergence at a temperature `T`, times
    /// `T²`, so that its gradient does not depend on `T` (Hinton et al., 2015). `logits` are `[N, C, H, W]`, `probabilities` `[N, C, h,
    /// w]` and `weights` `[N, h, w]`; the result is the mean over all pixels, in which pixels without weight count as 0.
    pub fn distillation(logits: &Tensor, probabilities: &Tensor, weights: &Tensor, temperature: f64) -> Tensor {
        let size = probabilities.size();
        let small = logits.to_kind(Kind::Float).adaptive_avg_pool2d([size[2], size[3]]);
        let own = (small / temperature).log_softmax(1, Kind::Float);
        let soft = (probabilities + EPSILON).log() / temperature;
        let soft = soft.log_softmax(1, Kind::Float);
        let divergence = (soft.exp() * (&soft - own)).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        (divergence * weights).mean(Kind::Float) * temperature * temperature
    }

    /// The cross-entropy. `negative_log` is `[N, H, W]`.
    fn cross_entropy(&self, log_softmax: &Tensor, negative_log: &Tensor, labels: &Tensor) -> Tensor {
        let valid = labels.not_equal(i64::from(VOID));
        // The divisor is the sum of the weights of the pixels, as in PyTorch's mean. Void pixels have the weight 0.
        let pixel_weights = match &self.class_weights {
            Some(weights) => weights.take(&labels.clamp(0, weights.size()[0] - 1)) * &valid,
            None => valid.to_kind(Kind::Float),
        };
        let mut loss = negative_log * &pixel_weights;
        if self.options.label_smoothing > 0.0 {
            let even = -log_softmax.mean_dim([1i64].as_slice(), false, Kind::Float) * &pixel_weights;
            loss = loss * (1.0 - self.options.label_smoothing) + even * self.options.label_smoothing;
        }
        if self.options.hard_pixels < 1.0 {
            let kept = (valid.sum(Kind::Int64).int64_value(&[]) as f64 * self.options.hard_pixels).ceil() as i64;
            let (hardest, at) = loss.flatten(0, -1).topk(kept.max(1), 0, true, false);
            let weights = pixel_weights.flatten(0, -1).index_select(0, &at);
            return hardest.sum(Kind::Float) / (weights.sum(Kind::Float) + EPSILON);
        }
        loss.sum(Kind::Float) / (pixel_weights.sum(Kind::Float) + EPSILON)
    }
}

/// One minus the Dice coefficient of a batch, averaged over the classes in its labels (Milletari et al., V-Net, 2016).
fn dice(probabilities: &Tensor, negative_log: &Tensor, labels: &Tensor) -> Tensor {
    let classes = probabilities.size()[1];
    let valid = labels.not_equal(i64::from(VOID)).to_kind(Kind::Float);
    let own = labels.clamp(0, classes - 1).flatten(0, -1);
    // 32-bit floats are not precise enough for sums of a million pixels.
    let by_class = |values: Tensor| {
        let values = values.flatten(0, -1).to_kind(Kind::Double);
        Tensor::zeros([classes], (Kind::Double, values.device())).index_add(0, &own, &values).to_kind(Kind::Float)
    };
    let common = by_class((-negative_log).exp() * &valid);
    let labelled = by_class(valid.copy());
    let predicted = probabilities.flatten(2, -1).bmm(&valid.flatten(1, -1).unsqueeze(-1)).sum_dim_intlist(
        [0i64, 2].as_slice(),
        false,
        Kind::Float,
    );
    let occurs = labelled.gt(0.0).to_kind(Kind::Float);
    let coefficient = common * 2.0 / (predicted + labelled + EPSILON);
    ((-coefficient + 1.0) * &occurs).sum(Kind::Float) / occurs.sum(Kind::Float).clamp_min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(cross_entropy: f64, dice: f64, lovasz: f64) -> LossOptions {
        LossOptions {
            cross_entropy,
            dice,
            lovasz,
            class_weights: ClassWeights::None,
            hard_pixels: 1.0,
            label_smoothing: 0.0,
        }
    }

    /// Logits and labels of three pixels and two classes. The probabilities of the labels are 0.75 and 0.5; the third pixel is
    /// void.
    fn example() -> (Tensor, Tensor) {
        let logits = Tensor::from_slice(&[3f32.ln(), 0.0, 5.0, 0.0, 0.0, -5.0]).reshape([1, 2, 1, 3]);
        let labels = Tensor::from_slice(&[0i64, 1, 255]).reshape([1, 1, 3]);
        (logits, labels)
    }

    fn value(options: &LossOptions) -> f64 {
        let (logits, labels) = example();
        Loss::new(options, &[0.5, 0.5], Device::Cpu).compute(&logits, &labels, 0).double_value(&[])
    }

    #[test]
    fn cross_entropy_is_the_mean_over_labelled_pixels() {
        let expected = -(0.75f64.ln() + 0.5f64.ln()) / 2.0;
        assert!((value(&options(1.0, 0.0, 0.0)) - expected).abs() < 1e-5);
    }

    #[test]
    fn hard_pixels_are_those_with_the_largest_loss() {
        let hard = LossOptions { hard_pixels: 0.5, ..options(1.0, 0.0, 0.0) };
        assert!((value(&hard) + 0.5f64.ln()).abs() < 1e-5);
    }

    #[test]
    fn dice_agrees_with_values_computed_by_hand() {
        // Class 0: 2·0.75 / (1.25 + 1); class 1: 2·0.5 / (0.75 + 1).
        let expected = 1.0 - (1.5 / 2.25 + 1.0 / 1.75) / 2.0;
        assert!((value(&options(0.0, 1.0, 0.0)) - expected).abs() < 1e-5);
    }

    #[test]
    fn distillation_is_the_divergence_at_the_temperature() {
        let logits = Tensor::from_slice(&[2.0f32, 2.0, 0.0, 0.0]).reshape([1, 2, 1, 2]);
        let at = |logits: &Tensor, weights: [f32; 2], temperature: f64| {
            let weights = Tensor::from_slice(&weights).reshape([1, 1, 2]);
            let teacher = Tensor::from_slice(&[0.8f32, 0.5, 0.2, 0.5]).reshape([1, 2, 1, 2]);
            Loss::distillation(logits, &teacher, &weights, temperature).double_value(&[])
        };
        // The probabilities of the network are softmax(2, 0) = 0.8808, 0.1192.
        let kl = 0.8 * (0.8f64 / 0.8808).ln() + 0.2 * (0.2f64 / 0.1192).ln();
        assert!((at(&logits, [1.0, 0.0], 1.0) - kl / 2.0).abs() < 1e-3);
        // At the temperature 2: those of the teacher are (2, 1) / 3, those of the network softmax(1, 0) = 0.7311, 0.2689.
        let kl = 2.0 / 3.0 * (2.0 / 3.0f64 / 0.7311).ln() + 1.0 / 3.0 * (1.0 / 3.0f64 / 0.2689).ln();
        assert!((at(&logits, [1.0, 0.0], 2.0) - 4.0 * kl / 2.0).abs() < 1e-3);
        let same = Tensor::from_slice(&[0.8f32, 0.5, 0.2, 0.5]).log().reshape([1, 2, 1, 2]);
        assert!(at(&same, [1.0, 1.0], 3.0).abs() < 1e-5);
    }

    #[test]
    fn class_weights_depend_on_the_shares() {
        let weighted = LossOptions { class_weights: ClassWeights::Median, ..options(1.0, 0.0, 0.0) };
        let (logits, labels) = example();
        // The upper median of the shares is 0.75, so that the weights are 1 and 3.
        let loss = Loss::new(&weighted, &[0.75, 0.25], Device::Cpu).compute(&logits, &labels, 0).double_value(&[]);
        assert!((loss + (0.75f64.ln() + 3.0 * 0.5f64.ln()) / 4.0).abs() < 1e-5, "{loss}");
    }

    #[test]
    fn a_batch_without_labelled_pixels_has_no_loss_and_no_gradient() {
        let logits = Tensor::ones([1, 2, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let labels = Tensor::full([1, 4, 4], 255, (Kind::Int64, Device::Cpu));
        let loss = Loss::new(&options(1.0, 1.0, 1.0), &[0.5, 0.5], Device::Cpu).compute(&logits, &labels, 0);
        loss.backward();
        assert_eq!(loss.double_value(&[]), 0.0);
        assert_eq!(logits.grad().abs().sum(Kind::Float).double_value(&[]), 0.0);
    }
}
