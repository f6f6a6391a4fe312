//! The configuration: TOML text → validated [`Config`]; all errors at once, each with its key path.
//!
//! A `Config` that exists is valid: files it names exist, names are unique, addresses parse.
//! Stages take their settings from these types and never look at TOML.
//!
//! Each section is one struct. Its fields with their doc comments and attributes are the one definition of its keys: the
//! reader, the JSON Schema, `docs/configuration.md` and the API's settings are made from them (`schema.rs`).

pub use crate::frame::Rgb;

mod allowed;
mod array;
mod checks;
mod collect;
mod credentials;
mod crop;
mod devices;
mod document;
mod drift;
mod duration;
mod edit;
mod encode;
mod error;
mod fingerprint;
mod gate;
mod history;
mod load;
mod markdown;
mod mask_rate;
mod model;
mod mqtt;
mod overlay;
mod overlay_patch;
mod path;
mod plain_passwords;
mod push;
mod record;
mod redact;
mod root;
mod rule;
mod schema;
mod server;
mod sink;
mod sink_key;
mod size;
mod smooth;
mod source;
mod store;
mod stream;
mod tiles;
mod toml_value;
mod uri;
mod validate;
mod value;
mod webhook;
mod webrtc;
mod zone;

#[cfg(test)]
mod tests;

pub use crate::base::secret::Secret;
pub use allowed::{ApiSources, HostError, SourceHost, SourceRefusal, is_internal};
pub use collect::CollectConfig;
pub use credentials::Credentials;
pub use crop::CropArea;
pub use devices::Devices;
pub use drift::DriftConfig;
pub use duration::{parse as parse_duration, show as duration_text};
pub use edit::{Edit, edit, edit_model, unknown_nulls};
pub use encode::{EncodeConfig, EncoderChoice, PRESETS};
pub use error::{ConfigError, ConfigErrors};
pub use fingerprint::CertificateFingerprint;
pub use gate::MotionGate;
pub use history::HistoryConfig;
pub use load::{load, parse, parse_partly, read};
pub use markdown::markdown;
pub use mask_rate::MaskRate;
pub use model::{DEFAULT_MODEL, ModelConfig, Provider, Require};
pub use mqtt::{Broker, MqttConfig};
pub use overlay::{Legend, OverlayConfig, Style, hex, is_rest};
pub use overlay_patch::{overlay_difference, overlay_object, patched_overlay};
pub use path::folder_of;
pub use plain_passwords::readable_passwords;
pub use push::{PushConfig, PushTarget};
pub use record::{Container, EventConfig, RecordConfig, When};
pub use redact::{RedactConfig, RedactStyle, WhenUnsure};
pub use root::Config;
pub use rule::{Condition, RuleConfig};
pub use schema::{Object, api_schema, json_schema, not_for_api, stream_settings};
pub use server::{ServerConfig, TlsConfig, UsersPathError, users_file};
pub use sink::SinkConfig;
pub use smooth::Smooth;
pub use source::{SourceSpec, SourceUri, TestSource, Transport};
pub use store::{Replaced, StoreError, replace};
pub use stream::{MasksWhen, Show, StreamConfig, defaults_stream};
pub use tiles::TileGrid;
pub use toml_value::EditError;
pub(crate) use uri::is_secret_name;
pub use webhook::{WebhookConfig, WebhookSecret, WebhookUrl};
pub use webrtc::{TurnServer, WebRtcConfig};
pub use zone::ZoneConfig;
