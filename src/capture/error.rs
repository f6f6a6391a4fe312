//! Errors of sources.

use std::fmt;
use std::path::PathBuf;

use gstreamer as gst;
use gstreamer_rtsp_server::gio;

use crate::config::CertificateFingerprint;
use crate::gst::GstError;

/// Why a source cannot be opened or has no more frames. The text has no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The camera asks for user and password, and none are configured.
    #[error("the camera asks for user and password (set user and password_file or password_env): {}", .source.detail)]
    CredentialsMissing { source: GstError },

    /// The camera offers no login that GStreamer supports (basic, and digest with MD5). `offered` lists the schemes of its
    /// challenges, such as `Digest SHA-256`.
    #[error(
        "the camera offers no login but {offered}, which GStreamer does not support (allow digest with MD5, or basic, in the \
         camera's settings): {}",
        .source.detail
    )]
    LoginUnsupported { offered: String, source: GstError },

    /// The certificate of the camera is not trusted.
    #[error("{refusal}: {}", .source.detail)]
    CertificateRefused { refusal: CertificateRefusal, source: GstError },

    /// The source's video is in a format that cannot be converted: its caps.
    #[error(
        "the video arrives as {0}, which cannot be converted to I420 or NV12: set the source to another format, or read it by \
         a gst: address whose last element outputs video/x-raw"
    )]
    FormatUnsupported(String),

    /// The source has no video track.
    #[error("the source contains no video")]
    NoVideo,

    /// A decoded frame cannot be used.
    #[error("a decoded frame cannot be used: {0}")]
    UnusableFrame(String),

    /// A looped file cannot be started again.
    #[error("the file cannot be played again from its start")]
    CannotRestart,

    /// The path of a file cannot be converted to an address.
    #[error("{}: {reason}", .path.display())]
    InvalidPath { path: PathBuf, reason: String },

    /// The description of a `gst:` source has an error.
    #[error("GStreamer does not understand the description: {0}")]
    InvalidDescription(String),

    /// The description of a `gst:` source ends in a sink.
    #[error("the GStreamer description has no open end: its last element must output raw video")]
    NoOpenEnd,

    /// The source's pad cannot be linked.
    #[error("the source does not end in raw video: {0}")]
    NotRawVideo(#[source] gst::PadLinkError),

    /// Any other error of GStreamer; [`GstError::kind`] has the details.
    #[error(transparent)]
    GStreamer(#[from] GstError),
}

/// Why the certificate of a camera is not trusted, and what to configure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateRefusal {
    /// The file that `tls_ca` names cannot be read.
    AuthoritiesUnreadable { path: PathBuf, reason: String },
    /// The certificate is not the one of `tls_fingerprint`.
    OtherFingerprint { names: String, shown: CertificateFingerprint },
    /// Neither the system nor `tls_ca` trusts the certificate.
    Untrusted { names: String, problems: Option<gio::TlsCertificateFlags>, shown: CertificateFingerprint },
    /// A separate connection to an `https` camera found that its certificate is not trusted.
    Https { reason: String },
}

impl CertificateRefusal {
    /// The same with `hide` applied to all text that comes from the camera.
    pub(super) fn map_text(self, hide: impl Fn(&str) -> String) -> Self {
        match self {
            CertificateRefusal::AuthoritiesUnreadable { path, reason } => {
                CertificateRefusal::AuthoritiesUnreadable { path, reason: hide(&reason) }
            }
            CertificateRefusal::OtherFingerprint { names, shown } => {
                CertificateRefusal::OtherFingerprint { names: hide(&names), shown }
            }
            CertificateRefusal::Untrusted { names, problems, shown } => {
                CertificateRefusal::Untrusted { names: hide(&names), problems, shown }
            }
            CertificateRefusal::Https { reason } => CertificateRefusal::Https { reason: hide(&reason) },
        }
    }
}

impl fmt::Display for CertificateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateRefusal::AuthoritiesUnreadable { path, reason } => {
                write!(f, "{}: the certificates of tls_ca cannot be read: {reason}", path.display())
            }
            CertificateRefusal::OtherFingerprint { names, shown } => write!(
                f,
                "the camera's certificate ({names}) is not the one of tls_fingerprint: if the camera has a new certificate, \
                 set tls_fingerprint = \"{shown}\""
            ),
            CertificateRefusal::Untrusted { names, problems, shown } => write!(
                f,
                "the camera's certificate ({names}) is not trusted: {}; compare its SHA-256 fingerprint with the camera's and \
                 set tls_fingerprint = \"{shown}\", or name the PEM file of its authority in tls_ca",
                problem_text(*problems)
            ),
            CertificateRefusal::Https { reason } => write!(
                f,
                "the camera's certificate is not trusted ({reason}): name the PEM file of its authority in tls_ca"
            ),
        }
    }
}

fn problem_text(problems: Option<gio::TlsCertificateFlags>) -> String {
    let problems = problems.unwrap_or(gio::TlsCertificateFlags::empty());
    let texts: Vec<&str> = [
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
    .collect();
    if texts.is_empty() { "it is not valid".into() } else { texts.join(", ") }
}
