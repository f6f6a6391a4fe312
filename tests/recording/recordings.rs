//! A recorded stream and its recordings.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::clip;
use crate::common::http::get_json;
use crate::common::service::Service;

/// Configuration of a stream of a moving ball that is recorded to `rec`; `record`: further settings of the recording.
pub fn stream(fps: u32, source: &str, record: &str) -> String {
    format!(
        "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps={fps}{source}\"\n\
         encode.keyframe_interval = \"60s\"\n[stream.record]\ndir = \"rec\"\n{record}\n"
    )
}

/// The recordings that the API lists.
pub fn list(service: &Service) -> Vec<Value> {
    get_json(&format!("{}api/v1/streams/gate/recordings", service.page)).as_array().unwrap().clone()
}

/// Total number of frames in the files; fails when a file cannot be decoded without errors.
pub fn frames(files: &[PathBuf]) -> u64 {
    let count = |file: &PathBuf| {
        assert_eq!(clip::decode_errors(file), "", "{}", file.display());
        clip::probe(file).frames
    };
    files.iter().map(count).sum()
}
