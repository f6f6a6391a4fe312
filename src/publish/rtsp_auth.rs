//! Who may watch by RTSP: the same users as everywhere.
//!
//! Players prove a password in one of two ways. Basic sends it as it is: fine under TLS, readable by everybody on the way
//! without. Digest does not send it, but then the server must know the password or its MD5, which an Argon2 hash does not
//! give: only users who were added with `--rtsp-digest` can use it. So:
//!
//! | RTSP listens | Basic | Digest |
//! | --- | --- | --- |
//! | with TLS | yes | no: Basic is as safe, for all users |
//! | on this machine only, without | yes | who has one |
//! | on a network, without | only with `rtsp_plain_auth = true` | who has one |
//!
//! Under TLS pictures come inside the connection, too: UDP would carry them readable.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use gst::glib;
use rtsp_server::gio::{TlsBackend, TlsCertificate};
use rtsp_server::gst_rtsp::RTSPAuthMethod;
use rtsp_server::prelude::*;

use super::OutputError;
use crate::access::tls::Certificate;
use crate::access::{Access, REALM};
use crate::config::ServerConfig;

/// The one role: whoever is let in may watch every stream.
const VIEWER: &str = "viewer";

/// What guards an RTSP server.
pub struct RtspGuard {
    pub access: Arc<Access>,
    /// Whether viewers have to say who they are.
    pub asks: bool,
    /// Whether passwords may come as they are.
    pub basic: bool,
    pub certificate: Option<Arc<Certificate>>,
}

impl RtspGuard {
    /// What the configuration asks for.
    pub fn new(config: &ServerConfig, access: Arc<Access>, certificate: Option<Arc<Certificate>>) -> Self {
        let basic = certificate.is_some() || config.rtsp_plain_auth || config.rtsp.ip().is_loopback();
        RtspGuard { access, asks: config.guards_rtsp(), basic, certificate }
    }

    /// What a viewer on this address can do, where it is less than one would think.
    pub fn warning(&self, address: SocketAddr) -> Option<String> {
        if !self.asks || self.certificate.is_some() || address.ip().is_loopback() {
            return None;
        }
        Some(match (self.basic, self.access.users().users.iter().any(|user| user.rtsp_digest.is_some())) {
            (true, _) => format!("server.rtsp: {address} has no TLS: passwords can be read on their way (rtsp_plain_auth)"),
            (false, true) => format!("server.rtsp: {address} has no TLS: only users with an RTSP digest can watch there"),
            (false, false) => format!(
                "server.rtsp: nobody can watch at {address}: it has no TLS, and no user has an RTSP digest; give it \
                 [server.tls], or add users with --rtsp-digest, or let passwords be read on their way with \
                 rtsp_plain_auth = true"
            ),
        })
    }

    /// The guard as GStreamer's server knows one; none where everybody may watch without TLS.
    ///
    /// # Errors
    /// A certificate that GLib's TLS cannot use.
    pub(super) fn make(&self) -> Result<Option<RtspAuth>, OutputError> {
        if !self.asks && self.certificate.is_none() {
            return Ok(None);
        }
        let auth: RtspAuth = glib::Object::new();
        auth.set_realm(Some(REALM));
        let state = imp::State {
            access: self.asks.then(|| Arc::clone(&self.access)),
            basic: self.basic,
            token: Some(rtsp_server::RTSPToken::builder().field("media.factory.role", VIEWER).build()),
        };
        auth.set(state);
        let digest = self.asks && self.certificate.is_none();
        let methods = [(self.basic, RTSPAuthMethod::Basic), (digest, RTSPAuthMethod::Digest)];
        let methods = methods.into_iter().filter(|(on, _)| *on);
        // The setter takes one of its flags or both; the crate knows them as values.
        auth.offer(methods.map(|(_, method)| method).collect());
        if digest {
            add_digests(&auth, &self.access)?;
        }
        if let Some(certificate) = &self.certificate {
            set_certificate(&auth, certificate)?;
        }
        Ok(Some(auth))
    }
}

/// Shows new clients the pair that is in the files now.
///
/// # Errors
/// One that GLib's TLS cannot use.
pub(super) fn set_certificate(auth: &RtspAuth, certificate: &Certificate) -> Result<(), OutputError> {
    let files = certificate.config();
    let backend = TlsBackend::default();
    if !backend.supports_tls() {
        return Err(OutputError("server.tls: GLib has no TLS for RTSP: install glib-networking".into()));
    }
    let pair = TlsCertificate::from_files(&files.cert, &files.key)
        .map_err(|error| OutputError(format!("server.tls: {}: {}", files.cert.display(), error.message())))?;
    auth.set_tls_certificate(Some(&pair));
    Ok(())
}

/// Gives GStreamer the digests, which it takes as a file only.
fn add_digests(auth: &RtspAuth, access: &Access) -> Result<(), OutputError> {
    let failed = |error: std::io::Error| OutputError(format!("server.rtsp: the users' digests: {error}"));
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    let mut any = false;
    for user in &access.users().users {
        if let Some(digest) = &user.rtsp_digest {
            writeln!(file, "{}:{REALM}:{}", user.name, digest.expose()).map_err(failed)?;
            any = true;
        }
    }
    file.flush().map_err(failed)?;
    let token = rtsp_server::RTSPToken::builder().field("media.factory.role", VIEWER).build();
    if any && !auth.parse_htdigest(file.path(), &token) {
        return Err(OutputError("server.rtsp: the users' digests cannot be read".into()));
    }
    Ok(())
}

/// What a media factory lets through: viewers, or nobody (then there is nothing at that path, but only those who are let in
/// are told so).
pub(super) fn permit(factory: &rtsp_server::RTSPMediaFactory, allowed: bool) {
    let role = gst::Structure::builder(VIEWER)
        .field("media.factory.access", allowed)
        .field("media.factory.construct", allowed)
        .build();
    factory.add_role_from_structure(&role);
}

glib::wrapper! {
    /// GStreamer's guard, with our users.
    pub struct RtspAuth(ObjectSubclass<imp::RtspAuth>) @extends rtsp_server::RTSPAuth;
}

impl RtspAuth {
    fn set(&self, state: imp::State) {
        use glib::subclass::prelude::ObjectSubclassIsExt;
        *self.imp().0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn offer(&self, methods: Vec<RTSPAuthMethod>) {
        use glib::subclass::prelude::ObjectSubclassIsExt;
        *self.imp().1.lock().unwrap_or_else(PoisonError::into_inner) = methods;
    }
}

mod imp {
    use super::*;
    use glib::subclass::prelude::*;
    use rtsp_server::subclass::prelude::*;
    use rtsp_server::{RTSPContext, RTSPToken};

    /// What it decides by.
    #[derive(Default)]
    pub struct State {
        /// `None`: everybody is let in.
        pub access: Option<Arc<Access>>,
        pub basic: bool,
        /// The same for all requests: GStreamer does not give it back.
        pub token: Option<RTSPToken>,
    }

    #[derive(Default)]
    pub struct RtspAuth(pub Mutex<State>, pub Mutex<Vec<RTSPAuthMethod>>);

    #[glib::object_subclass]
    impl ObjectSubclass for RtspAuth {
        const NAME: &'static str = "MaskcastRtspAuth";
        type Type = super::RtspAuth;
        type ParentType = rtsp_server::RTSPAuth;
    }

    impl ObjectImpl for RtspAuth {}

    impl RTSPAuthImpl for RtspAuth {
        /// Sets the context's token when the request says who it is from. On a thread of the client's, which may block.
        fn authenticate(&self, context: &RTSPContext) -> bool {
            let (access, basic, token) = {
                let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                (state.access.clone(), state.basic, state.token.clone())
            };
            let Some(token) = token else { return false };
            let Some(access) = access else {
                context.set_token(token);
                return true;
            };
            let Some(request) = context.request() else { return false };
            for credential in request.parse_auth_credentials() {
                match credential.scheme() {
                    RTSPAuthMethod::Basic if basic => {
                        let known = credential.authorization().and_then(crate::server::auth::basic);
                        if known.is_some_and(|(user, password)| access.password(&user, &password, None).is_ok()) {
                            context.set_token(token);
                            return true;
                        }
                    }
                    // The parent compares it with the digests, and would take no Basic: it knows no passwords.
                    RTSPAuthMethod::Digest if !self.1.lock().unwrap_or_else(PoisonError::into_inner).is_empty() => {
                        return self.parent_authenticate(context);
                    }
                    _ => {}
                }
            }
            // Without a token the server asks for credentials.
            true
        }
    }
}
