//! Streams of cameras that fail: every file in `tests/scenarios/` is a test, with a real camera server, the real service,
//! and viewers by MJPEG and by RTSP.
//!
//! `cargo test --test faulty_cameras stall` runs those with `stall` in their name.

mod common;
mod faulty_camera;
#[path = "faulty_camera/runner.rs"]
mod runner;

use std::path::Path;

use faulty_camera::scenario::Scenario;
use libtest_mimic::{Arguments, Trial};
use runner::run_scenario;

/// Scenarios mostly wait, so more of them than cores can run at once.
const TESTS_PER_CORE: usize = 2;

fn main() {
    let mut arguments = Arguments::from_args();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    arguments.test_threads.get_or_insert((TESTS_PER_CORE * cores).min(8));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty(), "{} has no scenario", folder.display());
    let trials = files.into_iter().map(|file| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Trial::test(name, move || {
            let scenario = Scenario::load(&file).map_err(|error| format!("{error:#}"))?;
            run_scenario(&scenario).map_err(Into::into)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
