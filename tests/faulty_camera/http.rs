//! The camera as an HTTP server: an endless `multipart/x-mixed-replace` response, each part a JPEG.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::link::{Link, PacketFate};
use super::raw::{Acceptor, Handler, Request};
use super::sensor::{CameraFrame, FrameReceiver, Sensor};

/// Frames that may wait for one client: one second.
const WAITING: usize = 15;

/// Bytes at the start of a JPEG that stay undamaged: its tables, without which it cannot be decoded at all.
const TABLES: usize = 640;

/// A server at an address. Dropped, it stops and disconnects all clients.
pub struct Server {
    /// Closed when it is dropped, which ends the threads that wait for a frame. It must be dropped before the acceptor.
    _running: Sender<()>,
    acceptor: Acceptor,
}

impl Server {
    /// # Errors
    /// The address is in use.
    pub fn start(
        address: SocketAddr,
        connections: &Arc<AtomicU64>,
        sensor: &Arc<Sensor>,
        link: &Arc<Link>,
    ) -> Result<Self> {
        let (sensor, link) = (Arc::clone(sensor), Arc::clone(link));
        let (running, stopped) = bounded(0);
        let handler: Handler = Arc::new(move |client| serve(client, &stopped, &sensor, &link));
        Ok(Server { _running: running, acceptor: Acceptor::start(address, connections, handler)? })
    }

    /// Disconnects all clients.
    pub fn disconnect_clients(&self) {
        self.acceptor.disconnect_clients();
    }
}

/// A frame for one client, and when to send it.
struct QueuedFrame {
    jpeg: Vec<u8>,
    due: Instant,
}

fn serve(mut client: TcpStream, stopped: &Receiver<()>, sensor: &Sensor, link: &Arc<Link>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    if Request::read(&mut BufReader::new(client.try_clone()?))?.is_none() {
        return Ok(());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")?;
    let (sender, queue) = bounded(WAITING);
    let encoder = JpegEncoder::start().map_err(std::io::Error::other)?;
    sensor.add(Box::new(ClientReceiver { encoder, queue: Some(sender), link: Arc::clone(link) }));
    send(&mut client, &queue, stopped)?;
    client.write_all(b"--frame--\r\n")
}

/// Sends frames until the stream ends or the server stops.
fn send(client: &mut TcpStream, queue: &Receiver<QueuedFrame>, stopped: &Receiver<()>) -> std::io::Result<()> {
    loop {
        let frame = select! {
            recv(queue) -> frame => frame,
            recv(stopped) -> _ => return Ok(()),
        };
        let Ok(QueuedFrame { jpeg, due }) = frame else { return Ok(()) };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let _ = crossbeam_channel::after(left).recv();
        }
        write!(client, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len())?;
        client.write_all(&jpeg)?;
        client.write_all(b"\r\n")?;
    }
}

/// `appsrc ! jpegenc ! appsink`
struct JpegEncoder {
    pipeline: gst::Element,
    source: gst_app::AppSrc,
    sink: gst_app::AppSink,
}

/// How long the encoding of a frame may take.
const ENCODING: gst::ClockTime = gst::ClockTime::from_seconds(2);

impl JpegEncoder {
    fn start() -> Result<Self> {
        let description = "appsrc name=source format=time ! videoconvert ! video/x-raw,format=I420 ! jpegenc ! appsink name=sink sync=false";
        let pipeline = gst::parse::launch(description)?;
        let bin = pipeline.downcast_ref::<gst::Bin>().context("not a pipeline")?;
        let source =
            bin.by_name("source").and_then(|source| source.downcast().ok()).context("the pipeline has no source")?;
        let sink = bin.by_name("sink").and_then(|sink| sink.downcast().ok()).context("the pipeline has no sink")?;
        pipeline.set_state(gst::State::Playing)?;
        Ok(JpegEncoder { pipeline, source, sink })
    }

    fn encode(&self, frame: &CameraFrame) -> Option<Vec<u8>> {
        self.source.push_sample(&frame.sample()).ok()?;
        let sample = self.sink.try_pull_sample(ENCODING)?;
        Some(sample.buffer()?.map_readable().ok()?.to_vec())
    }
}

impl Drop for JpegEncoder {
    fn drop(&mut self) {
        // The change to the null state cannot fail.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

struct ClientReceiver {
    encoder: JpegEncoder,
    queue: Option<Sender<QueuedFrame>>,
    link: Arc<Link>,
}

impl FrameReceiver for ClientReceiver {
    fn push(&mut self, frame: &CameraFrame) -> bool {
        let Some(queue) = &self.queue else { return false };
        let fate = self.link.fate();
        if matches!(fate, PacketFate::Lost) {
            return true;
        }
        let Some(mut jpeg) = self.encoder.encode(frame) else { return false };
        if matches!(fate, PacketFate::Damaged) {
            self.link.damage(&mut jpeg, TABLES);
        }
        let late = self.link.faults().delay_ms.map_or(0, |[least, most]| fastrand::u32(least..=most));
        let queued = QueuedFrame { jpeg, due: Instant::now() + Duration::from_millis(late.into()) };
        // Frames for a client that does not read are dropped.
        !matches!(queue.try_send(queued), Err(TrySendError::Disconnected(_)))
    }

    fn end(&mut self) {
        self.queue = None;
    }
}
