//! Environment variables that are the only way to configure a library.
//!
//! `std::env::set_var` is unsafe, because another thread may read the environment at the same time.
#![allow(unsafe_code)]

/// Disables the telemetry of ONNX Runtime, which sends usage data to its vendor and keeps a file in the home folder. Its API
/// can disable it only after it has started. Read when the library is loaded.
pub const NO_TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// Disables TLS 1.0 and 1.1, which GLib's TLS accepts by default, for the RTSP server. GnuTLS's priority string is the only
/// way to do that (glib-networking, `G_TLS_GNUTLS_PRIORITY`). It also applies to connections to `rtsps` cameras: for a camera
/// without a newer version, set the variable to `NORMAL:%COMPAT`; the RTSP server then accepts the old versions as well. Read
/// before the first connection.
pub const TLS_VERSIONS: (&str, &str) = ("G_TLS_GNUTLS_PRIORITY", "NORMAL:%COMPAT:-VERS-TLS1.1:-VERS-TLS1.0");

/// Sets a variable for the libraries of this process; a value that the user has set is kept. To be called before other
/// threads start; afterwards it has no effect.
pub fn set_default((name, value): (&str, &str)) {
    let is_single_threaded = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if is_single_threaded && std::env::var_os(name).is_none() {
        // SAFETY: No other thread exists that could read or write the environment.
        unsafe { std::env::set_var(name, value) };
    }
}
