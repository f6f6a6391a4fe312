//! The camera as an RTSP server (GStreamer): one media for all clients, created when the first one connects.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp_server;

use rtsp_server::prelude::*;

use super::link::{Link, PacketFilter};
use super::scenario::Codec;
use super::sensor::{CameraFrame, FrameReceiver, Sensor};
use rtsp_loop::RtspLoop;

// The examples do not include `common`.
#[allow(clippy::duplicate_mod)]
#[path = "../common/rtsp_loop.rs"]
mod rtsp_loop;

/// Raw frames that may wait for the encoder.
const WAITING: u64 = 4;

/// A server at an address. Dropped, it stops and disconnects all clients.
pub struct Server(RtspLoop);

impl Server {
    /// # Errors
    /// The address is in use, or GStreamer lacks an element.
    pub fn start(
        address: SocketAddr,
        codec: Codec,
        connections: &Arc<AtomicU64>,
        sensor: &Arc<Sensor>,
        link: &Arc<Link>,
    ) -> Result<Self> {
        let server = rtsp_server::RTSPServer::new();
        server.set_address(&address.ip().to_string());
        server.set_service(&address.port().to_string());
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(&launch(codec));
        factory.set_shared(true);
        let (sensor, link) = (Arc::clone(sensor), Arc::clone(link));
        factory.connect_media_configure(move |_, media| {
            if let Some(receiver) = MediaReceiver::new(media, &link) {
                sensor.add(Box::new(receiver));
            }
        });
        server.mount_points().context("the RTSP server has no mount points")?.add_factory("/stream", factory);
        let count = Arc::clone(connections);
        server.connect_client_connected(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let running = RtspLoop::start(server).with_context(|| format!("cannot listen at {address}"))?;
        Ok(Server(running))
    }

    /// Disconnects all clients.
    pub fn disconnect_clients(&self) {
        self.0.disconnect_clients();
    }
}

/// The pipeline of the media. `netsim` delays frames; packets are lost and damaged after the payloader.
fn launch(codec: Codec) -> String {
    let encode = match codec {
        Codec::H264 => {
            "x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=30 threads=1 \
             ! video/x-h264,profile=baseline ! h264parse config-interval=-1 ! netsim name=net allow-reordering=false \
             ! rtph264pay name=pay0 pt=96 config-interval=-1 aggregate-mode=zero-latency"
        }
        Codec::H265 => {
            "x265enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=30 log-level=none \
             ! h265parse config-interval=-1 ! netsim name=net allow-reordering=false \
             ! rtph265pay name=pay0 pt=96 config-interval=-1 aggregate-mode=zero-latency"
        }
        Codec::Mjpeg => "jpegenc quality=85 ! netsim name=net allow-reordering=false ! rtpjpegpay name=pay0 pt=26",
    };
    format!(
        "( appsrc name=sensor is-live=true format=time do-timestamp=true \
           ! videoconvert ! video/x-raw,format=I420 ! {encode} )"
    )
}

/// Receives the frames for one media.
struct MediaReceiver {
    source: gst_app::AppSrc,
    net: gst::Element,
    link: Arc<Link>,
}

impl MediaReceiver {
    fn new(media: &rtsp_server::RTSPMedia, link: &Arc<Link>) -> Option<Self> {
        let bin = media.element().downcast::<gst::Bin>().ok()?;
        let source = bin.by_name("sensor")?.downcast::<gst_app::AppSrc>().ok()?;
        let packets = Mutex::new(PacketFilter::new());
        let faults = Arc::clone(link);
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        bin.by_name("pay0")?.static_pad("src")?.add_probe(kinds, move |_, info| {
            let mut packets = packets.lock().unwrap_or_else(PoisonError::into_inner);
            let left = match info.data.take() {
                Some(gst::PadProbeData::Buffer(packet)) => {
                    packets.apply(&faults, packet).map(gst::PadProbeData::Buffer)
                }
                Some(gst::PadProbeData::BufferList(list)) => {
                    let arrived = list.iter_owned().filter_map(|packet| packets.apply(&faults, packet));
                    let list: gst::BufferList = arrived.collect();
                    (!list.is_empty()).then_some(gst::PadProbeData::BufferList(list))
                }
                other => other,
            };
            info.data = left;
            // Without data the buffer is not passed on.
            if info.data.is_some() { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
        });
        Some(MediaReceiver { source, net: bin.by_name("net")?, link: Arc::clone(link) })
    }
}

impl FrameReceiver for MediaReceiver {
    fn push(&mut self, frame: &CameraFrame) -> bool {
        if self.source.current_level_buffers() >= WAITING {
            // The encoder is busy, or the media waits for a client: drop the frame, as a camera does.
            return true;
        }
        let delay = self.link.faults().delay_ms;
        self.net.set_property("delay-probability", if delay.is_some() { 1.0_f32 } else { 0.0 });
        if let Some([least, most]) = delay {
            self.net.set_property("min-delay", least as i32);
            self.net.set_property("max-delay", most as i32);
        }
        self.source.push_sample(&frame.sample()).is_ok()
    }

    fn end(&mut self) {
        // Fails when the media has already ended.
        let _ = self.source.end_of_stream();
    }
}
