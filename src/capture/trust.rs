//! Whom a camera's certificate is trusted by: this system, a file of authorities, or its own fingerprint.
//!
//! Cameras make their certificates themselves, mostly for no name, and there is no authority that a stranger would not be
//! trusted by as well. Such a camera is known by its certificate's fingerprint (`tls_fingerprint`).

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_rtsp_server::gio;
use x509_parser::prelude::{FromDer, X509Certificate};

use gio::prelude::*;

use crate::config::{CertificateFingerprint, SourceSpec};

/// The certificate that a camera has shown and that is not trusted, for the message of the failure that follows.
#[derive(Debug, Default)]
pub struct RefusedCertificate(Mutex<Option<String>>);

impl RefusedCertificate {
    /// What is wrong with it, and what can be done.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// Makes `source`, an `rtspsrc` or a `souphttpsrc`, trust what the stream's settings name. A file that cannot be read is
/// noted as the reason of the failure that follows.
pub fn set_up_trust(source: &gst::Element, spec: &SourceSpec, refused: &Arc<RefusedCertificate>) {
    if let Some(path) = &spec.tls_ca {
        match gio::TlsFileDatabase::new(path) {
            Ok(database) => source.set_property("tls-database", &database),
            Err(error) => {
                refused.set(format!("{}: the certificates of tls_ca cannot be read: {error}", path.display()));
            }
        }
    }
    if source.find_property("tls-validation-flags").is_none() {
        return;
    }
    let (pinned, refused) = (spec.tls_fingerprint, Arc::clone(refused));
    // Asked for what neither the system nor the file of authorities trusts.
    source.connect("accept-certificate", false, move |values| {
        let shown = values.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
        let problems = values.get(3).and_then(|value| value.get::<gio::TlsCertificateFlags>().ok());
        let der = shown.and_then(|certificate| certificate.property::<Option<gst::glib::ByteArray>>("certificate"));
        let fingerprint = der.as_ref().map(|der| CertificateFingerprint::of(der));
        let accepted = pinned.is_some() && fingerprint == pinned;
        if let Some((der, fingerprint)) = der.as_ref().zip(fingerprint).filter(|_| !accepted) {
            refused.set(explain(der, fingerprint, problems, pinned));
        }
        Some(accepted.to_value())
    });
}

fn explain(
    der: &[u8],
    fingerprint: CertificateFingerprint,
    problems: Option<gio::TlsCertificateFlags>,
    pinned: Option<CertificateFingerprint>,
) -> String {
    let names = X509Certificate::from_der(der).ok().map(|(_, certificate)| {
        let (subject, issuer) = (certificate.subject().to_string(), certificate.issuer().to_string());
        if subject == issuer {
            format!("{subject:?}, signed by itself")
        } else {
            format!("{subject:?}, signed by {issuer:?}")
        }
    });
    let names = names.unwrap_or_else(|| "which cannot be read".into());
    if pinned.is_some() {
        return format!(
            "the camera's certificate ({names}) is not the one of tls_fingerprint: if the camera was given a new one, set \
             tls_fingerprint = \"{fingerprint}\""
        );
    }
    let problem = problems.map_or_else(String::new, |problems| {
        [
            (gio::TlsCertificateFlags::UNKNOWN_CA, "its authority is unknown"),
            (gio::TlsCertificateFlags::BAD_IDENTITY, "it is for another host"),
            (gio::TlsCertificateFlags::NOT_ACTIVATED, "it is not valid yet"),
            (gio::TlsCertificateFlags::EXPIRED, "it has expired"),
            (gio::TlsCertificateFlags::REVOKED, "it was revoked"),
            (gio::TlsCertificateFlags::INSECURE, "its algorithm is insecure"),
        ]
        .into_iter()
        .filter(|(flag, _)| problems.contains(*flag))
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .join(", ")
    });
    let problem = if problem.is_empty() { "it is not valid".into() } else { problem };
    format!(
        "the camera's certificate ({names}) is not trusted: {problem}; compare its SHA-256 fingerprint with the camera's and set \
         tls_fingerprint = \"{fingerprint}\", or name the PEM file of its authority in tls_ca"
    )
}
