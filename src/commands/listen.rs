//! `maskcast listen`: prints the live messages of a running service.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use serde_json::Value;
use url::Url;

use super::{Failure, api_client};
use crate::base::output;
use crate::base::retry::Retry;
use crate::base::secret::Secret;

/// The service, and which of its messages.
#[derive(Clone, Debug, clap::Args)]
pub struct ListenArgs {
    /// The address of the service.
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: Url,
    /// Only the messages of this stream.
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
    /// Print events instead of masks.
    #[arg(long)]
    pub events: bool,
    /// Only the events of this rule; requires --events.
    #[arg(long, value_name = "NAME", requires = "events")]
    pub rule: Option<String>,
    /// The minimum time between two masks of a stream, such as 500ms or 2s.
    #[arg(long, value_name = "TIME", conflicts_with = "events")]
    pub every: Option<String>,
    /// Add the pixels of each mask.
    #[arg(long, value_name = "FORMAT", conflicts_with = "events")]
    pub mask: Option<PixelsArg>,
    /// The user, for a service with users.
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    pub user: Option<String>,
    /// A file whose first line is the password of the user [default: a prompt].
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// A file with a token, for a service with users [default: $MASKCAST_TOKEN].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate of a service with a self-signed certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// How the pixels of masks are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PixelsArg {
    /// Run lengths of each class, in the format of COCO (RLE).
    Rle,
    /// PNG in Base64.
    Png,
}

/// Time limit of a request that has an end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing arrives for this long is lost: the service sends something every twenty seconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Lines that wait to be printed.
const QUEUE: usize = 16;

/// Access to the service.
#[derive(Clone)]
struct Service {
    agent: ureq::Agent,
    authorization: Option<Secret>,
}

/// From a connection to the printing thread.
enum Received {
    /// A JSON object.
    Message(String),
    /// The service does not answer with messages, and will not.
    Refused(String),
}

/// Why a connection ended.
enum ConnectionEnd {
    /// It may succeed later. The time for which messages arrived.
    Lost(String, Duration),
    Refused(String),
    /// The thread that prints has ended.
    Unwanted,
}

/// Prints messages until the output is closed or the service refuses.
///
/// # Errors
/// The arguments are wrong, or the service refuses.
pub fn listen(args: &ListenArgs) -> Result<(), Failure> {
    let service = Service { agent: api_client::agent(args.ca.as_deref(), None)?, authorization: authorization(args)? };
    let urls = urls(args, &service)?;
    let (sender, received) = bounded(QUEUE);
    let mut left = urls.len();
    for url in urls {
        let (service, sender) = (service.clone(), sender.clone());
        std::thread::Builder::new()
            .name("listen".into())
            .spawn(move || follow(&service, &url, &sender))
            .map_err(|error| Failure::runtime(format!("cannot start a thread: {error}")))?;
    }
    drop(sender);
    for received in received {
        match received {
            Received::Message(text) => println!("{text}"),
            Received::Refused(problem) => {
                left -= 1;
                if left == 0 {
                    return Err(Failure::runtime(problem));
                }
                eprintln!("maskcast: {problem}");
            }
        }
        if !output::is_open() {
            break;
        }
    }
    Ok(())
}

/// The value of the `Authorization` header.
fn authorization(args: &ListenArgs) -> Result<Option<Secret>, Failure> {
    let Some(user) = &args.user else {
        let token = api_client::token(args.token_file.as_deref())?;
        return Ok(token.map(|token| Secret::new(format!("Bearer {}", token.expose()))));
    };
    let password = match &args.password_file {
        Some(path) => api_client::read(path)?.lines().next().unwrap_or_default().to_owned(),
        None => rpassword::prompt_password("Password: ").map_err(|error| {
            Failure::usage(format!("the password cannot be read from the terminal: {error}; use --password-file"))
        })?,
    };
    Ok(Some(Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))))
}

/// The addresses of the messages.
fn urls(args: &ListenArgs, service: &Service) -> Result<Vec<Url>, Failure> {
    let mut query = Vec::new();
    if args.events {
        query.extend(args.stream.as_deref().map(|stream| ("stream", stream)));
        query.extend(args.rule.as_deref().map(|rule| ("rule", rule)));
        return Ok(vec![with_query(below(&args.url, &["api", "v1", "events", "live"])?, &query)]);
    }
    query.extend(args.every.as_deref().map(|every| ("every", every)));
    query.extend(args.mask.map(|mask| ("mask", if mask == PixelsArg::Rle { "rle" } else { "png" })));
    let names = match &args.stream {
        Some(name) => vec![name.clone()],
        None => names(&below(&args.url, &["api", "v1", "streams"])?, service)?,
    };
    let masks =
        |name: &String| below(&args.url, &["api", "v1", "streams", name, "masks"]).map(|url| with_query(url, &query));
    names.iter().map(masks).collect()
}

/// The address of a path below the address of the service.
fn below(base: &Url, path: &[&str]) -> Result<Url, Failure> {
    let mut url = base.clone();
    let is_web = matches!(url.scheme(), "http" | "https");
    match url.path_segments_mut() {
        Ok(mut segments) if is_web => {
            segments.pop_if_empty().extend(path);
        }
        _ => return Err(Failure::usage(format!("{base}: write the address as http://HOST:PORT or https://HOST:PORT"))),
    }
    Ok(url)
}

fn with_query(mut url: Url, query: &[(&str, &str)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// The names of the streams of a service.
fn names(url: &Url, service: &Service) -> Result<Vec<String>, Failure> {
    let failed = |problem: String| Failure::runtime(format!("{url}: {problem}"));
    let request = service.request(url).config().timeout_global(Some(REQUEST_TIMEOUT)).build();
    let mut answer = request.call().map_err(|error| failed(format!("{error}; is the service running?")))?;
    if !answer.status().is_success() {
        return Err(failed(refusal(&mut answer)));
    }
    let streams: Value = answer.body_mut().read_json().map_err(|error| failed(error.to_string()))?;
    let names: Vec<String> =
        streams.as_array().into_iter().flatten().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect();
    if names.is_empty() { Err(failed("the service has no streams".into())) } else { Ok(names) }
}

impl Service {
    fn request(&self, url: &Url) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(url.as_str());
        match &self.authorization {
            Some(value) => request.header("authorization", value.expose()),
            None => request,
        }
    }
}

/// Status and problem (RFC 9457) of a response.
fn refusal(response: &mut ureq::http::Response<ureq::Body>) -> String {
    let status = response.status();
    let problem: Option<Value> = response.body_mut().read_json().ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    detail.map_or_else(|| status.to_string(), |detail| format!("{detail} ({})", status.as_u16()))
}

/// Passes on messages from one address, over as many connections as it takes.
fn follow(service: &Service, url: &Url, sender: &Sender<Received>) {
    let mut retry = Retry::new();
    loop {
        match connection(service, url, sender) {
            ConnectionEnd::Lost(problem, flowed) => {
                let pause = retry.pause(flowed);
                eprintln!("maskcast: {url}: {problem}; next try in {:.1} s", pause.as_secs_f64());
                std::thread::sleep(pause);
            }
            ConnectionEnd::Refused(problem) => {
                // Fails if the thread that prints has ended.
                let _ = sender.send(Received::Refused(format!("{url}: {problem}")));
                return;
            }
            ConnectionEnd::Unwanted => return,
        }
    }
}

/// One connection from its beginning to its end.
fn connection(service: &Service, url: &Url, sender: &Sender<Received>) -> ConnectionEnd {
    let (lines, received) = unbounded();
    let reader = {
        let (service, url) = (service.clone(), url.clone());
        move || read_lines(&service, &url, &lines)
    };
    // A thread of its own, because reading has no time limit. It is left alone when the service is silent.
    if let Err(error) = std::thread::Builder::new().name("read".into()).spawn(reader) {
        return ConnectionEnd::Lost(format!("cannot start a thread: {error}"), Duration::ZERO);
    }
    pass_on(&received, sender)
}

/// What the reading thread has received.
enum Line {
    Text(String),
    End(ConnectionEnd),
}

fn read_lines(service: &Service, url: &Url, lines: &Sender<Line>) {
    let lost = |error: &dyn std::fmt::Display| Line::End(ConnectionEnd::Lost(error.to_string(), Duration::ZERO));
    let end = match service.request(url).header("accept", "text/event-stream").call() {
        Ok(mut answer) => match answer.status().as_u16() {
            200 => {
                let mut reader = BufReader::new(answer.into_body().into_reader());
                loop {
                    let mut line = String::new();
                    match reader.read_line(&mut line) {
                        Ok(0) => break lost(&"the service has ended the connection"),
                        Ok(_) if lines.send(Line::Text(line)).is_err() => return,
                        Ok(_) => {}
                        Err(error) => break lost(&error),
                    }
                }
            }
            // Too many clients or passwords, or a service that starts.
            408 | 429 | 500..=599 => lost(&refusal(&mut answer)),
            _ => Line::End(ConnectionEnd::Refused(refusal(&mut answer))),
        },
        Err(error) => lost(&error),
    };
    // Fails when this connection was given up.
    let _ = lines.send(end);
}

/// Passes on the data of server-sent events (WHATWG HTML, section 9.2.6).
fn pass_on(lines: &Receiver<Line>, sender: &Sender<Received>) -> ConnectionEnd {
    let mut data = String::new();
    let mut first: Option<Instant> = None;
    let flowed = |first: Option<Instant>| first.map_or(Duration::ZERO, |first| first.elapsed());
    loop {
        match lines.recv_timeout(SILENCE_LIMIT) {
            Ok(Line::Text(line)) => {
                let line = line.trim_end_matches(['\r', '\n']);
                if let Some(more) = line.strip_prefix("data:") {
                    data.push_str(more.strip_prefix(' ').unwrap_or(more));
                } else if line.is_empty() && !data.is_empty() {
                    first.get_or_insert_with(Instant::now);
                    if sender.send(Received::Message(std::mem::take(&mut data))).is_err() {
                        return ConnectionEnd::Unwanted;
                    }
                }
            }
            Ok(Line::End(ConnectionEnd::Lost(problem, _))) => return ConnectionEnd::Lost(problem, flowed(first)),
            Ok(Line::End(end)) => return end,
            Err(RecvTimeoutError::Timeout) => {
                let problem = format!("nothing received for {} s", SILENCE_LIMIT.as_secs());
                return ConnectionEnd::Lost(problem, flowed(first));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return ConnectionEnd::Lost("the thread has ended".into(), flowed(first));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_below_the_address_of_the_service() {
        let base = |text: &str| below(&Url::parse(text).unwrap(), &["api", "v1", "streams", "a/b", "masks"]);
        assert_eq!(base("http://box:8080").unwrap().as_str(), "http://box:8080/api/v1/streams/a%2Fb/masks");
        assert_eq!(base("https://box/cams/").unwrap().as_str(), "https://box/cams/api/v1/streams/a%2Fb/masks");
        assert!(base("box:8080").is_err(), "a URL of the scheme box");
    }

    #[test]
    fn only_the_data_of_events_is_passed_on() {
        let (lines, received) = unbounded();
        let text = ": ping\n\nevent: mask\ndata: {\"a\":1}\n\ndata:{\"b\":2}\r\n\r\n\n";
        text.split_inclusive('\n').for_each(|line| lines.send(Line::Text(line.into())).unwrap());
        drop(lines);
        let (sender, messages) = unbounded();
        assert!(matches!(pass_on(&received, &sender), ConnectionEnd::Lost(..)));
        drop(sender);
        let messages: Vec<String> = messages
            .iter()
            .map(|received| match received {
                Received::Message(text) => text,
                Received::Refused(problem) => panic!("{problem}"),
            })
            .collect();
        assert_eq!(messages, ["{\"a\":1}", "{\"b\":2}"]);
    }
}
