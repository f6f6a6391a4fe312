//! What whole-program tests share.
#![allow(dead_code)] // Each test file is a program of its own and uses a part.

pub mod audience;
pub mod binary;
pub mod browser;
pub mod clip;
pub mod fakes;
pub mod harness;
pub mod http;
pub mod media_server;
pub mod onnx;
pub mod program;
pub mod rtsp;
pub mod rtsp_loop;
pub mod service;
pub mod wait;
pub mod whep;
pub mod whip_server;
