//! What the float and the quantised graph have in common: attributes, the image's way in, the mask's way out.

use super::graph::{GraphBuilder, int, ints, text};
use super::proto::{AttributeProto, TensorDataType};
use crate::net::{Conv, Net, Normalise, Op, Order, Padding};

/// Names of the model's input and outputs (the model contract).
pub const IMAGE: &str = "image";
pub const MASK: &str = "mask";
pub const CONFIDENCE: &str = "confidence";
/// An output for checks only.
pub const LOGITS: &str = "logits";

/// What is fixed when a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// Of the input and the mask, in pixels.
    pub width: i64,
    pub height: i64,
    /// Adds the output `confidence`, `[N, H/2, W/2]`: the winner's probability × 255. Costs a softmax at that size.
    pub confidence: bool,
    /// Decides for a class at half the size and doubles the mask: cheaper, with coarser edges.
    pub argmax_stride2: bool,
    /// Adds the output `logits`, float `[N, classes, H, W]`, for checks.
    pub logits: bool,
}

impl GraphOptions {
    /// Nothing but the mask, at full size.
    pub fn new(width: i64, height: i64) -> Self {
        GraphOptions { width, height, confidence: false, argmax_stride2: false, logits: false }
    }
}

/// ONNX's order: all beginnings, then all ends.
fn pads(Padding { begin, end }: Padding) -> AttributeProto {
    ints("pads", &[begin, begin, end, end])
}

pub fn conv_attributes(conv: &Conv) -> Vec<AttributeProto> {
    vec![
        int("group", conv.groups),
        ints("kernel_shape", &[conv.kernel; 2]),
        pads(conv.padding),
        ints("strides", &[conv.stride; 2]),
    ]
}

pub fn max_pool_attributes(kernel: i64, stride: i64, padding: Padding) -> Vec<AttributeProto> {
    vec![ints("kernel_shape", &[kernel; 2]), pads(padding), ints("strides", &[stride; 2])]
}

/// How an image is enlarged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    Nearest,
    Bilinear,
}

/// `[N, C, H, W]` to `[N, C, factor × H, factor × W]`, by the pixel centres that libtorch uses.
pub fn resize(b: &mut GraphBuilder, how: Resize, factor: i64, x: &str, output: impl Into<String>) -> String {
    let scale = factor as f32;
    let scales = b.floats(format!("scales.{factor}"), &[4], &[1.0, 1.0, scale, scale]);
    scaled(b, how, &scales, x, output)
}

/// `[N, H, W, C]` to `[N, factor × H, factor × W, C]`, bilinear.
pub fn resize_last(b: &mut GraphBuilder, factor: i64, x: &str, output: impl Into<String>) -> String {
    let scale = factor as f32;
    let scales = b.floats(format!("scales.last.{factor}"), &[4], &[1.0, scale, scale, 1.0]);
    scaled(b, Resize::Bilinear, &scales, x, output)
}

fn scaled(b: &mut GraphBuilder, how: Resize, scales: &str, x: &str, output: impl Into<String>) -> String {
    let attributes = match how {
        Resize::Nearest => vec![
            text("coordinate_transformation_mode", "asymmetric"),
            text("mode", "nearest"),
            text("nearest_mode", "floor"),
        ],
        Resize::Bilinear => vec![text("coordinate_transformation_mode", "half_pixel"), text("mode", "linear")],
    };
    b.node("Resize", &[x, "", scales], output, attributes)
}

/// Declares the input and gives its bytes as `[N, 3, H, W]`.
pub fn image(b: &mut GraphBuilder, shape: &GraphOptions) -> String {
    b.input(IMAGE, TensorDataType::Uint8, &[-1, shape.height, shape.width, 3]);
    b.node("Transpose", &[IMAGE], "image.planes", vec![ints("perm", &[0, 3, 1, 2])])
}

/// Bytes `[N, 3, H, W]` in RGB to the network's float input.
pub fn normalised(b: &mut GraphBuilder, normalise: &Normalise, planes: &str) -> String {
    let mut x = planes.to_owned();
    if normalise.order == Order::Bgr {
        let order = b.int64s("image.order", &[2, 1, 0]);
        x = b.node("Gather", &[&x, &order], "image.bgr", vec![int("axis", 1)]);
    }
    x = cast(b, &x, "pixels.float", TensorDataType::Float);
    let mean = b.floats("image.mean", &[1, 3, 1, 1], &normalise.mean);
    let std = b.floats("image.std", &[1, 3, 1, 1], &normalise.std);
    x = b.node("Sub", &[&x, &mean], "image.centred", Vec::new());
    b.node("Div", &[&x, &std], "image.normalised", Vec::new())
}

pub fn cast(b: &mut GraphBuilder, x: &str, output: impl Into<String>, to: TensorDataType) -> String {
    b.node("Cast", &[x], output, vec![int("to", to as i64)])
}

/// Where the network's last enlargement begins: logits that are not enlarged yet, and by how much they have to be.
/// Without such an enlargement, the logits themselves and 1.
pub fn small_logits(net: &Net) -> (usize, i64) {
    match net.nodes[net.logits].op {
        Op::Bilinear { factor } => (net.nodes[net.logits].inputs[0], factor),
        _ => (net.logits, 1),
    }
}

/// Whether the mask is decided at half the size: that needs logits that are not full-size yet.
pub fn decides_small(net: &Net, shape: &GraphOptions) -> bool {
    shape.argmax_stride2 && small_logits(net).1 % 2 == 0
}

/// Logits at half the image's size, as the tensor type that `small` has.
pub fn half_size(b: &mut GraphBuilder, small: &str, factor: i64) -> String {
    match factor {
        2 => small.to_owned(),
        factor if factor % 2 == 0 => resize(b, Resize::Bilinear, factor / 2, small, "logits.half"),
        _ => {
            let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
            b.node("AveragePool", &[small], "logits.half", attributes)
        }
    }
}

/// Decides: the output `mask` from logits that lie along `axis`, of the image's size, or (`small`) of half of it.
pub fn mask(b: &mut GraphBuilder, shape: &GraphOptions, logits: &str, axis: i64, small: bool) {
    let attributes = vec![int("axis", axis), int("keepdims", 0)];
    let index = b.node("ArgMax", &[logits], "mask.index", attributes);
    if small {
        let axes = b.int64s("mask.axes", &[1]);
        let half = cast(b, &index, "mask.half", TensorDataType::Uint8);
        let half = b.node("Unsqueeze", &[&half, &axes], "mask.plane", Vec::new());
        let full = resize(b, Resize::Nearest, 2, &half, "mask.full");
        b.node("Squeeze", &[&full, &axes], MASK, Vec::new());
    } else {
        cast(b, &index, MASK, TensorDataType::Uint8);
    }
    b.output(MASK, TensorDataType::Uint8, &[-1, shape.height, shape.width]);
}

/// The output `confidence` from float logits at half the size.
pub fn confidence(b: &mut GraphBuilder, shape: &GraphOptions, half: &str) {
    let all = b.node("Softmax", &[half], "confidence.all", vec![int("axis", 1)]);
    let attributes = vec![ints("axes", &[1]), int("keepdims", 0)];
    let best = b.node("ReduceMax", &[&all], "confidence.best", attributes);
    let white = b.floats("confidence.white", &[], &[255.0]);
    let bytes = b.node("Mul", &[&best, &white], "confidence.scaled", Vec::new());
    let bytes = b.node("Round", &[&bytes], "confidence.round", Vec::new());
    cast(b, &bytes, CONFIDENCE, TensorDataType::Uint8);
    b.output(CONFIDENCE, TensorDataType::Uint8, &[-1, shape.height / 2, shape.width / 2]);
}
