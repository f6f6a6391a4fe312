//! Fitting: from a network and a data set to weights.

pub mod checkpoint;
pub mod config;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod run;
pub mod schedule;
