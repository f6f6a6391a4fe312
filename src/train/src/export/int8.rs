//! Static quantisation in ONNX's QDQ form: QuantizeLinear and DequantizeLinear around every operation, which runtimes
//! replace by operations on bytes.
//!
//! For CPUs: unsigned bytes with a zero point between operations, signed bytes a channel for weights. An activation
//! behind a convolution needs no node of its own: its limits are the range of the bytes. What only moves values
//! (doubling, pooling) is written on the bytes directly.
//!
//! For TensorRT: signed bytes around zero everywhere, biases in float, weights as float with their own Q and DQ, and
//! activations kept, which TensorRT joins with their convolutions by itself.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::float;
use super::fold::uses;
use super::graph::{GraphBuilder, int, ints};
use super::ops::{self, GraphOptions};
use super::pixels::{self, BytesInput};
use super::proto::{ModelProto, TensorDataType};
use super::ranges::Ranges;
use super::sizes::{FeatureSize, sizes};
use super::weights::{self, WeightBits};
use crate::net::{Conv, Net, Node, Op, Params};

/// Who runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// ONNX Runtime's CPU provider.
    #[default]
    Cpu,
    /// TensorRT 8.5 or later.
    Tensorrt,
}

/// `value = (byte - zero point) × scale`
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quant {
    scale: f32,
    zero: u8,
}

impl Quant {
    /// The whole byte for `low` to `high`; zero has a byte of its own, for padding.
    fn asymmetric((low, high): (f32, f32)) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE * 1e6);
        Quant { scale, zero: (-low / scale).round().clamp(0.0, 255.0) as u8 }
    }

    fn symmetric((low, high): (f32, f32)) -> Self {
        Quant { scale: (low.abs().max(high.abs()) / 127.0).max(f32::MIN_POSITIVE * 1e6), zero: 0 }
    }

    fn range(self) -> (f32, f32) {
        (f32::from(self.zero) * -self.scale, (255.0 - f32::from(self.zero)) * self.scale)
    }
}

/// The network as a quantised ONNX model after the model contract, without metadata. `net` has no batch norms (see
/// [`super::fold`]); `ranges` are its own.
pub fn model(
    net: &Net,
    params: &Params,
    ranges: &Ranges,
    shape: &GraphOptions,
    target: Target,
    bits: WeightBits,
) -> ModelProto {
    let bytes = (target == Target::Cpu).then(|| pixels::as_bytes(net, params)).flatten();
    let (net, params, bytes) = match &bytes {
        Some(BytesInput { net, params, scale, zero }) => (net, params, Some(Quant { scale: *scale, zero: *zero })),
        None => (net, params, None),
    };
    let mut writer = Writer {
        b: GraphBuilder::default(),
        net,
        params,
        ranges,
        target,
        bits,
        bytes,
        fused: fused(net),
        sizes: sizes(net, shape.height, shape.width),
        values: Vec::with_capacity(net.nodes.len()),
    };
    writer.write(shape);
    writer.b.finish()
}

/// Which nodes' results nothing but an activation uses: they stay between the two.
fn fused(net: &Net) -> Vec<bool> {
    let uses = uses(net);
    let mut fused = vec![false; net.nodes.len()];
    for node in &net.nodes {
        if matches!(node.op, Op::Relu | Op::Relu6) {
            let before = node.inputs[0];
            fused[before] = uses[before] == 1 && matches!(net.nodes[before].op, Op::Conv(_) | Op::Add);
        }
    }
    fused
}

const HAS_BYTES: &str = "only what an activation alone uses has no bytes";

/// Nearest enlargement of bytes, written as copies.
///
/// ONNX Runtime keeps quantised values channels-last, where its Resize takes 2.1 ms for `[1, 72, 128, 48]` by two;
/// joining each pixel, and then each row, with itself takes 0.2 ms. The transpositions cancel out with those that the
/// runtime adds around its convolutions.
fn nearest(b: &mut GraphBuilder, node: &str, x: &str, size: FeatureSize, factor: i64) -> String {
    let FeatureSize { channels, height, width } = size;
    let name = |step: &str| format!("{node}.{step}");
    let last = b.node("Transpose", &[x], name("last"), vec![ints("perm", &[0, 2, 3, 1])]);
    let copies = vec![last.as_str(); factor as usize];
    let wide = b.node("Concat", &copies, name("wide"), vec![int("axis", 3)]);
    let rows = b.int64s(name("rows.shape"), &[-1, height, factor * width * channels]);
    let rows = b.node("Reshape", &[&wide, &rows], name("rows"), Vec::new());
    let copies = vec![rows.as_str(); factor as usize];
    let high = b.node("Concat", &copies, name("high"), vec![int("axis", 2)]);
    let full = b.int64s(name("full.shape"), &[-1, factor * height, factor * width, channels]);
    let full = b.node("Reshape", &[&high, &full], name("full"), Vec::new());
    b.node("Transpose", &[&full], node, vec![ints("perm", &[0, 3, 1, 2])])
}

/// Where a node's result is found.
struct QuantisedResult {
    /// The bytes' name and meaning; none of a fused node.
    bytes: Option<(String, Quant)>,
    /// The name as floats, once something wants it so.
    float: Option<String>,
}

struct Writer<'a> {
    b: GraphBuilder,
    net: &'a Net,
    params: &'a Params,
    ranges: &'a Ranges,
    target: Target,
    bits: WeightBits,
    /// What the image's own bytes mean, where they can be used as they are.
    bytes: Option<Quant>,
    fused: Vec<bool>,
    sizes: Vec<FeatureSize>,
    values: Vec<QuantisedResult>,
}

impl Writer<'_> {
    fn write(&mut self, shape: &GraphOptions) {
        let planes = ops::image(&mut self.b, shape);
        let (small, factor) = ops::small_logits(self.net);
        let decides_small = ops::decides_small(self.net, shape);
        for index in 0..self.net.nodes.len() {
            // On a CPU, the decision has an enlargement of its own.
            let skipped = index == self.net.logits
                && index != small
                && !shape.logits
                && (decides_small || self.target == Target::Cpu);
            let value = if skipped { QuantisedResult { bytes: None, float: None } } else { self.node(index, &planes) };
            self.values.push(value);
        }
        if self.target == Target::Cpu {
            self.decide_on_cpu(shape, small, if decides_small { factor / 2 } else { factor }, decides_small);
        } else if decides_small {
            let float = self.float(small);
            let half = ops::half_size(&mut self.b, &float, factor);
            ops::mask(&mut self.b, shape, &half, 1, true);
        } else {
            let logits = self.float(self.net.logits);
            ops::mask(&mut self.b, shape, &logits, 1, false);
        }
        if shape.confidence {
            let float = self.float(small);
            let half = ops::half_size(&mut self.b, &float, factor);
            ops::confidence(&mut self.b, shape, &half);
        }
        if shape.logits {
            let float = self.float(self.net.logits);
            self.b.node("Identity", &[&float], ops::LOGITS, Vec::new());
            self.b.output(ops::LOGITS, TensorDataType::Float, &[-1, self.net.classes(), shape.height, shape.width]);
        }
    }

    /// The mask from the bytes of logits that are still to be enlarged by `factor`: channels last, as ONNX Runtime
    /// keeps them, so that nothing is transposed; as floats, which its Resize and ArgMax take in 3.7 ms where bytes
    /// take 12 (`[1, 144, 256, 11]` by two).
    fn decide_on_cpu(&mut self, shape: &GraphOptions, small: usize, factor: i64, decides_small: bool) {
        let (bytes, quant) = self.values[small].bytes.clone().expect(HAS_BYTES);
        let name = self.net.nodes[small].name.clone();
        let last = vec![ints("perm", &[0, 2, 3, 1])];
        let last = self.b.node("Transpose", &[&bytes], "mask.bytes", last);
        let (scale, zero) = self.constants(&name, quant);
        let mut logits = self.b.node("DequantizeLinear", &[&last, &scale, &zero], "mask.logits", Vec::new());
        if factor > 1 {
            logits = ops::resize_last(&mut self.b, factor, &logits, "mask.enlarged");
        }
        ops::mask(&mut self.b, shape, &logits, 3, decides_small);
    }

    fn node(&mut self, index: usize, planes: &str) -> QuantisedResult {
        let net = self.net;
        let node = &net.nodes[index];
        match node.op {
            Op::Input => {
                if let Some(quant) = self.bytes {
                    return QuantisedResult { bytes: Some((planes.to_owned(), quant)), float: None };
                }
                let float = ops::normalised(&mut self.b, &net.normalise, planes);
                self.quantised(node, &float, self.quant(self.ranges.0[index]))
            }
            // Floats are interpolated faster than bytes.
            Op::Bilinear { .. } => {
                let float = self.float(node.inputs[0]);
                let float = float::operation(&mut self.b, node, self.params, &[&float]);
                if index == net.logits {
                    return QuantisedResult { bytes: None, float: Some(float) };
                }
                let (_, quant) = self.values[node.inputs[0]].bytes.clone().expect(HAS_BYTES);
                self.quantised(node, &float, quant)
            }
            Op::Nearest { .. } | Op::MaxPool { .. } => self.moved(node, self.sizes[node.inputs[0]]),
            Op::Concat => {
                let range = node.inputs.iter().filter_map(|&input| self.range_of(input));
                let range = range.fold((0.0, 0.0), |all: (f32, f32), one| (all.0.min(one.0), all.1.max(one.1)));
                self.computed(index, self.quant(range))
            }
            Op::Relu | Op::Relu6 => {
                let (_, high) = self.ranges.0[index];
                let quant = self.quant((0.0, high));
                let implied = match node.op {
                    Op::Relu6 => quant.range().1 <= 6.0 * (1.0 + 1e-6),
                    _ => true,
                };
                if self.target == Target::Cpu && implied {
                    let float = self.float(node.inputs[0]);
                    return self.quantised(node, &float, quant);
                }
                self.computed(index, quant)
            }
            _ => self.computed(index, self.quant(self.ranges.0[index])),
        }
    }

    fn quant(&self, range: (f32, f32)) -> Quant {
        match self.target {
            Target::Cpu => Quant::asymmetric(range),
            Target::Tensorrt => Quant::symmetric(range),
        }
    }

    /// The range that a node's bytes can show.
    fn range_of(&self, index: usize) -> Option<(f32, f32)> {
        let (_, quant) = self.values[index].bytes.as_ref()?;
        Some(match self.target {
            Target::Cpu => quant.range(),
            Target::Tensorrt => (-127.0 * quant.scale, 127.0 * quant.scale),
        })
    }

    /// A node that computes: on floats, between DequantizeLinear and QuantizeLinear.
    fn computed(&mut self, index: usize, quant: Quant) -> QuantisedResult {
        let net = self.net;
        let node = &net.nodes[index];
        let inputs: Vec<String> = node.inputs.iter().map(|&input| self.float(input)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let float = match node.op {
            Op::Conv(conv) => self.conv(node, &conv, inputs[0]),
            _ => float::operation(&mut self.b, node, self.params, &inputs),
        };
        if self.fused[index] {
            QuantisedResult { bytes: None, float: Some(float) }
        } else {
            self.quantised(node, &float, quant)
        }
    }

    /// A node that moves values: what they mean stays.
    fn moved(&mut self, node: &Node, size: FeatureSize) -> QuantisedResult {
        let before = node.inputs[0];
        let (name, quant) = self.values[before].bytes.clone().expect(HAS_BYTES);
        if self.target == Target::Cpu {
            let bytes = match node.op {
                Op::Nearest { factor } => nearest(&mut self.b, &node.name, &name, size, factor),
                _ => float::operation(&mut self.b, node, self.params, &[&name]),
            };
            return QuantisedResult { bytes: Some((bytes, quant)), float: None };
        }
        let float = self.float(before);
        let moved = float::operation(&mut self.b, node, self.params, &[&float]);
        self.quantised(node, &moved, quant)
    }

    /// Floats to bytes.
    fn quantised(&mut self, node: &Node, float: &str, quant: Quant) -> QuantisedResult {
        let (scale, zero) = self.constants(&node.name, quant);
        let bytes = self.b.node("QuantizeLinear", &[float, &scale, &zero], format!("{}.bytes", node.name), Vec::new());
        QuantisedResult { bytes: Some((bytes, quant)), float: None }
    }

    fn constants(&mut self, name: &str, quant: Quant) -> (String, String) {
        let scale = self.b.floats(format!("{name}.scale"), &[], &[quant.scale]);
        let zero = match self.target {
            Target::Cpu => self.b.byte(format!("{name}.zero"), quant.zero),
            Target::Tensorrt => self.b.int8s("zero", &[], &[0]),
        };
        (scale, zero)
    }

    /// A node's result as floats.
    fn float(&mut self, index: usize) -> String {
        if let Some(float) = &self.values[index].float {
            return float.clone();
        }
        let net = self.net;
        let name = &net.nodes[index].name;
        let (bytes, quant) = self.values[index].bytes.clone().expect("a result is bytes or floats");
        let (scale, zero) = self.constants(name, quant);
        let float = self.b.node("DequantizeLinear", &[&bytes, &scale, &zero], format!("{name}.float"), Vec::new());
        self.values[index].float = Some(float.clone());
        float
    }

    fn conv(&mut self, node: &Node, conv: &Conv, x: &str) -> String {
        let name = &node.name;
        let weight = float::values(self.params.get(&format!("{name}.weight")));
        let bias = conv.bias.then(|| float::values(self.params.get(&format!("{name}.bias"))));
        let input = self.values[node.inputs[0]].bytes.as_ref().map(|(_, quant)| quant.scale);
        let input = input.expect("a convolution's input is bytes");
        let outputs = conv.outputs as usize;
        let axis = || vec![int("axis", 0)];
        // A constant that convolutions shared would trip ONNX Runtime where it rewrites weights as unsigned bytes.
        let zeros = self.b.int8s(format!("{name}.weight.zero"), &[conv.outputs], &vec![0; outputs]);
        let mut inputs = vec![x.to_owned()];
        // The bias in units of both scales has to fit in 32 bits even where a channel's weights are all but nothing.
        let smallest = |output: usize| match (&bias, self.target) {
            (Some(bias), Target::Cpu) => bias[output].abs() / input / (1 << 30) as f32,
            _ => 0.0,
        };
        let quantised = weights::quantise(conv, &weight, self.bits, smallest);
        let scales = self.b.floats(format!("{name}.weight.scale"), &[conv.outputs], &quantised.scales);
        let stored = match self.target {
            Target::Cpu => self.b.int8s(format!("{name}.weight.bytes"), &conv.weight_shape(), &quantised.bytes),
            Target::Tensorrt => {
                let float = self.b.floats(format!("{name}.weight"), &conv.weight_shape(), &weight);
                self.b.node("QuantizeLinear", &[&float, &scales, &zeros], format!("{name}.weight.bytes"), axis())
            }
        };
        let float = format!("{name}.weight.float");
        inputs.push(self.b.node("DequantizeLinear", &[&stored, &scales, &zeros], float, axis()));
        if let Some(bias) = bias {
            inputs.push(match self.target {
                Target::Cpu => self.bias(name, &bias, input, &quantised.scales),
                Target::Tensorrt => self.b.floats(format!("{name}.bias"), &[conv.outputs], &bias),
            });
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.b.node("Conv", &inputs, name, ops::conv_attributes(conv))
    }

    /// A bias in 32 bits, in units of the sums that it is added to.
    fn bias(&mut self, name: &str, bias: &[f32], input: f32, weights: &[f32]) -> String {
        let scales: Vec<f32> = weights.iter().map(|scale| scale * input).collect();
        let values: Vec<i32> = bias
            .iter()
            .zip(&scales)
            .map(|(&bias, &scale)| (f64::from(bias) / f64::from(scale)).round() as i32)
            .collect();
        let values = self.b.int32s(format!("{name}.bias.sums"), &values);
        let scales = self.b.floats(format!("{name}.bias.scale"), &[bias.len() as i64], &scales);
        let zeros = self.b.int32s(format!("{name}.bias.zero"), &vec![0; bias.len()]);
        let axis = vec![int("axis", 0)];
        self.b.node("DequantizeLinear", &[&values, &scales, &zeros], format!("{name}.bias.float"), axis)
    }
}
