//! A model's session as a [`Segmenter`]: pictures in, class indices out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ort::session::{RunOptions, Session};
use ort::value::TensorRef;

use super::card::{ChannelOrder, Layout};
use super::classes::classes;
use super::contract::{Contract, FloatPixels, InputPixels};
use super::placement::Placement;
use super::preprocess::Preprocessor;
use super::session::one_line;
use super::{SegmentError, Segmented, Segmenter};
use crate::frame::{ClassId, Frame, Mask};
use crate::stream::timing::Stopwatch;

/// One session with the buffers it needs.
pub struct OnnxSegmenter {
    session: Session,
    contract: Arc<Contract>,
    preprocessor: Preprocessor,
    /// Pictures of every run, at least; grey ones fill it.
    batch: usize,
    /// `[N, H, W, 3]`
    rgb: Vec<u8>,
    float: Vec<f32>,
}

impl OnnxSegmenter {
    /// Every run will have `batch` pictures at least, grey ones where there are fewer. GPUs want as many each time: cuDNN
    /// looks for its algorithms anew whenever the shape changes, for one to two seconds, and TensorRT builds another
    /// engine. A CPU takes what there is: 1.
    pub(super) fn new(session: Session, contract: Arc<Contract>, batch: usize) -> Self {
        let preprocessor = Preprocessor::new(contract.input.width, contract.input.height);
        OnnxSegmenter { session, contract, preprocessor, batch, rgb: Vec::new(), float: Vec::new() }
    }

    pub(super) fn contract(&self) -> Arc<Contract> {
        Arc::clone(&self.contract)
    }

    /// Runs the model once on a grey picture and sees which provider ran which of its nodes. The run before it, which may
    /// build an engine, is not looked at.
    ///
    /// # Errors
    /// When the model cannot be run, or the profile not be written or read.
    pub(super) fn placement(&mut self) -> Result<Placement, SegmentError> {
        self.run_grey()?;
        let failed = |error: &dyn std::fmt::Display| SegmentError(format!("the run cannot be profiled: {error}"));
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let mut options = RunOptions::new().map_err(|error| failed(&error))?;
        options.enable_profiling(folder.path().join("run")).map_err(|error| failed(&error))?;
        let rgb = vec![128; self.picture_bytes()];
        self.run_filled(&rgb, 1, &options)?;
        // The name has a time behind the prefix.
        let file = std::fs::read_dir(folder.path()).map_err(|error| failed(&error))?.next();
        let file = file.ok_or_else(|| failed(&"no profile was written"))?.map_err(|error| failed(&error))?;
        let text = std::fs::read_to_string(file.path()).map_err(|error| failed(&error))?;
        Placement::parse(&text).map_err(|problem| failed(&problem))
    }

    /// Bytes of one input picture.
    fn picture_bytes(&self) -> usize {
        self.contract.input.width * self.contract.input.height * 3
    }

    /// Median time of a run with one grey frame, after one to warm up.
    ///
    /// # Errors
    /// When the model cannot be run.
    pub fn time(&mut self, runs: usize) -> Result<Duration, SegmentError> {
        self.run_grey()?;
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            self.run_grey()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }

    /// Runs the model once on a grey picture, to warm up or to be timed.
    ///
    /// # Errors
    /// When the model cannot be run.
    pub fn run_grey(&mut self) -> Result<(), SegmentError> {
        let mut rgb = std::mem::take(&mut self.rgb);
        rgb.clear();
        rgb.resize(self.picture_bytes(), 128);
        let result = self.run_rgb(&rgb, 1);
        self.rgb = rgb;
        result.map(|_| ())
    }

    /// Runs the model on `n` RGB pictures of its input size, `[n, H, W, 3]`. Gives `n` masks behind one another and the
    /// `(width, height)` of one.
    ///
    /// # Errors
    /// ONNX Runtime's words when the run fails, or what is wrong with the shape of its result.
    pub fn run_rgb(&mut self, rgb: &[u8], n: usize) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        let options = RunOptions::new().map_err(|error| SegmentError(error.to_string()))?;
        self.run_filled(rgb, n, &options)
    }

    fn run_filled(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &RunOptions,
    ) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        if n >= self.batch {
            return self.run_with(rgb, n, options);
        }
        let mut filled = rgb.to_vec();
        filled.resize(self.picture_bytes() * self.batch, 128);
        let (mut classes, (width, height)) = self.run_with(&filled, self.batch, options)?;
        classes.truncate(n * width * height);
        Ok((classes, (width, height)))
    }

    fn run_with(
        &mut self,
        rgb: &[u8],
        n: usize,
        options: &RunOptions,
    ) -> Result<(Vec<ClassId>, (usize, usize)), SegmentError> {
        let input = &self.contract.input;
        let shape = |layout| match layout {
            Layout::Nhwc => [n, input.height, input.width, 3],
            Layout::Nchw => [n, 3, input.height, input.width],
        };
        let failed =
            |error: ort::Error| SegmentError(format!("the model cannot be run: {}", one_line(&error.to_string())));
        let name = input.name.as_str();
        let outputs = match &input.pixels {
            InputPixels::Bytes => {
                let tensor = TensorRef::from_array_view((shape(Layout::Nhwc), rgb)).map_err(failed)?;
                self.session.run_with_options(ort::inputs![name => tensor], options).map_err(failed)?
            }
            InputPixels::Float(pixels) => {
                normalise(pixels, rgb, input.width * input.height, &mut self.float);
                let tensor =
                    TensorRef::from_array_view((shape(pixels.layout), self.float.as_slice())).map_err(failed)?;
                self.session.run_with_options(ort::inputs![name => tensor], options).map_err(failed)?
            }
        };
        classes(&self.contract, &outputs, n)
    }
}

impl Segmenter for OnnxSegmenter {
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        let watch = Stopwatch::start();
        let picture_bytes = self.picture_bytes();
        let mut rgb = std::mem::take(&mut self.rgb);
        // What fills the batch stays as it was: its masks are not looked at.
        let pictures = frames.len().max(self.batch);
        rgb.resize(picture_bytes * pictures, 128);
        for (frame, out) in frames.iter().zip(rgb.chunks_exact_mut(picture_bytes)) {
            self.preprocessor.run(&frame.pixels.picture(), out)?;
        }
        let preprocess = watch.spent();
        let watch = Stopwatch::start();
        let result = self.run_rgb(&rgb, pictures);
        self.rgb = rgb;
        let (classes, (width, height)) = result?;
        let masks = frames
            .iter()
            .zip(classes.chunks_exact(width * height))
            .map(|(frame, classes)| Mask {
                seq: frame.seq,
                pts: frame.pts,
                captured_at: frame.captured_at,
                width,
                height,
                classes: classes.to_vec(),
                labels: Arc::clone(&self.contract.labels),
            })
            .collect();
        Ok(Segmented { masks, preprocess, run: watch.spent() })
    }
}

/// Fills `out` with the normalised values of whole RGB pictures of `pixels` pixels.
fn normalise(float: &FloatPixels, rgb: &[u8], pixels: usize, out: &mut Vec<f32>) {
    out.clear();
    out.reserve(rgb.len());
    // Where the model's channel c lies in an RGB pixel.
    let source = match float.order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    for picture in rgb.chunks_exact(pixels * 3) {
        match float.layout {
            Layout::Nchw => {
                for (table, &offset) in float.table.iter().zip(&source) {
                    out.extend(picture[offset..].iter().step_by(3).map(|&byte| table[usize::from(byte)]));
                }
            }
            Layout::Nhwc => {
                for pixel in picture.chunks_exact(3) {
                    out.extend(
                        float.table.iter().zip(&source).map(|(table, &offset)| table[usize::from(pixel[offset])]),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelConfig, Provider};
    use crate::segment::card::CardInput;
    use crate::segment::session::open_session;

    /// With the bundled model on the CPU.
    fn segmenter(batch: usize) -> OnnxSegmenter {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/street.onnx");
        let config = ModelConfig::with_path(&path);
        let Ok(session) = open_session(&config, &std::fs::read(&path).unwrap(), Provider::Cpu, 1) else {
            panic!("the bundled model does not load: is ONNX Runtime there (`make setup`)?");
        };
        let contract = Contract::read(&session, &path).unwrap();
        OnnxSegmenter::new(session, Arc::new(contract), batch)
    }

    #[test]
    fn a_batch_that_is_filled_up_gives_the_same_masks() {
        let (mut single, mut filled) = (segmenter(1), segmenter(3));
        let golden = single.contract().golden.clone().unwrap();
        let (expected, size) = single.run_rgb(&golden.rgb, 1).unwrap();
        assert_eq!(filled.run_rgb(&golden.rgb, 1).unwrap(), (expected.clone(), size));
        let twice = [&golden.rgb[..], &golden.rgb[..]].concat();
        assert_eq!(filled.run_rgb(&twice, 2).unwrap(), ([&expected[..], &expected[..]].concat(), size));
    }

    #[test]
    fn normalise_orders_channels_and_axes() {
        let identity = || Box::new(std::array::from_fn(|_| std::array::from_fn(|byte| byte as f32)));
        let rgb = [1, 2, 3, 4, 5, 6];
        let mut out = Vec::new();
        for (layout, order, expected) in [
            (Layout::Nchw, ChannelOrder::Rgb, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
            (Layout::Nchw, ChannelOrder::Bgr, [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]),
            (Layout::Nhwc, ChannelOrder::Rgb, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (Layout::Nhwc, ChannelOrder::Bgr, [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]),
        ] {
            normalise(&FloatPixels { layout, order, table: identity() }, &rgb, 2, &mut out);
            assert_eq!(out, expected, "{layout:?} {order:?}");
        }
        assert_eq!(CardInput::default().white, 1.0);
    }
}
