//! Options of a run: the outputs that it computes.

use std::path::Path;

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};

use crate::segment::SegmentError;
use crate::segment::placement::ProfileError;

/// Options of a run that computes the outputs called `names` only.
pub(in crate::segment) struct Options {
    pub(super) names: Vec<String>,
    pub(super) run: RunOptions<HasSelectedOutputs>,
}

impl Options {
    /// Options of a run whose profile is written to a file; ONNX Runtime appends the time to its name, which is `profile`.
    ///
    /// # Errors
    /// ONNX Runtime cannot profile runs.
    pub(super) fn profiled(names: &[String], profile: &Path) -> Result<Self, ProfileError> {
        let failed = |error: ort::Error| ProfileError::Options(error.into());
        let mut run = RunOptions::new().map_err(failed)?;
        run.enable_profiling(profile).map_err(failed)?;
        Ok(Options { names: names.to_vec(), run: run.with_outputs(selector(names)) })
    }
}

/// Options of a run that computes the outputs called `names` only.
///
/// # Errors
/// ONNX Runtime cannot allocate them.
pub(in crate::segment) fn run_options(names: &[String]) -> Result<Options, SegmentError> {
    let run = RunOptions::new().map_err(|error| SegmentError::Run(error.into()))?;
    Ok(Options { names: names.to_vec(), run: run.with_outputs(selector(names)) })
}

fn selector(names: &[String]) -> OutputSelector {
    names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(name))
}
