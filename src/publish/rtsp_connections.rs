//! How many RTSP connections there may be, in all and from one address, and how long those may stay that do not watch.
//!
//! GStreamer's server takes all that come, and keeps one that says nothing for a minute. Here the limits are those of HTTP.
//! Where all places are taken, the connection that has said nothing for the longest time, and plays nothing, gives way to
//! the next one: who opens all that he can does not shut out those who watch.
//!
//! Connections are let in, looked at and closed by the one thread that accepts them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer_rtsp_server as rtsp_server;

use rtsp_server::gio::Socket;
use rtsp_server::gio::prelude::SocketExt;
use rtsp_server::gst_rtsp::RTSPStatusCode;
use rtsp_server::prelude::*;

use super::connection_limit::{ConnectionLimiter, ConnectionPermit, MAX_CONNECTIONS, MAX_OF_ADDRESS};
use super::rtsp_auth::RtspAuth;
use super::rtsp_ffi::peer;
use crate::base::{descriptors, log_dedup};

/// How long a client may say nothing before it has a session: time for a TLS handshake, or for the next request.
const SILENT_LIMIT: Duration = Duration::from_secs(15);

/// The same for one that has asked for a stream and may watch it: the stream may have no picture yet.
const ASKING_LIMIT: Duration = Duration::from_secs(60);

/// TLS handshakes that may be under way before the oldest give way. GLib has ten threads for them, and each waits for its
/// client: others could not begin theirs.
const HANDSHAKES: usize = 8;

/// How long a handshake may take when there are more.
const CROWDED_LIMIT: Duration = Duration::from_secs(2);

/// Time in which a connection that gives way is closed by its own thread.
const CLOSING: Duration = Duration::from_millis(2);

/// How long accepting stops when no descriptors are left for viewers, and no idle connection can be closed.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a server.
#[derive(Clone)]
pub struct Connections(Arc<ConnectionsInner>);

struct ConnectionsInner {
    limiter: ConnectionLimiter,
    /// By the client's address in memory.
    open: Mutex<HashMap<usize, RtspConnection>>,
    /// Those to be closed as soon as GStreamer has taken them in.
    refused: Mutex<Vec<Closing>>,
    silent_limit: Duration,
    /// Whether they begin with a TLS handshake.
    tls: bool,
}

struct RtspConnection {
    client: glib::WeakRef<rtsp_server::RTSPClient>,
    state: ConnectionState,
    /// Given back with the connection.
    _permit: ConnectionPermit,
}

#[derive(Clone)]
struct ConnectionState {
    address: IpAddr,
    /// `None` when it is being closed.
    closing: Option<Closing>,
    /// When it came or last asked for something.
    heard: Instant,
    /// Whether it has asked for anything.
    spoken: bool,
    /// Whether it has asked for a stream.
    described: bool,
}

/// A client's socket, to be shut down by the accepting thread.
type Closing = glib::SendWeakRef<Socket>;

impl Connections {
    /// For a server; those who say nothing are closed after [`SILENT_LIMIT`].
    pub fn new(tls: bool) -> Self {
        Self::of(MAX_CONNECTIONS, SILENT_LIMIT, tls)
    }

    pub fn of(most: usize, silent_limit: Duration, tls: bool) -> Self {
        Connections(Arc::new(ConnectionsInner {
            limiter: ConnectionLimiter::new(most, MAX_OF_ADDRESS),
            open: Mutex::default(),
            refused: Mutex::default(),
            silent_limit,
            tls,
        }))
    }

    /// Follows the connections that the server takes in.
    pub fn follow(&self, server: &rtsp_server::RTSPServer) {
        let connections = self.clone();
        server.connect_client_connected(move |_, client| connections.came(client));
    }

    /// Where a client is; `None` once its connection is closed.
    pub fn address(&self, client: &rtsp_server::RTSPClient) -> Option<IpAddr> {
        lock(&self.0.open).get(&key(client)).map(|open| open.state.address)
    }

    /// Before a connection is accepted: makes room for it, if there is none. False while there is none; the next one waits
    /// in the kernel then.
    pub fn make_room(&self) -> bool {
        if self.0.limiter.has_room() && !descriptors::are_scarce() {
            return true;
        }
        let idle = self.all().into_iter().filter(|(client, _)| !has_session(client));
        match idle.min_by_key(|(_, state)| state.heard) {
            Some((client, _)) => {
                log_dedup::warn(
                    "",
                    "publish",
                    "RTSP connections that play nothing give way to others: there are too many",
                );
                self.shut(&client);
                std::thread::sleep(CLOSING);
            }
            None => {
                log_dedup::warn(
                    "",
                    "publish",
                    "RTSP clients have to wait: all connections are taken by those who watch",
                );
                std::thread::sleep(PAUSE);
            }
        }
        false
    }

    /// After connections were accepted: closes those over the limit.
    pub fn close_refused(&self) {
        std::mem::take(&mut *lock(&self.0.refused)).iter().for_each(shut);
    }

    /// Closes those who have said nothing for too long and have no session; called often.
    pub fn close_silent(&self) {
        let all = self.all();
        let mut greeting: Vec<_> = all.iter().filter(|(_, state)| !state.spoken).collect();
        greeting.sort_by_key(|(_, state)| state.heard);
        let too_many = if self.0.tls { greeting.len().saturating_sub(HANDSHAKES) } else { 0 };
        let crowded = greeting.into_iter().take(too_many).filter(|(_, state)| state.heard.elapsed() > CROWDED_LIMIT);
        crowded.for_each(|(client, _)| self.shut(client));
        for (client, state) in &all {
            let limit = match state.described && is_known(client) {
                true => ASKING_LIMIT.max(self.0.silent_limit),
                false => self.0.silent_limit,
            };
            if state.heard.elapsed() > limit && !has_session(client) {
                self.shut(client);
            }
        }
    }

    /// Ends a client's connection, if that has not been done.
    fn shut(&self, client: &rtsp_server::RTSPClient) {
        let closing = lock(&self.0.open).get_mut(&key(client)).and_then(|open| open.state.closing.take());
        closing.iter().for_each(shut);
    }

    /// All that are open and not being closed. GStreamer is not to be called while they are locked: it calls here with locks
    /// of its own.
    fn all(&self) -> Vec<(rtsp_server::RTSPClient, ConnectionState)> {
        let open = lock(&self.0.open);
        let open = open.values().filter(|open| open.state.closing.is_some());
        open.filter_map(|open| Some((open.client.upgrade()?, open.state.clone()))).collect()
    }

    fn came(&self, client: &rtsp_server::RTSPClient) {
        let Some((address, socket)) = peer(client) else { return };
        let closing = Closing::from(socket.downgrade());
        let Some(permit) = self.0.limiter.try_acquire(address) else {
            let text = format!("{address} has too many RTSP connections; no more from there");
            log_dedup::warn("", "publish", &text);
            lock(&self.0.refused).push(closing);
            return;
        };
        let state =
            ConnectionState { address, closing: Some(closing), heard: Instant::now(), spoken: false, described: false };
        lock(&self.0.open).insert(key(client), RtspConnection { client: client.downgrade(), state, _permit: permit });
        let connections = self.clone();
        client.connect_closed(move |client| {
            lock(&connections.0.open).remove(&key(client));
        });
        let connections = self.clone();
        client.connect_pre_options_request(move |client, _| connections.hear(client, false));
        let connections = self.clone();
        client.connect_pre_describe_request(move |client, _| connections.hear(client, true));
        let connections = self.clone();
        client.connect_pre_setup_request(move |client, _| match descriptors::are_scarce() {
            // A viewer over UDP takes more of them.
            true => RTSPStatusCode::ServiceUnavailable,
            false => connections.hear(client, true),
        });
    }

    fn hear(&self, client: &rtsp_server::RTSPClient, describes: bool) -> RTSPStatusCode {
        if let Some(open) = lock(&self.0.open).get_mut(&key(client)) {
            open.state.heard = Instant::now();
            open.state.spoken = true;
            open.state.described |= describes;
        }
        RTSPStatusCode::Ok
    }
}

fn key(client: &rtsp_server::RTSPClient) -> usize {
    client.as_ptr() as usize
}

fn has_session(client: &rtsp_server::RTSPClient) -> bool {
    !client.session_filter(None).is_empty()
}

/// Whether a client may watch.
fn is_known(client: &rtsp_server::RTSPClient) -> bool {
    client.auth().and_then(|auth| auth.downcast::<RtspAuth>().ok()).is_none_or(|auth| auth.knows(client))
}

/// Ends a connection: its own thread sees that, and closes it. GStreamer's connections are not safe to be closed by another
/// thread while they are read. It ends a TLS handshake, too, for which a thread of GLib's holds the connection as long as
/// the client says nothing.
fn shut(closing: &Closing) {
    if let Some(socket) = closing.upgrade() {
        // Fails where the client has closed it.
        let _ = socket.shutdown(true, true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
