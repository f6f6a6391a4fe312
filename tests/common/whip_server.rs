//! A media server that receives streams by WHIP: a small HTTP endpoint, and GStreamer's webrtcbin.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_sdp as gst_sdp;
use gstreamer_webrtc as gst_webrtc;

use gst::prelude::*;

use super::clip::Rgb;
use super::media_server::rgb;
use super::program::DEADLINE;

/// A request of a client: method, path, authorization.
pub type ReceivedRequest = (String, String, Option<String>);

/// Listens until the test's end.
pub struct WhipServer {
    pub port: u16,
    frames: Receiver<Rgb>,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl WhipServer {
    /// Accepts clients that send this authorization; without one, all clients.
    pub fn listen(authorization: Option<&str>) -> Self {
        gst::init().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, frames) = bounded(4);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, required) = (Arc::clone(&requests), authorization.map(str::to_owned));
        std::thread::spawn(move || {
            let mut session = None;
            for connection in listener.incoming() {
                serve(connection.unwrap(), required.as_deref(), &log, &sender, &mut session);
            }
        });
        WhipServer { port, frames, requests }
    }

    pub fn url(&self) -> String {
        format!("whip+http://127.0.0.1:{}/gate/whip", self.port)
    }

    /// The next received frame.
    pub fn next(&self) -> Rgb {
        self.frames.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("no frame was pushed: {error}"))
    }

    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request.
fn serve(
    mut connection: TcpStream,
    required: Option<&str>,
    requests: &Mutex<Vec<ReceivedRequest>>,
    frames: &Sender<Rgb>,
    session: &mut Option<gst::Pipeline>,
) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    requests.lock().unwrap().push((method.clone(), path, authorization.clone()));
    let mut answer = |status: &str, head: &str, body: &str| {
        let length = body.len();
        let _ = write!(
            connection,
            "HTTP/1.1 {status}\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        );
    };
    if required.is_some() && required != authorization.as_deref() {
        return answer("401 Unauthorized", "", "");
    }
    let old = match method.as_str() {
        "POST" => {
            let (pipeline, sdp) = receive(&body, frames.clone());
            answer("201 Created", "Content-Type: application/sdp\r\nLocation: /gate/whip/1\r\n", &sdp);
            session.replace(pipeline)
        }
        _ => {
            answer("200 OK", "", "");
            session.take()
        }
    };
    if let Some(pipeline) = old {
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// A pipeline that decodes the offered stream, and the answer to the offer.
fn receive(offer: &[u8], frames: Sender<Rgb>) -> (gst::Pipeline, String) {
    let pipeline = gst::Pipeline::new();
    let webrtc =
        gst::ElementFactory::make("webrtcbin").property_from_str("bundle-policy", "max-bundle").build().unwrap();
    pipeline.add(&webrtc).unwrap();
    let weak = pipeline.downgrade();
    webrtc.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade().filter(|_| pad.direction() == gst::PadDirection::Src) else { return };
        let description = "rtph264depay ! h264parse ! avdec_h264 max-threads=1 ! videoconvert ! video/x-raw,format=RGB \
                           ! appsink name=sink sync=false";
        let decoder = gst::parse::bin_from_description(description, true).unwrap();
        let sink = decoder.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let frames = frames.clone();
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            match frames.try_send(rgb(&sample)) {
                Ok(()) | Err(TrySendError::Full(_)) => Ok(gst::FlowSuccess::Ok),
                Err(TrySendError::Disconnected(_)) => Err(gst::FlowError::Eos),
            }
        });
        sink.set_callbacks(callbacks.build());
        pipeline.add(&decoder).unwrap();
        pad.link(&decoder.static_pad("sink").unwrap()).unwrap();
        decoder.sync_state_with_parent().unwrap();
    });
    let (gathered, all) = bounded(1);
    webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
        let state = webrtc.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state");
        if state == gst_webrtc::WebRTCICEGatheringState::Complete {
            let _ = gathered.try_send(());
        }
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let offer = gst_sdp::SDPMessage::parse_buffer(offer).unwrap();
    let offer = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Offer, offer);
    let taken = gst::Promise::new();
    webrtc.emit_by_name::<()>("set-remote-description", &[&offer, &taken]);
    taken.wait();
    let made = gst::Promise::new();
    webrtc.emit_by_name::<()>("create-answer", &[&None::<gst::Structure>, &made]);
    made.wait();
    let answer: gst_webrtc::WebRTCSessionDescription = made.get_reply().unwrap().get("answer").unwrap();
    webrtc.emit_by_name::<()>("set-local-description", &[&answer, &None::<gst::Promise>]);
    all.recv_timeout(DEADLINE).unwrap();
    let answer = webrtc.property::<gst_webrtc::WebRTCSessionDescription>("local-description");
    (pipeline, answer.sdp().as_text().unwrap())
}
