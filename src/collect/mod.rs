//! Frames of a stream that are collected for training: chosen from the live video, stored with the mask of the model, corrected
//! and accepted by a person, and read by the trainer.
//!
//! The folder of a stream is a data set in the layout of Pascal VOC, which `maskcast-train`, CVAT ("Segmentation mask 1.1") and
//! Datumaro read:
//!
//! | path | content |
//! | --- | --- |
//! | `JPEGImages/ID.jpg` | the frame, or the stream's `crop` of it, as it was decoded |
//! | `SegmentationClass/ID.png` | its label: a palette PNG, index = class, 255 = void; the proposal until somebody saves another |
//! | `Proposals/ID.png` | the mask of the model when the frame was collected, in the same format |
//! | `ImageSets/Segmentation/accepted.txt` | the frames that a person has accepted |
//! | `ImageSets/Segmentation/proposed.txt` | the frames that wait for a person |
//! | `labelmap.txt` | names and colours of the classes, in the order of their indices |
//! | `Frames/ID.json` | the [`record`] of the frame |
//!
//! The records are authoritative: lists are written from them. Every file is replaced in one step
//! ([`crate::base::atomic_file`]).

mod chooser;
mod class_map;
pub mod collector;
pub mod error;
mod eviction;
mod files;
mod label_png;
mod picture;
pub mod record;
pub mod store;
pub mod stream_collection;
mod thumbnail;
