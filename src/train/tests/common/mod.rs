//! Test helpers that are shared with the tests of the service, and the program of the service.
#![allow(dead_code, unused_imports)] // The tests of the trainer use some of them.

pub mod binary;
#[path = "../../../../tests/common/onnx.rs"]
pub mod onnx;
#[path = "../../../../tests/common/program.rs"]
pub mod program;
#[path = "../../../../tests/common/wait.rs"]
pub mod wait;
