//! Settings of the elements that read from the network.

use std::sync::Arc;

use gstreamer as gst;

use gst::prelude::*;

use super::keepalive::keep_alive;
use super::multipart::accept_bare_parts;
use super::trust::{RefusedCertificate, set_up_trust};
use crate::config::{SourceSpec, Transport};

/// Configures the source element that `uridecodebin` has created for the address. If the certificate of the camera is not
/// trusted, the reason is stored in `refused`.
pub fn set_up_network(source: &gst::Element, spec: &SourceSpec, refused: &Arc<RefusedCertificate>) {
    let Some(factory) = source.factory() else { return };
    let credentials = spec.credentials.as_ref();
    match factory.name().as_str() {
        "rtspsrc" => {
            source.set_property("latency", spec.latency.as_millis().min(60_000) as u32);
            // Timestamps by the camera's clock. Those that GStreamer derives from arrival times vary by 200 ms when frames are
            // sent in another order than they are shown (B-frames). The output follows a camera clock that drifts.
            source.set_property_from_str("buffer-mode", "none");
            // With TCP, packets are late but not lost. Late frames are dropped after decoding: packets that are dropped before
            // would damage all frames up to the next keyframe.
            source.set_property("drop-on-latency", spec.transport != Transport::Tcp);
            source.set_property_from_str(
                "protocols",
                match spec.transport {
                    Transport::Tcp => "tcp",
                    Transport::Udp => "udp",
                    Transport::Auto => "udp+tcp",
                },
            );
            // Microseconds. `silence_timeout` of the supervisor is usually shorter.
            source.set_property("tcp-timeout", 5_000_000_u64);
            source.set_property("timeout", 3_000_000_u64);
            source.set_property("teardown-timeout", gst::ClockTime::from_mseconds(100).nseconds());
            if let Some(credentials) = credentials {
                source.set_property("user-id", &credentials.user);
                source.set_property("user-pw", credentials.password.expose());
            }
            set_up_trust(source, spec, refused);
            keep_alive(source);
        }
        "souphttpsrc" => {
            if let Some(credentials) = credentials {
                source.set_property("user-id", &credentials.user);
                source.set_property("user-pw", credentials.password.expose());
            }
            source.set_property("timeout", 5_u32);
            set_up_trust(source, spec, refused);
            accept_bare_parts(source);
        }
        _ => {}
    }
}
