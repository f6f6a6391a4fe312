//! The steps of a model that the service computes itself.

use std::sync::Arc;

use crate::segment::contract::FileTensors;
use crate::segment::head::Head;
use crate::segment::stem::Stem;

/// The steps of a model that are computed without ONNX Runtime.
#[derive(Clone, Default)]
pub(super) struct OwnSteps {
    /// The first convolution; only with a head.
    pub stem: Option<Arc<Stem>>,
    /// The last steps.
    pub head: Option<Arc<Head>>,
}

impl OwnSteps {
    /// What the session of such a file does not have.
    pub fn tensors(&self) -> FileTensors {
        FileTensors {
            input: self.stem.as_ref().map(|stem| stem.input().clone()),
            outputs: self.head.as_ref().map(|head| head.of_graph()),
        }
    }
}
