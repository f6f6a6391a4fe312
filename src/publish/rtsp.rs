//! The RTSP server: `rtsp://HOST:PORT/NAME`, one shared media a stream, fed with the stream's one encode.
//!
//! Who may watch is `rtsp_auth.rs`'s affair. GStreamer's server speaks the protocol (RFC 2326), over UDP or TCP. A viewer
//! that does not read is cut off; the media and the other viewers do not wait. So is one whose machine has vanished, within
//! half a minute; and one over UDP of whom nothing is heard while its machine answers, when its session runs out, after a
//! minute.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp_server;

use gst::glib;
use gst::prelude::*;
use rtsp_server::gio;
use rtsp_server::gio::prelude::SocketExtManual;
use rtsp_server::gst_rtsp::{RTSPLowerTrans, RTSPStatusCode};
use rtsp_server::prelude::*;
use socket2::{SockRef, TcpKeepalive};

use super::OutputError;
use super::fanout::{AppSrcSink, Fanout};
use super::rtsp_auth::{RtspAuth, RtspGuard, permit, set_certificate};
use super::rtsp_connections::Connections;
use super::rtsp_mounts::{Mounts, describes};
use super::rtsp_players::{FanoutsByStream, Players, stream_name};
use crate::access::tls::Certificate;
use crate::gst::make;

/// Access units that may wait for the RTSP media: half a second of 30 a second. What waits is delay; a media that was held
/// up goes on with a keyframe instead.
const WAITING: u64 = 15;

/// Each client has a thread of its own. A client's DESCRIBE waits until its stream has a first picture, and a password is
/// checked on the client's thread: neither is to hold up who else is served.
const A_THREAD_EACH: i32 = -1;

/// The largest body of a request, bytes; requests of players have none, or some lines. GStreamer takes any.
const LARGEST_BODY: u32 = 64 << 10;

/// Clients that may wait to be let in: a wall of players that starts at once. By itself the server has room for five, and
/// the others try again after seconds.
const BACKLOG: i32 = 128;

/// How often sessions that clients left without a word are looked for.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// How often connections are looked for on which clients say nothing.
const LOOK: Duration = Duration::from_millis(250);

/// How long a client may stay connected whose sessions have ended, seconds, in case it asks for another one. Without a
/// limit a connection whose other end has fallen silent would be kept for ever, as there is nothing to be sent by it.
const AFTER_SESSION: i32 = 5;

/// A client that takes nothing for this long while something is to be sent is let go, as by HTTP. Of those who watch over
/// TCP the server itself says that their sessions cannot run out.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// How often the system asks after a client on whose connection nothing happens, as on that of one who watches over UDP.
const ASK_AFTER: Duration = Duration::from_secs(15);

/// What each client has asked for last.
type RequestedMounts = Arc<Mutex<Vec<(glib::WeakRef<rtsp_server::RTSPClient>, String)>>>;

/// The newest media of each stream, by its name.
type StreamMedias = Arc<Mutex<HashMap<String, glib::WeakRef<rtsp_server::RTSPMedia>>>>;

/// How long a viewer waits for the media that the last one has just left, and how often it looks: GStreamer's server would
/// answer 503 meanwhile.
const LEAVING: Duration = Duration::from_secs(2);
const LEAVING_LOOK: Duration = Duration::from_millis(5);

/// The running server.
pub struct RtspServer {
    server: rtsp_server::RTSPServer,
    mounts: Mounts,
    streams: FanoutsByStream,
    asked: RequestedMounts,
    medias: StreamMedias,
    connections: Connections,
    tls: bool,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl RtspServer {
    /// Starts to listen, for everybody.
    ///
    /// # Errors
    /// An address that is in use or not tits machine's; a missing element.
    pub fn start(address: SocketAddr) -> Result<Self, OutputError> {
        Self::start_guarded(address, None)
    }

    /// Starts to listen, for those whom the guard lets in.
    ///
    /// # Errors
    /// Those of [`RtspServer::start`], and a certificate that cannot be used.
    pub fn start_guarded(address: SocketAddr, guard: Option<&RtspGuard>) -> Result<Self, OutputError> {
        let tls = guard.is_some_and(|guard| guard.certificate.is_some());
        Self::start_with(address, guard, STALL_LIMIT, Connections::new(tls))
    }

    fn start_with(
        address: SocketAddr,
        guard: Option<&RtspGuard>,
        stall_limit: Duration,
        connections: Connections,
    ) -> Result<Self, OutputError> {
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
        server.set_content_length_limit(LARGEST_BODY);
        if let Some(threads) = server.thread_pool() {
            threads.set_max_threads(A_THREAD_EACH);
        }
        // Before anybody can connect: a client keeps the guard that it came in by.
        let auth = guard.map(RtspGuard::make).transpose()?.flatten();
        if let Some(auth) = &auth {
            let addresses = connections.clone();
            auth.set_addresses(move |client| addresses.address(client));
        }
        server.set_auth(auth.as_ref());
        mounts.set_guarded(auth.is_some());
        let context = glib::MainContext::new();
        // Says "Failed to bind" with no reason when asked to attach; a listener of our own tells which it is.
        drop(
            std::net::TcpListener::bind(address)
                .map_err(|error| OutputError(format!("server.rtsp: {address}: {error}")))?,
        );
        connections.follow(&server);
        let (source, port) = listen(&server, address, stall_limit, connections.clone())?;
        source.attach(Some(&context));
        let (sessions, looked_at) = (server.session_pool(), connections.clone());
        let clean_up = glib::timeout_source_new(CLEAN_UP, None, glib::Priority::DEFAULT, move || {
            if let Some(sessions) = &sessions {
                sessions.cleanup();
            }
            glib::ControlFlow::Continue
        });
        clean_up.attach(Some(&context));
        let look = glib::timeout_source_new(LOOK, None, glib::Priority::DEFAULT, move || {
            looked_at.close_silent();
            glib::ControlFlow::Continue
        });
        look.attach(Some(&context));
        let (streams, asked, medias) =
            (FanoutsByStream::default(), RequestedMounts::default(), StreamMedias::default());
        greet_players(&server, &streams, &asked, &medias);
        count_players(&server, &streams);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::Builder::new()
            .name("rtsp".into())
            .spawn(move || {
                let in_context = context.with_thread_default(|| running.run());
                if in_context.is_err() {
                    tracing::error!("the RTSP server's thread has no main context");
                }
            })
            .map_err(|error| OutputError(format!("no thread for the RTSP server: {error}")))?;
        Ok(RtspServer {
            server,
            mounts,
            streams,
            asked,
            medias,
            connections,
            tls: guard.is_some_and(|guard| guard.certificate.is_some()),
            main_loop,
            thread: Some(thread),
            address: SocketAddr::new(address.ip(), port),
        })
    }

    /// Where it listens; with the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets in those whom another guard lets in, from now on; who does not pass it is cut off.
    ///
    /// # Errors
    /// A certificate that cannot be used.
    pub fn set_guard(&self, guard: &RtspGuard) -> Result<(), OutputError> {
        let auth = guard.make()?;
        if let Some(auth) = &auth {
            let addresses = self.connections.clone();
            auth.set_addresses(move |client| addresses.address(client));
        }
        if let (Some(auth), Some(before)) = (&auth, self.auth()) {
            auth.inherit(&before);
        }
        self.mounts.set_guarded(auth.is_some());
        self.server.set_auth(auth.as_ref());
        if let Some(auth) = auth {
            self.server.client_filter(Some(&mut |_, client| match auth.knows(client) {
                true => rtsp_server::RTSPFilterResult::Keep,
                false => rtsp_server::RTSPFilterResult::Remove,
            }));
        }
        Ok(())
    }

    /// Shows new clients the certificate that is in the files now.
    ///
    /// # Errors
    /// One that cannot be used; the old one goes on.
    pub fn set_certificate(&self, certificate: &Certificate) -> Result<(), OutputError> {
        self.auth().map_or(Ok(()), |auth| set_certificate(&auth, certificate))
    }

    fn auth(&self) -> Option<RtspAuth> {
        self.server.auth().and_then(|auth| auth.downcast().ok())
    }

    /// Offers a stream at `/name`.
    pub fn add(&self, name: &str, fanout: Arc<Fanout>) {
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_shared(true);
        factory.set_launch(
            "( appsrc name=source is-live=true format=time max-bytes=0 \
               caps=video/x-h264,stream-format=byte-stream,alignment=au \
               ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 aggregate-mode=zero-latency )",
        );
        permit(&factory);
        if self.tls {
            // Over UDP the pictures would be readable on their way.
            factory.set_protocols(RTSPLowerTrans::TCP);
        }
        // Latency for the clients' own buffers to add to; our pictures are due when they come.
        factory.set_latency(0);
        let (stream, medias): (Arc<str>, _) = (name.into(), Arc::clone(&self.medias));
        lock(&self.streams).insert(name.into(), Arc::clone(&fanout));
        factory.connect_media_configure(move |_, media| {
            lock(&medias).insert(stream.to_string(), media.downgrade());
            let source = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("source"));
            let Some(source) = source.and_then(|source| source.downcast::<gst_app::AppSrc>().ok()) else {
                crate::base::log_dedup::error(&stream, "publish", None, "the RTSP media has no source");
                return;
            };
            tracing::debug!(stream = &*stream, "an RTSP viewer has come: the stream's media is made");
            source.set_max_buffers(WAITING);
            fanout.add(Box::new(AppSrcSink::new(source, WAITING, true, fanout.lost_counter())));
        });
        self.mounts.add(name, factory);
    }

    /// Offers it no longer; who plays it is cut off, and who has asked for it. Left to themselves, players that do not act on
    /// the end of the media would keep their connection and wait, and those between DESCRIBE and PLAY would play media
    /// that have ended: the server keeps for each client what it has described.
    pub fn remove(&self, name: &str) {
        use rtsp_server::RTSPFilterResult::{Keep, Remove};
        let path = format!("/{name}");
        self.mounts.remove(name);
        lock(&self.streams).remove(name);
        lock(&self.medias).remove(name);
        let asked = self.asked_for(name);
        self.server.client_filter(Some(&mut |_, client| {
            let mut plays = asked.contains(client);
            client.session_filter(Some(&mut |_, session| {
                plays |= session.media(&path).0.is_some();
                Keep
            }));
            if plays { Remove } else { Keep }
        }));
    }

    /// Clients whose last question was for this stream.
    fn asked_for(&self, name: &str) -> Vec<rtsp_server::RTSPClient> {
        let mut asked = lock(&self.asked);
        asked.retain(|(client, _)| client.upgrade().is_some());
        asked.iter().filter(|(_, other)| other == name).filter_map(|(client, _)| client.upgrade()).collect()
    }

    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.server.client_filter(None).len()
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        // Cuts the clients off; their media see it and let go of the fan-out.
        self.server.client_filter(Some(&mut |_, _| rtsp_server::RTSPFilterResult::Remove));
        // From inside: asked to quit before its thread has come to run it, a loop would forget it and run for ever.
        let running = self.main_loop.clone();
        let quit = glib::idle_source_new(None, glib::Priority::HIGH, move || {
            running.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.main_loop.context()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the RTSP server ended in a panic");
        }
    }
}

/// What accepts connections, and at which port. GStreamer's own source would do the same, but keeps its socket to itself;
/// accepted connections inherit what is set here.
fn listen(
    server: &rtsp_server::RTSPServer,
    address: SocketAddr,
    stall_limit: Duration,
    connections: Connections,
) -> Result<(glib::Source, u16), OutputError> {
    let failed = |error: &dyn std::fmt::Display| OutputError(format!("server.rtsp: {address}: {error}"));
    let none = gio::Cancellable::NONE;
    let socket = server.create_socket(none).map_err(|error| failed(&error))?;
    let (options, asking) = (SockRef::from(&socket), TcpKeepalive::new().with_time(ASK_AFTER));
    options
        .set_tcp_user_timeout(Some(stall_limit))
        .and_then(|()| options.set_tcp_keepalive(&asking.with_interval(ASK_AFTER / 3)))
        .map_err(|error| failed(&error))?;
    let bound = options.local_addr().map_err(|error| failed(&error))?.as_socket();
    let wanted = glib::IOCondition::IN | glib::IOCondition::ERR | glib::IOCondition::HUP | glib::IOCondition::NVAL;
    let server = server.clone();
    let accept = move |socket: &gio::Socket, condition| {
        if !connections.make_room() {
            return glib::ControlFlow::Continue;
        }
        if rtsp_server::RTSPServer::io_func(socket, condition, &server).is_err() {
            crate::base::log_dedup::warn("", "publish", "an RTSP client could not be let in");
        }
        connections.close_refused();
        glib::ControlFlow::Continue
    };
    let source = SocketExtManual::create_source(&socket, wanted, none, Some("rtsp"), glib::Priority::DEFAULT, accept);
    Ok((source, bound.map_or(address.port(), |bound| bound.port())))
}

/// Lets every client that begins to play begin with a keyframe, and notes what each asks for. The media is shared: only its
/// first client starts the encoder, the others would wait for the next keyframe that is due.
fn greet_players(
    server: &rtsp_server::RTSPServer,
    streams: &FanoutsByStream,
    asked: &RequestedMounts,
    medias: &StreamMedias,
) {
    let (streams, asked, medias) = (Arc::clone(streams), Arc::clone(asked), Arc::clone(medias));
    server.connect_client_connected(move |_, client| {
        client.set_post_session_timeout(AFTER_SESSION);
        let (asked, medias) = (Arc::clone(&asked), Arc::clone(&medias));
        client.connect_pre_describe_request(move |client, context| {
            describes();
            if let Some(name) = stream_name(context) {
                let mut asked = lock(&asked);
                asked.retain(|(other, _)| other.upgrade().is_some_and(|other| other != *client));
                asked.push((client.downgrade(), name.clone()));
                drop(asked);
                wait_for_leaving(&medias, &name);
            }
            RTSPStatusCode::Ok
        });
        // The server asks for credentials where media are described and set up; a session's number, heard on the way, is no
        // substitute for them.
        client.connect_pre_play_request(|client, _| {
            let auth = client.auth().and_then(|auth| auth.downcast::<RtspAuth>().ok());
            match auth.is_none_or(|auth| auth.knows(client)) {
                true => RTSPStatusCode::Ok,
                false => RTSPStatusCode::Unauthorized,
            }
        });
        let streams = Arc::clone(&streams);
        client.connect_play_request(move |_, context| {
            if let Some(fanout) = stream_name(context).and_then(|name| lock(&streams).get(&name).cloned()) {
                fanout.request_keyframe();
            }
        });
    });
}

/// Waits until the media that the last viewer of a stream has left is gone: it cannot be used again. Only for a client's own
/// thread.
fn wait_for_leaving(medias: &StreamMedias, stream: &str) {
    use rtsp_server::RTSPMediaStatus::{Error, Unprepared, Unpreparing};
    let began = Instant::now();
    let leaves = || {
        let media = lock(medias).get(stream).and_then(glib::WeakRef::upgrade);
        media.is_some_and(|media| matches!(media.status(), Error | Unprepared | Unpreparing))
    };
    while leaves() && began.elapsed() < LEAVING {
        std::thread::sleep(LEAVING_LOOK);
    }
}

fn count_players(server: &rtsp_server::RTSPServer, streams: &FanoutsByStream) {
    let players = Players::of(streams);
    players.follow_sessions(server);
    server.connect_client_connected(move |_, client| players.follow(client));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
