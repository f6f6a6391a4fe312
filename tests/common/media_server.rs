//! A media server that receives pushed streams: GStreamer's RTSP server with RECORD.

use crossbeam_channel::{Receiver, TrySendError, bounded};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp_server;

use gst::prelude::*;
use rtsp_server::prelude::*;

use super::clip::Rgb;
use super::program::DEADLINE;
use super::rtsp_loop::RtspLoop;

/// Listens at `/gate` until it is dropped, which disconnects its clients.
pub struct MediaServer {
    pub port: u16,
    frames: Receiver<Rgb>,
    _running: RtspLoop,
}

/// The pipeline that decodes a pushed stream.
const RECORD: &str = "( rtph264depay name=depay0 ! h264parse ! avdec_h264 max-threads=1 ! videoconvert \
                      ! video/x-raw,format=RGB ! appsink name=sink sync=false )";

impl MediaServer {
    /// Port 0 selects a free one. With `login`, clients must authenticate with user and password (Basic).
    pub fn listen(port: u16, login: Option<(&str, &str)>) -> Self {
        gst::init().unwrap();
        let server = rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&port.to_string());
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(RECORD);
        factory.set_transport_mode(rtsp_server::RTSPTransportMode::RECORD);
        factory.set_latency(0);
        if let Some((user, password)) = login {
            let auth = rtsp_server::RTSPAuth::new();
            let token =
                rtsp_server::RTSPToken::builder().field(rtsp_server::RTSP_TOKEN_MEDIA_FACTORY_ROLE, "camera").build();
            auth.add_basic(&rtsp_server::RTSPAuth::make_basic(user, password), &token);
            auth.set_supported_methods(rtsp_server::gst_rtsp::RTSPAuthMethod::Basic);
            server.set_auth(Some(&auth));
            factory.add_role_from_structure(
                &gst::Structure::builder("camera")
                    .field(rtsp_server::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
                    .field(rtsp_server::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
                    .build(),
            );
        }
        let (sender, frames) = bounded(4);
        factory.connect_media_configure(move |_, media| {
            let bin = media.element().downcast::<gst::Bin>().unwrap();
            let sink = bin.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
            let sender = sender.clone();
            let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                match sender.try_send(rgb(&sample)) {
                    // Frames that the test does not read in time are dropped.
                    Ok(()) | Err(TrySendError::Full(_)) => Ok(gst::FlowSuccess::Ok),
                    Err(TrySendError::Disconnected(_)) => Err(gst::FlowError::Eos),
                }
            });
            sink.set_callbacks(callbacks.build());
        });
        server.mount_points().unwrap().add_factory("/gate", factory);
        let running = RtspLoop::start(server.clone()).unwrap();
        let port = u16::try_from(server.bound_port()).unwrap();
        MediaServer { port, frames, _running: running }
    }

    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/gate", self.port)
    }

    /// The next received frame.
    pub fn next(&self) -> Rgb {
        self.frames.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("no frame was pushed: {error}"))
    }

    /// Waits until this many consecutive frames differ from their predecessor.
    pub fn wait_for_motion(&self, frames: usize) -> Rgb {
        let mut last = self.next();
        let mut moving = 0;
        for _ in 0..100 * frames {
            let next = self.next();
            moving = if next.data == last.data { 0 } else { moving + 1 };
            last = next;
            if moving == frames {
                return last;
            }
        }
        panic!("consecutive frames do not differ");
    }
}

/// A decoded frame without gaps between its rows.
pub fn rgb(sample: &gst::Sample) -> Rgb {
    let caps = sample.caps().unwrap().structure(0).unwrap();
    let side = |name: &str| caps.get::<i32>(name).unwrap() as usize;
    let (width, height) = (side("width"), side("height"));
    let map = sample.buffer().unwrap().map_readable().unwrap();
    let stride = (3 * width).next_multiple_of(4);
    let data = map.chunks(stride).take(height).flat_map(|row| &row[..3 * width]).copied().collect();
    Rgb { width, height, data }
}
