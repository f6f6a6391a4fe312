//! Uses the bytes of the image as the quantised input of a network, so that normalisation takes no time.

use tch::{Kind, Tensor};

use crate::net::{Conv, Net, Op, Order, Params};

/// A network whose input is the RGB bytes of the image, with the value `(byte - zero) × scale`.
pub struct BytesInput {
    pub net: Net,
    pub params: Params,
    pub scale: f32,
    pub zero: u8,
}

/// Largest difference between the mean of a channel and the common zero point. The difference is moved into the bias,
/// which makes an error of this size where a filter reaches over the edge of the image. Quantising the normalised image
/// would make a larger error everywhere.
const MAX_MEAN_DIFFERENCE: f32 = 0.5;

/// Moves the normalisation into the first convolutions: the order of the channels and the differences of their standard
/// deviations into the weights, the difference between mean and zero point into the biases. `net` has no batch norms.
///
/// Returns `None` if the means of the channels differ too much, or an operation other than a convolution with one group
/// uses the image.
pub fn as_bytes(net: &Net, params: &Params) -> Option<BytesInput> {
    let normalise = &net.normalise;
    let zero = normalise.mean[0].floor();
    if !(0.0..=255.0).contains(&zero) || normalise.mean.iter().any(|mean| (mean - zero).abs() > MAX_MEAN_DIFFERENCE) {
        return None;
    }
    let mut net = net.clone();
    let mut params = params.copied();
    let std = normalise.std;
    for node in &mut net.nodes {
        if !node.inputs.contains(&0) {
            continue;
        }
        let Op::Conv(conv) = node.op else { return None };
        if conv.groups != 1 {
            return None;
        }
        let weight_name = format!("{}.weight", node.name);
        let bias_name = format!("{}.bias", node.name);
        let weight = params.get(&weight_name).to_kind(Kind::Double);
        let rest: Vec<f64> = (0..3).map(|c| f64::from(zero - normalise.mean[c]) / f64::from(std[c])).collect();
        let rest = Tensor::from_slice(&rest).reshape([1, 3, 1, 1]);
        let factors: Vec<f64> = (0..3).map(|c| f64::from(std[0]) / f64::from(std[c])).collect();
        let factors = Tensor::from_slice(&factors).reshape([1, 3, 1, 1]);
        let mut bias = (&weight * rest).sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Double);
        if conv.bias {
            bias += params.get(&bias_name).to_kind(Kind::Double);
        }
        let weight = weight * factors;
        let weight = if normalise.order == Order::Bgr { weight.flip([1]) } else { weight };
        params.0.insert(weight_name, weight.to_kind(Kind::Float).contiguous());
        params.0.insert(bias_name, bias.to_kind(Kind::Float));
        node.op = Op::Conv(Conv { bias: true, ..conv });
    }
    Some(BytesInput { net, params, scale: 1.0 / std[0], zero: zero as u8 })
}
