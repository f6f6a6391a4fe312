//! Live semantic segmentation for cameras.
//!
//! The path of a frame. Every arrow is a bounded queue ([`base::queue`]), which has a policy for when it is full:
//!
//! ```text
//!  per stream                          shared                        per stream
//!  capture ──frame──▶ [newest 1] ──▶ segment (batches across ──mask──▶ overlay ──▶ encode once ──▶ fan-out ─┬▶ RTSP
//!  GStreamer,   └─────frame─────────── streams)           ──────────▶  [bounded]  │  GStreamer                ├▶ WebRTC
//!  own thread                                                                     │ (redacts, draws)          ├▶ recording
//!                                                                                 │                           └▶ pushes
//!                                                                                 └▶ encode JPEG ─────────────▶ MJPEG
//! ```
//!
//! # Layers
//!
//! From top to bottom. A module uses only modules below its own. `tests/layers` checks this, and that no files use one
//! another in a cycle.
//!
//! | module | contents |
//! | --- | --- |
//! | [`commands`] | the command line |
//! | [`service`] | `maskcast run`: starts everything, applies changes |
//! | [`mqtt`] | states, shares and events for an MQTT broker, and for Home Assistant |
//! | [`server`] | HTTP: page, API, metrics |
//! | [`webhook`] | sends events to HTTP servers |
//! | [`comparison`] | two models on the same labelled images: which is better, and the report of it |
//! | [`view`] | the status of a running service, and the requests to change it |
//! | [`stream`] | one stream: its stages and their supervision |
//! | [`collect`] | frames that are collected for training |
//! | [`history`] | events and minute means of shares in a database (SQLite) |
//! | [`publish`] | outputs (GStreamer): RTSP, WebRTC, MJPEG, pushes, recordings, files |
//! | [`capture`] | sources (GStreamer) |
//! | [`gst`] | GStreamer helpers of sources and outputs |
//! | [`segment`] | models (ONNX Runtime), batches across streams |
//! | [`overlay`] | drawing masks on frames |
//! | [`redact`] | hiding classes in frames before they are drawn on and published |
//! | [`steady`] | masks that do not flicker, for drawing |
//! | [`drift`] | whether a camera has changed: turned, dirty, out of focus, in another light |
//! | [`events`] | rules: when they hold in the masks, and the events that they make |
//! | [`access`] | passwords, sessions, certificates and permissions |
//! | [`config`] | the TOML file and its validation, which reports all errors at once |
//! | [`users`] | the users file: users, tokens and their roles |
//! | [`sink`] | outputs for masks, and the types of `[[stream.sink]]` |
//! | [`zones`] | shares of the classes in the frame and in its zones |
//! | [`outbox`] | messages about events that wait for a receiver, in a database (SQLite) |
//! | [`base`] | queues, stop and retry, status and ledger, log deduplication, file writing, database files |
//! | [`frame`] | frames and masks, as plain data |
//! | [`gate`] | whether something has moved in a stream, or its last mask is still valid |
//!
//! Only [`capture`], [`publish`] and [`gst`] use GStreamer; only [`segment`] uses ONNX Runtime; only [`history`] and [`outbox`] use SQLite,
//! with [`base::database_file`]. The trainer is a package of its own,
//! `maskcast-train` in `src/train`, which uses this library.

#![deny(unsafe_code)]

// First, because the macros of its module `output` hide the standard ones in all modules declared after it.
#[macro_use]
pub mod base;

pub mod access;
pub mod capture;
pub mod collect;
pub mod commands;
pub mod comparison;
pub mod config;
pub mod drift;
pub mod events;
pub mod frame;
pub mod gate;
pub mod gst;
pub mod history;
pub mod mqtt;
pub mod outbox;
pub mod overlay;
pub mod publish;
pub mod redact;
pub mod segment;
pub mod server;
pub mod service;
pub mod sink;
pub mod steady;
pub mod stream;
pub mod users;
pub mod view;
pub mod webhook;
pub mod zones;
