//! Commands whose output is not read to its end, or cannot be written.

mod common;

use std::fs::File;
use std::process::{Command, Stdio};

use common::program::{DEADLINE, Guard, maskcast};
use common::service::{folder, write_config};

/// The writing end of a pipe whose reading end is closed.
fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// Runs a command; its exit code and its standard error.
fn ended(command: &mut Command) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stderr");
    let mut child = Guard::spawn(command.stdin(Stdio::null()).stderr(File::create(&path).unwrap()));
    (child.wait(DEADLINE).code(), std::fs::read_to_string(&path).unwrap())
}

#[test]
fn a_closed_pipe_does_not_change_the_exit_code() {
    let folder = folder();
    let config = write_config(folder.path(), "[[stream]]\nname = \"ball\"\nsource = \"test://ball\"\n");
    let model = folder.path().join("channels.onnx");
    let (config, model) = (config.to_str().unwrap(), model.to_str().unwrap());
    for arguments in [
        &["check", config][..],
        &["doctor"],
        &["doctor", "--json"],
        &["model", "show", model],
        &["model", "verify", model],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["--help"],
        &["--version"],
    ] {
        let open = ended(maskcast().args(arguments).stdout(Stdio::null()));
        let (code, stderr) = ended(maskcast().args(arguments).stdout(closed_pipe()));
        assert_eq!(code, open.0, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_closed_standard_error_does_not_change_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    let mut child = Guard::spawn(maskcast().arg("check").arg(&missing).stdout(closed_pipe()).stderr(closed_pipe()));
    assert_eq!(child.wait(DEADLINE).code(), Some(78));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let (code, stderr) = ended(maskcast().args(["completions", "bash"]).stdout(File::create("/dev/full").unwrap()));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("standard output cannot be written: No space left on device"), "{stderr}");
}
