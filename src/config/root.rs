//! The configuration as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::history::HistoryConfig;
use super::model::ModelConfig;
use super::mqtt::MqttConfig;
use super::server::ServerConfig;
use super::stream::StreamConfig;
use super::webhook::WebhookConfig;

/// A configuration file of Maskcast.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(title = "Configuration of Maskcast", extend("required" = ["stream"]))]
pub struct Config {
    #[serde(default = "ModelConfig::unnamed")]
    pub model: ModelConfig,
    #[serde(default)]
    pub server: ServerConfig,
    #[serde(default)]
    pub history: HistoryConfig,
    /// The streams, at least one. Their names are unique.
    #[serde(rename = "stream", default)]
    #[schemars(length(min = 1), extend(
        "x-named" = true,
        "x-help" = "write [[stream]], and below it name = \"gate\" and source = \"rtsp://HOST/PATH\"",
    ))]
    pub streams: Vec<StreamConfig>,
    /// HTTP servers to which events are sent. Their names are unique.
    #[serde(rename = "webhook", default)]
    #[schemars(extend("x-named" = true))]
    pub webhooks: Vec<WebhookConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttConfig>,
}
