//! Where an RTSP server's streams are, told only to those who may watch.
//!
//! GStreamer's server looks a path up before it asks for credentials, so that 404 and 401 would tell everybody which
//! names there are. Here paths that lead nowhere lead to a place that is there, and that nobody may see: asked for it, the
//! server wants to know who asks, as it does for streams, and tells those that it knows that there is nothing.

use std::cell::Cell;

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use glib::subclass::prelude::ObjectSubclassIsExt;
use gst::glib;
use rtsp_server::prelude::*;

/// No stream's path: a name has no spaces.
const NOWHERE: &str = "/no stream";

thread_local! {
    static DESCRIBES: Cell<bool> = const { Cell::new(false) };
}

/// The path that this thread looks up next is one to describe: a stream's own, not one below it.
pub(super) fn describes() {
    DESCRIBES.set(true);
}

glib::wrapper! {
    /// GStreamer's mount points.
    pub struct Mounts(ObjectSubclass<imp::Mounts>) @extends rtsp_server::RTSPMountPoints;
}

impl Mounts {
    pub(super) fn new() -> Self {
        let mounts: Mounts = glib::Object::new();
        // Without a role that may come in: whoever is known is told that there is nothing (404).
        let nowhere = rtsp_server::RTSPMediaFactory::new();
        let nobody = gst::Structure::builder("nobody").field("media.factory.access", false).build();
        nowhere.add_role_from_structure(&nobody);
        mounts.add_factory(NOWHERE, nowhere);
        mounts
    }

    /// Whether the server asks anybody who they are. If not, what is not there is simply not there.
    pub(super) fn set_guarded(&self, guarded: bool) {
        self.imp().guarded.store(guarded, std::sync::atomic::Ordering::Release);
    }

    /// Offers a stream at `/name`.
    pub(super) fn add(&self, name: &str, factory: rtsp_server::RTSPMediaFactory) {
        let path = format!("/{name}");
        self.imp().names().insert(name.to_owned());
        self.add_factory(&path, factory);
    }

    /// Offers it no longer.
    pub(super) fn remove(&self, name: &str) {
        self.imp().names().remove(name);
        self.remove_factory(&format!("/{name}"));
    }
}

mod imp {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use gstreamer_rtsp_server::gst_rtsp::RTSPUrl;

    use super::*;
    use glib::subclass::prelude::*;
    use rtsp_server::subclass::prelude::*;

    #[derive(Default)]
    pub struct Mounts {
        pub guarded: AtomicBool,
        names: Mutex<HashSet<String>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Mounts {
        const NAME: &'static str = "MaskcastRtspMounts";
        type Type = super::Mounts;
        type ParentType = rtsp_server::RTSPMountPoints;
    }

    impl ObjectImpl for Mounts {}

    impl RTSPMountPointsImpl for Mounts {
        /// The path that a request is for. Tracks of a stream (`/name/stream=0`) are below it.
        fn make_path(&self, url: &RTSPUrl) -> Option<glib::GString> {
            let describes = DESCRIBES.take();
            if !self.guarded.load(Ordering::Acquire) {
                return self.parent_make_path(url);
            }
            let parts = url.decode_path_components();
            let parts: Vec<&str> = parts.iter().map(|part| part.as_str()).filter(|part| !part.is_empty()).collect();
            let is_there = parts.first().is_some_and(|name| self.names().contains(*name));
            match is_there && (parts.len() == 1 || !describes) {
                true => Some(format!("/{}", parts.join("/")).into()),
                false => Some(NOWHERE.into()),
            }
        }
    }

    impl Mounts {
        pub fn names(&self) -> MutexGuard<'_, HashSet<String>> {
            self.names.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
