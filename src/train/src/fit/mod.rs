//! Training: from a network and a data set to weights.
//!
//! | file | contents |
//! | --- | --- |
//! | [`config`] | the options of a run |
//! | [`initial`] | the network and its first weights |
//! | [`plan`] | the strategy as phases: which stages are trained, and at which rate |
//! | [`schedule`], [`optimizer`] | learning rates, AdamW and SGD |
//! | [`adapt`] | the options with which a model is adapted to a camera, and what is left of its old weights |
//! | [`run`] | the loop over epochs and batches |
//! | [`checkpoint`] | the state of a run on disk |
//! | [`session`] | a run in its folder: start and resume |
//! | [`lr_find`] | the learning-rate range test |
//! | [`progress`] | progress bars |

pub mod adapt;
pub mod checkpoint;
pub mod config;
pub mod initial;
pub mod lr_find;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod run;
pub mod schedule;
pub mod session;
