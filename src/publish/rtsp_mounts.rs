//! The paths of the RTSP server's streams, hidden from unauthenticated clients.
//!
//! GStreamer's server looks a path up before it requires credentials, so an unauthenticated client could tell from 404
//! or 401 which stream names exist. Here every unknown path is mapped to a hidden mount that no role may access: the
//! server answers 401 to unauthenticated clients, as for a stream, and 404 to authenticated ones.

use std::cell::Cell;

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use glib::subclass::prelude::ObjectSubclassIsExt;
use gst::glib;
use rtsp_server::prelude::*;

/// Cannot be the path of a stream, because names have no spaces.
const HIDDEN_PATH: &str = "/no stream";

thread_local! {
    static EXPECTS_DESCRIBE: Cell<bool> = const { Cell::new(false) };
}

/// Declares that the next path that this thread looks up is that of a DESCRIBE request. It must be the path of a
/// stream, and not one below it.
pub(super) fn expect_describe() {
    EXPECTS_DESCRIBE.set(true);
}

glib::wrapper! {
    /// Mount points that hide unknown paths.
    pub struct Mounts(ObjectSubclass<imp::Mounts>) @extends rtsp_server::RTSPMountPoints;
}

impl Mounts {
    pub(super) fn new() -> Self {
        let mounts: Mounts = glib::Object::new();
        // No role has access, so authenticated clients get 404.
        let hidden = rtsp_server::RTSPMediaFactory::new();
        let no_access = gst::Structure::builder("nobody").field("media.factory.access", false).build();
        hidden.add_role_from_structure(&no_access);
        mounts.add_factory(HIDDEN_PATH, hidden);
        mounts
    }

    /// Sets whether the server requires authentication. Without it, unknown paths are not hidden.
    pub(super) fn set_guarded(&self, guarded: bool) {
        self.imp().guarded.store(guarded, std::sync::atomic::Ordering::Release);
    }

    /// Adds a stream at `/name`.
    pub(super) fn add(&self, name: &str, factory: rtsp_server::RTSPMediaFactory) {
        let path = format!("/{name}");
        self.imp().names().insert(name.to_owned());
        self.add_factory(&path, factory);
    }

    /// Removes a stream.
    pub(super) fn remove(&self, name: &str) {
        self.imp().names().remove(name);
        self.remove_factory(&format!("/{name}"));
    }
}

mod imp {
    use parking_lot::{Mutex, MutexGuard};
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, Ordering};

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
        /// The mount path of a request. Tracks of a stream (`/name/stream=0`) are below the path of the stream.
        fn make_path(&self, url: &RTSPUrl) -> Option<glib::GString> {
            let is_describe = EXPECTS_DESCRIBE.take();
            if !self.guarded.load(Ordering::Acquire) {
                return self.parent_make_path(url);
            }
            let parts = url.decode_path_components();
            let parts: Vec<&str> = parts.iter().map(|part| part.as_str()).filter(|part| !part.is_empty()).collect();
            let exists = parts.first().is_some_and(|name| self.names().contains(*name));
            match exists && (parts.len() == 1 || !is_describe) {
                true => Some(format!("/{}", parts.join("/")).into()),
                false => Some(HIDDEN_PATH.into()),
            }
        }
    }

    impl Mounts {
        pub fn names(&self) -> MutexGuard<'_, HashSet<String>> {
            self.names.lock()
        }
    }
}
