//! `[server.tls]`: the certificate and its key, read again when their files change.
//!
//! Connections that are open keep what they began with; new ones get the new pair. A pair that is broken or does not fit is
//! told in the log, and the old one goes on: half-written files, or a key that is replaced before its certificate, cut
//! nobody off.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::lock;
use crate::base::log_dedup;
use crate::config::TlsConfig;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Who renews certificates by hand wants a week for it.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The pair that is shown to new connections.
#[derive(Debug)]
pub struct Certificate {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    seen: Mutex<SeenFiles>,
}

/// What of a file tells that it was changed.
type FileStamp = Option<(u64, i64, i64, u64)>;

#[derive(Debug)]
struct SeenFiles {
    taken: [FileStamp; 2],
    /// Taken when it is still the same at the next look: whoever writes may not be ready.
    last: [FileStamp; 2],
    at: Instant,
    /// When it was last asked whether there is something to warn of.
    warned: Instant,
}

impl Certificate {
    /// Reads the pair.
    ///
    /// # Errors
    /// A key path and what is wrong, as in `server.tls.key: … does not belong to the certificate`.
    pub fn load(config: &TlsConfig) -> Result<Arc<Self>, String> {
        let provider = Arc::new(default_provider());
        let stamps = stamps(config);
        let pair = read(config, &provider)?;
        warn(config, &pair);
        Ok(Arc::new(Certificate {
            config: config.clone(),
            provider,
            current: RwLock::new(Arc::new(pair)),
            seen: Mutex::new(SeenFiles { taken: stamps, last: stamps, at: Instant::now(), warned: Instant::now() }),
        }))
    }

    /// The files.
    pub fn config(&self) -> &TlsConfig {
        &self.config
    }

    /// What a server of HTTP/1.1 needs; TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// When the crate's provider knows neither.
    pub fn server(self: &Arc<Self>) -> Result<ServerConfig, String> {
        let resolver: Arc<Certificate> = Arc::clone(self);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }

    /// Looks at the files, no more than once a second; true when another pair was taken.
    pub fn follow(&self, now: Instant) -> bool {
        let mut seen = lock(&self.seen);
        if now.saturating_duration_since(seen.at) < LOOK {
            return false;
        }
        seen.at = now;
        let found = stamps(&self.config);
        let settled = found == seen.last;
        seen.last = found;
        if now.saturating_duration_since(seen.warned) > DAY {
            seen.warned = now;
            warn(&self.config, &self.current());
        }
        if found == seen.taken || !settled {
            return false;
        }
        // Also when it is broken: told once, not every second.
        seen.taken = found;
        drop(seen);
        match read(&self.config, &self.provider) {
            Ok(pair) => {
                warn(&self.config, &pair);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                tracing::info!("the certificate {} was read again", self.config.cert.display());
                true
            }
            Err(problem) => {
                log_dedup::error("", "", None, &format!("{problem}; the old certificate goes on"));
                false
            }
        }
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the certificate ends; `None` when it does not say.
    pub fn expires(&self) -> Option<Timestamp> {
        validity(&self.current()).map(|(_, end)| end)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// From when until when the certificate itself is valid (RFC 5280, 4.1.2.5).
fn validity(pair: &CertifiedKey) -> Option<(Timestamp, Timestamp)> {
    let (_, cert) = X509Certificate::from_der(pair.cert.first()?).ok()?;
    let at = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(cert.validity.not_before)?, at(cert.validity.not_after)?))
}

/// Says what will keep clients out although the pair can be used, and who else may read the key.
fn warn(config: &TlsConfig, pair: &CertifiedKey) {
    if let Some(problem) = validity(pair).and_then(|(start, end)| out_of_time(start, end, Timestamp::now())) {
        tracing::warn!("server.tls.cert: {} {problem}", config.cert.display());
    }
    if config.key.metadata().is_ok_and(|file| file.mode() & 0o004 != 0) {
        let key = config.key.display();
        tracing::warn!("server.tls.key: {key} is readable for everybody on this machine; chmod o= {key}");
    }
}

/// What is wrong with a certificate's time, or will be in a week.
fn out_of_time(start: Timestamp, end: Timestamp, now: Timestamp) -> Option<String> {
    if end < now {
        Some(format!("has expired ({end}): browsers and players refuse it"))
    } else if start > now {
        Some(format!("is not valid before {start}, and this machine's clock says {now:.0}: clients refuse it"))
    } else if end.duration_since(now) < SignedDuration::from_secs(SOON.as_secs() as i64) {
        Some(format!("expires soon ({end})"))
    } else {
        None
    }
}

fn stamps(config: &TlsConfig) -> [FileStamp; 2] {
    let stamp = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    [stamp(&config.cert), stamp(&config.key)]
}

fn read(config: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let cert = |problem: &dyn std::fmt::Display| format!("server.tls.cert: {}: {problem}", config.cert.display());
    let key = |problem: &dyn std::fmt::Display| format!("server.tls.key: {}: {problem}", config.key.display());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&config.cert).and_then(Iterator::collect).map_err(|error| cert(&error))?;
    if chain.is_empty() {
        return Err(cert(&"there is no certificate in it (PEM)"));
    }
    let private = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| key(&error))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => key(&"does not belong to the certificate"),
        error => cert(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_out_of_its_time_is_told() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let told = |now: &str| out_of_time(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), at(now));
        assert_eq!(told("2026-11-25T00:00:00Z"), None);
        assert!(told("2026-12-28T00:00:00Z").unwrap().starts_with("expires soon (2027-01-01T00:00:00Z)"));
        assert!(told("2027-01-02T00:00:00Z").unwrap().starts_with("has expired"));
        assert!(told("1970-01-01T00:00:10Z").unwrap().starts_with("is not valid before 2026-01-01T00:00:00Z"));
    }

    /// Writes a new pair for localhost, or only one of the two; gives the certificate.
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
    fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let first = write(&config, true, true);
        let certificate = Certificate::load(&config).unwrap();
        let shown = || certificate.current.read().unwrap().cert[0].to_vec();
        let mut now = Instant::now();
        let mut look = || {
            now += LOOK;
            certificate.follow(now)
        };
        assert_eq!(shown(), first);
        assert!(!look() && !look());
        // One of the two is half a change.
        write(&config, true, false);
        assert!(!look() && !look() && !look());
        assert_eq!(shown(), first);
        std::fs::write(&config.cert, "-----BEGIN CERT").unwrap();
        assert!(!look() && !look());
        std::fs::remove_file(&config.key).unwrap();
        assert!(!look() && !look());
        assert_eq!(shown(), first);
        let second = write(&config, true, true);
        assert!(!look(), "whoever writes may not be ready");
        assert!(look());
        assert_eq!(shown(), second);
        assert!(!look());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        write(&config, true, true);
        write(&config, true, false);
        let problem = Certificate::load(&config).unwrap_err();
        assert!(
            problem.starts_with("server.tls.key: ") && problem.ends_with("does not belong to the certificate"),
            "{problem}"
        );
        std::fs::write(&config.cert, "").unwrap();
        assert!(Certificate::load(&config).unwrap_err().starts_with("server.tls.cert: "));
        write(&config, true, true);
        std::fs::write(&config.key, "x").unwrap();
        assert!(Certificate::load(&config).unwrap_err().starts_with("server.tls.key: "));
    }
}
