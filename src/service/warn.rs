//! What the log is told of who may come in.

use crate::config::ServerConfig;
use crate::publish::rtsp_auth::RtspGuard;
use crate::users::Role;

/// What it means that there is nobody any more who could be asked for a password.
pub(super) fn opened(before: &ServerConfig, after: &ServerConfig) -> Option<String> {
    let is_open = !before.users.is_empty() && after.users.is_empty() && after.anonymous() == Some(Role::Operator);
    is_open.then(|| {
        format!(
            "server.users: there are no users any more: whoever is on this machine may watch and change everything at {}, \
             without a password; `maskcast user add NAME --config FILE` makes one",
            after.http
        )
    })
}

/// Says so where passwords would travel for everybody to read.
pub(super) fn warn_of_readable_passwords(config: &ServerConfig, guard: &RtspGuard) {
    if config.tls.is_none() && !config.http.ip().is_loopback() && !config.users.is_empty() {
        tracing::warn!(
            "server.http: {} has no TLS: passwords can be read on their way; give it [server.tls], or put a proxy with TLS \
             before it",
            config.http
        );
    }
    if let Some(warning) = guard.warning(config.rtsp) {
        tracing::warn!("{warning}");
    }
}
