//! Calibration for int8: measures the range of the values of each node on typical images.

use tch::{Device, Kind, Tensor};

use crate::net::{Net, Params, exec};

/// How ranges are computed from batches of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CalibrationMethod {
    /// The smallest and the largest value of all images. No value is clipped.
    MinMax,
    /// The mean, over batches, of the smallest and of the largest value of each batch. Rare outliers are clipped.
    Mean,
    /// As `Mean`, but without this share of the smallest and of the largest values of a batch (0.0001: one in ten
    /// thousand).
    Percentile(f64),
}

/// The smallest and the largest value of the result of each node, by node.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges(pub Vec<(f32, f32)>);

/// A percentile is computed from at most about this many values of a result.
const SAMPLE: i64 = 1 << 13;

/// Runs `net` on batches of RGB images, bytes `[N, H, W, 3]`, and measures the ranges. `None` without a batch.
pub fn calibrate(
    net: &Net,
    params: &Params,
    batches: impl Iterator<Item = Tensor>,
    method: CalibrationMethod,
) -> Option<Ranges> {
    let mut sums: Option<Vec<(f64, f64)>> = None;
    let mut count = 0.0;
    for batch in batches {
        let input = exec::input(&batch, &net.normalise, Device::Cpu);
        let sums = sums.get_or_insert_with(|| {
            let start =
                if method == CalibrationMethod::MinMax { (f64::INFINITY, f64::NEG_INFINITY) } else { (0.0, 0.0) };
            vec![start; net.nodes.len()]
        });
        tch::no_grad(|| {
            exec::visit(net, params, &input, &exec::RunOptions::EVAL, |node, value| {
                let (low, high) = extremes(value, method);
                let (lowest, highest) = &mut sums[node];
                match method {
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
    let divisor = if method == CalibrationMethod::MinMax { 1.0 } else { count };
    sums.map(|sums| {
        Ranges(sums.into_iter().map(|(low, high)| ((low / divisor) as f32, (high / divisor) as f32)).collect())
    })
}

/// The range of one result.
fn extremes(value: &Tensor, method: CalibrationMethod) -> (f64, f64) {
    let CalibrationMethod::Percentile(share) = method else {
        return (value.min().double_value(&[]), value.max().double_value(&[]));
    };
    let flat = value.to_kind(Kind::Float).contiguous().view([-1]);
    let count = flat.size()[0];
    // An even step would sample the same columns of each row, because widths are even.
    let step = (count / SAMPLE) | 1;
    let sample = flat.slice(0, 0, count, step);
    let count = sample.size()[0];
    let cut = ((count as f64 * share) as i64).min(count / 2 - 1).max(0);
    let (sorted, _) = sample.sort(0, false);
    (sorted.double_value(&[cut]), sorted.double_value(&[count - 1 - cut]))
}
