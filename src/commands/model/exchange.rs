//! `maskcast model use`: another model for a running service, by its API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::RequestBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::base::secret::Secret;
use crate::commands::{Failure, exit};

/// Which model, and of which service.
#[derive(Clone, Debug, clap::Args)]
pub struct UseArgs {
    /// The ONNX file, on the machine of the service.
    pub model: PathBuf,
    /// Where the service's page is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// A file with an operator's token; else $MASKCAST_TOKEN, where the service asks who is there.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate of a service that has signed it itself.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Take it although it would run on the CPU where the one before runs on a GPU.
    #[arg(long)]
    pub force: bool,
}

/// How often the service is asked what has become of it.
const ASK: Duration = Duration::from_millis(200);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks for the model and waits until it runs or was refused.
///
/// # Errors
/// A service that cannot be reached, or its reason for refusing.
pub fn exchange(args: &UseArgs) -> Result<(), Failure> {
    let path = std::path::absolute(&args.model).map_err(|error| Failure::usage(error.to_string()))?;
    let url = format!("{}/api/v1/model", args.url.trim_end_matches('/'));
    let (agent, token) = (agent(args)?, token(args)?);
    let unreachable = |error: ureq::Error| Failure::runtime(format!("{url}: {error}; is the service running?"));
    let wish = json!({ "path": path, "force": args.force });
    let answer = with(agent.post(&url), token.as_ref()).send_json(&wish).map_err(unreachable)?;
    let asked = read(answer, &url)?;
    let poll = crossbeam_channel::tick(ASK);
    loop {
        let model = read(with(agent.get(&url), token.as_ref()).call().map_err(unreachable)?, &url)?;
        let change = &model["change"];
        if change["path"] != asked["path"] {
            return Err(Failure::runtime(format!("{url}: another model was asked for in the meantime")));
        }
        match change["state"].as_str() {
            Some("loading") => {}
            Some("done") => {
                let text = |key: &str| model[key].as_str().unwrap_or_default().to_string();
                println!("{} runs on {}, {} ms a frame", text("name"), text("actual"), model["frame_ms"]);
                return Ok(());
            }
            _ => {
                let reason = change["reason"].as_str().unwrap_or("the service does not say why");
                return Err(Failure { code: exit::FAILURE, message: format!("refused: {reason}") });
            }
        }
        // The tick only paces the questions.
        let _ = poll.recv();
    }
}

fn agent(args: &UseArgs) -> Result<ureq::Agent, Failure> {
    let mut config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER));
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

fn with<Body>(request: RequestBuilder<Body>, token: Option<&Secret>) -> RequestBuilder<Body> {
    match token {
        Some(token) => request.header("authorization", format!("Bearer {}", token.expose())),
        None => request,
    }
}

/// The answer's JSON, or what its problem document says.
fn read(mut answer: ureq::http::Response<ureq::Body>, url: &str) -> Result<Value, Failure> {
    let (status, body) = (answer.status(), answer.body_mut().read_json::<Value>());
    let body = body.map_err(|error| Failure::runtime(format!("{url}: {status}: {error}")))?;
    if status.is_success() {
        return Ok(body);
    }
    Err(Failure::runtime(format!("{url}: {}", body["detail"].as_str().unwrap_or(status.as_str()))))
}
