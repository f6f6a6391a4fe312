//! Warnings about the configuration.

use super::check::unused_names;
use crate::config::{Config, ServerConfig};
use crate::frame::Label;
use crate::publish::rtsp_auth::RtspGuard;
use crate::users::Role;

/// Logs a warning if a reload has removed the last user.
pub(super) fn warn_of_removed_users(before: &ServerConfig, after: &ServerConfig) {
    if !before.users.is_empty() && after.users.is_empty() && after.anonymous() == Some(Role::Operator) {
        tracing::warn!(
            "server.users has no users left: every local process has full access to {} without a password; add a user with \
             `maskcast user add NAME --config FILE`",
            after.http
        );
    }
}

/// Logs a warning if passwords are sent over the network without TLS.
pub(super) fn warn_of_plain_passwords(config: &ServerConfig, guard: &RtspGuard) {
    if config.tls.is_none() && !config.http.ip().is_loopback() && !config.users.is_empty() {
        tracing::warn!(
            "server.http has no TLS, so passwords can be read on the network: {}; set [server.tls], or put a proxy with TLS \
             in front",
            config.http
        );
    }
    if let Some(warning) = guard.warning(config.rtsp) {
        tracing::warn!("{warning}");
    }
}

/// Logs a warning if a webhook or MQTT names a stream, rule or class that does not exist.
pub(super) fn warn_of_unused_names(config: &Config, labels: Option<&[Label]>) {
    let found = unused_names(config, labels);
    if !found.is_empty() {
        tracing::warn!("configuration refers to unknown names: {}", found.join("; "));
    }
}
