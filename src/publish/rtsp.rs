//! The RTSP server: `rtsp://HOST:PORT/NAME`, with one shared GStreamer media per stream, which receives the encoded
//! stream.
//!
//! The protocol (RFC 2326, over UDP or TCP) is implemented by GStreamer's server; `rtsp_auth.rs` authenticates viewers.
//! Viewers are disconnected when
//!
//! - they do not read over TCP, after 15 seconds; the other viewers do not wait for them;
//! - their machine does not respond any more, within half a minute;
//! - over UDP, they send neither requests nor receiver reports until their session expires after a minute.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp_server;
use parking_lot::Mutex;

use gst::glib;
use gst::prelude::*;
use rtsp_server::gio;
use rtsp_server::gio::prelude::SocketExtManual;
use rtsp_server::gst_rtsp::{RTSPLowerTrans, RTSPStatusCode};
use rtsp_server::prelude::*;
use socket2::{SockRef, TcpKeepalive};

use super::fanout::{AppSrcSink, Fanout};
use super::frame_sink_kind::{FrameSinkKind, ViewerCount, start_none};
use super::rtsp_auth::{RtspAuth, RtspAuthError, RtspGuard, allow_viewers, set_certificate};
use super::rtsp_connections::Connections;
use super::rtsp_media::{PreparedMedia, StreamMedias};
use super::rtsp_mounts::{Mounts, expect_describe};
use super::rtsp_players::{FanoutsByStream, KIND_NAME, Players, stream_name};
use crate::access::tls::Certificate;
use crate::gst::{GstError, make};

/// RTSP players share one sink for each stream, which feeds the media of the RTSP server.
pub static KIND: FrameSinkKind = FrameSinkKind {
    name: KIND_NAME,
    start: start_none,
    viewers: Some(ViewerCount {
        about: "RTSP clients that play the stream.",
        count: |outputs| outputs.h264.viewers(KIND_NAME),
    }),
};

/// Access units that may wait for the RTSP media: half a second at 30 fps. Queued frames add delay, so a media that was
/// delayed continues with the next keyframe instead.
const MAX_QUEUED_UNITS: u64 = 15;

/// Each client has its own thread: DESCRIBE blocks until the stream has a first frame, and the password is checked on
/// that thread. Neither may delay other clients.
const ONE_THREAD_PER_CLIENT: i32 = -1;

/// The largest body of a request in bytes. Requests of players have none or a few lines; GStreamer has no limit.
const MAX_BODY: u32 = 64 << 10;

/// Connections that may wait to be accepted, for a video wall that starts all players at once. GStreamer's default is
/// five; further players would retry after seconds.
const BACKLOG: i32 = 128;

/// How often expired sessions are removed.
const SESSION_CLEANUP_INTERVAL: Duration = Duration::from_secs(5);

/// How often idle connections are closed.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a client stays connected after the end of its last session, in seconds. Without a limit, the connection of
/// a client that is gone would never be closed, because nothing is sent on it.
const POST_SESSION_TIMEOUT: i32 = 5;

/// A client that acknowledges no data for this long is disconnected, as over HTTP. Sessions over TCP do not expire in
/// GStreamer's server.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// TCP keepalive of idle connections, such as those of viewers over UDP.
const KEEPALIVE_TIME: Duration = Duration::from_secs(15);

/// The stream that each client described last.
type DescribedStreams = Arc<Mutex<Vec<(glib::WeakRef<rtsp_server::RTSPClient>, String)>>>;

/// Why the RTSP server could not be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum RtspError {
    #[error("server.rtsp: cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    /// GStreamer's server could not create or configure its socket.
    #[error("server.rtsp: cannot listen on {address}: {message}")]
    Socket { address: SocketAddr, message: String },
    #[error("cannot start the thread of the RTSP server: {0}")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Gst(#[from] GstError),
    #[error(transparent)]
    Auth(#[from] RtspAuthError),
}

/// The running server. Dropping it disconnects all viewers.
pub struct RtspServer {
    server: rtsp_server::RTSPServer,
    mounts: Mounts,
    streams: FanoutsByStream,
    described: DescribedStreams,
    medias: StreamMedias,
    connections: Connections,
    tls: bool,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl RtspServer {
    /// Starts a server without authentication.
    ///
    /// # Errors
    /// When the address is in use or does not belong to this machine, or an element is missing.
    pub fn start(address: SocketAddr) -> Result<Self, RtspError> {
        Self::start_guarded(address, None)
    }

    /// Starts a server for the viewers whom `guard` accepts.
    ///
    /// # Errors
    /// Those of [`RtspServer::start`], and when the certificate cannot be used.
    pub fn start_guarded(address: SocketAddr, guard: Option<&RtspGuard>) -> Result<Self, RtspError> {
        let tls = guard.is_some_and(|guard| guard.certificate.is_some());
        Self::start_with(address, guard, STALL_TIMEOUT, Connections::new(tls))
    }

    fn start_with(
        address: SocketAddr,
        guard: Option<&RtspGuard>,
        stall_timeout: Duration,
        connections: Connections,
    ) -> Result<Self, RtspError> {
        crate::gst::init()?;
        for element in ["appsrc", "h264parse", "rtph264pay"] {
            make(element)?;
        }
        let server = rtsp_server::RTSPServer::new();
        server.set_address(&address.ip().to_string());
        server.set_service(&address.port().to_string());
        server.set_backlog(BACKLOG);
        let mounts = Mounts::new();
        server.set_mount_points(Some(&mounts));
        server.set_content_length_limit(MAX_BODY);
        if let Some(threads) = server.thread_pool() {
            threads.set_max_threads(ONE_THREAD_PER_CLIENT);
        }
        // Set before the first connection, because a client keeps the authentication of the time of its connection.
        let auth = guard.map(RtspGuard::build).transpose()?.flatten();
        if let Some(auth) = &auth {
            let addresses = connections.clone();
            auth.set_addresses(move |client| addresses.address(client));
        }
        server.set_auth(auth.as_ref());
        mounts.set_guarded(auth.is_some());
        let context = glib::MainContext::new();
        // GStreamer's server reports "Failed to bind" without a reason; a test listener gives the reason.
        drop(std::net::TcpListener::bind(address).map_err(|source| RtspError::Listen { address, source })?);
        connections.follow(&server);
        let (source, port) = listen(&server, address, stall_timeout, connections.clone())?;
        source.attach(Some(&context));
        let (sessions, checked) = (server.session_pool(), connections.clone());
        let priority = glib::Priority::DEFAULT;
        let session_cleanup = glib::timeout_source_new(SESSION_CLEANUP_INTERVAL, None, priority, move || {
            if let Some(sessions) = &sessions {
                sessions.cleanup();
            }
            glib::ControlFlow::Continue
        });
        session_cleanup.attach(Some(&context));
        let idle_check = glib::timeout_source_new(IDLE_CHECK_INTERVAL, None, priority, move || {
            checked.close_idle();
            glib::ControlFlow::Continue
        });
        idle_check.attach(Some(&context));
        let (streams, described, medias) =
            (FanoutsByStream::default(), DescribedStreams::default(), StreamMedias::default());
        handle_requests(&server, &streams, &described, &medias);
        count_players(&server, &streams);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::Builder::new()
            .name("rtsp".into())
            .spawn(move || {
                let in_context = context.with_thread_default(|| running.run());
                if in_context.is_err() {
                    tracing::error!("cannot run the RTSP server: its thread has no main context");
                }
            })
            .map_err(RtspError::Thread)?;
        Ok(RtspServer {
            server,
            mounts,
            streams,
            described,
            medias,
            connections,
            tls: guard.is_some_and(|guard| guard.certificate.is_some()),
            main_loop,
            thread: Some(thread),
            address: SocketAddr::new(address.ip(), port),
        })
    }

    /// The address on which the server listens; with the assigned port when port 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the guard, and disconnects viewers whom the new one does not accept.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn set_guard(&self, guard: &RtspGuard) -> Result<(), RtspError> {
        let auth = guard.build()?;
        if let Some(auth) = &auth {
            let addresses = self.connections.clone();
            auth.set_addresses(move |client| addresses.address(client));
        }
        if let (Some(auth), Some(before)) = (&auth, self.auth()) {
            auth.inherit_authenticated(&before);
        }
        self.mounts.set_guarded(auth.is_some());
        self.server.set_auth(auth.as_ref());
        if let Some(auth) = auth {
            self.server.client_filter(Some(&mut |_, client| match auth.is_authenticated(client) {
                true => rtsp_server::RTSPFilterResult::Keep,
                false => rtsp_server::RTSPFilterResult::Remove,
            }));
        }
        Ok(())
    }

    /// Reads the certificate files again, for new connections.
    ///
    /// # Errors
    /// When the new certificate cannot be used; the old one stays in use.
    pub fn set_certificate(&self, certificate: &Certificate) -> Result<(), RtspError> {
        Ok(self.auth().map_or(Ok(()), |auth| set_certificate(&auth, certificate))?)
    }

    fn auth(&self) -> Option<RtspAuth> {
        self.server.auth().and_then(|auth| auth.downcast().ok())
    }

    /// Serves a stream at `/name`.
    pub fn add(&self, name: &str, fanout: Arc<Fanout>) {
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_shared(true);
        factory.set_launch(
            "( appsrc name=source is-live=true format=time max-bytes=0 \
               caps=video/x-h264,stream-format=byte-stream,alignment=au \
               ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 aggregate-mode=zero-latency )",
        );
        allow_viewers(&factory);
        if self.tls {
            // RTP over UDP would not be encrypted.
            factory.set_protocols(RTSPLowerTrans::TCP);
        }
        // The server adds no latency; clients have their own buffers.
        factory.set_latency(0);
        let (stream, medias): (Arc<str>, _) = (name.into(), self.medias.clone());
        self.streams.lock().insert(name.into(), Arc::clone(&fanout));
        factory.connect_media_configure(move |_, media| {
            medias.add(&stream, media);
            let source = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("source"));
            let Some(source) = source.and_then(|source| source.downcast::<gst_app::AppSrc>().ok()) else {
                let text = "cannot feed the RTSP media: it has no appsrc";
                crate::base::log_dedup::error(&stream, "publish", None, text);
                return;
            };
            tracing::debug!(stream = &*stream, "the first RTSP viewer has connected: created the media of the stream");
            source.set_max_buffers(MAX_QUEUED_UNITS);
            fanout.add(Box::new(AppSrcSink::new(source, MAX_QUEUED_UNITS, true, fanout.lost_counter())));
        });
        self.mounts.add(name, factory);
    }

    /// Stops serving a stream, and disconnects the clients that play it or have described it. Otherwise players that
    /// ignore the end of the media would stay connected, and clients between DESCRIBE and PLAY would play a media that
    /// has ended, because the server stores the described media for each client.
    pub fn remove(&self, name: &str) {
        use rtsp_server::RTSPFilterResult::{Keep, Remove};
        let path = format!("/{name}");
        self.mounts.remove(name);
        self.streams.lock().remove(name);
        self.medias.remove(name);
        let describing = self.clients_of(name);
        self.server.client_filter(Some(&mut |_, client| {
            let mut plays = describing.contains(client);
            client.session_filter(Some(&mut |_, session| {
                plays |= session.media(&path).0.is_some();
                Keep
            }));
            if plays { Remove } else { Keep }
        }));
    }

    /// The clients that described this stream last.
    fn clients_of(&self, name: &str) -> Vec<rtsp_server::RTSPClient> {
        let mut described = self.described.lock();
        described.retain(|(client, _)| client.upgrade().is_some());
        described.iter().filter(|(_, other)| other == name).filter_map(|(client, _)| client.upgrade()).collect()
    }

    /// Number of connected clients.
    pub fn clients(&self) -> usize {
        self.server.client_filter(None).len()
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        // Disconnects the clients. Their media are unprepared then, which removes their frame sinks from the fan-out.
        self.server.client_filter(Some(&mut |_, _| rtsp_server::RTSPFilterResult::Remove));
        // Quits from inside the loop: a quit before the thread has started the loop would have no effect.
        let running = self.main_loop.clone();
        let quit = glib::idle_source_new(None, glib::Priority::HIGH, move || {
            running.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.main_loop.context()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("thread ended in a panic: RTSP server");
        }
    }
}

/// Creates the source that accepts connections, and returns it with its port. GStreamer's own source does not give
/// access to its socket, whose options the accepted connections inherit.
fn listen(
    server: &rtsp_server::RTSPServer,
    address: SocketAddr,
    stall_timeout: Duration,
    connections: Connections,
) -> Result<(glib::Source, u16), RtspError> {
    let none = gio::Cancellable::NONE;
    let socket =
        server.create_socket(none).map_err(|error| RtspError::Socket { address, message: error.to_string() })?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_TIME / 3);
    let options = SockRef::from(&socket);
    let bound = options
        .set_tcp_user_timeout(Some(stall_timeout))
        .and_then(|()| options.set_tcp_keepalive(&keepalive))
        .and_then(|()| options.local_addr())
        .map_err(|source| RtspError::Listen { address, source })?
        .as_socket();
    let conditions = glib::IOCondition::IN | glib::IOCondition::ERR | glib::IOCondition::HUP | glib::IOCondition::NVAL;
    let server = server.clone();
    let accept = move |socket: &gio::Socket, condition| {
        if !connections.make_room() {
            return glib::ControlFlow::Continue;
        }
        if rtsp_server::RTSPServer::io_func(socket, condition, &server).is_err() {
            crate::base::log_dedup::warn("", "publish", "cannot accept an RTSP connection");
        }
        connections.close_refused();
        glib::ControlFlow::Continue
    };
    let source =
        SocketExtManual::create_source(&socket, conditions, none, Some("rtsp"), glib::Priority::DEFAULT, accept);
    Ok((source, bound.map_or(address.port(), |bound| bound.port())))
}

/// Stores which stream each client describes, requires authentication for PLAY, and requests a keyframe for each client
/// that starts to play. The media is shared: only its first client starts the encoder, and the others would wait for
/// the next periodic keyframe.
fn handle_requests(
    server: &rtsp_server::RTSPServer,
    streams: &FanoutsByStream,
    described: &DescribedStreams,
    medias: &StreamMedias,
) {
    let (streams, described, medias) = (Arc::clone(streams), Arc::clone(described), medias.clone());
    server.connect_client_connected(move |_, client| {
        client.set_post_session_timeout(POST_SESSION_TIMEOUT);
        let (described, medias) = (Arc::clone(&described), medias.clone());
        let held = Arc::new(Mutex::new(None::<PreparedMedia>));
        let released = Arc::clone(&held);
        client.connect_pre_describe_request(move |client, context| {
            expect_describe();
            if let Some(name) = stream_name(context) {
                let mut described = described.lock();
                described.retain(|(other, _)| other.upgrade().is_some_and(|other| other != *client));
                described.push((client.downgrade(), name.clone()));
                drop(described);
                *held.lock() = medias.hold(&name);
            }
            RTSPStatusCode::Ok
        });
        // The response to DESCRIBE: the client has prepared the media itself, or was refused.
        client.connect("send-message", false, move |_| {
            drop(released.lock().take());
            None
        });
        // The server requires credentials for DESCRIBE and SETUP only. A session identifier that was read from the
        // network must not replace them.
        client.connect_pre_play_request(|client, _| {
            let auth = client.auth().and_then(|auth| auth.downcast::<RtspAuth>().ok());
            match auth.is_none_or(|auth| auth.is_authenticated(client)) {
                true => RTSPStatusCode::Ok,
                false => RTSPStatusCode::Unauthorized,
            }
        });
        let streams = Arc::clone(&streams);
        client.connect_play_request(move |_, context| {
            if let Some(fanout) = stream_name(context).and_then(|name| streams.lock().get(&name).cloned()) {
                fanout.request_keyframe();
            }
        });
    });
}

fn count_players(server: &rtsp_server::RTSPServer, streams: &FanoutsByStream) {
    let players = Players::new(streams);
    players.follow_sessions(server);
    server.connect_client_connected(move |_, client| players.follow_client(client));
}

#[cfg(test)]
mod tests;
