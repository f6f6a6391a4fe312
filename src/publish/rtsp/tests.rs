//! Viewers as the server sees them: a connection that speaks RTSP, and from some moment on does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, tick};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::base::status::Status;
use crate::config::EncodeConfig;
use crate::frame::{PixelFormat, VideoInfo};
use crate::publish::live::{LiveOutput, StreamOutputs};
use crate::publish::{CaptureTime, Output};

/// How long the test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(600);

/// A server with the stream `gate`, whose pictures come until this is dropped.
struct Scene {
    server: RtspServer,
    outputs: StreamOutputs,
    painter: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Scene {
    fn start() -> Self {
        // Not fifteen.
        Scene::of(Connections::new(false), Duration::from_secs(1))
    }

    fn of(connections: Connections, stall_limit: Duration) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let server = RtspServer::start_with(address, None, stall_limit, connections).unwrap();
        let outputs = StreamOutputs::default();
        server.add("gate", Arc::clone(&outputs.h264));
        let (going_on, over) = bounded::<()>(0);
        let status = Arc::new(Status::new("gate"));
        let mut output = LiveOutput::new(EncodeConfig::default(), None, &[], status, outputs.clone()).unwrap();
        let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, 64, 48) };
        let painter = std::thread::spawn(move || {
            let start = Instant::now();
            while over.recv_timeout(Duration::from_millis(40)) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                if output.wanted() {
                    let stamp = CaptureTime { pts: now - start, captured_at: now, slate: false };
                    let grey = &mut |picture: &mut crate::frame::ImageMut<'_>| {
                        picture.planes.iter_mut().for_each(|plane| plane.data.fill(128));
                    };
                    output.publish(stamp, info, grey).unwrap();
                }
            }
        });
        Scene { server, outputs, painter: Some((going_on, painter)) }
    }

    /// Sessions run out as soon as nothing is heard of them for a second, not for a minute.
    fn hurry(&self) {
        let pool = self.server.server.session_pool().unwrap();
        pool.filter(Some(&mut |_, session| {
            session.set_timeout(1);
            session.set_extra_timeout(0);
            rtsp_server::RTSPFilterResult::Keep
        }));
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let (deadline, again) = (Instant::now() + DEADLINE, tick(Duration::from_millis(20)));
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
            again.recv().unwrap();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some((going_on, painter)) = self.painter.take() {
            drop(going_on);
            assert!(painter.join().is_ok());
        }
    }
}

/// A viewer that says only what it is told to say.
struct Viewer {
    connection: BufReader<TcpStream>,
    url: String,
    said: u32,
}

impl Viewer {
    /// Has said nothing yet.
    fn connect(server: &RtspServer) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // The less the system reads for one who does not, the sooner it shows.
        socket.set_recv_buffer_size(2048).unwrap();
        socket.connect(&server.address().into()).unwrap();
        let connection = TcpStream::from(socket);
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let url = format!("rtsp://{}/gate", server.address());
        Viewer { connection: BufReader::new(connection), url, said: 0 }
    }

    /// Plays by this transport, as in the header.
    fn play(server: &RtspServer, transport: &str) -> Self {
        let mut viewer = Viewer::connect(server);
        let url = viewer.url.clone();
        viewer.say("DESCRIBE", &url, "Accept: application/sdp\r\n");
        let answer = viewer.say("SETUP", &format!("{url}/stream=0"), &format!("Transport: {transport}\r\n"));
        let session = answer.iter().find_map(|line| line.strip_prefix("Session: ")).unwrap();
        let session = session.split(';').next().unwrap().to_owned();
        viewer.say("PLAY", &url, &format!("Session: {session}\r\n"));
        viewer
    }

    /// Gives the answer's header, which must be a good one.
    fn say(&mut self, method: &str, url: &str, headers: &str) -> Vec<String> {
        self.said += 1;
        let text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.said);
        self.connection.get_mut().write_all(text.as_bytes()).unwrap();
        let mut lines = Vec::new();
        loop {
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

/// As when a machine sleeps or loses its network: its connection is never closed, and nothing is read from it.
#[test]
fn of_a_viewer_who_vanishes_nothing_is_left() {
    let scene = Scene::start();
    let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
    packets.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = packets.local_addr().unwrap().port();
    let by_udp = Viewer::play(&scene.server, &format!("RTP/AVP;unicast;client_port={port}-{}", port ^ 1));
    assert!(packets.recv(&mut [0; 2000]).unwrap() > 12);
    let mut by_tcp = Viewer::play(&scene.server, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let mut packet = [0; 16];
    by_tcp.connection.read_exact(&mut packet).unwrap();
    assert_eq!(packet[..2], *b"$\0", "a packet of the first channel");
    assert_eq!((scene.server.clients(), scene.outputs.h264.packet_sinks()), (2, 1));
    scene.hurry();
    scene.until("the media are given back", |scene| scene.outputs.h264.packet_sinks() == 0);
    scene.until("their connections are closed", |scene| scene.server.clients() == 0);
    drop((by_udp, by_tcp));
}

/// Waits until the server closes a connection on which it has nothing to say.
fn is_closed(mut connection: &TcpStream) -> bool {
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    // An end, or a reset; not the time that has passed.
    match connection.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn connections_that_play_nothing_give_way_and_those_that_play_stay() {
    let scene = Scene::of(Connections::of(3, DEADLINE, false), DEADLINE);
    let address = scene.server.address();
    let mut viewer = Viewer::play(&scene.server, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let idle = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    scene.until("all places are taken", |scene| scene.server.clients() == 3);
    let mut next = Viewer::connect(&scene.server);
    next.say("OPTIONS", &next.url.clone(), "");
    assert!(is_closed(&idle[0]), "the one that has said nothing for the longest time");
    let mut packet = [0; 16];
    viewer.connection.read_exact(&mut packet).unwrap();
    scene.until("there are as many as before", |scene| scene.server.clients() == 3);
}

#[test]
fn a_connection_that_says_nothing_is_closed_and_one_that_plays_is_not() {
    let scene = Scene::of(Connections::of(10, Duration::from_secs(1), false), DEADLINE);
    let viewer = Viewer::play(&scene.server, "RTP/AVP/TCP;unicast;interleaved=0-1");
    let mut asks = Viewer::connect(&scene.server);
    asks.say("OPTIONS", &asks.url.clone(), "");
    let silent = TcpStream::connect(scene.server.address()).unwrap();
    assert!(is_closed(&silent) && is_closed(asks.connection.get_ref()));
    scene.until("only the viewer is left", |scene| scene.server.clients() == 1);
    drop(viewer);
}

/// The media that the last viewer leaves cannot be used again; GStreamer's server answers 503 until it is gone.
#[test]
fn a_viewer_who_comes_as_the_last_one_leaves_is_let_in() {
    let scene = Scene::start();
    for _ in 0..30 {
        let mut viewer = Viewer::connect(&scene.server);
        viewer.say("DESCRIBE", &viewer.url.clone(), "Accept: application/sdp\r\n");
    }
}
