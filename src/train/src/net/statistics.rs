//! The statistics of batch norms.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::exec::{self, RunOptions};
use super::{Net, Op, Params};

/// Sums of the inputs of a batch norm, for each channel, and of their squares, and the number of values in a sum.
struct Sums {
    values: Tensor,
    squares: Tensor,
    count: f64,
}

/// Sets the running statistics of all batch norms to those of `inputs` (results of [`exec::input`]). Their factors and offsets are
/// changed so that the results of the network with these statistics stay the same. A network whose batch norms were folded can be
/// trained with the statistics of batches afterwards.
pub fn estimate(net: &Net, params: &mut Params, inputs: impl Iterator<Item = Tensor>) {
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    tch::no_grad(|| {
        for input in inputs {
            // The batch norms after each node.
            let mut after: Vec<Vec<&str>> = vec![Vec::new(); net.nodes.len()];
            for node in net.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })) {
                after[node.inputs[0]].push(&node.name);
            }
            exec::visit(net, params, &input, &RunOptions::EVAL, |index, value| {
                for &name in &after[index] {
                    let value = value.to_kind(Kind::Double);
                    let axes = [0i64, 2, 3];
                    let values = value.sum_dim_intlist(axes.as_slice(), false, Kind::Double);
                    let squares = value.square().sum_dim_intlist(axes.as_slice(), false, Kind::Double);
                    let count = (value.numel() as i64 / value.size()[1]) as f64;
                    match sums.get_mut(name) {
                        Some(sum) => {
                            sum.values += values;
                            sum.squares += squares;
                            sum.count += count;
                        }
                        None => {
                            sums.insert(name.to_owned(), Sums { values, squares, count });
                        }
                    }
                }
            });
        }
        for node in &net.nodes {
            let Op::BatchNorm { eps, .. } = node.op else { continue };
            let Some(Sums { values, squares, count }) = sums.remove(&node.name) else { continue };
            let old = |suffix: &str| params.get(&format!("{}.{suffix}", node.name)).detach().to_kind(Kind::Double);
            let factor = old("weight") / (old("running_var") + eps).sqrt();
            let offset = old("bias") - old("running_mean") * &factor;
            let mean = values / count;
            // A channel without variance, which may be one of zeros, keeps a usable factor.
            let variance = (squares / count - mean.square()).clamp_min(eps);
            let new = [
                ("weight", &factor * (&variance + eps).sqrt()),
                ("bias", offset + &mean * &factor),
                ("running_mean", mean),
                ("running_var", variance),
            ];
            for (suffix, tensor) in new {
                params.0.insert(format!("{}.{suffix}", node.name), tensor.to_kind(Kind::Float));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::encoders::Encoder;
    use crate::net::decoder::{Decoder, DecoderKind};

    #[test]
    fn statistics_of_images_do_not_change_the_results_and_are_those_of_a_batch() {
        let decoder = Decoder { kind: DecoderKind::Dense, widths: vec![8, 8] };
        let net = Encoder::MobilenetV2.unet(&decoder, 3).unwrap();
        let mut params = Params::fresh(&net, 1);
        tch::manual_seed(1);
        let image = || Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let (first, second) = (image(), image());
        let run = |params: &Params, batch: bool| {
            let statistics = |_: &crate::net::Node| batch;
            let options = RunOptions { batch_statistics: &statistics, precision: Kind::Float };
            tch::no_grad(|| exec::forward(&net, params, &first, &options))
        };
        let before = run(&params, false);
        estimate(&net, &mut params, [first.copy(), second].into_iter());
        let after = run(&params, false);
        let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        assert!(largest(&(&after - &before)) <= 1e-3 * largest(&before), "the results changed");
        // With the statistics of one batch alone, normalisation by that batch changes nothing either.
        estimate(&net, &mut params, [first.copy()].into_iter());
        let mut copy = params.copied();
        let batch = run(&mut copy, true);
        assert!(largest(&(&batch - &before)) <= 1e-2 * largest(&before), "{}", largest(&(&batch - &before)));
    }
}
