//! HTTP clients: plain requests, the metrics, and a viewer of MJPEG.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::wait::DEADLINE;

/// Accepts any certificate: services under test use self-signed ones.
pub fn any_certificate() -> ureq::tls::TlsConfig {
    ureq::tls::TlsConfig::builder().disable_verification(true).build()
}

/// Status and body.
pub fn get(url: &str) -> (u16, String) {
    let request = ureq::get(url).config().http_status_as_error(false).timeout_global(Some(DEADLINE));
    let request = request.tls_config(any_certificate()).build();
    let mut response = request.call().unwrap_or_else(|error| panic!("{url}: {error}"));
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// A request of any method with a JSON body: status, `Location` and body of the response.
pub fn send(method: &str, url: &str, body: Option<&str>) -> (u16, Option<String>, String) {
    let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
    let request = request.body(body.unwrap_or_default().to_owned()).unwrap();
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE));
    let agent: ureq::Agent = config.allow_non_standard_methods(true).build().into();
    let mut response = agent.run(request).unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), location, response.body_mut().read_to_string().unwrap())
}

/// Status and body as bytes.
pub fn get_bytes(url: &str) -> (u16, Vec<u8>) {
    let request = ureq::get(url).config().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
    let mut response = request.call().unwrap_or_else(|error| panic!("{url}: {error}"));
    (response.status().as_u16(), response.body_mut().read_to_vec().unwrap())
}

/// The response to a request of any method.
pub struct Answer {
    pub status: u16,
    headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    /// Sends a request with this body.
    pub fn to(method: &str, url: &str, content_type: &str, body: &str) -> Self {
        Answer::to_as(method, url, content_type, body, "")
    }

    /// The same with `Authorization`, unless it is empty.
    pub fn to_as(method: &str, url: &str, content_type: &str, body: &str, authorization: &str) -> Self {
        let mut request = ureq::http::Request::builder().method(method).uri(url).header("content-type", content_type);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true);
        let agent: ureq::Agent = config.timeout_global(Some(DEADLINE)).tls_config(any_certificate()).build().into();
        let mut response =
            agent.run(request.body(body.to_owned()).unwrap()).unwrap_or_else(|error| panic!("{url}: {error}"));
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    pub fn post(url: &str, content_type: &str, body: &str) -> Self {
        Answer::to("POST", url, content_type, body)
    }

    /// The value of a header; empty when it is missing.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }
}

pub fn get_json(url: &str) -> Value {
    let (status, body) = get(url);
    assert_eq!(status, 200, "{url}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// One scrape of `/metrics`.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn scrape(page: &str) -> Self {
        let (status, body) = get(&format!("{page}metrics"));
        assert_eq!(status, 200, "{body}");
        let series = body.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_string(), value.parse().unwrap())
        });
        Metrics(series.collect())
    }

    /// The sum of all series of `name` that have all of `labels`. Fails when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.find(name, labels);
        found.unwrap_or_else(|| panic!("no {name} with {labels:?} in {:?}", self.0.keys()))
    }

    /// The same; `None` when there is none.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |series: &str| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|(label, value)| {
                    let pair = format!("{label}=\"{value}\"");
                    series.contains(&format!("{{{pair}")) || series.contains(&format!(",{pair}"))
                })
        };
        self.0.iter().filter(|(series, _)| matches(series)).map(|(_, value)| *value).reduce(|a, b| a + b)
    }

    /// Number of frames that have passed a stage.
    pub fn stage(&self, stream: &str, stage: &str) -> f64 {
        self.sum("maskcast_stage_seconds_count", &[("stream", stream), ("stage", stage)])
    }

    pub fn published(&self, stream: &str) -> f64 {
        self.sum("maskcast_frames_published_total", &[("stream", stream)])
    }
}

/// A viewer of `/mjpeg/NAME`. It reads only when a frame is requested from it.
pub struct Mjpeg(BufReader<TcpStream>);

impl Mjpeg {
    pub fn connect(page: &str, stream: &str) -> Self {
        let host = page.trim_start_matches("http://").trim_end_matches('/');
        let mut connection = TcpStream::connect(host).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        connection.set_nodelay(true).unwrap();
        write!(connection, "GET /mjpeg/{stream} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        Mjpeg(BufReader::new(connection))
    }

    /// The next frame, a JPEG. The server sends each part of the response as one chunk, so that no chunk header is inside
    /// a frame.
    pub fn next(&mut self) -> Vec<u8> {
        self.try_next().unwrap_or_else(|error| panic!("the server closed the connection: {error}"))
    }

    /// The same, with an error when the connection ends.
    pub fn try_next(&mut self) -> std::io::Result<Vec<u8>> {
        let length = loop {
            let line = self.line()?;
            if let Some(length) = line.strip_prefix("Content-Length: ") {
                break length.parse().unwrap();
            }
            // The last chunk: the response has ended, and the connection waits for another request.
            if line == "0" {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        assert_eq!(self.line()?, "");
        let mut jpeg = vec![0; length];
        self.0.read_exact(&mut jpeg)?;
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]), "{length} bytes that are not a JPEG");
        Ok(jpeg)
    }

    /// The connection, so that a test can close it.
    pub fn connection(&self) -> TcpStream {
        self.0.get_ref().try_clone().unwrap()
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_string())
    }
}
