//! What libraries read from the environment before `main` begins, so that it has to be there when the program starts.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// ONNX Runtime tells its makers how it is used, and keeps a file for that in the home folder. What is asked of its API
/// comes after it has begun with that, so it has to be told before. Nothing of a camera's machine is anybody's business.
pub const NO_TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// GLib's TLS, by which RTSP is served, takes TLS 1.0 and 1.1 by itself, and GnuTLS's choice of versions is the only way to
/// tell it not to (glib-networking, `G_TLS_GNUTLS_PRIORITY`). Holds for cameras by `rtsps` as well: whoever has one that
/// knows nothing newer sets the variable to `NORMAL:%COMPAT`, and RTSP takes the old versions with it.
pub const TLS_VERSIONS: (&str, &str) = ("G_TLS_GNUTLS_PRIORITY", "NORMAL:%COMPAT:-VERS-TLS1.1:-VERS-TLS1.0");

/// Starts the program once more with those of `variables` that are not set; who sets one decides. It only comes back when
/// there is none, or when that fails, and then things go on without.
pub fn ensure(variables: &[(&str, &str)]) {
    let missing: Vec<_> = variables.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied().collect();
    if !missing.is_empty() {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    }
}
