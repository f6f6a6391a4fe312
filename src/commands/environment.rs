//! Environment variables that libraries read before `main` begins, so that they must be set when the program starts.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Disables the telemetry of ONNX Runtime, which sends usage data to its vendor and keeps a file in the home folder. Its API
/// can disable it only after it has started.
pub const NO_TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// Disables TLS 1.0 and 1.1, which GLib's TLS accepts by default, for the RTSP server. GnuTLS's priority string is the only
/// way to do that (glib-networking, `G_TLS_GNUTLS_PRIORITY`). It also applies to connections to `rtsps` cameras: for a camera
/// without a newer version, set the variable to `NORMAL:%COMPAT`; the RTSP server then accepts the old versions as well.
pub const TLS_VERSIONS: (&str, &str) = ("G_TLS_GNUTLS_PRIORITY", "NORMAL:%COMPAT:-VERS-TLS1.1:-VERS-TLS1.0");

/// Executes the program again with those of `variables` that are not set; variables that the user has set keep their values.
/// Returns if all are set, or if the execution fails; then the program continues without them.
pub fn ensure(variables: &[(&str, &str)]) {
    let missing: Vec<_> = variables.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied().collect();
    if !missing.is_empty() {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    }
}
