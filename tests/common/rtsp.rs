//! RTSP: viewers (ffmpeg, and a client that does not read), and cameras (GStreamer's server).

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp_server;

use rtsp_server::prelude::*;

use super::clip::Rgb;
use super::program::{DEADLINE, Guard};
use super::rtsp_loop::RtspLoop;

/// ffmpeg that plays a URL and passes on each decoded frame.
pub struct Viewer {
    ffmpeg: Guard,
    frames: Receiver<Vec<u8>>,
    errors: JoinHandle<String>,
    size: (usize, usize),
}

impl Viewer {
    /// `transport`: `tcp` or `udp`; `size`: width and height of the frames, pixels.
    pub fn play(url: &str, transport: &str, size: (usize, usize)) -> Self {
        let mut ffmpeg = Guard::spawn(
            Command::new("ffmpeg")
                .args(["-v", "error", "-nostdin", "-rtsp_transport", transport])
                // Otherwise it waits for 20 frames to estimate their rate.
                .args(["-fpsprobesize", "0", "-i", url])
                .args(["-an", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let mut stdout = ffmpeg.0.stdout.take().unwrap();
        let mut stderr = ffmpeg.0.stderr.take().unwrap();
        let (sender, frames) = bounded(1);
        std::thread::spawn(move || {
            let mut frame = vec![0; 3 * size.0 * size.1];
            while stdout.read_exact(&mut frame).is_ok() && sender.send(frame.clone()).is_ok() {}
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Viewer { ffmpeg, frames, errors, size }
    }

    /// Waits until the server ends the stream.
    pub fn wait_for_end(self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.frames.recv_deadline(deadline) {
                Ok(_) => {}
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("ffmpeg still plays after {DEADLINE:?}"),
            }
        }
    }

    /// The next frame.
    pub fn next(&mut self) -> Rgb {
        match self.frames.recv_timeout(DEADLINE) {
            Ok(data) => Rgb { width: self.size.0, height: self.size.1, data },
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("no frame within {DEADLINE:?}"),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                let _ = self.ffmpeg.0.kill();
                let errors = std::mem::replace(&mut self.errors, std::thread::spawn(String::new));
                panic!("ffmpeg has ended: {}", errors.join().unwrap());
            }
        }
    }
}

/// How long a new viewer waits for its first keyframe; `None` when it is longer than `timeout`.
pub fn time_to_keyframe(url: &str, timeout: Duration) -> Option<Duration> {
    gst::init().unwrap();
    let description = format!(
        "rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay wait-for-keyframe=true \
         ! appsink name=sink sync=false"
    );
    let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let started = Instant::now();
    pipeline.set_state(gst::State::Playing).unwrap();
    let timeout = gst::ClockTime::from_mseconds(timeout.as_millis() as u64);
    let took = sink.try_pull_sample(timeout).map(|_| started.elapsed());
    pipeline.set_state(gst::State::Null).unwrap();
    took
}

/// An RTSP client over TCP that starts to play and then reads nothing.
pub struct NonReadingClient(TcpStream);

impl NonReadingClient {
    /// Sends DESCRIBE, SETUP and PLAY, and then reads nothing.
    pub fn play(url: &str) -> Self {
        NonReadingClient::connect(url, true)
    }

    /// Sends only DESCRIBE.
    pub fn describe(url: &str) -> Self {
        NonReadingClient::connect(url, false)
    }

    fn connect(url: &str, play: bool) -> Self {
        let host = url.trim_start_matches("rtsp://").split('/').next().unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let (mut number, mut session) = (0, String::new());
        let mut request = |method: &str, url: &str, more: &str| {
            number += 1;
            write!(stream, "{method} {url} RTSP/1.0\r\nCSeq: {number}\r\n{session}{more}\r\n").unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(answers.read_line(&mut head).unwrap() > 0, "{method}: the connection was closed");
            }
            assert!(head.starts_with("RTSP/1.0 200"), "{method}: {head}");
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let Some(id) = field("Session:") {
                session = format!("Session: {}\r\n", id.split(';').next().unwrap_or(id));
            }
            let mut body = vec![0; field("Content-Length:").map_or(0, |length| length.parse().unwrap())];
            answers.read_exact(&mut body).unwrap();
            String::from_utf8(body).unwrap()
        };
        let sdp = request("DESCRIBE", url, "Accept: application/sdp\r\n");
        if !play {
            return NonReadingClient(stream);
        }
        let control = sdp.lines().filter_map(|line| line.strip_prefix("a=control:")).next_back().unwrap();
        let track = if control.contains("://") { control.to_string() } else { format!("{url}/{control}") };
        request("SETUP", &track, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
        request("PLAY", url, "Range: npt=0-\r\n");
        NonReadingClient(stream)
    }

    /// Reads what has arrived and waits until the server closes the connection.
    pub fn wait_for_end(mut self) {
        // Shorter than the minute after which the server closes idle connections.
        self.0.set_read_timeout(Some(std::time::Duration::from_secs(50))).unwrap();
        // A reset counts as closed, too: the server may have left data unread.
        let read = std::io::copy(&mut self.0, &mut std::io::sink());
        let timed_out = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!read.is_err_and(|error| timed_out(&error)), "the server has not closed the connection");
    }
}

/// A camera: GStreamer's RTSP server.
pub struct Camera {
    pub port: u16,
    _running: RtspLoop,
}

impl Camera {
    /// Serves the pipeline `launch` at `/stream` without authentication; each client gets its own pipeline.
    pub fn open(launch: &str) -> Self {
        gst::init().unwrap();
        let server = rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0");
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(launch);
        server.mount_points().unwrap().add_factory("/stream", factory);
        let running = RtspLoop::start(server.clone()).unwrap();
        let port = u16::try_from(server.bound_port()).unwrap();
        Camera { port, _running: running }
    }

    /// Serves red frames, 320 × 240, at `/stream`; clients must authenticate with `user` and `password` (Basic).
    pub fn with_password(user: &str, password: &str) -> Self {
        gst::init().unwrap();
        let server = rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0");
        let auth = rtsp_server::RTSPAuth::new();
        let token =
            rtsp_server::RTSPToken::builder().field(rtsp_server::RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer").build();
        auth.add_basic(&rtsp_server::RTSPAuth::make_basic(user, password), &token);
        server.set_auth(Some(&auth));
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(
            "( videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=15/1 \
               ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )",
        );
        factory.set_shared(true);
        factory.add_role_from_structure(
            &gst::Structure::builder("viewer")
                .field(rtsp_server::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
                .field(rtsp_server::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
                .build(),
        );
        server.mount_points().unwrap().add_factory("/stream", factory);
        let running = RtspLoop::start(server.clone()).unwrap();
        let port = u16::try_from(server.bound_port()).unwrap();
        Camera { port, _running: running }
    }
}
