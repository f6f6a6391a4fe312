//! The program of the service, which loads the models of the trainer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The path of `maskcast`. Cargo builds only the binaries of the package of a test, so that this one is built when the first
/// test needs it.
pub fn maskcast() -> PathBuf {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);
    PROGRAM.clone()
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let trainer = Path::new(env!("CARGO_BIN_EXE_maskcast-train"));
    // The folder `debug` or `release`, and its parent, the target folder.
    let (profile, target) = (trainer.parent().unwrap(), trainer.ancestors().nth(2).unwrap());
    // As a part of a small test program: `cargo build` would compile the dependencies once more, with the features that they have
    // without tests.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--locked", "--workspace", "--no-run", "--test", "layers", "--message-format", "json"]);
    cargo.arg("--target-dir").arg(target).current_dir(root);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{cargo:?} failed: {}", output.status);
    let messages = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut executables = messages.filter_map(|line| {
        let message: Value = serde_json::from_slice(line).unwrap();
        let is_program = message["target"]["kind"][0] == "bin" && message["target"]["name"] == "maskcast";
        message["executable"].as_str().filter(|_| is_program).map(PathBuf::from)
    });
    executables.next_back().expect("Cargo names the executable that it has built")
}
