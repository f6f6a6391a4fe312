//! Who may watch by RTSP: the same users as everywhere.
//!
//! Players prove a password in one of two ways. Basic sends it as it is: fine under TLS, readable by everybody on the way
//! without. Digest does not send it, but then the server must know the password or its MD5, which an Argon2 hash does not
//! give: only users who were added with `--rtsp-digest` can use it. So:
//!
//! | RTSP listens | what is asked for |
//! | --- | --- |
//! | with TLS, or on this machine only | Basic |
//! | on a network, without TLS | Digest |
//! | the same, with `rtsp_plain_auth = true` | Basic |
//!
//! Never both: players that are offered both take Digest, and users without one would stand outside.
//!
//! Under TLS pictures come inside the connection, too: UDP would carry them readable.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use glib::subclass::prelude::ObjectSubclassIsExt;
use gst::glib;
use rtsp_server::gio::{TlsBackend, TlsCertificate};
use rtsp_server::gst_rtsp::{RTSPAuthCredential, RTSPAuthMethod};
use rtsp_server::prelude::*;

use super::OutputError;
use super::rtsp_ffi::{drop_authorities, parameter};
use crate::access::tls::Certificate;
use crate::access::{Access, REALM};
use crate::config::ServerConfig;
use crate::users::User;

/// The one role: whoever is let in may watch every stream.
const VIEWER: &str = "viewer";

/// Fields of a token.
const ROLE: &str = "media.factory.role";
const USER: &str = "user";

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
            (true, _) => {
                format!("server.rtsp: {address} has no TLS: passwords can be read on their way (rtsp_plain_auth)")
            }
            (false, true) => {
                format!("server.rtsp: {address} has no TLS: only users with an RTSP digest can watch there")
            }
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
        auth.set(imp::AuthState {
            tls: self.certificate.is_some(),
            access: self.asks.then(|| Arc::clone(&self.access)),
            basic: self.basic,
            token: Some(token("")),
            address_of: None,
            known: Vec::new(),
        });
        auth.set_supported_methods(if self.basic { RTSPAuthMethod::Basic } else { RTSPAuthMethod::Digest });
        if self.asks && !self.basic {
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

/// Gives GStreamer the digests, which it takes from files only: one each, so that its token tells whose it was.
fn add_digests(auth: &RtspAuth, access: &Access) -> Result<(), OutputError> {
    for user in &access.users().users {
        let Some(digest) = &user.rtsp_digest else { continue };
        let write = || {
            let mut file = tempfile::NamedTempFile::new()?;
            writeln!(file, "{}:{REALM}:{}", user.name, digest.expose())?;
            file.flush()?;
            Ok(file)
        };
        let file =
            write().map_err(|error: std::io::Error| OutputError(format!("server.rtsp: a user's digest: {error}")))?;
        if !auth.parse_htdigest(file.path(), &token(&user.name)) {
            return Err(OutputError(format!("server.rtsp: the digest of user {} cannot be read", user.name)));
        }
    }
    Ok(())
}

/// What GStreamer knows a user by.
fn token(user: &str) -> rtsp_server::RTSPToken {
    rtsp_server::RTSPToken::builder().field(ROLE, VIEWER).field(USER, user).build()
}

/// Lets viewers come to a stream's media.
pub(super) fn permit(factory: &rtsp_server::RTSPMediaFactory) {
    let role = gst::Structure::builder(VIEWER)
        .field("media.factory.access", true)
        .field("media.factory.construct", true)
        .build();
    factory.add_role_from_structure(&role);
}

glib::wrapper! {
    /// GStreamer's guard, with our users.
    pub struct RtspAuth(ObjectSubclass<imp::RtspAuth>) @extends rtsp_server::RTSPAuth;
}

impl RtspAuth {
    fn set(&self, state: imp::AuthState) {
        *lock(&self.imp().0) = state;
    }

    /// Counts logins by the addresses of clients, which this finds out.
    pub(super) fn set_addresses(
        &self,
        address_of: impl Fn(&rtsp_server::RTSPClient) -> Option<IpAddr> + Send + Sync + 'static,
    ) {
        lock(&self.imp().0).address_of = Some(Arc::new(address_of));
    }

    /// Whether this client has said who it is, and may still come in.
    pub(super) fn knows(&self, client: &rtsp_server::RTSPClient) -> bool {
        let state = lock(&self.imp().0);
        let Some(access) = &state.access else { return true };
        let users = access.users();
        let mut known = state.known.iter().filter(|(known, _)| known.upgrade().as_ref() == Some(client));
        known.any(|(_, user)| {
            let now = users.user(&user.name);
            now.is_some_and(|now| now.hash == user.hash && now.rtsp_digest == user.rtsp_digest)
        })
    }

    /// Takes over whom another guard knows.
    pub(super) fn inherit(&self, other: &RtspAuth) {
        let known = lock(&other.imp().0).known.clone();
        lock(&self.imp().0).known = known;
    }
}

fn lock(state: &Mutex<imp::AuthState>) -> MutexGuard<'_, imp::AuthState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

mod imp {
    use super::*;
    use glib::subclass::prelude::*;
    use rtsp_server::subclass::prelude::*;
    use rtsp_server::{RTSP_AUTH_CHECK_CONNECT, RTSPClient, RTSPContext, RTSPToken};

    type AddressOf = dyn Fn(&RTSPClient) -> Option<IpAddr> + Send + Sync;

    /// What it decides by.
    #[derive(Default)]
    pub struct AuthState {
        /// Whether clients come by TLS.
        pub tls: bool,
        /// `None`: everybody is let in.
        pub access: Option<Arc<Access>>,
        pub basic: bool,
        /// The same for all requests: GStreamer does not give it back.
        pub token: Option<RTSPToken>,
        /// Finds out where a client is.
        pub address_of: Option<Arc<AddressOf>>,
        /// Clients that have said who they are.
        pub known: Vec<(glib::WeakRef<RTSPClient>, User)>,
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
            if passes && lock(&self.0).tls && check.as_str() == RTSP_AUTH_CHECK_CONNECT.as_str() {
                drop_authorities(context);
            }
            passes
        }

        /// Sets the context's token when the request says who it is from; without one, the server asks for credentials. Runs on
        /// the client's own thread, which may block.
        fn authenticate(&self, context: &RTSPContext) -> bool {
            let (access, basic, token) = {
                let state = lock(&self.0);
                (state.access.clone(), state.basic, state.token.clone())
            };
            let Some(token) = token else { return false };
            let Some(access) = access else {
                context.set_token(token);
                return true;
            };
            let Some(request) = context.request() else { return false };
            let credentials = request.parse_auth_credentials();
            // Several in one request would be several attempts that are counted as one.
            if let [credential] = credentials.as_slice() {
                let user = match (credential.scheme(), basic) {
                    (RTSPAuthMethod::Basic, true) => {
                        let known = credential.authorization().and_then(crate::access::basic);
                        let from = self.address(context);
                        let known = known.filter(|(user, password)| access.password(user, password, from).is_ok());
                        if known.is_some() {
                            context.set_token(token.clone());
                        }
                        known.map(|(user, _)| user)
                    }
                    (RTSPAuthMethod::Digest, false) => self.digest(&access, context, credential),
                    _ => None,
                };
                if let (Some(user), Some(client)) = (user, context.client())
                    && let Some(user) = access.users().user(&user)
                {
                    let mut state = lock(&self.0);
                    state.known.retain(|(known, _)| known.upgrade().is_some_and(|known| known != *client));
                    state.known.push((client.downgrade(), user.clone()));
                }
            }
            true
        }
    }

    impl RtspAuth {
        /// Where a request comes from.
        fn address(&self, context: &RTSPContext) -> Option<IpAddr> {
            let address_of = lock(&self.0).address_of.clone()?;
            address_of(context.client()?)
        }

        /// Whose digest it is, by the parent's comparison with those that it was given. That takes no time, so that many
        /// could be guessed: they are counted as passwords are.
        fn digest(&self, access: &Access, context: &RTSPContext, credential: &RTSPAuthCredential) -> Option<String> {
            // Who has shown one sends it with every request, and is not to be held up by guessers.
            let is_known = context.client().is_some_and(|client| self.obj().knows(client));
            let name = parameter(credential, "username").unwrap_or_default();
            let tried = match is_known {
                true => None,
                false => Some(access.try_digest(&name, self.address(context)).ok()?),
            };
            let token = if self.parent_authenticate(context) { context.token() } else { None };
            match token {
                Some(token) => {
                    if let Some(tried) = tried {
                        access.digest_was_right(&tried);
                    }
                    token.string(USER)
                }
                None => {
                    // One whom the server knew may not try others' either.
                    let again = || access.try_digest(&name, self.address(context)).ok();
                    if let Some(tried) = tried.or_else(again) {
                        access.digest_was_wrong(&tried);
                    }
                    if let Some(client) = context.client() {
                        // Who has one digest could guess others.
                        lock(&self.0).known.retain(|(known, _)| known.upgrade().is_some_and(|known| known != *client));
                    }
                    None
                }
            }
        }
    }
}
