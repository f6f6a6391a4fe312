//! `maskcast model use` and `maskcast model rollback`: switch a running service to another model, and back, through its API.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use ureq::RequestBuilder;

use crate::base::secret::Secret;
use crate::commands::{Failure, api_client, exit};

/// A running service, and which of its models.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    /// The model of the configuration whose file is changed [default: the first].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The address of the service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A file with the token of an operator, for a service with users [default: $MASKCAST_TOKEN].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate of a service with a self-signed certificate (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// The model and the service.
#[derive(Clone, Debug, clap::Args)]
pub struct UseArgs {
    /// The ONNX file, on the machine of the service.
    pub model: PathBuf,
    #[command(flatten)]
    service: ServiceArgs,
    /// Switch even if the new model runs on the CPU and the current model on a GPU.
    #[arg(long)]
    pub force: bool,
    /// Write the path to the configuration file, so that the next start loads the model too.
    #[arg(long)]
    pub save: bool,
}

/// The service, and which of its models.
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    service: ServiceArgs,
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
    request(&args.service, "", Some(json!({ "path": path, "force": args.force, "save": args.save })))
}

/// Requests the file that ran before, and waits until it runs or is refused.
///
/// # Errors
/// The service cannot be reached, knows no file that ran before, or refuses it.
pub fn roll_back(args: &RollbackArgs) -> Result<(), Failure> {
    request(&args.service, "/rollback", None)
}

/// Sends a request about a model to the service, and waits for its result.
fn request(args: &ServiceArgs, rest: &str, body: Option<Value>) -> Result<(), Failure> {
    let service = args.url.trim_end_matches('/');
    let url = match &args.name {
        Some(name) => format!("{service}/api/v1/models/{}", utf8_percent_encode(name, NON_ALPHANUMERIC)),
        None => format!("{service}/api/v1/model"),
    };
    let agent = api_client::agent(args.ca.as_deref(), Some(REQUEST_TIMEOUT))?;
    let token = api_client::token(args.token_file.as_deref())?;
    let unreachable = |error: ureq::Error| Failure::runtime(format!("{url}: {error}; is the service running?"));
    let post = with_token(agent.post(format!("{url}{rest}")), token.as_ref());
    let saves = body.as_ref().is_some_and(|body| body["save"] == true);
    let answer = match body {
        Some(body) => post.send_json(&body),
        None => post.send_empty(),
    };
    let accepted = read(answer.map_err(unreachable)?, &url)?;
    let poll = crossbeam_channel::tick(POLL_INTERVAL);
    loop {
        let model = read(with_token(agent.get(&url), token.as_ref()).call().map_err(unreachable)?, &url)?;
        let change = &model["change"];
        if change["path"] != accepted["path"] {
            return Err(Failure::runtime(format!("{url}: another client has requested another model in the meantime")));
        }
        match change["state"].as_str() {
            Some("loading") => {}
            // Its path is about to be written to the configuration.
            Some("done") if saves && change["saved"].is_null() => {}
            Some("done") => {
                let text = |key: &str| model[key].as_str().unwrap_or_default().to_string();
                println!("{} runs on {}, {} ms for one frame", text("name"), text("actual"), model["frame_ms"]);
                if let Some(reason) = change["not_saved"].as_str() {
                    return Err(Failure::runtime(format!("the path was not written to the configuration: {reason}")));
                }
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
