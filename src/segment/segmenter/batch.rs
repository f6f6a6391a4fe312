//! The masks of a batch of frames: those whose motion gate is open are in one run of the model.

use std::sync::Arc;

use super::OnnxSegmenter;
use crate::base::timing::Stopwatch;
use crate::frame::{ClassBias, ClassId, Frame, Guide, Mask, Probable};
use crate::gate::{GateInput, GatedMask, ModelId, Verdict};
use crate::segment::cropped::{FramedMask, in_frame};
use crate::segment::{SegmentError, Segmented, Segmenter};

/// A frame of a batch, scaled for the model.
struct PreparedFrame<'a> {
    frame: &'a Frame,
    guide: Guide,
    /// What its motion gate says; `None` for a frame without one.
    verdict: Option<Verdict>,
}

/// The classes of a mask, its `(width, height)`, and where the classes of the frame's bias are probable.
type MadeMask = (Vec<ClassId>, (usize, usize), Option<Box<Probable>>);

impl PreparedFrame<'_> {
    fn is_run(&self) -> bool {
        !matches!(self.verdict, Some(Verdict::Still(_)))
    }
}

impl Segmenter for OnnxSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        if frames.iter().any(|frame| !frame.tiles.is_whole()) {
            return self.segment_tiled(frames);
        }
        let watch = Stopwatch::start();
        let image_bytes = self.image_bytes();
        let mut rgb = std::mem::take(&mut self.rgb);
        // The images that fill up the batch are left unchanged: their masks are not used.
        rgb.resize(image_bytes * frames.len().max(self.batch), 128);
        let mut prepared: Vec<PreparedFrame<'_>> = Vec::with_capacity(frames.len());
        let mut runs = 0;
        for frame in frames {
            // The image of a frame that needs no run is overwritten by the next one.
            let out = &mut rgb[runs * image_bytes..][..image_bytes];
            let image = frame.pixels.image().cropped(frame.crop);
            self.preprocessor.run(&image, out)?;
            let guide = self.preprocessor.guide(image.info.format)?;
            let verdict = self.judge(frame, out);
            prepared.push(PreparedFrame { frame, guide, verdict });
            runs += usize::from(prepared.last().is_some_and(PreparedFrame::is_run));
        }
        let preprocess = watch.spent();
        let watch = Stopwatch::start();
        let result = if runs == 0 { Ok(Vec::new()) } else { self.run_prepared(&rgb, runs, &prepared) };
        self.rgb = rgb;
        let mut made = result?.into_iter();
        let mut masks = Vec::with_capacity(frames.len());
        for PreparedFrame { frame, guide, verdict } in prepared {
            let confirmed = matches!(verdict, Some(Verdict::Still(_)));
            let (classes, (width, height), probable) = match verdict {
                Some(Verdict::Still(mask)) => (mask.classes.to_vec(), (mask.width, mask.height), None),
                verdict => {
                    let Some((classes, (width, height), probable)) = made.next() else { break };
                    if let (Some(gate), Some(Verdict::Run(image))) = (&frame.gate, verdict) {
                        gate.keep(*image, GatedMask { width, height, classes: classes.as_slice().into() });
                    }
                    (classes, (width, height), probable)
                }
            };
            masks.push(self.mask_of(frame, (classes, (width, height), probable), guide, confirmed));
        }
        Ok(Segmented { masks, preprocess, run: watch.spent() })
    }
}

impl OnnxSegmenter {
    /// The mask of a frame, with its identity, from the mask of its crop.
    pub(in crate::segment) fn mask_of(
        &self,
        frame: &Frame,
        (classes, (width, height), probable): MadeMask,
        guide: Guide,
        confirmed: bool,
    ) -> Mask {
        let info = frame.info();
        let (classes, (width, height), seen) = if frame.crop.is_whole() {
            (classes, (width, height), None)
        } else {
            let (video, crop) = ((info.width, info.height), frame.crop.pixels(info.width, info.height));
            let FramedMask { classes, size, seen } = in_frame(&classes, (width, height), crop, video);
            (classes, size, Some(seen))
        };
        Mask {
            seq: frame.seq,
            pts: frame.pts,
            captured_at: frame.captured_at,
            width,
            height,
            classes,
            labels: Arc::clone(&self.contract.labels),
            model: Arc::clone(&self.model),
            guide: Some(Box::new(guide)),
            probable,
            confirmed,
            seen,
        }
    }

    /// Whether the mask of the last run of the frame's stream is still valid for its image `rgb`. `None` for a frame without a
    /// motion gate.
    fn judge(&self, frame: &Frame, rgb: &[u8]) -> Option<Verdict> {
        let gate = frame.gate.as_ref()?;
        let info = frame.info();
        // All segmenters of a loaded model share its contract.
        let model: ModelId = self.contract();
        Some(gate.judge(&GateInput {
            seq: frame.seq,
            captured_at: frame.captured_at,
            video: (info.width, info.height),
            model: &model,
            rgb,
            width: self.contract.input.width,
            height: self.contract.input.height,
        }))
    }

    /// Runs the model on the images of the frames whose gate is open, which are the first `runs` in `rgb`. Returns their masks.
    fn run_prepared(
        &mut self,
        rgb: &[u8],
        runs: usize,
        prepared: &[PreparedFrame<'_>],
    ) -> Result<Vec<MadeMask>, SegmentError> {
        let images = runs.max(self.batch);
        let frames: Vec<&Frame> = prepared.iter().filter(|it| it.is_run()).map(|it| it.frame).collect();
        let biases: Vec<Option<&ClassBias>> = frames.iter().map(|frame| frame.bias.as_deref()).collect();
        let (classes, size, probable) = self.run_biased(&rgb[..images * self.image_bytes()], images, &biases)?;
        let masks = classes.chunks_exact(size.0 * size.1);
        for (frame, classes) in frames.iter().zip(masks.clone()) {
            self.unlabelled.count(&frame.stream, classes, self.contract.labels.len());
        }
        if images == 1 {
            // Without a copy.
            let probable = probable.into_iter().next().flatten();
            return Ok(vec![(classes, size, probable)]);
        }
        Ok(masks.zip(probable).map(|(classes, probable)| (classes.to_vec(), size, probable)).collect())
    }
}

#[cfg(test)]
mod tests;
