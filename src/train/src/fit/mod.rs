//! Fitting: from a network and a data set to weights.

pub mod checkpoint;
pub mod config;
pub mod lr_find;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod run;
pub mod schedule;
pub mod session;
pub mod start;
