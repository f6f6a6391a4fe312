//! The HTTP API. The input is a request: the first line has method and target, the rest is the body. The real server must
//! respond in HTTP, without internal errors, and must not forward requests that it refuses.
#![no_main]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use maskcast::config::{SourceSpec, defaults_stream};
use maskcast::frame::{Label, Rgb};
use maskcast::publish::outputs::StreamOutputs;
use maskcast::segment::placement::Placement;
use maskcast::segment::pool::PoolStats;
use maskcast::server::HttpServer;
use maskcast::view::{ModelChangeState, ModelView, NamedModel, ServiceView, StreamView};

/// The server, its view, and the model changes that it forwards.
static SERVICE: LazyLock<(HttpServer, Arc<ServiceView>, ModelChanges)> = LazyLock::new(|| {
    let address = "127.0.0.1:0".parse().expect("a literal");
    let (model, model_requests) = NamedModel::new("default", Arc::new(PoolStats::default()));
    let model = Arc::new(model);
    let (view, _) = ServiceView::new(address, vec![Arc::clone(&model)]);
    let source = SourceSpec::parse("test://smpte", "/".as_ref()).expect("a literal");
    let config = defaults_stream("gate", source);
    let stream = StreamView::new(&config, StreamOutputs::default(), &Arc::default());
    view.set_streams(vec![Arc::new(stream)]);
    model.set_running(ModelView {
        name: "street".into(),
        path: "/srv/street.onnx".into(),
        labels: [Label::new("road", Rgb(128, 64, 128))].into(),
        requested: "cpu",
        actual: "cpu",
        placement: Placement(Vec::new()),
        refused: Vec::new(),
        golden_difference: None,
        output: "uint8 class indices".into(),
        unlabelled: Arc::default(),
        input: (512, 288),
        devices: Vec::new(),
        workers: 1,
        threads: 1,
        max_batch: 1,
        time: Duration::from_millis(50),
        memory: None,
        reference: None,
    });
    let view = Arc::new(view);
    let whep = Arc::new(maskcast::publish::whep::Whep::new(maskcast::config::WebRtcConfig::default()));
    let server = HttpServer::bind(address).expect("a port").serve(Arc::clone(&view), whep).expect("a thread");
    (server, view, ModelChanges(Box::new(move || model_requests.try_recv().ok().map(|request| request.path))))
});

/// Returns the next requested model.
struct ModelChanges(Box<dyn Fn() -> Option<std::path::PathBuf> + Send + Sync>);

/// Allowed statuses; all others are errors of the server. 421: an unknown host; 503: a snapshot of a stream without frames, or
/// a change, which no thread applies in this target.
const STATUS: [u16; 22] =
    [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 416, 421, 422, 429, 431, 503, 505];

fuzz_target!(|data: &[u8]| {
    let (server, view, model_requests) = &*SERVICE;
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (head, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let mut client = TcpStream::connect(server.address()).expect("the server listens");
    // Closed with RST: connections in TIME_WAIT would use up the ports of the system.
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    client.set_nodelay(true).expect("a socket");
    let mut request = head.to_vec();
    let rest = format!(
        " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    request.extend(rest.as_bytes());
    request.extend(body);
    // Fails when the server has refused the request early and closed the connection.
    let _ = client.write_all(&request);
    let mut line = Vec::new();
    let read = BufReader::new(client).read_until(b'\n', &mut line);
    let line = String::from_utf8_lossy(&line);
    // MJPEG responses have no end, so only the first line is read.
    match line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)?.parse::<u16>().ok()) {
        Some(status) => assert!(STATUS.contains(&status), "{line}"),
        None => {
            // The server may close the connection after data that is not HTTP, or reset it while a request is being sent.
            let is_reset = read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
            assert!(line.is_empty() && (is_reset || !is_http(head)), "{line:?}");
        }
    }
    while let Some(path) = (model_requests.0)() {
        assert!(path.is_absolute(), "{path:?}");
        assert!(line.contains(" 202 "), "{line}");
        view.models()[0].set_change(path, ModelChangeState::Done);
    }
});

/// Whether a request line is certainly valid.
fn is_http(head: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.?=&".contains(byte);
    let methods: [&[u8]; 5] = [b"GET /", b"POST /", b"PUT /", b"HEAD /", b"DELETE /"];
    methods.iter().any(|method| head.strip_prefix(*method).is_some_and(|rest| rest.iter().all(plain)))
}
