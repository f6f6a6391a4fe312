//! The description of an output for frames: its name, how it is started, how its viewers are counted.

use std::sync::Arc;

use super::OutputError;
use super::outputs::StreamOutputs;
use super::recording::Archive;
use super::runs::OutputRun;
use crate::base::status::Status;
use crate::config::StreamConfig;

/// A kind of output for frames.
pub struct FrameSinkKind {
    /// Its name: `kind` of `maskcast_viewers`, and its key in `viewers` of the API.
    pub name: &'static str,
    /// Starts the sinks that the configuration of a stream asks for.
    pub start: StartSinks,
    /// `None` for a kind that has no viewers.
    pub viewers: Option<ViewerCount>,
}

/// How the viewers of a kind are counted.
pub struct ViewerCount {
    /// What is counted, for the description of the API.
    pub about: &'static str,
    /// The clients that watch a stream now.
    pub count: fn(&StreamOutputs) -> usize,
}

/// Starts the sinks that the configuration of a stream asks for, and gives those that have to be stopped before the output ends.
///
/// # Errors
/// When a thread cannot be started.
pub type StartSinks = fn(&FrameSinkContext<'_>) -> Result<Vec<Box<dyn RunningSink>>, OutputError>;

/// What sinks are started with.
pub struct FrameSinkContext<'a> {
    pub config: &'a StreamConfig,
    pub status: &'a Arc<Status>,
    pub outputs: &'a StreamOutputs,
    /// The run of the output that the sinks end with.
    pub(super) run: &'a OutputRun,
    /// The recordings of the stream, if it is recorded.
    pub archive: Option<&'a Arc<Archive>>,
}

/// A sink that has threads of its own. Dropping it waits for its end, for a limited time.
pub trait RunningSink: Send {
    /// Requests its end, so that several end side by side.
    fn stop(&mut self);
}

/// For a kind whose sinks are added when clients connect.
///
/// # Errors
/// None.
pub(super) fn start_none(_: &FrameSinkContext<'_>) -> Result<Vec<Box<dyn RunningSink>>, OutputError> {
    Ok(Vec::new())
}
