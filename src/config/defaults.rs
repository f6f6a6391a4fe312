//! What holds where the configuration is silent. The loader, `maskcast segment` and tests all start from here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    ApiSources, EncodeConfig, EncoderChoice, ModelConfig, OverlayConfig, Provider, Require, ServerConfig, Show,
    SourceSpec, SourceUri, StreamConfig, Style, WebRtcConfig,
};
use crate::users::Users;

impl ModelConfig {
    /// The model at `path` with the default settings: any provider, no cache of TensorRT engines.
    pub fn with_path(path: impl Into<PathBuf>) -> Self {
        ModelConfig {
            path: path.into(),
            providers: Provider::ALL.to_vec(),
            providers_named: false,
            require: Require::Any,
            threads: 0,
            workers: 0,
            max_batch: 0,
            device: 0,
            cache_dir: None,
            runtime: None,
        }
    }
}

impl Default for ServerConfig {
    /// On this machine only, and without users.
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        ServerConfig {
            http: local(8080),
            rtsp: local(8554),
            allow_anonymous: false,
            users: Users::default(),
            tls: None,
            rtsp_plain_auth: false,
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            api_sources: ApiSources::default(),
            webrtc: WebRtcConfig::default(),
        }
    }
}

impl Default for OverlayConfig {
    fn default() -> Self {
        OverlayConfig { style: Style::Tint, alpha: 0.45, hide: None, legend: true, colors: Vec::new() }
    }
}

impl Default for EncodeConfig {
    fn default() -> Self {
        EncodeConfig {
            encoder: EncoderChoice::Auto,
            bitrate: 0,
            preset: "auto".into(),
            keyframe_interval: Duration::from_secs(2),
            jpeg_quality: 80,
        }
    }
}

/// A stream of `source` with the default settings, not recorded.
///
/// `show` is `matched` for a file that is played as fast as the machine goes, `full-rate` for everything else. `name`
/// is taken as it is: letters, digits, `-` and `_`.
pub fn defaults_stream(name: &str, source: SourceSpec) -> StreamConfig {
    let hurried = matches!(source.uri, SourceUri::File(_)) && !source.real_time;
    StreamConfig {
        name: name.to_owned(),
        source,
        show: if hurried { Show::Matched } else { Show::FullRate },
        max_mask_age: Duration::from_secs(1),
        max_latency: Duration::from_secs(1),
        silence_timeout: Duration::from_secs(3),
        overlay: OverlayConfig::default(),
        encode: EncodeConfig::default(),
        record: None,
        push: Vec::new(),
    }
}
