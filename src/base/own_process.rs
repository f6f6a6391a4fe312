//! Tests that need a process of their own, because they measure it while other tests use its memory, files and threads.

use std::process::Command;

const ALONE: &str = "MASKCAST_TEST_ALONE";

/// Runs the test `name` of `module` (`module_path!()`) in a new process that has no other test, unless this is that process. Returns
/// true if the test has passed there and has nothing to do here.
///
/// # Panics
/// The test has failed in the new process; the message has its output.
pub fn ran_in_own_process(module: &str, name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let (_, module) = module.split_once("::").expect("the module of a test is not the root of its crate");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output =
        command.args(["--exact", &format!("{module}::{name}"), "--nocapture"]).env(ALONE, "1").output().unwrap();
    let [text, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    true
}
