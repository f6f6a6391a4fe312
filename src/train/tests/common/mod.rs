//! What the service's tests and these share, and the service's program.
#![allow(dead_code)] // These tests use a part.

pub mod binary;
#[path = "../../../../tests/common/program.rs"]
pub mod program;
#[path = "../../../../tests/common/wait.rs"]
pub mod wait;
