//! Calibration: the ranges that a network's values take on typical images.

use tch::{Device, Kind, Tensor};

use crate::net::{Net, Params, exec};

/// How ranges come out of what the images give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CalibrationMethod {
    /// The smallest and the largest value of all images: nothing is cut off.
    MinMax,
    /// The mean over the batches of each batch's smallest and largest value: rare outliers are cut off.
    Mean,
    /// As `Mean`, but leaving out this share of a batch's values at either end (0.0001: one in ten thousand).
    Percentile(f64),
}

/// Smallest and largest value of each node's result, by node.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges(pub Vec<(f32, f32)>);

/// At most this many values of a result are looked at for a percentile.
const SAMPLE: i64 = 1 << 13;

/// Runs `net` on batches of RGB bytes, `[N, H, W, 3]`, and notes the ranges. `None` without a batch.
pub fn calibrate(
    net: &Net,
    params: &Params,
    batches: impl Iterator<Item = Tensor>,
    calibration: CalibrationMethod,
) -> Option<Ranges> {
    let mut sums: Option<Vec<(f64, f64)>> = None;
    let mut count = 0.0;
    for batch in batches {
        let input = exec::input(&batch, &net.normalise, Device::Cpu);
        let sums = sums.get_or_insert_with(|| {
            let start =
                if calibration == CalibrationMethod::MinMax { (f64::INFINITY, f64::NEG_INFINITY) } else { (0.0, 0.0) };
            vec![start; net.nodes.len()]
        });
        tch::no_grad(|| {
            exec::visit(net, params, &input, &exec::RunOptions::EVAL, |node, value| {
                let (low, high) = extremes(value, calibration);
                let (lowest, highest) = &mut sums[node];
                match calibration {
                    CalibrationMethod::MinMax => (*lowest, *highest) = (lowest.min(low), highest.max(high)),
                    CalibrationMethod::Mean | CalibrationMethod::Percentile(_) => {
                        *lowest += low;
                        *highest += high;
                    }
                }
            });
        });
        count += 1.0;
    }
    let divisor = if calibration == CalibrationMethod::MinMax { 1.0 } else { count };
    sums.map(|sums| {
        Ranges(sums.into_iter().map(|(low, high)| ((low / divisor) as f32, (high / divisor) as f32)).collect())
    })
}

fn extremes(value: &Tensor, calibration: CalibrationMethod) -> (f64, f64) {
    let CalibrationMethod::Percentile(share) = calibration else {
        return (value.min().double_value(&[]), value.max().double_value(&[]));
    };
    let flat = value.to_kind(Kind::Float).contiguous().view([-1]);
    let count = flat.size()[0];
    // An odd step does not fall on the same channel or column each time.
    let step = (count / SAMPLE) | 1;
    let sample = flat.slice(0, 0, count, step);
    let count = sample.size()[0];
    let cut = ((count as f64 * share) as i64).min(count / 2 - 1).max(0);
    let (sorted, _) = sample.sort(0, false);
    (sorted.double_value(&[cut]), sorted.double_value(&[count - 1 - cut]))
}
