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
    /// The models, at least one. Their names are unique. The first one is that of the streams that name none.
    #[serde(rename = "model", default = "ModelConfig::only_unnamed")]
    #[schemars(length(min = 1), extend(
        "x-named" = true,
        "x-single" = true,
        "x-help" = "write [model], or [[model]] and below it name = \"yard\"",
    ))]
    pub models: Vec<ModelConfig>,
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

impl Config {
    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&ModelConfig> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The streams of the model of this name.
    pub fn streams_of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a StreamConfig> {
        self.streams.iter().filter(move |stream| stream.model == model)
    }

    /// The key path of a model: `model` if it is the only one, else `model[yard]`.
    pub fn model_key(&self, name: &str) -> String {
        if self.models.len() == 1 { "model".to_owned() } else { format!("model[{name}]") }
    }
}
