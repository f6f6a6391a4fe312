//! Authentication of RTSP viewers: the same users as for HTTP.
//!
//! Players support two schemes (RFC 7617, RFC 2617). Basic sends the password, which can be read on the network without
//! TLS. Digest does not send it, but the server needs the password or an MD5 hash of it, which cannot be computed from
//! the stored Argon2 hash: only users who were added with `--rtsp-digest` can use it. Therefore:
//!
//! | RTSP listens | scheme |
//! | --- | --- |
//! | with TLS, or on the loopback address only | Basic |
//! | on a network, without TLS | Digest |
//! | on a network, without TLS, with `rtsp_plain_auth = true` | Basic |
//!
//! The server never offers both: players prefer Digest, and users without a digest could not log in.
//!
//! With TLS, RTP is interleaved in the TLS connection, because RTP over UDP would not be encrypted.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use glib::subclass::prelude::ObjectSubclassIsExt;
use gst::glib;
use parking_lot::Mutex;
use rtsp_server::gio::{TlsBackend, TlsCertificate};
use rtsp_server::gst_rtsp::{RTSPAuthCredential, RTSPAuthMethod};
use rtsp_server::prelude::*;

use super::rtsp_ffi::{drop_certificate_authorities, parameter};
use crate::access::tls::Certificate;
use crate::access::{Access, REALM};
use crate::config::ServerConfig;
use crate::users::User;

/// The role of all authenticated clients: they may watch every stream.
const VIEWER: &str = "viewer";

/// Fields of an `RTSPToken`.
const ROLE: &str = "media.factory.role";
const USER: &str = "user";

/// Why the authentication or TLS of the RTSP server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RtspAuthError {
    #[error("server.tls: GLib does not support TLS, which RTSP needs: install glib-networking")]
    TlsUnsupported,
    /// GLib rejects the certificate or the key; with its reason.
    #[error("server.tls: GLib cannot use the certificate for RTSP: {}: {message}", .path.display())]
    Certificate { path: PathBuf, message: String },
    /// GStreamer reads digests from files only.
    #[error("server.rtsp: cannot write the digest of user {user} to a temporary file: {source}")]
    DigestFile { user: String, source: std::io::Error },
    #[error("server.rtsp: GStreamer cannot read the digest of user {0}; set it again with --rtsp-digest")]
    Digest(String),
}

/// How the clients of an RTSP server are authenticated.
pub struct RtspGuard {
    pub access: Arc<Access>,
    /// Whether viewers must log in.
    pub requires_login: bool,
    /// Whether Basic is used, and Digest otherwise.
    pub basic: bool,
    pub certificate: Option<Arc<Certificate>>,
}

impl RtspGuard {
    /// The guard for this configuration.
    pub fn new(config: &ServerConfig, access: Arc<Access>, certificate: Option<Arc<Certificate>>) -> Self {
        let basic = certificate.is_some() || config.rtsp_plain_auth || config.rtsp.ip().is_loopback();
        RtspGuard { access, requires_login: config.guards_rtsp(), basic, certificate }
    }

    /// A warning for the log when passwords are sent without encryption at `address`, or some users cannot log in
    /// there.
    pub fn warning(&self, address: SocketAddr) -> Option<String> {
        if !self.requires_login || self.certificate.is_some() || address.ip().is_loopback() {
            return None;
        }
        Some(match (self.basic, self.access.users().users.iter().any(|user| user.rtsp_digest.is_some())) {
            (true, _) => {
                format!(
                    "server.rtsp: RTSP has no TLS, passwords are sent without encryption (rtsp_plain_auth); configure \
                     [server.tls]: {address}"
                )
            }
            (false, true) => {
                format!(
                    "server.rtsp: RTSP has no TLS, only users with an RTSP digest can watch; configure [server.tls], or add \
                     the other users with --rtsp-digest: {address}"
                )
            }
            (false, false) => format!(
                "server.rtsp: RTSP has no TLS and no user has an RTSP digest, so no user can watch; configure \
                 [server.tls], add users with --rtsp-digest, or allow unencrypted passwords with \
                 rtsp_plain_auth = true: {address}"
            ),
        })
    }

    /// Builds the authentication object for GStreamer's server; `None` when neither a login nor TLS is required.
    ///
    /// # Errors
    /// When GLib cannot use the certificate, or a digest cannot be read.
    pub(super) fn build(&self) -> Result<Option<RtspAuth>, RtspAuthError> {
        if !self.requires_login && self.certificate.is_none() {
            return Ok(None);
        }
        let auth: RtspAuth = glib::Object::new();
        auth.set_realm(Some(REALM));
        auth.set(imp::AuthState {
            tls: self.certificate.is_some(),
            access: self.requires_login.then(|| Arc::clone(&self.access)),
            basic: self.basic,
            token: Some(token("")),
            address_of: None,
            authenticated: Vec::new(),
        });
        auth.set_supported_methods(if self.basic { RTSPAuthMethod::Basic } else { RTSPAuthMethod::Digest });
        if self.requires_login && !self.basic {
            add_digests(&auth, &self.access)?;
        }
        if let Some(certificate) = &self.certificate {
            set_certificate(&auth, certificate)?;
        }
        Ok(Some(auth))
    }
}

/// Reads the certificate and the key from their files, for new connections.
///
/// # Errors
/// When GLib cannot use them.
pub(super) fn set_certificate(auth: &RtspAuth, certificate: &Certificate) -> Result<(), RtspAuthError> {
    let files = certificate.config();
    let backend = TlsBackend::default();
    if !backend.supports_tls() {
        return Err(RtspAuthError::TlsUnsupported);
    }
    let pair = TlsCertificate::from_files(&files.cert, &files.key).map_err(|error| RtspAuthError::Certificate {
        path: files.cert.clone(),
        message: error.message().to_owned(),
    })?;
    auth.set_tls_certificate(Some(&pair));
    Ok(())
}

/// Passes the digests to GStreamer, which reads them from files only. Each user has a file, so that the token
/// identifies the user.
fn add_digests(auth: &RtspAuth, access: &Access) -> Result<(), RtspAuthError> {
    for user in &access.users().users {
        let Some(digest) = &user.rtsp_digest else { continue };
        let write = || {
            let mut file = tempfile::NamedTempFile::new()?;
            writeln!(file, "{}:{REALM}:{}", user.name, digest.expose())?;
            file.flush()?;
            Ok(file)
        };
        let file = write().map_err(|source| RtspAuthError::DigestFile { user: user.name.to_string(), source })?;
        if !auth.parse_htdigest(file.path(), &token(&user.name)) {
            return Err(RtspAuthError::Digest(user.name.to_string()));
        }
    }
    Ok(())
}

/// The token of an authenticated user in GStreamer's server.
fn token(user: &str) -> rtsp_server::RTSPToken {
    rtsp_server::RTSPToken::builder().field(ROLE, VIEWER).field(USER, user).build()
}

/// Allows authenticated viewers to play the media of a stream.
pub(super) fn allow_viewers(factory: &rtsp_server::RTSPMediaFactory) {
    let role = gst::Structure::builder(VIEWER)
        .field("media.factory.access", true)
        .field("media.factory.construct", true)
        .build();
    factory.add_role_from_structure(&role);
}

glib::wrapper! {
    /// Authentication for GStreamer's server with the users of Maskcast.
    pub struct RtspAuth(ObjectSubclass<imp::RtspAuth>) @extends rtsp_server::RTSPAuth;
}

impl RtspAuth {
    fn set(&self, state: imp::AuthState) {
        *self.imp().0.lock() = state;
    }

    /// Sets the function that returns the address of a client, by which failed logins are counted.
    pub(super) fn set_addresses(
        &self,
        address_of: impl Fn(&rtsp_server::RTSPClient) -> Option<IpAddr> + Send + Sync + 'static,
    ) {
        self.imp().0.lock().address_of = Some(Arc::new(address_of));
    }

    /// Whether this client is authenticated, and its user still exists with the same password.
    pub(super) fn is_authenticated(&self, client: &rtsp_server::RTSPClient) -> bool {
        let state = self.imp().0.lock();
        let Some(access) = &state.access else { return true };
        let users = access.users();
        let mut logins = state.authenticated.iter().filter(|(other, _)| other.upgrade().as_ref() == Some(client));
        logins.any(|(_, user)| {
            let now = users.user(&user.name);
            now.is_some_and(|now| now.hash == user.hash && now.rtsp_digest == user.rtsp_digest)
        })
    }

    /// Takes over the authenticated clients of another object.
    pub(super) fn inherit_authenticated(&self, other: &RtspAuth) {
        let authenticated = other.imp().0.lock().authenticated.clone();
        self.imp().0.lock().authenticated = authenticated;
    }
}

mod imp {
    use super::*;
    use glib::subclass::prelude::*;
    use rtsp_server::subclass::prelude::*;
    use rtsp_server::{RTSP_AUTH_CHECK_CONNECT, RTSPClient, RTSPContext, RTSPToken};

    type AddressOf = dyn Fn(&RTSPClient) -> Option<IpAddr> + Send + Sync;

    /// The state of an [`RtspAuth`].
    #[derive(Default)]
    pub struct AuthState {
        /// Whether clients connect with TLS.
        pub tls: bool,
        /// `None` when no login is required.
        pub access: Option<Arc<Access>>,
        pub basic: bool,
        /// One token for all Basic requests, because GStreamer leaks the tokens that it receives.
        pub token: Option<RTSPToken>,
        /// Returns the address of a client.
        pub address_of: Option<Arc<AddressOf>>,
        /// The authenticated clients.
        pub authenticated: Vec<(glib::WeakRef<RTSPClient>, User)>,
    }

    #[derive(Default)]
    pub struct RtspAuth(pub Mutex<AuthState>);

    #[glib::object_subclass]
    impl ObjectSubclass for RtspAuth {
        const NAME: &'static str = "MaskcastRtspAuth";
        type Type = super::RtspAuth;
        type ParentType = rtsp_server::RTSPAuth;
    }

    impl ObjectImpl for RtspAuth {}

    impl RTSPAuthImpl for RtspAuth {
        fn check(&self, context: &RTSPContext, check: &glib::GString) -> bool {
            let passes = self.parent_check(context, check);
            if passes && self.0.lock().tls && check.as_str() == RTSP_AUTH_CHECK_CONNECT.as_str() {
                drop_certificate_authorities(context);
            }
            passes
        }

        /// Sets the token of the context when the credentials of the request are right; without a token, the server
        /// answers 401. Runs on the thread of the client, which may block.
        fn authenticate(&self, context: &RTSPContext) -> bool {
            let (access, basic, token) = {
                let state = self.0.lock();
                (state.access.clone(), state.basic, state.token.clone())
            };
            let Some(token) = token else { return false };
            let Some(access) = access else {
                context.set_token(token);
                return true;
            };
            let Some(request) = context.request() else { return false };
            let credentials = request.parse_auth_credentials();
            // Several credentials in one request would be several attempts that count as one.
            if let [credential] = credentials.as_slice() {
                let user = match (credential.scheme(), basic) {
                    (RTSPAuthMethod::Basic, true) => {
                        let login = credential.authorization().and_then(crate::access::basic);
                        let from = self.address(context);
                        let login = login.filter(|(user, password)| access.password(user, password, from).is_ok());
                        if login.is_some() {
                            context.set_token(token.clone());
                        }
                        login.map(|(user, _)| user)
                    }
                    (RTSPAuthMethod::Digest, false) => self.digest(&access, context, credential),
                    _ => None,
                };
                if let (Some(user), Some(client)) = (user, context.client())
                    && let Some(user) = access.users().user(&user)
                {
                    let mut state = self.0.lock();
                    state.authenticated.retain(|(other, _)| other.upgrade().is_some_and(|other| other != *client));
                    state.authenticated.push((client.downgrade(), user.clone()));
                }
            }
            true
        }
    }

    impl RtspAuth {
        /// The address from which a request comes.
        fn address(&self, context: &RTSPContext) -> Option<IpAddr> {
            let address_of = self.0.lock().address_of.clone()?;
            address_of(context.client()?)
        }

        /// Verifies digest credentials with the parent class, and returns the user. The check is fast, so attempts are
        /// limited like those with passwords.
        fn digest(&self, access: &Access, context: &RTSPContext, credential: &RTSPAuthCredential) -> Option<String> {
            // An authenticated client sends its digest with every request. The limit for failed attempts of others must
            // not block it.
            let is_authenticated = context.client().is_some_and(|client| self.obj().is_authenticated(client));
            let name = parameter(credential, "username").unwrap_or_default();
            let attempt = match is_authenticated {
                true => None,
                false => Some(access.try_digest(&name, self.address(context)).ok()?),
            };
            let token = if self.parent_authenticate(context) { context.token() } else { None };
            match token {
                Some(token) => {
                    if let Some(attempt) = attempt {
                        access.digest_was_right(&attempt);
                    }
                    token.string(USER)
                }
                None => {
                    // Failed attempts of authenticated clients count as well.
                    let count = || access.try_digest(&name, self.address(context)).ok();
                    if let Some(attempt) = attempt.or_else(count) {
                        access.digest_was_wrong(&attempt);
                    }
                    if let Some(client) = context.client() {
                        // Otherwise a user could guess the digests of other users without a limit.
                        let mut state = self.0.lock();
                        state.authenticated.retain(|(other, _)| other.upgrade().is_some_and(|other| other != *client));
                    }
                    None
                }
            }
        }
    }
}
