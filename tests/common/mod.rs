//! Helpers that the whole-program tests share.
#![allow(dead_code)] // Each test file is its own program and uses a part.

pub mod binary;
pub mod browser;
pub mod clip;
pub mod fakes;
pub mod harness;
pub mod http;
pub mod live;
pub mod logging_viewer;
pub mod media_server;
pub mod mosquitto;
pub mod onnx;
pub mod picture;
pub mod program;
pub mod receiver;
pub mod rtsp;
pub mod rtsp_loop;
pub mod schema;
pub mod service;
pub mod wait;
pub mod whep;
pub mod whip_server;
