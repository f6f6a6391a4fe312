//! `maskcast model use`: switches a running service to another model through its API.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use ureq::RequestBuilder;

use crate::base::secret::Secret;
use crate::commands::{Failure, api_client, exit};

/// The model and the service.
#[derive(Clone, Debug, clap::Args)]
pub struct UseArgs {
    /// The ONNX file, on the machine of the service.
    pub model: PathBuf,
    /// The model of the configuration that is to run the file [default: the first].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The address of the service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// A file with the token of an operator, for a service with users [default: $MASKCAST_TOKEN].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate of a service with a self-signed certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Switch even if the new model runs on the CPU and the current model on a GPU.
    #[arg(long)]
    pub force: bool,
}

/// Interval at which the state of the change is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests the model and waits until it runs or is refused.
///
/// # Errors
/// The service cannot be reached or refuses the model.
pub fn use_model(args: &UseArgs) -> Result<(), Failure> {
    let path = std::path::absolute(&args.model).map_err(|error| Failure::usage(error.to_string()))?;
    let service = args.url.trim_end_matches('/');
    let url = match &args.name {
        Some(name) => format!("{service}/api/v1/models/{}", utf8_percent_encode(name, NON_ALPHANUMERIC)),
        None => format!("{service}/api/v1/model"),
    };
    let agent = api_client::agent(args.ca.as_deref(), Some(REQUEST_TIMEOUT))?;
    let token = api_client::token(args.token_file.as_deref())?;
    let unreachable = |error: ureq::Error| Failure::runtime(format!("{url}: {error}; is the service running?"));
    let request = json!({ "path": path, "force": args.force });
    let answer = with_token(agent.post(&url), token.as_ref()).send_json(&request).map_err(unreachable)?;
    let accepted = read(answer, &url)?;
    let poll = crossbeam_channel::tick(POLL_INTERVAL);
    loop {
        let model = read(with_token(agent.get(&url), token.as_ref()).call().map_err(unreachable)?, &url)?;
        let change = &model["change"];
        if change["path"] != accepted["path"] {
            return Err(Failure::runtime(format!("{url}: another client has requested another model in the meantime")));
        }
        match change["state"].as_str() {
            Some("loading") => {}
            Some("done") => {
                let text = |key: &str| model[key].as_str().unwrap_or_default().to_string();
                println!("{} runs on {}, {} ms for one frame", text("name"), text("actual"), model["frame_ms"]);
                return Ok(());
            }
            _ => {
                let reason = change["reason"].as_str().unwrap_or("the service gave no reason");
                return Err(Failure { code: exit::FAILURE, message: format!("the model was refused: {reason}") });
            }
        }
        // The tick only limits the rate of requests.
        let _ = poll.recv();
    }
}

fn with_token<Body>(request: RequestBuilder<Body>, token: Option<&Secret>) -> RequestBuilder<Body> {
    match token {
        Some(token) => request.header("authorization", format!("Bearer {}", token.expose())),
        None => request,
    }
}

/// The JSON of a successful answer.
///
/// # Errors
/// The `detail` of the problem document (RFC 9457) of another answer.
fn read(mut answer: ureq::http::Response<ureq::Body>, url: &str) -> Result<Value, Failure> {
    let (status, body) = (answer.status(), answer.body_mut().read_json::<Value>());
    let body = body.map_err(|error| Failure::runtime(format!("{url}: {status}: {error}")))?;
    if status.is_success() {
        return Ok(body);
    }
    Err(Failure::runtime(format!("{url}: {}", body["detail"].as_str().unwrap_or(status.as_str()))))
}
