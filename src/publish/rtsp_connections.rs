//! Limits RTSP connections: their number in total and per address, and how long one without a session may stay idle.
//!
//! GStreamer's server accepts all connections, and keeps an idle one for a minute. The limits here are those of HTTP.
//! When the total limit is reached, the connection without a session that has been idle for the longest time is closed
//! for the next client, so that a client that opens many connections does not lock out others.
//!
//! Connections are accepted, checked and closed on one thread.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer_rtsp_server as rtsp_server;
use parking_lot::Mutex;
use rtsp_server::gio::Socket;
use rtsp_server::gio::prelude::SocketExt;
use rtsp_server::gst_rtsp::RTSPStatusCode;
use rtsp_server::prelude::*;

use super::connection_limit::{ConnectionLimiter, ConnectionPermit, MAX_CONNECTIONS, MAX_PER_ADDRESS};
use super::rtsp_auth::RtspAuth;
use super::rtsp_ffi::peer;
use crate::base::{descriptors, log_dedup};

/// How long a client without a session may send nothing: time for a TLS handshake, or between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The same for an authenticated client that has described a stream, which may have no frame yet.
const DESCRIBED_TIMEOUT: Duration = Duration::from_secs(60);

/// The most TLS handshakes at the same time before the oldest are shortened. GLib has ten threads for handshakes, and
/// each blocks until its client responds.
const MAX_HANDSHAKES: usize = 8;

/// How long a handshake may take when there are more.
const CROWDED_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause in which the thread of a connection closes it, before the next one is accepted.
const CLOSE_PAUSE: Duration = Duration::from_millis(2);

/// How long the threads of connections may take to close them, before another connection is closed for a new client.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before the next attempt to accept when no descriptors are left and no idle connection can be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a server.
#[derive(Clone)]
pub struct Connections(Arc<ConnectionsInner>);

struct ConnectionsInner {
    limiter: ConnectionLimiter,
    /// By the client's address in memory.
    open: Mutex<HashMap<usize, RtspConnection>>,
    /// Connections over the limit, to be closed after GStreamer has accepted them.
    refused: Mutex<Vec<Closing>>,
    idle_timeout: Duration,
    /// Whether connections begin with a TLS handshake.
    tls: bool,
}

struct RtspConnection {
    client: glib::WeakRef<rtsp_server::RTSPClient>,
    state: ConnectionState,
    /// Released with the connection.
    _permit: ConnectionPermit,
}

#[derive(Clone)]
struct ConnectionState {
    address: IpAddr,
    /// `None` when the connection is being closed.
    closing: Option<Closing>,
    /// When the connection was shut down. The thread of the connection then closes it.
    shut_down_at: Option<Instant>,
    /// When the client connected or sent its last request.
    last_request: Instant,
    /// Whether the client has sent a request.
    has_requested: bool,
    /// Whether the client has described a stream.
    described: bool,
}

/// The socket of a client, to be shut down by the accepting thread.
type Closing = glib::SendWeakRef<Socket>;

impl Connections {
    /// With the default limits. `tls`: whether connections begin with a TLS handshake.
    pub fn new(tls: bool) -> Self {
        Self::with_limits(MAX_CONNECTIONS, IDLE_TIMEOUT, tls)
    }

    pub fn with_limits(max: usize, idle_timeout: Duration, tls: bool) -> Self {
        Connections(Arc::new(ConnectionsInner {
            limiter: ConnectionLimiter::new(max, MAX_PER_ADDRESS),
            open: Mutex::default(),
            refused: Mutex::default(),
            idle_timeout,
            tls,
        }))
    }

    /// Registers the connections that the server accepts.
    pub fn follow(&self, server: &rtsp_server::RTSPServer) {
        let connections = self.clone();
        server.connect_client_connected(move |_, client| connections.add(client));
    }

    /// The address of a client; `None` after its connection was closed.
    pub fn address(&self, client: &rtsp_server::RTSPClient) -> Option<IpAddr> {
        self.0.open.lock().get(&key(client)).map(|open| open.state.address)
    }

    /// Must be called before a connection is accepted. When the limit is reached, it closes an idle connection and
    /// returns false; the new connection then waits in the kernel until the next call.
    pub fn make_room(&self) -> bool {
        if self.0.limiter.has_room() && !descriptors::are_scarce() {
            return true;
        }
        if self.is_one_being_closed() {
            std::thread::sleep(CLOSE_PAUSE);
            return false;
        }
        let idle = self.open_connections().into_iter().filter(|(client, _)| !has_session(client));
        match idle.min_by_key(|(_, state)| state.last_request) {
            Some((client, _)) => {
                let text = "too many RTSP connections: closed an idle one for a new client";
                log_dedup::warn("", "publish", text);
                self.shut_down(&client);
                std::thread::sleep(CLOSE_PAUSE);
            }
            None => {
                let text = "too many RTSP connections: all of them are watching, new clients have to wait";
                log_dedup::warn("", "publish", text);
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
        false
    }

    /// Must be called after connections were accepted; closes those over the limit.
    pub fn close_refused(&self) {
        std::mem::take(&mut *self.0.refused.lock()).iter().for_each(shut_down);
    }

    /// Closes connections without a session that have been idle for too long. Must be called regularly.
    pub fn close_idle(&self) {
        let all = self.open_connections();
        let mut handshaking: Vec<_> = all.iter().filter(|(_, state)| !state.has_requested).collect();
        handshaking.sort_by_key(|(_, state)| state.last_request);
        let too_many = if self.0.tls { handshaking.len().saturating_sub(MAX_HANDSHAKES) } else { 0 };
        for (client, state) in handshaking.into_iter().take(too_many) {
            if state.last_request.elapsed() > CROWDED_HANDSHAKE_TIMEOUT {
                self.shut_down(client);
            }
        }
        for (client, state) in &all {
            let timeout = match state.described && is_authenticated(client) {
                true => DESCRIBED_TIMEOUT.max(self.0.idle_timeout),
                false => self.0.idle_timeout,
            };
            if state.last_request.elapsed() > timeout && !has_session(client) {
                self.shut_down(client);
            }
        }
    }

    /// Whether a connection was shut down, and its thread has not closed it yet: there will be room without closing another.
    fn is_one_being_closed(&self) -> bool {
        let is_recent = |at: Instant| at.elapsed() < CLOSE_TIMEOUT;
        self.0.open.lock().values().any(|open| open.state.shut_down_at.is_some_and(is_recent))
    }

    /// Shuts down the connection of a client, unless that was done already.
    fn shut_down(&self, client: &rtsp_server::RTSPClient) {
        let closing = self.0.open.lock().get_mut(&key(client)).and_then(|open| {
            open.state.shut_down_at.get_or_insert_with(Instant::now);
            open.state.closing.take()
        });
        closing.iter().for_each(shut_down);
    }

    /// The connections that are open and not being closed. Returns a copy, because calling GStreamer while the map is
    /// locked could deadlock: GStreamer calls back here while it holds its own locks.
    fn open_connections(&self) -> Vec<(rtsp_server::RTSPClient, ConnectionState)> {
        let open = self.0.open.lock();
        let open = open.values().filter(|open| open.state.closing.is_some());
        open.filter_map(|open| Some((open.client.upgrade()?, open.state.clone()))).collect()
    }

    fn add(&self, client: &rtsp_server::RTSPClient) {
        let Some((address, socket)) = peer(client) else { return };
        let closing = Closing::from(socket.downgrade());
        let Some(permit) = self.0.limiter.try_acquire(address) else {
            let text = format!("too many RTSP connections from one address, closed the newest: {address}");
            log_dedup::warn("", "publish", &text);
            self.0.refused.lock().push(closing);
            return;
        };
        let state = ConnectionState {
            address,
            closing: Some(closing),
            shut_down_at: None,
            last_request: Instant::now(),
            has_requested: false,
            described: false,
        };
        self.0.open.lock().insert(key(client), RtspConnection { client: client.downgrade(), state, _permit: permit });
        let connections = self.clone();
        client.connect_closed(move |client| {
            connections.0.open.lock().remove(&key(client));
        });
        let connections = self.clone();
        client.connect_pre_options_request(move |client, _| connections.record_request(client, false));
        let connections = self.clone();
        client.connect_pre_describe_request(move |client, _| connections.record_request(client, true));
        let connections = self.clone();
        client.connect_pre_setup_request(move |client, _| match descriptors::are_scarce() {
            // A viewer over UDP needs further descriptors.
            true => RTSPStatusCode::ServiceUnavailable,
            false => connections.record_request(client, true),
        });
    }

    fn record_request(&self, client: &rtsp_server::RTSPClient, describes: bool) -> RTSPStatusCode {
        if let Some(open) = self.0.open.lock().get_mut(&key(client)) {
            open.state.last_request = Instant::now();
            open.state.has_requested = true;
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
fn is_authenticated(client: &rtsp_server::RTSPClient) -> bool {
    let auth = client.auth().and_then(|auth| auth.downcast::<RtspAuth>().ok());
    auth.is_none_or(|auth| auth.is_authenticated(client))
}

/// Shuts a socket down, so that the thread of its connection closes the connection. Another thread must not close a
/// connection of GStreamer while it is read. This also ends a TLS handshake, for which a thread of GLib blocks while
/// the client sends nothing.
fn shut_down(closing: &Closing) {
    if let Some(socket) = closing.upgrade() {
        // Fails when the client has closed the connection.
        let _ = socket.shutdown(true, true);
    }
}
