//! Requests of commands to a running service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Failure;
use crate::base::secret::Secret;

/// A client that trusts the certificates of the system, or only the certificate in the file `ca`. Error statuses are responses.
/// `timeout` limits a request and its response.
///
/// # Errors
/// The file is not a certificate.
pub(super) fn agent(ca: Option<&Path>, timeout: Option<Duration>) -> Result<ureq::Agent, Failure> {
    let mut config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout);
    if let Some(path) = ca {
        let located = |problem: &dyn std::fmt::Display| Failure::usage(format!("{}: {problem}", path.display()));
        let text = std::fs::read(path).map_err(|error| located(&error))?;
        let certificate = Certificate::from_pem(&text).map_err(|error| located(&error))?;
        let roots = RootCerts::Specific(Arc::new(vec![certificate]));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().into())
}

/// The token in a file, or in `$MASKCAST_TOKEN`.
///
/// # Errors
/// The file cannot be read.
pub(super) fn token(file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    let token = match file {
        Some(path) => Some(read(path)?),
        None => std::env::var("MASKCAST_TOKEN").ok(),
    };
    Ok(token.map(|token| Secret::new(token.trim())).filter(|token| !token.expose().is_empty()))
}

/// The text of a file.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
