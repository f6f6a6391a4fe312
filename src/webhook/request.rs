//! One request: the signed message, and what the answer means.

use std::time::Duration;

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, http};

use super::delivery::WebhookMessage;
use super::resolver::{GuardedResolver, InternalAddress};
use crate::base::secret::Secret;
use crate::config::WebhookConfig;

/// The longest time in `Retry-After` that is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The server failed with this message.
    Failed(String),
    /// The server accepts no messages at present; it may have said for how long.
    Unavailable(String, Option<Duration>),
    /// The message will not be accepted.
    Refused(String),
}

/// The client of one webhook.
pub(super) struct WebhookClient {
    agent: Agent,
    url: String,
    secret: Option<Secret>,
    timeout: Duration,
}

impl WebhookClient {
    pub(super) fn new(config: &WebhookConfig) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        // No redirects, and no proxy of the environment: both would lead to addresses that the configuration does not name.
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("maskcast/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        WebhookClient {
            agent: Agent::with_parts(settings, DefaultConnector::default(), GuardedResolver::default()),
            url: config.url.0.to_string(),
            secret: config.secret.0.clone(),
            timeout: config.timeout,
        }
    }

    /// Sends a message; takes this long at most, and no longer than the configured timeout.
    pub(super) fn send(&self, message: &WebhookMessage, limit: Duration) -> Outcome {
        let timestamp = Timestamp::now().as_second().to_string();
        let mut request = http::Request::post(&self.url)
            .header("content-type", "application/json")
            .header("x-maskcast-timestamp", &timestamp)
            .header("x-maskcast-event-id", &message.event_id);
        if let Some(secret) = &self.secret {
            request = request.header("x-maskcast-signature", signature(secret, &timestamp, &message.body));
        }
        let request = match request.body(message.body.as_str()) {
            Ok(request) => request,
            Err(error) => return Outcome::Refused(format!("the request cannot be made: {error}")),
        };
        let request = self.agent.configure_request(request).timeout_global(Some(limit.min(self.timeout))).build();
        match self.agent.run(request) {
            Ok(response) => outcome(response.status(), response.headers()),
            Err(error) => failure(error),
        }
    }
}

/// The value of `X-Maskcast-Signature`: `sha256=` and HMAC-SHA256 (RFC 2104) of `TIMESTAMP.BODY` in hexadecimal digits.
pub fn signature(secret: &Secret, timestamp: &str, body: &str) -> String {
    // A key of any length is accepted.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { unreachable!("any length") };
    for part in [timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn outcome(status: http::StatusCode, headers: &http::HeaderMap) -> Outcome {
    let text = format!("HTTP {}", status.as_u16());
    let wait = || {
        let seconds = headers.get("retry-after")?.to_str().ok()?.trim();
        let is_number = !seconds.is_empty() && seconds.bytes().all(|digit| digit.is_ascii_digit());
        // A number that does not fit is a long time too.
        is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)).min(LONGEST_WAIT))
    };
    match status.as_u16() {
        200..=299 => Outcome::Delivered,
        429 | 503 => Outcome::Unavailable(text, wait()),
        500..=599 => Outcome::Failed(text),
        300..=399 => Outcome::Refused(format!("{text}: redirects are not followed")),
        _ => Outcome::Refused(text),
    }
}

fn failure(error: ureq::Error) -> Outcome {
    match error {
        ureq::Error::Other(error) if error.is::<InternalAddress>() => Outcome::Refused(error.to_string()),
        // Their texts may contain the address, which may be a secret.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Outcome::Refused("the address cannot be used".into()),
        ureq::Error::HostNotFound => Outcome::Unavailable("the host is not known".into(), None),
        ureq::Error::Timeout(_) => Outcome::Unavailable("no answer in time".into(), None),
        ureq::Error::Io(error) => Outcome::Unavailable(error.to_string(), None),
        error => Outcome::Unavailable(error.to_string(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf 1700000000.{} | openssl dgst -sha256 -hmac key` prints it.
    #[test]
    fn the_signature_is_an_hmac_of_time_and_body() {
        let expected = "sha256=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature(&Secret::new("key"), "1700000000", "{}"), expected);
    }

    #[test]
    fn answers_decide_what_becomes_of_a_message() {
        let of = |status: u16, retry_after: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("retry-after", retry_after.parse().unwrap());
            outcome(status.try_into().unwrap(), &headers)
        };
        assert_eq!(of(204, "7"), Outcome::Delivered);
        assert_eq!(of(503, "7"), Outcome::Unavailable("HTTP 503".into(), Some(Duration::from_secs(7))));
        assert_eq!(of(429, "86400"), Outcome::Unavailable("HTTP 429".into(), Some(LONGEST_WAIT)));
        assert_eq!(of(503, &"9".repeat(40)), Outcome::Unavailable("HTTP 503".into(), Some(LONGEST_WAIT)));
        assert_eq!(of(503, ""), Outcome::Unavailable("HTTP 503".into(), None));
        assert_eq!(of(503, "-1"), Outcome::Unavailable("HTTP 503".into(), None));
        assert_eq!(of(429, "Fri, 31 Dec 1999 23:59:59 GMT"), Outcome::Unavailable("HTTP 429".into(), None));
        assert_eq!(of(500, "7"), Outcome::Failed("HTTP 500".into()));
        assert_eq!(of(410, "7"), Outcome::Refused("HTTP 410".into()));
        assert_eq!(of(308, "7"), Outcome::Refused("HTTP 308: redirects are not followed".into()));
    }
}
