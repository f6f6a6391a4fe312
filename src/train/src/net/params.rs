//! The parameters of a network by name, and their initial values.

use std::collections::BTreeMap;

use rand::RngExt;
use tch::{Device, Kind, Tensor};

use super::{Net, Op};
use crate::random;

/// The parameters and running statistics of a network by name (see [`Net::param_specs`]).
#[derive(Debug, Default)]
pub struct Params(pub BTreeMap<String, Tensor>);

impl Params {
    /// Initial parameters: He-normal convolutions (fan out) as in torchvision, zero biases, and batch norms without effect.
    /// The same seed gives the same values.
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

    /// The tensor with this name.
    ///
    /// # Panics
    /// There is none: the parameters are not those of the network.
    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the network has a parameter named {name}"))
    }

    /// A copy that shares no memory with these parameters, without gradients.
    pub fn copied(&self) -> Self {
        Params(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect())
    }

    /// The parameters on another device.
    pub fn to_device(&self, device: Device) -> Self {
        Params(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach().to_device(device))).collect())
    }

    /// The number of learned values.
    pub fn count(&self, net: &Net) -> i64 {
        net.param_specs().iter().filter(|spec| spec.learned).map(|spec| spec.shape.iter().product::<i64>()).sum()
    }
}

/// Normally distributed values by the Box–Muller transform. The values of libtorch's own generator depend on its version.
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
