//! Cameras that show a clip: by RTSP, and by MJPEG with frames of changing size.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::tick;
use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use rtsp_server::prelude::*;

use crate::common::clip::ffmpeg;
use crate::common::rtsp_loop::RtspLoop;
use crate::paint::FPS;

/// An RTSP server at `/stream`. Each client sees the clip from its start. Dropped, it disconnects them.
pub struct Camera {
    pub port: u16,
    _running: RtspLoop,
}

impl Camera {
    /// Port 0 selects a free one.
    pub fn show(clip: &Path, port: u16) -> Self {
        gst::init().unwrap();
        let server = rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&port.to_string());
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(&format!(
            "( filesrc location={} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
            clip.display()
        ));
        server.mount_points().unwrap().add_factory("/stream", factory);
        let running = RtspLoop::start(server.clone()).unwrap();
        let port = u16::try_from(server.bound_port()).unwrap();
        Camera { port, _running: running }
    }

    /// The keys of a stream with this source.
    pub fn source(&self) -> String {
        format!("source = \"{}\"\ntransport = \"tcp\"\nlatency = \"0s\"\nsilence_timeout = \"2s\"\n", self.url())
    }

    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/stream", self.port)
    }
}

/// Serves the frames of these clips in turn, again and again, to each client in one response; returns the key of its source.
/// `folder` gets the frames.
pub fn serve_mjpeg(folder: &Path, clips: &[&Path]) -> String {
    let mut frames = Vec::new();
    for (n, clip) in clips.iter().enumerate() {
        let pattern = folder.join(format!("camera-{n}-%04d.jpg"));
        ffmpeg(&["-i", clip.to_str().unwrap(), "-q:v", "1", "-qmin", "1", pattern.to_str().unwrap()]);
        let jpegs = (1..).map(|frame| folder.join(format!("camera-{n}-{frame:04}.jpg")));
        frames.extend(jpegs.map_while(|path| std::fs::read(path).ok()));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let frames = frames.clone();
            // It ends with the connection.
            std::thread::spawn(move || send(client, &frames));
        }
    });
    format!("source = \"http://127.0.0.1:{port}/\"\n")
}

fn send(mut client: TcpStream, frames: &[Vec<u8>]) -> std::io::Result<()> {
    let request = BufReader::new(client.try_clone()?).lines();
    request.map_while(Result::ok).find(String::is_empty);
    write!(client, "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")?;
    let pace = tick(Duration::from_secs(1) / FPS as u32);
    for jpeg in frames.iter().cycle() {
        let _ = pace.recv();
        write!(client, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len())?;
        client.write_all(jpeg)?;
        client.write_all(b"\r\n")?;
    }
    Ok(())
}
