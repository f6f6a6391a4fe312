//! Reads class indices from the outputs of a model.

use std::borrow::Cow;

use half::f16;
use ort::session::SessionOutputs;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType};

use super::RunOutputError;
use super::contract::{Axes, Channel, Contract, OutputMeaning};
use super::onnx_error::one_line;
use crate::frame::ClassId;

/// The class indices in the outputs of a run of `n` images, `[n × height × width]`, and the `(width, height)` of one mask.
///
/// # Errors
/// The output is missing, or has a shape or type that the contract does not allow.
pub(super) fn classes(
    contract: &Contract,
    outputs: &SessionOutputs<'_>,
    n: usize,
) -> Result<(Vec<ClassId>, (usize, usize)), RunOutputError> {
    let name = &contract.output.name;
    let value = outputs.get(name).ok_or_else(|| RunOutputError::Missing(name.clone()))?;
    let dimensions: Vec<usize> = value.shape().iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    let labels = contract.labels.len();
    let channels = if contract.output.meaning == OutputMeaning::Scores { labels } else { 1 };
    let Some((height, width)) = sides(contract.output.axes, &dimensions, n, channels) else {
        return Err(RunOutputError::Shape { name: name.clone(), shape: dimensions, frames: n, labels });
    };
    if height == 0 || width == 0 {
        return Err(RunOutputError::Empty(name.clone()));
    }
    let indices = match &contract.output.meaning {
        OutputMeaning::Index => indices(name, value)?,
        OutputMeaning::Binary(binary) => {
            numbers(name, value)?.iter().map(|&value| ClassId::from(value > binary.threshold)).collect()
        }
        OutputMeaning::Scores => {
            let scores = numbers(name, value)?;
            if contract.output.axes.channel == Channel::Last {
                scores.chunks_exact(labels).map(argmax).collect()
            } else {
                let images = scores.chunks_exact(labels * height * width);
                images.flat_map(|image| argmax_planes(image, height * width)).collect()
            }
        }
    };
    Ok((indices, (width, height)))
}

/// Height and width of a mask; `None` when the shape is not that of `n` masks with `channels` values a pixel.
pub(super) fn sides(axes: Axes, dimensions: &[usize], n: usize, channels: usize) -> Option<(usize, usize)> {
    let rest = match (axes.batch, dimensions) {
        (true, [batch, rest @ ..]) if *batch == n => rest,
        (false, rest) if n == 1 => rest,
        _ => return None,
    };
    match (axes.channel, rest) {
        (Channel::None, &[h, w]) => Some((h, w)),
        (Channel::First, &[c, h, w]) | (Channel::Last, &[h, w, c]) if c == channels => Some((h, w)),
        _ => None,
    }
}

fn tensor<'a, T: PrimitiveTensorElementType>(name: &str, value: &'a DynValue) -> Result<&'a [T], RunOutputError> {
    let (_, values) = value
        .try_extract_tensor::<T>()
        .map_err(|error| RunOutputError::Extract { name: name.into(), reason: one_line(&error.to_string()) })?;
    Ok(values)
}

fn unreadable(name: &str, element: Option<TensorElementType>) -> RunOutputError {
    let element = element.map_or("not a tensor".into(), |element| element.to_string());
    RunOutputError::Element { name: name.into(), element }
}

/// Class indices of any type. An index that does not fit into a [`ClassId`] becomes 255, which has no label.
fn indices(name: &str, value: &DynValue) -> Result<Vec<ClassId>, RunOutputError> {
    fn to_class_ids<T: Copy>(values: &[T]) -> Vec<ClassId>
    where
        ClassId: TryFrom<T>,
    {
        values.iter().map(|&class| ClassId::try_from(class).unwrap_or(ClassId::MAX)).collect()
    }
    use TensorElementType as Element;
    Ok(match value.dtype().tensor_type() {
        Some(Element::Uint8) => tensor::<u8>(name, value)?.to_vec(),
        Some(Element::Int64) => to_class_ids(tensor::<i64>(name, value)?),
        Some(Element::Int32) => to_class_ids(tensor::<i32>(name, value)?),
        Some(Element::Int16) => to_class_ids(tensor::<i16>(name, value)?),
        Some(Element::Int8) => to_class_ids(tensor::<i8>(name, value)?),
        Some(Element::Uint64) => to_class_ids(tensor::<u64>(name, value)?),
        Some(Element::Uint32) => to_class_ids(tensor::<u32>(name, value)?),
        Some(Element::Uint16) => to_class_ids(tensor::<u16>(name, value)?),
        Some(Element::Bool) => tensor::<bool>(name, value)?.iter().map(|&class| ClassId::from(class)).collect(),
        _ => {
            let index = |&class: &f32| if (0.0..255.0).contains(&class) { class as ClassId } else { ClassId::MAX };
            numbers(name, value)?.iter().map(index).collect()
        }
    })
}

/// The values of an output in single precision.
///
/// # Errors
/// The output is not a tensor of numbers.
pub(super) fn numbers<'a>(name: &str, value: &'a DynValue) -> Result<Cow<'a, [f32]>, RunOutputError> {
    use TensorElementType as Element;
    let element = value.dtype().tensor_type();
    Ok(Cow::Owned(match element {
        Some(Element::Float32) => return Ok(Cow::Borrowed(tensor::<f32>(name, value)?)),
        Some(Element::Float16) => tensor::<f16>(name, value)?.iter().map(|value| value.to_f32()).collect(),
        Some(Element::Float64) => tensor::<f64>(name, value)?.iter().map(|&value| value as f32).collect(),
        Some(Element::Uint8) => tensor::<u8>(name, value)?.iter().map(|&value| f32::from(value)).collect(),
        Some(Element::Int8) => tensor::<i8>(name, value)?.iter().map(|&value| f32::from(value)).collect(),
        Some(Element::Uint16) => tensor::<u16>(name, value)?.iter().map(|&value| f32::from(value)).collect(),
        Some(Element::Int16) => tensor::<i16>(name, value)?.iter().map(|&value| f32::from(value)).collect(),
        Some(Element::Uint32) => tensor::<u32>(name, value)?.iter().map(|&value| value as f32).collect(),
        Some(Element::Int32) => tensor::<i32>(name, value)?.iter().map(|&value| value as f32).collect(),
        Some(Element::Uint64) => tensor::<u64>(name, value)?.iter().map(|&value| value as f32).collect(),
        Some(Element::Int64) => tensor::<i64>(name, value)?.iter().map(|&value| value as f32).collect(),
        Some(Element::Bool) => tensor::<bool>(name, value)?.iter().map(|&value| f32::from(u8::from(value))).collect(),
        other => return Err(unreadable(name, other)),
    }))
}

/// The class with the largest value of each pixel of `[C, pixels]`. Each pass reads memory in order.
fn argmax_planes(logits: &[f32], pixels: usize) -> Vec<ClassId> {
    let mut best = logits[..pixels].to_vec();
    let mut winner = vec![0; pixels];
    for (class, plane) in logits.chunks_exact(pixels).enumerate().skip(1) {
        for ((best, winner), &logit) in best.iter_mut().zip(&mut winner).zip(plane) {
            if logit > *best {
                *best = logit;
                *winner = class as ClassId;
            }
        }
    }
    winner
}

/// The index of the largest value; the first of equal ones.
fn argmax(logits: &[f32]) -> ClassId {
    let mut winner = 0;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > logits[winner] {
            winner = class;
        }
    }
    winner as ClassId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_is_the_same_in_both_layouts() {
        // Two classes over three pixels; ties go to the lower class.
        let planes = [1.0, 5.0, 2.0, 3.0, 4.0, 2.0];
        assert_eq!(argmax_planes(&planes, 3), [1, 0, 0]);
        let pixels = [1.0, 3.0, 5.0, 4.0, 2.0, 2.0];
        assert_eq!(pixels.chunks_exact(2).map(argmax).collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[test]
    fn finds_the_sides_for_each_position_of_the_class_axis() {
        let axes = |batch, channel| Axes { batch, channel };
        assert_eq!(sides(axes(true, Channel::None), &[2, 5, 7], 2, 1), Some((5, 7)));
        assert_eq!(sides(axes(true, Channel::First), &[1, 3, 5, 7], 1, 3), Some((5, 7)));
        assert_eq!(sides(axes(true, Channel::Last), &[1, 5, 7, 3], 1, 3), Some((5, 7)));
        assert_eq!(sides(axes(false, Channel::None), &[5, 7], 1, 1), Some((5, 7)));
        assert_eq!(sides(axes(false, Channel::First), &[3, 5, 7], 1, 3), Some((5, 7)));
        assert_eq!(sides(axes(true, Channel::First), &[1, 4, 5, 7], 1, 3), None, "another number of classes");
        assert_eq!(sides(axes(true, Channel::First), &[2, 3, 5, 7], 1, 3), None, "another batch");
        assert_eq!(sides(axes(false, Channel::None), &[5, 7], 2, 1), None, "one mask for two frames");
    }
}
