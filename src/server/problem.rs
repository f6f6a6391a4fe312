//! Error responses as problem documents (RFC 9457).

use std::error::Error;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::base::bounded::{field, line};
use crate::config::ConfigError;
use crate::view::{NamedModel, StreamView};

/// `application/problem+json`
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    streams: Option<Vec<String>>,
    models: Option<Vec<String>>,
    errors: Option<Vec<Fault>>,
    /// Seconds after which a retry may succeed.
    retry_after: Option<u32>,
}

/// `Retry-After` in seconds while the model is loaded.
const LOADING_RETRY: u32 = 2;

/// A problem document (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument<'a> {
    /// Always `about:blank`: the status code classifies the error.
    r#type: &'static str,
    /// Name of the status code.
    #[schema(example = "Not Found")]
    title: &'static str,
    /// HTTP status code.
    #[schema(example = 404)]
    status: u16,
    /// Description of the error.
    #[schema(example = "there is no stream \"gate\"")]
    detail: &'a str,
    /// Names of all streams; only if a stream was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<&'a [String]>,
    /// Names of all models; only if a model was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<&'a [String]>,
    /// All errors in the settings; only if settings are not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [Fault]>,
}

/// An error in the settings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Fault {
    /// Path of the key; empty if the error is not about one key.
    #[schema(example = "stream[gate].overlay.alpha")]
    key: String,
    /// Description of the error.
    #[schema(example = "7 is not between 0 and 1")]
    problem: String,
    /// What to do, if known.
    help: Option<String>,
    /// Line in the configuration file; null if the error is in the request.
    line: Option<usize>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: String) -> Self {
        let detail = line(&detail).into_owned();
        Problem { status, detail, streams: None, models: None, errors: None, retry_after: None }
    }

    /// 503: the first model is still loading.
    pub fn loading(why: &str) -> Self {
        let detail = format!("the model is being loaded: {why}");
        Problem { retry_after: Some(LOADING_RETRY), ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 404, with the names of all streams.
    pub fn unknown_stream(name: &str, streams: &[Arc<StreamView>]) -> Self {
        let names: Vec<String> = streams.iter().map(|stream| stream.status.name.to_string()).collect();
        let existing =
            if names.is_empty() { "there are no streams".into() } else { format!("streams: {}", names.join(", ")) };
        let detail = format!("there is no stream {:?}; {existing}", field(name));
        Problem { streams: Some(names), ..Problem::new(StatusCode::NOT_FOUND, detail) }
    }

    /// 404, with the names of all models.
    pub fn unknown_model(name: &str, models: &[Arc<NamedModel>]) -> Self {
        let names: Vec<String> = models.iter().map(|model| model.name.to_string()).collect();
        let detail = format!("unknown model {:?}; models: {}", field(name), names.join(", "));
        Problem { models: Some(names), ..Problem::new(StatusCode::NOT_FOUND, detail) }
    }

    /// All errors of `what`.
    pub fn faults(status: StatusCode, what: &str, errors: &[ConfigError]) -> Self {
        let fault = |error: &ConfigError| {
            let ConfigError { key, line, problem, help } = error.clone();
            Fault { key, problem, help, line }
        };
        let detail = match errors {
            [error] => format!("{what}: {error}"),
            errors => format!("{what}: {} errors", errors.len()),
        };
        Problem { errors: Some(errors.iter().map(fault).collect()), ..Problem::new(status, detail) }
    }
}

impl From<JsonRejection> for Problem {
    /// Describes what to send, without terms of the JSON library.
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let why = rejection.source().and_then(Error::source).map(ToString::to_string).unwrap_or_default();
        let detail = match &rejection {
            JsonRejection::MissingJsonContentType(_) => {
                "the body must be JSON with Content-Type application/json".into()
            }
            JsonRejection::JsonSyntaxError(_) => format!("the body is not valid JSON: {why}"),
            JsonRejection::JsonDataError(_) if why.contains("expected a map") || why.contains("expected struct") => {
                "the body must be an object: {\"KEY\": VALUE, …}".into()
            }
            JsonRejection::JsonDataError(_) => format!("the body does not match the schema: {why}"),
            other => other.body_text(),
        };
        Problem::new(status, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            streams: self.streams.as_deref(),
            models: self.models.as_deref(),
            errors: self.errors.as_deref(),
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_stream_of_a_service_without_streams_is_a_404() {
        let problem = Problem::unknown_stream("gate", &[]);
        assert_eq!(problem.status, StatusCode::NOT_FOUND);
        assert_eq!(problem.detail, "there is no stream \"gate\"; there are no streams");
        assert_eq!(problem.streams.as_deref(), Some(&[][..]));
    }
}
