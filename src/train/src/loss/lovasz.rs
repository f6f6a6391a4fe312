//! The Lovász-softmax loss (Berman, Triki and Blaschko, 2018): a convex extension of one minus the IoU.

use rand::RngExt;
use tch::{Kind, Tensor};

use crate::data::VOID;
use crate::random;

/// The purpose of the random numbers.
const GRID: u64 = 3;

/// The distance of the pixels that are used, across and down. Sorting all pixels for each class would take a fifth of the time
/// of a step. A grid with a random offset in each step has the same expected value.
const SPACING: i64 = 2;

/// The loss of a batch, averaged over the classes in its labels; zero without labelled pixels. `probabilities` are
/// `[N, C, H, W]`, `labels` are `[N, H, W]`. `step` is the seed of the offset of the grid.
pub fn softmax(probabilities: &Tensor, labels: &Tensor, step: u64) -> Tensor {
    let mut rng = random::generator(step, &[GRID]);
    let (down, across) = (rng.random_range(0..SPACING), rng.random_range(0..SPACING));
    let (height, width) = (labels.size()[1], labels.size()[2]);
    // In an image with a single row or column, the offset is 0.
    let (down, across) = (down.min(height - 1), across.min(width - 1));
    let labels = labels.slice(1, down, height, SPACING).slice(2, across, width, SPACING).flatten(0, -1);
    let probabilities = probabilities.slice(2, down, height, SPACING).slice(3, across, width, SPACING);
    let classes = probabilities.size()[1];
    let probabilities = probabilities.permute([1, 0, 2, 3]).reshape([classes, -1]);
    let labelled = labels.not_equal(i64::from(VOID)).nonzero().squeeze_dim(1);
    let labels = labels.index_select(0, &labelled);
    let probabilities = probabilities.index_select(1, &labelled);

    let mut losses = Vec::new();
    for class in 0..classes {
        let truth = labels.eq(class).to_kind(Kind::Float);
        if truth.sum(Kind::Float).double_value(&[]) == 0.0 {
            continue;
        }
        let errors = (&truth - probabilities.get(class)).abs();
        let (errors, order) = errors.sort_stable(true, 0, true);
        let weights = tch::no_grad(|| gradient(&truth.index_select(0, &order)));
        losses.push((errors * weights).sum(Kind::Float));
    }
    if losses.is_empty() {
        return probabilities.sum(Kind::Float) * 0.0;
    }
    Tensor::stack(&losses, 0).mean(Kind::Float)
}

/// The gradient of the Lovász extension of the Jaccard loss, for labels (0 or 1) sorted by descending errors: algorithm 1 of
/// the paper.
fn gradient(truth: &Tensor) -> Tensor {
    let positives = truth.sum(Kind::Float);
    // 32-bit floats can count to 2^24, more pixels than a batch has.
    let intersection = &positives - truth.cumsum(0, Kind::Float);
    let union = &positives + (-truth + 1.0).cumsum(0, Kind::Float);
    let jaccard = -(intersection / union) + 1.0;
    let count = jaccard.size()[0];
    let rises = jaccard.slice(0, 1, count, 1) - jaccard.slice(0, 0, count - 1, 1);
    Tensor::cat(&[jaccard.slice(0, 0, 1, 1), rises], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_certain_predictions_is_one_minus_the_iou() {
        // Each row has a single class, so that the result does not depend on the offset of the grid.
        let labels = Tensor::zeros([1, 8, 8], (Kind::Int64, tch::Device::Cpu));
        let _ = labels.slice(1, 0, 4, 1).fill_(1);
        let mask = Tensor::zeros([1, 8, 8], (Kind::Int64, tch::Device::Cpu));
        let _ = mask.slice(1, 0, 2, 1).fill_(1);
        let probabilities = mask.one_hot(2).permute([0, 3, 1, 2]).to_kind(Kind::Float);
        // Class 1: 2 of 4 rows found, IoU 1/2; class 0: 4 rows of 6, IoU 2/3.
        let loss = softmax(&probabilities, &labels, 5).double_value(&[]);
        assert!((loss - (0.5 + 1.0 / 3.0) / 2.0).abs() < 1e-5, "{loss}");
    }

    #[test]
    fn the_gradient_agrees_with_values_computed_by_hand() {
        // The labels 1, 0, 1 have the Jaccard losses 1/2, 2/3, 1.
        let gradient = gradient(&Tensor::from_slice(&[1f32, 0.0, 1.0]));
        let values = Vec::<f32>::try_from(gradient).unwrap();
        for (value, expected) in values.iter().zip([0.5, 1.0 / 6.0, 1.0 / 3.0]) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }
}
