//! Viewers of one stream that log every frame they receive, with its time: one by MJPEG, one by RTSP. Both keep their
//! connection until they are dropped or the service closes it.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::http::Mjpeg;
use super::service::Service;

/// A frame that a viewer has received.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedFrame<T> {
    pub at: Instant,
    pub size: (usize, usize),
    pub content: T,
}

/// Reads the content of a frame from its width and height and its pixels, three bytes each.
pub type ReadContent<T> = fn((usize, usize), &[u8]) -> T;

/// The frames that a viewer has received so far.
#[derive(Debug)]
pub struct ViewerLog<T> {
    pub frames: Vec<ReceivedFrame<T>>,
    /// Why the connection ended.
    pub ended: Option<String>,
}

/// A running viewer. It disconnects when it is dropped.
pub struct LoggingViewer<T> {
    pub name: &'static str,
    pub log: Arc<Mutex<ViewerLog<T>>>,
    disconnect: Box<dyn Fn()>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> LoggingViewer<T> {
    /// A viewer by MJPEG.
    pub fn mjpeg(service: &Service, stream: &str, read: ReadContent<T>) -> Self {
        let mut mjpeg = Mjpeg::connect(&service.page, stream);
        let connection: TcpStream = mjpeg.connection();
        let disconnect = move || {
            // Fails when the server has closed it.
            let _ = connection.shutdown(Shutdown::Both);
        };
        gst::init().unwrap();
        let description = "appsrc name=source ! jpegdec ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink";
        let decoder = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = decoder.by_name("source").unwrap().downcast::<gst_app::AppSrc>().unwrap();
        let sink = decoder.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        decoder.set_state(gst::State::Playing).unwrap();
        let caps = gst::Caps::builder("image/jpeg").build();
        let next_frame = move || {
            let jpeg = gst::Buffer::from_slice(mjpeg.try_next().map_err(|error| {
                decoder.set_state(gst::State::Null).unwrap();
                error.to_string()
            })?);
            source.push_sample(&gst::Sample::builder().buffer(&jpeg).caps(&caps).build()).unwrap();
            let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(10)).ok_or("a JPEG cannot be decoded")?;
            Ok(size_and_content(&sample, read))
        };
        LoggingViewer::start("the MJPEG viewer", Box::new(disconnect), next_frame)
    }

    /// A viewer by RTSP over TCP.
    pub fn rtsp(service: &Service, stream: &str, read: ReadContent<T>) -> Self {
        gst::init().unwrap();
        let description = format!(
            "rtspsrc location={} protocols=tcp latency=0 ! rtph264depay ! h264parse ! avdec_h264 max-threads=1 \
             ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink sync=false max-buffers=2",
            service.rtsp(stream)
        );
        let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let playing = pipeline.clone();
        let disconnect = move || {
            pipeline.set_state(gst::State::Null).unwrap();
        };
        let next_frame = move || {
            let sample = loop {
                if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) {
                    break sample;
                }
                let bus = playing.bus().unwrap();
                if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Eos]) {
                    return Err(format!("{:?}", message.structure()));
                }
                if playing.current_state() == gst::State::Null {
                    return Err("the viewer has disconnected".into());
                }
            };
            Ok(size_and_content(&sample, read))
        };
        LoggingViewer::start("the RTSP viewer", Box::new(disconnect), next_frame)
    }

    fn start(
        name: &'static str,
        disconnect: Box<dyn Fn()>,
        mut next_frame: impl FnMut() -> Result<((usize, usize), T), String> + Send + 'static,
    ) -> Self {
        let log = Arc::new(Mutex::new(ViewerLog { frames: Vec::new(), ended: None }));
        let shared = Arc::clone(&log);
        let thread = std::thread::spawn(move || {
            loop {
                let next = next_frame();
                let mut log = shared.lock().unwrap();
                match next {
                    Ok((size, content)) => log.frames.push(ReceivedFrame { at: Instant::now(), size, content }),
                    Err(reason) => {
                        log.ended = Some(reason);
                        return;
                    }
                }
            }
        });
        LoggingViewer { name, log, disconnect, thread: Some(thread) }
    }
}

/// Width and height, and content of a decoded frame.
fn size_and_content<T>(sample: &gst::Sample, read: ReadContent<T>) -> ((usize, usize), T) {
    let caps = sample.caps().unwrap().structure(0).unwrap();
    let side = |name: &str| caps.get::<i32>(name).unwrap() as usize;
    let size = (side("width"), side("height"));
    let map = sample.buffer().unwrap().map_readable().unwrap();
    // GStreamer rounds rows up to 4 bytes; readers expect rows without gaps.
    let stride = (3 * size.0).next_multiple_of(4);
    let rows = map.chunks(stride).take(size.1).flat_map(|row| &row[..3 * size.0]);
    (size, read(size, &rows.copied().collect::<Vec<u8>>()))
}

impl<T> Drop for LoggingViewer<T> {
    fn drop(&mut self) {
        (self.disconnect)();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
