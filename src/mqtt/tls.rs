//! TLS to a broker: its certificate is checked against the authorities of the system or of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use super::error::MqttError;

/// The settings of TLS. The files are read again for each connection, since authorities may be replaced.
///
/// # Errors
/// A file cannot be read, or contains no certificate that can be used.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, MqttError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let Some(path) = ca else { return Ok(builder.with_platform_verifier()?.with_no_client_auth()) };
    let unreadable = |source| MqttError::Authorities { path: path.to_path_buf(), source };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(authority.map_err(unreadable)?)?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
