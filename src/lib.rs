//! Live semantic segmentation for cameras.
//!
//! The way of a frame; every arrow is a bounded queue ([`queue`]) that says what it does when full:
//!
//! ```text
//!  per stream                          shared                        per stream
//!  capture ──frame──▶ [latest 1] ──▶ segment (batches across ──mask──▶ overlay ──▶ encode once ──▶ fan-out ─▶ RTSP
//!  GStreamer,   └─────frame─────────── streams)           ──────────▶  [bounded]    GStreamer                ├▶ recording
//!  own thread                                                                          └────▶ JPEG ─────────▶ MJPEG
//! ```
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`config`] | the TOML file, validated: all errors at once |
//! | [`frame`] | frames, masks, pictures: what flows |
//! | [`queue`] | the bounded queue between stages |
//! | [`heap`] | memory that goes back to the system |
//! | [`descriptors`] | file descriptors, and those that viewers cannot take |
//! | [`repeats`] | log lines of faults that repeat |
//! | [`bounded`] | text from outside, fit for a line of the log |
//! | [`output`] | standard output that a reader may close |
//! | [`stream`] | one stream: stages, supervision, accounts, freshness |
//! | [`capture`] | sources (GStreamer) |
//! | [`segment`] | models (ONNX Runtime), batching across streams |
//! | [`overlay`] | drawing masks on planes |
//! | [`events`] | what is worth a recording, seen in the masks |
//! | [`publish`] | outputs (GStreamer): RTSP, WebRTC, MJPEG, recordings, files |
//! | [`access`] | users, roles, passwords, sessions |
//! | [`server`] | HTTP: page, API, metrics |
//! | [`service`] | `maskcast run`: all of it together |
//! | [`commands`] | the command line |
//!
//! Only [`capture`], [`publish`] and [`gst`] know GStreamer; only [`segment`] knows ONNX Runtime.
#![deny(unsafe_code)]

// First: its macros hide the standard ones in every module below.
#[macro_use]
pub mod output;

pub mod access;
pub mod bounded;
pub mod capture;
pub mod commands;
pub mod config;
mod default_context;
pub mod descriptors;
pub mod events;
pub mod frame;
pub mod gst;
pub mod heap;
pub mod overlay;
pub mod paths;
pub mod publish;
pub mod queue;
pub mod repeats;
pub mod segment;
pub mod server;
pub mod service;
pub mod stream;
#[cfg(feature = "trainer")]
pub mod train;
