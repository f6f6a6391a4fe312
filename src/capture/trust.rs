//! Trust in a camera's certificate: by the system's authorities, by a file of authorities (`tls_ca`), or by the fingerprint
//! of the certificate (`tls_fingerprint`).
//!
//! Most cameras have a self-signed certificate without a host name, which no authority confirms. Such a camera is
//! identified by the fingerprint of its certificate.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_rtsp_server::gio;
use x509_parser::prelude::{FromDer, X509Certificate};

use gio::prelude::*;
use parking_lot::Mutex;

use super::error::CertificateRefusal;
use crate::config::{CertificateFingerprint, SourceSpec};

/// Why a camera's certificate is not trusted, for the error of the connection that then fails.
#[derive(Debug, Default)]
pub struct RefusedCertificate(Mutex<Option<CertificateRefusal>>);

impl RefusedCertificate {
    /// The reason; `None` if no certificate was refused.
    pub fn reason(&self) -> Option<CertificateRefusal> {
        self.0.lock().clone()
    }

    fn set(&self, reason: CertificateRefusal) {
        *self.0.lock() = Some(reason);
    }
}

/// Applies the stream's `tls_ca` and `tls_fingerprint` to `source`, an `rtspsrc` or a `souphttpsrc`. If the file of `tls_ca`
/// cannot be read, that is recorded in `refused`.
pub fn set_up_trust(source: &gst::Element, spec: &SourceSpec, refused: &Arc<RefusedCertificate>) {
    if let Some(path) = &spec.tls_ca {
        match gio::TlsFileDatabase::new(path) {
            Ok(database) => source.set_property("tls-database", &database),
            Err(error) => {
                let (path, reason) = (path.clone(), error.to_string());
                refused.set(CertificateRefusal::AuthoritiesUnreadable { path, reason });
            }
        }
    }
    if source.find_property("tls-validation-flags").is_none() {
        return;
    }
    let (pinned, refused) = (spec.tls_fingerprint, Arc::clone(refused));
    // Emitted for a certificate that neither the system nor the file of authorities trusts.
    source.connect("accept-certificate", false, move |values| {
        let shown = values.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
        let problems = values.get(3).and_then(|value| value.get::<gio::TlsCertificateFlags>().ok());
        let der = shown.and_then(|certificate| certificate.property::<Option<gst::glib::ByteArray>>("certificate"));
        let fingerprint = der.as_ref().map(|der| CertificateFingerprint::of(der));
        let accepted = pinned.is_some() && fingerprint == pinned;
        if let Some((der, fingerprint)) = der.as_ref().zip(fingerprint).filter(|_| !accepted) {
            let names = subject_and_issuer(der);
            refused.set(match pinned {
                Some(_) => CertificateRefusal::OtherFingerprint { names, shown: fingerprint },
                None => CertificateRefusal::Untrusted { names, problems, shown: fingerprint },
            });
        }
        Some(accepted.to_value())
    });
}

/// The names in a certificate, for an error message.
fn subject_and_issuer(der: &[u8]) -> String {
    let names = X509Certificate::from_der(der).ok().map(|(_, certificate)| {
        let (subject, issuer) = (certificate.subject().to_string(), certificate.issuer().to_string());
        if subject == issuer {
            format!("{subject:?}, self-signed")
        } else {
            format!("{subject:?}, signed by {issuer:?}")
        }
    });
    names.unwrap_or_else(|| "which cannot be read".into())
}
