//! The camera as an HTTP server: an endless `multipart/x-mixed-replace` answer, each part a JPEG.

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

use super::link::{Fate, Link};
use super::raw::{Acceptor, Handler, Request};
use super::sensor::{Outlet, Sensor, Shot};

/// Pictures that may wait for one client: a delayed second.
const WAITING: usize = 15;

/// Bytes at a JPEG's start that damage spares: its tables, without which it is no JPEG at all.
const TABLES: usize = 640;

/// A server at an address; gone when it is dropped, with all its clients.
pub struct Server {
    /// Who waits for a picture learns by its end that there is no server any more; so it must go before the acceptor.
    _running: Sender<()>,
    acceptor: Acceptor,
}

impl Server {
    /// # Errors
    /// The address is taken.
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

    /// Cuts all clients off.
    pub fn hang_up(&self) {
        self.acceptor.hang_up();
    }
}

/// A picture for one client, and when it may go out.
struct Parcel {
    jpeg: Vec<u8>,
    due: Instant,
}

fn serve(mut client: TcpStream, stopped: &Receiver<()>, sensor: &Sensor, link: &Arc<Link>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    if Request::read(&mut BufReader::new(client.try_clone()?))?.is_none() {
        return Ok(());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=picture\r\n\r\n")?;
    let (sender, parcels) = bounded(WAITING);
    let encoder = JpegEncoder::start().map_err(std::io::Error::other)?;
    sensor.add(Box::new(ClientOutlet { encoder, parcels: Some(sender), link: Arc::clone(link) }));
    send(&mut client, &parcels, stopped)?;
    client.write_all(b"--picture--\r\n")
}

/// Sends until there is no more.
fn send(client: &mut TcpStream, parcels: &Receiver<Parcel>, stopped: &Receiver<()>) -> std::io::Result<()> {
    loop {
        let parcel = select! {
            recv(parcels) -> parcel => parcel,
            recv(stopped) -> _ => return Ok(()),
        };
        let Ok(Parcel { jpeg, due }) = parcel else { return Ok(()) };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let _ = crossbeam_channel::after(left).recv();
        }
        write!(client, "--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len())?;
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

/// How long a picture may take to encode.
const ENCODING: gst::ClockTime = gst::ClockTime::from_seconds(2);

impl JpegEncoder {
    fn start() -> Result<Self> {
        let description = "appsrc name=source format=time ! videoconvert ! video/x-raw,format=I420 ! jpegenc ! appsink name=sink sync=false";
        let pipeline = gst::parse::launch(description)?;
        let bin = pipeline.downcast_ref::<gst::Bin>().context("it is no pipeline")?;
        let source = bin.by_name("source").and_then(|source| source.downcast().ok()).context("it has no source")?;
        let sink = bin.by_name("sink").and_then(|sink| sink.downcast().ok()).context("it has no sink")?;
        pipeline.set_state(gst::State::Playing)?;
        Ok(JpegEncoder { pipeline, source, sink })
    }

    fn encode(&self, shot: &Shot) -> Option<Vec<u8>> {
        self.source.push_sample(&shot.sample()).ok()?;
        let sample = self.sink.try_pull_sample(ENCODING)?;
        Some(sample.buffer()?.map_readable().ok()?.to_vec())
    }
}

impl Drop for JpegEncoder {
    fn drop(&mut self) {
        // Going to the null state cannot fail.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

struct ClientOutlet {
    encoder: JpegEncoder,
    parcels: Option<Sender<Parcel>>,
    link: Arc<Link>,
}

impl Outlet for ClientOutlet {
    fn take(&mut self, shot: &Shot) -> bool {
        let Some(parcels) = &self.parcels else { return false };
        let fate = self.link.fate();
        if matches!(fate, Fate::Lost) {
            return true;
        }
        let Some(mut jpeg) = self.encoder.encode(shot) else { return false };
        if matches!(fate, Fate::Damaged) {
            self.link.damage(&mut jpeg, TABLES);
        }
        let late = self.link.faults().delay_ms.map_or(0, |[least, most]| fastrand::u32(least..=most));
        let parcel = Parcel { jpeg, due: Instant::now() + Duration::from_millis(late.into()) };
        // A client that does not read loses pictures.
        !matches!(parcels.try_send(parcel), Err(TrySendError::Disconnected(_)))
    }

    fn end(&mut self) {
        self.parcels = None;
    }
}
