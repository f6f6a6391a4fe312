//! Viewers of one stream who note what they see and when: one in a browser (MJPEG), one with an RTSP player. Both keep
//! their connection for as long as the service lets them.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::http::Mjpeg;
use super::service::Service;

/// One picture as a viewer saw it.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<T> {
    pub at: Instant,
    pub size: (usize, usize),
    pub seen: T,
}

/// Tells what a picture of a size, three bytes a pixel, shows.
pub type Read<T> = fn((usize, usize), &[u8]) -> T;

/// What a viewer has seen so far.
#[derive(Debug)]
pub struct Notes<T> {
    pub sightings: Vec<Sighting<T>>,
    /// Why there will be no more.
    pub ended: Option<String>,
}

/// A viewer at work; leaves when it is dropped.
pub struct Viewer<T> {
    pub name: &'static str,
    pub notes: Arc<Mutex<Notes<T>>>,
    leave: Box<dyn Fn()>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Viewer<T> {
    /// One in a browser.
    pub fn browser(service: &Service, stream: &str, read: Read<T>) -> Self {
        let mut mjpeg = Mjpeg::connect(&service.page, stream);
        let connection: TcpStream = mjpeg.connection();
        let leave = move || {
            // Fails when the server has ended it.
            let _ = connection.shutdown(Shutdown::Both);
        };
        gst::init().unwrap();
        let description = "appsrc name=source ! jpegdec ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink";
        let decoder = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = decoder.by_name("source").unwrap().downcast::<gst_app::AppSrc>().unwrap();
        let sink = decoder.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        decoder.set_state(gst::State::Playing).unwrap();
        let caps = gst::Caps::builder("image/jpeg").build();
        let picture = move || {
            let jpeg = gst::Buffer::from_slice(mjpeg.try_next().map_err(|error| {
                decoder.set_state(gst::State::Null).unwrap();
                error.to_string()
            })?);
            source.push_sample(&gst::Sample::builder().buffer(&jpeg).caps(&caps).build()).unwrap();
            let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(10)).ok_or("a JPEG cannot be decoded")?;
            Ok(looked_at(&sample, read))
        };
        Viewer::start("the browser", Box::new(leave), picture)
    }

    /// One with an RTSP player, over TCP.
    pub fn player(service: &Service, stream: &str, read: Read<T>) -> Self {
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
        let leave = move || {
            pipeline.set_state(gst::State::Null).unwrap();
        };
        let picture = move || {
            let sample = loop {
                if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) {
                    break sample;
                }
                let bus = playing.bus().unwrap();
                if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Eos]) {
                    return Err(format!("{:?}", message.structure()));
                }
                if playing.current_state() == gst::State::Null {
                    return Err("it has left".into());
                }
            };
            Ok(looked_at(&sample, read))
        };
        Viewer::start("the player", Box::new(leave), picture)
    }

    fn start(
        name: &'static str,
        leave: Box<dyn Fn()>,
        mut picture: impl FnMut() -> Result<((usize, usize), T), String> + Send + 'static,
    ) -> Self {
        let notes = Arc::new(Mutex::new(Notes { sightings: Vec::new(), ended: None }));
        let shared = Arc::clone(&notes);
        let thread = std::thread::spawn(move || {
            loop {
                let next = picture();
                let mut notes = shared.lock().unwrap();
                match next {
                    Ok((size, seen)) => notes.sightings.push(Sighting { at: Instant::now(), size, seen }),
                    Err(why) => {
                        notes.ended = Some(why);
                        return;
                    }
                }
            }
        });
        Viewer { name, notes, leave, thread: Some(thread) }
    }
}

/// Size and content of a decoded picture.
fn looked_at<T>(sample: &gst::Sample, read: Read<T>) -> ((usize, usize), T) {
    let caps = sample.caps().unwrap().structure(0).unwrap();
    let side = |name: &str| caps.get::<i32>(name).unwrap() as usize;
    let size = (side("width"), side("height"));
    let map = sample.buffer().unwrap().map_readable().unwrap();
    // GStreamer rounds rows up to 4 bytes; readers know no gaps.
    let stride = (3 * size.0).next_multiple_of(4);
    let rows = map.chunks(stride).take(size.1).flat_map(|row| &row[..3 * size.0]);
    (size, read(size, &rows.copied().collect::<Vec<u8>>()))
}

impl<T> Drop for Viewer<T> {
    fn drop(&mut self) {
        (self.leave)();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
