//! `[server.tls]`: the certificate and its key, reloaded when their files change.
//!
//! Open connections keep their certificate; new ones get the new pair. If the new pair is invalid or does not match, the
//! error is logged and the old pair stays in use, so that a half-written file, or a key that is replaced before its
//! certificate, does not interrupt the service.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::base::log_dedup;
use crate::config::TlsConfig;

/// How often the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long before its end a certificate is reported: enough to renew it by hand.
const EXPIRY_WARNING: Duration = Duration::from_secs(7 * 24 * 3600);

/// The certificate and key for new connections.
#[derive(Debug)]
pub struct Certificate {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    files: Mutex<WatchedFiles>,
}

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("server.tls.cert: {}: {source}", path.display())]
    CertificateFile { path: PathBuf, source: pem::Error },
    #[error("server.tls.cert: {}: the file has no certificate (PEM)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("server.tls.key: {}: {source}", path.display())]
    KeyFile { path: PathBuf, source: pem::Error },
    #[error("server.tls.key: {}: does not belong to the certificate", path.display())]
    Mismatch { path: PathBuf },
    #[error("server.tls.cert: {}: {source}", path.display())]
    Unusable { path: PathBuf, source: rustls::Error },
    #[error("server.tls: {0}")]
    Protocols(rustls::Error),
}

/// Inode, modification time and length of a file; `None` if it does not exist.
type FileVersion = Option<(u64, i64, i64, u64)>;

#[derive(Debug)]
struct WatchedFiles {
    /// The files that were loaded, or tried.
    loaded: [FileVersion; 2],
    /// The files at the previous check. A change is loaded when two checks agree: writing may not be complete.
    previous: [FileVersion; 2],
    checked_at: Instant,
    /// When the expiry and the permissions were last checked.
    warned_at: Instant,
}

impl Certificate {
    /// Reads the pair.
    ///
    /// # Errors
    /// A file cannot be read or used, or the key does not match.
    pub fn load(config: &TlsConfig) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(default_provider());
        let versions = versions(config);
        let pair = read(config, &provider)?;
        warn(config, &pair);
        Ok(Arc::new(Certificate {
            config: config.clone(),
            provider,
            current: RwLock::new(Arc::new(pair)),
            files: Mutex::new(WatchedFiles {
                loaded: versions,
                previous: versions,
                checked_at: Instant::now(),
                warned_at: Instant::now(),
            }),
        }))
    }

    /// The paths of the files.
    pub fn config(&self) -> &TlsConfig {
        &self.config
    }

    /// The TLS configuration of an HTTP/1.1 server, with TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// The cryptography provider supports neither.
    pub fn server(self: &Arc<Self>) -> Result<ServerConfig, CertificateError> {
        let resolver: Arc<Certificate> = Arc::clone(self);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Protocols)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }

    /// Reloads the pair if its files have changed; checks at most once a second. Returns whether a new pair is in use.
    pub fn reload_if_changed(&self, now: Instant) -> bool {
        let mut files = self.files.lock();
        if now.saturating_duration_since(files.checked_at) < CHECK_INTERVAL {
            return false;
        }
        files.checked_at = now;
        let found = versions(&self.config);
        let settled = found == files.previous;
        files.previous = found;
        if now.saturating_duration_since(files.warned_at) > DAY {
            files.warned_at = now;
            warn(&self.config, &self.current());
        }
        if found == files.loaded || !settled {
            return false;
        }
        // Also if it is invalid, so that the error is logged once and not every second.
        files.loaded = found;
        drop(files);
        match read(&self.config, &self.provider) {
            Ok(pair) => {
                warn(&self.config, &pair);
                *self.current.write() = Arc::new(pair);
                tracing::info!("certificate reloaded: {}", self.config.cert.display());
                true
            }
            Err(error) => {
                let text = format!("certificate not reloaded, the old one stays in use: {error}");
                log_dedup::error("", "", None, &text);
                false
            }
        }
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read())
    }

    /// When the certificate expires; `None` if it cannot be parsed.
    pub fn expires(&self) -> Option<Timestamp> {
        validity(&self.current()).map(|(_, end)| end)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Begin and end of the certificate's validity (RFC 5280, 4.1.2.5).
fn validity(pair: &CertifiedKey) -> Option<(Timestamp, Timestamp)> {
    let (_, cert) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    let at = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(cert.validity.not_before)?, at(cert.validity.not_after)?))
}

/// Logs a warning if clients will refuse the certificate, or if other local users can read the key.
fn warn(config: &TlsConfig, pair: &CertifiedKey) {
    let cert = config.cert.display();
    match validity(pair).and_then(|(start, end)| ValidityProblem::check(start, end, Timestamp::now())) {
        None => {}
        Some(ValidityProblem::Expired(end)) => tracing::warn!(
            "certificate has expired ({end}): browsers and players refuse it; renew it; server.tls.cert: {cert}"
        ),
        Some(ValidityProblem::NotYetValid { start, now }) => tracing::warn!(
            "certificate is not valid before {start}, and the clock of this machine shows {now:.0}: clients refuse it; check \
             the clock; server.tls.cert: {cert}"
        ),
        Some(ValidityProblem::ExpiresSoon(end)) => {
            tracing::warn!("certificate expires soon ({end}); renew it; server.tls.cert: {cert}");
        }
    }
    if config.key.metadata().is_ok_and(|file| file.mode() & 0o004 != 0) {
        let key = config.key.display();
        tracing::warn!("TLS key readable by every local user: server.tls.key: {key}; chmod o= {key}");
    }
}

/// Why clients refuse a certificate, or will within a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValidityProblem {
    Expired(Timestamp),
    NotYetValid { start: Timestamp, now: Timestamp },
    ExpiresSoon(Timestamp),
}

impl ValidityProblem {
    /// `None` if the certificate is valid for longer than [`EXPIRY_WARNING`].
    fn check(start: Timestamp, end: Timestamp, now: Timestamp) -> Option<Self> {
        if end < now {
            Some(ValidityProblem::Expired(end))
        } else if start > now {
            Some(ValidityProblem::NotYetValid { start, now })
        } else if end.duration_since(now) < SignedDuration::from_secs(EXPIRY_WARNING.as_secs() as i64) {
            Some(ValidityProblem::ExpiresSoon(end))
        } else {
            None
        }
    }
}

fn versions(config: &TlsConfig) -> [FileVersion; 2] {
    let version = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    [version(&config.cert), version(&config.key)]
}

fn read(config: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let (cert, key) = (&config.cert, &config.key);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|source| CertificateError::CertificateFile { path: cert.clone(), source })?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate { path: cert.clone() });
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|source| CertificateError::KeyFile { path: key.clone(), source })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch { path: key.clone() },
        source => CertificateError::Unusable { path: cert.clone(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_or_not_yet_valid_certificate_is_reported() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (start, end) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        let check = |now: &str| ValidityProblem::check(start, end, at(now));
        assert_eq!(check("2026-11-25T00:00:00Z"), None);
        assert_eq!(check("2026-12-28T00:00:00Z"), Some(ValidityProblem::ExpiresSoon(end)));
        assert_eq!(check("2027-01-02T00:00:00Z"), Some(ValidityProblem::Expired(end)));
        let early = at("1970-01-01T00:00:10Z");
        assert_eq!(check("1970-01-01T00:00:10Z"), Some(ValidityProblem::NotYetValid { start, now: early }));
    }

    /// Writes a new pair for localhost, or only one of the two; returns the certificate.
    fn write(config: &TlsConfig, cert: bool, key: bool) -> Vec<u8> {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        if cert {
            std::fs::write(&config.cert, pair.cert.pem()).unwrap();
        }
        if key {
            std::fs::write(&config.key, pair.signing_key.serialize_pem()).unwrap();
        }
        pair.cert.der().to_vec()
    }

    #[test]
    fn a_new_pair_is_loaded_and_an_invalid_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let first = write(&config, true, true);
        let certificate = Certificate::load(&config).unwrap();
        let current = || certificate.current.read().cert[0].to_vec();
        let mut now = Instant::now();
        let mut check = || {
            now += CHECK_INTERVAL;
            certificate.reload_if_changed(now)
        };
        assert_eq!(current(), first);
        assert!(!check() && !check());
        // Only one of the two files has changed.
        write(&config, true, false);
        assert!(!check() && !check() && !check());
        assert_eq!(current(), first);
        std::fs::write(&config.cert, "-----BEGIN CERT").unwrap();
        assert!(!check() && !check());
        std::fs::remove_file(&config.key).unwrap();
        assert!(!check() && !check());
        assert_eq!(current(), first);
        let second = write(&config, true, true);
        assert!(!check(), "writing may not be complete");
        assert!(check());
        assert_eq!(current(), second);
        assert!(!check());
    }

    #[test]
    fn errors_name_the_file_that_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        write(&config, true, true);
        write(&config, true, false);
        let error = Certificate::load(&config).unwrap_err();
        assert!(matches!(&error, CertificateError::Mismatch { path } if *path == config.key), "{error:?}");
        assert!(error.to_string().starts_with("server.tls.key: "), "{error}");
        std::fs::write(&config.cert, "").unwrap();
        let error = Certificate::load(&config).unwrap_err();
        assert!(matches!(&error, CertificateError::NoCertificate { path } if *path == config.cert), "{error:?}");
        assert!(error.to_string().starts_with("server.tls.cert: "), "{error}");
        std::fs::remove_file(&config.cert).unwrap();
        let error = Certificate::load(&config).unwrap_err();
        assert!(matches!(error, CertificateError::CertificateFile { .. }), "{error:?}");
        write(&config, true, true);
        std::fs::write(&config.key, "x").unwrap();
        let error = Certificate::load(&config).unwrap_err();
        assert!(matches!(&error, CertificateError::KeyFile { path, .. } if *path == config.key), "{error:?}");
    }
}
