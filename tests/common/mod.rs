//! What whole-program tests share.
#![allow(dead_code)] // Each test file is a program of its own and uses a part.

pub mod fakes;
pub mod onnx;
