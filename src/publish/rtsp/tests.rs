//! Tests of the RTSP server with clients that stop reading or sending at some point.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, tick};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::base::status::Status;
use crate::config::EncodeConfig;
use crate::frame::{PixelFormat, VideoInfo};
use crate::publish::live::LiveOutput;
use crate::publish::outputs::StreamOutputs;
use crate::publish::{CaptureTime, Output};

/// The time limit of each wait; guards against hanging.
const DEADLINE: Duration = Duration::from_secs(600);

/// A server with the stream `gate`, which has frames until this is dropped.
struct TestServer {
    server: RtspServer,
    outputs: StreamOutputs,
    painter: Option<(Sender<()>, JoinHandle<()>)>,
}

impl TestServer {
    fn start() -> Self {
        // A shorter stall timeout than the default.
        TestServer::with_limits(Connections::new(false), Duration::from_secs(1))
    }

    fn with_limits(connections: Connections, stall_timeout: Duration) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let server = RtspServer::start_with(address, None, stall_timeout, connections).unwrap();
        let outputs = StreamOutputs::default();
        server.add("gate", Arc::clone(&outputs.h264));
        let (stop, stopped) = bounded::<()>(0);
        let status = Arc::new(Status::new("gate"));
        let mut output = LiveOutput::new(EncodeConfig::default(), status, outputs.clone());
        let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, 64, 48) };
        let painter = std::thread::spawn(move || {
            let start = Instant::now();
            while stopped.recv_timeout(Duration::from_millis(40)) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                if output.wanted() {
                    let stamp = CaptureTime { pts: now - start, captured_at: now, slate: false };
                    output.publish(stamp, info, &mut |image| image.fill([128; 3])).unwrap();
                }
            }
        });
        TestServer { server, outputs, painter: Some((stop, painter)) }
    }

    /// Reduces the timeout of all sessions from a minute to a second.
    fn shorten_session_timeouts(&self) {
        let pool = self.server.server.session_pool().unwrap();
        pool.filter(Some(&mut |_, session| {
            session.set_timeout(1);
            session.set_extra_timeout(0);
            rtsp_server::RTSPFilterResult::Keep
        }));
    }

    fn wait_until(&self, condition: &str, is_met: impl Fn(&Self) -> bool) {
        let (deadline, next_check) = (Instant::now() + DEADLINE, tick(Duration::from_millis(20)));
        while !is_met(self) {
            assert!(Instant::now() < deadline, "{condition}: not within {DEADLINE:?}");
            next_check.recv().unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some((stop, painter)) = self.painter.take() {
            drop(stop);
            assert!(painter.join().is_ok());
        }
    }
}

/// A client that sends only the requests of the test.
struct Viewer {
    connection: BufReader<TcpStream>,
    url: String,
    /// The number of the last request (`CSeq`).
    sequence: u32,
}

impl Viewer {
    /// Connects without a request.
    fn connect(server: &RtspServer) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // The smaller the receive buffer, the sooner the server notices that the client does not read.
        socket.set_recv_buffer_size(2048).unwrap();
        socket.connect(&server.address().into()).unwrap();
        let connection = TcpStream::from(socket);
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let url = format!("rtsp://{}/gate", server.address());
        Viewer { connection: BufReader::new(connection), url, sequence: 0 }
    }

    /// Plays with this `Transport` header.
    fn play(server: &RtspServer, transport: &str) -> Self {
        let mut viewer = Viewer::connect(server);
        let url = viewer.url.clone();
        viewer.request("DESCRIBE", &url, "Accept: application/sdp\r\n");
        let answer = viewer.request("SETUP", &format!("{url}/stream=0"), &format!("Transport: {transport}\r\n"));
        let session = answer.iter().find_map(|line| line.strip_prefix("Session: ")).unwrap();
        let session = session.split(';').next().unwrap().to_owned();
        viewer.request("PLAY", &url, &format!("Session: {session}\r\n"));
        viewer
    }

    /// Sends a request, checks that the response is 200, and returns the lines of its header.
    fn request(&mut self, method: &str, url: &str, headers: &str) -> Vec<String> {
        self.sequence += 1;
        let text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.sequence);
        self.connection.get_mut().write_all(text.as_bytes()).unwrap();
        let mut lines = Vec::new();
        loop {
            // Packets of the video may come before the response to PLAY (RFC 2326, section 10.12).
            while self.connection.fill_buf().unwrap().first() == Some(&b'$') {
                let mut header = [0; 4];
                self.connection.read_exact(&mut header).unwrap();
                let mut packet = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
                self.connection.read_exact(&mut packet).unwrap();
            }
            let mut line = String::new();
            self.connection.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        assert!(lines[0].ends_with("200 OK"), "{method} {}: {lines:?}", self.url);
        let length = lines.iter().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        self.connection.read_exact(&mut vec![0; length]).unwrap();
        lines
    }
}

/// The machine of a viewer sleeps or loses its network: the connection is never closed, and nothing is read from it.
#[test]
fn viewers_that_stop_responding_are_removed() {
    let server = TestServer::start();
    let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
    packets.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = packets.local_addr().unwrap().port();
    let by_udp = Viewer::play(&server.server, &format!("RTP/AVP;unicast;client_port={port}-{}", port ^ 1));
    assert!(packets.recv(&mut [0; 2000]).unwrap() > 12);
    let mut by_tcp = Viewer::play(&server.server, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let mut packet = [0; 16];
    by_tcp.connection.read_exact(&mut packet).unwrap();
    assert_eq!(packet[..2], *b"$\0", "a packet of the first channel");
    assert_eq!((server.server.clients(), server.outputs.h264.sinks()), (2, 1));
    server.shorten_session_timeouts();
    server.wait_until("the frame sink of the media is removed", |server| server.outputs.h264.sinks() == 0);
    server.wait_until("the connections are closed", |server| server.server.clients() == 0);
    drop((by_udp, by_tcp));
}

/// Waits until the server closes a connection on which it sends nothing.
fn is_closed(mut connection: &TcpStream) -> bool {
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    // The end of the stream or a reset; not the read timeout.
    match connection.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn at_the_limit_the_oldest_idle_connection_is_closed_and_viewers_stay() {
    let server = TestServer::with_limits(Connections::with_limits(3, DEADLINE, false), DEADLINE);
    let address = server.server.address();
    let mut viewer = Viewer::play(&server.server, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let idle = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    server.wait_until("the limit is reached", |server| server.server.clients() == 3);
    let mut next = Viewer::connect(&server.server);
    next.request("OPTIONS", &next.url.clone(), "");
    assert!(is_closed(&idle[0]), "the connection that has been idle for the longest time");
    let mut packet = [0; 16];
    viewer.connection.read_exact(&mut packet).unwrap();
    server.wait_until("there are as many connections as before", |server| server.server.clients() == 3);
}

#[test]
fn idle_connections_are_closed_and_viewers_stay() {
    let server = TestServer::with_limits(Connections::with_limits(10, Duration::from_secs(1), false), DEADLINE);
    let viewer = Viewer::play(&server.server, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let mut without_session = Viewer::connect(&server.server);
    without_session.request("OPTIONS", &without_session.url.clone(), "");
    let silent = TcpStream::connect(server.server.address()).unwrap();
    assert!(is_closed(&silent) && is_closed(without_session.connection.get_ref()));
    server.wait_until("only the viewer is left", |server| server.server.clients() == 1);
    drop(viewer);
}

/// The media of the last viewer cannot be used again. GStreamer's server would answer 503 until it is torn down.
#[test]
fn a_viewer_that_connects_while_the_last_one_disconnects_is_served() {
    let server = TestServer::start();
    for _ in 0..30 {
        let mut viewer = Viewer::connect(&server.server);
        viewer.request("DESCRIBE", &viewer.url.clone(), "Accept: application/sdp\r\n");
    }
}
