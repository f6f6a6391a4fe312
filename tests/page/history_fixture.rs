//! A server in front of the real one, which answers the paths of the history and of live messages from what a test sets, so that
//! a test has a week of shares and exact events. It passes all other requests to the real program.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

/// A share by the hours before now.
pub type Curve = Box<dyn Fn(f64) -> f64 + Send>;

type Parameters = Query<std::collections::BTreeMap<String, String>>;

/// The page's address, and what the server answers.
pub struct HistoryFixture {
    /// `http://ADDRESS:PORT/`
    pub page: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Address of the real program.
    behind: String,
    client: Client<HttpConnector, Body>,
    /// Event records, the newest first.
    events: Mutex<Vec<Value>>,
    /// Names of classes and their shares; without any, see [`history`].
    shares: Mutex<Vec<(&'static str, Curve)>>,
    /// Queries of the history of shares.
    queries: Mutex<Vec<Value>>,
    live_events: broadcast::Sender<String>,
    live_masks: broadcast::Sender<String>,
}

impl HistoryFixture {
    /// Starts it in front of the program at `behind`.
    pub async fn start(behind: &str) -> Self {
        let shared = Arc::new(Shared {
            behind: behind.trim_end_matches('/').trim_start_matches("http://").to_owned(),
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            events: Mutex::default(),
            shares: Mutex::default(),
            queries: Mutex::default(),
            live_events: broadcast::channel(64).0,
            live_masks: broadcast::channel(64).0,
        });
        let router = Router::new()
            .route("/api/v1/events", get(events))
            .route("/api/v1/events/live", get(live_events))
            .route("/api/v1/streams/{name}/history", get(history))
            .route("/api/v1/streams/{name}/masks", get(live_masks))
            .fallback(pass_on)
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        HistoryFixture { page, shared }
    }

    pub fn set_events(&self, events: Vec<Value>) {
        *self.shared.events.lock().unwrap() = events;
    }

    /// Sets the shares of classes in the frame and in all zones.
    pub fn set_shares(&self, shares: Vec<(&'static str, Curve)>) {
        *self.shared.shares.lock().unwrap() = shares;
    }

    /// Sends a message about an event to the connected clients.
    pub fn send_event(&self, message: &Value) {
        self.shared.live_events.send(message.to_string()).expect("a client is connected");
    }

    /// Sends a mask message to the connected clients.
    pub fn send_mask(&self, message: &Value) {
        self.shared.live_masks.send(message.to_string()).expect("a client is connected");
    }

    /// Numbers of clients that wait for events and for masks.
    pub fn clients(&self) -> (usize, usize) {
        (self.shared.live_events.receiver_count(), self.shared.live_masks.receiver_count())
    }

    /// The queries of the history of shares so far.
    pub fn queries(&self) -> Vec<Value> {
        self.shared.queries.lock().unwrap().clone()
    }
}

async fn events(State(shared): State<Arc<Shared>>, Query(query): Parameters) -> axum::Json<Vec<Value>> {
    // RFC 3339 in UTC with milliseconds: in the order of the text.
    let is_wanted = |event: &&Value| {
        let is_late = event["end"].as_str().is_none_or(|end| query.get("from").is_none_or(|from| end >= from.as_str()));
        let is_before = query.get("before").is_none_or(|before| event["id"].as_str().unwrap() < before.as_str());
        event["stream"] == query["stream"].as_str() && is_late && is_before
    };
    let limit = query.get("limit").map_or(100, |limit| limit.parse().unwrap());
    axum::Json(shared.events.lock().unwrap().iter().filter(is_wanted).take(limit).cloned().collect())
}

/// Two classes: red has 40 %, with maxima of 50 %, green 10 %. In the third quarter there are no points.
async fn history(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(query): Parameters,
) -> axum::Json<Value> {
    let time = |key: &str| query[key].parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let (from, to) = (time("from"), time("to"));
    let step = 60_000 * ((to - from) / 60_000 / 720).max(1);
    let times: Vec<i64> = (from / step + 1..=to / step).map(|at| at * step).collect();
    let is_known = |at: &&i64| !(2..3).contains(&(4 * (**at - from) / (to - from)));
    let points = |mean: f64, max: f64| -> Vec<Value> {
        times.iter().filter(is_known).map(|at| json!([at, mean, max])).collect()
    };
    shared.queries.lock().unwrap().push(json!({ "stream": name, "zone": query.get("zone"), "length": to - from }));
    let set = shared.shares.lock().unwrap();
    let series: Vec<Value> = if set.is_empty() {
        vec![
            json!({ "class": "green", "points": points(0.1, 0.1) }),
            json!({ "class": "red", "points": points(0.4, 0.5) }),
        ]
    } else {
        let point = |curve: &Curve, at: i64| {
            let share = curve((to - at) as f64 / 3_600_000.0);
            json!([at, share, share])
        };
        let series = |(class, curve): &(&str, Curve)| json!({ "class": class, "points": times.iter().map(|at| point(curve, *at)).collect::<Vec<_>>() });
        set.iter().map(series).collect()
    };
    axum::Json(
        json!({ "from": query["from"], "to": query["to"], "step_s": step / 1000, "zone": query.get("zone"), "series": series }),
    )
}

async fn live_events(State(shared): State<Arc<Shared>>) -> Response {
    stream("event", shared.live_events.subscribe())
}

async fn live_masks(State(shared): State<Arc<Shared>>) -> Response {
    stream("mask", shared.live_masks.subscribe())
}

/// Server-sent events (HTML, 9.2) of this type.
fn stream(event: &'static str, messages: broadcast::Receiver<String>) -> Response {
    let text = BroadcastStream::new(messages)
        .map(move |message| message.map(|data| format!("event: {event}\ndata: {data}\n\n")));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(text)).into_response()
}

/// The `Host` stays, so that the program sees requests of its own page.
async fn pass_on(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::try_from(format!("http://{}{path}", shared.behind)).unwrap();
    match shared.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
