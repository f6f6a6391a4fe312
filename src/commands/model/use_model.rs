//! `maskcast model use`: switches a running service to another model through its API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::RequestBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::base::secret::Secret;
use crate::commands::{Failure, exit};

/// The model and the service.
#[derive(Clone, Debug, clap::Args)]
pub struct UseArgs {
    /// The ONNX file, on the machine of the service.
    pub model: PathBuf,
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
    let url = format!("{}/api/v1/model", args.url.trim_end_matches('/'));
    let (agent, token) = (agent(args)?, token(args)?);
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

fn agent(args: &UseArgs) -> Result<ureq::Agent, Failure> {
    let mut config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST_TIMEOUT));
    if let Some(path) = &args.ca {
        let located = |problem: &dyn std::fmt::Display| Failure::usage(format!("{}: {problem}", path.display()));
        let text = std::fs::read(path).map_err(|error| located(&error))?;
        let certificate = Certificate::from_pem(&text).map_err(|error| located(&error))?;
        let roots = RootCerts::Specific(Arc::new(vec![certificate]));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().into())
}

fn token(args: &UseArgs) -> Result<Option<Secret>, Failure> {
    let token = match &args.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?)
        }
        None => std::env::var("MASKCAST_TOKEN").ok(),
    };
    Ok(token.map(|token| Secret::new(token.trim())).filter(|token| !token.expose().is_empty()))
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
