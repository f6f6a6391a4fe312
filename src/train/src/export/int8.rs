//! Static quantisation in ONNX's QDQ format: QuantizeLinear and DequantizeLinear around every operation. The runtime
//! replaces them by operations on bytes.
//!
//! For CPUs, results are unsigned bytes with a zero point, and weights are signed bytes with a scale for each channel. The
//! activation after a convolution has no node: its limits are the range of the bytes. Operations that only move values
//! (nearest enlargement, pooling) are written on the bytes.
//!
//! For TensorRT, results and weights are signed bytes without a zero point. Weights are stored as floats with their own
//! QuantizeLinear and DequantizeLinear, biases as floats. Activations are nodes, which TensorRT fuses with the convolutions.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::float;
use super::fold::uses;
use super::graph::{GraphBuilder, int, ints};
use super::ops::{self, GraphOptions};
use super::pixels::{self, BytesInput};
use super::proto::{ModelProto, TensorDataType};
use super::ranges::Ranges;
use super::sizes::{FeatureSize, feature_sizes};
use super::weights::{self, WeightBits};
use crate::net::{Conv, Net, Node, Op, Params};

/// The runtime of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The CPU provider of ONNX Runtime.
    #[default]
    Cpu,
    /// TensorRT 8.5 or later.
    Tensorrt,
}

/// The meaning of a byte: `value = (byte - zero) × scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quantisation {
    scale: f32,
    /// The zero point.
    zero: u8,
}

impl Quantisation {
    /// Unsigned bytes for `low` to `high`. Zero, which padding needs, is exact.
    fn asymmetric((low, high): (f32, f32)) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE * 1e6);
        Quantisation { scale, zero: (-low / scale).round().clamp(0.0, 255.0) as u8 }
    }

    /// Signed bytes for `low` to `high`, with the zero point 0.
    fn symmetric((low, high): (f32, f32)) -> Self {
        Quantisation { scale: (low.abs().max(high.abs()) / 127.0).max(f32::MIN_POSITIVE * 1e6), zero: 0 }
    }

    /// The range of unsigned bytes.
    fn range(self) -> (f32, f32) {
        (f32::from(self.zero) * -self.scale, (255.0 - f32::from(self.zero)) * self.scale)
    }
}

/// The network as a quantised ONNX model, without metadata. `net` has no batch norms (see [`super::fold`]), and `ranges` were
/// measured with it.
pub fn model(
    net: &Net,
    params: &Params,
    ranges: &Ranges,
    options: &GraphOptions,
    target: Target,
    bits: WeightBits,
) -> ModelProto {
    let bytes_input = (target == Target::Cpu).then(|| pixels::as_bytes(net, params)).flatten();
    let (net, params, input) = match &bytes_input {
        Some(BytesInput { net, params, scale, zero }) => {
            (net, params, Some(Quantisation { scale: *scale, zero: *zero }))
        }
        None => (net, params, None),
    };
    let mut writer = QdqWriter {
        b: GraphBuilder::default(),
        net,
        params,
        ranges,
        target,
        bits,
        input,
        fused: fused(net),
        sizes: feature_sizes(net, options.height, options.width),
        values: Vec::with_capacity(net.nodes.len()),
    };
    writer.write(options);
    writer.b.finish()
}

/// Nodes whose result is used only by an activation. They are not quantised: the activation is.
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

const HAS_BYTES: &str = "every result is quantised, except one that only an activation uses";

/// Nearest enlargement of bytes by concatenation.
///
/// ONNX Runtime keeps quantised values channels-last, where its Resize takes 2.1 ms for `[1, 72, 128, 48]` by two.
/// Concatenating each pixel, and then each row, with itself takes 0.2 ms. The transpositions cancel out with those that
/// the runtime adds around its convolutions.
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

/// The values that hold the result of a node.
struct NodeResult {
    /// The name of the bytes and their meaning; `None` for a fused node.
    bytes: Option<(String, Quantisation)>,
    /// The name of the floats, if an operation needed them.
    float: Option<String>,
}

/// Writes a quantised graph.
struct QdqWriter<'a> {
    b: GraphBuilder,
    net: &'a Net,
    params: &'a Params,
    ranges: &'a Ranges,
    target: Target,
    bits: WeightBits,
    /// The meaning of the bytes of the image, if they are used without normalisation.
    input: Option<Quantisation>,
    fused: Vec<bool>,
    sizes: Vec<FeatureSize>,
    values: Vec<NodeResult>,
}

impl QdqWriter<'_> {
    fn write(&mut self, options: &GraphOptions) {
        let planes = ops::image(&mut self.b, options);
        let (small, factor) = ops::small_logits(self.net);
        let decides_small = ops::decides_small(self.net, options);
        for index in 0..self.net.nodes.len() {
            // On a CPU, `mask_on_cpu` enlarges the logits.
            let skipped = index == self.net.logits
                && index != small
                && !options.logits
                && (decides_small || self.target == Target::Cpu);
            let value = if skipped { NodeResult { bytes: None, float: None } } else { self.node(index, &planes) };
            self.values.push(value);
        }
        if self.target == Target::Cpu {
            self.mask_on_cpu(options, small, if decides_small { factor / 2 } else { factor }, decides_small);
        } else if decides_small {
            let float = self.float(small);
            let half = ops::half_size(&mut self.b, &float, factor);
            let half = ops::rejected(&mut self.b, options, &half, self.net.classes());
            ops::mask(&mut self.b, options, &half, 1, true);
        } else {
            let logits = self.float(self.net.logits);
            let logits = ops::rejected(&mut self.b, options, &logits, self.net.classes());
            ops::mask(&mut self.b, options, &logits, 1, false);
        }
        if options.scores && self.target != Target::Cpu {
            let float = self.float(small);
            ops::scores(&mut self.b, options, &float, factor, 1, self.net.classes());
        }
        if options.confidence {
            let float = self.float(small);
            let half = ops::half_size(&mut self.b, &float, factor);
            ops::confidence(&mut self.b, options, &half);
        }
        if options.logits {
            let float = self.float(self.net.logits);
            self.b.node("Identity", &[&float], ops::LOGITS, Vec::new());
            self.b.output(ops::LOGITS, TensorDataType::Float, &[-1, self.net.classes(), options.height, options.width]);
        }
    }

    /// Adds the output `mask`, made of the bytes of the logits `small`, enlarged by `factor`. The logits are channels-last,
    /// as ONNX Runtime keeps them, which saves a transposition. They are floats, because Resize and ArgMax take 3.7 ms for
    /// floats and 12 ms for bytes (`[1, 144, 256, 11]` by two).
    fn mask_on_cpu(&mut self, options: &GraphOptions, small: usize, factor: i64, decides_small: bool) {
        let (bytes, quantisation) = self.values[small].bytes.clone().expect(HAS_BYTES);
        let name = self.net.nodes[small].name.clone();
        let last = vec![ints("perm", &[0, 2, 3, 1])];
        let last = self.b.node("Transpose", &[&bytes], "mask.bytes", last);
        let (scale, zero) = self.constants(&name, quantisation);
        let mut logits = self.b.node("DequantizeLinear", &[&last, &scale, &zero], "mask.logits", Vec::new());
        if options.scores {
            let factor = ops::small_logits(self.net).1;
            ops::scores(&mut self.b, options, &logits, factor, 3, self.net.classes());
        }
        let FeatureSize { channels, height, width } = self.sizes[small];
        logits = ops::rejected_last(&mut self.b, options, &logits, [height, width, channels]);
        if factor > 1 {
            logits = ops::resize_last(&mut self.b, factor, &logits, "mask.enlarged");
        }
        ops::mask(&mut self.b, options, &logits, 3, decides_small);
    }

    fn node(&mut self, index: usize, planes: &str) -> NodeResult {
        let net = self.net;
        let node = &net.nodes[index];
        match node.op {
            Op::Input => {
                if let Some(quantisation) = self.input {
                    return NodeResult { bytes: Some((planes.to_owned(), quantisation)), float: None };
                }
                let float = ops::normalised(&mut self.b, &net.normalise, planes);
                self.quantised(node, &float, self.quantisation(self.ranges.0[index]))
            }
            // ONNX Runtime interpolates floats faster than bytes.
            Op::Bilinear { .. } => {
                let float = self.float(node.inputs[0]);
                let float = float::operation(&mut self.b, node, self.params, &[&float]);
                if index == net.logits {
                    return NodeResult { bytes: None, float: Some(float) };
                }
                let (_, quantisation) = self.values[node.inputs[0]].bytes.clone().expect(HAS_BYTES);
                self.quantised(node, &float, quantisation)
            }
            Op::Nearest { .. } | Op::MaxPool { .. } => self.moved(node, self.sizes[node.inputs[0]]),
            Op::Concat => {
                let range = node.inputs.iter().filter_map(|&input| self.range_of(input));
                let range = range.fold((0.0, 0.0), |all: (f32, f32), one| (all.0.min(one.0), all.1.max(one.1)));
                self.computed(index, self.quantisation(range))
            }
            Op::Relu | Op::Relu6 => {
                let (_, high) = self.ranges.0[index];
                let quantisation = self.quantisation((0.0, high));
                // Whether the range of the bytes has the limits of the activation.
                let implied = match node.op {
                    Op::Relu6 => quantisation.range().1 <= 6.0 * (1.0 + 1e-6),
                    _ => true,
                };
                if self.target == Target::Cpu && implied {
                    let float = self.float(node.inputs[0]);
                    return self.quantised(node, &float, quantisation);
                }
                self.computed(index, quantisation)
            }
            _ => self.computed(index, self.quantisation(self.ranges.0[index])),
        }
    }

    /// The quantisation for values of a range.
    fn quantisation(&self, range: (f32, f32)) -> Quantisation {
        match self.target {
            Target::Cpu => Quantisation::asymmetric(range),
            Target::Tensorrt => Quantisation::symmetric(range),
        }
    }

    /// The range of the bytes of a node.
    fn range_of(&self, index: usize) -> Option<(f32, f32)> {
        let (_, quantisation) = self.values[index].bytes.as_ref()?;
        Some(match self.target {
            Target::Cpu => quantisation.range(),
            Target::Tensorrt => (-127.0 * quantisation.scale, 127.0 * quantisation.scale),
        })
    }

    /// An operation that computes values: in float, between DequantizeLinear and QuantizeLinear.
    fn computed(&mut self, index: usize, quantisation: Quantisation) -> NodeResult {
        let net = self.net;
        let node = &net.nodes[index];
        let inputs: Vec<String> = node.inputs.iter().map(|&input| self.float(input)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let float = match node.op {
            Op::Conv(conv) => self.conv(node, &conv, inputs[0]),
            _ => float::operation(&mut self.b, node, self.params, &inputs),
        };
        if self.fused[index] {
            NodeResult { bytes: None, float: Some(float) }
        } else {
            self.quantised(node, &float, quantisation)
        }
    }

    /// An operation that only moves values: the result has the quantisation of the input.
    fn moved(&mut self, node: &Node, size: FeatureSize) -> NodeResult {
        let before = node.inputs[0];
        let (name, quantisation) = self.values[before].bytes.clone().expect(HAS_BYTES);
        if self.target == Target::Cpu {
            let bytes = match node.op {
                Op::Nearest { factor } => nearest(&mut self.b, &node.name, &name, size, factor),
                _ => float::operation(&mut self.b, node, self.params, &[&name]),
            };
            return NodeResult { bytes: Some((bytes, quantisation)), float: None };
        }
        let float = self.float(before);
        let moved = float::operation(&mut self.b, node, self.params, &[&float]);
        self.quantised(node, &moved, quantisation)
    }

    /// Quantises the floats of a node.
    fn quantised(&mut self, node: &Node, float: &str, quantisation: Quantisation) -> NodeResult {
        let (scale, zero) = self.constants(&node.name, quantisation);
        let bytes = self.b.node("QuantizeLinear", &[float, &scale, &zero], format!("{}.bytes", node.name), Vec::new());
        NodeResult { bytes: Some((bytes, quantisation)), float: None }
    }

    /// The names of the scale and the zero point of a node.
    fn constants(&mut self, name: &str, quantisation: Quantisation) -> (String, String) {
        let scale = self.b.floats(format!("{name}.scale"), &[], &[quantisation.scale]);
        let zero = match self.target {
            Target::Cpu => self.b.byte(format!("{name}.zero"), quantisation.zero),
            Target::Tensorrt => self.b.int8s("zero", &[], &[0]),
        };
        (scale, zero)
    }

    /// The name of the result of a node as floats.
    fn float(&mut self, index: usize) -> String {
        if let Some(float) = &self.values[index].float {
            return float.clone();
        }
        let net = self.net;
        let name = &net.nodes[index].name;
        let (bytes, quantisation) = self.values[index].bytes.clone().expect("a result is bytes or floats");
        let (scale, zero) = self.constants(name, quantisation);
        let float = self.b.node("DequantizeLinear", &[&bytes, &scale, &zero], format!("{name}.float"), Vec::new());
        self.values[index].float = Some(float.clone());
        float
    }

    /// A convolution of the floats `x`, with quantised weights. Returns the name of the result as floats.
    fn conv(&mut self, node: &Node, conv: &Conv, x: &str) -> String {
        let name = &node.name;
        let weight = float::values(self.params.get(&format!("{name}.weight")));
        let bias = conv.bias.then(|| float::values(self.params.get(&format!("{name}.bias"))));
        let input = self.values[node.inputs[0]].bytes.as_ref().map(|(_, quantisation)| quantisation.scale);
        let input = input.expect("a convolution's input is bytes");
        let outputs = conv.outputs as usize;
        let axis = || vec![int("axis", 0)];
        // One constant for each convolution: ONNX Runtime fails on a shared one when it rewrites weights as unsigned bytes.
        let zeros = self.b.int8s(format!("{name}.weight.zero"), &[conv.outputs], &vec![0; outputs]);
        let mut inputs = vec![x.to_owned()];
        // The bias, divided by both scales, must fit in 32 bits even if the weights of a channel are close to zero.
        let min_scale = |output: usize| match (&bias, self.target) {
            (Some(bias), Target::Cpu) => bias[output].abs() / input / (1 << 30) as f32,
            _ => 0.0,
        };
        let quantised = weights::quantise(conv, &weight, self.bits, min_scale);
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

    /// A bias as 32-bit integers with the scale of the sums of the convolution. Returns its name as floats.
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
