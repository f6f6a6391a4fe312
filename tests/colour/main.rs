//! Colours and formats of what comes in.

#[path = "../common/mod.rs"]
mod common;

mod formats;
mod interlaced;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::clip::Rgb;
use common::program::DEADLINE;
use maskcast::capture::{Captured, GstSource, Source, SourceError};
use maskcast::config::SourceSpec;
use maskcast::frame::Pixels;
use maskcast::segment::preprocess::Preprocessor;

/// All frames of a source that has an end, with their times.
///
/// # Errors
/// What the source reports.
fn frames(source: &str) -> Result<Vec<(Duration, Arc<dyn Pixels>)>, SourceError> {
    let mut spec = SourceSpec::from_argument(source, Path::new("/")).unwrap();
    spec.real_time = false;
    let mut capture = GstSource::new(spec).open()?;
    let mut frames = Vec::new();
    loop {
        match capture.next(DEADLINE)? {
            Captured::Frame(frame) => frames.push((frame.pts, frame.pixels)),
            Captured::Silence => panic!("{source}: no frame and no end within {DEADLINE:?}"),
            Captured::End => return Ok(frames),
        }
    }
}

/// What a model whose input has this size gets of a frame.
fn model_input(frame: &dyn Pixels, (width, height): (usize, usize)) -> Rgb {
    let mut data = vec![0; 3 * width * height];
    Preprocessor::new(width, height).run(&frame.picture(), &mut data).unwrap();
    Rgb { width, height, data }
}
