//! Counts the RTSP players of each stream. The players of a stream share one media, and so one frame sink, from which
//! the fan-out cannot count them.

use std::collections::HashMap;
use std::sync::Arc;

use glib::object::ObjectExt;
use gstreamer::glib;
use gstreamer_rtsp_server as rtsp_server;
use parking_lot::Mutex;
use rtsp_server::prelude::*;

use super::fanout::{CountedViewer, Fanout};

/// The name of the kind of output, by which its viewers are counted.
pub(super) const KIND_NAME: &str = "rtsp";

/// The fan-outs, by the name of the stream.
pub(super) type FanoutsByStream = Arc<Mutex<HashMap<String, Arc<Fanout>>>>;

/// The clients that are playing.
#[derive(Clone)]
pub(super) struct Players {
    streams: FanoutsByStream,
    playing: Arc<Mutex<Vec<Player>>>,
}

struct Player {
    client: glib::WeakRef<rtsp_server::RTSPClient>,
    session: glib::WeakRef<rtsp_server::RTSPSession>,
    _counted: CountedViewer,
}

impl Players {
    pub fn new(streams: &FanoutsByStream) -> Self {
        Players { streams: Arc::clone(streams), playing: Arc::default() }
    }

    /// Removes players whose session expired.
    pub fn follow_sessions(&self, server: &rtsp_server::RTSPServer) {
        let Some(sessions) = server.session_pool() else { return };
        let players = self.clone();
        sessions.connect_session_removed(move |_, session| {
            players.update(|playing| playing.retain(|player| player.session.upgrade().as_ref() != Some(session)));
        });
    }

    /// Counts this client from PLAY until it pauses or disconnects.
    pub fn follow_client(&self, client: &rtsp_server::RTSPClient) {
        let players = self.clone();
        client.connect_play_request(move |client, context| players.add(client, context));
        let players = self.clone();
        client.connect_pause_request(move |_, context| players.remove(context));
        let players = self.clone();
        client.connect_teardown_request(move |_, context| players.remove(context));
        let players = self.clone();
        client.connect_closed(move |client| {
            players.update(|playing| playing.retain(|player| player.client.upgrade().as_ref() != Some(client)));
        });
    }

    fn add(&self, client: &rtsp_server::RTSPClient, context: &rtsp_server::RTSPContext) {
        let fanout = stream_name(context).and_then(|name| self.streams.lock().get(&name).cloned());
        let (Some(fanout), Some(session)) = (fanout, context.session()) else { return };
        let counted = fanout.count_viewer(KIND_NAME);
        self.update(|playing| {
            // Players repeat PLAY to continue after a pause.
            playing.retain(|player| player.session.upgrade().as_ref() != Some(session));
            playing.push(Player { client: client.downgrade(), session: session.downgrade(), _counted: counted });
        });
    }

    fn remove(&self, context: &rtsp_server::RTSPContext) {
        let Some(session) = context.session() else { return };
        self.update(|playing| playing.retain(|player| player.session.upgrade().as_ref() != Some(session)));
    }

    fn update(&self, change: impl FnOnce(&mut Vec<Player>)) {
        let mut playing = self.playing.lock();
        change(&mut playing);
        playing.retain(|player| player.client.upgrade().is_some() && player.session.upgrade().is_some());
    }
}

/// The name of the stream of a request: the first segment of its path.
pub(super) fn stream_name(context: &rtsp_server::RTSPContext) -> Option<String> {
    let path = context.uri()?.decode_path_components();
    path.iter().find(|part| !part.is_empty()).map(ToString::to_string)
}
