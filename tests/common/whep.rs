//! A WHEP player that is not a browser: GStreamer's webrtcbin, and ureq for the request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use crossbeam_channel::bounded;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_sdp as gst_sdp;
use gstreamer_webrtc as gst_webrtc;

use gst::prelude::*;

use super::http::Answer;
use super::wait::{DEADLINE, until};

/// Width, height, and the colour of the middle pixel.
pub type Image = (i32, i32, [u8; 3]);

/// How a player handles what it receives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    /// Decodes the frames.
    Frames,
    /// Only counts packets, so that many players can run on a small machine.
    Packets,
}

/// A connected player. Dropped, it closes its connection without the DELETE request.
pub struct Player {
    pipeline: gst::Pipeline,
    /// The resource of the session: `/whep/NAME/ID`.
    pub location: String,
    received: Arc<AtomicU64>,
    newest: Arc<Mutex<Option<Image>>>,
}

impl Player {
    /// Sends an offer and applies the answer.
    pub fn start(page: &str, stream: &str, mode: ReceiveMode) -> Self {
        Player::start_as(page, stream, mode, "")
    }

    /// The same, with `Authorization`.
    pub fn start_as(page: &str, stream: &str, mode: ReceiveMode, authorization: &str) -> Self {
        Player::try_start(page, stream, mode, authorization).unwrap()
    }

    /// The same, with an error when the request is refused.
    pub fn try_start(page: &str, stream: &str, mode: ReceiveMode, authorization: &str) -> Result<Self> {
        gst::init()?;
        // Dropping the player stops the pipeline, also when this function returns an error.
        let mut player = Player {
            pipeline: gst::Pipeline::new(),
            location: String::new(),
            received: Arc::default(),
            newest: Arc::default(),
        };
        let webrtc = gst::ElementFactory::make("webrtcbin").build()?;
        webrtc.set_property_from_str("bundle-policy", "max-bundle");
        let agent = webrtc.property::<gst::Object>("ice-agent").property::<gst::glib::Object>("agent");
        agent.set_property("upnp", false);
        player.pipeline.add(&webrtc)?;
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("encoding-name", "H264")
            .field("clock-rate", 90_000)
            .field("payload", 96)
            .field("packetization-mode", "1")
            .field("profile-level-id", "42e01f")
            .field("rtcp-fb-nack-pli", true)
            .build();
        let direction = gst_webrtc::WebRTCRTPTransceiverDirection::Recvonly;
        webrtc.emit_by_name::<gst_webrtc::WebRTCRTPTransceiver>("add-transceiver", &[&direction, &caps]);
        let (count, shown) = (Arc::clone(&player.received), Arc::clone(&player.newest));
        let bin = player.pipeline.downgrade();
        webrtc.connect_pad_added(move |_, pad| {
            if let Some(pipeline) = bin.upgrade().filter(|_| pad.direction() == gst::PadDirection::Src) {
                receive(&pipeline, pad, mode, &count, &shown);
            }
        });
        player.pipeline.set_state(gst::State::Playing)?;
        let (gathered, complete) = bounded(8);
        webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
            let state = webrtc.property::<gst_webrtc::WebRTCICEGatheringState>("ice-gathering-state");
            if state == gst_webrtc::WebRTCICEGatheringState::Complete {
                let _ = gathered.try_send(());
            }
        });
        let (promise, reply) = promise();
        webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
        let reply =
            reply.recv_timeout(DEADLINE).context("webrtcbin creates no offer")?.context("the offer is empty")?;
        let offer = reply.get::<gst_webrtc::WebRTCSessionDescription>("offer")?;
        webrtc.emit_by_name::<()>("set-local-description", &[&offer, &None::<gst::Promise>]);
        complete.recv_timeout(DEADLINE).context("gathering does not end")?;
        let offer = webrtc.property::<gst_webrtc::WebRTCSessionDescription>("local-description");
        let url = format!("{page}whep/{stream}");
        let answer = Answer::to_as("POST", &url, "application/sdp", &offer.sdp().as_text()?, authorization);
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.body);
        player.location = answer.header("location");
        let sdp = gst_sdp::SDPMessage::parse_buffer(answer.body.as_bytes())?;
        let description = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Answer, sdp);
        webrtc.emit_by_name::<()>("set-remote-description", &[&description, &None::<gst::Promise>]);
        Ok(player)
    }

    /// Frames or packets received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The newest frame of a player that decodes.
    pub fn newest(&self) -> Option<Image> {
        *self.newest.lock().unwrap()
    }

    /// Waits for this many more frames or packets.
    pub fn until_more(&self, count: u64) {
        let wanted = self.received() + count;
        until(&format!("{count} more for a WHEP player"), || (self.received() >= wanted).then_some(()));
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

type Reply = Option<gst::Structure>;

/// A promise and the receiver of its reply.
fn promise() -> (gst::Promise, crossbeam_channel::Receiver<Reply>) {
    let (sender, replied) = bounded(1);
    let promise = gst::Promise::with_change_func(move |reply| {
        let _ = sender.send(reply.unwrap().map(|reply| reply.to_owned()));
    });
    (promise, replied)
}

fn receive(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    mode: ReceiveMode,
    count: &Arc<AtomicU64>,
    shown: &Arc<Mutex<Option<Image>>>,
) {
    let description = match mode {
        ReceiveMode::Frames => {
            "rtph264depay ! h264parse ! avdec_h264 max-threads=1 ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink"
        }
        ReceiveMode::Packets => "appsink name=sink",
    };
    let bin = gst::parse::bin_from_description(description, true).unwrap();
    let sink = bin.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    sink.set_property("sync", false);
    sink.set_property("max-buffers", 2_u32);
    sink.set_property("drop", true);
    let (count, shown) = (Arc::clone(count), Arc::clone(shown));
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if mode == ReceiveMode::Frames {
            *shown.lock().unwrap() = middle(&sample);
        }
        count.fetch_add(1, Ordering::Relaxed);
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    pipeline.add(&bin).unwrap();
    bin.sync_state_with_parent().unwrap();
    pad.link(&bin.static_pad("sink").unwrap()).unwrap();
}

fn middle(sample: &gst::Sample) -> Option<Image> {
    let caps = sample.caps()?.structure(0)?;
    let (width, height) = (caps.get::<i32>("width").ok()?, caps.get::<i32>("height").ok()?);
    let map = sample.buffer()?.map_readable().ok()?;
    // GStreamer rounds rows up to 4 bytes.
    let stride = (3 * width as usize).next_multiple_of(4);
    let at = height as usize / 2 * stride + 3 * (width as usize / 2);
    Some((width, height, [map[at], map[at + 1], map[at + 2]]))
}
