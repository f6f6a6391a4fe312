//! From a model's outputs to class indices.

use ort::session::SessionOutputs;

use super::SegmentError;
use super::contract::{Contract, OutputKind};
use crate::frame::ClassId;

/// The class indices in a run's outputs, and the `(width, height)` of one mask.
pub(super) fn classes(
    contract: &Contract,
    outputs: &SessionOutputs<'_>,
    n: usize,
) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
    let name = &contract.output.name;
    let value = outputs.get(name).ok_or_else(|| SegmentError(format!("the model gave no output {name}")))?;
    let wrong = |error: ort::Error| SegmentError(format!("the model's output {name} cannot be read: {error}"));
    let dimensions: Vec<usize> = value.shape().iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    let labels = contract.labels.len();
    let (height, width) = match (contract.output.kind, dimensions.as_slice()) {
        (OutputKind::Classes, &[batch, h, w]) if batch == n => (h, w),
        (OutputKind::Classes | OutputKind::Binary, &[batch, 1, h, w]) if batch == n => (h, w),
        (OutputKind::LogitsNchw, &[batch, c, h, w]) if batch == n && c == labels => (h, w),
        (OutputKind::LogitsNhwc, &[batch, h, w, c]) if batch == n && c == labels => (h, w),
        _ => {
            return Err(SegmentError(format!(
                "the model's output {name} has the shape {dimensions:?}, which does not fit {n} frames and {labels} labels"
            )));
        }
    };
    if height == 0 || width == 0 {
        return Err(SegmentError(format!("the model's output {name} is empty")));
    }
    let indices = match contract.output.kind {
        OutputKind::Classes => {
            if let Ok((_, bytes)) = value.try_extract_tensor::<u8>() {
                bytes.to_vec()
            } else if let Ok((_, values)) = value.try_extract_tensor::<i64>() {
                values.iter().map(|&class| ClassId::try_from(class).unwrap_or(ClassId::MAX)).collect()
            } else {
                let (_, values) = value.try_extract_tensor::<i32>().map_err(wrong)?;
                values.iter().map(|&class| ClassId::try_from(class).unwrap_or(ClassId::MAX)).collect()
            }
        }
        OutputKind::Binary => {
            let (_, values) = value.try_extract_tensor::<f32>().map_err(wrong)?;
            values.iter().map(|&logit| ClassId::from(logit > 0.0)).collect()
        }
        OutputKind::LogitsNchw => {
            let (_, values) = value.try_extract_tensor::<f32>().map_err(wrong)?;
            values
                .chunks_exact(labels * height * width)
                .flat_map(|picture| argmax_planes(picture, height * width))
                .collect()
        }
        OutputKind::LogitsNhwc => {
            let (_, values) = value.try_extract_tensor::<f32>().map_err(wrong)?;
            values.chunks_exact(labels).map(argmax).collect()
        }
    };
    Ok((indices, (width, height)))
}

/// Winner a pixel of `[C, pixels]`, plane by plane: each pass reads memory in order.
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
    fn argmax_agrees_in_both_layouts() {
        // Two classes over three pixels; ties go to the lower class.
        let planes = [1.0, 5.0, 2.0, 3.0, 4.0, 2.0];
        assert_eq!(argmax_planes(&planes, 3), [1, 0, 0]);
        let pixels = [1.0, 3.0, 5.0, 4.0, 2.0, 2.0];
        assert_eq!(pixels.chunks_exact(2).map(argmax).collect::<Vec<_>>(), [1, 0, 0]);
    }
}
