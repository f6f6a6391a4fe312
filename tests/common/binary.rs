//! The program under test. The trainer's tests have their own version of this file, because it is not a binary of their package.

use std::path::PathBuf;

/// The path of `maskcast`, which Cargo builds before it builds this test.
pub fn maskcast() -> PathBuf {
    env!("CARGO_BIN_EXE_maskcast").into()
}
