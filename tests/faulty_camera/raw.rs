//! A TCP server that violates RTSP and HTTP in ways that a real server cannot.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::scenario::Garbage;

/// Handles the connection of one client, which is closed on return.
pub type Handler = Arc<dyn Fn(TcpStream) -> std::io::Result<()> + Send + Sync>;

/// Accepts connections until it is dropped; then all are closed.
pub struct Acceptor {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// `connections` counts the accepted connections.
    ///
    /// # Errors
    /// The address is in use.
    pub fn start(address: SocketAddr, connections: &Arc<AtomicU64>, handler: Handler) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let clients: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (stop, open, count) = (Arc::clone(&stopping), Arc::clone(&clients), Arc::clone(connections));
        let thread = std::thread::spawn(move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            for client in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let Ok(client) = client else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let Ok(copy) = client.try_clone() else { continue };
                open.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
                threads.retain(|thread| !thread.is_finished());
                let handler = Arc::clone(&handler);
                threads.push(std::thread::spawn(move || {
                    let connection = client.try_clone();
                    // Errors are expected: clients disconnect from this server at any time.
                    let _ = handler(client);
                    if let Ok(connection) = connection {
                        let _ = connection.shutdown(Shutdown::Both);
                    }
                }));
            }
            drop(listener);
            close_all(&open);
            for thread in threads {
                let _ = thread.join();
            }
        });
        Ok(Acceptor { address, stopping, clients, thread: Some(thread) })
    }

    /// Closes all connections.
    pub fn disconnect_clients(&self) {
        close_all(&self.clients);
    }
}

fn close_all(clients: &Mutex<Vec<TcpStream>>) {
    for client in clients.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // Fails when the client has disconnected.
        let _ = client.shutdown(Shutdown::Both);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Unblocks the thread that waits for the next connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads and sends nothing until the client disconnects.
pub fn silent() -> Handler {
    Arc::new(|mut client| {
        let mut buffer = [0; 1024];
        while client.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

/// Sends invalid responses.
pub fn garbage(kind: Garbage) -> Handler {
    Arc::new(move |mut client| {
        if kind == Garbage::Noise {
            return client.write_all(&noise(4096));
        }
        let mut requests = BufReader::new(client.try_clone()?);
        while let Some(request) = Request::read(&mut requests)? {
            let sequence = request.sequence;
            let head = format!("RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n");
            match (request.method.as_str(), kind) {
                ("GET", _) => {
                    return client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; bound");
                }
                ("DESCRIBE", Garbage::Truncated) => {
                    let half =
                        format!("{head}Content-Type: application/sdp\r\nContent-Length: 2000\r\n\r\nv=0\r\no=- 1");
                    return client.write_all(half.as_bytes());
                }
                ("DESCRIBE", _) => {
                    let body = if kind == Garbage::Sdp { noise(700) } else { EMPTY_SDP.as_bytes().to_vec() };
                    let length = body.len();
                    let head = format!("{head}Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n");
                    client.write_all(&[head.as_bytes(), &body].concat())?;
                }
                ("OPTIONS", _) => {
                    let methods = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN";
                    client.write_all(format!("{head}Public: {methods}\r\n\r\n").as_bytes())?;
                }
                _ => client.write_all(format!("{head}\r\n").as_bytes())?,
            }
        }
        Ok(())
    })
}

/// An SDP without media.
const EMPTY_SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=nothing\r\nt=0 0\r\n";

/// Random bytes, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(11);
    (0..length).map(|_| random.u8(..)).collect()
}

/// The head of an RTSP or HTTP request.
pub struct Request {
    pub method: String,
    /// RTSP's `CSeq`.
    pub sequence: String,
}

impl Request {
    /// Reads the next request; `None` when the client has disconnected.
    pub fn read(from: &mut impl BufRead) -> std::io::Result<Option<Request>> {
        let mut request = Request { method: String::new(), sequence: String::new() };
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if let Some(sequence) = line.to_ascii_lowercase().strip_prefix("cseq:") {
                request.sequence = sequence.trim().into();
            }
            if request.method.is_empty() {
                request.method = line.split(' ').next().unwrap_or_default().into();
            } else if line.is_empty() {
                return Ok(Some(request));
            }
        }
    }
}
