//! A faulty camera: an RTSP server, or an HTTP one that sends multipart JPEG, with scripted faults.
//!
//! | module | content |
//! | --- | --- |
//! | [`scenario`] | TOML files: the actions of cameras and what viewers must see |
//! | [`test_frame`] | frames that contain their own number, and how to read it |
//! | [`sensor`] | captures frames at a constant rate, with their times |
//! | [`link`] | faults of packets: lost, late, damaged, wrong timestamps |
//! | [`rtsp`] | the camera as an RTSP server (GStreamer) |
//! | [`http`] | the camera as an HTTP server |
//! | [`raw`] | servers that violate the protocol: no response, or random data |
//!
//! Every camera has its own loopback address (127.x.y.z), so that no other process can take its port while it is closed.
#![allow(dead_code)] // Each test and example is its own program and uses a part.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};

pub mod http;
pub mod link;
pub mod raw;
pub mod rtsp;
pub mod scenario;
pub mod sensor;
pub mod test_frame;

use link::Link;
use scenario::{Action, CameraKind, CameraSpec, Codec, VideoChange};
use sensor::Sensor;

/// A camera that performs the actions of a scenario.
pub struct Camera {
    pub kind: CameraKind,
    pub address: SocketAddr,
    codec: Codec,
    sensor: Arc<Sensor>,
    link: Arc<Link>,
    connections: Arc<AtomicU64>,
    server: Option<CameraServer>,
}

/// The server at the camera's port.
enum CameraServer {
    Rtsp(rtsp::Server),
    Http(http::Server),
    Raw(raw::Acceptor),
}

impl Camera {
    /// Starts a camera at its own loopback address, in the initial state of its scenario.
    ///
    /// # Errors
    /// No port is free, or GStreamer lacks an element.
    pub fn start(spec: &CameraSpec) -> Result<Self> {
        let any = SocketAddr::from((unique_loopback_address(), 0));
        let address = TcpListener::bind(any).and_then(|listener| listener.local_addr());
        Camera::start_at(spec, address.with_context(|| format!("no port at {any}"))?)
    }

    /// The same at a given address.
    ///
    /// # Errors
    /// The address is in use, or GStreamer lacks an element.
    pub fn start_at(spec: &CameraSpec, address: SocketAddr) -> Result<Self> {
        gstreamer::init()?;
        let mut camera = Camera {
            kind: spec.kind,
            address,
            codec: spec.codec,
            sensor: Arc::new(Sensor::start(spec.video_settings())),
            link: Arc::default(),
            connections: Arc::default(),
            server: None,
        };
        camera.perform(&spec.starts)?;
        Ok(camera)
    }

    /// The URL for players.
    pub fn url(&self) -> String {
        match self.kind {
            CameraKind::Rtsp => format!("rtsp://{}/stream", self.address),
            CameraKind::Http => format!("http://{}/stream", self.address),
        }
    }

    /// Performs the action of a step; it is in effect on return.
    ///
    /// # Errors
    /// This kind of camera does not support the action, or the port cannot be opened again.
    pub fn perform(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Serve => {
                self.link.clear();
                self.sensor.set_stalled(false);
                if !matches!(self.server, Some(CameraServer::Rtsp(_) | CameraServer::Http(_))) {
                    self.start_server()?;
                }
            }
            Action::Reboot(video) => {
                self.server = None;
                self.link.clear();
                self.sensor.set_stalled(false);
                self.codec = video.codec.unwrap_or(self.codec);
                self.change_video(video);
                self.start_server()?;
            }
            Action::Change(video) => {
                if video.codec.is_some_and(|codec| codec != self.codec) {
                    bail!("the codec can only change by a reboot");
                }
                self.change_video(video);
            }
            Action::Refuse => self.server = None,
            Action::Silent => self.serve_raw(raw::silent())?,
            Action::Garbage(garbage) => self.serve_raw(raw::garbage(*garbage))?,
            Action::Stall => self.sensor.set_stalled(true),
            Action::End => self.sensor.end(),
            Action::Disconnect => match &self.server {
                Some(CameraServer::Rtsp(server)) => server.disconnect_clients(),
                Some(CameraServer::Http(server)) => server.disconnect_clients(),
                Some(CameraServer::Raw(acceptor)) => acceptor.disconnect_clients(),
                None => {}
            },
            Action::DropPackets(share) => self.link.set(|faults| faults.lost = *share),
            Action::Corrupt(share) => self.link.set(|faults| faults.damaged = *share),
            Action::Delay(range) => self.link.set(|faults| faults.delay_ms = Some(*range)),
            Action::JumpClock(seconds) => self.link.set(|faults| faults.clock_offset += seconds),
            Action::ClockRate(rate) => self.link.set(|faults| faults.clock_rate = *rate),
        }
        Ok(())
    }

    /// When the frame with this number was captured; `None` when it has not been captured yet.
    pub fn captured_at(&self, number: u16) -> Option<Instant> {
        self.sensor.captured_at(number)
    }

    /// Number of frames captured so far, whether or not they were sent.
    pub fn captured(&self) -> u64 {
        self.sensor.captured()
    }

    /// Number of frames sent to at least one client.
    pub fn delivered(&self) -> u64 {
        self.sensor.delivered()
    }

    /// Number of connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn change_video(&self, video: &VideoChange) {
        self.sensor.change_settings(|settings| video.apply(settings));
    }

    fn start_server(&mut self) -> Result<()> {
        // Drop the old server first: it holds the port.
        self.server = None;
        let (address, count, sensor, link) = (self.address, &self.connections, &self.sensor, &self.link);
        self.server = Some(match self.kind {
            CameraKind::Rtsp => CameraServer::Rtsp(rtsp::Server::start(address, self.codec, count, sensor, link)?),
            CameraKind::Http => CameraServer::Http(http::Server::start(address, count, sensor, link)?),
        });
        Ok(())
    }

    fn serve_raw(&mut self, handler: raw::Handler) -> Result<()> {
        self.server = None;
        self.server = Some(CameraServer::Raw(raw::Acceptor::start(self.address, &self.connections, handler)?));
        Ok(())
    }
}

/// A loopback address that is unique in this process, and very likely among all processes.
fn unique_loopback_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    // 127.0.x.y is left to other programs.
    Ipv4Addr::new(127, high % 255 + 1, low, NEXT.fetch_add(1, Ordering::Relaxed).max(1))
}
