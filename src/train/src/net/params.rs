//! Parameters by name, and how they begin.

use std::collections::BTreeMap;

use rand::RngExt;
use tch::{Device, Kind, Tensor};

use super::{Net, Op};
use crate::random;

/// A network's parameters and running statistics by name (see [`Net::param_specs`]).
#[derive(Debug, Default)]
pub struct Params(pub BTreeMap<String, Tensor>);

impl Params {
    /// Fresh parameters: He-normal (fan out) convolutions as torchvision has them, zero biases, batch norms that do
    /// nothing. A head starts small, so that the first losses are those of an undecided network. The same seed gives
    /// the same numbers.
    pub fn fresh(net: &Net, seed: u64) -> Self {
        let mut params = BTreeMap::new();
        for node in &net.nodes {
            let mut put = |suffix: &str, tensor: Tensor| params.insert(format!("{}.{suffix}", node.name), tensor);
            match node.op {
                Op::Conv(conv) => {
                    let fan_out = conv.outputs / conv.groups * conv.kernel * conv.kernel;
                    let std = (2.0 / fan_out as f64).sqrt();
                    put("weight", normal(&conv.weight_shape(), std, random::named_generator(seed, &node.name)));
                    if conv.bias {
                        put("bias", Tensor::zeros([conv.outputs], (Kind::Float, Device::Cpu)));
                    }
                }
                Op::BatchNorm { channels, .. } => {
                    for (suffix, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
                    {
                        put(suffix, Tensor::full([channels], value, (Kind::Float, Device::Cpu)));
                    }
                }
                _ => {}
            }
        }
        Params(params)
    }

    /// The tensor of that name.
    ///
    /// # Panics
    /// If there is none: parameters and network were made for each other.
    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the network has a parameter named {name}"))
    }

    /// A copy with memory of its own, without gradients.
    pub fn copied(&self) -> Self {
        Params(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect())
    }

    /// The same numbers on another device.
    pub fn to_device(&self, device: Device) -> Self {
        Params(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach().to_device(device))).collect())
    }

    /// Number of learned parameters.
    pub fn count(&self, net: &Net) -> i64 {
        net.param_specs().iter().filter(|shape| shape.learned).map(|shape| shape.shape.iter().product::<i64>()).sum()
    }
}

/// Normally distributed numbers by the Box–Muller transform, from our own generator: libtorch's would tie the result
/// to its version.
fn normal(shape: &[i64], std: f64, mut rng: random::Rng) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * std;
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    Tensor::from_slice(&values).reshape(shape)
}
